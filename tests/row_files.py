"""Small images as the rows of Parquet files, in the layouts that people publish."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow, which reads Parquet")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, which reads Parquet")


def png(seed: int, tint: int = 128) -> bytes:
    """The bytes of a small noisy image."""
    pixels = np.clip(np.random.default_rng(seed).normal(tint, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def structs(images: Sequence[bytes | None], paths: Sequence[str | None] | None = None, kind: Any = None) -> Any:
    """A column of structures with bytes and path."""
    names = paths or [None] * len(images)
    type_ = pyarrow.struct([("bytes", kind or pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array([{"bytes": b, "path": p} for b, p in zip(images, names, strict=True)], type_)


def write(path: Path, columns: dict[str, Any], *, features: dict[str, Any] | None = None, **options: Any) -> Path:
    """A Parquet file; with the descriptions of its columns, as ``datasets`` stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, **options)
    return path


def pets(path: Path, count: int = 6, start: int = 0, **options: Any) -> Path:
    """Images with the labels 0 and 1 in turn, which are cat and dog."""
    images = [png(number) for number in range(start, start + count)]
    names = [f"pet_{number}.png" for number in range(start, start + count)]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    columns = {"image": structs(images, names), "label": [number % 2 for number in range(start, start + count)]}
    return write(path, columns, features=features, **options)

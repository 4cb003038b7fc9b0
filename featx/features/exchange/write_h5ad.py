"""An export as AnnData (``.h5ad``), which scanpy and its relatives read.

``X`` is the penultimate or first layer, ``obsm`` holds the others, ``obs`` has a row for each image, and ``uns["featx"]`` the
origin. It is written with h5py in the documented layout, block by block, so that the matrix need not be in memory.
Source: https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from featx.features.exchange.content import MARK, Content
from featx.layer_spec import PENULTIMATE


def write(file: BinaryIO, content: Content, report: Callable[[int], None]) -> None:
    """Write the file.

    Args:
        file: open for reading and writing.
        content: what to write.
        report: gets the number of rows of all layers that are written, as a share of N.
    """
    import h5py

    main = PENULTIMATE if PENULTIMATE in content.layers else next(iter(content.layers))
    with h5py.File(file, "w") as root:
        root.attrs["featx"] = MARK
        _typed(root, "anndata", "0.1.0")
        _write_rows(root, content)
        width = int(np.prod(content.shape(main)[1:]))
        _frame(root, "var", [f"{main}_{number}" for number in range(width)], [])
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            _typed(root.create_group(name), "dict", "0.1.0")
        _write_origin(root["uns"], content)
        targets = {layer: (root, "X") if layer == main else (root["obsm"], _name(layer)) for layer in content.layers}
        for number, (layer, (group, name)) in enumerate(targets.items()):
            flat = int(np.prod(content.shape(layer)[1:]))
            out = group.create_dataset(name, (len(content), flat), dtype="<f4")
            _typed(out, "array", "0.2.0")
            for part, blocks in content.blocks([layer]):
                out[part] = blocks[layer].reshape(-1, flat)
                report((number * len(content) + part.stop) // len(targets))


def _write_rows(root: Any, content: Content) -> None:
    """The table of the images."""
    texts = content.clean_texts()
    paths = texts.pop("path")
    order = ["label", "label_index", "split", "key", *content.columns]
    obs = _frame(root, "obs", paths, [_name(name) for name in order])
    for name in order:
        if name == "label_index":
            _typed(obs.create_dataset(name, data=content.labels), "array", "0.2.0")
        elif name == "label":
            _categories(obs, name, content.labels, content.clean(content.classes, "label"))
        else:
            present, of_row = np.unique(np.array(texts[name], dtype=object).astype(str), return_inverse=True)
            if len(present) <= len(content) // 2 or name == "split":
                _categories(obs, _name(name), of_row, present.tolist())
            else:
                _strings(obs, _name(name), texts[name])


def _write_origin(uns: Any, content: Content) -> None:
    group = uns.create_group("featx")
    _typed(group, "dict", "0.1.0")
    for name, value in content.provenance.items():
        text = value if isinstance(value, str) else json.dumps(value)
        _typed(group.create_dataset(name, data=text, dtype=_text_type()), "string", "0.2.0")
    _strings(group, "classes", content.clean(content.classes, "label"))


def _frame(root: Any, name: str, index: Sequence[str], columns: Sequence[str]) -> Any:
    group = root.create_group(name)
    _typed(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(columns, dtype=object), dtype=_text_type())
    _strings(group, "_index", index)
    return group


def _categories(group: Any, name: str, codes: np.ndarray, categories: Sequence[str]) -> None:
    """A column of few values: the number of each row's value, -1 for none, and the values."""
    inner = group.create_group(name)
    _typed(inner, "categorical", "0.2.0")
    inner.attrs["ordered"] = False
    small = np.int8 if len(categories) < 2**7 else np.int16 if len(categories) < 2**15 else np.int32
    _typed(inner.create_dataset("codes", data=codes.astype(small)), "array", "0.2.0")
    _strings(inner, "categories", categories)


def _strings(group: Any, name: str, values: Sequence[str]) -> None:
    data = np.array(values, dtype=object)
    _typed(group.create_dataset(name, data.shape, dtype=_text_type(), data=data), "string-array", "0.2.0")


def _text_type() -> Any:
    import h5py

    return h5py.string_dtype()


def _typed(target: Any, kind: str, version: str) -> None:
    target.attrs["encoding-type"], target.attrs["encoding-version"] = kind, version


def _name(name: str) -> str:
    """A name of a column or layer in HDF5, where / parts folders and . is the folder itself."""
    name = name.replace("/", "_").replace("\0", "_")
    return name if name.strip(".") else f"_{name}"

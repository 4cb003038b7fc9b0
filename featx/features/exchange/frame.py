"""Features as a data frame of pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError


def as_frame(
    *,
    features: np.ndarray | None,
    labels: np.ndarray,
    classes: Sequence[str],
    splits: np.ndarray,
    paths: np.ndarray,
    keys: np.ndarray,
    columns: Mapping[str, np.ndarray],
) -> Any:
    """A data frame with a row for each image. Arguments as the fields of ``FeatureSet``; ``features`` is (N, D) or None.

    Raises:
        HeadError: pandas is missing.
    """
    try:
        import pandas
    except ImportError as error:
        raise HeadError("to_pandas needs pandas: pip install 'featx[pandas]'") from error
    codes = np.where(labels == UNLABELLED, -1, labels)
    parts: dict[str, Any] = {
        "label": pandas.Categorical.from_codes(codes, categories=list(classes)),
        "split": np.asarray(splits, dtype=object),
        "key": np.array([key.tobytes().hex() for key in keys], dtype=object),
    }
    for name, cells in columns.items():
        parts[name if name not in parts else f"{name}_"] = cells
    index = pandas.Index(np.asarray(paths, dtype=object), name="path")
    frame = pandas.DataFrame(parts, index=index)
    if features is None:
        return frame
    names = [f"embedding_{number}" for number in range(features.shape[1])]
    return pandas.concat([frame, pandas.DataFrame(features, index=index, columns=names)], axis=1)

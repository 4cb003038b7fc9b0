"""A fitted head as plain values and back, for pickle and skops: the bytes of its file, and what its labels were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import CorruptFileError
from featx.features.array_labels import NAMES, NUMBERS, SETS, TABLE, ArrayLabels
from featx.heads import head_file
from featx.heads.head import Head
from featx.text import described

_PLACE = Path("the head of this estimator")


def to_state(head: Head) -> dict[str, Any]:
    """A fitted head as plain values.

    Raises:
        HeadError: an attribute was set to something that could not be read again.
    """
    labels = head._arrays
    return {
        "file": head_file.pack_head(_PLACE, head.get_params(), vars(head)),
        "labels": None if labels is None else {f.name: getattr(labels, f.name) for f in dataclasses.fields(labels)},
    }


def from_state(state: Any) -> Head:
    """Make the head of what ``to_state`` returns. Whatever the state holds, nothing of it is run.

    Raises:
        CorruptFileError: the state is damaged.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("file"), bytes):
        raise CorruptFileError(f"the head of this estimator is {described(state)}; expected the bytes of a head's file")
    params, fitted = head_file.unpack_head(_PLACE, state["file"])
    head = Head(**params)
    head.__dict__.update(fitted)
    if state.get("labels") is not None:
        head._arrays = _labels(state["labels"], head)
    return head


def _labels(state: Any, head: Head) -> ArrayLabels:
    fields = {f.name for f in dataclasses.fields(ArrayLabels)}
    if not isinstance(state, Mapping) or set(state) != fields:
        raise CorruptFileError(
            f"the labels of this estimator are {described(state)}; expected {', '.join(sorted(fields))}"
        )
    labels = ArrayLabels(**state)
    names = (*labels.classes, *labels.columns)
    known = labels.columns if labels.form == TABLE or labels.one_hot else labels.classes
    sound = (
        labels.form in (NAMES, NUMBERS, SETS, TABLE)
        and isinstance(labels.labels, np.ndarray)
        and isinstance(labels.values, np.ndarray)
        and isinstance(labels.one_hot, bool)
        and all(isinstance(name, str) for name in names)
        and (labels.form in (NUMBERS, SETS) or len(labels.values) == len(known))
        and (labels.form != NAMES or set(head.names_) <= {*labels.classes, "value"})
        and (labels.form != TABLE or set(head.names_) <= set(labels.columns))
    )
    if not sound:
        raise CorruptFileError("the labels of this estimator do not fit its head")
    return labels

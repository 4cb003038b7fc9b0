"""Identities of features: several joined, and how two differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def joint_identity(identities: Sequence[str]) -> str:
    """The identity of the features of several layers and views together: SHA-256, in hex; of a single one, its own."""
    first, *others = identities
    return hashlib.sha256("".join(identities).encode()).hexdigest() if others else first


def joint_features(parts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """For each of V views (N, D) of some layers: those side by side, (N, D), and several views one after the other, (N, V, D).

    A single layer in a single view is itself, not a copy.
    """
    views = [layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1) for layers in parts]
    return views[0] if len(views) == 1 else np.stack(views, axis=1)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The parts in which two descriptions of a backbone differ, with both values: "dtype: float32 against float16"."""
    return [
        f"{part}: {brief_value(ours.get(part))} against {brief_value(theirs.get(part))}"
        for part in sorted(ours.keys() | theirs.keys())
        if ours.get(part) != theirs.get(part)
    ]


def brief_value(value: Any) -> str:
    """One part of a description as a message shows it."""
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."

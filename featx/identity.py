"""Identities of features: joining several, and explaining how two differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx.constants import FOREIGN
from featx.layer_spec import LayerSpec


def joint_identity(identities: Sequence[str]) -> str:
    """Join the identities of several layers and views into one, SHA-256 in hex; a single identity stays as it is.

    Examples:
        >>> joint_identity(["foreign:" + "0" * 64, "foreign:" + "1" * 64])[:12]
        'foreign:0969'
    """
    first, *others = identities
    if not others:
        return first
    prefix = f"{FOREIGN}:" if any(each.startswith(f"{FOREIGN}:") for each in identities) else ""
    return prefix + hashlib.sha256("".join(identities).encode()).hexdigest()


def joint_features(parts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Put layers side by side and views one after the other.

    Args:
        parts: for each of V views, the (N, D_i) features of each layer.

    Returns:
        (N, D) for one view, (N, V, D) for several, where D is the sum of D_i. A single layer in a single view is
        returned itself, not as a copy.

    Examples:
        >>> joint_features([[np.zeros((5, 2)), np.zeros((5, 3))]]).shape
        (5, 5)
    """
    views = [layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1) for layers in parts]
    return views[0] if len(views) == 1 else np.stack(views, axis=1)


def features_at(by_name: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    """Join the features of one layer or several, in one view or several, as ``joint_features`` does.

    Args:
        by_name: the (N, D_i) features of each layer and view, by the name under which a feature file stores them.
        layer: a layer spec, as in ``LayerSpec.parse``.

    Examples:
        >>> features_at({"layer3": np.zeros((5, 2)), "penultimate": np.ones((5, 3))}, "layer3,penultimate").shape
        (5, 5)
    """
    return joint_features([[by_name[name] for name in view] for view in LayerSpec.parse(layer).stored])


def differences(ours: Mapping[str, Any] | Sequence[Any], theirs: Mapping[str, Any] | Sequence[Any]) -> list[str]:
    """List the parts in which two descriptions of a backbone differ, with both values.

    Args:
        ours: the parts of one backbone, or the list of several side by side, as ``FeatureSet.join`` describes them.
        theirs: likewise.

    Examples:
        >>> differences({"dtype": "float32"}, {"dtype": "float16"})
        ['dtype: float32 against float16']
        >>> differences({"transform": {"crop": 224, "fit": "pad"}}, {"transform": {"crop": 224}})
        ['transform: fit pad against none']
    """
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return _differences_of_several(ours, theirs)
    found = []
    for part in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(part), theirs.get(part)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(f"{part}: {', '.join(_inner_differences(one, other))}")
        else:
            found.append(f"{part}: {brief_value(one)} against {brief_value(other)}")
    return found


def _differences_of_several(ours: Any, theirs: Any) -> list[str]:
    """As ``differences``, where at least one is a list of backbones side by side."""
    one, other = (
        [f"{part['backbone'].get('name', '?')} {part['layer']}" for part in parts]
        if isinstance(parts, list)
        else ["one backbone"]
        for parts in (ours, theirs)
    )
    if one != other:
        return [f"backbones: {', '.join(one)} against {', '.join(other)}"]
    return [
        f"{mine['backbone'].get('name', '?')} {difference}"
        for mine, its in zip(ours, theirs, strict=True)
        for difference in differences(mine["backbone"].get("parts", {}), its["backbone"].get("parts", {}))
    ]


def _inner_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """As ``differences`` for a part that has named values itself; one that is left out in a description is "none"."""
    return [
        f"{name} {brief_value(ours.get(name, 'none'))} against {brief_value(theirs.get(name, 'none'))}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def brief_value(value: Any) -> str:
    """Format one part of a description for a message, at most 200 characters."""
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."

"""The identities of a backbone's features, which stored features may have in two forms: with the last layer, or without it.

No feature depends on the last layer, except those of layers after it. The identity of a network's default weights holds it all
the same, as it always has; that of weights from a file does not, because files often lack it. Features of the same tensors may
be stored under either.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from featx.layer_spec import LayerNode, RandomView, View, stored_name

LAST = "last"
"""The key of an architecture whose value only the last layer depends on."""


class Identified(Protocol):
    """A backbone, as far as its identities are concerned."""

    last_counts: bool

    def identity_of(self, layer: str) -> str | None:
        """The identity of the features that a layer spec names, or None if they are not extracted."""
        ...


Form = TypeVar("Form", bound=Identified)


def digest_of(parts: Mapping[str, Any]) -> str:
    """The SHA-256, in hex, of parts as canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def view_identities(
    parts: Mapping[str, Any],
    layers: Mapping[LayerNode, str],
    views: tuple[View | RandomView, ...],
    weights: Mapping[str, str],
    last_counts: bool,
) -> dict[str, str]:
    """The identity of each layer in each view.

    Args:
        parts: what the features of all layers depend on.
        layers: the name of each layer.
        views: the views.
        weights: another digest of the weights, for layers that depend on the last layer.
        last_counts: whether the last layer is part of the identity of layers that do not depend on it.
    """
    architecture = {key: value for key, value in parts["architecture"].items() if last_counts or key != LAST}
    without_last = {**parts, "architecture": architecture}
    return {
        stored_name(name, view): digest_of(
            {
                **({**parts, "weights_sha256": weights[name]} if name in weights else without_last),
                **view.facts,
                "layer": node.node,
                "pooling": node.pooling,
            }
        )
        for view in views
        for node, name in layers.items()
    }


def other_form(backbone: Form) -> Form:
    """The same backbone under the other of its two identities."""
    other = copy.copy(backbone)
    other.last_counts = not backbone.last_counts
    return other


def in_stored_form(backbone: Form, identities: Mapping[str, str]) -> Form:
    """The backbone under the identity that features are stored with; itself if they have neither.

    Args:
        backbone: the backbone.
        identities: the identity of the features, by layer spec (as in ``LayerSpec.parse``).
    """
    for form in (backbone, other_form(backbone)):
        if all(form.identity_of(layer) == identity for layer, identity in identities.items()):
            return form
    return backbone

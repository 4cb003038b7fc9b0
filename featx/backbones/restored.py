"""The backbone that stored features came from, built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.identities import in_stored_form
from featx.backbones.joint import JointBackbone, Part
from featx.backbones.replacements import replacements
from featx.constants import FOREIGN, JOINT
from featx.data.transform import Transform
from featx.errors import BackboneError, StaleCacheError
from featx.identity import differences
from featx.layer_spec import LayerSpec


def restore_backbone(
    described: Mapping[str, Any],
    *,
    layers: Mapping[str, str],
    name: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> Backbone:
    """Build the backbone that stored features came from, and check that it gives the same features.

    Args:
        described: name, weights and parts, as a feature file or head stores them; or those of several backbones side by side.
        layers: the identity of the features, by layer spec (as in ``LayerSpec.parse``).
        name: replaces the stored name; required for a file of code, because a stored path is never run. Of several backbones
            ``PART=NAME``, see ``replacements``.
        weights: replaces the stored weights, for a file that has moved. Of several backbones ``PART=FILE``.
        device: as in ``load_backbone``.

    Raises:
        BackboneError: the backbone cannot be built here, or the features come from another tool.
        StaleCacheError: it can be built but gives other features. The message names the parts that differ.

    Examples:
        >>> first = load_backbone("lenet5", device="cpu")
        >>> stored = {"name": first.name, "weights": first.weights, "parts": first.describe()}
        >>> restore_backbone(stored, layers=first.identities, device="cpu").identity == first.identity
        True
    """
    if described.get("source") == JOINT:
        return _restore_joint(described, layers, name, weights, device)
    stored, parts = str(described["name"]), described["parts"]
    if FOREIGN in parts:
        raise BackboneError(
            f"the features were computed by another tool and imported ({stored}), so featx cannot compute them for images; "
            "name a file of imported vectors in their place, or use features that featx extract computes"
        )
    if name is None and ".py:" in stored:
        raise BackboneError(
            f"the backbone is {stored}, a file of code, and a stored path is never run; name it with --backbone {stored}"
        )
    try:
        transform = Transform.from_dict(parts["transform"])
        dtype, precision = str(parts["dtype"]), str(parts["precision"])
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"the stored description of {stored} is not valid: {error}") from error
    specs = list(map(LayerSpec.parse, layers))
    backbone = load_backbone(
        name or stored,
        weights=weights or described["weights"],
        layers=[name for spec in specs for name in spec.layers],
        dtype=dtype,
        precision=precision,
        device=device,
        transform=transform,
    ).with_views(tuple(dict.fromkeys(view for spec in specs for view in spec.views)))
    backbone = in_stored_form(backbone, layers)
    _require_same_features(backbone, parts, layers)
    return backbone


def _restore_joint(
    described: Mapping[str, Any], layers: Mapping[str, str], name: str | None, weights: str | None, device: str
) -> JointBackbone:
    """Build several backbones that are side by side, and check each one."""
    stored = described["parts"]
    names = [str(part["backbone"]["name"]) for part in stored]
    new_names, new_weights = replacements(name, names, "--backbone"), replacements(weights, names, "--weights")
    parts = []
    for part, new_name, new_weight in zip(stored, new_names, new_weights, strict=True):
        backbone = restore_backbone(
            part["backbone"], layers={part["layer"]: part["identity"]}, name=new_name, weights=new_weight, device=device
        )
        parts.append(Part(backbone, LayerSpec.parse(part["layer"]).layers))
    joint = JointBackbone(parts)
    _require_same_features(joint, joint.describe(), layers)
    return joint


def _require_same_features(backbone: Backbone, parts: Mapping[str, Any], layers: Mapping[str, str]) -> None:
    """Check that a backbone's features have the stored identities; name the parts that differ otherwise."""
    if all(backbone.identity_of(layer) == identity for layer, identity in layers.items()):
        return
    stored = {f"identity of {layer}": identity for layer, identity in layers.items()}
    here = {f"identity of {layer}": backbone.identity_of(layer) for layer in layers}
    different = "; ".join(differences(parts, backbone.describe()) or differences(stored, here))
    raise StaleCacheError(f"{backbone.name} gives other features here than the stored ones ({different})")

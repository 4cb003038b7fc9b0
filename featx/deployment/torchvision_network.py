"""A network of torchvision as torchvision builds it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from featx.deployment.library_network import FEATURES, LOGITS, LibraryNetwork, OwnNetwork, fits, possible


def torchvision_network(own: OwnNetwork) -> LibraryNetwork | None:
    """A network as ``torchvision.models.NAME(num_classes=C)`` loads its tensors; None if torchvision does not build it so."""
    models: Any = import_module("torchvision.models")
    name, size = own.origin["name"], own.origin.get("image_size")
    arguments: dict[str, Any] = {"image_size": int(size)} if size else {}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    for gives in possible(own):
        if gives == LOGITS:
            arguments["num_classes"] = len(own.classes)
        else:
            arguments.pop("num_classes", None)
        tensors = own.tensors(with_classifier=gives == LOGITS)
        try:
            module = models.get_model(name, weights=None, **arguments).eval()
            if gives == FEATURES:
                module.set_submodule(own.classifier, nn.Identity())
            module.load_state_dict(tensors)
            if not fits(own, gives, module):
                continue
        except Exception:  # each model has code of its own, and another network is the answer to all of its errors
            continue
        return _described(own, gives, tensors, name, arguments)
    return None


def _described(
    own: OwnNetwork, gives: str, tensors: dict[str, Any], name: str, arguments: dict[str, Any]
) -> LibraryNetwork:
    call = ", ".join([*(f"{key}={value!r}" for key, value in arguments.items())])
    cut = "" if gives == LOGITS else f'network.set_submodule("{own.classifier}", torch.nn.Identity())\n'
    usage = (
        "import torch, torchvision\nfrom safetensors.torch import load_file\n\n"
        f"network = torchvision.models.{name}({call}).eval()\n{cut}"
        'network.load_state_dict(load_file("FOLDER/model.safetensors"))\n'
    )
    config = {
        "library_name": "torchvision",
        "torchvision_model": name,
        "arguments": arguments,
        "build": f"torchvision.models.{name}({call})",
        "num_classes": len(own.classes),
        "gives": gives,
    }
    return LibraryNetwork("torchvision", gives, tensors, config, usage)

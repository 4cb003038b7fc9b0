"""What leaves this machine with a model: its facts without the paths of the folders and files that it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_PATH = re.compile(
    r"(?<![\w.:/])(?:file://)?(?:[A-Za-z]:[\\/]|~?/)(?:[^\s/\\'\"(),;:]+[\\/])*(?P<last>[^\s/\\'\"(),;:]*)"
)
"""An absolute path in a sentence, up to white space or a mark that ends it."""


def published(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a whole model as an exported file may say them to anybody.

    Args:
        facts: as in ``WholeModel.facts``.

    Examples:
        >>> published({"name": "pets", "backbone": "nets/mine.py:build", "dataset": {"name": "pets", "root": "/home/ann/pets"}})
        {'name': 'pets', 'backbone': 'mine.py:build', 'dataset': {'name': 'pets'}}
    """
    found = {name: value if name == "classes" else without_paths(value) for name, value in facts.items()}
    if "backbone" in found:
        found["backbone"] = backbone_name(str(facts["backbone"]))
    if "backbones" in found:
        found["backbones"] = [{**part, "name": backbone_name(str(part["name"]))} for part in facts["backbones"]]
        found["backbone"] = "+".join(part["name"] for part in found["backbones"])
    if facts.get("dataset"):
        known = facts["dataset"]
        splits = {"splits": known["splits"]} if isinstance(known.get("splits"), str) else {}
        found["dataset"] = {"name": last_part(str(known.get("name", ""))), **without_paths(splits)}
    return found


def without_paths(value: Any) -> Any:
    """The same value, in whose texts each absolute path is its last part alone.

    Examples:
        >>> without_paths(["fitted to /home/ann/cache/pets.h5, which is gone", 3])
        ['fitted to pets.h5, which is gone', 3]
    """
    if isinstance(value, str):
        return _PATH.sub(lambda found: found["last"] or "...", value)
    if isinstance(value, Mapping):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    return value


def last_part(path: str) -> str:
    r"""The last part of a path of either kind of system, or of a URL.

    Examples:
        >>> last_part("C:\\photos\\pets"), last_part("/home/ann/pets/"), last_part("pets")
        ('pets', 'pets', 'pets')
    """
    return PurePath(path.replace("\\", "/")).name


def backbone_name(name: str) -> str:
    """The name of a backbone, without the folder of a file of code or of a local model.

    Examples:
        >>> backbone_name("hf/./models/vit"), backbone_name("timm/resnet50.a1_in1k"), backbone_name("hf/google/vit-base")
        ('hf/vit', 'timm/resnet50.a1_in1k', 'hf/google/vit-base')
    """
    if ".py:" in name:
        return last_part(name)
    prefix, _, rest = name.partition("/")
    if prefix in ("hf", "open_clip") and re.match(r"[./~]|[A-Za-z]:[\\/]", rest):
        return f"{prefix}/{last_part(rest)}"
    return name

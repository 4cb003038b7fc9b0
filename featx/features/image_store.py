"""The images of a feature file: where they lie, opened again, and how they were read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from featx.data.joint_transform import AnyTransform, JointTransform
from featx.data.openers import open_store
from featx.data.places import is_remote
from featx.data.store import Store
from featx.data.transform import Transform
from featx.errors import DatasetError
from featx.features.feature_set import FeatureSet
from featx.features.file_marks import is_own
from featx.features.file_set import Features
from featx.features.joint_sets import is_joint
from featx.text import native


def image_store(dataset: Mapping[str, Any], paths: Iterable[str], source: Path | None) -> Store:
    """Open the images that a feature file names.

    A file that somebody else made may name any URL. No request is sent to one that this user's featx has not read before.

    Args:
        dataset: the description of the data set in the feature file.
        paths: of the images that are to be read.
        source: the feature file; None if there is none.

    Raises:
        DatasetError: the data set is gone, or its images lie on another machine and this user's featx has never read them.
    """
    root = native(str(dataset["root"]))
    far = root if is_remote(root) else next(filter(is_remote, paths), "")
    if far and not is_own(source):
        data = dataset.get("table") or root
        raise DatasetError(
            f"the images are on another machine, such as {far}, and {source or 'the feature file'} was not made here, so "
            f"they are not asked for. featx extract {data}, with that file in its cache folder and the same backbone, settles "
            "that without a forward pass"
        )
    return open_store(root)


def image_places(features: FeatureSet | Features | None) -> tuple[str, set[str]]:
    """The root of a data set and the paths of its images, which no result may take the place of; nothing without features."""
    return places_of(features.dataset, features.paths) if features else ("", set())


def places_of(dataset: Mapping[str, Any], paths: Iterable[str]) -> tuple[str, set[str]]:
    """As ``image_places``, of the description of a data set; that of imported features may have no root."""
    return str(dataset.get("root", "")), set(paths)


def stored_transform(backbone: Mapping[str, Any]) -> Transform:
    """The transform that images were read with; the default one for features that are not from a backbone.

    Args:
        backbone: the description of the backbone in a feature file.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return Transform.from_dict(backbone["parts"]["transform"])
    return Transform()


def joint_transform(backbone: Mapping[str, Any]) -> AnyTransform:
    """As ``stored_transform``; of several backbones side by side, the transform of all of them."""
    if is_joint(backbone):
        return JointTransform(tuple(stored_transform(part["backbone"]) for part in backbone["parts"]))
    return stored_transform(backbone)

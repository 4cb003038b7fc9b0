"""The last layer, which no feature depends on: features are shared by files with it, without it and with another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import featx
from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import BackboneError
from featx.inference import HeadOnBackbone


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files of LeNet-5's embedded weights: whole, without its last layer, and with one of other classes."""
    state = load_backbone("lenet5").network.state_dict()
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    save_file(state, tmp_path / "whole.safetensors")
    save_file(headless, tmp_path / "headless.safetensors")
    other = {**headless, "classifier.weight": torch.ones(9, 84), "classifier.bias": torch.ones(9)}
    torch.save({"state_dict": other}, tmp_path / "other.pth")
    return {name: str(tmp_path / name) for name in ("whole.safetensors", "headless.safetensors", "other.pth")}


def loaded(weights: str = "default", **options: str) -> Backbone:
    return load_backbone("lenet5", weights=weights, device="cpu", **options)  # type: ignore[arg-type]


def test_all_files_of_one_backbone_give_one_identity(files: dict[str, str]) -> None:
    assert len({loaded(file).identity for file in files.values()}) == 1


def test_features_are_reused_under_either_identity(files: dict[str, str], tmp_path: Path) -> None:
    whole = files["whole.safetensors"]
    for first, *others in (["default", whole], [whole, "default"], list(files.values()), list(files.values())[::-1]):
        cache = tmp_path / f"{Path(first).stem} {len(others)}"
        made = featx.extract("digits", loaded(first), cache=cache)
        for weights in others:
            again = featx.extract("digits", loaded(weights), cache=cache)
            assert (again.computed, again.file, again.identity) == (0, made.file, made.identity)
        head = featx.Head("centroid").fit(made.load())
        for weights in (first, *others):
            model = HeadOnBackbone(head, loaded(weights))
            assert model.backbone.identity_of("penultimate") == head.identity_


def test_features_are_shared_between_data_sets_under_either_identity(
    files: dict[str, str], tmp_path: Path, photos: Path
) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    featx.extract(photos, loaded(), cache=tmp_path / "cache")
    again = featx.extract(tmp_path / "copy", loaded(files["whole.safetensors"]), cache=tmp_path / "cache")
    assert again.computed == 0
    assert again.reused > 0


def test_layers_behind_the_last_one_depend_on_it(files: dict[str, str]) -> None:
    whole = loaded(files["whole.safetensors"], layers="classifier")
    assert whole.identities["classifier"] == loaded(layers="classifier").identities["classifier"]
    assert whole.identities["penultimate"] == loaded(files["headless.safetensors"]).identities["penultimate"]
    for file in ("headless.safetensors", "other.pth"):
        with pytest.raises(
            BackboneError, match=r"layer 'classifier' depends on the last layer of lenet5, classifier, which is not"
        ):
            loaded(files[file], layers="classifier")
    inner = loaded(files["headless.safetensors"], layers="hidden.1")
    assert inner.identities["hidden.1"] == loaded(files["whole.safetensors"], layers="hidden.1").identities["hidden.1"]
    np.testing.assert_array_equal(
        inner.encode(np.zeros((1, 3, 32, 32), np.uint8))["hidden.1"],
        loaded(layers="hidden.1").encode(np.zeros((1, 3, 32, 32), np.uint8))["hidden.1"],
    )

"""Heads on several backbones as files that run without featx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joint_pair import JointPair

from featx.data.joint_transform import JointTransform
from featx.data.transform import Transform
from featx.deployment.exporting import export_model
from featx.deployment.preprocessing import Preprocess, preprocess_of
from featx.deployment.symbolic import symbolic
from featx.errors import ExportError
from featx.inference import HeadOnBackbone
from featx.layer_spec import VIEWS

TRANSFORMS = (Transform(resize=40, crop=32), Transform(resize=20, crop=16, channels=1, mean=(0.5,), std=(0.5,)))


@pytest.fixture(scope="module")
def model(joint_pair: JointPair) -> HeadOnBackbone:
    return joint_pair.model()


@pytest.fixture(scope="module")
def folder(model: HeadOnBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(model, f"{tmp_path_factory.mktemp('exported')}/model/").path


def test_each_network_gets_its_own_pixels_of_the_same_image() -> None:
    joint = preprocess_of(JointTransform(TRANSFORMS), VIEWS["flip"])
    images = torch.randint(0, 256, (2, 50, 70, 3), dtype=torch.uint8)
    packed = joint(images)
    for found, transform in zip(JointTransform(TRANSFORMS).split(packed), TRANSFORMS, strict=True):
        assert torch.equal(found, Preprocess(transform, VIEWS["flip"])(images))
    assert torch.equal(symbolic(joint)(images), packed)
    assert torch.equal(joint.exported()(images)[..., : 3 * 32 * 32], packed[..., : 3 * 32 * 32])


def test_networks_that_read_files_in_different_ways_are_refused() -> None:
    navy = Transform(resize=20, crop=16, background=(0, 0, 128))
    with pytest.raises(ExportError, match="read an image file in different ways"):
        preprocess_of(JointTransform((TRANSFORMS[0], navy)), VIEWS["plain"])


def test_a_folder_predicts_by_torch_alone_and_its_card_names_all_backbones(folder: Path) -> None:
    expected = json.loads((folder / "example.json").read_text())
    command = [sys.executable, "predict.py", "example.ppm"]
    found = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    assert found["label"] == expected["label"]
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    card = (folder / "README.md").read_text()
    assert "- backbone: lenet5, layer penultimate\n- backbone: tiny.py:tiny, layer penultimate, conv2:max" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["library_name"] == "featx"
    assert len(config["network"]["parts"]) == 2
    assert not (folder / "preprocessor_config.json").exists()
    assert "code_sha256" not in (folder / "config.json").read_text()


def test_the_program_takes_batches_of_any_size(folder: Path, model: HeadOnBackbone) -> None:
    program = torch.export.load(folder / "model.pt2").module()
    images = np.random.default_rng(0).integers(0, 256, (3, 45, 61, 3), dtype=np.uint8)
    found = program(torch.from_numpy(images))["probabilities"]
    pixels = preprocess_of(model.transform, model.views)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, model.predict_values(pixels), atol=1e-4)

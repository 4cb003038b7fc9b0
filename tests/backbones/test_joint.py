"""Several backbones side by side as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from joint_pair import JointPair

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.joint import JointBackbone, Part, embedder_of
from featx.backbones.pixels import normalise
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError, StaleCacheError

LAYER = "penultimate@flip"


@pytest.fixture(scope="module")
def parts(joint_pair: JointPair) -> list[Part]:
    first = load_backbone("lenet5", views="flip", device="cpu")
    return [Part(first, ("penultimate",)), Part(joint_pair.second(dtype="float16"), ("conv2:max", "penultimate"))]


@pytest.fixture(scope="module")
def joint(parts: list[Part]) -> JointBackbone:
    return JointBackbone(parts)


@pytest.fixture
def pixels(joint: JointBackbone) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 2, *joint.transform.shape), dtype=np.uint8)


def alone(joint: JointBackbone, pixels: np.ndarray) -> list[np.ndarray]:
    return [
        part.backbone.encode_at(some, part.spec(joint.views))
        for part, some in zip(joint.parts, joint.transform.split(pixels), strict=True)
    ]


def test_its_features_are_those_of_each_backbone_side_by_side(joint: JointBackbone, pixels: np.ndarray) -> None:
    found = joint.encode_at(pixels, LAYER)
    assert found.shape == (3, 2, 84 + 24)
    np.testing.assert_array_equal(found, np.concatenate(alone(joint, pixels), axis=-1))


def test_networks_run_only_on_images_whose_features_are_not_known(
    joint: JointBackbone, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = alone(joint, pixels)
    ran: list[tuple[str, int]] = []
    encode = Backbone.encode
    monkeypatch.setattr(
        Backbone, "encode", lambda self, some: (ran.append((self.name, len(some))), encode(self, some))[1]
    )
    known = [(np.array([True, True, True]), first), (np.array([False, True, False]), second[[1]])]
    found = joint.encode_rest(pixels, LAYER, known)
    np.testing.assert_array_equal(found, np.concatenate([first, second], axis=-1))
    assert [count for _, count in ran] == [2 * 2]  # two images of the second backbone, in two views


def test_as_one_module_it_gives_the_same_features(joint: JointBackbone, pixels: np.ndarray) -> None:
    with torch.inference_mode():
        images = normalise(torch.from_numpy(pixels).flatten(0, 1), joint.transform)
        found = embedder_of(joint, LAYER)(images).numpy().reshape(3, 2, -1)
    np.testing.assert_allclose(found, joint.encode_at(pixels, LAYER), atol=1e-3)


def stored(joint: JointBackbone) -> dict[str, object]:
    parts = [
        {
            "backbone": {"name": p.backbone.name, "weights": p.backbone.weights, "parts": p.backbone.describe()},
            "layer": p.spec(joint.views), "identity": p.identity(joint.views), "width": p.width, "file": "",
        }
        for p in joint.parts
    ]  # fmt: skip
    return {"name": joint.name, "source": "joint", "parts": parts}


def test_it_is_built_again_from_what_is_stored_once_the_code_is_named(
    joint: JointBackbone, joint_pair: JointPair
) -> None:
    identity = {LAYER: str(joint.identity_of(LAYER))}
    with pytest.raises(BackboneError, match="a stored path is never run; name it with --backbone"):
        restore_backbone(stored(joint), layers=identity, device="cpu")
    for name in (joint_pair.code, f"{joint_pair.code}={joint_pair.code}", f"2={joint_pair.code}"):
        assert restore_backbone(stored(joint), layers=identity, name=name, device="cpu").identities == joint.identities


def test_a_part_that_gives_other_features_is_named(joint: JointBackbone, joint_pair: JointPair) -> None:
    described = stored(joint)
    described["parts"][0]["backbone"]["parts"]["weights_sha256"] = "0" * 64  # type: ignore[index]
    described["parts"][0]["identity"] = "0" * 64  # type: ignore[index]
    with pytest.raises(StaleCacheError, match=r"lenet5 gives other features here .*weights_sha256"):
        restore_backbone(described, layers={LAYER: "0" * 64}, name=joint_pair.code, device="cpu")


def test_a_replacement_must_say_which_backbone_it_replaces(joint: JointBackbone) -> None:
    with pytest.raises(
        BackboneError, match=r"--weights is 'new\.pth'; this head is on 2 backbones.* --weights lenet5=\.\.\."
    ):
        restore_backbone(stored(joint), layers={LAYER: "0" * 64}, weights="new.pth", device="cpu")


def test_pixels_of_another_shape_are_refused_in_words(joint: JointBackbone) -> None:
    with pytest.raises(
        BackboneError, match=r"pixels have the shape \(1, 3, 32, 32\); expected \(B, 3648\); .*read_all_views"
    ):
        joint.encode(np.zeros((1, 3, 32, 32), dtype=np.uint8))

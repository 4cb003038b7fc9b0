"""Images found by a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vision_models
from command_line import featx as run

import featx
from featx.errors import BackboneError, HeadError


@pytest.fixture
def clip_features(split_photos: Path, tmp_path: Path) -> Path:
    """Features of a tiny random CLIP, at two layers."""
    vision_models.clip(tmp_path / "clip")
    backbone = featx.load_backbone(f"hf/{tmp_path}/clip", layers="pooled", device="cpu")
    return Path(featx.extract(split_photos, backbone, cache=tmp_path / "cache").file)


def test_images_are_found_by_the_cosine_of_image_and_text(clip_features: Path) -> None:
    features = featx.FeatureSet.load(clip_features)
    backbone = featx.load_backbone(features.backbone["name"], device="cpu")
    unit = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    image = str(features.paths[3])
    sentence, other, found = featx.search(clip_features, [image], text=["a photo of a dog", "light"], top=4)
    cosines = unit @ backbone.encode_text(["a photo of a dog", "light"]).T
    for result, column in ((sentence, cosines[:, 0]), (other, cosines[:, 1])):
        assert [hit.row for hit in result.hits] == np.argsort(-column, kind="stable")[:4].tolist()
        np.testing.assert_allclose([hit.similarity for hit in result.hits], np.sort(column)[::-1][:4], atol=1e-5)
    assert (sentence.query, sentence.is_text, sentence.row, found.query, found.row) == (
        "a photo of a dog",
        True,
        None,
        image,
        3,
    )


def test_the_command_takes_sentences_with_the_other_options(clip_features: Path, in_tmp: Path) -> None:
    shown = run(
        "search", clip_features, "--text", "a photo, of a dog", "--top", 2, "--split", "val", "--sheet", "s.html"
    ).stdout
    lines = shown.splitlines()
    assert lines[0] == "query,rank,path,label,split,similarity,error"
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ['"a photo', ' of a dog"', "1"],
        ['"a photo', ' of a dog"', "2"],
    ]
    assert all(",val," in line for line in lines[1:])
    page = Path("s.html").read_text()
    assert "a photo, of a dog" in page
    assert "cannot be read" not in page
    run("search", clip_features, status=2)


def test_text_needs_a_text_tower_and_its_layer(clip_features: Path, split_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match="only features of the penultimate layer can be compared with text, not those of pooled"
    ):
        featx.search(clip_features, text="dog", layer="pooled")
    plain = featx.extract(split_photos, "lenet5", cache=tmp_path / "other").file
    with pytest.raises(BackboneError, match="lenet5 has no text tower"):
        featx.search(plain, text="dog")

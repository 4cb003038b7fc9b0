"""``Backbone.embed``: images in whatever form to features, without a cache."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import BackboneError, DatasetError, ImageError, SettingsError
from featx.extraction.pipeline import extract


@pytest.fixture(scope="module")
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


def test_every_form_of_one_image_has_the_same_features(photos: Path, lenet: Backbone) -> None:
    file = photos / "dark/00.png"
    with Image.open(file) as image:
        forms = [file, str(file), file.read_bytes(), image, np.asarray(image), io.BytesIO(file.read_bytes()), [file]]
        found = [lenet.embed(form) for form in forms]
    assert all(rows.shape == (1, 84) and rows.dtype == np.float32 for rows in found)
    assert all(np.array_equal(rows, found[0]) for rows in found)


def test_a_folder_and_a_list_are_embedded_as_they_are_extracted(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    features = extract(photos, lenet, cache=tmp_path / "cache").load()
    np.testing.assert_allclose(lenet.embed(photos), features.features, atol=1e-5)
    names = [photos / path for path in features.paths[[7, 3, 30]]]
    np.testing.assert_allclose(lenet.embed(iter(names), batch_size=2), features.features[[7, 3, 30]], atol=1e-5)


def test_any_layer_and_views_can_be_embedded(photos: Path, lenet: Backbone) -> None:
    file = photos / "dark/00.png"
    assert lenet.embed(file, layer="features.3:max").shape[0] == 1
    both = lenet.embed(file, layer="penultimate@flip")
    assert both.shape == (1, 2, 84)
    np.testing.assert_allclose(both[:, 0], lenet.embed(file), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "options", "kind", "message"),
    [
        ("gone.jpg", {}, ImageError, r"^gone\.jpg: cannot be read: No such file or directory$"),
        ([b"no image"], {}, ImageError, r"^image 0: "),
        ([], {}, DatasetError, r"^there are no images; expected at least one$"),
        (7, {}, DatasetError, r"^the images are an int, 7; expected an image file"),
        (b"", {"batch_size": 0}, SettingsError, r"^batch_size is 0; expected a whole number above 0$"),
        (b"", {"layer": "none"}, BackboneError, r"none"),
    ],
)
def test_what_cannot_be_embedded_is_named(
    images: object, options: dict[str, object], kind: type[Exception], message: str, lenet: Backbone
) -> None:
    with pytest.raises(kind, match=message):
        lenet.embed(images, **options)  # type: ignore[arg-type]

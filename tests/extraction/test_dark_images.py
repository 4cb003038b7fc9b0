"""The note that images use a small part of their type's range, and the value range that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featx
from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError, DatasetError, SettingsError
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile
from featx.reporter import Reporter


def image_folder(folder: Path, values: Any, ending: str = ".png") -> Path:
    """Two classes of six images each, of grey levels 0 to 255 that ``values`` turns into the stored ones."""
    rng = np.random.default_rng(0)
    for label, mean in (("dark", 80), ("light", 150)):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            grey = np.clip(rng.normal(mean, 40, (40, 40)), 0, 255)
            Image.fromarray(values(grey)).save(folder / label / f"{number}{ending}")
    return folder


DEPTHS = {
    "12": lambda grey: (grey * 16).astype(np.uint16),
    "10": lambda grey: (grey * 4).astype(np.uint16),
    "8": lambda grey: grey.astype(np.uint16),
    "0-15": lambda grey: (grey / 16).astype(np.uint8),
}


class Noted(Reporter):
    """Keeps the notes, and how often the network had run by then."""

    def __init__(self, runs: list[int]) -> None:
        self.notes: list[tuple[str, int]] = []
        self._runs = runs

    def note(self, sentence: str) -> None:
        self.notes.append((sentence, len(self._runs)))


@pytest.mark.parametrize("option", DEPTHS)
def test_low_values_are_noted_before_the_network_runs(
    option: str, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    reporter = Noted(encoded)
    result = extract(image_folder(tmp_path / "a", DEPTHS[option]), lenet, cache=tmp_path / "cache", reporter=reporter)
    ((note, runs),) = reporter.notes
    assert note.startswith("the first 8 images are nearly black: the ")
    assert f"--value-range {option} uses the whole range" in note
    assert (runs, note in result.notes) == (0, True)


def test_floats_that_end_low_are_noted_with_bounds(tmp_path: Path, lenet: Backbone) -> None:
    folder = image_folder(tmp_path / "a", lambda grey: (grey / 255 * 0.2).astype(np.float32), ".tif")
    (note,) = extract(folder, lenet, cache=tmp_path / "cache").notes
    assert "the float values end at 0." in note
    assert "--value-range 0-0.21 uses" in note


def test_images_that_use_their_range_bring_no_note_and_are_read_once(
    tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.extraction.dark_images.peek", lambda *_, **__: pytest.fail("looked at all the same"))
    folder = image_folder(tmp_path / "a", lambda grey: (grey * 257).astype(np.uint16))
    assert extract(folder, lenet, cache=tmp_path / "cache").notes == ()


def test_one_light_image_among_the_first_suffices(tmp_path: Path, lenet: Backbone) -> None:
    folder = image_folder(tmp_path / "a", DEPTHS["12"])
    Image.fromarray(np.full((40, 40), 60_000, np.uint16)).save(folder / "dark" / "2.png")
    assert extract(folder, lenet, cache=tmp_path / "cache").notes == ()


def test_images_of_8_bits_beside_them_do_not_hide_low_values(tmp_path: Path, lenet: Backbone) -> None:
    folder = image_folder(tmp_path / "a", DEPTHS["12"])
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(folder / "dark" / "2.png")
    (note,) = extract(folder, lenet, cache=tmp_path / "cache").notes
    assert note.startswith("the first 7 images are nearly black: the 16-bit values")


def test_black_images_bring_no_note(tmp_path: Path, lenet: Backbone) -> None:
    folder = image_folder(tmp_path / "a", lambda grey: np.zeros_like(grey, np.uint16))
    assert extract(folder, lenet, cache=tmp_path / "cache").notes == ()


@pytest.mark.parametrize("option", ["12", "10", "0-15"])
def test_a_value_range_gives_the_features_of_the_full_range(option: str, tmp_path: Path) -> None:
    full = load_backbone("lenet5", device="cpu")
    ranged = load_backbone("lenet5", device="cpu", value_range=option)
    assert ranged.identity != full.identity
    one = extract(image_folder(tmp_path / "low", DEPTHS[option]), ranged, cache=tmp_path / "cache")
    two = extract(image_folder(tmp_path / "full", lambda g: g.astype(np.uint8)), full, cache=tmp_path / "cache")
    assert one.notes == ()
    a, b = one.load().features, two.load().features
    assert np.linalg.norm(a - b) / np.linalg.norm(b) < (0.1 if option == "0-15" else 0.02)
    dark = extract(image_folder(tmp_path / "dark", DEPTHS[option]), full, cache=tmp_path / "cache").load().features
    assert np.linalg.norm(dark - b) / np.linalg.norm(b) > 0.4


def test_the_range_is_part_of_the_identity_however_it_is_written(tmp_path: Path) -> None:
    written = ["12", 12, "0-4095", (0, 4095), [0.0, 4095.0]]
    identities = {load_backbone("lenet5", device="cpu", value_range=each).identity for each in written}
    assert len(identities) == 1
    assert load_backbone("lenet5", device="cpu", value_range="16").identity not in identities
    assert load_backbone("lenet5", device="cpu", bands="1,2,3").identity not in identities


@pytest.mark.parametrize(
    ("option", "value"), [("value_range", "13"), ("value_range", (2, 1)), ("bands", "0"), ("bands", [1, 1])]
)
def test_a_wrong_range_or_band_is_an_error(option: str, value: Any) -> None:
    with pytest.raises(BackboneError, match=r"^--(value-range|bands) .*; expected "):
        load_backbone("lenet5", device="cpu", **{option: value})


def test_values_out_of_range_fail_with_a_range_that_fits(tmp_path: Path, lenet: Backbone) -> None:
    folder = image_folder(tmp_path / "a", lambda grey: grey.astype(np.float32), ".tif")
    with pytest.raises(DatasetError, match=r"grey values from .* expected 0 to 1 \(--value-range 0-255 would fit\)$"):
        extract(folder, lenet, cache=tmp_path / "cache")
    ranged = load_backbone("lenet5", device="cpu", value_range="0-255")
    assert extract(folder, ranged, cache=tmp_path / "cache").failed == 0


def test_a_head_reads_new_images_in_the_range_of_its_features(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "a", DEPTHS["12"])
    ranged = load_backbone("lenet5", device="cpu", value_range="12")
    file = extract(folder, ranged, cache=tmp_path / "cache").file
    restored = restore_backbone(FeatureFile(file).backbone, layers=ranged.identities, device="cpu")
    assert restored.transform.value_range == (0, 4095)
    fit = featx.fit_head(file, "centroid", models=tmp_path / "models")
    found = featx.predict(fit.path, [folder])
    features = FeatureFile(file)
    by_path = dict(zip(features.paths, features.features("penultimate"), strict=True))
    head = featx.Head.load(fit.path)
    for prediction in found:
        row = by_path[Path(prediction.path).relative_to(folder).as_posix()]
        expected = head.predict_proba(row[None])[0].max()
        assert prediction.top[0][1] == pytest.approx(expected, abs=1e-5)
    promoted = featx.promote(fit.path, models=tmp_path / "models", device="cpu")
    assert promoted.model.transform.value_range == (0, 4095)


def test_rank_and_advise_take_the_range_and_a_feature_file_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.advice.ranking._draw", lambda *_: None)
    folder = image_folder(tmp_path / "a", DEPTHS["12"])
    places = {"cache": tmp_path / "cache", "models": tmp_path / "models", "device": "cpu"}
    ranking = featx.rank(folder, ["lenet5"], value_range=12, **places)
    file = FeatureFile(ranking.rows[0].features)
    assert file.backbone["parts"]["transform"]["value_range"] == [0.0, 4095.0]
    with pytest.raises(
        SettingsError,
        match=r"is a feature file, whose images were read already; --value-range, --bands and --fit are for",
    ):
        featx.advise(ranking.rows[0].features, value_range="12", **places)

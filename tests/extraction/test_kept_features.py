"""Features of images from anywhere, kept by the hash of their content."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.identities import other_form
from featx.constants import EMBEDDED
from featx.data.inputs import ImageInput, image_in_memory
from featx.extraction import kept_features, one_file
from featx.extraction.committer import Committer
from featx.extraction.kept_features import embed_images
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile
from featx.features.folder import files_in, newest

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("lenet5", device="cpu")


@pytest.fixture(scope="module")
def expected(backbone: Backbone) -> np.ndarray:
    return backbone.embed(list(PIXELS))


@pytest.fixture(params=[2, 32], ids=["extracted", "few"])
def computed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images that were put through the network at a time, by extractions or without them."""
    monkeypatch.setattr(kept_features, "_FEW", request.param)
    return count_passes(monkeypatch)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    extracted, few = kept_features.extract, kept_features._Keeping._compute_few

    def count_extracted(*arguments: Any, **options: Any) -> Any:
        done = extracted(*arguments, **options)
        counts.append(done.computed)
        return done

    def count_few(self: Any, first: dict[str, int], *rest: Any) -> None:
        few(self, first, *rest)
        counts.append(len(first))

    monkeypatch.setattr(kept_features, "extract", count_extracted)
    monkeypatch.setattr(kept_features._Keeping, "_compute_few", count_few)
    return counts


def inputs(rows: range) -> list[ImageInput]:
    return [image_in_memory(PIXELS[row], row) for row in rows]


@pytest.fixture
def embed(backbone: Backbone, tmp_path: Path) -> Callable[[range], np.ndarray]:
    def embed(rows: range) -> np.ndarray:
        found = embed_images(backbone, "penultimate", inputs(rows), cache=tmp_path)
        assert not any(found.errors)
        return found.values

    return embed


def kept(folder: Path) -> list[int]:
    return sorted(len(FeatureFile(path)) for path in files_in(folder / EMBEDDED))


def test_only_new_images_are_computed(
    embed: Callable[[range], np.ndarray], expected: np.ndarray, computed: list[int], tmp_path: Path
) -> None:
    np.testing.assert_allclose(embed(range(10)), expected[:10], atol=1e-4)
    np.testing.assert_allclose(embed(range(5, 15)), expected[5:15], atol=1e-4)
    np.testing.assert_array_equal(embed(range(15)), np.concatenate([embed(range(5)), embed(range(5, 15))]))
    assert computed == [10, 5]
    assert kept(tmp_path) == [5, 10]


def test_extraction_and_the_kept_features_find_each_other(
    photos: Path, backbone: Backbone, computed: list[int], tmp_path: Path
) -> None:
    images = [ImageInput(path.name, path) for path in sorted(photos.rglob("*.png"))]
    embed_images(backbone, "penultimate", images[:3], cache=tmp_path)
    done = extract(photos, backbone, cache=tmp_path)
    assert (done.reused, done.computed) == (3, len(images) - 3)
    assert embed_images(backbone, "penultimate", images, cache=tmp_path).values.shape == (len(images), 84)
    assert computed == [3]
    assert newest(tmp_path) == done.file  # a head is not fitted to images without labels by default


def test_small_files_are_merged_so_that_few_are_left(
    embed: Callable[[range], np.ndarray], expected: np.ndarray, computed: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(kept_features, "_MOST_FILES", 2)
    embed(range(30))
    for row in range(30, 38):
        embed(range(row, row + 1))
    assert sum(kept(tmp_path)) == 38
    assert max(kept(tmp_path)) == 30  # the large file is not written again for a few images
    assert len(kept(tmp_path)) <= 4
    np.testing.assert_allclose(embed(range(38)), expected[:38], atol=1e-4)
    assert sum(computed) == 38


def test_what_a_killed_process_had_done_is_kept(
    embed: Callable[[range], np.ndarray], expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_features, "_FEW", 0)
    real = Committer.store

    def kill(self: Committer, *arguments: Any) -> Any:
        if self.stored >= 8:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Committer, "store", kill)
    with pytest.raises(KeyboardInterrupt):
        embed(range(30))
    monkeypatch.setattr(Committer, "store", real)
    real_run, reused = one_file.run, []

    def run(*arguments: Any, **options: Any) -> Any:
        done = real_run(*arguments, **options)
        reused.append(done[1].reused)
        return done

    monkeypatch.setattr("featx.extraction.pipeline.run", run)
    np.testing.assert_allclose(embed(range(30)), expected[:30], atol=1e-4)
    assert sum(reused) >= 8
    assert not [path for path in (tmp_path / EMBEDDED).iterdir() if path.suffix != ".h5"]
    np.testing.assert_allclose(embed(range(30)), expected[:30], atol=1e-4)


def test_a_damaged_file_costs_its_rows_alone(
    embed: Callable[[range], np.ndarray], expected: np.ndarray, computed: list[int], tmp_path: Path
) -> None:
    embed(range(10))
    embed(range(10, 20))
    first, second = files_in(tmp_path / EMBEDDED)
    file = FeatureFile(first)
    data = bytearray(first.read_bytes())
    at = bytes(data).index(file.features("penultimate")[4].tobytes())
    data[at] ^= 1
    first.write_bytes(data)
    second.write_bytes(b"rubbish")
    np.testing.assert_allclose(embed(range(20)), expected[:20], atol=1e-4)
    assert sum(computed[2:]) == 11


def test_threads_that_want_the_same_images_compute_them_once(
    embed: Callable[[range], np.ndarray], expected: np.ndarray, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_features, "MOST_AT_ONCE", 7)  # they take turns
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: embed(range(10 * n, 10 * n + 20))})) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, values in found.items():
        np.testing.assert_allclose(values, expected[10 * number : 10 * number + 20], atol=1e-4)
    assert sorted(found) == [0, 1, 2]
    assert sum(computed) == 40
    assert max(computed) <= 7


def test_images_that_fail_leave_no_file_when_all_do(backbone: Backbone, tmp_path: Path) -> None:
    bad = [
        ImageInput("a", lambda: b"no image"),
        ImageInput("b", tmp_path / "gone.png"),
        ImageInput("c", lambda: b"none"),
    ]
    found = embed_images(backbone, "penultimate", bad, cache=tmp_path)
    assert np.isnan(found.values).all()
    assert ["not an image" in error for error in found.errors] == [True, False, True]
    assert "No such file" in found.errors[1]
    assert kept(tmp_path) == []
    mixed = embed_images(backbone, "penultimate", [*bad, *inputs(range(2))], cache=tmp_path)
    assert mixed.errors == [*found.errors, "", ""]
    assert not np.isnan(mixed.values[3:]).any()


def test_views_are_kept_too(backbone: Backbone, computed: list[int], tmp_path: Path) -> None:
    both = backbone.with_views("flip")
    for _ in range(2):
        found = embed_images(both, "penultimate@flip", inputs(range(4)), cache=tmp_path).values
        np.testing.assert_allclose(found, backbone.embed(list(PIXELS[:4]), layer="penultimate@flip"), atol=1e-4)
    assert computed == [4]


def test_features_under_the_other_form_of_their_identity_are_known(
    photos: Path, backbone: Backbone, computed: list[int], tmp_path: Path
) -> None:
    extract(photos, other_form(backbone), cache=tmp_path)
    images = [ImageInput(path.name, path) for path in sorted(photos.rglob("*.png"))]
    found = embed_images(backbone, "penultimate", images, cache=tmp_path)
    assert not any(found.errors)
    assert computed == []

"""The one loop: every image goes through the network once, in order, and what is known is never computed again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import Recorder
from safetensors.numpy import save_file

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.decode import MAX_PIXELS, read_pixels, read_views
from featx.data.image_set import ImageSet, image_key
from featx.data.loader import batched, read_images
from featx.data.scan import scan_images
from featx.data.splits import hash_splits
from featx.data.transform import Transform
from featx.errors import CacheLockedError, CorruptFileError, DatasetError, ImageError, OutputError, StaleCacheError
from featx.extraction import extraction
from featx.extraction.engines import Engine
from featx.extraction.extraction import Extraction, extract
from featx.features.feature_file import DONE, FAILED, FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.lock import write_lock
from featx.identity import differences
from featx.inspection.verify import verify_file
from featx.layer_spec import VIEWS, LayerSpec

MakeImage = Callable[..., Path]


@pytest.fixture(scope="module")
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


@pytest.fixture
def few(tmp_path: Path, make_image: MakeImage) -> Path:
    """Two classes of four images each."""
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(4):
            make_image(tmp_path / "few" / label / f"{number}.png", seed=number + tint, tint=tint)
    return tmp_path / "few"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that goes through a network."""
    sizes: list[int] = []
    run = Engine.__call__

    def counted(self: Engine, pixels: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(pixels))
        return run(self, pixels)

    monkeypatch.setattr(Engine, "__call__", counted)
    return sizes


_opened: list[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append("" if isinstance(arguments[0], int) else os.fsdecode(arguments[0]))


sys.addaudithook(_note_open)  # hooks stay for ever; this one listens to the fixture below alone


@pytest.fixture
def opened() -> Iterator[Callable[[], list[str]]]:
    """Names of the images that Python opened since the last call."""
    global _opened
    _opened = []

    def images() -> list[str]:
        assert _opened is not None
        found = sorted({Path(name).name for name in _opened if name.endswith((".png", ".jpg"))})
        _opened.clear()
        return found

    yield images
    _opened = None


def counts(result: Extraction) -> tuple[int, int, int, int, int]:
    return result.images, result.computed, result.reused, result.failed, result.removed


def embed(backbone: Backbone, path: Path, layer: str = "penultimate") -> np.ndarray:
    """(D,) of one image, through the backbone alone."""
    pixels = read_pixels(path.read_bytes(), backbone.transform)
    return backbone.encode(pixels[None])[layer][0]


def assert_own_features(result: Extraction, backbone: Backbone, folder: Path) -> None:
    """Every row is what the backbone gives for the image of that row."""
    features = result.load()
    for path, vector in zip(features.paths, features.features, strict=True):
        np.testing.assert_allclose(vector, embed(backbone, folder / path), atol=1e-5, err_msg=str(path))


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C when the features of batch number ``after`` + 1 are there."""
    keep, calls = extraction._Run._keep, []

    def stopped(self: Any, backbone: Backbone, batch: Any, features: Any) -> list[int]:
        calls.append(len(batch))
        if len(calls) > after:
            raise KeyboardInterrupt("Ctrl-C")
        return keep(self, backbone, batch, features)

    monkeypatch.setattr(extraction._Run, "_keep", stopped)


def own_network(folder: Path, name: str, forward: str) -> str:
    """A backbone of one's own whose embedding is ``forward`` of ``mean``, the (B, 3) mean colours in 0..1."""
    code = f"""
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(3, 2)

    def get_classifier(self):
        return self.last

    def forward(self, images):
        mean = images.mean(dim=(2, 3))
        return self.last({forward})
"""
    (folder / f"{name}.py").write_text(code)
    return f"{folder / name}.py:Net"


# Features


def test_every_row_is_what_the_backbone_gives_for_its_image(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(photos, lenet, cache=tmp_path / "cache")
    assert counts(result) == (40, 40, 0, 0, 0)
    features = result.load()
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert features.paths.tolist() == names
    assert [features.classes[label] for label in features.labels] == [name.split("/")[0] for name in names]
    assert features.features.dtype == np.float32
    assert_own_features(result, lenet, photos)


def test_several_layers_come_from_one_pass(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    backbone = load_backbone("lenet5", layers=("features.3", "features"), device="cpu")
    result = extract(few, backbone, cache=tmp_path / "cache")
    assert encoded == [4, 4]
    assert result.layers == {"penultimate": 84, "features": 120, "features.3": 16}
    for layer in result.layers:
        features = result.load(layer)
        np.testing.assert_allclose(features.features[5], embed(backbone, few / features.paths[5], layer), atol=1e-5)


def test_the_table_of_the_file_says_what_the_images_are(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(few, lenet, cache=tmp_path / "cache")
    file = FeatureFile(result.file)
    for row, path in enumerate(file.paths):
        data, stat = (few / path).read_bytes(), (few / path).stat()
        assert file.keys[row].tobytes() == image_key(data)
        assert (file.images.sizes[row], file.images.mtimes[row]) == (stat.st_size, stat.st_mtime_ns)
    assert file.dataset == {"name": "few", "root": str(few), "splits": "hash", "max_pixels": MAX_PIXELS}
    assert (file.backbone["name"], file.backbone["weights"]) == ("lenet5", "default")
    assert file.backbone["parts"] == lenet.describe()
    assert file.identity == result.identity == lenet.identity
    assert file.layers["penultimate"].identity == lenet.identities["penultimate"]


def test_batch_size_and_workers_do_not_change_a_feature(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    def features(name: str, **options: int) -> np.ndarray:
        return extract(photos, lenet, out=tmp_path / f"{name}.h5", **options).load().features

    eight = features("eight", batch_size=8, workers=1)
    np.testing.assert_array_equal(features("threads", batch_size=8, workers=7), eight)
    for size in (1, 7, 40):
        np.testing.assert_allclose(features(str(size), batch_size=size), eight, atol=1e-6)


def test_float16_features_are_the_float32_ones_rounded(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    half = extract(few, load_backbone("lenet5", dtype="float16", device="cpu"), cache=tmp_path).load()
    full = extract(few, lenet, cache=tmp_path).load()
    assert half.features.dtype == np.float16
    np.testing.assert_array_equal(half.features, full.features.astype(np.float16))
    assert half.identity != full.identity


def test_the_same_run_gives_the_same_bytes(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    one, two = (extract(few, lenet, out=tmp_path / name).file.read_bytes() for name in ("one.h5", "two.h5"))
    assert one == two


def test_a_backbone_can_be_named_and_images_be_scanned_before(few: Path, in_tmp: Path) -> None:
    result = extract(scan_images(few), "lenet5")
    assert result.file == Path("cache/few--lenet5.h5")
    assert len(result.load()) == 8


def test_a_flat_folder_gives_features_without_labels(tmp_path: Path, make_image: MakeImage, lenet: Backbone) -> None:
    for number in range(3):
        make_image(tmp_path / "flat" / f"{number}.png", seed=number)
    features = extract(tmp_path / "flat", lenet, cache=tmp_path).load()
    assert features.labels.tolist() == [-1, -1, -1]
    assert features.classes == ()


def test_a_file_name_that_is_not_utf8_keeps_its_bytes(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    odd = os.fsencode(few / "dark") + b"/caf\xe9.png"
    try:
        shutil.copy(few / "dark" / "0.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == (9, 8, 1, 0, 0)
    assert b"dark/caf\xe9.png" in [os.fsencode(path) for path in FeatureFile(result.file).paths]
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 0, 9, 0, 0)


# A second run


def test_a_second_run_computes_nothing_and_opens_no_image(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    assert opened() == ["0.png", "1.png", "2.png", "3.png"]
    before = first.file.read_bytes()
    encoded.clear()
    second = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(second) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert opened() == []
    assert second.file == first.file
    assert first.file.read_bytes() == before


def _rename(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "dark" / "renamed.png")


def _relabel(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "light" / "moved.png")


def _new_class(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark").rename(folder / "zebra")


def _copy(folder: Path, make_image: MakeImage) -> None:
    shutil.copy(folder / "dark" / "1.png", folder / "dark" / "copy.png")


def _touch(folder: Path, make_image: MakeImage) -> None:
    os.utime(folder / "dark" / "1.png", (1, 1))


def _swap(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").rename(folder / "other")
    (folder / "light" / "1.png").rename(folder / "dark" / "1.png")
    (folder / "other").rename(folder / "light" / "1.png")


def _split(folder: Path, make_image: MakeImage) -> None:
    for label in ("dark", "light"):
        (folder / "train").mkdir(exist_ok=True)
        (folder / label).rename(folder / "train" / label)
        (folder / "test" / label).mkdir(parents=True)
        (folder / "train" / label / "3.png").rename(folder / "test" / label / "3.png")


def _add(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)


def _change(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "1.png", seed=999)


def _change_within_the_same_nanosecond(folder: Path, make_image: MakeImage) -> None:
    stat = (folder / "dark" / "1.png").stat()
    make_image(folder / "dark" / "1.png", seed=999, size=(50, 50))
    os.utime(folder / "dark" / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _delete(folder: Path, make_image: MakeImage) -> None:
    (folder / "dark" / "1.png").unlink()


def _everything(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)
    make_image(folder / "light" / "2.png", seed=998)
    (folder / "dark" / "2.png").unlink()
    _rename(folder, make_image)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_rename, (8, 0, 8, 0, 0)),
        (_relabel, (8, 0, 8, 0, 0)),
        (_new_class, (8, 0, 8, 0, 0)),
        (_copy, (9, 0, 9, 0, 0)),
        (_touch, (8, 0, 8, 0, 0)),
        (_swap, (8, 0, 8, 0, 0)),
        (_split, (8, 0, 8, 0, 0)),
        (_add, (9, 1, 8, 0, 0)),
        (_change, (8, 1, 7, 0, 1)),
        (_change_within_the_same_nanosecond, (8, 1, 7, 0, 1)),
        (_delete, (7, 0, 7, 0, 1)),
        (_everything, (8, 2, 6, 0, 2)),
    ],
    ids=lambda value: value.__name__.lstrip("_") if callable(value) else "",
)
def test_a_changed_data_set_costs_the_forward_passes_of_its_new_bytes_alone(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    make_image: MakeImage,
    change: Callable[[Path, MakeImage], None],
    expected: tuple[int, int, int, int, int],
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    encoded.clear()
    change(few, make_image)
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == expected
    assert sum(encoded) == result.computed
    assert result.file == first.file
    fresh = scan_images(few)
    features = result.load()
    assert features.paths.tolist() == fresh.paths.tolist()
    assert features.labels.tolist() == fresh.labels.tolist()
    assert features.classes == fresh.classes
    assert_own_features(result, lenet, few)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache"))[1:] == (0, len(fresh), 0, 0)
    assert encoded == []


@pytest.mark.parametrize(
    ("labels", "splits"),
    [("abababab", "rrttrrtt"), ("aaaabbbb", "rtrtrtrt"), ("aaaacccc", "rrttrrtt"), ("aaaabbbb", "        ")],
    ids=["labels", "splits", "classes", "no splits"],
)
def test_new_splits_and_labels_in_a_table_open_no_image(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    opened: Callable[[], list[str]],
    labels: str,
    splits: str,
) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"

    def run(labels: str, splits: str) -> FeatureSet:
        names = {"r": "train", "t": "test", " ": ""}
        rows = [f"{path},{label},{names[split]}" for path, label, split in zip(paths, labels, splits, strict=True)]
        table.write_text("\n".join(["path,label,split", *rows]))
        return extract(table, lenet, cache=tmp_path / "cache").load()

    run("aaaabbbb", "rrttrrtt")
    encoded.clear()
    opened()
    features = run(labels, splits)
    assert "".join(features.classes[label] for label in features.labels) == labels
    if splits.strip():
        assert "".join({"train": "r", "test": "t"}[split] for split in features.splits) == splits
    else:
        np.testing.assert_array_equal(features.splits, hash_splits(features.keys, features.labels))
    assert (encoded, opened()) == ([], [])


def test_a_touched_image_is_the_only_one_that_is_opened(
    few: Path, tmp_path: Path, lenet: Backbone, opened: Callable[[], list[str]]
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    opened()
    os.utime(few / "light" / "2.png", (1, 1))
    extract(few, lenet, cache=tmp_path / "cache")
    assert opened() == ["2.png"]


def test_copies_within_one_run_are_computed_once(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    for name in ("dark/a.png", "light/b.png"):
        shutil.copy(few / "dark" / "2.png", few / name)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert counts(result) == (10, 8, 2, 0, 0)
    assert sum(encoded) == 8
    features = result.load()
    of = dict(zip(features.paths, features.features, strict=True))
    np.testing.assert_array_equal(of["dark/a.png"], of["dark/2.png"])
    np.testing.assert_array_equal(of["light/b.png"], of["dark/2.png"])
    assert len({tuple(vector) for vector in features.features}) == 8


@pytest.mark.parametrize(
    "options",
    [{"weights": "random"}, {"layers": ("last",)}, {"dtype": "float16"}, {"crop": 6}, {"resize": 40}],
    ids=lambda options: next(iter(options)),
)
def test_a_changed_option_makes_another_file_and_the_old_one_stays(
    few: Path, tmp_path: Path, encoded: list[int], options: dict[str, Any]
) -> None:
    name = "lenet5" if "weights" in options else own_network(tmp_path, "net", "mean")
    own = load_backbone(name, device="cpu")
    first = extract(few, own, cache=tmp_path / "cache")
    before = first.file.read_bytes()
    encoded.clear()
    second = extract(few, load_backbone(name, device="cpu", **options), cache=tmp_path / "cache")
    assert second.file != first.file
    assert re.fullmatch(re.escape(first.file.stem) + r"--[0-9a-f]{8}\.h5", second.file.name)
    assert counts(second) == (8, 8, 0, 0, 0)
    assert sum(encoded) == 8
    assert first.file.read_bytes() == before
    assert counts(extract(few, own, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)


def test_fewer_layers_are_taken_from_the_file_that_has_more(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    more = extract(few, load_backbone("lenet5", layers=("hidden",), device="cpu"), cache=tmp_path / "cache")
    encoded.clear()
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert result.file == more.file
    assert counts(result) == (8, 0, 8, 0, 0)
    assert result.layers == {"penultimate": 84}
    assert encoded == []


def test_layers_that_nobody_asks_for_today_stay_as_complete_as_the_others(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], make_image: MakeImage
) -> None:
    both = load_backbone("lenet5", layers=("hidden", "features"), device="cpu")
    extract(few, both, cache=tmp_path / "cache")
    _add(few, make_image)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 1, 8, 0, 0)
    result = extract(few, both, cache=tmp_path / "cache")
    assert counts(result) == (9, 0, 9, 0, 0)
    assert encoded == [1]
    assert result.layers == {"penultimate": 84, "features": 120, "hidden": 84}
    features = result.load("features")
    row = features.paths.tolist().index("dark/000.png")
    np.testing.assert_allclose(features.features[row], embed(both, few / "dark" / "000.png", "features"), atol=1e-5)
    assert lenet.layers == {"penultimate": 84}


def test_what_a_run_with_fewer_layers_left_is_not_taken_for_more(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    both = load_backbone("lenet5", layers=("hidden",), device="cpu")
    extract(few, both, out=tmp_path / "both.h5")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=1)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "elsewhere" / "one.h5", batch_size=2)
    (tmp_path / "elsewhere" / "one.h5.partial").rename(tmp_path / "both.h5.partial")
    _add(few, make_image)
    assert counts(extract(few, lenet, out=tmp_path / "both.h5")) == (9, 1, 8, 0, 0)
    assert len(FeatureSet.load(tmp_path / "both.h5", "hidden")) == 9


def test_data_sets_of_the_same_name_have_files_of_their_own(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    shutil.copytree(few, tmp_path / "elsewhere" / "few")
    (tmp_path / "elsewhere" / "few" / "dark" / "0.png").unlink()
    one = extract(few, lenet, cache=tmp_path / "cache")
    two = extract(tmp_path / "elsewhere" / "few", lenet, cache=tmp_path / "cache")
    assert one.file != two.file
    assert (len(FeatureFile(one.file)), len(FeatureFile(two.file))) == (8, 7)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dtype": "float16"}, "dtype: float32 against float16"),
        ({"weights": "random"}, "weights_sha256: [0-9a-f]{64} against [0-9a-f]{64}"),
        ({"resize": 40}, 'transform: .*"resize": 32.* against .*"resize": 40.*'),
        ({"layers": ("hidden",)}, "other layers: penultimate"),
    ],
)
def test_a_named_file_with_other_features_is_stale_and_stays_as_it_is(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], options: dict[str, Any], part: str
) -> None:
    out = tmp_path / "mine.h5"
    extract(few, lenet, out=out)
    before = out.read_bytes()
    encoded.clear()
    with pytest.raises(StaleCacheError, match=rf"mine\.h5 holds other features \({part}\); name another file with -o"):
        extract(few, load_backbone("lenet5", device="cpu", **options), out=out)
    assert out.read_bytes() == before
    assert encoded == []
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.h5"]


def test_a_moved_data_set_is_read_again_and_computed_never(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    extract(few, lenet, out=tmp_path / "mine.h5")
    few.rename(tmp_path / "moved")
    encoded.clear()
    result = extract(tmp_path / "moved", lenet, out=tmp_path / "mine.h5")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert FeatureFile(result.file).dataset["root"] == str(tmp_path / "moved")
    assert encoded == []


# Images that are none


@pytest.fixture
def spoilt(few: Path) -> Path:
    """Bad images before, between and after the good ones."""
    (few / "dark" / "0-empty.jpg").touch()
    (few / "dark" / "1-text.jpg").write_text("these are not the pixels you are looking for")
    data = (few / "light" / "0.png").read_bytes()
    (few / "light" / "9-truncated.png").write_bytes(data[: len(data) // 2])
    return few


def test_bad_images_get_a_reason_and_shift_no_row(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(spoilt, lenet, cache=tmp_path / "cache", batch_size=3)
    assert counts(result) == (11, 8, 0, 3, 0)
    reasons = dict(result.failures)
    assert reasons["dark/0-empty.jpg"] == "the file is empty"
    assert reasons["dark/1-text.jpg"].startswith("not an image of a known format")
    assert reasons["light/9-truncated.png"].startswith("cannot be decoded: ")
    file = FeatureFile(result.file)
    assert file.status.tolist() == [FAILED, DONE, FAILED, *[DONE] * 7, FAILED]
    assert not any("jpg" in path or "9" in path for path in result.load().paths)
    assert_own_features(result, lenet, spoilt)


def test_bad_images_are_not_opened_again_until_they_change(
    spoilt: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(spoilt, lenet, cache=tmp_path / "cache")
    encoded.clear()
    opened()
    again = extract(spoilt, lenet, cache=tmp_path / "cache")
    assert counts(again) == (11, 0, 8, 3, 0)
    assert again.failures == first.failures
    (spoilt / "dark" / "2.png").unlink()
    assert counts(extract(spoilt, lenet, cache=tmp_path / "cache")) == (10, 0, 7, 3, 1)
    assert (encoded, opened()) == ([], [])
    shutil.copy(spoilt / "light" / "0.png", spoilt / "dark" / "0-empty.jpg")
    os.utime(spoilt / "light" / "9-truncated.png", (1, 1))
    mended = extract(spoilt, lenet, cache=tmp_path / "cache")
    assert counts(mended) == (10, 0, 8, 2, 1)
    assert [path for path, _ in mended.failures] == ["dark/1-text.jpg", "light/9-truncated.png"]


def test_a_data_set_of_bad_images_alone_is_an_error(tmp_path: Path, lenet: Backbone) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True)
        (tmp_path / "bad" / name).write_text("no image")
    message = r"none of the 2 images in .*bad could be decoded; the first, a/1\.jpg: not an image"
    for _ in range(2):
        with pytest.raises(DatasetError, match=message):
            extract(tmp_path / "bad", lenet, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.h5")) == []


@pytest.mark.parametrize("when", ["before the run", "during the run"])
def test_an_image_that_vanishes_fails_alone_and_is_tried_again(
    few: Path, tmp_path: Path, lenet: Backbone, when: str
) -> None:
    images, victim = scan_images(few), few / "light" / "1.png"
    data, stat = victim.read_bytes(), victim.stat()
    if when == "before the run":
        victim.unlink()
    result = extract(
        images, lenet, cache=tmp_path / "cache", reporter=Recorder(lambda _: victim.unlink(missing_ok=True))
    )
    assert counts(result) == (8, 7, 0, 1, 0)
    assert result.failures == (("light/1.png", "cannot be read: No such file or directory"),)
    assert FeatureFile(result.file).keys[5].tolist() == [0] * 16
    assert_own_features(result, lenet, few)
    victim.write_bytes(data)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert counts(extract(images, lenet, cache=tmp_path / "cache"))[1:4] == (1, 7, 0)


def test_rows_that_come_out_as_nan_or_infinity_are_failed_ones(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    name = own_network(tmp_path, "halfnan", "torch.where(mean < 0.5, torch.nan, mean)")
    result = extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache", batch_size=3)
    assert counts(result) == (8, 8, 0, 4, 0)
    assert {path.split("/")[0] for path, _ in result.failures} == {"dark"}
    assert {why for _, why in result.failures} == {"the backbone gives NaN or infinity in float32"}
    features = result.load()
    assert features.paths.tolist() == [f"light/{number}.png" for number in range(4)]
    assert np.isfinite(features.features).all()
    encoded.clear()
    shutil.copy(few / "dark" / "0.png", few / "dark" / "copy.png")
    assert counts(extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache"))[3] == 5


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_for_float16_is_a_failed_row(few: Path, tmp_path: Path) -> None:
    name = own_network(tmp_path, "large", "torch.where(mean < 0.5, 1e6, mean)")
    result = extract(few, load_backbone(name, dtype="float16", device="cpu"), cache=tmp_path / "cache")
    assert {why for _, why in result.failures} == {"the backbone gives NaN or infinity in float16"}
    assert counts(result) == (8, 8, 0, 4, 0)
    assert counts(extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache")) == (8, 8, 0, 0, 0)


def test_features_that_are_all_nan_are_an_error(few: Path, tmp_path: Path) -> None:
    backbone = load_backbone(own_network(tmp_path, "allnan", "mean * torch.nan"), device="cpu")
    message = r"none of the 8 images in .*few gave finite features; the first, dark/0\.png: .* NaN or infinity"
    with pytest.raises(DatasetError, match=message):
        extract(few, backbone, cache=tmp_path / "cache")


# Runs that do not come to their end


_SLOW_RUN = """
import sys, time
from featx.backbones.backbone import load_backbone
from featx.extraction.extraction import _Run, extract

keep, calls = _Run._keep, []

def slow(self, backbone, batch, features):
    if len(calls) == 3:
        print("three batches done", flush=True)
        time.sleep(60)
    calls.append(1)
    return keep(self, backbone, batch, features)

_Run._keep = slow
extract(sys.argv[1], load_backbone("lenet5", device="cpu"), cache=sys.argv[2], batch_size=4)
"""


def test_a_killed_run_leaves_its_rows_to_the_next_one(
    photos: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _SLOW_RUN, str(photos), str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"three batches done\n"
            with pytest.raises(CacheLockedError, match=rf"photos--lenet5\.h5 is being written by process {run.pid} "):
                extract(photos, lenet, cache=cache)
        finally:
            run.send_signal(signal.SIGKILL)
    assert not (cache / "photos--lenet5.h5").exists()
    left = FeatureFile(cache / "photos--lenet5.h5.partial", allow_partial=True)
    done = np.flatnonzero(left.status == DONE)
    assert done.tolist() == list(range(12))
    assert left.checksums_match("penultimate", done).all()
    rows = left.features("penultimate")[done].copy()

    result = extract(photos, lenet, cache=cache, batch_size=4)
    assert counts(result) == (40, 28, 12, 0, 0)
    assert sum(encoded) == 28
    assert not (cache / "photos--lenet5.h5.partial").exists()
    features = result.load().features
    np.testing.assert_array_equal(features[:12], rows)
    whole = extract(photos, lenet, out=tmp_path / "whole.h5", batch_size=4)
    np.testing.assert_allclose(features, whole.load().features, atol=1e-6)
    assert_own_features(result, lenet, photos)


def _grow(folder: Path, make_image: MakeImage) -> None:
    make_image(folder / "dark" / "000.png", seed=999)
    _touch_all(folder, make_image)


def _touch_all(folder: Path, make_image: MakeImage) -> None:
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))


def _rename_all(folder: Path, make_image: MakeImage) -> None:
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f"x{9 - int(path.stem)}.png"))


@pytest.mark.parametrize("change", [_touch_all, _rename_all, _grow], ids=lambda change: change.__name__.lstrip("_"))
def test_rows_of_an_interrupted_run_are_right_when_its_images_moved_meanwhile(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, change: Callable[[Path, MakeImage], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    change(few, make_image)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert result.reused == 4
    assert result.computed == result.images - 4
    assert_own_features(result, lenet, few)


def test_a_run_interrupted_again_and_again_loses_nothing(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, after=1)
            with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
                extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    result = extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert counts(result) == (8, 2, 6, 0, 0)
    assert_own_features(result, lenet, few)


def test_an_interrupted_update_leaves_the_complete_file(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    before = first.file.read_bytes()
    for number in range(4):
        make_image(few / "dark" / f"1{number}.png", seed=900 + number)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=1)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    assert first.file.read_bytes() == before
    opened()
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == (12, 2, 10, 0, 0)
    assert opened() == ["12.png", "13.png"]
    assert_own_features(result, lenet, few)


def test_a_row_that_does_not_fit_its_check_is_computed_again(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    file = FeatureFile(extract(few, lenet, out=tmp_path / "f.h5").file)
    with file.path.open("r+b") as raw:
        raw.seek(file.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    make_image(few / "light" / "new.png", seed=999)
    result = extract(few, lenet, out=tmp_path / "f.h5")
    assert counts(result) == (9, 2, 7, 0, 0)
    assert_own_features(result, lenet, few)


@pytest.mark.parametrize("damage", ["truncated", "a bit in a table", "no feature file at all"])
def test_a_file_that_cannot_be_read_is_never_overwritten(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], damage: str
) -> None:
    out = tmp_path / "f.h5"
    extract(few, lenet, out=out)
    data = bytearray(out.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "a bit in a table":
        data[data.index(b"dark/2.png")] ^= 1
    else:
        data = bytearray(b"somebody's thesis")
    out.write_bytes(data)
    encoded.clear()
    with pytest.raises(
        CorruptFileError, match=r"f\.h5.* It is not overwritten: name another file with -o, or delete it"
    ):
        extract(few, lenet, out=out)
    assert out.read_bytes() == data
    assert encoded == []


def test_a_damaged_leftover_is_passed_over_and_a_note_says_so(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    (tmp_path / "f.h5.partial").write_bytes(b"torn")
    result = extract(few, lenet, out=tmp_path / "f.h5")
    assert counts(result) == (8, 8, 0, 0, 0)
    assert len(result.notes) == 1
    assert result.notes[0].startswith("what an interrupted run left cannot be used: ")
    assert_own_features(result, lenet, few)


def test_two_runs_cannot_write_one_file(few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]) -> None:
    with (
        write_lock(tmp_path / "f.h5"),
        pytest.raises(CacheLockedError, match=rf"f\.h5 is being written by process {os.getpid()} on .* since"),
    ):
        extract(few, lenet, out=tmp_path / "f.h5")
    assert encoded == []


def test_a_file_in_the_place_of_the_cache_folder_is_an_output_error(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(OutputError, match=r"cannot write into .*cache: .*; name another folder with --cache"):
        extract(few, lenet, cache=tmp_path / "cache")


# Splits


def test_splits_by_hash_are_stored_and_stay_put_when_images_are_added(
    photos: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    before = extract(photos, lenet, cache=tmp_path / "cache").load()
    assert set(before.splits) == {"train", "val", "test"}
    np.testing.assert_array_equal(before.splits, hash_splits(before.keys, before.labels))
    assert before.dataset["splits"] == "hash"
    for number in range(20):
        make_image(photos / "dark" / f"0{number}-new.png", seed=5000 + number)
        make_image(photos / "new" / f"{number}.png", seed=6000 + number)
    after = extract(photos, lenet, cache=tmp_path / "cache").load()
    assert len(after) == 80
    assert set(after.splits[after.labels == after.classes.index("new")]) >= {"train", "test"}
    now = dict(zip(after.paths, after.splits, strict=True))
    assert {path: now[path] for path in before.paths} == dict(zip(before.paths, before.splits, strict=True))


def test_the_file_remembers_the_table_that_named_its_images(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{path},{path[:4]}" for path in paths)]))
    features = extract(table, lenet, cache=tmp_path / "cache").load()
    assert features.dataset["table"] == str(table.resolve())
    assert "table" not in extract(few, lenet, cache=tmp_path / "cache").load().dataset


def test_a_file_made_before_tables_were_remembered_is_laid_out_anew_without_opening_an_image(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    opened: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{path},{path[:4]}" for path in paths)]))
    with monkeypatch.context() as before:
        dataset = extraction._Run._dataset
        before.setattr(
            extraction._Run,
            "_dataset",
            lambda self: {name: value for name, value in dataset(self).items() if name != "table"},
        )
        old = extract(table, lenet, cache=tmp_path / "cache").load()
    assert "table" not in old.dataset
    encoded.clear()
    opened()
    result = extract(table, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert (encoded, opened()) == ([], [])
    new = result.load()
    assert new.source == old.source
    assert new.dataset == {**old.dataset, "table": str(table.resolve())}
    np.testing.assert_array_equal(new.features, old.features)
    np.testing.assert_array_equal(new.splits, old.splits)


def test_splits_that_the_data_set_names_are_kept(split_photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    features = extract(split_photos, lenet, cache=tmp_path / "cache").load()
    assert features.splits.tolist() == [path.split("/")[0] for path in features.paths]
    assert features.dataset["splits"] == "given"


def test_a_bad_image_has_a_split_only_if_its_bytes_could_be_read(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    images = scan_images(spoilt)
    (spoilt / "dark" / "3.png").unlink()
    file = FeatureFile(extract(images, lenet, cache=tmp_path / "cache").file)
    splits = dict(zip(file.paths, file.splits, strict=True))
    assert splits["dark/3.png"] == ""
    assert all(split in ("train", "val", "test") for path, split in splits.items() if path != "dark/3.png")


# What the caller is told


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_progress_runs_up_to_the_total(spoilt: Path, tmp_path: Path, lenet: Backbone, batch_size: int) -> None:
    shutil.copy(spoilt / "dark" / "2.png", spoilt / "light" / "copy.png")
    told = Recorder()
    extract(
        spoilt,
        lenet,
        cache=tmp_path / "cache",
        batch_size=batch_size,
        reporter=told,
    )
    assert told.calls[0] == (0, 12)
    assert told.calls[-1] == (12, 12)
    assert told.calls == sorted(told.calls)


def test_progress_counts_what_an_earlier_run_did(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    make_image(few / "dark" / "new.png", seed=999)
    told = Recorder()
    extract(few, lenet, cache=tmp_path / "cache", reporter=told)
    assert told.calls == [(8, 9), (9, 9)]


def test_the_summary_has_the_documented_keys(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(spoilt, lenet, cache=tmp_path / "cache")
    said = result.as_dict()
    assert said.keys() == {
        "file", "images", "computed", "reused", "failed", "removed", "seconds", "images_per_second", "layers", "views",
        "identity", "dataset", "backbone", "engine", "failures", "notes",
    }  # fmt: skip
    assert json.loads(json.dumps(said)) == said
    assert said["file"] == str(result.file)
    assert said["layers"] == {"penultimate": 84}
    assert (said["images"], said["computed"], said["reused"], said["failed"], said["removed"]) == (11, 8, 0, 3, 0)
    assert said["failures"][0] == {"path": "dark/0-empty.jpg", "error": "the file is empty"}
    assert said["images_per_second"] == pytest.approx(11 / result.seconds, rel=0.01)
    assert said["dataset"] == "few"


# The reading half


def test_images_come_in_order_however_long_one_takes(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(30)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    later_read = threading.Event()

    def read(row: int, data: bytes) -> np.ndarray:
        if row == 0:
            assert later_read.wait(20), "one thread only"
        if row == 10:
            later_read.set()
        if row == 2:
            raise ImageError("spoilt")
        return np.full((3, 1, 1), data[0], dtype=np.uint8)

    images = list(read_images(enumerate(paths), read, workers=2))
    assert [image.row for image in images] == list(range(30))
    assert [image.error for image in images if image.error] == ["spoilt"]
    assert all(image.pixels[0, 0, 0] == image.row for image in images if image.pixels is not None)
    assert [image.key for image in images] == [image_key(bytes([number])) for number in range(30)]


def test_only_a_bounded_number_of_images_is_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    asked: list[int] = []

    def files() -> Iterator[tuple[int, Path]]:
        for row in range(1000):
            asked.append(row)
            yield row, tmp_path / "one"

    images = read_images(files(), lambda _row, _data: np.zeros((3, 1, 1), dtype=np.uint8), workers=2)
    next(images)
    images.close()
    assert len(asked) <= 4 * 2 + 8


def test_pixels_of_known_images_are_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    images = read_images([(0, tmp_path / "one")], pytest.fail, workers=1, known={image_key(b"1")})
    assert [(image.pixels, image.error) for image in images] == [(None, "")]


def test_batches_are_full_but_for_the_last() -> None:
    assert [list(batch) for batch in batched(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []


def test_a_dangling_link_does_not_make_the_file_anew_each_time(photos: Path, in_tmp: Path) -> None:
    (photos / "dark" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "dark" / "pipe.png")
    first = extract(photos, "lenet5")
    assert [error for _, error in first.failures] == [
        "cannot be read: No such file or directory",
        "is no ordinary file",
    ]
    written = first.file.stat().st_ino
    again = extract(photos, "lenet5")
    assert (again.computed, again.reused, again.failed) == (0, 40, 2)
    assert again.file.stat().st_ino == written


# What other files of the folder have


def test_a_second_data_set_costs_only_the_images_it_does_not_share(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], make_image: MakeImage
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    other = tmp_path / "other" / "both"
    other.mkdir(parents=True)
    for number, path in enumerate(sorted(few.rglob("*.png"))):
        shutil.copy(path, other / f"{9 - number}.png")
    make_image(other / "new.png", seed=999)
    encoded.clear()
    result = extract(other, lenet, cache=tmp_path / "cache")
    assert result.file != first.file
    assert counts(result) == (9, 1, 8, 0, 0)
    assert encoded == [1]
    assert_own_features(result, lenet, other)


def test_what_an_interrupted_run_left_serves_another_data_set_too(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    shutil.copytree(few, tmp_path / "copy")
    encoded.clear()
    assert counts(extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")) == (8, 4, 4, 0, 0)
    assert sum(encoded) == 4


def test_features_of_another_identity_are_never_taken(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, load_backbone("lenet5", weights="random", device="cpu"), cache=tmp_path / "cache")
    shutil.copytree(few, tmp_path / "copy")
    lenet = load_backbone("lenet5", device="cpu")
    result = extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 8, 0, 0, 0)
    assert_own_features(result, lenet, tmp_path / "copy")


def test_a_row_of_another_file_that_does_not_fit_its_check_is_computed(
    few: Path, tmp_path: Path, lenet: Backbone
) -> None:
    donor = FeatureFile(extract(few, lenet, cache=tmp_path / "cache").file)
    with donor.path.open("r+b") as raw:
        raw.seek(donor.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    shutil.copytree(few, tmp_path / "copy")
    result = extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 0)
    assert_own_features(result, lenet, tmp_path / "copy")


def test_an_image_of_the_same_name_size_and_time_elsewhere_is_not_taken_for_this_one(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    twin = tmp_path / "twin" / "few"
    shutil.copytree(few, twin)
    changed, original = twin / "dark" / "1.png", few / "dark" / "1.png"
    data = bytearray(original.read_bytes())
    make_image(changed, seed=999)
    other = changed.read_bytes()
    size = max(len(data), len(other))  # bytes after the end of a PNG mean nothing
    for path, content in ((original, bytes(data)), (changed, other)):
        path.write_bytes(content.ljust(size, b"\0"))
        os.utime(path, (1, 1))
    extract(few, lenet, cache=tmp_path / "cache")
    result = extract(twin, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 0)
    assert_own_features(result, lenet, twin)


# Views


def seen(name: str = "flip", **options: Any) -> Backbone:
    """A backbone that sees images in a set of views."""
    return load_backbone("lenet5", views=name, resize=40, device="cpu", **options)


def assert_every_view(result: Extraction, backbone: Backbone, folder: Path, layer: str = "penultimate") -> None:
    """Every row is what the backbone gives for the views of that row's image."""
    features = FeatureSet.load(result.file, str(LayerSpec.parse(layer, result.views)))
    assert features.views == len(backbone.views)
    for path, vectors in zip(features.paths, features.features, strict=True):
        pixels = read_views((folder / path).read_bytes(), backbone.transform, VIEWS[result.views])
        np.testing.assert_allclose(vectors, backbone.encode(pixels)[layer], atol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("name", ["flip", "10crop"])
def test_every_view_of_every_image_is_what_the_backbone_gives_for_it(
    photos: Path, tmp_path: Path, encoded: list[int], name: str
) -> None:
    backbone = seen(name, layers=("hidden",))
    result = extract(photos, backbone, cache=tmp_path / "cache", compute="eager")
    assert counts(result) == (40, 40, 0, 0, 0)
    assert sum(encoded) == 40 * len(VIEWS[name])
    assert result.views == name
    assert result.layers == {"penultimate": 84, "hidden": 84}
    for layer in result.layers:
        assert_every_view(result, backbone, photos, layer)
    assert result.load().views == len(VIEWS[name])
    encoded.clear()
    assert counts(extract(photos, backbone, cache=tmp_path / "cache")) == (40, 0, 40, 0, 0)
    assert encoded == []


def test_only_views_that_no_file_has_are_computed(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    results = {}
    for name, passes in (("plain", 1), ("flip", 1), ("10crop", 8)):
        encoded.clear()
        results[name] = extract(few, seen(name), cache=tmp_path / "cache")
        assert sum(encoded) == 8 * passes
        assert counts(results[name]) == (8, 8, 0, 0, 0)
    said = "8 images were known in {} of {} views: the others alone were computed"
    assert said.format(1, 2) in results["flip"].notes
    assert said.format(2, 10) in results["10crop"].notes
    assert not any("were known" in note for note in results["plain"].notes)
    assert_every_view(results["10crop"], seen("10crop"), few)
    alone = extract(few, seen("10crop"), cache=tmp_path / "other").load()
    np.testing.assert_allclose(results["10crop"].load().features, alone.features, atol=1e-6)


def test_fewer_views_are_taken_from_the_file_that_has_more(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    more = extract(few, seen("10crop"), cache=tmp_path / "cache")
    encoded.clear()
    for name in ("plain", "flip"):
        result = extract(few, seen(name), cache=tmp_path / "cache")
        assert result.file == more.file
        assert counts(result) == (8, 0, 8, 0, 0)
        assert result.views == name
        assert result.load().views == len(VIEWS[name])
    assert encoded == []


def test_views_that_nobody_asks_for_today_stay_as_complete_as_the_others(
    few: Path, tmp_path: Path, encoded: list[int], make_image: MakeImage
) -> None:
    extract(few, seen("flip"), cache=tmp_path / "cache")
    _add(few, make_image)
    encoded.clear()
    assert counts(extract(few, seen("plain"), cache=tmp_path / "cache")) == (9, 1, 8, 0, 0)
    result = extract(few, seen("flip"), cache=tmp_path / "cache")
    assert counts(result) == (9, 0, 9, 0, 0)
    assert sum(encoded) == 2
    assert_every_view(result, seen("flip"), few)


def test_another_layer_is_computed_in_every_view(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, seen("flip"), cache=tmp_path / "cache")
    encoded.clear()
    result = extract(few, seen("flip", layers=("hidden",)), cache=tmp_path / "cache")
    assert sum(encoded) == 16
    assert_every_view(result, seen("flip", layers=("hidden",)), few, "hidden")


def test_some_images_known_in_some_views_and_others_in_none(
    few: Path, tmp_path: Path, encoded: list[int], make_image: MakeImage
) -> None:
    extract(few, seen("plain"), cache=tmp_path / "cache")
    shutil.copy(few / "dark" / "2.png", few / "light" / "copy.png")  # known too, but for its place
    _add(few, make_image)
    (few / "dark" / "3.png").rename(few / "dark" / "moved.png")
    encoded.clear()
    result = extract(few, seen("flip"), cache=tmp_path / "cache")
    assert counts(result) == (10, 9, 1, 0, 0)
    assert sum(encoded) == 8 + 2
    assert_every_view(result, seen("flip"), few)


def test_a_moved_data_set_keeps_the_views_that_it_had(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, seen("plain"), cache=tmp_path / "cache")
    moved = few.rename(few.with_name("elsewhere"))
    encoded.clear()
    result = extract(moved, seen("flip"), cache=tmp_path / "cache")
    assert sum(encoded) == 8
    assert_every_view(result, seen("flip"), moved)


def test_a_view_that_does_not_fit_its_check_is_computed_again(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    plain = extract(few, seen("plain"), cache=tmp_path / "cache")
    file = FeatureFile(plain.file)
    damaged = bytearray(plain.file.read_bytes())
    damaged[file.layers["penultimate"].offset + 3 * 84 * 4] ^= 1
    plain.file.write_bytes(bytes(damaged))
    shutil.copy(few / "dark" / "3.png", few / "light" / "copy.png")
    encoded.clear()
    result = extract(few, seen("flip"), cache=tmp_path / "cache")
    assert counts(result) == (9, 8, 1, 0, 0)
    assert sum(encoded) in (8 + 1, 8 + 2)  # its mirror image may have been computed before the damage was seen
    assert_every_view(result, seen("flip"), few)


def test_what_an_interrupted_run_left_is_not_computed_again_in_any_view(
    photos: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(photos, seen("plain"), cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        interrupt(patch, after=4)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, seen("flip"), cache=tmp_path / "cache", batch_size=4, workers=1)
    encoded.clear()
    result = extract(photos, seen("flip"), cache=tmp_path / "cache")
    assert counts(result)[:2] == (40, 40 - 16)
    assert sum(encoded) == 40 - 16
    assert_every_view(result, seen("flip"), photos)


def test_corners_without_room_are_said(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    said = "images are resized to 32 pixels, all of which the crop takes: corners differ along the longer side alone; a larger"
    for name, resize, noted in (("10crop", 32, True), ("10crop", 33, False), ("flip", 32, False)):
        backbone = load_backbone("lenet5", views=name, resize=resize, device="cpu")
        notes = extract(few, backbone, cache=tmp_path / "cache").notes
        assert any(note.startswith(said) for note in notes) is noted


def test_a_bad_image_fails_in_all_views_at_once(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    plain = extract(spoilt, lenet, cache=tmp_path / "a")
    result = extract(spoilt, load_backbone("lenet5", views="flip", device="cpu"), cache=tmp_path / "a")
    assert result.failures == plain.failures
    assert counts(result)[3] == counts(plain)[3] > 0
    again = extract(spoilt, load_backbone("lenet5", views="flip", device="cpu"), cache=tmp_path / "b")
    assert again.failures == plain.failures


def test_progress_runs_to_the_end_when_views_are_added(few: Path, tmp_path: Path, make_image: MakeImage) -> None:
    extract(few, seen("plain"), cache=tmp_path / "cache")
    _add(few, make_image)
    told = Recorder()
    extract(few, seen("flip"), cache=tmp_path / "cache", reporter=told)
    assert told.calls[-1] == (9, 9)
    assert told.calls == sorted(told.calls)
    assert all(total == 9 for _, total in told.calls)


@pytest.mark.parametrize("name", ["flip", "10crop"])
def test_rows_in_views_are_extracted_again_to_verify_them(few: Path, tmp_path: Path, name: str) -> None:
    result = extract(few, seen(name), cache=tmp_path / "cache")
    found = verify_file(result.file, recompute=5, device="cpu")
    assert found["ok"]
    assert found["recomputed"] == 5
    assert found["largest_difference"] < 1e-5


# What is trusted


def test_rehash_finds_what_no_time_stamp_tells(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    path = few / "dark" / "1.png"
    before, old = path.stat(), path.read_bytes()
    make_image(path, seed=999)
    path.write_bytes(path.read_bytes().ljust(len(old), b"\0")[: max(len(old), len(path.read_bytes()))])
    if path.stat().st_size != before.st_size:
        path.write_bytes(make_image(tmp_path / "tiny.png", seed=5, size=(4, 4)).read_bytes().ljust(len(old), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)  # nothing tells it
    result = extract(few, lenet, cache=tmp_path / "cache", rehash=True)
    assert counts(result) == (8, 1, 7, 0, 1)
    assert sum(encoded) == 1
    assert_own_features(result, lenet, few)
    assert result.file == first.file


def test_rehash_of_what_has_not_changed_writes_nothing(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], opened: Callable[[], list[str]]
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    inode = first.file.stat().st_ino
    encoded.clear()
    opened()
    assert counts(extract(few, lenet, cache=tmp_path / "cache", rehash=True)) == (8, 0, 8, 0, 0)
    assert opened() == ["0.png", "1.png", "2.png", "3.png"]
    assert encoded == []
    assert first.file.stat().st_ino == inode


def test_rehash_computes_a_row_that_does_not_fit_its_check(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    file = FeatureFile(extract(few, lenet, out=tmp_path / "f.h5").file)
    whole = file.path.read_bytes()
    with file.path.open("r+b") as raw:
        raw.seek(file.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    with pytest.raises(CorruptFileError, match=r"1 of 8 rows .* the same featx extract with --rehash computes those"):
        FeatureSet.load(file.path)
    assert counts(extract(few, lenet, out=file.path)) == (8, 0, 8, 0, 0)  # features are not read
    assert counts(extract(few, lenet, out=file.path, rehash=True)) == (8, 1, 7, 0, 0)
    assert file.path.read_bytes() == whole


def test_an_image_that_changes_after_it_was_listed_is_kept_as_it_was_read(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    make_image: MakeImage,
    encoded: list[int],
    opened: Callable[[], list[str]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stat_all = extraction._stat

        def listed_then_changed(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
            facts = stat_all(images)
            if not changed:
                changed.append(make_image(few / "dark" / "1.png", seed=999, size=(50, 50)))
            return facts

        changed: list[Path] = []
        patch.setattr(extraction, "_stat", listed_then_changed)
        result = extract(few, lenet, cache=tmp_path / "cache")
    assert_own_features(result, lenet, few)
    encoded.clear()
    opened()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert opened() == []


# Going on


def test_an_unfinished_file_is_gone_on_with_in_place(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    inode = (tmp_path / "f.h5.partial").stat().st_ino
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: pytest.fail("asked for more room"))
        assert counts(extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)) == (8, 4, 4, 0, 0)
    assert (tmp_path / "f.h5").stat().st_ino == inode
    whole = extract(few, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


def test_a_bad_image_ends_the_same_whether_or_not_the_run_was_interrupted(
    spoilt: Path, tmp_path: Path, lenet: Backbone
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(spoilt, lenet, out=tmp_path / "f.h5", batch_size=2)
    assert counts(extract(spoilt, lenet, out=tmp_path / "f.h5", batch_size=2)) == (11, 4, 4, 3, 0)
    whole = extract(spoilt, lenet, out=tmp_path / "elsewhere" / "whole.h5", batch_size=2)
    assert (tmp_path / "f.h5").read_bytes() == whole.file.read_bytes()


def test_rows_of_an_unfinished_file_survive_a_second_kill_though_the_images_were_renamed(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    _rename_all(few, make_image)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=0)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    encoded.clear()
    assert counts(extract(few, lenet, out=tmp_path / "f.h5")) == (8, 2, 6, 0, 0)
    assert sum(encoded) == 2


def test_rows_of_an_unfinished_file_survive_a_run_for_other_features_of_the_same_name(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, out=tmp_path / "f.h5", batch_size=2)
    other = extract(few, load_backbone("lenet5", weights="random", device="cpu"), out=tmp_path / "f.h5")
    (kept,) = tmp_path.glob("*.partial")
    assert re.fullmatch(r"f--[0-9a-f]{8}\.h5\.partial", kept.name)
    assert other.notes[-1] == f"an interrupted run for other features is kept as {kept}"
    encoded.clear()
    result = extract(few, lenet, out=tmp_path / "g.h5", batch_size=2)
    assert counts(result) == (8, 2, 6, 0, 0)
    assert sum(encoded) == 2
    assert_own_features(result, lenet, few)


def test_a_run_that_was_killed_between_completing_and_renaming_is_only_renamed(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    path = extract(few, lenet, out=tmp_path / "f.h5").file
    whole = path.read_bytes()
    path.rename(tmp_path / "f.h5.partial")
    encoded.clear()
    assert counts(extract(few, lenet, out=path)) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert path.read_bytes() == whole


# Limits


def test_strict_stops_at_the_first_bad_image_and_keeps_what_is_done(
    spoilt: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    message = r"dark/0-empty\.jpg: the file is empty\. --strict stops at the first image that fails$"
    with pytest.raises(DatasetError, match=message):
        extract(spoilt, lenet, cache=tmp_path / "cache", strict=True)
    assert counts(extract(spoilt, lenet, cache=tmp_path / "cache")) == (11, 8, 0, 3, 0)
    encoded.clear()
    with pytest.raises(DatasetError, match=message):
        extract(spoilt, lenet, cache=tmp_path / "cache", strict=True)
    assert encoded == []


def test_an_image_above_the_limit_fails_until_the_limit_is_raised(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage, encoded: list[int]
) -> None:
    make_image(few / "dark" / "large.png", seed=7, size=(60, 60))
    first = extract(few, lenet, cache=tmp_path / "cache", max_pixels=3599)
    assert counts(first) == (9, 8, 0, 1, 0)
    assert first.failures == (("dark/large.png", "60 x 60 pixels; at most 3,599 are read (--max-pixels)"),)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache", max_pixels=3599)) == (9, 0, 8, 1, 0)
    result = extract(few, lenet, cache=tmp_path / "cache", max_pixels=3600)
    assert counts(result) == (9, 1, 8, 0, 0)
    inode = result.file.stat().st_ino
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 0, 9, 0, 0)
    assert result.file.stat().st_ino == inode  # a limit that nothing fails under makes no new file


# Every part of the identity


_NET = """
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Identity()
        self.last = torch.nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(1))

    def get_classifier(self):
        return self.last

    def forward(self, images):
        return self.last(self.body(images.mean(dim=(2, 3)) * self.scale))
"""
_STATE = {
    "last.weight": np.ones((2, 3), np.float32),
    "last.bias": np.zeros(2, np.float32),
    "scale": np.ones(1, np.float32),
}
_TRANSFORM = Transform(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _own(folder: Path, *, code: str = _NET, state: dict[str, np.ndarray] = _STATE, **options: Any) -> Backbone:
    """A network of one's own, with weights from a file."""
    (folder / "net.py").write_text(code)
    save_file(state, folder / "weights.safetensors")
    return load_backbone(f"{folder}/net.py:Net", weights=str(folder / "weights.safetensors"), device="cpu", **options)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("architecture", {"code": _NET.replace("mean(dim=(2, 3))", "amax(dim=(2, 3))")}),
        ("weights_sha256", {"state": {**_STATE, "last.bias": np.array([0, 1e-30], np.float32)}}),
        ("weights_sha256", {"state": {**_STATE, "scale": np.array([1.0000001], np.float32)}}),
        ("transform", {"resize": 9}),
        ("transform", {"crop": 7}),
        ("transform", {"background": "black"}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, mean=(0.0, 0.0, 0.01))}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, std=(1.0, 1.0, 1.01))}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, interpolation="bicubic")}),
        ("transform", {"decoding": "scaled"}),
        ("dtype", {"dtype": "float16"}),
        ("decoder", {"decoder": 10**6}),
        ("precision", {"precision": "bfloat16"}),
        ("", {"layers": ["body"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_every_part_of_the_identity_makes_another_file(
    few: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, part: str, changed: dict[str, Any]
) -> None:
    before = _own(tmp_path)
    first = extract(few, before, cache=tmp_path / "cache")
    kept = first.file.read_bytes()
    encoded.clear()
    assert counts(extract(few, _own(tmp_path), cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    as_before = before.describe()
    if part == "decoder":
        told = {**as_before, **changed}
        monkeypatch.setattr(Backbone, "describe", lambda _: told)
        changed = {}
    after = _own(tmp_path, **changed)
    second = extract(few, after, cache=tmp_path / "cache")
    assert second.file != first.file
    assert second.identity != first.identity
    assert sum(encoded) == 8
    assert first.file.read_bytes() == kept
    assert [each.split(":")[0] for each in differences(as_before, after.describe())] == ([part] if part else [])
    with pytest.raises(StaleCacheError, match=f"holds other features \\({part or 'other layers'}: "):
        extract(few, after, out=first.file)


def test_the_parts_of_the_identity_are_those_that_a_test_changes(tmp_path: Path) -> None:
    parts = _own(tmp_path).describe()
    assert set(parts) == {"architecture", "weights_sha256", "transform", "precision", "dtype", "decoder"}
    assert set(parts["transform"]) == {"resize", "crop", "mean", "std", "interpolation", "background", "decoding"}

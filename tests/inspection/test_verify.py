"""Every flipped bit, wrong row and forged feature that ``verify_file`` finds."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from feature_files import flip

from featx.backbones.backbone import load_backbone
from featx.cli.main import main
from featx.data.transform import Transform
from featx.errors import BackboneError, CacheMissError, StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_file import DONE, FAILED, FeatureFile, ImageTable
from featx.features.writer import FeatureFileWriter
from featx.heads.head import Head
from featx.inspection.verify import verify_file
from featx.promotion.config import FineTuning
from featx.promotion.promotion import promote


def small_table() -> ImageTable:
    """Three rows of two classes."""
    return ImageTable(
        paths=np.array([b"a.png", b"b.png", b"c.png"]),
        labels=np.array([0, 1, -1]),
        splits=np.array([b"train", b"train", b""]),
        sizes=np.arange(3),
        mtimes=np.arange(3),
    )


def small_writer(path: Path, *, images: ImageTable | None = None, dtype: str = "float32") -> FeatureFileWriter:
    """Three rows, nothing written yet."""
    return FeatureFileWriter(
        path,
        images=images or small_table(),
        classes=("a", "b"),
        layers={"penultimate": (2, "1" * 64)},
        dtype=dtype,
        identity="2" * 64,
        backbone={"name": "lenet5", "weights": "default", "parts": {}},
        dataset={"name": "letters", "root": "/letters", "splits": "given"},
    )


def small_file(
    path: Path,
    vectors: np.ndarray | None = None,
    *,
    keys: Sequence[int] = (1, 2, 3),
    dtype: str = "float32",
    paths: Sequence[bytes] = (b"a.png", b"b.png", b"c.png"),
) -> Path:
    """Three rows, whose keys are these numbers."""
    images = dataclasses.replace(small_table(), paths=np.array(paths))
    writer = small_writer(path, images=images, dtype=dtype)
    writer.publish()
    features = np.arange(6).reshape(3, 2) if vectors is None else vectors
    key = np.array([[number] * 16 for number in keys], dtype=np.uint8)
    writer.write([0, 1, 2], key, {"penultimate": features.astype(dtype)})
    writer.finish()
    return path


def test_a_missing_file_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no feature file .*none\.h5"):
        verify_file(tmp_path / "none.h5")


def test_a_sound_file_is_ok(features: Path) -> None:
    assert verify_file(features) == {"ok": True, "rows": 49, "duplicates": 0, "bad_rows": 0, "problems": []}


def flipped(
    path: Path, spans: Sequence[tuple[int, int]], count: int, seed: int
) -> list[tuple[int, int, dict[str, Any]]]:
    """The results of ``verify_file`` after each of so many flips of single bits, drawn evenly from stretches of the file."""
    rng = random.Random(seed)
    ends = np.cumsum([length for _, length in spans]).tolist()
    result = []
    for _ in range(count):
        at, bit = rng.randrange(ends[-1]), rng.randrange(8)
        number = next(n for n, end in enumerate(ends) if at < end)
        place = spans[number][0] + spans[number][1] - (ends[number] - at)
        flip(path, place, bit)
        result.append((place, bit, verify_file(path)))
        flip(path, place, bit)
    assert verify_file(path)["ok"]
    return result


def test_each_of_1000_flipped_bits_in_features_checksums_and_image_tables_is_found(features: Path) -> None:
    cache = FeatureFile(features)
    tables = cache.structure.tables
    layer, bad = cache.layers["penultimate"], cache.paths.index("val/dark/bad.png")
    width = layer.dim * 4
    rows = [(layer.offset + row * width, width) for row in range(49) if row != bad]  # that row has no features
    in_features = flipped(features, rows, 400, seed=1)
    for place, bit, result in in_features:
        row = (place - layer.offset) // width
        assert (result["ok"], result["rows"], result["bad_rows"]) == (False, 49, 1), (place, bit)
        message = f"layer penultimate: 1 row does not match its checksum, the first of {cache.paths[row]}"
        assert result["problems"][0] == message
    spans = {
        name: (table.offset, table.nbytes)
        for name, table in tables.items()
        if table is not tables["features/penultimate"]
    }
    assert {"classes", "checks/penultimate", "images/key", "images/error", "images/status"} <= spans.keys()
    in_tables = flipped(features, list(spans.values()), 400, seed=2)
    for name, span in spans.items():
        in_tables += flipped(features, [span], 200 // len(spans) + 1, seed=len(name))
    for place, bit, result in in_tables:
        assert not result["ok"], (place, bit)
        assert len(result["problems"]) == 1
        assert f"{features.name}: its tables do not match their digest" in result["problems"][0]
    assert len(in_features) + len(in_tables) >= 1000


def test_each_flipped_bit_in_the_structure_is_found(features: Path) -> None:
    end = len(FeatureFile(features).structure.data)
    for place, bit, result in flipped(features, [(0, 2600), (0, end)], 400, seed=3):
        assert not result["ok"], (place, bit)
        assert len(result["problems"]) == 1


def test_several_bad_rows_are_counted_once_each(features: Path) -> None:
    cache = FeatureFile(features)
    for row, column in ((3, 0), (3, 5), (7, 1)):
        flip(features, cache.layers["penultimate"].offset + (row * 84 + column) * 4, 0)
    result = verify_file(features)
    assert result["bad_rows"] == 2
    assert result["problems"] == [
        f"layer penultimate: 2 rows do not match their checksum, the first of {cache.paths[3]}"
    ]


def test_rows_of_nan_or_infinity_are_found(tmp_path: Path) -> None:
    path = small_file(tmp_path / "f.h5", np.array([[1, 2], [np.nan, 0], [0, -np.inf]]))
    assert verify_file(path) == {
        "ok": False,
        "rows": 3,
        "duplicates": 0,
        "bad_rows": 2,
        "problems": ["layer penultimate: 2 rows contain NaN or infinity, the first of b.png"],
    }


def test_a_row_that_is_bad_in_two_ways_is_counted_once(tmp_path: Path) -> None:
    path = small_file(tmp_path / "f.h5", np.array([[1, 2], [np.inf, 0], [0, 1]]))
    flip(path, FeatureFile(path).layers["penultimate"].offset + 12, 0)
    result = verify_file(path)
    assert result["bad_rows"] == 1
    assert result["problems"] == [
        "layer penultimate: 1 row does not match its checksum, the first of b.png",
        "layer penultimate: 1 row contains NaN or infinity, the first of b.png",
    ]


def test_copies_of_an_image_are_counted_and_are_no_problem(tmp_path: Path) -> None:
    result = verify_file(small_file(tmp_path / "f.h5", np.array([[1, 2], [3, 4], [1, 2]]), keys=(5, 6, 5)))
    assert (result["ok"], result["duplicates"]) == (True, 1)
    result = verify_file(small_file(tmp_path / "g.h5", np.ones((3, 2)), keys=(5, 5, 5)))
    assert (result["ok"], result["duplicates"]) == (True, 2)


def test_copies_of_an_image_with_other_features_are_found(tmp_path: Path) -> None:
    result = verify_file(small_file(tmp_path / "f.h5", np.array([[1, 2], [3, 4], [1, 3]]), keys=(5, 6, 5)))
    assert (result["ok"], result["duplicates"], result["bad_rows"]) == (False, 1, 0)
    assert result["problems"] == [
        "layer penultimate: 1 copy of an image has features that differ from the original's, the first c.png from a.png"
    ]


def test_features_without_a_key_are_found(tmp_path: Path) -> None:
    result = verify_file(small_file(tmp_path / "f.h5", keys=(1, 0, 2)))
    assert result["ok"] is False
    assert result["problems"] == ["1 row has features but no key, the first of b.png"]


def test_a_path_in_several_rows_is_found(tmp_path: Path) -> None:
    result = verify_file(small_file(tmp_path / "f.h5", paths=(b"a.png", b"caf\xe9.png", b"caf\xe9.png")))
    assert result["ok"] is False
    assert result["problems"] == ["1 path occurs in several rows, the first caf\udce9.png"]


def test_a_truncated_file_is_a_problem_that_names_it(features: Path, tmp_path: Path) -> None:
    shutil.copy(features, tmp_path / "half.h5")
    os.truncate(tmp_path / "half.h5", 9000)
    result = verify_file(tmp_path / "half.h5")
    assert (result["ok"], result["rows"], result["bad_rows"]) == (False, 0, 0)
    assert len(result["problems"]) == 1
    assert "half.h5 has 9,000 bytes instead of" in result["problems"][0]


def test_an_incomplete_file_is_a_problem_and_what_it_has_is_checked(tmp_path: Path) -> None:
    writer = small_writer(tmp_path / "f.h5")
    writer.publish()
    partial = tmp_path / "f.h5.partial"
    incomplete = "incomplete: {} of 3 rows; run the same featx extract again to finish it"
    assert verify_file(partial) == {
        "ok": False, "rows": 3, "duplicates": 0, "bad_rows": 0, "problems": [incomplete.format(0)],
    }  # fmt: skip
    writer.write([2], np.ones((1, 16), dtype=np.uint8), {"penultimate": np.ones((1, 2), dtype=np.float32)})
    writer.fail(0, bytes(16), "why")
    flip(partial, FeatureFile(partial, allow_partial=True).layers["penultimate"].offset + 2 * 8, 0)
    result = verify_file(partial)
    assert result["bad_rows"] == 1
    assert result["problems"] == [
        incomplete.format(2), "layer penultimate: 1 row does not match its checksum, the first of c.png",
    ]  # fmt: skip


# verify_file: images extracted again


def forge(path: Path, change: Callable[[np.ndarray], np.ndarray], out: Path) -> Path:
    """A copy of a file with other features, whose checksums and digest are valid."""
    cache = FeatureFile(path)
    writer = FeatureFileWriter(
        out,
        images=cache.images,
        classes=cache.classes,
        layers={name: (layer.dim, layer.identity) for name, layer in cache.layers.items()},
        dtype=next(iter(cache.layers.values())).dtype.name,
        identity=cache.identity,
        backbone=cache.backbone,
        dataset=cache.dataset,
    )
    writer.publish()
    done = np.flatnonzero(cache.status == DONE)
    writer.write(done, cache.keys[done], {name: change(np.array(cache.features(name)[done])) for name in cache.layers})
    for row in np.flatnonzero(cache.status == FAILED).tolist():
        writer.fail(row, cache.keys[row].tobytes(), cache.error(row))
    writer.finish()
    assert verify_file(out)["ok"]
    return out


@pytest.fixture
def few(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    """8 images through LeNet-5, two layers."""
    for number in range(8):
        make_image(tmp_path / "few" / "ab"[number % 2] / f"{number}.png", seed=number, tint=40 + 20 * number)
    return extract(tmp_path / "few", load_backbone("lenet5", layers=["features.3"]), cache=tmp_path / "cache").file


def test_rows_of_a_sound_file_come_out_the_same_again(few: Path) -> None:
    result = verify_file(few, recompute=5)
    assert result["ok"] is True
    assert (result["recomputed"], result["changed"], result["problems"]) == (5, 0, [])
    assert 0 <= result["largest_difference"] < 1e-5
    assert verify_file(few, recompute=100)["recomputed"] == 8


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another scale", lambda features: features * 1.01),
        ("other rows", lambda features: np.roll(features, 1, axis=0)),
        ("zeros", np.zeros_like),
        ("one row", lambda features: np.concatenate([features[:-1], features[:1]])),
    ],
)
def test_features_that_were_replaced_are_found_though_checksums_and_digest_match(
    few: Path, tmp_path: Path, what: str, change: Callable[[np.ndarray], np.ndarray], dtype: str
) -> None:
    if dtype == "float16":
        few = extract(tmp_path / "few", load_backbone("lenet5", dtype="float16"), cache=tmp_path / "cache").file
    forged = forge(few, change, tmp_path / "forged.h5")
    result = verify_file(forged, recompute=8)
    rows = 1 if what == "one row" else 8
    assert (result["ok"], result["recomputed"], result["bad_rows"]) == (False, 8, 0)
    layers = list(FeatureFile(few).layers)
    assert len(result["problems"]) == len(layers)
    for layer, problem in zip(layers, result["problems"], strict=True):
        tolerance = "0.001" if dtype == "float32" else "0.005"
        differ = "1 differs" if rows == 1 else "8 differ"
        message = f"layer {layer}: of 8 rows that were extracted again, {differ} by more than {tolerance} (relative)"
        assert problem.startswith(message)
        if what == "one row":
            assert problem.endswith("the first of b/7.png")
    assert result["largest_difference"] > 0.005


def test_float16_features_whose_squares_overflow_are_compared_all_the_same(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_backbone("lenet5", dtype="float16")
    file = extract(tmp_path / "few", made, cache=tmp_path / "cache").file
    large = forge(file, lambda features: np.full_like(features, 100), tmp_path / "large.h5")
    encode = type(made).encode

    def encoded(self: Any, pixels: Any) -> dict[str, np.ndarray]:
        return {name: np.full_like(vectors, 200) for name, vectors in encode(self, pixels).items()}

    monkeypatch.setattr(type(made), "encode", encoded)
    result = verify_file(large, recompute=3)
    assert result["ok"] is False
    assert result["largest_difference"] == pytest.approx(0.5)


def test_rows_of_nan_do_not_pass_for_equal(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_backbone("lenet5")
    monkeypatch.setattr(
        type(made),
        "encode",
        lambda self, pixels: {name: np.full((1, dim), np.nan) for name, dim in self.layers.items()},
    )
    result = verify_file(few, recompute=2)
    assert result["ok"] is False
    assert result["largest_difference"] == np.inf


def test_images_that_are_gone_or_changed_are_counted_and_others_compared_instead(
    few: Path, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    (tmp_path / "few" / "a" / "0.png").unlink()
    (tmp_path / "few" / "a" / "2.png").write_bytes(b"no image")
    make_image(tmp_path / "few" / "b" / "1.png", seed=99)
    result = verify_file(few, recompute=8)
    assert (result["ok"], result["recomputed"], result["changed"], result["problems"]) == (True, 5, 3, [])
    result = verify_file(few, recompute=5)
    assert result["recomputed"] == 5
    assert result["changed"] <= 3


def test_when_every_image_is_gone_that_is_a_problem(few: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "few")
    result = verify_file(few, recompute=3)
    assert (result["ok"], result["recomputed"], result["changed"], result["largest_difference"]) == (False, 0, 8, None)
    assert result["problems"] == [
        f"no row could be extracted again: every image is gone from {tmp_path / 'few'}, or has changed"
    ]


def test_another_network_than_the_files_is_stale_and_both_values_are_named(few: Path) -> None:
    with pytest.raises(
        StaleCacheError,
        match=r"lenet5 gives other features here than the stored ones \(weights_sha256: \w{64} against \w{64}\)$",
    ):
        verify_file(few, recompute=1, weights="random")


def test_a_file_of_code_is_not_run_unless_it_is_named(tmp_path: Path, few: Path) -> None:
    code = tmp_path / "own.py"
    code.write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4), torch.nn.Linear(4, 2))\n"
    )
    small = Transform.from_dict(FeatureFile(few).backbone["parts"]["transform"])
    small = dataclasses.replace(small, mean=(0.5,) * 3, std=(0.5,) * 3)
    name = f"{code}:make"
    file = extract(tmp_path / "few", load_backbone(name, transform=small), cache=tmp_path / "own").file
    with pytest.raises(
        BackboneError,
        match=r"the backbone is .*own\.py:make, a file of code, and a stored path is never run; name it with "
        r"--backbone .*own\.py:make",
    ):
        verify_file(file, recompute=1)
    assert verify_file(file, recompute=2, backbone=name)["ok"]
    code.write_text(code.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(
        StaleCacheError, match=r"code_sha256 \w{64} against \w{64}.*; weights_sha256: \w{64} against \w{64}"
    ):
        verify_file(file, recompute=1, backbone=name)


def test_without_recompute_the_result_has_no_such_keys(few: Path) -> None:
    assert verify_file(few).keys() == {"ok", "rows", "duplicates", "bad_rows", "problems"}


def test_outputs_of_a_frozen_part_are_listed_but_only_promote_computes_them(split_photos: Path, in_tmp: Path) -> None:
    head = Head("ridge").fit(extract(split_photos, "lenet5").load())
    promote(head, finetune=True, settings=FineTuning(epochs=1, last=1))
    listed = CliRunner().invoke(main, ["cache"]).output
    assert len([line for line in listed.splitlines() if line.startswith("frozen/split--lenet5--hidden.1--")]) == 2
    file = next(Path("cache/frozen").glob("*plain*.h5"))
    assert verify_file(file)["ok"]
    with pytest.raises(BackboneError, match=r"only featx promote computes those\. Remove the file if you doubt it"):
        verify_file(file, recompute=1)

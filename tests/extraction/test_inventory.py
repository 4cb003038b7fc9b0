"""What is on the disk before a run: image files that vanish or change, and files that must not be overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from extractions import MakeImage, assert_own_features, counts
from made import Recorder

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.scan import scan_images
from featx.errors import CorruptFileError, StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile


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


def test_an_image_that_changes_after_it_was_listed_is_kept_as_it_was_read(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    make_image: MakeImage,
    encoded: list[int],
    opened: Callable[[], list[str]],
) -> None:
    victim = few / "dark" / "1.png"

    def change_once(_: object) -> None:
        """Change the image after its size and time are known, before it is read."""
        if not changed:
            changed.append(make_image(victim, seed=999, size=(50, 50)))

    changed: list[Path] = []
    result = extract(few, lenet, cache=tmp_path / "cache", reporter=Recorder(change_once))
    assert changed == [victim]
    assert_own_features(result, lenet, few)
    encoded.clear()
    opened()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert opened() == []


def test_a_dangling_link_does_not_make_the_file_anew_each_time(photos: Path, in_tmp: Path) -> None:
    (photos / "dark" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "dark" / "pipe.png")
    first = extract(photos, "lenet5")
    assert [error for _, error in first.failures] == [
        "cannot be read: No such file or directory",
        "is not a regular file",
    ]
    written = first.file.stat().st_ino
    again = extract(photos, "lenet5")
    assert (again.computed, again.reused, again.failed) == (0, 40, 2)
    assert again.file.stat().st_ino == written


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dtype": "float16"}, "dtype: float32 against float16"),
        ({"weights": "random"}, "weights_sha256: [0-9a-f]{64} against [0-9a-f]{64}"),
        ({"resize": 40}, "transform: resize 32 against 40"),
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
    with pytest.raises(StaleCacheError, match=rf"mine\.h5 holds other features \({part}\); -o names another file"):
        extract(few, load_backbone("lenet5", device="cpu", **options), out=out)
    assert out.read_bytes() == before
    assert encoded == []
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.h5"]


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
    with pytest.raises(CorruptFileError, match=r"f\.h5.* It is not overwritten; -o names another file"):
        extract(few, lenet, out=out)
    assert out.read_bytes() == data
    assert encoded == []


def test_corners_without_room_are_said(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    said = "images are resized to 32 pixels and the crop takes all of them: the corner views differ along the longer side only"
    for name, resize, noted in (("10crop", 32, True), ("10crop", 33, False), ("flip", 32, False)):
        backbone = load_backbone("lenet5", views=name, resize=resize, device="cpu")
        notes = extract(few, backbone, cache=tmp_path / "cache").notes
        assert any(note.startswith(said) for note in notes) is noted

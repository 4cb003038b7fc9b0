"""The same images in a folder, in archives and in shards share their features; an unchanged archive costs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import folder_of, make_any, make_shard
from extractions import MakeImage, counts, embed, interrupt

from featx.backbones.backbone import Backbone
from featx.data.scan import scan_images
from featx.data.sources import archive_store
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction

ARCHIVES = ["few.zip", "few.tar", "few.tar.gz", "few.tar.xz"]


def make_shards(folder: Path, files: dict[str, bytes]) -> str:
    """Two shards of the files of two classes."""
    names = sorted({path.split("/")[0] for path in files})
    for shard in range(2):
        samples = {
            path.replace("/", "-").partition(".")[0]: {"png": data, "cls": names.index(path.split("/")[0])}
            for path, data in sorted(files.items())[shard::2]
        }
        make_shard(folder / f"few-{shard:03}.tar", samples)
    (folder / "classnames.txt").write_text("\n".join(names))
    return f"{folder}/few-{{000..001}}.tar"


def by_key(result: Extraction) -> dict[bytes, tuple[bytes, str, str]]:
    """The bytes of the features, the class and the split of each image by its key."""
    rows = result.load()
    return {
        key.tobytes(): (vector.tobytes(), rows.classes[label], str(split))
        for key, vector, label, split in zip(rows.keys, rows.features, rows.labels, rows.splits, strict=True)
    }


def test_a_folder_archives_and_shards_have_the_same_features_after_one_pass(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    files, cache = folder_of(few), tmp_path / "cache"
    whole = by_key(extract(few, lenet, cache=cache))
    encoded.clear()
    data = [str(make_any(tmp_path / name, files)) for name in ARCHIVES] + [make_shards(tmp_path / "shards", files)]
    for each in (*data, str(tmp_path / "shards")):
        result = extract(each, lenet, cache=cache)
        assert counts(result) == (8, 0, 8, 0, 0), each
        assert by_key(result) == whole, each
    assert encoded == []


@pytest.mark.parametrize("name", [*ARCHIVES, "shards"])
def test_a_second_run_opens_no_archive(
    few: Path,
    tmp_path: Path,
    lenet: Backbone,
    encoded: list[int],
    opened: Callable[..., list[str]],
    name: str,
) -> None:
    files = folder_of(few)
    data = make_shards(tmp_path / "shards", files) if name == "shards" else str(make_any(tmp_path / name, files))
    first = extract(data, lenet, cache=tmp_path / "cache")
    assert counts(first) == (8, 8, 0, 0, 0)
    before = first.file.read_bytes()
    encoded.clear()
    kinds = (".zip", ".tar", ".gz", ".xz")
    assert any(path.startswith("few") for path in opened(kinds))
    archive_store._archive.cache_clear()
    second = extract(data, lenet, cache=tmp_path / "cache")
    assert counts(second) == (8, 0, 8, 0, 0)
    assert encoded == []
    assert [path for path in opened(kinds) if path.startswith("few")] == []  # others are Python's own
    assert first.file.read_bytes() == before


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_written_again_is_read_again_without_a_forward_pass(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], make_image: MakeImage, name: str
) -> None:
    data = make_any(tmp_path / name, folder_of(few))
    extract(data, lenet, cache=tmp_path / "cache")
    encoded.clear()
    make_any(data, dict(reversed(folder_of(few).items())))
    assert counts(extract(data, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert encoded == []
    make_image(few / "dark/new.png", seed=99)
    make_any(data, folder_of(few))
    assert counts(extract(data, lenet, cache=tmp_path / "cache")) == (9, 1, 8, 0, 0)
    assert sum(encoded) == 1


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_run_that_is_stopped_goes_on_where_it_was(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = make_any(tmp_path / name, folder_of(few))
    with monkeypatch.context() as patch:
        interrupt(patch, after=1)
        with pytest.raises(KeyboardInterrupt):
            extract(data, lenet, cache=tmp_path / "cache", batch_size=3)
    encoded.clear()
    result = extract(data, lenet, cache=tmp_path / "cache", batch_size=3)
    assert result.images == 8
    assert 0 < result.computed < 8
    for path, vector in zip(result.load().paths, result.load().features, strict=True):
        np.testing.assert_allclose(vector, embed(lenet, few / path), atol=1e-5)


def test_a_member_that_is_damaged_fails_alone_and_is_tried_again(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    files = folder_of(few)
    data = make_any(tmp_path / "few.zip", files)
    good = data.read_bytes()
    broken = bytearray(good)
    broken[good.find(b"PK\3\4", 1) + 60] ^= 0x55
    data.write_bytes(broken)
    first = extract(data, lenet, cache=tmp_path / "cache")
    assert first.failed == 1
    data.write_bytes(good)
    assert counts(extract(data, lenet, cache=tmp_path / "cache"))[:4] == (8, 1, 7, 0)


def test_boxes_and_labels_of_a_table_work_with_an_archive_as_root(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    make_any(tmp_path / "few.zip", folder_of(few))
    table = tmp_path / "few.csv"
    table.write_text("path,label\ndark/0.png,a\nlight/1.png,b\n")
    images = scan_images(table, root=str(tmp_path / "few.zip"))
    assert images.root == str(tmp_path / "few.zip")
    assert counts(extract(images, lenet, cache=tmp_path / "cache")) == (2, 2, 0, 0, 0)
    shutil.rmtree(few)
    os.utime(tmp_path / "few.zip")
    assert counts(extract(images, lenet, cache=tmp_path / "cache")) == (2, 0, 2, 0, 0)

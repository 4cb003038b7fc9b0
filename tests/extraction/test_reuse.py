"""Rows that are in files already: found by their images' content, taken only if they are sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import BACKBONE, flip

from featx.data.image_set import ImageSet
from featx.data.store import FolderStore
from featx.extraction.reuse import KnownRows, KnownViews
from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.writer import FeatureFileWriter
from featx.layer_spec import MIRRORED, PLAIN

DIMS = {"penultimate": 4, "hidden": 3}


def key(text: str) -> bytes:
    """16 bytes that end in zeros."""
    return text.encode().ljust(16, b"\0")


def keys(*texts: str) -> np.ndarray:
    return np.frombuffer(b"".join(map(key, texts)), dtype=np.uint8).reshape(-1, 16)


def vectors(number: float, count: int, dim: int) -> np.ndarray:
    """(count, dim) float32: the file's number, the row's, the column's."""
    return (number + np.arange(count)[:, None] / 100 + np.arange(dim) / 10_000).astype(np.float32)


def make(
    path: Path,
    contents: Sequence[str],
    number: float = 1,
    *,
    paths: Sequence[bytes] = (),
    root: str = "/photos",
    failed: Mapping[int, str] = {},
    todo: Sequence[int] = (),
    max_pixels: int = 1000,
    dims: Mapping[str, int] = DIMS,
    sizes: Sequence[int] | None = None,
) -> FeatureFile:
    """A file whose images have these contents; it stays unfinished where rows are left to do."""
    count = len(contents)
    writer = FeatureFileWriter(
        path,
        images=ImageTable(
            paths=np.array(paths or [b"%02d.png" % row for row in range(count)]),
            labels=np.zeros(count, dtype=np.int64),
            splits=np.array([b"train"] * count),
            sizes=np.array(sizes or range(100, 100 + count)),
            mtimes=np.arange(count) + 10**18,
        ),
        classes=("a",),
        layers={name: (dim, name[0] * 64) for name, dim in dims.items()},
        dtype="float32",
        identity="c" * 64,
        backbone=BACKBONE,
        dataset={"name": "photos", "root": root, "splits": "given", "max_pixels": max_pixels},
    )
    writer.publish()
    done = [row for row in range(count) if row not in failed and row not in todo]
    writer.write(done, keys(*contents)[done], {name: vectors(number, count, dim)[done] for name, dim in dims.items()})
    for row, reason in failed.items():
        writer.fail(row, key(contents[row]), reason)
    return FeatureFile(path.with_name(path.name + ".partial"), allow_partial=True) if todo else writer.finish()


def listed(paths: Sequence[str], root: str = "/photos") -> ImageSet:
    """Images at these places."""
    count = len(paths)
    labels, splits = np.zeros(count, dtype=np.int64), np.array(["train"] * count, dtype=object)
    return ImageSet("photos", FolderStore(root), np.array(paths, dtype=object), labels, splits, ("a",))


# By key


def test_features_are_found_by_the_key_of_their_image(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "bee", "fly"])], list(DIMS))
    found, features = known.take(keys("fly", "gnat", "ant"))
    assert found.tolist() == [True, False, True]
    assert features.keys() == DIMS.keys()
    for layer, dim in DIMS.items():
        np.testing.assert_array_equal(features[layer], vectors(1, 3, dim)[[2, 0]])
    assert key("bee") in known
    assert key("gnat") not in known
    assert sorted(known) == [key("ant"), key("bee"), key("fly")]
    assert len(known) == 3


def test_keys_that_differ_in_their_last_bytes_alone_are_told_apart(tmp_path: Path) -> None:
    contents = [
        "a",
        "a\0b",
        "a\0\0b",
        "b",
        "\0a",
        "\0\0a",
        "a" * 15,
        "a" * 16,
        "\xff".encode("latin1").decode("latin1"),
    ]
    known = KnownRows([make(tmp_path / "f.h5", contents)], ["penultimate"])
    assert len(known) == len(contents)
    assert set(known) == set(map(key, contents))
    for row in np.random.default_rng(0).permutation(len(contents)).tolist():
        found, features = known.take(keys(contents[row]))
        assert found.all()
        np.testing.assert_array_equal(features["penultimate"], vectors(1, len(contents), 4)[[row]])
    for other in ("", "\0a\0b", "a\0\0\0b", "a" * 14, "b\0a"):
        assert key(other) not in known
        assert not known.take(keys(other))[0].any()


def test_random_keys_are_each_found_in_their_own_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    some = rng.integers(0, 3, (300, 16), dtype=np.uint8)  # many beginnings in common, many zeros
    some = np.unique(some[some.any(axis=1)], axis=0)
    some = some[rng.permutation(len(some))]
    contents = [bytes(row).decode() for row in some]
    known = KnownRows([make(tmp_path / "f.h5", contents)], ["penultimate"])
    asked = rng.permutation(len(some))
    found, features = known.take(some[asked])
    assert found.all()
    np.testing.assert_array_equal(features["penultimate"], vectors(1, len(some), 4)[asked])


def test_a_key_of_zeros_stands_for_no_image(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["", "ant", "bee"], failed={2: "spoilt"})], ["penultimate"])
    assert key("") not in known
    assert key("bee") not in known  # it has no features
    assert known.take(keys("", "ant", "bee"))[0].tolist() == [False, True, False]


def test_of_several_files_with_an_image_the_first_counts(tmp_path: Path) -> None:
    files = [
        make(tmp_path / "one.h5", ["bee", "ant", "gnat"], 1, todo=[0]),
        make(tmp_path / "two.h5", ["fly", "bee", "ant"], 2),
        make(tmp_path / "three.h5", ["wasp", "fly", "bee"], 3),
    ]
    known = KnownRows(files, ["hidden"])
    found, features = known.take(keys("bee", "ant", "wasp", "fly", "gnat"))
    assert found.all()
    np.testing.assert_array_equal(features["hidden"][:, 0], np.float32([2.01, 1.01, 3, 2, 1.02]))
    assert known.take(keys("ant"))[1].keys() == {"hidden"}
    backwards = KnownRows(files[::-1], ["hidden"])
    found, features = backwards.take(keys("bee", "ant", "wasp", "fly", "gnat"))
    np.testing.assert_array_equal(features["hidden"][:, 0], np.float32([3.02, 2.02, 3, 3.01, 1.02]))


def test_of_very_many_copies_the_first_counts(tmp_path: Path) -> None:
    names = [f"image {number % 7}" for number in range(500)]
    files = [make(tmp_path / f"{number}.h5", names, number) for number in range(3)]
    found, features = KnownRows(files, ["hidden"]).take(keys(*names[:7]))
    assert found.all()
    np.testing.assert_array_equal(features["hidden"][:, 0], np.float32([row / 100 for row in range(7)]))


def test_of_copies_within_a_file_the_first_row_counts(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "bee", "ant", "bee", "bee"])], ["hidden"])
    assert len(known) == 2
    found, features = known.take(keys("bee", "ant", "bee"))
    assert found.all()
    np.testing.assert_array_equal(features["hidden"][:, 0], np.float32([1.01, 1, 1.01]))


@pytest.mark.parametrize("layer", list(DIMS))
def test_a_row_that_does_not_fit_its_check_is_not_taken_and_is_known_no_more(tmp_path: Path, layer: str) -> None:
    path = tmp_path / "f.h5"
    file = make(path, ["ant", "bee", "fly"])
    flip(path, file.layers[layer].offset + 1 * DIMS[layer] * 4)
    known = KnownRows([FeatureFile(path)], list(DIMS))
    assert key("bee") in known  # nobody has looked at it yet
    found, features = known.take(keys("fly", "bee", "ant"))
    assert found.tolist() == [True, False, True]
    for name, dim in DIMS.items():
        np.testing.assert_array_equal(features[name], vectors(1, 3, dim)[[2, 0]])
    assert key("bee") not in known
    assert key("ant") in known
    only = next(name for name in DIMS if name != layer)
    assert KnownRows([FeatureFile(path)], [only]).take(keys("bee"))[0].all()


def test_when_nothing_is_sound_nothing_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    file = make(path, ["ant"])
    flip(path, file.layers["hidden"].offset)
    found, features = KnownRows([FeatureFile(path)], ["hidden"]).take(keys("ant"))
    assert not found.any()
    assert all(not len(block) for block in features.values())


def test_the_rows_come_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    names = [f"image {number}" for number in range(40)]
    files = [make(tmp_path / f"{number}.h5", names[number::4], number) for number in range(4)]
    order = np.random.default_rng(2).permutation(40)
    found, features = KnownRows(files, ["hidden"]).take(keys(*[names[at] for at in order]))
    assert found.all()
    np.testing.assert_array_equal(features["hidden"][:, 0], np.float32([at % 4 + (at // 4) / 100 for at in order]))


def test_without_files_nothing_is_known() -> None:
    known = KnownRows([], ["penultimate"])
    assert (len(known), list(known), key("ant") in known) == (0, [], False)
    assert known.take(keys("ant", "bee"))[0].tolist() == [False, False]
    assert not known.recognised(listed(["a.png"]), np.array([100]), np.array([10**18])).any()
    assert known.failures(1000) == {}


@pytest.mark.parametrize("other", ["ant", 5, None, b"", b"ant", b"x" * 17, b"x" * 32])
def test_what_is_no_key_is_not_in_it(tmp_path: Path, other: object) -> None:
    assert other not in KnownRows([make(tmp_path / "f.h5", ["ant"])], ["hidden"])


# By place


def recognised(known: KnownRows, images: ImageSet, sizes: Sequence[int], mtimes: Sequence[int]) -> list[str]:
    found = known.recognised(images, np.array(sizes), np.array(mtimes))
    assert (found.dtype, found.shape) == (np.uint8, (len(images), 16))
    return [bytes(row).rstrip(b"\0").decode() for row in found]


def test_an_image_is_recognised_by_its_place_size_and_time(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "bee", "fly", "gnat"])], ["hidden"])
    images = listed(["00.png", "01.png", "02.png", "03.png", "04.png"])
    sizes, mtimes = [100, 101, 102, 999, 104], [10**18, 10**18 + 1, 10**18, 10**18 + 3, 10**18 + 4]
    assert recognised(known, images, sizes, mtimes) == ["ant", "bee", "", "", ""]


def test_what_has_no_file_any_more_is_not_recognised(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant"], sizes=[-1])], ["hidden"])
    assert recognised(known, listed(["00.png"]), [-1], [10**18]) == [""]


def test_the_same_relative_path_in_another_folder_is_not_recognised(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant"])], ["hidden"])
    for root in ("/other", "/photos2", "/photo", "/photos/00.png", "photos", "/photos/photos"):
        assert recognised(known, listed(["00.png"], root), [100], [10**18]) == [""]


def test_an_image_is_recognised_from_a_folder_within_or_above(tmp_path: Path) -> None:
    paths = [b"ants/1.png", b"ants/2.png", b"bees/1.png"]
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "ant two", "bee"], paths=paths)], ["hidden"])
    within = listed(["1.png", "2.png"], "/photos/ants")
    assert recognised(known, within, [100, 101], [10**18, 10**18 + 1]) == ["ant", "ant two"]
    above = listed(["photos/ants/1.png", "photos/bees/1.png", "z/ants/1.png"], "/data")
    moved = KnownRows(
        [make(tmp_path / "g.h5", ["ant", "ant two", "bee"], paths=paths, root="/data/photos")], ["hidden"]
    )
    assert recognised(moved, above, [100, 102, 100], [10**18, 10**18 + 2, 10**18]) == ["ant", "bee", ""]
    top = listed(["photos/ants/1.png", "photos/bees/1.png"], "/")
    assert recognised(known, top, [100, 102], [10**18, 10**18 + 2]) == ["ant", "bee"]


def test_images_that_a_table_lists_by_absolute_paths_are_recognised(tmp_path: Path) -> None:
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "bee"])], ["hidden"])
    table = listed(["/photos/00.png", "/photos/01.png"], "/tables")
    assert recognised(known, table, [100, 101], [10**18, 10**18 + 1]) == ["ant", "bee"]
    paths = [b"/photos/a.png", b"/photos/b.png", b"c.png"]
    mixed = KnownRows([make(tmp_path / "g.h5", ["ant", "bee", "fly"], paths=paths, root="/a")], ["hidden"])
    assert recognised(mixed, listed(["a.png", "b.png"], "/photos"), [100, 101], [10**18, 10**18 + 1]) == ["ant", "bee"]
    assert recognised(mixed, listed(["c.png"], "/a"), [102], [10**18 + 2]) == ["fly"]


def test_several_files_recognise_together_and_the_first_that_knows_counts(tmp_path: Path) -> None:
    files = [
        make(tmp_path / "one.h5", ["ant", "", "old fly"], failed={1: "unreadable"}),
        make(tmp_path / "two.h5", ["other", "bee", "fly"], sizes=[100, 101, 555]),
    ]
    images = listed(["00.png", "01.png", "02.png"])
    mtimes = [10**18, 10**18 + 1, 10**18 + 2]
    assert recognised(KnownRows(files, ["hidden"]), images, [100, 101, 555], mtimes) == ["ant", "bee", "fly"]
    assert recognised(KnownRows(files[::-1], ["hidden"]), images, [100, 101, 102], mtimes) == [
        "other",
        "bee",
        "old fly",
    ]


def test_names_that_are_not_utf8_and_long_ones_are_recognised(tmp_path: Path) -> None:
    paths = [b"\xff.png", b"caf\xc3\xa9.png", b"x" * 300]
    known = KnownRows([make(tmp_path / "f.h5", ["ant", "bee", "fly"], paths=sorted(paths))], ["hidden"])
    images = listed(["caf\u00e9.png", "x" * 300, "\udcff.png"])
    assert recognised(known, images, [100, 101, 102], [10**18, 10**18 + 1, 10**18 + 2]) == ["ant", "bee", "fly"]


# Images that failed


def test_failures_are_known_by_key_under_the_same_limit_alone(tmp_path: Path) -> None:
    files = [
        make(tmp_path / "one.h5", ["ant", "bee", ""], failed={1: "too large", 2: "cannot be read"}),
        make(tmp_path / "two.h5", ["ant", "fly"], failed={1: "spoilt"}, max_pixels=2000),
        make(tmp_path / "three.h5", ["gnat", "ant"], failed={0: "no image"}),
        make(tmp_path / "four.h5", ["moth", "ant"], failed={0: "not read"}, todo=[1]),  # not complete
    ]
    known = KnownRows(files, ["hidden"])
    assert known.failures(1000) == {key("bee"): "too large", key("gnat"): "no image"}
    assert known.failures(2000) == {key("fly"): "spoilt"}
    assert known.failures(3000) == {}


# In several views


WANTED = {PLAIN: {"own": "o" * 64}, MIRRORED: {"own@mirrored": "o" * 64}}


def views(*files: FeatureFile) -> KnownViews:
    return KnownViews(files, WANTED)


def one(
    path: Path, *names: str, contents: Sequence[str] = ("ant", "bee"), number: float = 1, **facts: Any
) -> FeatureFile:
    """A file that has these layers."""
    return make(path, contents, number, dims=dict.fromkeys(names, 4), **facts)


def test_an_image_is_known_when_all_views_are_whichever_files_have_them(tmp_path: Path) -> None:
    plain = one(tmp_path / "a.h5", "own")
    mirrored = one(tmp_path / "b.h5", "own@mirrored", contents=("bee", "fly"), number=2)
    known = views(plain, mirrored)
    assert [key(name) in known for name in ("ant", "bee", "fly", "gnat")] == [False, True, False, False]
    found, features = known.take(keys("ant", "bee", "fly", "bee"))
    assert found.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(features["own"], vectors(1, 2, 4)[[1, 1]])
    np.testing.assert_array_equal(features["own@mirrored"], vectors(2, 2, 4)[[0, 0]])


def test_what_some_views_have_can_be_taken_alone(tmp_path: Path) -> None:
    known = views(one(tmp_path / "a.h5", "own"), one(tmp_path / "b.h5", "own@mirrored", contents=("fly",)))
    found, features = known.take(keys("fly", "bee"), [PLAIN])
    assert found.tolist() == [False, True]
    assert features.keys() == {"own"}
    np.testing.assert_array_equal(features["own"], vectors(1, 2, 4)[[1]])


def test_rows_are_told_apart_by_the_views_they_lack(tmp_path: Path) -> None:
    known = views(
        one(tmp_path / "a.h5", "own", "own@mirrored", contents=("both",)),
        one(tmp_path / "b.h5", "own", contents=("ant", "bee")),
        one(tmp_path / "c.h5", "own@mirrored", contents=("fly",)),
    )
    rows = np.array([3, 5, 7, 9, 11, 13])
    lacking = known.lacking(rows, keys("ant", "fly", "gnat", "bee", "both", ""))
    found = {tuple(view.name for view in lack): some.tolist() for lack, some in lacking}
    # What is known in all views is asked for again only where something is wrong with it.
    assert found == {("mirrored",): [3, 9], ("",): [5], ("", "mirrored"): [7, 11, 13]}


def test_a_row_that_does_not_fit_its_check_is_lacking_in_that_view(tmp_path: Path) -> None:
    file = one(tmp_path / "a.h5", "own", "own@mirrored")
    flip(file.path, file.layers["own@mirrored"].offset + 1)
    known = views(FeatureFile(file.path))
    assert key("ant") in known
    assert known.take(keys("ant", "bee"))[0].tolist() == [False, True]
    assert key("ant") not in known
    ((lack, rows),) = [(lack, rows) for lack, rows in known.lacking(np.array([0]), keys("ant"))]
    assert lack == (MIRRORED,)
    assert rows.tolist() == [0]


def test_images_are_recognised_by_any_file_and_fail_in_every_view(tmp_path: Path) -> None:
    plain = one(tmp_path / "a.h5", "own", failed={1: "spoilt"})
    mirrored = one(tmp_path / "b.h5", "own@mirrored", contents=("fly",), paths=[b"fly.png"])
    known = views(plain, mirrored)
    found = known.recognised(
        listed(["00.png", "fly.png", "new.png"]), np.array([100, 100, 100]), np.array([0, 0, 0]) + 10**18
    )
    np.testing.assert_array_equal(found, np.concatenate([keys("ant", "fly"), np.zeros((1, 16), np.uint8)]))
    assert known.failures(1000) == {key("bee"): "spoilt"}


def test_only_images_of_a_size_that_is_known_in_part_may_lack_some_views(tmp_path: Path) -> None:
    whole = one(tmp_path / "a.h5", "own", "own@mirrored", sizes=[7, 8])
    plain = one(tmp_path / "b.h5", "own", sizes=[70, 80])
    sizes = np.array([7, 70, 80, 9, -1])
    assert views(whole, plain).may_lack_some(sizes).tolist() == [False, True, True, False, False]
    assert not views(whole).may_lack_some(sizes).any()
    assert not views().may_lack_some(sizes).any()


def test_only_images_of_the_size_of_one_that_has_features_may_be_known(tmp_path: Path) -> None:
    known = views(one(tmp_path / "a.h5", "own", "todo", sizes=[7, 8], todo=[1]))
    assert known.has_sizes(np.array([3, 7]))
    assert not known.has_sizes(np.array([8, 9]))
    assert not views().has_sizes(np.array([7]))


def test_where_nothing_is_known_everything_is_lacking_in_all_views() -> None:
    ((lack, rows),) = list(views().lacking(np.arange(3), keys("ant", "bee", "")))
    assert lack == (PLAIN, MIRRORED)
    assert rows.tolist() == [0, 1, 2]

"""Vectors joined with what is known elsewhere of their images: labels of a table, and the images themselves."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from featx.data.image_set import ImageSet
from featx.data.scan_options import ScanOptions
from featx.data.sources.table import TABLE_ENDINGS
from featx.data.table_roles import NO_BOXES, open_by
from featx.data.table_rows import exists_in, read_rows
from featx.errors import DatasetError, ImageError
from featx.features.exchange.vectors import NAME_COLUMNS, Vectors, first_of
from featx.text import counted, form, listed, printable, shortened

UNMATCHED, AMBIGUOUS = -1, -2
"""What a name matches that is nowhere, or that several fit equally well."""

_SLIDE_COLUMNS = ("slideid", "slide", "slidename", "wsi", "wsiid")
"""Names of columns of slides in clinical tables."""


def match_names(names: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """Find each name among others that may have more or fewer folders before it, or another ending.

    The same path is taken first; then, of the candidates with the same file name, the one whose folders agree furthest from the
    right; then the same with file names without their endings. A candidate in a folder of another name is taken only if all
    file names are different, so that it cannot be another image.

    Args:
        names: N names.
        candidates: M names.

    Returns:
        (N,) int64: the candidate of each name, ``UNMATCHED`` or ``AMBIGUOUS``.

    Examples:
        >>> match_names(["/data/cat/1.jpg", "1", "2.png", "3"], ["cat/1.jpg", "dog/2.jpg", "dog/3.jpg", "cat/3.jpg"]).tolist()
        [0, 0, 1, -2]
    """
    same = {name: row for row, name in reversed(list(enumerate(candidates)))}
    by_file, by_stem = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for row, name in enumerate(candidates):
        file = name.rpartition("/")[2]
        by_file[file].append(row)
        by_stem[_stem(name)].append(row)
    are_distinct = len(by_stem) == len(candidates) and len({_stem(name) for name in names}) == len(names)
    found = np.full(len(names), UNMATCHED, dtype=np.int64)
    for row, name in enumerate(names):
        if name in same:
            found[row] = same[name]
            continue
        file = name.rpartition("/")[2]
        near = by_file.get(file) or by_stem.get(file) or by_stem.get(_stem(name)) or []
        if near:
            found[row] = _nearest(name, near, candidates, anywhere=are_distinct)
    return found


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]  # noqa: PTH122 - of a text


def _nearest(name: str, near: Sequence[int], candidates: Sequence[str], *, anywhere: bool) -> int:
    folders = name.split("/")[-2::-1]
    depths = []
    for row in near:
        depth, others = 0, candidates[row].split("/")[-2::-1]
        for own, other in zip(folders, others, strict=False):
            if own != other:
                break
            depth += 1
        depths.append(depth if depth or anywhere or not folders or not others else -1)
    best = max(depths)
    if best < 0:
        return UNMATCHED
    return near[depths.index(best)] if depths.count(best) == 1 else AMBIGUOUS


def join_labels(vectors: Vectors, table: str, scan: ScanOptions) -> None:
    """Take labels, splits and further columns from a table.

    Args:
        vectors: whose names, or column ``slide``, are looked up in the table; its labels, splits and columns are set.
        table: with a column of paths, names or ids.
        scan: which columns those are.

    Raises:
        DatasetError: the table is malformed, or none of its rows is one of the vectors.
    """
    assert vectors.names is not None
    if not table.lower().endswith(TABLE_ENDINGS):
        raise DatasetError(f"{table} is no table of labels; expected a file that ends in {', '.join(TABLE_ENDINGS)}")
    options = replace(scan, box_columns=(NO_BOXES,), label_pattern=None, group_level=None)
    file = open_by(table, options)
    if options.path_column is None and first_of(file.names, NAME_COLUMNS) is None:
        options = replace(options, path_column=first_of(file.names, _SLIDE_COLUMNS))
    rows = read_rows(file, options, exists_in(vectors.names))
    at = match_names(vectors.names, rows.paths)
    if not (at >= 0).any() and "slide" in vectors.columns:
        at = match_names(vectors.columns["slide"], rows.paths)
    missing = [name for name, row in zip(vectors.names, at.tolist(), strict=True) if row < 0]
    if len(missing) == len(at):
        shown = listed([printable(shortened(path)) for path in rows.paths], most=2)
        raise DatasetError(
            f"{table} has none of the names of the vectors, such as {printable(shortened(vectors.names[0]))}; it "
            f"has {shown}. --path-column names the column of the names"
        )
    vectors.notes += rows.notes
    vectors.labels = [rows.labels[row] if row >= 0 else "" for row in at.tolist()]
    if any(rows.splits):
        vectors.splits = [rows.splits[row] if row >= 0 else "" for row in at.tolist()]
    vectors.columns |= {
        name: [cells[row] if row >= 0 else "" for row in at.tolist()] for name, cells in rows.columns.items()
    }
    if missing:
        shown = listed([printable(name) for name in missing], most=3)
        vectors.notes.append(
            f"{table} has no row of {counted(len(missing), 'vector')} of {len(at):,}, which {form(len(missing), 'is', 'are')} "
            f"unlabelled ({shown})"
        )
    if left := len(rows.paths) - len(set(at[at >= 0].tolist())):
        vectors.notes.append(f"{table} has {counted(left, 'row')} of no vector")


@dataclass(frozen=True, eq=False)
class FoundImages:
    """The images of vectors.

    Attributes:
        root: where they lie.
        paths: (N,) their paths there; the vectors' own names where there is none.
        keys: (N, 16) uint8; zeros where there is none.
        sizes: (N,) int64, bytes; 0 where there is none.
        mtimes: (N,) int64, in ns; -1 where there is none.
        labels: the class of each image by its folder, "" for none; None if the images have none.
        splits: the split of each image by its folder; None if the images have none.
        notes: for the user.
    """

    root: str
    paths: list[str]
    keys: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray
    labels: list[str] | None
    splits: list[str] | None
    notes: tuple[str, ...]


def find_images(
    names: Sequence[str], images: ImageSet, workers: int, report: Callable[[int], None] = lambda _: None
) -> FoundImages:
    """Find the image of each vector by its name, and read it for its key.

    Args:
        names: N names.
        images: where they are looked for.
        workers: threads that read.
        report: gets the number of images that were read.

    Raises:
        DatasetError: none of them is there, or two vectors are of one image.
    """
    at = match_names(names, images.paths.tolist())
    rows = np.flatnonzero(at >= 0)
    if not len(rows):
        raise DatasetError(
            f"{images.root} has none of the images of the vectors, such as {printable(shortened(names[0]))}; its images are "
            f"like {printable(str(images.paths[0]))}"
        )
    taken, counts = np.unique(at[rows], return_counts=True)
    if (counts > 1).any():
        twice = taken[np.argmax(counts)]
        both = [printable(names[row]) for row in rows[at[rows] == twice][:2].tolist()]
        raise DatasetError(
            f"the vectors {both[0]} and {both[1]} are both of the image {printable(str(images.paths[twice]))}"
        )
    keys, facts = (
        np.zeros((len(names), 16), dtype=np.uint8),
        np.tile(np.array([0, -1], dtype=np.int64), (len(names), 1)),
    )
    failed = 0
    for done, (row, read) in enumerate(_read(images, rows, at, workers), start=1):
        if read is None:
            failed += 1
        else:
            keys[row], facts[row] = np.frombuffer(read[0], np.uint8), read[1:]
        report(done)
    paths = [str(images.paths[row]) if row >= 0 else name for name, row in zip(names, at.tolist(), strict=True)]
    labels, splits = _known(images, at)
    return FoundImages(
        images.root, paths, keys, facts[:, 0], facts[:, 1], labels, splits, tuple(_notes(names, at, failed, images))
    )


def _read(
    images: ImageSet, rows: np.ndarray, at: np.ndarray, workers: int
) -> Iterable[tuple[int, tuple[bytes, int, int] | None]]:
    def read(row: int) -> tuple[int, tuple[bytes, int, int] | None]:
        try:
            found = images.file(int(at[row])).read()
        except ImageError:
            return row, None
        return row, (found.key, found.size, found.mtime_ns)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="featx-images") as pool:
        yield from pool.map(read, rows.tolist())


def _known(images: ImageSet, at: np.ndarray) -> tuple[list[str] | None, list[str] | None]:
    """The labels and splits of the images, if they have any."""
    labels = [images.classes[images.labels[row]] if row >= 0 and images.labels[row] >= 0 else "" for row in at.tolist()]
    splits = [str(images.splits[row]) if row >= 0 else "" for row in at.tolist()]
    return labels if any(labels) else None, splits if any(splits) else None


def _notes(names: Sequence[str], at: np.ndarray, failed: int, images: ImageSet) -> Iterable[str]:
    for code, one, several in (
        (UNMATCHED, "is not there", "are not there"),
        (AMBIGUOUS, "fits several images there equally well", "fit several images there equally well"),
    ):
        missing = [printable(names[row]) for row in np.flatnonzero(at == code).tolist()]
        if missing:
            shown = f"{counted(len(missing), 'image')} of {len(names):,} {form(len(missing), one, several)}"
            yield f"{images.root}: {shown} ({listed(missing, most=3)}); {_hashed(len(missing))}"
    if failed:
        yield f"{images.root}: {counted(failed, 'image')} cannot be read; {_hashed(failed)}"


def _hashed(count: int) -> str:
    return form(count, "its key is a hash of the vector", "their keys are hashes of the vectors")

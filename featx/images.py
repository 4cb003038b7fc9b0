"""Where the images are, what they are called and which split they belong to. No pixels.

``scan_images`` reads a folder, a table or the built-in digits into an ``ImageSet``. It opens no image.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import DatasetError, listed
from featx.home import home

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""File endings that count as images: torchvision's ``ImageFolder`` counts the same."""

UNLABELLED = -1
"""The label of an image that has none."""

PRETRAIN = "pretrain"
"""The split of images that a backbone has seen while it was made. No head is fitted or judged on them."""

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    PRETRAIN: PRETRAIN,
}
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""File endings that count as tables."""

_JUNK_FOLDERS = ("__MACOSX",)

TEST_SHARE, VAL_SHARE = 0.2, 0.1
"""Shares of each class that ``hash_splits`` gives to test and to val; the rest is train."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a data set, sorted by path.

    Attributes:
        name: the folder's or table's name.
        root: what the paths are relative to.
        paths: (N,) str, with forward slashes; bytes that are not UTF-8 as surrogate escapes (``os.fsdecode``).
        labels: (N,) int64, indices into ``classes``; -1 is unlabelled.
        splits: (N,) str: "train", "val", "test", "pretrain" or a table's own; "" is to be decided by ``hash_splits``.
        classes: (C,) class names, sorted.
        notes: what was left out or looks odd, one sentence each, for the user to read.
        table: the table that names the images, or None.
    """

    name: str
    root: Path
    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    table: Path | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def absolute(self, row: int) -> Path:
        """The file of one row."""
        return self.root / str(self.paths[row])


def scan_images(source: str | os.PathLike[str]) -> ImageSet:
    """List the images of a data set without opening one.

    Args:
        source: a folder ``class/...``, a folder ``train|val|test/class/...``, a flat folder (unlabelled), a table
            (.csv, .tsv, .jsonl, .parquet) with the columns ``path``, ``label`` and, if wanted, ``split``, whose paths are
            relative to it; or "digits", the built-in scans ("./digits" is a folder of that name).

    Returns:
        The images, sorted by path. Where nothing names a split, ``splits`` is "" until ``hash_splits`` decides.

    Raises:
        DatasetError: nothing there, no images, contradictory or missing labels, or a class that cannot be learned.
    """
    if str(source) == "digits":
        return dataclasses.replace(_scan_folder(_digits_folder()), name="digits")
    path = Path(source)
    if path.is_dir():
        images = _scan_folder(path)
    elif path.is_file() and path.suffix.lower() in TABLE_ENDINGS:
        images = _scan_table(path)
    elif path.is_file():
        raise DatasetError(f"{path} is a file; expected a folder of images or a table ({', '.join(TABLE_ENDINGS)})")
    else:
        raise DatasetError(
            f"there is no {path}; expected a folder of images, a table ({', '.join(TABLE_ENDINGS)}) or 'digits'"
        )
    return dataclasses.replace(images, notes=(*images.notes, *_check_classes(images)))


def list_images(folder: Path) -> list[Path]:
    """The image files below a folder, sorted, hidden ones left out.

    Raises:
        DatasetError: the folder cannot be read or holds no images.
    """
    found, skipped = _walk(folder)
    if not found:
        raise DatasetError(f"no images in {folder}; {_left_out(skipped) or 'it is empty'} (images end in {_endings()})")
    return [folder / path for path in sorted(found, key=os.fsencode)]


def image_key(data: bytes) -> bytes:
    """The key of an image: 16 bytes, BLAKE2b of its file's bytes. A renamed or copied image keeps its key."""
    return hashlib.blake2b(data, digest_size=16).digest()


def hash_splits(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Split images by the hash of their content: 70 % train, 10 % val, 20 % test of each class, in expectation.

    An image's split depends on its own bytes alone, so it stays put when others are added, and copies of an image share a
    split. The one exception: a class that would be without train or test images gets the one of extreme hash there.

    Args:
        keys: (N, 16) uint8, from ``image_key``.
        labels: (N,) int64; unlabelled rows (-1) are split too, so that they have a place once they are labelled.

    Returns:
        (N,) str of "train", "val", "test".
    """
    position = hash_position(keys)
    splits = split_at(position)
    order = np.lexsort((position, labels))
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if not len(rows) or labels[rows[0]] == UNLABELLED:
            continue
        first, last = position[rows[0]], position[rows[-1]]
        if "train" not in splits[rows]:
            splits[rows[position[rows] == last]] = "train"
        if "test" not in splits[rows] and first < last:
            splits[rows[position[rows] == first]] = "test"
    return splits


def hash_position(keys: np.ndarray) -> np.ndarray:
    """(N, 16) uint8 hashes to (N,) float64 in 0..1, spread evenly: what ``split_at`` cuts."""
    position: np.ndarray = keys[:, :8].copy().view(">u8").ravel().astype(np.float64) / 2.0**64
    return position


def split_at(position: np.ndarray) -> np.ndarray:
    """(N,) float64 in 0..1 to (N,) str: the lowest are "test", those above them "val", the rest "train"."""
    return np.where(position < TEST_SHARE, "test", np.where(position < TEST_SHARE + VAL_SHARE, "val", "train"))


# Folders


def _scan_folder(folder: Path) -> ImageSet:
    folder = folder.resolve()
    notes: list[str] = []
    found, skipped = _walk(folder)
    # A folder without images beside train and val (scripts, say) does not make classes of them.
    tops = {path.partition("/")[0] for path in found if "/" in path}
    split_of = {top: _SPLIT_NAMES.get(top.lower(), "") for top in tops}
    has_splits = all(split_of.values()) and not {PRETRAIN}.issuperset(split_of.values())
    if not has_splits and {"train"} < set(split_of.values()) - {""}:
        others = ", ".join(sorted(top for top, split in split_of.items() if not split))
        raise DatasetError(
            f"{folder} has folders of splits and beside them {others}, with images too, which is no split. Are they all "
            "classes? Then say so in a table; else move them away"
        )
    depth = 1 if has_splits else 0
    inside = [path for path in found if path.count("/") > depth]
    if inside:
        skipped["outside any class folder"] += len(found) - len(inside)
        found = inside
    if not found:
        raise DatasetError(f"no images in {folder}; {_left_out(skipped) or 'it is empty'} (images end in {_endings()})")
    if left_out := _left_out(skipped):
        notes.append(f"{folder.name}: {left_out}")
    names = [sys.intern(path.split("/", depth + 1)[depth]) if inside else None for path in found]
    if inside:
        notes.extend(_empty_classes(folder, split_of if has_splits else {""}, set(names)))
    splits = [split_of[path.partition("/")[0]] if has_splits else "" for path in found]
    return _assemble(folder.name or "root", folder, found, names, splits, notes)


def _walk(folder: Path) -> tuple[list[str], Counter[str]]:
    """Image files below a folder as paths relative to it, and what was passed over, counted by reason."""
    found: list[str] = []
    skipped: Counter[str] = Counter()
    root = os.path.realpath(folder)
    seen = {root}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - os.walk deals in str
            if _is_junk(name):
                skipped["in hidden folders"] += sum(len(inner) for _, _, inner in os.walk(Path(here, name)))
            elif real in seen or (os.path.islink(os.path.join(here, name)) and _is_inside(real, root)):  # noqa: PTH114, PTH118
                skipped["links to a folder that is listed anyway"] += 1
            else:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        below = Path(here).relative_to(folder).as_posix()
        prefix = "" if below == "." else below + "/"
        for name in files:
            if name.startswith("."):
                skipped["hidden files"] += 1
            elif not name.lower().endswith(IMAGE_ENDINGS):
                skipped[f"with the ending {os.path.splitext(name)[1] or '(none)'}"] += 1  # noqa: PTH122
            else:
                found.append(prefix + name)
    return found, skipped


def _is_inside(folder: str, root: str) -> bool:
    """Whether a folder is listed without the link that leads to it: below the root, and not hidden."""
    try:
        parts = Path(folder).relative_to(root).parts
    except ValueError:
        return False
    return not any(map(_is_junk, parts))


def _raise_unreadable(error: OSError) -> None:
    raise DatasetError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK_FOLDERS


def _empty_classes(folder: Path, tops: Iterable[str], names: set[str | None]) -> Iterator[str]:
    for top in sorted(tops):
        for entry in sorted(os.scandir(folder / top), key=lambda e: e.name):
            if entry.is_dir() and not _is_junk(entry.name) and entry.name not in names:
                yield f"class {entry.name!r} has no images: {entry.path}"


def _left_out(skipped: Mapping[str, int]) -> str:
    total = sum(skipped.values())
    return f"{total} left out ({', '.join(f'{n} {why}' for why, n in sorted(skipped.items()) if n)})" if total else ""


def _endings() -> str:
    return " ".join(IMAGE_ENDINGS)


# Tables


def _scan_table(table: Path) -> ImageSet:
    rows = list(read_table(table))
    if not rows:
        raise DatasetError(f"{table} has no rows")
    notes: list[str] = []
    labels: dict[str, tuple[str, str, int]] = {}
    repeated = []
    for number, row in rows:
        path = cell_text(row.get("path"))
        if not path:
            raise DatasetError(f"{table}, line {number}: the path is empty")
        path = Path(path).as_posix()  # "./a.jpg" and "a.jpg" are one image
        entry = (cell_text(row.get("label")), cell_text(row.get("split")), number)
        before = labels.setdefault(path, entry)
        if before is not entry:
            if before[:2] != entry[:2]:
                raise DatasetError(
                    f"{table}: {path!r} is on line {before[2]} as label {before[0]!r}, split {before[1]!r} and on line "
                    f"{number} as label {entry[0]!r}, split {entry[1]!r}; keep one of them"
                )
            repeated.append(number)
    if repeated:
        notes.append(f"{table.name}: {len(repeated)} rows repeat an earlier one and are left out ({listed(repeated)})")
    missing = [path for path in labels if not (table.parent / path).is_file()]
    if missing:
        raise DatasetError(
            f"{table} names {len(missing)} files that are not there, relative to {table.resolve().parent}: {listed(missing)}"
        )
    splits = [_SPLIT_NAMES.get(split.lower(), split) for _, split, _ in labels.values()]
    if any(splits) and not all(splits):
        rows_without = [number for _, split, number in labels.values() if not split]
        raise DatasetError(
            f"{table}: {len(rows_without)} rows have no split (lines {listed(rows_without)}), the others do; "
            "name one in every row or in none"
        )
    names = [name or None for name, _, _ in labels.values()]
    images = _assemble(table.stem, table.resolve().parent, list(labels), names, splits, notes)
    return dataclasses.replace(images, table=table.resolve())


def read_table(table: Path, required: Sequence[str] = ("path", "label")) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their line numbers; every value as it stands, so that the class NA stays "NA" and 01 stays "01".

    Args:
        table: a file that ends in .csv, .tsv, .jsonl or .parquet.
        required: columns that it must have.

    Raises:
        DatasetError: it cannot be read, is malformed, or lacks a column.
    """
    suffix = table.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from enumerate(_read_parquet(table, required), start=1)
        elif suffix == ".jsonl":
            yield from _read_jsonl(table, required)
        else:
            with table.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
                _require_columns(table, [name.strip() for name in reader.fieldnames or []], required)
                for row in reader:
                    if None in row:  # where DictReader puts what has no column; "" is the name pandas gives its index
                        raise DatasetError(f"{table}, line {reader.line_num}: more fields than the header has")
                    yield reader.line_num, {key.strip(): value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{table} is not a well-formed table: {error}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {table}: {error.strerror}") from error


def _read_jsonl(table: Path, required: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{table}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DatasetError(
                    f"{table}, line {number}: expected an object with {' and '.join(required)}, found {line.strip()!r}"
                )
            _require_columns(table, row, required, line=number)
            yield number, row


def _read_parquet(table: Path, required: Sequence[str]) -> list[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"reading {table} needs pyarrow: pip install 'featx[parquet]'") from error
    try:
        columns = pyarrow.parquet.read_table(table)
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{table} is not a Parquet file: {error}") from error
    _require_columns(table, columns.column_names, required)
    rows: list[Mapping[str, Any]] = columns.to_pylist()
    return rows


def _require_columns(table: Path, columns: Iterable[str], required: Sequence[str], *, line: int = 0) -> None:
    found = list(columns)
    missing = [name for name in required if name not in found]
    if missing:
        where = f"{table}, line {line}" if line else str(table)
        raise DatasetError(
            f"{where}: there is no column {' or '.join(missing)}; found {', '.join(map(repr, found)) or 'none'}, "
            f"expected {', '.join(required)}{' and, if wanted, split' if 'label' in required else ''}"
        )


def cell_text(value: Any) -> str:
    """A cell of a table as text, stripped; "" where it is empty."""
    return "" if value is None else str(value).strip()


# What every source shares


def _assemble(
    name: str,
    root: Path,
    paths: Sequence[str],
    names: Sequence[str | None],
    splits: Sequence[str],
    notes: Sequence[str],
) -> ImageSet:
    classes = tuple(sorted({name for name in names if name is not None}))
    index = {name: label for label, name in enumerate(classes)}
    order = sorted(range(len(paths)), key=lambda row: os.fsencode(paths[row]))
    labels = [UNLABELLED if names[row] is None else index[names[row]] for row in order]  # type: ignore[index]
    return ImageSet(
        name=re.sub(r"[^\w.+-]+", "-", name),
        root=root,
        paths=np.array([paths[row] for row in order], dtype=object),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array([splits[row] for row in order], dtype=object),
        classes=classes,
        notes=tuple(notes),
    )


def _check_classes(images: ImageSet) -> Iterator[str]:
    """Notes on odd classes; raises where a folder has a class that is to be judged and could never be learned."""
    by_lower: dict[str, list[str]] = {}
    for name in images.classes:
        by_lower.setdefault(name.lower(), []).append(name)
    for _, same in sorted(by_lower.items()):
        if len(same) > 1:
            yield f"classes {' and '.join(map(repr, same))} differ by case alone; they are kept apart"
    if len(images.classes) == 1:
        yield f"there is one class only, {images.classes[0]!r}: features can be extracted, but a head needs two"
    strange = _classes_without_train(images) if "train" in images.splits else np.zeros(0, dtype=np.int64)
    if not len(strange):
        return
    name, rows = images.classes[strange[0]], np.flatnonzero(images.labels == strange[0])
    splits, example = Counter(images.splits[rows]), images.paths[rows[0]]
    where = " and ".join(f"{splits[s]} in {s}" for s in ("val", "test") if splits[s])
    if images.table is None:
        raise DatasetError(
            f"class {name!r} has no images in train but {where} (such as {example}): no head can learn it. "
            f"Add train images of it or take those out, in {images.root}"
        )
    # What a table calls a label may be a number or a list of labels, of which no two rows need be alike.
    others = f" and {len(strange) - 1} other classes have" if len(strange) > 1 else " has"
    yield (
        f"class {name!r}{others} no images in train but in val or test (such as {example}): no head can learn such a class; "
        "all is well where labels are numbers (--task regression) or lists (--task multilabel)"
    )


def _classes_without_train(images: ImageSet) -> np.ndarray:
    """The labels that have images in val or test, and none in train."""
    labelled = images.labels != UNLABELLED
    judged = labelled & ((images.splits == "val") | (images.splits == "test"))
    return np.setdiff1d(images.labels[judged], images.labels[labelled & (images.splits == "train")])


# The built-in digits


def _digits_folder() -> Path:
    """scikit-learn's 1,797 scanned digits as PNG files, written on first use.

    0-4 are in the split "pretrain", since the embedded LeNet-5 was trained on them; 5-9 are split by their content.
    Folder: $FEATX_HOME/digits, by default ~/.cache/featx/digits.
    """
    folder = home() / "digits"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            _write_digits(Path(beside, "digits"))
            try:
                Path(beside, "digits").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, with the same files
                    raise
    except OSError as error:
        raise DatasetError(
            f"cannot write the built-in digits to {folder}: {error.strerror}; set FEATX_HOME to a writable folder"
        ) from error
    return folder


def _write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    files = [_png(image) for image in pixels]
    keys = np.frombuffer(b"".join(map(image_key, files)), dtype=np.uint8).reshape(-1, 16)
    splits = np.where(digits.target < 5, PRETRAIN, hash_splits(keys, digits.target.astype(np.int64)))
    for number, (data, split, label) in enumerate(zip(files, splits, digits.target, strict=True)):
        path = folder / str(split) / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _png(grey: np.ndarray) -> bytes:
    """(H, W) uint8 as an 8-bit grey PNG, stored uncompressed: the same bytes, and so the same split, on every machine."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = grey.shape
    raw = b"".join(b"\0" + row.tobytes() for row in grey)
    stored = (
        b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw + struct.pack(">I", zlib.adler32(raw))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")

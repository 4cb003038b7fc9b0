"""Images in a folder: its files are listed here; ``featx.data.layout`` reads splits and classes from its folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from featx.data.formats import ENDINGS
from featx.data.image_set import ImageSet, assemble
from featx.data.layout import read_layout
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.split_names import worded_splits
from featx.data.store import FolderStore
from featx.errors import DatasetError
from featx.text import portable

_JUNK_FOLDERS = (
    "__MACOSX",
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)
"""Folders that archives, network drives and file systems make, some with thumbnails or copies of the images."""

EXPECTED = "a folder of images"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""


def list_images(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted and without hidden ones.

    Raises:
        DatasetError: the folder cannot be read or holds no images.
    """
    found, skipped = _walk(folder)
    if not found:
        raise DatasetError(f"no images in {folder}; {_left_out(skipped) or 'it is empty'} (images end in {_endings()})")
    return [folder / path for path in sorted(found, key=os.fsencode)]


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a folder; the bare word digits names the built-in scans."""
    return str(data) != "digits" and Path(data).is_dir()


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of a folder; ``scan_images`` describes the layouts."""
    folder = Path(data).resolve()
    found, skipped = _walk(folder)
    folders = [path.rpartition("/")[0] for path in found]
    layout = read_layout(Counter(folders), folder, classes=options.label_pattern is None)
    places = [layout.places.get(name) for name in folders]
    inside = [path for path, place in zip(found, places, strict=True) if place]
    skipped["outside any class folder"] += len(found) - len(inside)
    if not inside:
        raise DatasetError(f"no images in {folder}; {_left_out(skipped) or 'it is empty'} (images end in {_endings()})")
    labels = [place.label and portable(place.label) for place in places if place]
    notes = [f"{folder.name}: {left_out}"] if (left_out := _left_out(skipped)) else []
    notes += [*layout.notes, *_empty_classes(folder, layout.around_classes, {place.label for place in places if place})]
    notes += _empty_splits(folder, layout.splits)
    return assemble(
        portable(folder.name) or "root",
        FolderStore(folder),
        inside,
        labels,
        [place.split for place in places if place],
        notes,
        options=options,
    )


def _walk(folder: Path) -> tuple[list[str], Counter[str]]:
    """The image files below a folder, as paths relative to it, and the number of skipped files by reason."""
    found: list[str] = []
    skipped: Counter[str] = Counter()
    root = os.path.realpath(folder)
    seen = {root}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - os.walk deals in str
            if is_junk(name):
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
            elif not is_image(name):
                skipped[f"with the ending {os.path.splitext(name)[1] or '(none)'}"] += 1  # noqa: PTH122
            else:
                found.append(prefix + name)
    return found, skipped


def _is_inside(folder: str, root: str) -> bool:
    """Whether a linked folder is listed anyway, because it lies below the root and is not hidden."""
    try:
        parts = Path(folder).relative_to(root).parts
    except ValueError:
        return False
    return not any(map(is_junk, parts))


def _raise_unreadable(error: OSError) -> None:
    raise DatasetError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def is_junk(name: str) -> bool:
    """Whether a folder is hidden or made by an archive, a network drive or a file system, by its name."""
    return name.startswith(".") or name in _JUNK_FOLDERS


def is_image(name: str) -> bool:
    """Whether a file is listed as an image, by its name."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _empty_classes(folder: Path, around: Iterable[str], names: set[str | None]) -> Iterator[str]:
    for entry in _subfolders(folder, around):
        if entry.name not in names:
            yield f"class {entry.name!r} has no images: {entry.path}"


def _empty_splits(folder: Path, splits: Collection[str]) -> Iterator[str]:
    for entry in _subfolders(folder, sorted({path.rpartition("/")[0] for path in splits})):
        if worded_splits([entry.name])[entry.name] and Path(entry).relative_to(folder).as_posix() not in splits:
            yield f"the folder of a split {entry.name!r} has no images: {entry.path}"


def _subfolders(folder: Path, paths: Iterable[str]) -> Iterator[os.DirEntry[str]]:
    """The folders in each of some folders, without hidden ones."""
    for path in sorted(paths):
        with os.scandir(folder / path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        yield from (entry for entry in found if entry.is_dir() and not is_junk(entry.name))


def _left_out(skipped: Mapping[str, int]) -> str:
    total = sum(skipped.values())
    return f"{total} left out ({', '.join(f'{n} {why}' for why, n in sorted(skipped.items()) if n)})" if total else ""


def _endings() -> str:
    return " ".join(ENDINGS)

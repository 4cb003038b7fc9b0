"""Images in a folder: ``class/...``, ``train|val|test/class/...``, or flat."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from featx.data.image_set import PRETRAIN, SPLIT_NAMES, ImageSet, assemble
from featx.errors import DatasetError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""File endings that count as images, the same as in torchvision's ``ImageFolder``."""

_JUNK_FOLDERS = ("__MACOSX",)

EXPECTED = "a folder of images"


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


def scan(data: str | os.PathLike[str]) -> ImageSet:
    """List the images of a folder; ``scan_images`` describes the layouts."""
    folder = Path(data).resolve()
    notes: list[str] = []
    found, skipped = _walk(folder)
    # A folder without images beside train and val, such as scripts, does not turn these into classes.
    tops = {path.partition("/")[0] for path in found if "/" in path}
    split_of = {top: SPLIT_NAMES.get(top.lower(), "") for top in tops}
    has_splits = all(split_of.values()) and not {PRETRAIN}.issuperset(split_of.values())
    if not has_splits and {"train"} < set(split_of.values()) - {""}:
        others = ", ".join(sorted(top for top, split in split_of.items() if not split))
        raise DatasetError(
            f"{folder} has folders of splits and beside them {others}, which holds images too but is not a split. If all are "
            "classes, list them in a table; else move the others away"
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
    return assemble(folder.name or "root", folder, found, names, splits, notes)


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
    """Whether a linked folder is listed anyway, because it lies below the root and is not hidden."""
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

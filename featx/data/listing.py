"""What a folder, an archive or a bucket holds, by names alone: its images, and what is left out and why."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from featx.data.foreign import remedy
from featx.data.formats import ARRAY_ENDING, ENDINGS, format_of
from featx.data.image_set import ImageSet, assemble
from featx.data.layout import read_layout
from featx.data.places import pattern_of
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.split_names import worded_splits
from featx.data.store import Store
from featx.data.urls import Url, is_url
from featx.errors import DatasetError
from featx.text import counted, form, listed, portable

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


_DICOM_INDEX = "DICOMDIR"
"""The name of the table of contents of a medium with DICOM files, which is such a file without an image."""

_SHORT_SIGNATURES = ("BMP", "PPM", "JXL")
"""Formats whose first two bytes are all that tells them, so that other files may begin so."""

_MOST_STRANGE = 100
"""Files whose content is looked at before a folder without images counts as one."""

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of tables, without ``.txt``, which is mostly another text."""


_OF_ONE_IMAGE = (".txt", ".xml", ".json")
"""Endings of files with the annotations of one image."""

_MOST_OTHERS = 1000
"""Files whose names are looked through, to say what to do with them."""


_ONE = {
    "hidden files": "hidden file",
    "masks": "mask",
    "arrays beside images (.npy)": "array beside images (.npy)",
    "archives in the archive, which are not opened": "archive in the archive, which is not opened",
    "devices, pipes or other things that are no files": "device, pipe or other thing that is no file",
    "links to no file in the archive": "link to no file in the archive",
    "links to a folder that is listed anyway": "link to a folder that is listed anyway",
}
"""Reasons to leave out one file, where they are not the same words as of several."""


class Listing:
    """The images of a data set by their names, and the number of other files by the reason why they are left out.

    Args:
        root: the folder, archive or URL, for messages.

    Attributes:
        images: paths relative to the root, with forward slashes, as the layout is read.
        stored: the path by which the store reads each of them; the same, unless some archives are read as one folder.
        folders: the paths of all folders that are not hidden, with those that hold no images; "" is the root.
        skipped: how many files are left out, by the reason as it stands in a note.
        tables: the paths of files among them that may be tables with labels.
        others: the paths of files that are left out for their ending.
        notes: how files were taken for images, where not by their names.

    Examples:
        >>> listing = Listing("pets.zip")
        >>> for path in ("cat/1.jpg", "cat/.DS_Store", "__MACOSX/cat/1.jpg", "cat/notes.txt"):
        ...     listing.add(path)
        >>> listing.images
        ['cat/1.jpg']
        >>> listing.left_out()
        '3 left out (1 hidden file, 1 in hidden folders, 1 with the ending .txt)'
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Url(str(root)) if is_url(root) else Path(root)
        self.images: list[str] = []
        self.stored: list[str] = []
        self.folders: set[str] = {""}
        self.skipped: Counter[str] = Counter()
        self.tables: list[str] = []
        self.others: list[str] = []
        self.notes: list[str] = []

    def add(self, path: str, stored: str = "") -> None:
        """Take up a file, as an image or as one that is left out.

        Args:
            path: of the file, relative to the root.
            stored: the path by which the store reads it, if that is another.
        """
        folder, _, name = path.rpartition("/")
        if not self.add_folder(folder):
            self.skipped["in hidden folders"] += 1
        elif why := why_left_out(name):
            self.skipped[why] += 1
            self.others += [] if name.startswith(".") else [path]
            if name.lower().endswith(_TABLES) and not name.startswith("."):
                self.tables.append(path)
        else:
            self.images.append(path)
            self.stored.append(stored or path)

    def leave_out_arrays(self) -> None:
        """Leave out ``.npy`` files if there are other images: beside images they hold features, masks or depths."""
        is_array = [path.lower().endswith(ARRAY_ENDING) for path in self.images]
        if any(is_array) and not all(is_array):
            self.skipped["arrays beside images (.npy)"] += sum(is_array)
            self.stored = [path for path, array in zip(self.stored, is_array, strict=True) if not array]
            self.images = [path for path, array in zip(self.images, is_array, strict=True) if not array]

    def add_by_content(self, begin: Callable[[str], bytes]) -> None:
        """Take up files by their content if none is an image by its name, as DICOM files often are not.

        Other formats count where a name has no ending at all: the raw files of cameras, ``.cr2`` and others, begin as TIFFs do.

        Args:
            begin: returns the first bytes of a file by its path; b"" if it cannot be read.
        """
        if self.images:
            return
        kinds: Counter[str] = Counter()
        for number, path in enumerate(sorted(self.others)):
            name = path.rpartition("/")[2]
            kind = format_of(begin(path)) if name.upper() != _DICOM_INDEX else None
            if kind == "DICOM" or (kind and kind not in _SHORT_SIGNATURES and "." not in name):
                kinds[kind] += 1
                self.skipped[why_left_out(name)] -= 1
                self.images.append(path)
                self.stored.append(path)
            elif not kinds and number >= _MOST_STRANGE:
                return
        if kinds:
            self.notes.append(
                f"{self.root.name}: {counted(len(self.images), 'file')} without the ending of an image taken for images by "
                f"their content: {', '.join(f'{count:,} {kind}' for kind, count in sorted(kinds.items()))}"
            )

    def add_folder(self, path: str) -> bool:
        """Take up a folder and those around it; returns False for one that is hidden, or lies in a hidden one."""
        if path in self.folders:
            return True
        around, _, name = path.rpartition("/")
        if is_junk(name) or not self.add_folder(around):
            return False
        self.folders.add(path)
        return True

    def left_out(self) -> str:
        """The number of files that are left out, with the reasons, for a note; "" for none."""
        total = sum(self.skipped.values())
        reasons = ", ".join(
            counted(count, _ONE.get(why, why), why) for why, count in sorted(self.skipped.items()) if count
        )
        return f"{total} left out ({reasons})" if total else ""

    def require_images(self, images: Collection[str]) -> None:
        """Refuse a data set without images.

        Raises:
            DatasetError: there are none.
        """
        if not images:
            how = remedy(self.others[:_MOST_OTHERS]) or f"images end in {' '.join(ENDINGS)}"
            if any(why.startswith("archives in the archive") for why in self.skipped):
                how = "unpack it, and name the archives in it"
            raise DatasetError(f"no images in {self.root}; {self.left_out() or 'it is empty'} ({how})")


def images_of_listing(listing: Listing, store: Store, name: str, options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """The image set of a listing: the layout of its folders tells classes and splits.

    Args:
        listing: what the data set holds.
        store: reads the images by their paths.
        name: of the data set.
        options: how the user describes the data.

    Raises:
        DatasetError: there are no images, or the layout has two readings.
    """
    root = listing.root
    listing.leave_out_arrays()
    folders = [path.rpartition("/")[0] for path in listing.images]
    layout = read_layout(Counter(folders), root, classes=options.label_pattern is None)
    places = [layout.places.get(name) for name in folders]
    inside = [path for path, place in zip(listing.stored, places, strict=True) if place]
    masks = sum(folder in layout.masks for folder in folders)
    listing.skipped["masks"] += masks
    listing.skipped["outside any class folder"] += len(places) - len(inside) - masks
    listing.require_images(inside)
    labels = [place.label and portable(place.label) for place in places if place]
    notes = [f"{root.name}: {left_out}"] if (left_out := listing.left_out()) else []
    notes += [*listing.notes, *layout.notes]
    notes += _tables_beside(listing) if not any(labels) and options.label_pattern is None else ()
    notes += _empty_classes(listing, layout.around_classes, {place.label for place in places if place})
    notes += _empty_splits(listing, layout.splits)
    return assemble(
        portable(name) or "root",
        store,
        inside,
        labels,
        [place.split for place in places if place],
        notes,
        options=options,
    )


def _tables_beside(listing: Listing) -> Iterator[str]:
    """A note on tables beside images without labels."""
    by_name: dict[str, list[str]] = {}
    stems = {_stem(path) for path in listing.images}
    single = [path for path in listing.others if path.lower().endswith(_OF_ONE_IMAGE) and _stem(path) in stems]
    if 2 * len(single) >= len(listing.images):
        named_alike = form(len(single), "has the name of an image", "have the names of images")
        yield (
            f"{listing.root.name}: the images have no labels. {counted(len(single), 'file')} such as {min(single)} "
            f"{named_alike}; annotations of single images are not read: convert them to JSON in the form of COCO, or list the "
            "images in a table"
        )
        return
    for path in sorted(listing.tables, key=lambda path: (path.count("/"), path)):
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    if not by_name:
        return
    named = [paths[0] for paths in by_name.values()]
    several = next((paths for paths in by_name.values() if len(paths) > 1), [])
    join = _how_joined(listing, several)
    how = f"name the table instead of the folder: {listing.root / named[0]}"
    if isinstance(listing.root, Path) and not listing.root.is_dir():
        how = f"unpack the table, and name it with --root {listing.root}"
    yield (
        f"{listing.root.name}: the images have no labels. If {listed(named, most=3)} "
        f"{'has' if len(named) == 1 else 'have'} them, {how}{join}"
    )


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _how_joined(listing: Listing, tables: Sequence[str]) -> str:
    """How tables of one name in several folders are read as one data set, as the end of a note; "" without such."""
    if not tables:
        return ""
    shown = listed(tables, most=3)
    if isinstance(listing.root, Path) and listing.root.is_dir():
        pattern = pattern_of([str(listing.root / table) for table in tables])
        return (
            f"; the tables of several folders, such as {shown}, are one data set by the name {shlex.quote(pattern)}"
            if pattern
            else ""
        )
    return f"; the tables of several folders, such as {shown}, are one data set once they are joined"


def is_junk(name: str) -> bool:
    """Whether a folder is hidden or made by an archive, a network drive or a file system, by its name."""
    return name.startswith(".") or name in _JUNK_FOLDERS


def why_left_out(name: str) -> str:
    """Why a file is not listed as an image, by its name; "" for an image.

    Examples:
        >>> why_left_out("cat.JPG"), why_left_out("._cat.jpg"), why_left_out("cat.txt")
        ('', 'hidden files', 'with the ending .txt')
    """
    if name.startswith("."):
        return "hidden files"
    if not name.lower().endswith(ENDINGS):
        return f"with the ending {os.path.splitext(name)[1] or '(none)'}"  # noqa: PTH122 - of str
    return ""


def _empty_classes(listing: Listing, around: Iterable[str], names: set[str | None]) -> Iterator[str]:
    for path, name in _subfolders(listing, around):
        if name not in names:
            yield f"class {name!r} has no images: {listing.root / path}"


def _empty_splits(listing: Listing, splits: Collection[str]) -> Iterator[str]:
    for path, name in _subfolders(listing, sorted({path.rpartition("/")[0] for path in splits})):
        if worded_splits([name])[name] and path not in splits:
            yield f"the folder of a split {name!r} has no images: {listing.root / path}"


def _subfolders(listing: Listing, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The path and the name of each folder that lies right in one of some folders."""
    inside: Mapping[str, list[tuple[str, str]]] = {path: [] for path in paths}
    for path in sorted(listing.folders - {""}):
        around, _, name = path.rpartition("/")
        if around in inside:
            inside[around].append((path, name))
    for path in sorted(inside):
        yield from inside[path]

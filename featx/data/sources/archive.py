"""Images in archives, read where they lie: zip and tar files with folders of classes, and shards of WebDataset."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from featx.data.image_set import ImageSet, assemble
from featx.data.listing import Listing, images_of_listing, is_junk, why_left_out
from featx.data.places import is_remote, local_path, place, size_of
from featx.data.scan_options import COMMON, NO_OPTIONS, ScanOptions
from featx.data.sources.archive_index import LISTS, ArchiveIndex
from featx.data.sources.archive_store import (
    ENDINGS,
    ArchiveStore,
    absolute,
    common_folder,
    is_archive_name,
    is_pattern,
    open_archives,
    pattern_of_folder,
    reopen_archives,
    without_ending,
)
from featx.data.sources.sample_labels import LabelledSamples, read_samples
from featx.data.sources.webdataset import Samples, are_samples, may_be_samples, names_of_list, samples_of
from featx.data.sources.zip_index import ENCRYPTED
from featx.data.split_names import worded_splits
from featx.data.store import READ_AHEAD, Store
from featx.errors import DatasetError, ImageError
from featx.io.file_kinds import ARCHIVE, kind_of_file
from featx.text import counted, listed, portable, printable

EXPECTED = "an archive (.zip, .tar, .tar.gz) or shards such as 'train-{000..150}.tar'"

OPTIONS: Collection[str] = ("label_column", "split_column", "image_column")
"""The options of the source; see ``featx.data.scan.Source``. They apply to shards of WebDataset."""

_OTHER_ARCHIVES = (".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
_DEEPEST = 8
_LARGEST_LIST = 1 << 22
_ENDING = re.compile(r"\.[A-Za-z]\w*$")
_NUMBER = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True)
class _Part:
    """One archive of a data set.

    Attributes:
        name: its path below the folder that all have in common; "" for a single archive.
        index: what it holds.
        samples: its members as samples of WebDataset.
    """

    name: str
    index: ArchiveIndex
    samples: Samples

    @property
    def prefix(self) -> str:
        """What stands before the paths of its members in the paths of images."""
        return f"{self.name}/" if self.name else ""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are an archive, a pattern or the URL of some, or a folder with archives and no images."""
    text = os.fspath(data)
    if not isinstance(text, str):
        return False
    if text.lstrip().startswith("pipe:"):
        return True
    if is_remote(text):
        return is_archive_name(text)
    path = local_path(text)
    if path.is_dir():
        return bool(_archives_alone(path))
    if is_archive_name(text):
        return path.is_file() or is_pattern(text)
    return (text.lower().endswith(_OTHER_ARCHIVES) and path.is_file()) or _is_unnamed(path)


def opens(location: str) -> bool:
    """Whether a location is that of archives."""
    if is_archive_name(location):
        return is_remote(location) or not Path(location).is_dir()
    return not is_remote(location) and _is_unnamed(Path(location))


def _is_unnamed(path: Path) -> bool:
    """Whether a file is an archive by its content, where its name has no ending, as the names of many downloads."""
    return not _ENDING.search(path.name) and kind_of_file(path) == ARCHIVE


def open_store(location: str) -> Store:
    """Open the images of archives again."""
    return reopen_archives(location)


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of archives; ``scan_images`` describes the layouts."""
    text = os.fspath(data)
    _refuse_foreign(text)
    location = _location(text)
    store = open_archives(location)
    parts = _scanned(store)
    root = _shown_root(location)
    name = _name(location)
    warnings = [f"Warning: {printable(name)}{_inside(part)} {note}" for part in parts for note in part.index.notes]
    if are_samples([part.samples for part in parts]):
        return _of_samples(name, store, parts, options, warnings)
    options.require_only(COMMON, text, "an archive of folders")
    return _of_folders(name, root, store, parts, options, warnings)


def _refuse_foreign(text: str) -> None:
    if text.lstrip().startswith("pipe:"):
        raise DatasetError(
            f"{text[:200]!r} is a command; featx runs none. Name files or URLs, such as "
            "'https://host/shard-{000..150}.tar' or 's3://bucket/shard-{000..150}.tar'"
        )
    if not is_archive_name(text) and text.lower().endswith(_OTHER_ARCHIVES):
        raise DatasetError(
            f"{text} is a kind of archive that featx does not read; unpack it, or make one of {' '.join(ENDINGS)}"
        )


def _location(text: str) -> str:
    """The location of archives, from the user's text."""
    if not is_remote(text) and (path := local_path(text)).is_dir():
        return pattern_of_folder(str(path.resolve()), _archives_alone(path))
    return absolute(text)


def _archives_alone(folder: Path) -> list[str]:
    """The names of archives below a folder; [] if it holds an image, too."""
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_junk(name)]
        if any(not why_left_out(name) for name in files):
            return []
        found += [name for name in files if is_archive_name(name) and not name.startswith(".")]
        if len(Path(here).relative_to(folder).parts) > _DEEPEST:
            folders.clear()
    return found


def _scanned(store: ArchiveStore) -> list[_Part]:
    """List all archives, of which those on another machine many at a time.

    Raises:
        DatasetError: one is missing or damaged.
    """
    archives = store.archives
    missing = [name for name, archive in archives.items() if archive.facts()[0] < 0] if "" not in archives else []
    if missing:
        raise DatasetError(
            f"{store.location} stands for {counted(len(archives), 'archive')}, of which {len(missing):,} "
            f"{'is' if len(missing) == 1 else 'are'} not there: "
            f"{listed(missing)}. A pattern with * stands for those that are there"
        )

    def listed_part(name: str) -> _Part:
        index = archives[name].scan()
        return _Part(name, index, samples_of(index) if may_be_samples(index) else Samples([]))

    with ThreadPoolExecutor(READ_AHEAD if store.concurrency else 1) as pool:
        try:
            return list(pool.map(listed_part, archives))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shown_root(location: str) -> str:
    return common_folder(location) if is_pattern(location) else location


def _name(location: str) -> str:
    """The name of the data set: that of the archive, or of the folder of several, with what the pattern states."""
    base = location.rpartition("/")[2].partition("?")[0] if is_remote(location) else posixpath.basename(location)
    if not is_pattern(location):
        return portable(without_ending(base))
    folder = common_folder(location).rpartition("/")[2]
    stated = re.sub(r"\{[^{}]*\}|\[[^]]*\]|[*?]", "", without_ending(base)).strip("-_. ")
    return portable(f"{folder}-{stated}" if stated else folder)


def _inside(part: _Part) -> str:
    return f": {printable(part.name)}" if part.name else ""


# Folders of classes


def _of_folders(
    name: str, root: str, store: ArchiveStore, parts: Sequence[_Part], options: ScanOptions, warnings: Sequence[str]
) -> ImageSet:
    """The images of archives of folders: several archives are read as folders, or as parts of one."""
    listing = Listing(root)
    folders, notes = _virtual_folders(parts)
    locked = 0
    for part in parts:
        around = folders[part.name]
        listing.skipped.update(part.index.skipped)
        for folder in part.index.folders:
            listing.add_folder(posixpath.join(around, folder))
        inside = f"{around}/" if around else ""
        for path, member in part.index.members.items():
            if path.lower().endswith(ENDINGS) and not path.rpartition("/")[2].startswith("."):
                listing.skipped["archives in the archive, which are not opened"] += 1
                continue
            listing.add(inside + path, part.prefix + path)
            locked += member.method == ENCRYPTED
    if listing.images and locked >= sum(len(part.index.members) for part in parts):
        raise DatasetError(f"{root} needs a password; unpack it")
    if not listing.images and warnings:
        raise DatasetError(f"{root}: there are no images. {warnings[0]}")
    found = images_of_listing(listing, store, name, options)
    own = (f"{printable(name)}: {note}" for note in notes)
    return dataclasses.replace(found, notes=(*warnings, *own, *found.notes))


def _virtual_folders(parts: Sequence[_Part]) -> tuple[dict[str, str], list[str]]:
    """The folder that each archive stands for by its name: "" for a single one, and for all that are parts of one data set."""
    if len(parts) == 1:
        return {parts[0].name: ""}, []
    stems = {part.name: without_ending(part.name) for part in parts}
    groups: dict[str, list[str]] = {}
    for name, stem in stems.items():
        folder, _, last = stem.rpartition("/")
        groups.setdefault(posixpath.join(folder, _NUMBER.sub("", last).rstrip("-_. ")), []).append(name)
    merged = {group: names for group, names in groups.items() if len(names) > 1 and _are_numbered(names, stems)}
    if not merged:
        return stems, ["each archive is read as a folder of its name"]
    alone = len(groups) == 1
    folders = {name: "" if alone else group for group, names in merged.items() for name in names}
    rest = {name: stem for name, stem in stems.items() if name not in folders}
    shown = listed([f"{names[0]} to {names[-1].rpartition('/')[2]}" for names in merged.values()], most=3)
    notes = [f"the archives {shown} are read as parts of one {'data set' if alone else 'folder'}"]
    return folders | rest, notes


def _are_numbered(names: Sequence[str], stems: Mapping[str, str]) -> bool:
    """Whether archives are numbered one after another, as the parts of one data set are, and classes hardly ever."""
    numbers = [int(match[0]) for name in names if (match := _NUMBER.search(stems[name].rpartition("/")[2]))]
    return len(numbers) == len(names) and sorted(numbers) == list(range(min(numbers), min(numbers) + len(names)))


# WebDataset


def _of_samples(
    name: str,
    store: ArchiveStore,
    parts: Sequence[_Part],
    options: ScanOptions,
    warnings: Sequence[str],
) -> ImageSet:
    texts = {part.prefix + path: data for part in parts for path, data in part.index.texts.items()}

    def text(path: str) -> bytes:
        if path in texts:
            return texts[path]
        try:
            return store.read(path).data
        except ImageError as error:
            raise DatasetError(f"{store.name(path)} {error}") from error

    samples = {part.prefix: part.samples for part in parts}
    found = read_samples(samples, options, text, lambda: _class_list(store.location, parts))
    split_notes: list[str] = []
    if not options.split_column:
        splits, split_notes = _splits(store, parts)
        of_archive = {part.prefix: splits[part.name] for part in parts}
        found.splits = [of_archive[prefix] for prefix in found.archives]
        if not any(found.splits):
            found.splits, more = _splits_in_keys(found)
            split_notes += more
    notes = [*warnings, *(f"{printable(name)} {note}" for note in (*found.notes, *split_notes))]
    skipped = Listing(store.location)
    for part in parts:
        skipped.skipped.update(part.index.skipped)
    if left_out := skipped.left_out():
        notes.append(f"{printable(name)}: {left_out}")
    return assemble(
        name or "root", store, found.paths, found.labels, found.splits, notes, columns=found.columns, options=options
    )


def _splits(store: ArchiveStore, parts: Sequence[_Part]) -> tuple[dict[str, str], list[str]]:
    """The split of each archive by its name or the folders around it; "" where they do not tell.

    Raises:
        DatasetError: some archives tell their split, and others, with samples too, do not.
    """
    if len(parts) == 1 and not parts[0].name:
        return {parts[0].name: ""}, []
    found = {part.name: _worded(without_ending(part.name)) for part in parts}
    kinds = sorted({split for split in found.values() if split})
    without = [part.name for part in parts if not found[part.name] and part.samples.samples]
    if kinds and without:
        raise DatasetError(
            f"{store.location} has shards of {' and '.join(kinds)}, and others whose names tell no split: {listed(without)}. "
            "Name them train, val or test too, or name the shards that belong together"
        )
    if len(kinds) == 1 and kinds[0] in worded_splits(_fixed_words(store.location)).values():
        return dict.fromkeys(found, ""), [
            f"is split by content: the pattern names shards of {kinds[0]} alone. A pattern such as '*-{{000..150}}.tar' that "
            "stands for several splits keeps them"
        ]
    example = {split: next(name for name in found if found[name] == split) for split in kinds}
    shown = ", ".join(f"{name} is of the split {split}" for split, name in example.items())
    return found, [f"has splits by the names of shards: {shown}"] if kinds else []


def _worded(stem: str) -> str:
    return next((split for part in stem.split("/") if (split := worded_splits([part])[part])), "")


def _fixed_words(location: str) -> list[str]:
    """The last name of a pattern as the user wrote it, without what varies."""
    return [re.sub(r"\{[^{}]*\}|[*?]", "", without_ending(location.rpartition("/")[2]))]


def _splits_in_keys(found: LabelledSamples) -> tuple[list[str], list[str]]:
    """Splits by the first folder of each sample, if all of these folders are splits."""
    inner = [path[len(prefix) :] for path, prefix in zip(found.paths, found.archives, strict=True)]
    tops = {path.partition("/")[0] if "/" in path else "" for path in inner}
    known = worded_splits(sorted(tops))
    if "" in tops or len(tops) < 2 or not all(known.values()):
        return found.splits, []
    shown = ", ".join(f"{top} as {split}" for top, split in known.items())
    return [known[path.partition("/")[0]] for path in inner], [f"has splits by the folders of samples: {shown}"]


def _class_list(location: str, parts: Sequence[_Part]) -> tuple[str, list[str]]:
    """The list of class names in the archives, beside them, or in the folder around them."""
    for part in parts:
        for path, data in part.index.texts.items():
            if posixpath.basename(path).lower() in LISTS and (names := names_of_list(path, data)):
                return path, names
    folder = common_folder(location) if is_pattern(location) else location.rpartition("/")[0]
    for around in _places_of_lists(folder, parts):
        for name in LISTS:
            file = place(f"{around}/{name}")
            try:
                size = size_of(file)
                data = file.read(0, size) if 0 < size <= _LARGEST_LIST else b""
            except OSError:
                continue
            if data and (names := names_of_list(name, data)):
                return name, names
    return "", []


def _places_of_lists(folder: str, parts: Sequence[_Part]) -> Iterator[str]:
    own = {part.name.rpartition("/")[0] for part in parts}
    around = {"/".join(name.split("/")[:depth]) for name in own for depth in range(1, name.count("/") + 2)}
    inner = sorted(around - {""}, key=lambda name: (name.count("/"), name))
    yield folder
    yield from (f"{folder}/{name}" for name in inner[:_DEEPEST])
    if folder.count("/") > 3 or not is_remote(folder):
        yield folder.rpartition("/")[0]

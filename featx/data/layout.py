"""The layout of a folder of images: which of its folders are splits, which are classes, and which only wrap others.

Folders are read by their names and their nesting alone. A layout that has two plausible readings is refused, or read with a
note that states the reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from featx.data.folder_names import PLAIN_NAMES, hive_places, without_masks, without_parts
from featx.data.image_set import PRETRAIN, SPLIT_NAMES
from featx.data.split_names import (
    UNLABELLED_SPLIT,
    exact_splits,
    is_split_alone,
    is_unlabelled_name,
    name_without_split,
    worded_splits,
)
from featx.data.urls import Url
from featx.errors import DatasetError
from featx.text import listed

_INNERMOST = "--label-pattern '(?P<label>[^/]+)/[^/]+$'"
"""The option that makes a class of the folder that holds each image."""


@dataclass
class Folder:
    """A folder that has images in it or below it.

    Attributes:
        parts: its path below the data set's root.
        images: the number of images right in it.
        folders: the folders in it, by name.
    """

    parts: tuple[str, ...] = ()
    images: int = 0
    folders: dict[str, Folder] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.parts[-1] if self.parts else ""

    @property
    def path(self) -> str:
        """Its path below the data set's root, with forward slashes."""
        return "/".join(self.parts)

    def below(self) -> Iterator[Folder]:
        """This folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    def names_below(self) -> set[str]:
        """The names of all folders below it."""
        return {folder.name for folder in self.below()} - {self.name} | set(self.folders)


@dataclass(frozen=True)
class Place:
    """What the images right in one folder are.

    Attributes:
        split: the name of their split; "" if the layout has no splits.
        label: the name of their class, or None.
    """

    split: str
    label: str | None


@dataclass(frozen=True)
class Layout:
    """What each folder of a data set means.

    Attributes:
        places: by the path of a folder with images; a folder whose images are left out is missing.
        around_classes: the folders whose folders are classes.
        splits: the folders that are splits.
        notes: sentences for the user.
        masks: the folders with images that are left out as masks.
    """

    places: Mapping[str, Place]
    around_classes: tuple[str, ...]
    splits: tuple[str, ...]
    notes: tuple[str, ...]
    masks: tuple[str, ...] = ()


def read_layout(counts: Mapping[str, int], root: Path | Url, *, classes: bool = True) -> Layout:
    """Read the layout of a data set from its folders.

    Args:
        counts: the number of images right in each folder, by its path below the root, with forward slashes.
        root: the data set's folder or its URL, for messages.
        classes: whether folders may be classes; otherwise they are splits at most, and no image is left out.

    Raises:
        DatasetError: the layout has two readings that differ in classes or splits.

    Examples:
        >>> layout = read_layout({"pets/train_set/cat": 8, "pets/test_set/cat": 2}, Path("download"))
        >>> layout.places["pets/test_set/cat"]
        Place(split='test', label='cat')
        >>> layout.notes[0]
        'download: pets/test_set is read as the split test, pets/train_set as train'
    """
    if not classes:
        return _splits_alone(_unwrap(_tree(counts)), counts, root)
    named, key = hive_places(counts)
    if named:
        places = {path: Place(split, label) for path, (split, label) in named.items()}
        return Layout(places, (), (), (f"{root.name}: the classes are read from the names of folders, {key}=...",))
    kept, about_masks = without_masks(counts)
    meant, about_parts = without_parts(kept)
    joined = Counter[str]()
    for path, count in kept.items():
        joined[meant[path]] += count
    found = _read_tree(_unwrap(_tree(joined)), root)
    return replace(
        found,
        places={path: found.places[name] for path, name in meant.items() if name in found.places},
        notes=(*(f"{root.name}: {note}" for note in (about_masks, about_parts) if note), *found.notes),
        masks=tuple(path for path in counts if path not in kept),
    )


def _read_tree(around: Folder, root: Path | Url) -> Layout:
    if found := _classes_in_names(around):
        return _split_and_class_in_a_name(around, found, root)
    if splits := _splits_of(around, root):
        return _in_splits(around, splits, root)
    if len(around.folders) > 1 and any(_holds_splits(folder) for folder in around.folders.values()):
        return _splits_in_classes(around, root)
    return _plain(around, root)


def _tree(counts: Mapping[str, int]) -> Folder:
    root = Folder()
    for path, count in sorted(counts.items()):
        here = root
        for name in path.split("/") if path else ():
            here = here.folders.setdefault(name, Folder((*here.parts, name)))
        here.images += count
    return root


def _unwrap(folder: Folder) -> Folder:
    """Descend through folders that do nothing but hold the data set."""
    while len(folder.folders) == 1:
        (inner,) = folder.folders.values()
        is_split = is_split_alone(inner.name) and not _holds_splits(inner)
        is_plain_name = inner.name.lower() in PLAIN_NAMES
        if is_split or not (inner.folders or is_plain_name) or (inner.images and not _holds_splits(inner)):
            return inner if is_plain_name and not is_split and not folder.images else folder
        folder = inner
    return folder


def _holds_splits(folder: Folder) -> bool:
    """Whether train and another split are among the folders in it."""
    found = set(worded_splits(folder.folders).values()) - {""}
    return "train" in found and len(found) > 1


def _splits_of(around: Folder, root: Path | Url) -> dict[str, str]:
    """The split of each folder by its name; {} if the folders are not splits.

    Raises:
        DatasetError: some are, and others, which hold images too, are not.
    """
    exact, worded = exact_splits(around.folders), worded_splits(around.folders)
    found = {split for split in worded.values() if split}
    others = [name for name, split in worded.items() if not split]
    has_train = "train" in found
    if has_train and others and all(map(is_unlabelled_name, others)):
        return {name: split or UNLABELLED_SPLIT for name, split in worded.items()}
    if not found or found == {PRETRAIN} or (len(worded) == 1 and not all(map(is_split_alone, worded))):
        return {}
    if not others:
        same = len(found) == 1 and len(worded) > 1 and not all(exact.values())
        return worded if not same or _shared_names(around.folders.values()) else {}
    named = [around.folders[name] for name, split in worded.items() if split]
    exact_found = set(exact.values()) - {""}
    shared = _shared_names(named) if len(named) > 1 else set()
    are_splits = len(found) > 1 and (shared or len(others) < len(named))
    everywhere = len(others) > 0 and "train" in exact_found and _shared_names(around.folders.values())
    if has_train and ({"train"} < exact_found or are_splits or everywhere):
        raise DatasetError(
            f"{root / around.path} has folders of splits and beside them {listed(sorted(others))}, which holds images too but "
            f"is not a split. {_read_as(around, worded)}. If all are classes, list them in a table; else move the others "
            "away, or name them train, val or test too"
        )
    return {}


def _shared_names(folders: Iterable[Folder]) -> set[str]:
    """The names that occur below every one of some folders; a name such as images counts for nothing."""
    names = [folder.names_below() for folder in folders]
    shared = set.intersection(*names) if names else set()
    return shared if any(name.lower() not in PLAIN_NAMES for name in shared) else set()


def _splits_alone(around: Folder, counts: Mapping[str, int], root: Path | Url) -> Layout:
    """The splits of a data set whose folders are no classes."""
    splits = _splits_of(around, root)
    places = {path: Place("", None) for path in counts}
    for name, split in splits.items():
        places |= {folder.path: Place(split, None) for folder in around.folders[name].below()}
    return Layout(
        places,
        (),
        tuple(around.folders[name].path for name in splits),
        tuple(_note_splits(around, splits, root)) if splits else (),
    )


# Folders of splits


def _in_splits(around: Folder, splits: Mapping[str, str], root: Path | Url) -> Layout:
    """Splits around classes."""
    tops = _unwrap_together(_unwrap_each(around.folders, splits), splits)
    notes = [
        *_note_splits(around, splits, root),
        *_note_wrappers(around, [f for f in tops.values() if f.folders], root),
    ]
    places: dict[str, Place] = {}
    around_classes, flat, classes = list[str](), list[str](), list[Folder]()
    for name, top in tops.items():
        split = splits[name]
        if split == UNLABELLED_SPLIT or not top.folders:
            places |= {folder.path: Place(split, None) for folder in around.folders[name].below()}
            flat.append(name)
            continue
        around_classes.append(top.path)
        _refuse_copies(top, root)
        classes += top.folders.values()
        places |= _places(top.folders.values(), split)
    if around_classes and flat:
        notes.append(_note_unlabelled(around, flat, root))
    notes += _note_classes(classes, root)
    return Layout(places, tuple(around_classes), tuple(f.path for f in around.folders.values()), tuple(notes))


def _unwrap_each(tops: Mapping[str, Folder], splits: Mapping[str, str]) -> dict[str, Folder]:
    """Descend through ``seg_train/seg_train`` and ``train/images``."""
    inside = Counter(inner for folder in tops.values() for inner in folder.folders)
    found = {}
    for name, folder in tops.items():
        while len(folder.folders) == 1 and not folder.images:
            (inner,) = folder.folders.values()
            # The class test_tube, alone in test but not in train, does not repeat the name of the split.
            repeats = inner.name == folder.name or (
                worded_splits([inner.name])[inner.name] == splits[name] and inside[inner.name] == 1
            )
            if not repeats and inner.name.lower() not in PLAIN_NAMES:
                break
            folder = inner
        found[name] = folder
    return found


def _unwrap_together(tops: dict[str, Folder], splits: Mapping[str, str]) -> dict[str, Folder]:
    """Descend through a folder of one name that is alone in every split with folders, such as ``train/faces/...``."""
    while True:
        holding = {name: top for name, top in tops.items() if top.folders and splits[name] != UNLABELLED_SPLIT}
        inner = {name: next(iter(top.folders.values())) for name, top in holding.items() if len(top.folders) == 1}
        alone = [folder for folder in inner.values() if folder.folders and not folder.images]
        if not holding or len(alone) < len(holding) or len({folder.name for folder in alone}) > 1:
            return tops
        tops = tops | inner


def _note_splits(around: Folder, splits: Mapping[str, str], root: Path | Url) -> Iterator[str]:
    """State which folders are read as which splits, unless each has the very name of a split, and none twice."""
    exact = all(name.lower() in SPLIT_NAMES for name in splits)
    if not exact or len(set(splits.values())) < len(splits) or around.parts:
        yield f"{root.name}: {_read_as(around, splits)}"


def _read_as(around: Folder, splits: Mapping[str, str]) -> str:
    (first, split), *others = sorted((around.folders[name].path, split) for name, split in splits.items() if split)
    return f"{first} is read as the split {split}{''.join(f', {path} as {other}' for path, other in others)}"


def _note_unlabelled(around: Folder, flat: Sequence[str], root: Path | Url) -> str:
    counts = {name: sum(folder.images for folder in around.folders[name].below()) for name in flat}
    shown = listed([f"{around.folders[name].path} ({count:,})" for name, count in counts.items()])
    return f"{root.name}: the images in {shown} are in no folders of classes, so they have no labels"


def _note_wrappers(around: Folder, tops: Sequence[Folder], root: Path | Url) -> Iterator[str]:
    """State where the classes are, if folders around them were passed over inside of the splits."""
    deeper = [top.path for top in tops if len(top.parts) > len(around.parts) + 1]
    if deeper:
        yield f"{root.name}: the classes are the folders in {listed(sorted(deeper))}"


# Splits and classes in other orders


def _classes_in_names(around: Folder) -> dict[str, tuple[str, str]]:
    """The split and class of each folder in ``train_cats, train_dogs, test_cats, test_dogs``; {} for other layouts."""
    splits = worded_splits(around.folders)
    found = {name: (split, name_without_split(name)) for name, split in splits.items()}
    classes = {split: {label for other, label in found.values() if other == split} for split in splits.values()}
    flat = not any(folder.folders for folder in around.folders.values())
    every = {label for _, label in found.values()}
    is_grid = (
        len(classes) > 1 and len(every) > 1 and every in classes.values() and len(set(found.values())) == len(found)
    )
    return found if flat and all(splits.values()) and is_grid and not every & {"", *PLAIN_NAMES} else {}


def _split_and_class_in_a_name(around: Folder, found: Mapping[str, tuple[str, str]], root: Path | Url) -> Layout:
    places = {around.folders[name].path: Place(split, label) for name, (split, label) in found.items()}
    name, (split, label) = next(iter(found.items()))
    note = f"{root.name}: the names of folders are read as a split and a class, such as {name} as {label!r} in {split}"
    return Layout(places, (), tuple(places), (note,))


def _splits_in_classes(around: Folder, root: Path | Url) -> Layout:
    """Classes around splits: ``cat/train, cat/test, dog/train, dog/test``.

    Raises:
        DatasetError: not every class has splits alone, or there are folders of the same names in these, as where several data
            sets lie side by side.
    """
    tops = list(around.folders.values())
    where = root / around.path
    found = {top.name: worded_splits(top.folders) for top in tops}
    if not all(top.folders and not top.images and all(found[top.name].values()) for top in tops):
        holding = next(top for top in tops if _holds_splits(top))
        odd = next(top for top in tops if not (top.folders and not top.images and all(found[top.name].values())))
        inside = listed(sorted(name for name, split in found[holding.name].items() if split))
        raise DatasetError(
            f"{where} has folders of splits in {holding.name} ({inside}), but {odd.name} has images that are in no such "
            f"folder. Name the data set itself, such as {root / holding.path}, or list the images in a table with the columns "
            "path, label and split"
        )
    inner: dict[str, set[str]] = {
        top.name: {name for split in top.folders.values() for name in split.names_below()} for top in tops
    }
    shared = set.intersection(*inner.values())
    if len(shared - {name for name in shared if name.lower() in PLAIN_NAMES}) > 1:
        raise DatasetError(
            f"{where} has folders of splits in each of {listed(sorted(inner))}, with folders of the same names in these "
            f"({listed(sorted(shared), most=3)}), so they look like data sets side by side. Name one of them, such as "
            f"{root / tops[0].path}, or list the images in a table with the columns path, label and split"
        )
    places = {
        folder.path: Place(found[top.name][split.name], top.name)
        for top in tops
        for split in top.folders.values()
        for folder in split.below()
    }
    split_names = sorted({name for top in tops for name in top.folders})
    note = f"{root.name}: the folders {listed(split_names)} in each class are read as splits"
    return Layout(places, (around.path,), (), (*_note_root(around, root), note, *_note_plain_names(inner, root)))


# No splits


def _plain(around: Folder, root: Path | Url) -> Layout:
    """Classes, or images without labels."""
    if not around.folders:
        return Layout({around.path: Place("", None)}, (), (), tuple(_note_root(around, root)))
    _refuse_copies(around, root)
    classes = list(around.folders.values())
    notes = [*_note_root(around, root), *_note_split_words(around, root), *_note_classes(classes, root)]
    return Layout(_places(classes, ""), (around.path,), (), tuple(notes))


def _places(classes: Iterable[Folder], split: str) -> dict[str, Place]:
    return {folder.path: Place(split, top.name) for top in classes for folder in top.below()}


def _refuse_copies(around: Folder, root: Path | Url) -> None:
    """Refuse a folder that holds folders of the same names as those beside it: a data set with a copy of itself in it.

    Raises:
        DatasetError: there is one.
    """
    for name, folder in around.folders.items():
        others = set(around.folders) - {name}
        if len(others) > 1 and others <= set(folder.folders):
            raise DatasetError(
                f"{root / around.path} has the folders {listed(sorted(others), most=3)}, and {root / folder.path} has "
                f"folders of the same names, so one looks like a copy of the other. Name {root / folder.path}, or move it away"
            )


def _note_root(around: Folder, root: Path | Url) -> Iterator[str]:
    if around.parts:
        what = "the classes are the folders in" if around.folders else "the images, which have no labels, are those in"
        yield f"{root.name}: {what} {around.path}"


def _note_split_words(around: Folder, root: Path | Url) -> Iterator[str]:
    """State that folders with the name of a split are read as classes."""
    worded = {name: split for name, split in worded_splits(around.folders).items() if split}
    alone = [name for name in worded if is_split_alone(name)]
    if not worded or not (alone or len(set(worded.values())) > 1 or len(worded) == len(around.folders) > 1):
        return
    others = sorted(set(around.folders) - set(worded))
    why = (
        f"{listed(others, most=3)} {'are' if others[1:] else 'is'} not a split" if others else "all name the same split"
    )
    read = "are read as classes, not as splits" if len(worded) > 1 else "is read as a class, not as a split"
    yield f"{root.name}: {listed(sorted(worded))} {read}, because {why}"


def _note_plain_names(classes: Iterable[str], root: Path | Url) -> Iterator[str]:
    for name in sorted(classes):
        if name.lower() in PLAIN_NAMES:
            yield f"{root.name}: the folder {name} is read as a class"


def _note_classes(classes: Sequence[Folder], root: Path | Url) -> Iterator[str]:
    """Notes about folders below the classes, or among them, that look as if they meant something."""
    by_name: dict[str, list[Folder]] = {}
    for folder in classes:
        by_name.setdefault(folder.name, []).append(folder)
    yield from _note_plain_names(by_name, root)
    below = {name: set[str]().union(*(f.names_below() for f in folders)) for name, folders in by_name.items()}
    shared = set.intersection(*below.values()) if len(below) > 1 else set()
    if shared and not (len(shared) == 1 and min(shared).lower() in PLAIN_NAMES):
        yield (
            f"{root.name}: each of {listed(sorted(by_name), most=4)} is read as a class, and all of them have folders of the "
            f"same names ({listed(sorted(shared), most=4)}). If those are the classes, name one of the folders around them, or "
            f"add {_INNERMOST}, which takes the folder that holds each image"
        )
        return
    nested = [folder for folder in classes if _holds_splits(folder)]
    if nested:
        yield f"{root.name}: the folders {listed(sorted(nested[0].folders), most=3)} in {nested[0].path} are not read as splits"
    are_around = all(folder.folders and not folder.images for folder in classes)
    if len(by_name) > 1 and are_around and any(len(folder.folders) > 1 for folder in classes):
        example = next(iter(classes[0].folders.values()))
        yield (
            f"{root.name}: each class is a folder such as {classes[0].path}; the folders below, such as {example.path}, are "
            f"not classes. {_INNERMOST} takes the folder that holds each image"
        )

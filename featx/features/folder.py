"""The folder of feature files: their names, and which of them hold the features of an extraction."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from featx.constants import EMBEDDED
from featx.data.image_set import ImageSet
from featx.errors import CacheMissError, CorruptFileError, OutputError, UnknownVersionError, UnreadableFileError
from featx.features import hdf5
from featx.features.feature_file import FeatureFile
from featx.features.header import FORMAT, VERSIONS, FeatureFileHeader, partial_path
from featx.features.lock import folder_error
from featx.features.manifest import SETS, Manifest
from featx.features.open_file import is_denied, read_errors
from featx.io.file_kinds import FOLDER, MANIFEST, misplaced
from featx.io.outputs import Output, OutputKind, require_replaceable, require_separate
from featx.reporter import SILENT, Reporter, note_choice
from featx.text import native, portable

SHARDS = ".shards"
"""The ending of a folder of shards, see ``featx.features.shards``."""

ENDINGS = (".h5", ".h5.partial", ".h5.new")
"""The endings of feature files: complete, left by an interrupted run, not begun."""


def feature_file_path(
    folder: Path, *, dataset: str, root: str, backbone: str, identities: Mapping[str, str]
) -> tuple[Path, str]:
    """The path of the file that holds, or will hold, features of a data set.

    It is ``<dataset>--<backbone>.h5``, or the same with a short hash if that name is taken by other features, by another data
    set of the same name, or by a file that cannot be read.

    Args:
        folder: the folder of feature files.
        dataset: the name of the data set.
        root: its folder.
        backbone: the name of the backbone.
        identities: the identity of each layer by its name.

    Returns:
        The path, and a note for the user if a file with the plain name cannot be used; otherwise "".

    Raises:
        UnreadableFileError: a file of such a name cannot be read now, other than for want of permission.
    """
    note = ""
    plain = folder / native(f"{dataset}--{portable(_file_stem(backbone))}.h5")
    candidates = [plain, folder / tagged_name(dataset, root, backbone, identities)]
    for path in candidates:
        for form in (path, partial_path(path)):
            try:
                header = FeatureFileHeader(form)
            except CacheMissError:
                continue
            except UnreadableFileError as error:
                if not is_denied(error):  # it may hold just these features, so nothing is done until it can be read
                    raise
                note = f"{error}. The file is left as it is"
                continue
            except UnknownVersionError as error:
                note = f"{error}. The file is left as it is"
                continue
            except CorruptFileError as error:
                note = f"{error}. The file is left as it is; featx cache rm removes it"
                continue
            if header.holds(identities) and header.dataset["root"] == root:
                return path, ""
    taken = os.path.lexists(plain) or os.path.lexists(partial_path(plain))
    return (candidates[1], note) if taken else (plain, "")


def tagged_name(dataset: str, root: str, backbone: str, identities: Mapping[str, str]) -> str:
    """The name of a feature file that no other data set and no other features have; the arguments are as above."""
    tag = hashlib.sha256(json.dumps([root, sorted(identities.items())]).encode()).hexdigest()[:8]
    return native(f"{dataset}--{portable(_file_stem(backbone))}--{tag}.h5")


def shard_name(shard: object, dataset: str, root: str, backbone: str, identities: Mapping[str, str]) -> Path:
    """The path of the feature file of a shard in the folder of feature files; ``shard`` is a ``Shard``, written K/N."""
    number, _, of = str(shard).partition("/")
    name = tagged_name(dataset, root, backbone, identities).removesuffix(".h5")
    return Path(f"{name}{SHARDS}") / f"{number.zfill(len(of))}-of-{of}.h5"


def set_folder(folder: Path, dataset: str, root: str, backbone: str, identities: Mapping[str, str]) -> Path:
    """The folder of the set that holds, or will hold, features of a data set in several files.

    It is ``<dataset>--<backbone>.set``, or the same with a short hash if that name is taken by other features, or by another
    data set of the same name. A file that was not begun takes no name. The arguments are as of ``feature_file_path``.

    Raises:
        UnreadableFileError: a set of such a name cannot be listed now.
    """
    plain = folder / native(f"{dataset}--{portable(_file_stem(backbone))}{SETS}")
    tagged = folder / tagged_name(dataset, root, backbone, identities).removesuffix(".h5")
    tagged = tagged.with_name(tagged.name + SETS)
    for path in (plain, tagged):
        for file in files_in(path):
            with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                header = FeatureFileHeader(file)
                if header.holds(identities) and header.dataset["root"] == root:
                    return path
    taken = os.path.lexists(plain) and any(not file.name.endswith(".new") for file in files_in(plain))
    return tagged if taken else plain


def files_sharing(
    folder: Path,
    identities: Iterable[Mapping[str, str]],
    *,
    without: Sequence[Path] = (),
    note: Callable[[str], object] = str,
) -> list[FeatureFile]:
    """The feature files of a folder, complete or not, that share features with an extraction; the newest first.

    They are released, so that their number is not limited by that of open files.

    Args:
        folder: the folder of feature files.
        identities: groups of identities by layer; a file is returned if it holds all of any one group.
        without: files to leave out.
        note: called with a sentence for each file that cannot be read.
    """
    files, groups = [], list(identities)
    for path in sorted(files_and_shards(folder), key=when_modified, reverse=True):
        if path in without or path.name.endswith(".new"):
            continue
        try:
            if any(map(FeatureFileHeader(path).holds, groups)):
                file = FeatureFile(path, allow_partial=True)
                file.release()
                files.append(file)
        except UnreadableFileError as error:
            note(f"{error}. Its features are not reused")
        except (CacheMissError, CorruptFileError):
            continue
    return files


def knows_of(folder: Path, root: str, identities: Mapping[str, str]) -> bool:
    """Whether a file of a folder, complete or not, is of a data set, or has features of an extraction of any.

    Args:
        folder: the folder of feature files.
        root: of the data set, as the feature file stores it.
        identities: the identity of each layer by its name.
    """
    wanted = set(identities.values())
    for path in files_and_shards(folder):
        try:
            header = FeatureFileHeader(path)
        except (CacheMissError, CorruptFileError, UnreadableFileError):
            continue
        if header.dataset["root"] == root or wanted & {layer.identity for layer in header.layers.values()}:
            return True
    return False


def newest(folder: Path, reporter: Reporter = SILENT) -> Path:
    """The feature file, or the set of them, of a folder that was written or used last.

    Args:
        folder: the folder of feature files.
        reporter: gets a note with the file's name and those of the others, if there are others.

    Raises:
        CacheMissError: the folder has no feature file.
    """
    if wrong := misplaced(folder, "a folder of feature files", fits=[FOLDER]):
        raise CacheMissError(wrong)
    files = _finished(folder)
    if not files:
        raise CacheMissError(f"there is no feature file in {folder}; run featx extract first, or name a file")
    note_choice(files, "feature files", reporter)
    return files[0]


def newest_of(folder: Path, images: ImageSet, reporter: Reporter = SILENT) -> Path | None:
    """The feature file, or set, of a data set that was written or used last, whatever its backbone; None if there is none.

    Args:
        folder: the folder of feature files.
        images: the data set; its root and its table decide.
        reporter: gets a note with the file's name and those of the others, if there are others.
    """
    table = portable(str(images.table)) if images.table else None
    files = []
    for path in _finished(folder):
        with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
            header = FeatureFileHeader(path / Manifest.read(path).files[0].name if path.suffix == SETS else path)
            if header.root == images.root and header.dataset.get("table") == table:
                files.append(path)
    note_choice(files, "feature files of this data set", reporter)
    return files[0] if files else None


def files_of(folder: Path, *, name: str, root: str) -> list[Path]:
    """The finished feature files, and sets, of a data set, the newest first, whatever their backbone.

    Args:
        folder: the folder of feature files.
        name: of the data set.
        root: its folder, as its files state it.
    """
    found = []
    for path in _finished(folder):
        with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
            dataset = FeatureFileHeader(
                path / Manifest.read(path).files[0].name if path.suffix == SETS else path
            ).dataset
            if (dataset["name"], dataset["root"]) == (name, root):
                found.append(path)
    return found


def _finished(folder: Path) -> list[Path]:
    """The finished feature files in a folder, and the folders of its sets, the newest first."""
    files = [path for path in files_in(folder) if path.suffix == ".h5"]
    return sorted([*files, *sets_in(folder)], key=when_modified, reverse=True)


def sets_in(folder: Path) -> list[Path]:
    """The folders of the sets in a folder that have a manifest."""
    with contextlib.suppress(OSError):
        names = sorted(name for name in os.listdir(folder) if name.endswith(SETS))  # noqa: PTH208
        return [path for path in map(folder.joinpath, names) if (path / MANIFEST).is_file()]
    return []


def require_writable(folder: Path, file: Path | None = None) -> None:
    """Check, before anything slow, that a feature file can be written.

    A folder without write permission passes if it contains feature files, because an unchanged file is only read.

    Args:
        folder: the folder of feature files; it is created if it does not exist.
        file: the path of the feature file if one was named; its folder is checked instead.

    Raises:
        OutputError: the folder cannot be written.
    """
    if file and file.is_dir():
        raise OutputError(f"{file} is a folder; name a file to write with -o")
    folder = file.parent if file else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        with contextlib.suppress(OSError):
            if files_in(folder):
                return
        raise folder_error(folder, error) from error


def require_named(file: Path, *inputs: str | os.PathLike[str] | None) -> None:
    """Check, before anything slow, that a named file may become a feature file: it is none yet, or a feature file of featx.

    Args:
        file: the path that was named.
        inputs: the table, the weights and the code that the extraction reads; None and what is no file are ignored.

    Raises:
        OutputError: the file is an input, has the ending of another format, or holds something else.
    """
    kind = OutputKind("feature file", ".h5", is_ours)
    require_separate([Output(file, kind, named=True)], [path for path in inputs if path])
    require_replaceable(file, kind)


def set_aside(path: Path, word: str) -> Path:
    """Rename an unfinished file that no run can continue, without replacing anything, and return its new path.

    Args:
        path: the file, ``<name>.h5.partial``.
        word: what the new name, ``<name>--<word>.h5.partial``, tells.

    Raises:
        OutputError: it cannot be renamed.
    """
    final = final_path(path)
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (partial_path(final.with_name(f"{final.stem}--{word}{number}{final.suffix}")) for number in numbers)
    aside = next(place for place in places if not os.path.lexists(place))
    try:
        path.rename(aside)
    except OSError as error:
        raise OutputError(f"cannot rename {path} to {aside.name}: {error.strerror}") from error
    return aside


def is_ours(path: Path) -> bool:
    """Whether featx wrote a file, even if it is damaged: the names of its attributes stand at its beginning."""
    beginning = first_bytes(path)
    return FORMAT.encode() in beginning or hdf5.TEXT_CRC.encode() in beginning


def is_lost(path: Path, error: CorruptFileError) -> bool:
    """Whether a file that cannot be opened is one of featx without content that any version could read.

    Args:
        path: the file.
        error: why it cannot be opened.
    """
    if isinstance(error, UnknownVersionError) or is_something_else(path):
        return False
    return (is_ours(path) and is_of_this_version(path)) or not any(first_bytes(path))


def is_of_this_version(path: Path) -> bool:
    """Whether the version stands at the beginning of a file, even if it is damaged, as this featx writes it."""
    beginning = first_bytes(path)
    return FORMAT.encode() not in beginning or any(
        hdf5.packed_attribute("version", version) in beginning for version in VERSIONS
    )


def first_bytes(path: Path) -> bytes:
    """The first 64 kB of a file; none if there is no such file."""
    with read_errors(path), contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        return file.read(1 << 16)
    return b""


def final_path(path: Path) -> Path:
    """The path that an unfinished feature file gets when it is complete; that of a complete one is the same."""
    return path.with_name(path.name.removesuffix(".new").removesuffix(".partial"))


def files_in(folder: Path) -> list[Path]:
    """The feature files in a folder, judged by their names only.

    Raises:
        UnreadableFileError: the folder cannot be listed.
    """
    try:
        with read_errors(folder):
            names = sorted(name for name in os.listdir(folder) if name.endswith(ENDINGS))  # noqa: PTH208
    except UnreadableFileError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return []
        raise
    return [path for path in map(folder.joinpath, names) if not is_something_else(path)]


def files_and_shards(folder: Path) -> list[Path]:
    """The feature files in a folder, in its folders of shards, in its sets, and those of images that belong to no data set."""
    files = [*files_in(folder), *files_in(folder / EMBEDDED)]
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):  # noqa: PTH208
            if name.endswith((SHARDS, SETS)):
                files += files_in(folder / name)
    return files


def is_something_else(path: Path) -> bool:
    """Whether a path is known to be no regular file; one that the system cannot tell about may be one."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def when_modified(path: Path) -> float:
    """When a file or a set was last written or used, in seconds since 1970; 0 if it has just been renamed."""
    try:
        return (path / MANIFEST if path.suffix == SETS else path).stat().st_mtime
    except OSError:  # the file has just been renamed
        return 0.0


def _file_stem(name: str) -> str:
    """A backbone's name within a file name: ``timm-vit_tiny`` for ``timm/vit_tiny``, ``own-make`` for ``nets/own.py:make``."""
    if ".py:" in name:
        file, _, factory = name.rpartition(":")
        name = f"{Path(file).stem}-{factory}"
    return name.replace("/", "-")

"""Write a folder of files whole or not at all, and replace only a folder that featx wrote and nobody changed since.

A manifest in the folder lists its files with their checksums. A folder is written beside its final name and renamed. Where an
older one is replaced, both are exchanged in one step if the file system can do that (Linux); otherwise the older one is
renamed first, so that a crash between the two steps leaves it under a temporary name.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featx._version import __version__
from featx.errors import OutputError
from featx.io import atomic
from featx.io.digests import file_digest
from featx.io.strict_json import strict_json
from featx.system import nearest_folder
from featx.text import counted, listed, printable, size_text

_BLOCK = 1 << 20
_MOST_OF_NAME = 32
_TEMPORARY = ".featx-temporary"


def require_replaceable_folder(path: Path, manifest: str, noun: str, *, option: str, need: int = 0) -> None:
    """Check that a folder can be written, and that no file of the user's is lost under it.

    Args:
        path: the future folder. There may be none, an empty one, or one that featx wrote and nobody changed.
        manifest: the name of the manifest in it, as ``replacing_folder`` writes it.
        noun: what the folder is, with its article, for messages.
        option: the option that names it, for messages.
        need: the bytes that it will take, as far as they are known.

    Raises:
        OutputError: there is a file or another folder of that name, one of its files was changed or added, or the disk cannot
            be written or is full.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            kind = "a link" if path.is_symlink() else "a file"
            raise OutputError(f"{path} is {kind}, and a folder would be written; name another folder with {option}")
        if path.is_dir() and any(path.iterdir()):
            _require_own(path, manifest, noun, option)
        above = nearest_folder(path.absolute().parent)
        with tempfile.TemporaryFile(dir=above):  # the only check that also holds for root, read-only disks and quotas
            free = shutil.disk_usage(above).free
    except (OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write the folder {path}: {atomic.reason(error)}; name another one with {option}"
        ) from error
    if need > free:
        raise OutputError(
            f"{path} needs {size_text(need)}, and {size_text(free)} are free; name another disk with {option}"
        )


@contextlib.contextmanager
def replacing_folder(path: Path, manifest: str, noun: str, *, option: str) -> Iterator[Path]:
    """Give an empty folder beside a path, which takes the path's place when the block ends without an exception.

    Its files are listed in a manifest and written to the disk before. What killed processes left beside the same path is
    removed. Two processes that write the same folder do not disturb one another: the one that ends last wins.

    Args:
        path: the final path; its parents are made.
        manifest: the name of the manifest.
        noun: as for ``require_replaceable_folder``.
        option: as for ``require_replaceable_folder``.

    Raises:
        OutputError: the folder cannot be written, or what is there must not be replaced.
    """
    path = path.absolute()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = path.with_name(f".{path.name[:_MOST_OF_NAME]}.{secrets.token_hex(4)}{_TEMPORARY}")
        temporary.mkdir()
        with _locked(temporary):
            yield temporary
            _seal(temporary, manifest)
            require_replaceable_folder(path, manifest, noun, option=option)
            _put_in_place(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        full = atomic.full_disk(nearest_folder(path.parent), 0, error)
        raise OutputError(
            f"cannot write the folder {path}: {atomic.reason(error)}{full}; name another one with {option}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(path: Path, manifest: str) -> dict[str, Any] | None:
    """The manifest of a folder that ``replacing_folder`` wrote; None for any other folder."""
    try:
        with (path / manifest).open("rb") as file:
            facts = strict_json(file.read(_BLOCK).decode("utf-8"))
    except (OSError, ValueError):
        return None
    listed_files = facts.get("files") if isinstance(facts, dict) else None
    return facts if isinstance(listed_files, dict) and "featx" in facts else None


def _require_own(path: Path, manifest: str, noun: str, option: str) -> None:
    """Raise OutputError unless a folder holds what its manifest lists and nothing else."""
    facts = read_manifest(path, manifest)
    if facts is None:
        raise OutputError(
            f"{path} exists and is not {noun} of featx, so it is not replaced; name another folder with {option}, or remove it "
            "first"
        )
    known = {manifest: "", **facts["files"]}
    found = sorted(each.name for each in path.iterdir())
    added = [name for name in found if name not in known]
    changed = [name for name in found if known.get(name) and not _is_same(path / name, known[name])]
    if added or changed:
        parts = [f"{listed(list(map(printable, names)), most=3)} {what}" for names, what in
                 ((changed, "changed"), (added, "added")) if names]  # fmt: skip
        raise OutputError(
            f"{path} is {noun} of featx with {counted(len(added) + len(changed), 'file')} that somebody else wrote "
            f"({'; '.join(parts)}), so it is not replaced; name another folder with {option}, or remove it first"
        )


def _is_same(path: Path, digest: Any) -> bool:
    return not path.is_symlink() and stat.S_ISREG(path.stat().st_mode) and file_digest(path) == digest


def _seal(folder: Path, manifest: str) -> None:
    """Write the manifest of a folder, and wait until all its files are on the disk."""
    files = {each.name: file_digest(each) for each in sorted(folder.iterdir())}
    (folder / manifest).write_text(json.dumps({"featx": __version__, "files": files}, indent=2) + "\n")
    for each in (*sorted(folder.iterdir()), folder):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Give a folder its final name; an older one gets the temporary name."""
    with contextlib.suppress(OSError):
        path.rmdir()  # an empty one
    if not path.exists():
        temporary.rename(path)
    elif not _exchanged(temporary, path):
        aside = temporary.with_name(f".{path.name[:_MOST_OF_NAME]}.{secrets.token_hex(4)}{_TEMPORARY}")
        path.rename(aside)
        temporary.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A context that holds a folder's lock, so that no other process takes it for abandoned."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


_ABANDONED_AFTER = 60.0
"""Seconds after which a folder that is not locked belongs to a process that is gone."""


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left beside a path."""
    beginning = f".{path.name[:_MOST_OF_NAME]}."
    for left in path.parent.iterdir():
        if not (left.name.startswith(beginning) and left.name.endswith(_TEMPORARY) and left.is_dir()):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(handle).st_mtime > _ABANDONED_AFTER:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)

"""One archive: a list of its members that is never older than the archive, and the bytes of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from featx.data.file_bytes import MISSING_FACTS, FileBytes, let_age, require_size
from featx.data.places import Place, is_remote
from featx.data.sources.archive_index import ArchiveIndex, Member
from featx.data.sources.index_files import Facts, keep_index, kept_index
from featx.data.sources.tar_index import BLOCK, check_header, list_tar
from featx.data.sources.tar_passes import TarPasses
from featx.data.sources.zip_index import list_zip, read_member
from featx.errors import DatasetError, FeatxError, ImageError, MachineError
from featx.io.file_kinds import LFS_POINTER, POINTER
from featx.text import brief

_KINDS = {
    b"PK\3\4": "zip",
    b"PK\5\6": "zip",
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}
"""How an archive begins; what begins in no such way is a tar, or nothing."""

_TRIES = 3

_REMOTE_FACTS_HOLD = 10.0
"""Seconds for which an archive on another machine is not asked again whether it has changed."""

_PATIENCE = 10
"""An archive that changes all the time is listed again only after so many times as long as listing it took."""


class ArchiveFile:
    """One archive, local or remote. Its methods may be called from several threads.

    Args:
        file: the archive.
    """

    def __init__(self, file: Place) -> None:
        self.file = file
        self._remote = is_remote(file.location)
        self._lock = threading.Lock()
        self._facts: Facts = MISSING_FACTS
        self._asked = -_REMOTE_FACTS_HOLD
        self._index: ArchiveIndex | None = None
        self._indexed: Facts = MISSING_FACTS
        self._not_before = 0.0
        self._passes: TarPasses | None = None

    def facts(self) -> Facts:
        """What is known of the archive: a row of ``FileFacts``."""
        if not self._remote:
            return self.file.facts()
        with self._lock:
            if time.monotonic() - self._asked > _REMOTE_FACTS_HOLD:
                self._facts, self._asked = self.file.facts(), time.monotonic()
            return self._facts

    def scan(self) -> ArchiveIndex:
        """The list of its members, with the texts that may tell labels.

        Raises:
            DatasetError: it is missing, is no archive, is damaged, or keeps changing.
        """
        for _ in range(_TRIES):
            facts = self.facts()
            index = self._read_index(facts)
            if self.facts() == facts:
                with self._lock:
                    self._use(facts, index)
                return index
        raise DatasetError(f"{self.file.location} changes while it is read; wait until it is complete")

    def index(self, *, patient: bool = True) -> tuple[Facts, ArchiveIndex]:
        """The list of the members as the archive is now, and the facts of the archive.

        Args:
            patient: list an archive again however often it changes.

        Raises:
            DatasetError: as ``scan``.
        """
        facts = self.facts()
        with self._lock:
            if self._index is not None and self._indexed == facts:
                return facts, self._index
            began = time.monotonic()
            if facts[0] >= 0 and began < self._not_before and not patient:
                raise DatasetError(f"{self.file.location} keeps changing while it is read; wait until it is complete")
            index = self._read_index(facts)
            self._not_before = time.monotonic() + _PATIENCE * (time.monotonic() - began)
            self._use(facts, index)
            return facts, index

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """Read one member; see ``featx.data.store.Store.read``.

        Raises:
            ImageError: it is not there, is too large, or is damaged; or the archive is, or keeps changing.
        """
        try:
            for _ in range(_TRIES):
                facts, index = self.index(patient=False)
                member = index.members.get(path)
                if member is None:
                    raise ImageError(f"is not in the archive {self.file.location}")
                require_size(member.size)
                admit(member.size)
                if not self._remote:
                    let_age(facts[1], facts[2])
                try:
                    data = self._data(index, member)
                except ImageError:
                    if self.facts() != facts:  # it was read with the list of another archive
                        continue
                    raise
                if self.facts() == facts:
                    return FileBytes(data, member.size, facts[1], facts[2:])
        except MemoryError as error:
            raise MachineError("cannot be read on this machine: there is too little memory") from error
        except ConnectionError:  # a server that does not answer is no fault of one image
            raise
        except (DatasetError, OSError) as error:
            raise ImageError(
                f"cannot be read: {brief(error) if isinstance(error, FeatxError) else _why(error)}"
            ) from error
        raise ImageError("cannot be read: its archive changes meanwhile")

    def expect(self, paths: Sequence[str]) -> None:
        """Prepare to read these members in the order in which they are stored."""
        index, passes = self._index, self._passes
        if index is not None and passes is not None:
            passes.expect(sorted({index.members[path] for path in paths if path in index.members}))

    def _data(self, index: ArchiveIndex, member: Member) -> bytes:
        if index.kind == "zip":
            return read_member(self.file, member)
        if index.kind != "tar":
            assert self._passes is not None
            return self._passes.read(member)
        block, data = self._with_header(member)
        if len(data) < member.size:
            raise ImageError(f"is cut off: {self.file.location} ends before it does")
        if not check_header(block, member.size):
            raise ImageError("is damaged in its archive: its header does not fit")
        return data

    def _with_header(self, member: Member) -> tuple[bytes, bytes]:
        """The header of a member of a tar, and its data."""
        if self._remote:  # one request
            both = self.file.read(member.offset - BLOCK, BLOCK + member.size)
            return both[:BLOCK], both[BLOCK:]
        with self.file.open() as file:  # no copy
            file.seek(member.offset - BLOCK)
            return file.read(BLOCK), file.read(member.size)

    def _read_index(self, facts: Facts) -> ArchiveIndex:
        """List the members, or take the list of an earlier run."""
        if facts[0] < 0:
            raise DatasetError(f"there is no {self.file.location}")
        if facts[0] == 0 and not self._remote:  # some servers do not tell the size
            raise DatasetError(f"{self.file.location} is empty; expected an archive")
        if index := kept_index(self.file.location, facts):
            return index
        if not self._remote:
            let_age(facts[1], facts[2])
        try:
            kind = self._kind()
            index = list_zip(self.file) if kind == "zip" else list_tar(self.file, kind)
        except ConnectionError:
            raise
        except OSError as error:
            raise DatasetError(f"cannot read {self.file.location}: {_why(error)}") from error
        except MemoryError as error:
            raise DatasetError(
                f"the list of members of {self.file.location} needs more memory than there is"
            ) from error
        keep_index(self.file.location, facts, index)
        return index

    def _kind(self) -> str:
        """The kind of the archive by its first bytes."""
        begin = self.file.read(0, BLOCK)
        if begin.startswith(LFS_POINTER):
            raise DatasetError(f"{self.file.location} is {POINTER}; expected an archive")
        if kind := next((kind for start, kind in _KINDS.items() if begin.startswith(start)), ""):
            return kind
        # A zip may begin with a program that unpacks it.
        return "zip" if self.file.location.lower().endswith(".zip") and begin[257:262] != b"ustar" else "tar"

    def _use(self, facts: Facts, index: ArchiveIndex) -> None:
        if self._index is not None and self._indexed == facts:
            return
        self._indexed = facts
        self._index = ArchiveIndex(index.kind, index.members)  # the rest is not needed for reading
        self._passes = TarPasses(self.file, index.kind) if index.kind not in ("zip", "tar") else None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or brief(error)

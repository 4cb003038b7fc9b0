"""What an archive holds: its members, where they lie in it, and what is left out. Standard library only."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST_NAME = 4096
"""Bytes of a member's name above which it is left out: no system could store such a file."""

LARGEST_TEXT = 1 << 16
"""Members with labels and class names of more bytes are not read while an archive is listed."""

_LABEL_ENDINGS = (".cls", ".class", ".label", ".cls.txt", ".class.txt", ".label.txt", ".json")

LISTS = (
    *("classnames.txt", "classes.txt", "class_names.txt", "labels.txt"),
    *("dataset_info.json", "classes.json", "class_names.json", "class_to_idx.json"),
)
"""The names of files that list the classes in the order of their numbers."""

_MOST_LINKS = 16
"""Links that lead to one another, above which they count as leading nowhere."""


class Member(NamedTuple):
    """One file in an archive.

    Attributes:
        offset: where it begins: of a tar, its data, in the unpacked tar; of a zip, its local header.
        size: bytes of the unpacked file.
        packed: bytes that it takes in a zip; -1 in a tar.
        method: how a zip compresses it; -1 in a tar.
        crc: the CRC-32 in a zip; 0 in a tar.
    """

    offset: int
    size: int
    packed: int = -1
    method: int = -1
    crc: int = 0


@dataclass
class ArchiveIndex:
    """What an archive holds.

    Attributes:
        kind: "tar", "zip", or how a tar is compressed: "gz", "bz2", "xz", "zst".
        members: the files by their paths, in the order in which they are stored.
        folders: the paths of the folders that the archive names.
        texts: the contents of small members that may tell labels, by their paths.
        skipped: how many members are left out, by the reason as it stands in a note.
        notes: what is wrong with it, as the end of a sentence that begins with its name.
    """

    kind: str
    members: dict[str, Member] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, path: str, member: Member) -> None:
        """Take up a file; of several with one path, the last one counts, as it does when an archive is unpacked."""
        if self.members.pop(path, None) is not None:
            self.skipped["replaced by a later member of the same name"] += 1
        self.texts.pop(path, None)
        self.members[path] = member

    def resolve(self, links: dict[str, str]) -> None:
        """Give links the place of the file that they lead to; one that leads out of the archive, or to no file, is left out.

        Args:
            links: the path of a file by the path of each link to it; "" for one that leads out of the archive.
        """
        for path, target in links.items():
            for _ in range(_MOST_LINKS):
                if target in self.members or target not in links:
                    break
                target = links[target]
            if found := self.members.get(target):
                self.members.setdefault(path, found)
            else:
                self.skipped["links to no file in the archive"] += 1


def member_path(name: str) -> str:
    """The path of a member as featx names it; "" for one that would lie outside of the folder that it is unpacked into.

    Examples:
        >>> member_path("./cat//1.jpg"), member_path("/cat/1.jpg"), member_path("cat/../../1.jpg")
        ('cat/1.jpg', 'cat/1.jpg', '')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "" if ".." in parts or "\0" in name else "/".join(parts)


def why_unsafe(name: str) -> str:
    """Why a member is left out for its name; "" for a good one."""
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        return f"with names of more than {LONGEST_NAME:,} bytes"
    return "" if member_path(name) else "with names that lead out of the archive"


def link_target(path: str, target: str) -> str:
    """The path of the member that a symbolic link leads to; "" for one that leads out of the archive.

    Examples:
        >>> link_target("cat/1.jpg", "../blobs/4f2a"), link_target("cat/1.jpg", "/etc/passwd")
        ('blobs/4f2a', '')
    """
    if target.startswith("/"):
        return ""
    return member_path(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))


def is_text(path: str, size: int) -> bool:
    """Whether a member may tell labels, and is read while the archive is listed."""
    name = posixpath.basename(path).lower()
    return size <= LARGEST_TEXT and not name.startswith(".") and (name.endswith(_LABEL_ENDINGS) or name in LISTS)

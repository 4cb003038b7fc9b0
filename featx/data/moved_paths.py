"""The files that paths of a table stand for where they lead nowhere: of another machine, or names without folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from featx.data.formats import ENDINGS
from featx.data.places import is_remote
from featx.text import counted, listed

Below = Callable[[], Collection[str]]
"""Lists the images below the root, by their paths."""

_SAMPLE = 20
"""Paths for which each number of leading folders is tried, since a server is asked for each."""


def moved_paths(
    lost: Mapping[str, str], exists: Callable[[Sequence[str]], np.ndarray], below: Below
) -> tuple[dict[str, str], list[str]]:
    """Find files below the root that the user names, where the paths of a table do not lead to them as they stand.

    Leading folders that all have in common and that are not there (``/kaggle/input/birds/``) are passed over. A name without a
    folder, or with some of its folders, is looked for in all folders below the root, and found if a single file has it, with or
    without its ending; where none has, in any case of its letters.

    Args:
        lost: paths that are not there, by the cells that they come from.
        exists: tells which of some paths lead to images.
        below: lists the images below the root; called only if there are relative paths.

    Returns:
        The paths of those that are found; and notes.

    Examples:
        >>> there = ["a/1.jpg", "b/2.jpg"]
        >>> moved_paths({"1": "1", "2": "2"}, lambda paths: np.isin(paths, there), lambda: there)[0]
        {'1': 'a/1.jpg', '2': 'b/2.jpg'}
    """
    folders = {cell: path for cell, path in lost.items() if "/" in path and not is_remote(path)}
    found, notes = _without_folders(folders, exists)
    if names := {cell: path for cell, path in lost.items() if cell not in found and _is_relative(path)}:
        inner, about = _in_folders(names, below())
        found, notes = found | inner, notes + about
    return found, notes


def _without_folders(
    lost: Mapping[str, str], exists: Callable[[Sequence[str]], np.ndarray]
) -> tuple[dict[str, str], list[str]]:
    parts = {cell: path.split("/") for cell, path in lost.items()}
    best, most = "", 0
    for depth in range(1, max(map(len, parts.values()), default=0)):
        befores = Counter("/".join(each[:depth]) + "/" for each in parts.values() if len(each) > depth)
        before = befores.most_common(1)[0][0]
        tails = [path[len(before) :] for path in lost.values() if path.startswith(before)]
        sample = [tail for tail in tails[:: max(1, len(tails) // _SAMPLE)][:_SAMPLE] if tail.strip("/")]
        count = int(exists(sample).sum()) if sample else 0
        if count > most:
            best, most = before, count
    if not most:
        return {}, []
    cells = [cell for cell, path in lost.items() if path.startswith(best) and path[len(best) :].strip("/")]
    there = exists([lost[cell][len(best) :] for cell in cells])
    found = {cell: lost[cell][len(best) :] for cell, is_there in zip(cells, there, strict=True) if is_there}
    are = "is" if len(found) == 1 else "are"
    return found, [f"{counted(len(found), 'path')} {are} read without {best} before {'it' if are == 'is' else 'them'}"]


def _in_folders(lost: Mapping[str, str], below: Collection[str]) -> tuple[dict[str, str], list[str]]:
    by_name: dict[str, list[str]] = {}
    for path in below:
        name = path.rpartition("/")[2]
        stem = name.rpartition(".")[0]
        for each in (name, stem) if stem and name.lower().endswith(ENDINGS) else (name,):
            by_name.setdefault(each, []).append(path)
    ends = {cell: _ending_in(path, by_name.get(path.rpartition("/")[2], ())) for cell, path in lost.items()}
    if not all(ends.values()):
        folded: dict[str, list[str]] = {}
        for name, paths in by_name.items():
            folded.setdefault(name.casefold(), []).extend(paths)
        for cell, path in lost.items():
            if not ends[cell]:
                alike = dict.fromkeys(folded.get(path.rpartition("/")[2].casefold(), ()))
                ends[cell] = _ending_in(path, alike, fold=True)
    found = {cell: paths[0] for cell, paths in ends.items() if len(paths) == 1}
    notes = []
    if found:
        folders = sorted({path.rpartition("/")[0] for path in found.values()})
        are = "is" if len(found) == 1 else "are"
        notes.append(f"{counted(len(found), 'name')} {are} found in folders below the root: {listed(folders, most=5)}")
    if several := [paths for paths in ends.values() if len(paths) > 1]:
        first = listed(several[0], most=3)
        notes.append(f"{counted(len(several), 'name')} may mean several files below the root, such as {first}")
    return found, notes


def _is_relative(path: str) -> bool:
    return bool(path) and not is_remote(path) and not path.startswith("/") and path[1:3] != ":/"


def _ending_in(path: str, candidates: Collection[str], *, fold: bool = False) -> list[str]:
    """The candidates, all of the same name, whose folders end in those of the path; ``fold``: in any case."""
    folder = f"/{path.rpartition('/')[0]}"
    ends = [(each, f"/{each.rpartition('/')[0]}") for each in candidates]
    return [
        each
        for each, inner in ends
        if folder == "/" or (inner.casefold().endswith(folder.casefold()) if fold else inner.endswith(folder))
    ]

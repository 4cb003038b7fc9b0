"""Decide what a corrected data set holds: duplicates grouped or dropped, leaks moved, accepted labels applied.

N is the number of images of an inspection, P of pairs of duplicates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from featx.constants import DUPLICATE_FIXES, EXPECTED, LEAK_FIXES
from featx.data.file_bytes import image_key
from featx.data.image_set import UNLABELLED
from featx.data.splits import join_groups, straddling
from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.targets import task_of
from featx.inspection.leaks import SPLITS, different_labels
from featx.inspection.result import Inspection
from featx.text import counted, form, listed, printable, to_utf8

(GROUP, DROP), (MOVE, _, KEEP) = DUPLICATE_FIXES, LEAK_FIXES


@dataclass(frozen=True, eq=False)
class Decisions:
    """What somebody decided about images, such as on the page of an inspection.

    Attributes:
        labels: the new label of some rows; "" takes the label away.
        splits: the new split of some rows.
        groups: the group of some rows; "" for none.
        dropped: rows that are left out.
    """

    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)
    splits: Mapping[int, str] = dataclasses.field(default_factory=dict)
    groups: Mapping[int, str] = dataclasses.field(default_factory=dict)
    dropped: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Fix:
    """What the corrected data set holds.

    Attributes:
        rows: (n,) int64, the rows of the inspection that remain, ascending.
        labels: (n,) object array of str, their labels; "" for none.
        splits: (n,) object array of str.
        groups: (n,) object array of str, the same for images that belong together; "" for an image that belongs to none.
        changes: (n,) object array of str, what was changed about each image, in words; "" for nothing.
        relabelled: number of images whose label was changed.
        moved: number of images that were moved to another split.
        dropped: number of images that were dropped, by the reason.
        conflicts: (m,) int64, remaining rows of the inspection with a duplicate of another label.
        notes: for the user, one sentence each.
    """

    rows: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    groups: np.ndarray
    changes: np.ndarray
    relabelled: int
    moved: int
    dropped: Mapping[str, int]
    conflicts: np.ndarray
    notes: tuple[str, ...] = ()


def fix(
    inspection: Inspection,
    *,
    duplicates: str = GROUP,
    leaks: str = MOVE,
    accept: int | str = 0,
    decisions: Decisions | None = None,
) -> Fix:
    """Decide what the corrected data set holds. Nothing is written.

    First come the decisions, then the accepted suggestions, then the leaks, at last the duplicates within a split. Duplicates
    with different labels are never dropped: which label is right must be decided by somebody who looks.

    Args:
        inspection: what was found.
        duplicates: "group" puts duplicates into one group each, which ``fit-head --group`` keeps together; "drop" also drops
            an image where another one remains that is its duplicate, in the same split and with the same label. The larger
            image remains where the sizes are known.
        leaks: "move" moves duplicates in two splits to the earlier of train, val and test, so that the test images that remain
            have no copy in training, and heads fitted before and after can be judged on the same ones. "drop" drops those of
            the earlier split instead, so that the test set remains whole. "keep" leaves them.
        accept: number of suggested labels to apply, the most suspicious first; "expected": as many as training images have
            labels that are wrong by confident learning. Only training images count: a model that corrects the labels by which
            it is judged flatters itself.
        decisions: what somebody decided about single images.

    Raises:
        SettingsError: an unknown way, no suggestions to accept, or no labelled image would be left to judge by.
    """
    _check(inspection, duplicates, leaks, accept)
    draft = _Draft.of(inspection, decisions or Decisions())
    draft.accept(accept)
    if leaks == MOVE:
        draft.move_leaks()
    elif leaks == DROP:
        draft.drop_leaks()
    if duplicates == DROP:
        draft.drop_duplicates()
    return draft.finished(straddling=leaks == KEEP)


def _check(inspection: Inspection, duplicates: str, leaks: str, accept: int | str) -> None:
    for name, value, known in (("duplicates", duplicates, DUPLICATE_FIXES), ("leaks", leaks, LEAK_FIXES)):
        if value not in known:
            raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if accept != EXPECTED and not (isinstance(accept, int) and accept >= 0):
        raise SettingsError(f"accept is {accept!r}; expected a number of suggestions, at least 0, or {EXPECTED!r}")
    if accept and accept != EXPECTED and inspection.labels is None:
        raise SettingsError("no label was judged, so there are no suggestions to accept")


class _Draft:
    """A corrected data set in the making; all arrays have one entry for each of the N images.

    Attributes:
        inspection: what was found.
        given: (N,) object array of str, the labels before.
        labels: (N,) object array of str.
        splits: (N,) object array of str.
        groups: (N,) object array of str, the groups that the user gave.
        kept: (N,) bool.
        dropped: number of dropped images by the reason.
        notes: for the user.
    """

    def __init__(self, inspection: Inspection, labels: np.ndarray, splits: np.ndarray, groups: np.ndarray) -> None:
        self.inspection, self.labels, self.splits, self.groups = inspection, labels, splits, groups
        self.given = inspection.given_labels
        self.kept = np.ones(len(labels), dtype=bool)
        self.dropped: dict[str, int] = {}
        self.notes: list[str] = []
        self.decided: frozenset[int] = frozenset()
        task = inspection.out_of_fold.task if inspection.out_of_fold else None
        self.task = task or task_of(inspection.features, ask=False)[0]

    @classmethod
    def of(cls, inspection: Inspection, decisions: Decisions) -> _Draft:
        """Begin with the data set as it is, and what somebody decided."""
        features = inspection.features
        groups = np.full(len(features), "", dtype=object) if features.groups is None else features.groups.astype(object)
        draft = cls(inspection, inspection.given_labels.copy(), features.splits.astype(object), groups.copy())
        for values, decided in (
            (draft.labels, decisions.labels),
            (draft.splits, decisions.splits),
            (draft.groups, decisions.groups),
        ):
            for row, value in decided.items():
                values[row] = value
        draft.decided = frozenset(row for row, label in decisions.labels.items() if label != draft.given[row])
        draft._drop(np.array(sorted(decisions.dropped), dtype=np.int64), "left out by a decision")
        return draft

    # The steps

    def accept(self, count: int | str) -> None:
        """Apply the first suggestions for training images that nobody decided about."""
        issues = self.inspection.labels
        if count and issues is None:
            self.notes.append("no label was judged, so none is accepted")
        if not count or issues is None:
            return
        is_open = self.kept & (self.splits == "train")
        is_open[list(self.decided)] = False
        number = int(np.count_nonzero(issues.is_issue & is_open)) if isinstance(count, str) else count
        rows = issues.ranked[is_open[issues.ranked]][:number]
        self.labels[rows] = issues.suggested[rows]
        if len(rows) < number:
            self.notes.append(
                f"training images have {counted(len(rows), 'suggestion')}, fewer than the {number:,} to accept"
            )

    def move_leaks(self) -> None:
        """Move the labelled images of each group that is in two of train, val, test to the earliest of these."""
        order = np.array([SPLITS.index(name) if name in SPLITS else len(SPLITS) for name in self.splits.tolist()])
        part = np.flatnonzero(self.kept & (self.labels != "") & (order < len(SPLITS)))
        groups = self._numbered(part)
        earliest = np.full(groups.max(initial=-1) + 1, len(SPLITS))
        np.minimum.at(earliest, groups, order[part])
        before = self.splits.copy()
        self.splits[part] = np.array(SPLITS, dtype=object)[earliest[groups]] if len(part) else self.splits[part]
        self._check_moves(before)

    def _check_moves(self, before: np.ndarray) -> None:
        """Refuse moves that leave nothing to judge by, and warn of those that leave less than half."""
        held_out = self.inspection.leaks.held_out
        for split in ("val", "test"):
            held = self.kept & (self.labels != "") & (before == split)
            left, count = int((held & (self.splits == split)).sum()), int(held.sum())
            if 2 * left >= count:
                continue
            images = f"{count - left:,} of {counted(count, 'labelled image')} of split {split}"
            found = f"{images} {form(count - left, 'has a duplicate', 'have duplicates')} in an earlier split"
            hint = '--leaks drop keeps them and drops their duplicates in the earlier splits (in Python: leaks="drop")'
            if not left and split == held_out:
                raise SettingsError(f"{found}; moving {form(count, 'it', 'them')} would leave none to judge by. {hint}")
            self.notes.append(
                f"Warning: {found} and {form(count - left, 'was', 'were')} moved, which leaves {left:,}. {hint}"
            )

    def drop_leaks(self) -> None:
        """Drop the images of train and val with a duplicate in test, then those of train with one in val."""
        for judge in ("test", "val"):
            pairs, _ = self._pairs()
            pairs = pairs[(self.labels[pairs] != "").all(axis=1)]
            splits = self.splits[pairs]
            earlier = np.isin(splits.astype(str), SPLITS[: SPLITS.index(judge)])
            across = (splits == judge).any(axis=1) & earlier.any(axis=1)
            self._drop(np.unique(pairs[across][earlier[across]]), f"a duplicate in {judge}")

    def drop_duplicates(self) -> None:
        """Drop each image that is a duplicate of one that remains, in the same split and with a label that does not differ."""
        pairs, exact = self._pairs(within=True)
        pairs = pairs[~self._differ(pairs, exact)]
        if not len(pairs):
            return
        pixels = self.inspection.pixels
        area = np.zeros(len(self.kept), np.int64) if pixels is None else pixels.sizes.prod(axis=1)
        rows = np.unique(pairs)
        order = rows[np.lexsort((rows, -area[rows], self.labels[rows] == ""))]
        ends = np.concatenate([pairs, pairs[:, ::-1]])
        ends = ends[np.argsort(ends[:, 0], kind="stable")]
        remains, goes = set[int](), list[int]()
        for row in order.tolist():
            first, last = np.searchsorted(ends[:, 0], [row, row + 1])
            (goes.append if remains.intersection(ends[first:last, 1].tolist()) else remains.add)(row)
        self._drop(np.array(goes, dtype=np.int64), "a duplicate of an image that remains")

    def finished(self, *, straddling: bool) -> Fix:
        """The corrected data set; ``straddling``: duplicates may be in two splits, and then belong to no common group."""
        pairs, exact = self._pairs(within=straddling)
        conflicts = np.unique(pairs[self._differ(pairs, exact)])
        rows = np.flatnonzero(self.kept)
        before = self.inspection.features
        relabelled = rows[self.labels[rows] != self.given[rows]]
        moved = rows[self.splits[rows] != before.splits[rows]]
        return Fix(
            rows=rows,
            labels=self.labels[rows],
            splits=self.splits[rows],
            groups=self._names(rows, within=straddling),
            changes=np.array([self._change(row) for row in rows.tolist()], dtype=object),
            relabelled=len(relabelled),
            moved=len(moved),
            dropped=self.dropped,
            conflicts=conflicts,
            notes=(*self.notes, *self._notes(rows)),
        )

    # Their parts

    def _drop(self, rows: np.ndarray, why: str) -> None:
        if len(rows):
            self.kept[rows] = False
            self.dropped[why] = self.dropped.get(why, 0) + len(rows)

    def _pairs(self, *, within: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of images that remain, (P, 2) int64, and whether each are exact copies; within: of one split."""
        found = self.inspection.duplicates
        chosen = self.kept[found.pairs].all(axis=1)
        if within:
            chosen &= self.splits[found.pairs[:, 0]] == self.splits[found.pairs[:, 1]]
        return found.pairs[chosen], found.exact[chosen]

    def _differ(self, pairs: np.ndarray, exact: np.ndarray) -> np.ndarray:
        return different_labels(self._relabelled(), pairs, exact, self.task)

    def _relabelled(self) -> FeatureSet:
        """The images with their new labels, without features."""
        classes, labels = np.unique(self.labels.astype(str), return_inverse=True)
        facts = self.inspection.features.without_features(np.arange(len(self.kept)))
        numbers = np.where(self.labels == "", UNLABELLED, labels)
        return dataclasses.replace(facts, classes=tuple(classes.tolist()), labels=numbers)

    def _numbered(self, rows: np.ndarray, *, within: bool = False) -> np.ndarray:
        """Number the groups of some rows: images that chains of duplicates or the user's groups connect; (n,) int64 from 0."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        features = self.inspection.features
        keys = np.zeros_like(features.keys[rows]) if within else features.keys[rows]
        numbers = join_groups(keys, self.groups[rows].astype(str))
        place = np.full(len(self.kept), -1)
        place[rows] = numbers
        pairs, _ = self._pairs(within=within)
        ends = place[pairs]
        ends = ends[(ends >= 0).all(axis=1)]
        count = int(numbers.max(initial=-1)) + 1
        graph = coo_array((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
        joined: np.ndarray = connected_components(graph, directed=False)[1][numbers].astype(np.int64)
        return joined

    def _names(self, rows: np.ndarray, *, within: bool) -> np.ndarray:
        """Name the group of each remaining row: by the user's group, else by the content of its images; "" for one alone."""
        numbers = self._numbered(rows, within=within)
        given, keys, paths = (
            self.groups[rows],
            self.inspection.features.keys[rows],
            self.inspection.features.paths[rows],
        )
        order = np.argsort(numbers, kind="stable")
        names = np.full(len(rows), "", dtype=object)
        for members in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            named = sorted({name for name in given[members].tolist() if name})
            if named:
                names[members] = named[0]
            elif len(members) > 1:
                known = min(map(bytes, keys[members]))
                names[members] = f"dup-{(known if any(known) else image_key(to_utf8(min(paths[members])))).hex()}"
        return names

    def _change(self, row: int) -> str:
        before = (self.given[row], self.inspection.features.splits[row])
        now = (self.labels[row], self.splits[row])
        return "; ".join(
            f"{what}: {old or 'none'} -> {new or 'none'}"
            for what, old, new in zip(("label", "split"), before, now, strict=True)
            if old != new
        )

    def _notes(self, rows: np.ndarray) -> Iterator[str]:
        """Warn where classes lost all their training images, or groups of the user are in several splits."""
        before, labelled = self.inspection.features, rows[self.labels[rows] != ""]
        had = set(self.given[(before.splits == "train") & (self.given != "")].tolist())
        have = set(self.labels[labelled[self.splits[labelled] == "train"]].tolist())
        judged = set(self.labels[labelled[np.isin(self.splits[labelled].astype(str), ("val", "test"))]].tolist())
        lost = sorted(printable(name) for name in (had - have) & judged) if self.task == "classification" else []
        if lost:
            yield f"Warning: {counted(len(lost), 'class', 'classes')} of val or test lost all training images: {listed(lost)}"
        part = rows[
            (self.labels[rows] != "") & np.isin(self.splits[rows].astype(str), SPLITS) & (self.groups[rows] != "")
        ]
        torn = straddling(self.splits[part], np.unique(self.groups[part].astype(str), return_inverse=True)[1])
        if len(torn):
            yield (
                f"{counted(len(torn), 'group has', 'groups have')} images in more than one split, which featx fit-head "
                "--group refuses"
            )

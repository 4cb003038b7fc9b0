"""``suggest``: choose the images whose labels teach a head most."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import is_whole, names_of, path_of, require_seed
from featx.constants import CACHE
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.scan import scan_images
from featx.errors import CacheMissError, HeadError, SettingsError, system_errors
from featx.features.feature_set import FeatureSet
from featx.features.label_changes import label_changes
from featx.features.remote_folder import newest_file, newest_file_of
from featx.heads.groups import with_groups, with_splits
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.inspection.coverage import choose_covering
from featx.inspection.neighbours import unit_rows
from featx.inspection.suggestion_table import require_writable, write_suggestions
from featx.inspection.unsure import Prediction, predict_unlabelled, reasons
from featx.io.file_kinds import is_feature_file
from featx.layer_spec import PENULTIMATE
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.text import counted, form

HELD_OUT = ("test", "val")
"""The splits that judge heads. Images are drawn from them at random, never chosen."""

_BLOCK = 4096  # rows that are compared with the suggestions at a time


@dataclass(frozen=True, eq=False)
class Suggestions:
    """The images to label next, the most useful first.

    Attributes:
        features: all N images, in the splits that heads are fitted and judged by.
        rows: (n,) int64, rows of the suggested images in order.
        predicted: (n,) object array of str, the label that a head predicts, as a data set would have it; "" without a head.
        probability: (n,) float64, its probability; of several labels that of the least sure one; NaN without a head and for
            numbers.
        stands_for: (n,) int64, the number of unlabelled images that are more like this one than like any other suggestion; 0
            for an image of a held-out split.
        why: (n,) object array of str, the reason in words.
        head: the head that predicted, or None.
        unlabelled: the number of unlabelled images that could be chosen.
        labelled: the number of labelled training images.
        file: the feature file, or None.
        table: the table that was written, or None.
        command: the command that takes the labels of the table over; "" where none was written.
        notes: for the user, one sentence each.
        seconds: the duration.
    """

    features: FeatureSet
    rows: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    stands_for: np.ndarray
    why: np.ndarray
    head: Head | None
    unlabelled: int
    labelled: int
    file: Path | None = None
    table: Path | None = None
    command: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> np.ndarray:
        """(n,) object array of str, relative to the data set's root."""
        paths: np.ndarray = self.features.paths[self.rows]
        return paths

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx suggest --json`` prints."""
        probabilities = [None if np.isnan(p) else round(p, 6) for p in self.probability.tolist()]
        columns = (self.rows, self.paths, self.features.splits[self.rows], self.predicted, self.stands_for, self.why)
        suggestions = [
            {
                "rank": number, "row": row, "path": path, "split": split, "predicted": predicted or None,
                "probability": probability, "stands_for": stands_for, "why": why,
            }
            for number, (row, path, split, predicted, stands_for, why, probability) in enumerate(
                zip(*(column.tolist() for column in columns), probabilities, strict=True), start=1
            )
        ]  # fmt: skip
        return {
            "suggestions": suggestions,
            "unlabelled": self.unlabelled,
            "labelled": self.labelled,
            "model": self.head.kind if self.head else None,
            "task": self.head.task_ if self.head else None,
            "features": str(self.file) if self.file else None,
            "table": str(self.table) if self.table else None,
            "command": self.command or None,
            "seconds": round(self.seconds, 4),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("suggest", "images")
def suggest(
    features: FeatureSet | ImageSet | str | os.PathLike[str] | None = None,
    *,
    budget: int = 100,
    test: int = 0,
    head: Head | str | os.PathLike[str] | None = None,
    layer: str | Sequence[str] = PENULTIMATE,
    task: str = "auto",
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] = CACHE,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Suggestions:
    """Suggest which unlabelled images to label next.

    The batch is the one that, with the labelled images, best represents the unlabelled ones (``choose_covering``). Without
    labels, these are the centres of the set. With labels, a head is fitted in seconds, and an image counts the more, the less
    sure the head is of it: the difference between the two highest probabilities for classes, the expected number of wrong
    labels where an image has several. A regression has no such measure; there all images count alike, so that those far from
    the labelled ones come first.

    Images of val and test are not chosen, since those judge a head: a set of chosen images does not represent the others.
    ``test`` draws some at random.

    Args:
        features: a feature set or a feature file, by default the newest in ``cache``; or a data set, whose newest feature file
            in ``cache`` is taken.
        budget: number of images to choose.
        test: number of images to draw at random from the unlabelled ones of test, or of val where there is no test split.
        head: a fitted head, or its file, that predicts the unlabelled images; by default one is fitted to the labelled ones.
        layer: layer of the feature file; several are concatenated. By default that of ``head``, if one is given.
        task: as ``Head`` takes it.
        group: a column of the data set's table, such as patients. A second image of a group is chosen only when all groups
            have one.
        table: the table with that column, where it is not the one that the features were extracted from.
        out: a table to write (``.csv`` or ``.parquet``), with all images of the data set, the suggested ones first. Fill in its
            column ``label``, and ``featx extract`` takes the labels over without a forward pass.
        seed: seed of the draws.
        cache: folder of feature files.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the stages.

    Raises:
        SettingsError: the budget is not positive, or ``test`` or the seed is negative.
        HeadError: there is no unlabelled image, or a group, a task or a head does not fit the features.
        StaleCacheError: the head was fitted to other features.
        CacheMissError, CorruptFileError: the feature file is missing or damaged.
        OutputError: the table cannot be written, or would replace labels that the features lack.

    Example:

        suggestions = featx.suggest("cache/photos--resnet50.h5", budget=50, out="to-label.csv")
        print(suggestions.paths[:10], suggestions.command)
    """
    started = time.perf_counter()
    _check(budget, test, seed)
    if out is not None:
        require_writable(Path(path_of(out, "out")))
    given = Head.load(head) if isinstance(head, str | os.PathLike) else head
    loaded, file = _load(features, _layer(layer, given), cache, reporter)
    if given is not None:
        given.require_identity(loaded)
    loaded = with_groups(loaded, group, table)
    task, task_notes = task_of(loaded, given.task_ if given else task)
    loaded = with_splits(loaded, task)
    pool, unit, notes = _pool(loaded, test)
    train = np.flatnonzero((loaded.labels != UNLABELLED) & (loaded.splits == "train"))
    reporter.stage("predicting the unlabelled images")
    predicted = predict_unlabelled(loaded, pool, train, given, task=task, seed=seed)
    reporter.stage(f"choosing from {counted(len(pool), 'unlabelled image')}")
    chosen, stands_for = _choose(loaded, pool, unit, train, predicted, min(budget, len(pool)), seed)
    if len(chosen) < budget:
        notes.append(
            f"only {counted(len(pool), 'image')} without a label can be chosen, and {form(len(pool), 'is', 'all are')} "
            "suggested"
        )
    drawn, drawn_notes = _draw(loaded, test, seed)
    suggestions = Suggestions(
        features=loaded,
        rows=np.concatenate([pool[chosen], drawn]),
        predicted=_with(predicted.labels[chosen], drawn, ""),
        probability=_with(predicted.probability[chosen], drawn, np.nan),
        stands_for=_with(stands_for, drawn, 0),
        why=_with(reasons(predicted, chosen, stands_for), drawn, "drawn at random, to judge heads"),
        head=predicted.head,
        unlabelled=len(pool),
        labelled=len(train),
        file=file,
        notes=tuple(dict.fromkeys([*label_changes(file), *task_notes, *predicted.notes, *notes, *drawn_notes])),
        seconds=time.perf_counter() - started,
    )
    return suggestions if out is None else _written(suggestions, Path(out), [head, table])


def _check(budget: int, test: int, seed: int) -> None:
    for name, value, least in (("budget", budget, 1), ("test", test, 0)):
        if not is_whole(value) or value < least:
            raise SettingsError(f"{name} is {value!r}; expected a number of images, at least {least}")
    require_seed(seed)


def _layer(layer: str | Sequence[str], head: Head | None) -> str:
    """The layer to read: that of a head, if there is one and no other is named."""
    named = ",".join(dict.fromkeys(names_of(layer, "layer")))
    return head.layer_ if head is not None and hasattr(head, "layer_") and named == PENULTIMATE else named


def _load(
    data: FeatureSet | ImageSet | str | os.PathLike[str] | None,
    layer: str,
    cache: str | os.PathLike[str],
    reporter: Reporter,
) -> tuple[FeatureSet, Path | None]:
    """The features, and their file."""
    if isinstance(data, FeatureSet):
        return data, data.source
    if data is None:
        file: Path | None = newest_file(cache, reporter)
    elif not isinstance(data, ImageSet) and is_feature_file(path_of(data, "features")):
        file = Path(data)
    else:
        images = data if isinstance(data, ImageSet) else scan_images(data)
        file = newest_file_of(cache, images, reporter)
        data = images.table or images.root
        words = shlex.join(["featx", "extract", str(data), *images.options.as_words()])
    if file is None:
        raise CacheMissError(
            f"the folder {cache} has no features of {data}; {words} computes them (--cache names another folder)"
        )
    reporter.stage(f"reading {file}")
    return FeatureSet.load(file, layer), file


def _pool(features: FeatureSet, test: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The images that may be chosen: (M,) int64 rows, their (M, D) float32 features of length 1, and notes.

    Raises:
        HeadError: there are none.
    """
    unlabelled = np.flatnonzero(features.labels == UNLABELLED)
    if not len(unlabelled):
        raise HeadError(
            f"{form(len(features), 'the only image has', f'all {len(features):,} images have')} a label, so there is none to "
            "suggest; unlabelled images have an empty cell in the column label of a table, or lie in a flat folder"
        )
    rows = unlabelled[~np.isin(features.splits[unlabelled].astype(str), HELD_OUT)]
    if not len(rows) and not test:
        raise HeadError(
            f"the {counted(len(unlabelled), 'image')} without a label {form(len(unlabelled), 'is', 'are')} in val or test, "
            "which judge heads, so none is chosen; --test N draws N of them at random (in Python: test=N)"
        )
    unit = unit_rows(features.plain, rows)
    finite = np.isfinite(unit).all(axis=1)
    notes = []
    if not finite.all():
        notes.append(
            f"the features of {counted(int(np.count_nonzero(~finite)), 'image')} without a label are NaN or infinite, so these "
            "are not suggested"
        )
    return rows[finite], unit[finite], notes


def _choose(
    features: FeatureSet,
    pool: np.ndarray,
    unit: np.ndarray,
    train: np.ndarray,
    predicted: Prediction,
    budget: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose from the pool: (n,) int64 places in it, and (n,) int64, how many images of it each stands for."""
    labelled = unit_rows(features.plain, train)
    labelled = labelled[np.isfinite(labelled).all(axis=1)]
    groups = None
    if features.groups is not None:
        names, groups = np.unique(features.groups[pool].astype(str), return_inverse=True)
        groups = np.where(names[groups] == "", -1, groups)
    chosen = choose_covering(unit, predicted.weight, labelled, budget, groups=groups, seed=seed)
    stands_for = np.zeros(len(chosen), dtype=np.int64)
    for at in range(0, len(unit), _BLOCK) if len(chosen) else ():
        nearest = (unit[at : at + _BLOCK] @ unit[chosen].T).argmax(axis=1)
        stands_for += np.bincount(nearest, minlength=len(chosen))
    return chosen, stands_for


def _draw(features: FeatureSet, number: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Draw unlabelled images of the held-out split at random: (n,) int64 rows, and notes."""
    splits = features.splits.astype(str)
    split = next((name for name in HELD_OUT if (splits == name).any()), "")
    open_ = np.flatnonzero((splits == split) & (features.labels == UNLABELLED)) if split else np.empty(0, np.int64)
    rows = np.random.default_rng(seed).permutation(open_)[:number]
    if len(rows) < number:
        found = (
            f"split {split} has {counted(len(open_), 'image')} without a label" if split else "there is no test split"
        )
        return rows, [f"{found}, fewer than the {number:,} to draw"]
    judged = np.isin(splits, HELD_OUT) & (features.labels != UNLABELLED)
    if number or judged.any() or not len(open_):
        return rows, []
    return rows, [
        f"no image of val or test has a label, so no head can be judged; --test {min(50, len(open_))} also draws "
        f"{counted(min(50, len(open_)), 'image')} of {split} at random (in Python: test={min(50, len(open_))})"
    ]


def _with(chosen: np.ndarray, drawn: np.ndarray, value: object) -> np.ndarray:
    """Values of the chosen images, followed by one value for each drawn image."""
    return np.concatenate([chosen, np.full(len(drawn), value, dtype=chosen.dtype)])


def _written(suggestions: Suggestions, path: Path, read: Sequence[object]) -> Suggestions:
    """Write the table of suggestions, and say so in the result."""
    columns = {
        "predicted": suggestions.predicted,
        "probability": suggestions.probability,
        "why": suggestions.why,
    }
    command, notes = write_suggestions(suggestions.features, suggestions.rows, columns, path, read)
    return dataclasses.replace(suggestions, table=path, command=command, notes=(*suggestions.notes, *notes))

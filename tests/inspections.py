"""Parts of inspections, made by hand for the tests of other parts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.duplicates import Duplicates
from featx.inspection.label_issues import LabelIssues
from featx.inspection.leaks import Leaks, find_leaks
from featx.inspection.neighbours import Neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import Outliers
from featx.inspection.pixels import PixelIssues
from featx.inspection.result import Inspection


def duplicates_of(
    features: FeatureSet, pairs: Sequence[tuple[int, int]], *, distances: Sequence[float] | None = None
) -> Duplicates:
    """Duplicates with these pairs, the closest first, which are all of each group; exact where their keys are equal."""
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    group_of = np.full(len(features), -1, dtype=np.int64)
    for one, other in array:
        number = max(group_of[one], group_of[other])
        group_of[[one, other]] = number if number >= 0 else group_of.max() + 1
    groups = tuple(np.flatnonzero(group_of == number) for number in range(group_of.max(initial=-1) + 1))
    exact = (features.keys[array[:, 0]] == features.keys[array[:, 1]]).all(axis=1)
    distances = np.where(exact, 0.0, np.linspace(0.01, 0.02, len(array))) if distances is None else distances
    return Duplicates(
        threshold=0.05,
        pairs=array,
        distances=np.array(distances, dtype=np.float32),
        exact=exact,
        groups=groups,
        group_of=group_of,
        scores=np.where(group_of >= 0, 0.1, 0.9),
    )


def unlabelled(Z: np.ndarray, *, contents: Sequence[int] | None = None) -> FeatureSet:
    """Images without labels.

    Args:
        Z: (N, D) or (N, V, D) features.
        contents: the number of each image's content, 0 for an unknown one; by default, all are unknown.
    """
    keys = np.zeros((len(Z), 16), dtype=np.uint8)
    if contents is not None:
        keys[:, :8] = np.array(contents, dtype="<u8")[:, None].view(np.uint8)
    return FeatureSet(
        features=Z,
        labels=np.full(len(Z), -1),
        splits=["train"] * len(Z),
        classes=(),
        paths=[f"{row}.png" for row in range(len(Z))],
        keys=keys,
    )


def inspection_of(
    features: FeatureSet,
    pairs: Sequence[tuple[int, int]] = (),
    *,
    suggested: Mapping[int, str] | None = None,
    sizes: np.ndarray | None = None,
    task: str | None = None,
) -> Inspection:
    """An inspection that found these duplicates.

    Args:
        features: the images.
        pairs: of duplicates.
        suggested: the suggested label of some rows, the most suspicious first; None: no label was judged.
        sizes: (N, 2) int64, of the images in pixels; None: they were not read.
        task: of the labels; None: as the labels show.
    """
    count = len(features)
    duplicates = duplicates_of(features, pairs)
    nothing, never = np.zeros(count), np.zeros(count, dtype=bool)
    names = np.array([*features.classes, ""], dtype=object)
    given = names[np.where(features.labels < 0, len(features.classes), features.labels)]
    labels = None
    if suggested is not None:
        others = given.copy()
        others[list(suggested)] = list(suggested.values())
        labels = LabelIssues(
            scores=nothing, is_issue=given != others, given=given, suggested=others, confidence=nothing,
            expected=len(suggested), ranked=np.array([*suggested], dtype=np.int64),
        )  # fmt: skip
    pixels = None if sizes is None else PixelIssues({}, {}, sizes, {}, 0, {})
    return Inspection(
        features=features,
        neighbours=Neighbours(np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32)),
        duplicates=duplicates,
        leaks=find_leaks(features, duplicates, task=task or "auto"),
        outliers=Outliers(nothing, 1.0, never, nothing, np.zeros(0, np.int64)),
        out_of_fold=None if task is None else _nothing_predicted(features, task),
        labels=labels,
        pixels=pixels,
    )


def _nothing_predicted(features: FeatureSet, task: str) -> OutOfFold:
    nothing = np.zeros(0, dtype=np.int64)
    y = np.zeros((0, 1)) if task == "regression" else nothing
    return OutOfFold(nothing, y, np.zeros((0, 0)), features.classes, task, Head("ridge", task=task))


def large(count: int) -> Inspection:
    """Many images, one in ten of which has a wrong label, is an outlier, and is one of a pair of duplicates."""
    rng = np.random.default_rng(0)
    places = np.arange(count)
    labels = places % 20
    wrong = places[::10]
    suggested = np.array([f"class {label}" for label in labels], dtype=object)
    suggested[wrong] = [f"class {(label + 1) % 20}" for label in labels[wrong]]
    groups = tuple(wrong.reshape(-1, 2))
    group_of = np.full(count, -1)
    group_of[wrong] = np.repeat(np.arange(len(groups)), 2)
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (90, 120, 150)).save(file, "JPEG")
    features = FeatureSet(
        features=rng.normal(size=(count, 2)).astype(np.float32),
        labels=labels,
        splits=np.where(places % 5, "train", "test").astype(object),
        classes=tuple(f"class {label}" for label in range(20)),
        paths=[f"class {label}/{place:06}.jpg" for place, label in enumerate(labels)],
        keys=np.zeros((count, 16), dtype=np.uint8),
    )
    return Inspection(
        features=features,
        neighbours=Neighbours(
            rng.integers(0, count, (count, 10)), np.sort(rng.random((count, 10), np.float32), axis=1)
        ),
        duplicates=Duplicates(
            threshold=0.05,
            pairs=np.array(groups),
            distances=np.full(len(groups), 0.01, dtype=np.float32),
            exact=np.zeros(len(groups), dtype=bool),
            groups=groups,
            group_of=group_of,
            scores=np.ones(count),
        ),
        leaks=Leaks(np.arange(len(groups)), np.arange(len(groups)), "test", wrong),
        outliers=Outliers(rng.random(count), 0.9, np.isin(places, wrong), np.ones(count), wrong),
        out_of_fold=None,
        labels=LabelIssues(
            scores=rng.random(count),
            is_issue=np.isin(places, wrong),
            given=np.array([f"class {label}" for label in labels], dtype=object),
            suggested=suggested,
            confidence=rng.random(count),
            expected=len(wrong),
            ranked=wrong,
        ),
        pixels=PixelIssues({}, {}, np.full((count, 2), 96), dict.fromkeys(range(count), file.getvalue()), 0, {}),
    )

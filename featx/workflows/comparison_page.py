"""The comparison of two heads as sections of a page. It imports matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.report.html import MOST_MISTAKES, Section, Table
from featx.report.mistakes import gallery
from featx.text import as_sentence, counted
from featx.workflows.head_comparison import HeadComparison


def comparison_sections(
    comparison: HeadComparison, features: FeatureSet, images: Sequence[str | os.PathLike[str]] = ()
) -> tuple[Section, ...]:
    """The comparison as sections of a page, with the images that each head gets right alone.

    Args:
        comparison: of two heads.
        features: N images, as they were compared.
        images: folders besides that of the data set whose images may be shown.
    """
    header, *lines = comparison.lines
    text = "\n\n".join([comparison.sentence, *map(as_sentence, comparison.remarks)])
    title = f"Compared with {comparison.earlier}"
    first = Section(title, text, tables=(Table(header, lines),))
    return (first, *_galleries(comparison, features, images))


def _galleries(
    comparison: HeadComparison, features: FeatureSet, images: Sequence[str | os.PathLike[str]]
) -> list[Section]:
    sections = list[Section]()
    if comparison.task == "regression":  # a number is never just right
        return sections
    place = {path: at for at, path in enumerate(features.paths[comparison.rows].tolist())}
    for winner, loser, alone in ((1, 0, comparison.paired.second_only), (0, 1, comparison.paired.first_only)):
        at = np.array([place[path] for path in alone], dtype=np.int64)
        if not len(at):
            continue
        names = ("earlier", "new")
        confidence = comparison.confidence[loser][at]
        at = at[np.argsort(-confidence, kind="stable")][:MOST_MISTAKES]
        text = (
            f"The {names[winner]} head alone is {comparison.good} on {counted(len(alone), 'image')}; shown is what the "
            f"{names[loser]} head predicts for them."
        )
        mistakes = gallery(
            features, comparison.rows[at], comparison.answers[loser][at], comparison.confidence[loser][at], images
        )
        sections.append(Section(f"Only the {names[winner]} head is {comparison.good}", text, mistakes=mistakes))
    return sections

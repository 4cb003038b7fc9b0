"""Contact sheets: searches and explanations as one offline page of thumbnails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from featx.data.decode import thumbnail
from featx.data.file_bytes import FileBytes, read_file
from featx.data.known_image import read_known_image
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.features.file_marks import is_own
from featx.features.file_set import open_features
from featx.features.image_store import stored_transform
from featx.report.html import Page, SheetImage, SheetRow, write_sheet
from featx.retrieval.explanation import Explanation, TrainingImage
from featx.retrieval.similar import SearchResult
from featx.text import counted

MOST_THUMBNAILS = 2_000
"""Images of a sheet that have thumbnails; a page with more is slow to open."""
SIDE = 192
"""Pixels of the longer side of a thumbnail."""


def write_search_sheet(
    path: str | os.PathLike[str],
    results: Sequence[SearchResult],
    file: str | os.PathLike[str],
    *,
    images: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write the contact sheet of a search, and return its path.

    Args:
        path: of the HTML file.
        results: of ``search``.
        file: the feature file that was searched.
        images: folders besides that of the data set in which its images may lie.

    Raises:
        OutputError: the file cannot be written.
    """
    thumbnails = _Thumbnails(file, images)
    rows = []
    for result in results:
        if result.error:
            rows.append(SheetRow(result.query, None, result.error))
            continue
        hits = [
            thumbnails.stored(
                hit.path, f"{hit.similarity:.4f} {hit.label} {f'({hit.split})' if hit.split else ''}".strip()
            )
            for hit in result.hits
        ]
        image = None if result.is_text else thumbnails.given(result.query)
        rows.append(SheetRow(result.query, image, groups=[("Most similar", hits)]))
    return write_sheet(path, _page("Similar images", "searched", rows, file), rows)


def write_explanation_sheet(
    path: str | os.PathLike[str],
    explanations: Sequence[Explanation],
    file: str | os.PathLike[str],
    *,
    images: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write the contact sheet of explanations, and return its path.

    Args:
        path: of the HTML file.
        explanations: of ``explain``.
        file: the feature file that has the training images.
        images: folders besides that of the data set in which its images may lie.

    Raises:
        OutputError: the file cannot be written.
    """
    thumbnails = _Thumbnails(file, images)

    def listed(found: Sequence[TrainingImage]) -> list[SheetImage]:
        return [thumbnails.stored(image.path, f"{image.label}, {image.value:+.4g}") for image in found]

    rows = []
    for each in explanations:
        prediction = each.prediction
        if prediction.error:
            rows.append(SheetRow(prediction.path, None, prediction.error))
            continue
        groups = [("Nearest training images, by cosine", listed(each.neighbours))]
        for part in each.influences:
            groups += [
                (f"For {part.label}: training images with the largest influence", listed(part.supporting)),
                (f"Against {part.label}", listed(part.opposing)),
            ]
        predicted = "; ".join(
            " ".join(filter(None, (label, why, "" if p is None else f"{p:.4f}"))) for label, p, why in prediction.rows()
        )
        rows.append(SheetRow(prediction.path, thumbnails.given(prediction.path, predicted), groups=groups))
    return write_sheet(path, _page("Explained predictions", "explained", rows, file), rows)


def _page(title: str, done: str, rows: Sequence[SheetRow], file: str | os.PathLike[str]) -> Page:
    images = counted(len(rows), "image" if all(row.image or row.error for row in rows) else "query", "queries")
    return Page(title, f"{images} {done} by the features of {os.fspath(file)}.", {}, "", kind="Contact sheet")


class _Thumbnails:
    """Makes thumbnails of images that the user named, and of images of a feature file.

    Args:
        file: the feature file.
        also: folders besides that of the data set in which its images may lie.
    """

    def __init__(self, file: str | os.PathLike[str], also: Sequence[str | os.PathLike[str]]) -> None:
        self._file, self._also, self._left = open_features(file), also, MOST_THUMBNAILS

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._file.paths)}

    @cached_property
    def _own(self) -> bool:
        return is_own(self._file.path)

    @cached_property
    def _transform(self) -> Transform:
        return stored_transform(self._file.backbone)

    def given(self, path: str, text: str = "") -> SheetImage:
        """An image that the user named, by its path, or by the path that the feature file stores."""
        if path in self._row_of and not os.path.lexists(path):
            return self.stored(path, text)
        try:
            return self._made(path, read_file(Path(path)), text)
        except ImageError as error:
            return SheetImage(path, None, text, f"the image {error}")

    def stored(self, path: str, text: str) -> SheetImage:
        """An image of the data set, if it is still the one that was extracted."""
        try:
            key = self._file.keys[self._row_of[path]].tobytes()
            file = read_known_image(self._file.root, path, key, also=self._also, own=self._own)
            return self._made(path, file, text)
        except ImageError as error:
            return SheetImage(path, None, text, str(error))

    def _made(self, path: str, file: FileBytes, text: str) -> SheetImage:
        if not self._left:
            return SheetImage(path, None, text, f"only the first {MOST_THUMBNAILS:,} images have thumbnails")
        self._left -= 1
        try:
            return SheetImage(path, thumbnail(file.data, SIDE, self._transform, box=file.box), text)
        except (ImageError, OSError, ValueError) as error:
            return SheetImage(path, None, text, f"the image cannot be decoded: {error}")

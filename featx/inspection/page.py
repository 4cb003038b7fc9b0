"""The page of an inspection: its findings as data for the page's script, the thumbnails, and the file.

N is the number of images, K the number of their neighbours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from featx.data.file_bytes import image_key
from featx.data.image_set import UNLABELLED
from featx.errors import OutputError
from featx.features.feature_set import FeatureSet
from featx.inspection.data_table import extract_options, fit_options, root_option
from featx.inspection.duplicates import Duplicates
from featx.inspection.neighbours import Neighbours
from featx.inspection.result import Inspection, describe_labels, task_of_labels
from featx.io import atomic
from featx.io.outputs import PAGE, PAGE_MARK, require_replaceable, write_output
from featx.metrics.reports import Report
from featx.report.html import Number, Page, Section, render_inspection
from featx.report.sections import headline_of
from featx.text import counted, to_utf8

INLINE_LIMIT = 16 << 20
"""The most bytes of thumbnails that are stored in the page itself; more go to a folder beside it."""

NEIGHBOURS_SHOWN = 10
"""Neighbours of each image that the page shows."""

_MOST_PAIRS = 20_000  # pairs of a gallery: the closest of them
_TOP = 3  # predicted classes of each image
_FEW_NEIGHBOURS = 5  # of each image of a set of more than _MANY
_MANY = 50_000
_MARK_FILE = "made-by-featx.txt"


def write_inspection_page(
    path: str | os.PathLike[str],
    inspection: Inspection,
    *,
    coordinates: np.ndarray | None = None,
    map_name: str = "PCA",
    sections: Sequence[Section] = (),
    numbers: Sequence[Number] = (),
    headline: str = "",
    facts: Mapping[str, str] | None = None,
    title: str = "",
    head_report: str = "",
    inline_limit: int = INLINE_LIMIT,
) -> Path:
    """Write the page of an inspection, completely or not at all, and return its path.

    The page is one file that opens from disk and requests nothing from the network. Thumbnails of more than ``inline_limit``
    bytes go to the folder ``<name of the page>_files`` beside it.

    Args:
        path: of the page, ending in ``.html``.
        inspection: of N images; thumbnails are those of ``inspection.pixels``.
        coordinates: (N, 2) of the images on the map; None leaves the map out.
        map_name: how the coordinates were made, such as "PCA".
        sections: about the head, shown in the part "Head" of the page.
        numbers: of the head, shown at the top.
        headline: the most important result of the head in one line.
        facts: name and value pairs about the inspection, such as the backbone.
        title: of the page; by default the name of the data set.
        head_report: one sentence about the head, for a page that is about the head first; "" is about the images first.
        inline_limit: bytes of thumbnails (base64) that the page itself may hold.

    Raises:
        OutputError: the page or its folder cannot be written, or there is something at their place that featx did not make.

    Example:

        write_inspection_page("inspection.html", inspection, coordinates=map_coordinates(features))
    """
    path = Path(path)
    require_replaceable(path, PAGE)
    folder = path.with_name(f"{path.stem}_files")
    thumbnails = dict(inspection.pixels.thumbnails) if inspection.pixels else {}
    inline = sum(4 * (len(data) + 2) // 3 for data in thumbnails.values()) <= inline_limit
    names = {} if inline else {row: f"{hashlib.sha256(data).hexdigest()[:20]}.jpg" for row, data in thumbnails.items()}
    content = page_data(inspection, coordinates=coordinates, map_name=map_name)
    content["headFirst"] = bool(head_report)
    content["thumbnailFolder"] = "" if inline else quote(os.fsencode(folder.name))
    content["digest"] = _digest(content)
    count = len(inspection.features)
    shown: list[str] = [names.get(row, "") for row in range(count)]
    if inline:
        shown = [base64.b64encode(thumbnails[row]).decode() if row in thumbnails else "" for row in range(count)]
    page = Page(
        title=title or str(content["name"]),
        summary=head_report or _summary(inspection),
        facts=facts or {},
        headline=headline,
        sections=tuple(sections),
        numbers=tuple(numbers),
        notes=inspection.notes,
        kind="Head report" if head_report else "Inspection",
    )
    text = render_inspection(page, json_text(content), json_text(shown), files=not inline)
    _replace_folder(folder, {names[row]: data for row, data in thumbnails.items()} if names else {})
    write_output(path, text.encode(), PAGE)
    return path


def json_text(value: Any) -> str:
    r"""JSON that can stand in a ``<script>`` element: ASCII without ``<``, ``>`` and ``&``, so that no text ends the element.

    Raises:
        ValueError: a number is not finite.

    Examples:
        >>> json_text({"a": "</script>"})
        '{"a":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(
    inspection: Inspection, *, coordinates: np.ndarray | None = None, map_name: str = "PCA"
) -> dict[str, Any]:
    """The findings of an inspection as the page's script reads them: lists of N values, and lists of rows.

    Args:
        inspection: of N images.
        coordinates: (N, 2), or None.
        map_name: how the coordinates were made.
    """
    features = inspection.features
    split_names = sorted(set(map(str, features.splits)), key=lambda name: (_split_order(name), name))
    split_index = {name: i for i, name in enumerate(split_names)}
    root = str(features.dataset.get("root", ""))
    return {
        "name": str(features.dataset.get("name", "") or "features"),
        "root": root,
        "folder": "" if root_option(features) else root,
        "task": task_of_labels(inspection),
        "backbone": str(features.backbone.get("name", "")),
        "extractOptions": "".join(
            f" {shlex.quote(word)}" for word in [*root_option(features), *extract_options(features)]
        ),
        "fitOptions": "".join(f" {shlex.quote(word)}" for word in fit_options(features, task_of_labels(inspection))),
        "paths": [str(path) for path in features.paths],
        "classes": list(features.classes),
        "labels": features.labels.tolist(),
        "splitNames": split_names,
        "splits": [split_index[str(name)] for name in features.splits],
        "groups": None if features.groups is None else [str(group) for group in features.groups],
        "map": _map_data(coordinates, map_name),
        "neighbours": _neighbour_data(inspection.neighbours),
        "duplicates": _duplicate_data(inspection.duplicates, features),
        "leaks": _leak_data(inspection),
        "predictions": _prediction_data(inspection),
        "labelIssues": _label_data(inspection),
        "outliers": {
            "threshold": _number(inspection.outliers.threshold),
            "distances": _numbers(inspection.outliers.distances),
            "ranked": inspection.outliers.ranked.tolist(),
        },
        "pixels": _pixel_data(inspection),
    }


def _digest(content: Mapping[str, Any]) -> str:
    """What the browser keeps decisions under. They are about rows and groups, so an inspection with the same keeps them."""
    names = ("root", "paths", "classes", "labels", "splitNames", "splits", "groups")
    identity = [*(content[name] for name in names), content["duplicates"]["groups"]]
    return hashlib.sha256(json_text(identity).encode()).hexdigest()[:32]


def _summary(inspection: Inspection) -> str:
    features = inspection.features
    labelled = features.labels[features.labels != UNLABELLED]
    parts = [counted(len(features), "image")]
    parts += [described] if (described := describe_labels(inspection)) else []
    if 0 < len(labelled) < len(features):
        parts.append(f"{len(features) - len(labelled):,} unlabelled")
    if backbone := features.backbone.get("name"):
        parts.append(f"features of {backbone}")
    return " · ".join(parts)


def _split_order(name: str) -> int:
    return {"train": 0, "val": 1, "test": 2}.get(name, 3)


def _map_data(coordinates: np.ndarray | None, name: str) -> dict[str, Any] | None:
    """Coordinates scaled to a square of 10,000 by 10,000 whole steps; images without finite ones lie in the middle."""
    if coordinates is None or not len(coordinates):
        return None
    points = np.array(coordinates, dtype=np.float64)[:, :2]
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        return None
    low, high = points[finite].min(axis=0), points[finite].max(axis=0)
    side = float((high - low).max()) or 1.0
    points[~finite] = (low + high) / 2
    scaled = (points - (low + high) / 2) / side + 0.5
    return {"name": name, "points": np.rint(10_000 * scaled).astype(np.int64).ravel().tolist()}


def _neighbour_data(neighbours: Neighbours) -> dict[str, Any]:
    many = len(neighbours.indices) > _MANY
    k = min(
        neighbours.indices.shape[1] if neighbours.indices.ndim == 2 else 0,
        _FEW_NEIGHBOURS if many else NEIGHBOURS_SHOWN,
    )
    return {
        "k": k,
        "rows": neighbours.indices[:, :k].ravel().tolist(),
        "distances": _numbers(neighbours.distances[:, :k].ravel(), 4),
    }


def _duplicate_data(duplicates: Duplicates, features: FeatureSet) -> dict[str, Any]:
    """The groups with the largest distance within each, whether all its images are the same file, and the content of each."""

    def content(row: int) -> str:
        key = features.keys[row]
        return (bytes(key) if key.any() else image_key(to_utf8(str(features.paths[row])))).hex()

    largest = np.zeros(len(duplicates.groups))
    exact = np.ones(len(duplicates.groups), dtype=bool)
    if len(duplicates.pairs):
        group = duplicates.group_of[duplicates.pairs]
        within = np.flatnonzero((group[:, 0] == group[:, 1]) & (group[:, 0] >= 0))
        np.maximum.at(largest, group[within, 0], duplicates.distances[within])
        np.logical_and.at(exact, group[within, 0], duplicates.exact[within])
    return {
        "threshold": _number(duplicates.threshold),
        "groups": [group.tolist() for group in duplicates.groups],
        "keys": [[content(row) for row in group.tolist()] for group in duplicates.groups],
        "distances": _numbers(largest),
        "exact": exact.astype(int).tolist(),
    }


def _leak_data(inspection: Inspection) -> dict[str, Any]:
    leaks, duplicates = inspection.leaks, inspection.duplicates
    order = np.array([_split_order(str(name)) for name in inspection.features.splits])

    def pairs(places: np.ndarray) -> list[list[Any]]:
        """(a, b, distance, same file), the closest first; a is in the split that comes first of train, val, test."""
        found = []
        for place in np.sort(places)[:_MOST_PAIRS].tolist():
            a, b = duplicates.pairs[place].tolist()
            a, b = (b, a) if order[b] < order[a] else (a, b)
            found.append([a, b, _number(duplicates.distances[place]), int(duplicates.exact[place])])
        return found

    return {
        "heldOut": leaks.held_out,
        "across": pairs(leaks.across),
        "acrossCount": len(leaks.across),
        "conflicts": pairs(leaks.conflicts),
        "conflictCount": len(leaks.conflicts),
        "leaked": leaks.leaked.tolist(),
        "with": _headline(leaks.report),
        "without": _headline(leaks.report_without),
    }


def _headline(report: Report | None) -> str:
    return "" if report is None else headline_of(report)


def _prediction_data(inspection: Inspection) -> dict[str, Any] | None:
    """The most probable classes or labels of each judged image; the predicted value of a regression."""
    found = inspection.out_of_fold
    if found is None:
        return None
    outputs = np.asarray(found.outputs, dtype=np.float64)
    data: dict[str, Any] = {"rows": found.rows.tolist(), "classes": list(found.classes)}
    if found.task == "regression":
        return data | {"values": _numbers(outputs[:, 0], 6)}
    outputs = np.nan_to_num(outputs, nan=0.0)
    k = min(_TOP, outputs.shape[1])
    top = np.argsort(-outputs, axis=1, kind="stable")[:, :k]
    data |= {
        "k": k,
        "top": top.ravel().tolist(),
        "probabilities": _numbers(np.take_along_axis(outputs, top, axis=1).ravel(), 4),
    }
    return data


def _label_data(inspection: Inspection) -> dict[str, Any] | None:
    labels = inspection.labels
    if labels is None:
        return None
    names = sorted(set(map(str, labels.suggested)))
    place = {name: i for i, name in enumerate(names)}
    return {
        "names": names,
        "suggested": [place[str(name)] for name in labels.suggested],
        "scores": _numbers(labels.scores, 4),
        "confidence": _numbers(labels.confidence, 4),
        "issues": np.flatnonzero(labels.is_issue).tolist(),
        "expected": int(labels.expected),
        "ranked": labels.ranked.tolist(),
    }


def _pixel_data(inspection: Inspection) -> dict[str, Any] | None:
    pixels = inspection.pixels
    if pixels is None:
        return None
    kinds = {}
    for kind, flags in pixels.is_issue.items():
        rows = np.flatnonzero(flags)
        scores = np.nan_to_num(np.asarray(pixels.scores[kind], dtype=np.float64)[rows], nan=1.0)
        kinds[str(kind)] = rows[np.argsort(scores, kind="stable")].tolist()
    return {
        "kinds": kinds,
        "sizes": pixels.sizes.ravel().tolist(),
        "unread": int(pixels.unread),
        "why": {str(row): str(why) for row, why in pixels.why.items()},
    }


def _number(value: float, digits: int = 5) -> float | None:
    """A number with so many significant digits; None for what is not finite, which JSON cannot express."""
    value = float(value)
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _numbers(values: np.ndarray, digits: int = 5) -> list[float | None]:
    return [_number(value, digits) for value in np.asarray(values, dtype=np.float64).tolist()]


# The folder of thumbnails


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder of files, complete or not at all, in the place of an older one of featx; without files, remove that.

    Raises:
        OutputError: the folder is not featx's, or cannot be written.
    """
    try:
        if os.path.lexists(folder) and not _is_own(folder):
            if files:
                raise OutputError(
                    f"{folder} exists and is not a folder of thumbnails that featx made, so it is not replaced; name another "
                    "page with -o, or remove the folder first"
                )
            return
        if not files:
            _remove(folder)
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name[:32]}.{secrets.token_hex(4)}.featx-temporary")
        try:
            beside.mkdir()
            beside.joinpath(_MARK_FILE).write_text(
                f"{PAGE_MARK}: thumbnails of {folder.name.removesuffix('_files')}.html\n"
            )
            for name, data in files.items():
                beside.joinpath(name).write_bytes(data)
            _remove(folder)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {folder}: {atomic.reason(error)}; name another page with -o") from error


def _is_own(folder: Path) -> bool:
    """Whether a path is a folder of thumbnails that featx made."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    mark = folder / _MARK_FILE
    return mark.is_file() and not mark.is_symlink() and mark.read_bytes().startswith(PAGE_MARK.encode())


def _remove(folder: Path) -> None:
    """Remove a folder of featx: it is renamed first, so that no half of it is ever seen under its name."""
    if folder.is_dir():
        aside = folder.with_name(f".{folder.name[:32]}.{secrets.token_hex(4)}.featx-temporary")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

"""The files of an inspection: its table of all images, and its page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from featx.arguments import path_of
from featx.constants import MAPS
from featx.data.columns import beside
from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.features.image_store import image_places
from featx.inspection.coordinates import map_coordinates
from featx.inspection.page import write_inspection_page
from featx.inspection.result import Inspection
from featx.io.outputs import PAGE, Output, OutputKind, require_outputs
from featx.io.tables import CSV, PARQUET, table_kind, write_table
from featx.reporter import SILENT, Reporter

TABLE = table_kind("table of an inspection", ("path", "label", "split", "is_near_duplicate_issue"), more=("",))
"""The table of an inspection, as an output; what else was found decides its further columns."""

_KINDS = {CSV: TABLE, PARQUET: TABLE, PAGE.suffix: PAGE}
_MAP_NAMES = dict(zip(MAPS, ("PCA", "t-SNE"), strict=True))


def save_inspection(
    inspection: Inspection,
    path: str | os.PathLike[str],
    *,
    map: str = MAPS[0],  # noqa: A002 - the option of the command has this name
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Path:
    """Write an inspection as a page, or as a table with a row for each image.

    Args:
        inspection: what was found. The page shows its thumbnails, if it has any (``inspect(..., thumbnails=True)``).
        path: a ``.html``, ``.csv`` or ``.parquet`` file. Only an older file of the same kind is replaced.
        map: how the page's map is made, as ``map_coordinates`` takes it.
        seed: seed of the map.
        reporter: receives the stages.

    Returns:
        The path.

    Raises:
        SettingsError: the path has another ending.
        OutputError: the file cannot be written, or pyarrow is missing.
        FeatxError: the map needs a package that is not installed.

    Example:

        inspection = featx.inspect("cache/photos--resnet50.h5", thumbnails=True)
        save_inspection(inspection, "photos.html")
        save_inspection(inspection, "issues.csv")
    """
    path = Path(path_of(path, "path"))
    if _kind_of(path) is PAGE:
        return _save_page(inspection, path, map, seed, reporter)
    columns = inspection.columns()
    write_table(path, {**columns, **beside(inspection.features.columns, columns)}, TABLE)
    return path


def require_writable(paths: Sequence[Path], features: FeatureSet | None = None, inputs: Sequence[str] = ()) -> None:
    """Refuse, before the work, files that could not be written, or that would take the place of others.

    Args:
        paths: of the files.
        features: the features, once they are loaded; none of their images is overwritten.
        inputs: the files that are read.

    Raises:
        SettingsError: a path has the ending of no file of an inspection.
        OutputError: a file cannot be written, is an input, or is there and no file of an inspection.
    """
    images = image_places(features)
    require_outputs([Output(path, _kind_of(path), named=True) for path in paths], inputs, images=images)


def is_page(path: Path) -> bool:
    """Whether a path is that of a page."""
    return path.suffix.lower() == PAGE.suffix


def _kind_of(path: Path) -> OutputKind:
    """The kind of file that a path's ending stands for."""
    if (kind := _KINDS.get(path.suffix.lower())) is None:
        raise SettingsError(f"{path} ends in {path.suffix or 'no ending'}; expected {', '.join(_KINDS)}")
    return kind


def _save_page(inspection: Inspection, path: Path, map_name: str, seed: int, reporter: Reporter) -> Path:
    """Write the page, with the part about the head that was judged."""
    from featx.report.head_parts import head_facts, head_sections  # they import matplotlib
    from featx.report.sections import headline_of, numbers_of

    features, judged = inspection.features, inspection.judged
    reporter.stage("placing the images on the map")
    coordinates = map_coordinates(features, inspection.neighbours, method=map_name, seed=seed, reporter=reporter)
    reporter.stage(f"writing {path}")
    if judged is None:
        return write_inspection_page(path, inspection, coordinates=coordinates, map_name=_MAP_NAMES[map_name])
    head, report = judged.head, judged.report
    return write_inspection_page(
        path, inspection, coordinates=coordinates, map_name=_MAP_NAMES[map_name],
        sections=head_sections(head, features, report=report, rows=judged.rows, predictions=judged.outputs),
        numbers=numbers_of(report), headline=headline_of(report), facts=head_facts(head, features),
    )  # fmt: skip

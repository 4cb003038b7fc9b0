"""A table of all images of a feature file, which ``featx extract`` reads without a forward pass: its paths and columns."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from pathlib import Path

import numpy as np

from featx.data.openers import open_store
from featx.data.places import is_remote
from featx.data.scan_options import ScanOptions
from featx.data.sources.paths_store import root_of
from featx.data.sources.table import TABLE_ENDINGS, read_columns
from featx.data.store import FolderStore
from featx.data.table_roles import NO_BOXES
from featx.errors import DatasetError
from featx.features.extract_command import backbone_words, cache_words
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.joint_sets import is_joint
from featx.layer_spec import PENULTIMATE, LayerSpec, largest_views, plain_layers
from featx.system import why_unreadable
from featx.text import counted, form, native


def paths_for(features: FeatureSet, rows: np.ndarray, table: Path) -> np.ndarray:
    """The paths of images for a table, (n,) object: relative to its folder for images below it, else absolute.

    Images that lie in no folder of this machine keep their paths; ``extract_command`` names what these are relative to.
    """
    if not _in_folder(features):
        return np.array(features.paths[rows])
    root, folder = Path(native(str(features.dataset.get("root", "")))), os.path.realpath(table.parent)
    prefix, paths = folder.rstrip("/") + "/", np.empty(len(rows), dtype=object)
    for number, path in enumerate(features.paths[rows].tolist()):
        whole = path if is_remote(path) else absolute(root, path)
        below = whole.removeprefix(prefix)
        paths[number] = below if below == below.lstrip() else f"./{below}"  # cells are stripped when they are read
    return paths


def table_of(features: FeatureSet) -> str | None:
    """The table that the data set came from, if it is still there and may be one: a feature file may come from a stranger."""
    table = features.dataset.get("table")
    if not isinstance(table, str):
        return None
    name = native(table)
    return None if why_unreadable(Path(name)) or Path(name).suffix.lower() not in TABLE_ENDINGS else name


def further_columns(
    features: FeatureSet, origin: str | None, rows: np.ndarray, own: Collection[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of the features, or else of the data set's table, without some; and notes on those that are lost.

    They are (n,) object arrays of str.
    """
    if features.columns or origin is None:
        return {name: cells[rows] for name, cells in features.columns.items() if name not in own}, []
    table, paths = Path(origin), features.paths[rows].tolist()
    try:  # features of an earlier featx, which kept no columns
        columns, notes = read_columns(table, paths, ScanOptions.of_dataset(features.dataset))
    except DatasetError as error:
        return {}, [f"the further columns of {table.name} are not kept: {error}"]
    found = dict[str, np.ndarray]()
    for name, values in columns.items():
        if name not in own:
            found[name] = np.array([values.get(path, "") for path in paths] or [""], dtype=object)[: len(paths)]
    return found, [note for note in notes if "is not kept" in note]


def notes_on_paths(paths: np.ndarray) -> list[str]:
    """A note that counts the absolute paths of a table, if there are any."""
    outside = sum(os.path.isabs(path) for path in paths.tolist())  # noqa: PTH117 - of str
    if not outside:
        return []
    return [
        f"{counted(outside, 'path')} of the table "
        f"{form(outside, 'is absolute, because the image does', 'are absolute, because the images do')} not lie below its "
        f"folder; pages need --images FOLDER to show {form(outside, 'it', 'them')}"
    ]


def extract_command(features: FeatureSet, table: Path) -> str:
    """The command that takes the labels of a table over, in the way in which the features were extracted."""
    # Further columns may have the names of boxes; those of the images stand in their paths.
    has_boxes = ScanOptions.of_dataset(features.dataset).box_columns == (NO_BOXES,)
    boxes = ["--box-columns", NO_BOXES] if has_boxes else []
    words = ["featx", "extract", str(table), *root_option(features), *boxes, *extract_options(features)]
    return shlex.join(words)


def root_option(features: FeatureSet) -> list[str]:
    """The option that names what the paths of a table are relative to; none where the images lie in a local folder."""
    return [] if _in_folder(features) else ["--root", native(str(features.dataset.get("root", "")))]


def _in_folder(features: FeatureSet) -> bool:
    """Whether the images lie in a folder of this machine, or of another that has its form of paths."""
    try:
        return isinstance(root_of(open_store(native(str(features.dataset.get("root", ""))))), FolderStore)
    except DatasetError:  # an archive that is gone
        return False


def extract_options(features: FeatureSet) -> list[str]:
    """The options of ``featx extract`` that name the backbone, layers, views, precision and folder of the feature file.

    Of several backbones side by side it is the first. A size of images other than that of the weights is not named, because the
    file does not tell which it was.
    """
    if is_joint(features.backbone):  # its first backbone, whose file has the labels that count
        features = features.parts([0])
    spec = LayerSpec.parse(features.layer)
    layers, views = spec.layer.split(","), spec.views_name
    if features.source is not None and not why_unreadable(features.source):
        stored = open_features(features.source, allow_partial=True).layers
        layers = plain_layers(stored)
        views = largest_views(stored, layers)
    return [*backbone_words(features.backbone, layers, views), *cache_words(features.source)]


def fit_options(features: FeatureSet, task: str) -> list[str]:
    """The options of ``featx fit-head`` that name the task, the layers and the folder of the feature file.

    Args:
        features: that were inspected.
        task: one of ``TASKS``, or "". Only a regression is named, because numbers may be classes or values.
    """
    words = ["--task", task] if task == "regression" else []
    for layer in LayerSpec.parse(features.layer).layer.split(","):
        words += ["--layer", layer] if features.layer != PENULTIMATE else []
    return [*words, *cache_words(features.source)]


def absolute(folder: Path, path: str) -> str:
    """The absolute path of an image by its path below a folder."""
    return os.path.normpath(os.path.join(os.path.abspath(folder), path))  # noqa: PTH100, PTH118 - links are not followed

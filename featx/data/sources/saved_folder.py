"""Folders in which ``datasets`` keeps a data set as Arrow files: saved by ``save_to_disk``, or prepared in its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import DatasetError
from featx.io.strict_json import strict_json
from featx.text import counted, listed

if TYPE_CHECKING:
    from featx.data.sources.arrow_split import ArrowFiles

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a data set of ``datasets``, by the files of JSON in it."""
    if (folder / _DICT).is_file() or ((folder / _STATE).is_file() and (folder / _INFO).is_file()):
        return True
    return (folder / _INFO).is_file() and any(folder.glob("*.arrow"))


def splits_of_folder(folder: Path, version: str = "") -> dict[str, ArrowFiles]:
    """The files of each split of a data set by the name of the split; "" is the name of a data set without splits.

    Args:
        folder: as ``save_to_disk`` wrote it, or a folder of the cache of ``datasets``.
        version: what tells the content of the folder from another; "" where the times of its files do.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    if (folder / _DICT).is_file():
        names = _json(folder / _DICT).get("splits")
        if not isinstance(names, list) or not names:
            raise DatasetError(
                f"{folder / _DICT} names no splits; expected those of a data set that datasets has saved"
            )
        return {str(name): _saved(folder / str(name), version) for name in names}
    if (folder / _STATE).is_file():
        return {"": _saved(folder, version)}
    return _prepared(folder, version)


def split_of_state(folder: Path) -> str:
    """The split that a saved data set without splits was taken from; "" where it is unknown, or only a part of one."""
    name = _json(folder / _STATE).get("_split") if (folder / _STATE).is_file() else None
    return name if isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*", name) else ""


def _saved(folder: Path, version: str) -> ArrowFiles:
    """The files of one split that ``save_to_disk`` wrote."""
    from featx.data.sources.arrow_split import ArrowFiles

    if not (folder / _STATE).is_file():
        raise DatasetError(f"there is no {folder / _STATE}; copy the whole folder that datasets has saved")
    state = _json(folder / _STATE)
    files = _named(folder, state.get("_data_files"))
    if not files:
        raise DatasetError(f"{folder / _STATE} names no files of data")
    _require(files)
    indices = _named(folder, state.get("_indices_data_files"))
    features = _json(folder / _INFO).get("features") if (folder / _INFO).is_file() else {}
    return ArrowFiles(folder, files, indices[0] if indices else None, version, _mapping(features))


def _prepared(folder: Path, version: str) -> dict[str, ArrowFiles]:
    """The files of each split that ``datasets`` prepared in its cache, by their names."""
    from featx.data.sources.arrow_split import ArrowFiles

    info = _json(folder / _INFO)
    splits = _mapping(info.get("splits"))
    if not splits:
        raise DatasetError(f"{folder / _INFO} names no splits; expected those of a data set that datasets has prepared")
    found = {}
    for name, about in splits.items():
        form = re.compile(rf"(?:.+-)?{re.escape(name)}(?:-(\d+)-of-(\d+))?\.arrow")
        files = sorted(file for file in folder.glob("*.arrow") if form.fullmatch(file.name))
        shards = (form.fullmatch(file.name) for file in files)
        expected = max((int(match[2] or 1) for match in shards if match), default=1)
        if len(files) != expected:
            raise DatasetError(f"{folder} has {counted(len(files), 'file')} of the split {name}; expected {expected}")
        found[name] = ArrowFiles(folder, files, None, version, _mapping(info.get("features")))
        count = _mapping(about).get("num_examples")
        rows = sum(table.num_rows for table in found[name].tables)
        if isinstance(count, int) and rows != count:
            raise DatasetError(
                f"{folder} has {counted(rows, 'row')} of the split {name}; expected {count:,}: it is incomplete"
            )
    return found


def _require(files: list[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DatasetError(
            f"{counted(len(missing), 'file')} of the data set {'is' if len(missing) == 1 else 'are'} not "
            f"there: {listed(missing, 3)}; copy the whole folder that datasets has saved"
        )


def _named(folder: Path, entries: Any) -> list[Path]:
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [folder / os.path.basename(name) for name in names if isinstance(name, str) and name]  # noqa: PTH119 - of str


def _json(file: Path) -> Mapping[str, Any]:
    try:
        return _mapping(strict_json(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

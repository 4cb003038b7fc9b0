"""Which tool's layout files of vectors have, and how they are read: one function for each layout.

==================  ===========================================================================================
thingsvision        ``features.{npy,hdf5,mat,pt,txt}`` and ``file_names.txt``, in a folder for each module
clip-retrieval      ``img_emb/img_emb_0.npy``, ... and ``metadata/metadata_0.parquet``, ...
TRIDENT, CLAM       an ``.h5`` for each slide: ``features`` (n, D) of patches and ``coords``, or (D,) of the slide
kaiko eva           ``manifest.csv`` and a ``.pt`` for each image
Hugging Face        a folder that ``datasets`` saved, with a column of lists of numbers
``X.npy``, ``y.npy``  features, labels and names in files of their own, in a folder
one file            an array (``.npy``, ``.npz``, ``.pt``, ...) or a table (``.csv``, ``.parquet``, ...)
a folder of files   one vector, or several, for each file; or parts of one table
==================  ===========================================================================================
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.names_beside import FILE_NAMES, add_names, csv_columns, is_list_of_names, list_beside
from featx.features.exchange.read_arrays import load_tensors, read_arrays, read_each
from featx.features.exchange.read_tables import read_table, text_columns
from featx.features.exchange.sort_arrays import name_columns, sort_arrays, take_columns, without_split
from featx.features.exchange.vectors import (
    LABEL_COLUMNS,
    NAME_COLUMNS,
    NAMED_ENDINGS,
    SLIDES,
    SPLIT_COLUMNS,
    TABLE_ENDINGS,
    VECTOR_COLUMNS,
    Spool,
    Vectors,
    as_rows,
    first_of,
    lines_of,
    require_count,
    require_equal_counts,
)
from featx.io.file_kinds import misplaced
from featx.layer_spec import PENULTIMATE
from featx.text import brief, counted, listed

_MOST_FILES = 1_000_000
_PICKLE = (
    "is a pickle, which is never loaded since it could run code; where it was made, save its arrays instead: "
    "numpy.savez('vectors.npz', features=X, labels=y)"
)
_INDEX = (
    "is an index for searching, not a file of vectors; write its vectors as an array where it was made: "
    "index = faiss.read_index(file); numpy.save('vectors.npy', index.reconstruct_n(0, index.ntotal))"
)
_REMEDIES = dict.fromkeys((".pkl", ".pickle", ".joblib", ".p"), _PICKLE) | dict.fromkeys(
    (".index", ".faiss", ".ivf", ".ann", ".hnsw"), _INDEX
)
"""Endings of files that are known and not read, and what to do instead."""

_MOST_PARTS = 64


def read_vectors(
    path: Path, folder: Path, *, names: Path | None = None, columns: Mapping[str, str | None] | None = None
) -> Vectors:
    """Read vectors of another tool.

    Args:
        path: a file or a folder.
        folder: for temporary files.
        names: a list or table of names, in the order of the vectors.
        columns: the columns of a table that the user names, as ``read_table`` takes them.

    Raises:
        DatasetError: there is nothing, nothing that is known, or something that does not fit together.
    """
    own = dict(columns or {})
    found = _read_folder(path, folder, own) if path.is_dir() else _read_file(path, folder, own)
    if names is not None:
        add_names(found, names, own)
    elif found.names is None and path.is_file():
        add_names(found, list_beside(path))
    if not path.is_dir() and path.suffix.lower() in NAMED_ENDINGS:
        _require_vectors(found, own.get("vectors"), path)
    name_columns(found, own, str(names or path))
    return found


def _read_file(path: Path, folder: Path, own: Mapping[str, str | None]) -> Vectors:
    """The vectors of one file."""
    if not path.exists():
        raise DatasetError(f"there is no file or folder {path}; expected vectors of another tool")
    if not path.is_file():
        raise DatasetError(f"{path} is no regular file; expected vectors of another tool")
    ending = path.suffix.lower()
    if ending in TABLE_ENDINGS:
        return read_table([path], folder, own)
    if ending in NAMED_ENDINGS:
        return read_arrays(path, folder)
    if (remedy := _REMEDIES.get(ending)) is not None:
        raise DatasetError(f"{path} {remedy}")
    known = ", ".join((*NAMED_ENDINGS, *TABLE_ENDINGS))
    if (what := misplaced(path, "vectors of another tool")) and "an archive" in what:
        raise DatasetError(f"{path} is packed; unpack it, and name the folder or the file that was in it ({known})")
    raise DatasetError(what or f"{path} is none of {known}, nor a folder of such files")


def _require_vectors(found: Vectors, name: str | None, path: Path) -> None:
    """Make the array that the user names the penultimate layer."""
    if name is None or name == found.roles.get("vectors"):
        return
    if name not in found.layers:
        known = [found.roles.get("vectors", PENULTIMATE), *(each for each in found.layers if each != PENULTIMATE)]
        raise DatasetError(f"{path} has no vectors named {name!r}; it has {listed(known)}")
    before = found.layers.pop(PENULTIMATE, None)
    found.layers = {PENULTIMATE: found.layers.pop(name), **found.layers}
    if before is not None:
        found.layers[found.roles.get("vectors", "X")] = before


def _read_folder(path: Path, folder: Path, own: Mapping[str, str | None]) -> Vectors:
    for read in _LAYOUTS:
        found = read(path, folder, own)
        if found is not None:
            return found
    files = list(_files(path))
    tables = [file for file in files if file.suffix.lower() in TABLE_ENDINGS]
    arrays = [file for file in files if file.suffix.lower() in NAMED_ENDINGS and not is_list_of_names(file)]
    if len(arrays) == 1:
        found = read_arrays(arrays[0], folder)
        if found.names is None:
            add_names(found, list_beside(arrays[0]) or next(iter(tables), None))
        return found
    if arrays:
        whole = _parts_of_one(path, arrays, folder) or _numbered_parts(arrays, folder)
        return whole or _one_for_each_file(_of_one_kind(path, arrays), folder)
    if tables:
        tables = [file for file in tables if file.suffix.lower() != ".json"] or tables
        if len(tables) == 1:
            found = read_table(tables, folder, own)
            if found.names is None:
                add_names(found, list_beside(tables[0]))
            return found
        by_kind = {file.suffix.lower() for file in tables}
        if len(by_kind) > 1:
            raise DatasetError(f"{path} has tables of several kinds ({listed(sorted(by_kind))}); name one of them")
        return read_table(sorted(tables, key=_in_order), folder, own)
    raise DatasetError(
        f"{path} has no file that ends in {', '.join((*NAMED_ENDINGS, *TABLE_ENDINGS))}; expected vectors of another tool"
    )


def _files(path: Path) -> Iterator[Path]:
    """The regular files in and below a folder, sorted, without hidden ones; links to folders are not followed."""
    count = 0
    for where, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names, key=os.fsencode):
            if not name.startswith(".") and (file := Path(where, name)).is_file():
                count += 1
                if count > _MOST_FILES:
                    raise DatasetError(f"{path} has more than {_MOST_FILES:,} files; put the vectors into one file")
                yield file


def _in_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts names with numbers by these, so that part 10 comes after part 9."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts], str(path)


# One layout each: None where the folder has another


def _thingsvision(path: Path, folder: Path, _: Mapping[str, str | None]) -> Vectors | None:
    lists = [file for file in _files(path) if file.name == FILE_NAMES]
    endings = (".npy", ".hdf5", ".h5", ".mat", ".pt", ".txt", ".csv")
    matrices = [file for file in _files(path) if file.stem == "features" and file.suffix.lower() in endings]
    if not lists or not matrices:
        return None
    layers: dict[str, np.ndarray] = {}
    names: list[str] | None = None
    for file in matrices:
        found = read_table([file], folder, {}) if file.suffix.lower() == ".csv" else read_arrays(file, folder)
        own = next((each for each in lists if each.parent == file.parent), lists[0])
        here = lines_of(own)
        require_count(len(here), len(found), "name", str(own))
        if names is not None and here != names:
            raise DatasetError(f"{own} names other images than {lists[0]}; import the folder of each module alone")
        names = here
        module = file.parent.relative_to(path).as_posix().replace("/", ".")
        layers[module if len(matrices) > 1 and module != "." else PENULTIMATE] = next(iter(found.layers.values()))
    require_equal_counts(layers, str(path))
    return Vectors("thingsvision", layers, names=names)


def _clip_retrieval(path: Path, folder: Path, _: Mapping[str, str | None]) -> Vectors | None:
    if path.absolute().name == "img_emb" and any(path.glob("img_emb_*.npy")):
        path = path.absolute().parent
    parts = sorted(path.glob("img_emb/*.npy"), key=_in_order)
    if not parts:
        return None
    spool, columns = Spool(folder), dict[str, list[str]]()
    tables = {_number_of(file): file for file in path.glob("metadata/*.parquet")}
    count = 0
    for part in parts:
        matrix = as_rows(_npy(part), str(part))
        if not len(matrix):
            continue
        spool.append(PENULTIMATE, matrix, str(part))
        count += len(matrix)
        table = tables.get(_number_of(part))
        if table is None and tables:
            raise DatasetError(
                f"{path} has {part.name}, but no table of its number in metadata; expected one for each part"
            )
        if table is not None:
            for name, values in text_columns(table).items():
                require_count(len(values), len(matrix), "row", str(table))
                columns.setdefault(name, [""] * (count - len(matrix))).extend(values)
            for values in columns.values():
                values.extend([""] * (count - len(values)))
    found = Vectors("clip-retrieval", spool.matrices())
    take_columns(found, columns, str(path))
    return found


def _number_of(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0


def _npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _eva(path: Path, folder: Path, _: Mapping[str, str | None]) -> Vectors | None:
    manifest = path / "manifest.csv"
    if not manifest.is_file():
        return None
    columns = csv_columns(manifest)
    if "embeddings" not in columns:
        return None
    spool, counts = Spool(folder), []
    for name in columns.pop("embeddings"):
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise DatasetError(f"{manifest} names {name}, which is not in {path}")
        if not file.is_file():
            raise DatasetError(f"{manifest} names {name}, which is not there")
        rows = _rows_of(load_tensors(file), str(file))
        spool.append(PENULTIMATE, rows, str(file))
        counts.append(len(rows))
    if not counts:
        raise DatasetError(f"{manifest} has no rows")
    names = columns.pop("origin", None) or [str(number) for number in range(len(counts))]
    if max(counts) > 1:  # the patches of each image
        columns["origin"] = names
        names = [f"{name}/{number}" for name, count in zip(names, counts, strict=True) for number in range(count)]
        columns = {
            key: [v for v, n in zip(values, counts, strict=True) for _ in range(n)] for key, values in columns.items()
        }
    labels, split = columns.pop("target", None), first_of(list(columns), SPLIT_COLUMNS)
    splits = columns.pop(split) if split else None
    roles = {"names": "origin", **({"labels": "target"} if labels else {}), **({"splits": split} if split else {})}
    return Vectors(
        "kaiko-eva", spool.matrices(), names=names, labels=labels, splits=splits, columns=columns, roles=roles
    )


def _rows_of(found: object, where: str) -> np.ndarray:
    if isinstance(found, list) and found and all(isinstance(item, np.ndarray) for item in found):
        found = np.concatenate([as_rows(item, where) for item in found])
    if not isinstance(found, np.ndarray):
        raise DatasetError(f"{where} holds {type(found).__name__}; expected a tensor")
    return as_rows(found, where)


def _saved_datasets(path: Path, folder: Path, columns: Mapping[str, str | None]) -> Vectors | None:
    """A data set, or a dictionary of them by split, that ``datasets`` saved."""
    own = {"vectors": columns.get("vectors")}
    if (path / "dataset_dict.json").is_file():
        splits = _saved_json(path / "dataset_dict.json", "splits")
        parts = {name: _one_dataset(path / name) for name in splits if Path(name).name == name}
    elif (path / "state.json").is_file():
        parts = {"": _one_dataset(path)}
    else:
        return None
    if not all(parts.values()):
        raise DatasetError(f"{path} was saved by datasets without any rows")
    found = read_table([file for files in parts.values() for file in files], folder, own)
    found.tool = "datasets"
    if len(parts) > 1:
        counts = {name: len(read_table(files, folder, own)) for name, files in parts.items()}
        found.splits = [name for name, count in counts.items() for _ in range(count)]
    _name_labels(found, next(iter(parts.values()))[0].parent / "dataset_info.json")
    return found


def _one_dataset(path: Path) -> list[Path]:
    state = path / "state.json"
    if _saved_json(state, "_indices_data_files", None):
        raise DatasetError(f"{path} has rows in another order than its files; save it after dataset.flatten_indices()")
    entries = [entry for entry in _saved_json(state, "_data_files") if isinstance(entry, dict)]
    names = [str(entry.get("filename")) for entry in entries]
    files = [path / name for name in names if Path(name).name == name]
    for file in files:
        if not file.is_file():
            raise DatasetError(f"{state} names {file.name}, which is not there")
    return files


def _saved_json(path: Path, key: str, default: object = ...) -> Any:
    """A value of a JSON file that ``datasets`` wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        value = found.get(key, default)
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise DatasetError(f"{path}, as datasets writes it, cannot be read: {brief(error)}") from error
    if value is ... or (default is ... and not isinstance(value, list)):
        raise DatasetError(f"{path} has no list {key!r}, so it was not written by datasets")
    return value


def _name_labels(found: Vectors, info: Path) -> None:
    """Give what is numbers of a ClassLabel its names."""
    features = _saved_json(info, "features", None) if info.is_file() else None
    for name, feature in features.items() if isinstance(features, dict) else ():
        if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
            continue
        classes = list(map(str, feature.get("names") or []))
        if name == found.roles.get("labels") and found.labels is not None:
            found.labels = _classes_of(found.labels, classes)
        elif name in found.columns:
            found.columns[name] = _classes_of(found.columns[name], classes)


def _classes_of(numbers: Sequence[str], classes: Sequence[str]) -> list[str]:
    return [classes[int(text)] if text.isdigit() and int(text) < len(classes) else "" for text in numbers]


def _parts_of_one(path: Path, files: Sequence[Path], folder: Path) -> Vectors | None:
    """Features and their labels or names in files of their own, such as ``X_train.npy`` and ``y_train.npy``."""
    stems = {without_split(file.stem): file for file in files}
    kinds = {file.suffix.lower() for file in files}
    beside = [stem for stem in stems if first_of([stem], (*LABEL_COLUMNS, *NAME_COLUMNS[:-1])) is not None]
    if (
        len(files) > _MOST_PARTS
        or not kinds <= {".npy", ".pt", ".pth"}
        or not beside
        or first_of(list(stems), VECTOR_COLUMNS) is None
        or len({file.stem for file in files}) < len(files)
    ):
        return None
    arrays, texts = dict[str, np.ndarray](), dict[str, list[str]]()
    for file in files:
        found = _npy(file) if file.suffix.lower() == ".npy" else load_tensors(file)
        if isinstance(found, np.ndarray) and found.dtype.kind in "US":
            texts[file.stem] = [
                os.fsdecode(item) if isinstance(item, bytes) else item for item in found.reshape(-1).tolist()
            ]
        elif isinstance(found, np.ndarray):
            arrays[file.stem] = found
        elif isinstance(found, list):
            texts[file.stem] = [str(item) for item in found]
        else:
            raise DatasetError(f"{file} holds {type(found).__name__}; expected a tensor or a list")
    return sort_arrays(path, arrays, texts, "files", folder)


def _numbered_parts(files: Sequence[Path], folder: Path) -> Vectors | None:
    """The parts of one matrix, such as ``embeddings_0.npy``, ``embeddings_1.npy``, in the order of their numbers."""
    stems = [re.fullmatch(r"(.*?)[ _.-]?\d+", file.stem) for file in files]
    beginnings = {stem[1] if stem else "" for stem in stems}
    if (
        {file.suffix.lower() for file in files} != {".npy"}
        or len(beginnings) > 1
        or first_of([*beginnings], VECTOR_COLUMNS) is None
    ):
        return None
    matrices = [as_rows(_npy(file), str(file)) for file in sorted(files, key=_in_order)]
    if all(len(matrix) == 1 for matrix in matrices):
        return None
    spool = Spool(folder)
    for file, matrix in zip(sorted(files, key=_in_order), matrices, strict=True):
        spool.append(PENULTIMATE, matrix, str(file))
    found = Vectors("npy", spool.matrices(), notes=[f"the {len(files):,} files are the parts of one matrix"])
    add_names(found, list_beside(files[0]))
    return found


def _of_one_kind(path: Path, files: Sequence[Path]) -> Sequence[Path]:
    """Of files with the same vectors in several formats, as CLAM and TRIDENT write them, those of one format.

    Raises:
        DatasetError: there are features of several networks.
    """
    of_networks = {file.parent for file in files if re.match(r"(slide_)?features_\w", file.parent.name)}
    if len(of_networks) > 1:
        raise DatasetError(
            f"{path} has features of several networks, in {listed(sorted(str(each) for each in of_networks))}; name one of them"
        )
    if of_networks:
        return [file for file in files if file.parent in of_networks]
    hdf5 = {file.stem for file in files if file.suffix.lower() in (".h5", ".hdf5")}
    tensors = {file.stem for file in files if file.suffix.lower() in (".pt", ".pth")}
    if hdf5 and tensors and (hdf5 <= tensors or tensors <= hdf5):
        larger = (".h5", ".hdf5") if tensors <= hdf5 else (".pt", ".pth")
        return [file for file in files if file.suffix.lower() in larger]
    return files


def _one_for_each_file(files: Sequence[Path], folder: Path) -> Vectors:
    """A folder with one or several vectors in each file, such as a file for each slide or image; or the parts of one matrix."""
    spool, names, columns = Spool(folder), list[str](), dict[str, list[str]]()
    several = False
    base = Path(os.path.commonpath([file.parent for file in files]))
    for file, found in read_each(files, folder):
        matrix = found.layers.get(PENULTIMATE, next(iter(found.layers.values())))
        name = file.relative_to(base).with_suffix("").as_posix()
        own = found.columns if len(matrix) > 1 else {}
        spool.append(PENULTIMATE, matrix, str(file))
        several |= len(matrix) > 1
        columns.setdefault("slide", []).extend([name] * len(matrix))
        for key in ("x", "y"):
            if key in own or key in columns:
                columns.setdefault(key, [""] * (len(columns["slide"]) - len(matrix))).extend(
                    own.get(key, [""] * len(matrix))
                )
        inner = found.names or _places(own, len(matrix))
        names += [name] if len(matrix) == 1 and found.names is None else [f"{name}/{each}" for each in inner]
    result = Vectors(SLIDES if several else "files", spool.matrices(), names=names)
    if several:
        result.columns = columns
        result.notes.append(
            f"{counted(len(files), 'file')} with {counted(len(names), 'vector')}: the column slide names the file of each"
        )
    return result


def _places(columns: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """The names of the patches of a slide: their places, or their numbers."""
    if "x" in columns and "y" in columns:
        places = [f"{x}_{y}" for x, y in zip(columns["x"], columns["y"], strict=True)]
        if len(set(places)) == count:
            return places
    digits = len(str(max(0, count - 1)))
    return [f"{number:0{digits}d}" for number in range(count)]


_LAYOUTS: tuple[Callable[[Path, Path, Mapping[str, str | None]], Vectors | None], ...] = (
    _saved_datasets,
    _clip_retrieval,
    _eva,
    _thingsvision,
)
"""The layouts of folders, the most particular first."""

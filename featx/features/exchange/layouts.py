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

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.read_arrays import load_tensors, read_arrays, read_each
from featx.features.exchange.read_tables import read_table, text_columns
from featx.features.exchange.sort_arrays import sort_arrays, take_columns, without_split
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
    unique_texts,
)
from featx.io.file_kinds import misplaced
from featx.layer_spec import PENULTIMATE
from featx.text import brief, counted, listed

_FILE_NAMES = "file_names.txt"
_MOST_FILES = 1_000_000
_PICKLES = (".pkl", ".pickle", ".joblib", ".p")
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
    if path.is_dir():
        found = _read_folder(path, folder, own)
    elif not path.exists():
        raise DatasetError(f"there is no file or folder {path}; expected vectors of another tool")
    elif path.suffix.lower() in TABLE_ENDINGS:
        found = read_table([path], folder, own)
    elif path.suffix.lower() in NAMED_ENDINGS:
        found = read_arrays(path, folder)
        if names is None and found.names is None:
            _add_names(found, _beside(path))
    elif path.suffix.lower() in _PICKLES:
        raise DatasetError(
            f"{path} is a pickle, which is never loaded since it could run code; where it was made, save its arrays instead: "
            "numpy.savez('vectors.npz', features=X, labels=y)"
        )
    else:
        known = ", ".join((*NAMED_ENDINGS, *TABLE_ENDINGS))
        raise DatasetError(
            misplaced(path, "vectors of another tool") or f"{path} is none of {known}, nor a folder of such files"
        )
    if names is not None:
        _add_names(found, names, own)
    return found


def _read_folder(path: Path, folder: Path, own: Mapping[str, str | None]) -> Vectors:
    for read in _LAYOUTS:
        found = read(path, folder)
        if found is not None:
            return found
    files = list(_files(path))
    tables = [file for file in files if file.suffix.lower() in TABLE_ENDINGS]
    arrays = [file for file in files if file.suffix.lower() in NAMED_ENDINGS and not _is_list_of_names(file)]
    if len(arrays) == 1:
        found = read_arrays(arrays[0], folder)
        if found.names is None:
            _add_names(found, _beside(arrays[0]) or next(iter(tables), None))
        return found
    if arrays:
        return _parts_of_one(path, arrays, folder) or _one_for_each_file(_of_one_kind(path, arrays), folder)
    if tables:
        tables = [file for file in tables if file.suffix.lower() != ".json"] or tables
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


def _beside(path: Path) -> Path | None:
    """The list or table of names that lies beside a file of arrays."""
    stem = path.stem
    names = (
        f"{stem}.csv",
        f"{stem}.txt",
        f"{stem}_names.txt",
        f"{stem}.names.txt",
        f"{stem}.json",
        _FILE_NAMES,
        "filenames.txt",
        "names.txt",
        "paths.txt",
    )
    return next((file for name in names if (file := path.with_name(name)) != path and file.is_file()), None)


def _is_list_of_names(path: Path) -> bool:
    """Whether a text file holds names and not numbers."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        first = file.readline(4096).split()
    try:
        return not [float(part.strip(b",")) for part in first]
    except ValueError:
        return True


def _add_names(found: Vectors, path: Path | None, own: Mapping[str, str | None] | None = None) -> None:
    """Take the names, and the labels and splits if there are any, of a file beside the vectors."""
    if path is None:
        return
    names, labels, splits, columns, keys = _table_of_names(path, own or {})
    require_count(len(names), len(found), "names", str(path))
    found.names, found.labels, found.splits, found.keys = names, labels or found.labels, splits or found.splits, keys
    found.columns |= columns
    found.notes.append(f"the names of the vectors are those of {path.name}")


def _table_of_names(
    path: Path, own: Mapping[str, str | None]
) -> tuple[list[str], list[str] | None, list[str] | None, dict[str, list[str]], np.ndarray | None]:
    """Names, labels, splits, further columns and keys of a list or table that is as long as the vectors."""
    if not path.is_file():
        raise DatasetError(f"there is no file {path} of names")
    if path.suffix.lower() == ".parquet":
        columns = text_columns(path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        columns = _csv_columns(path)
    elif path.suffix.lower() in (".json", ".jsonl"):
        found = _json_columns(path)
        if isinstance(found, list):
            return found, None, None, {}, None
        columns = found
    else:
        return lines_of(path), None, None, {}, None
    name = own.get("names") or first_of(list(columns), NAME_COLUMNS)
    if name is None or name not in columns:
        raise DatasetError(f"{path} has no column of names; it has {listed(list(columns)) or 'none'}")
    count = len(columns[name])
    held = Vectors("names", {PENULTIMATE: np.empty((count, 1), np.float32)}, names=columns.pop(name))
    take_columns(held, columns, str(path))
    return held.names or [], held.labels, held.splits, held.columns, held.keys


def _json_columns(path: Path) -> list[str] | dict[str, list[str]]:
    """A list of names, or the columns of a list of objects."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = path.suffix.lower() == ".jsonl"
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON that can be read: {brief(error)}") from error
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        names = dict.fromkeys(name for item in found for name in item)
        return {name: unique_texts(item.get(name) for item in found) for name in names}
    raise DatasetError(f"{path} is no list of names; expected a list of texts or of objects")


def _csv_columns(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a table that can be read: {error}") from error
    header, *rows = rows or [[]]
    rows = [row for row in rows if row]
    wrong = next((row for row in rows if len(row) != len(header)), None)
    if wrong is not None:
        raise DatasetError(f"{path} has a row of {len(wrong)} cells; expected {len(header)}, as in its header")
    return {name.strip(): [row[at] for row in rows] for at, name in enumerate(header)}


# One layout each: None where the folder has another


def _thingsvision(path: Path, folder: Path) -> Vectors | None:
    lists = [file for file in _files(path) if file.name == _FILE_NAMES]
    endings = (".npy", ".hdf5", ".h5", ".mat", ".pt", ".txt")
    matrices = [file for file in _files(path) if file.stem == "features" and file.suffix.lower() in endings]
    if not lists or not matrices:
        return None
    layers: dict[str, np.ndarray] = {}
    names: list[str] | None = None
    for file in matrices:
        found = read_arrays(file, folder)
        own = next((each for each in lists if each.parent == file.parent), lists[0])
        here = lines_of(own)
        require_count(len(here), len(found), "names", str(own))
        if names is not None and here != names:
            raise DatasetError(f"{own} names other images than {lists[0]}; import the folder of each module alone")
        names = here
        module = file.parent.relative_to(path).as_posix().replace("/", ".")
        layers[module if len(matrices) > 1 and module != "." else PENULTIMATE] = next(iter(found.layers.values()))
    require_equal_counts(layers, str(path))
    return Vectors("thingsvision", layers, names=names)


def _clip_retrieval(path: Path, folder: Path) -> Vectors | None:
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
                require_count(len(values), len(matrix), "rows", str(table))
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


def _eva(path: Path, folder: Path) -> Vectors | None:
    manifest = path / "manifest.csv"
    if not manifest.is_file():
        return None
    columns = _csv_columns(manifest)
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
    return Vectors("kaiko-eva", spool.matrices(), names=names, labels=labels, splits=splits, columns=columns)


def _rows_of(found: object, where: str) -> np.ndarray:
    if isinstance(found, list) and found and all(isinstance(item, np.ndarray) for item in found):
        found = np.concatenate([as_rows(item, where) for item in found])
    if not isinstance(found, np.ndarray):
        raise DatasetError(f"{where} holds {type(found).__name__}; expected a tensor")
    return as_rows(found, where)


def _saved_datasets(path: Path, folder: Path) -> Vectors | None:
    """A data set, or a dictionary of them by split, that ``datasets`` saved."""
    own = {"names": None, "labels": None, "splits": None, "vectors": None}
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
        parts = {name: _one_dataset(path / name) for name in splits if Path(name).name == name}
    elif (path / "state.json").is_file():
        parts = {"": _one_dataset(path)}
    else:
        return None
    found = read_table([file for files in parts.values() for file in files], folder, own)
    found.tool = "datasets"
    if len(parts) > 1:
        counts = {name: len(read_table(files, folder, own)) for name, files in parts.items()}
        found.splits = [name for name, count in counts.items() for _ in range(count)]
    _name_labels(found, next(iter(parts.values()))[0].parent / "dataset_info.json")
    return found


def _one_dataset(path: Path) -> list[Path]:
    state = json.loads((path / "state.json").read_text())
    if state.get("_indices_data_files"):
        raise DatasetError(f"{path} has rows in another order than its files; save it after dataset.flatten_indices()")
    names = [str(entry["filename"]) for entry in state["_data_files"]]
    return [path / name for name in names if Path(name).name == name]


def _name_labels(found: Vectors, info: Path) -> None:
    """Give labels that are numbers of a ClassLabel their names."""
    if found.labels is None or not info.is_file():
        return
    features = json.loads(info.read_text()).get("features") or {}
    for name, feature in features.items():
        if (
            isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and name in ("label", "labels", "class", "target")
        ):
            classes = feature.get("names") or []
            found.labels = [
                classes[int(text)] if text.isdigit() and int(text) < len(classes) else "" for text in found.labels
            ]
            return


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
            f"{counted(len(files), 'file')} with {len(names):,} vectors: the column slide names the file of each"
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


_LAYOUTS: tuple[Callable[[Path, Path], Vectors | None], ...] = (_saved_datasets, _clip_retrieval, _eva, _thingsvision)
"""The layouts of folders, the most particular first."""

"""Exports of features: what each format holds, and that the tools for which it is made read it."""

from __future__ import annotations

import contextlib
import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import DIMS, begin, keys_of, table, vectors

from featx.errors import CacheMissError, CorruptFileError, OutputError, SettingsError
from featx.features.exchange import export_features
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet

COUNT = 6
COLUMNS = {"patient": ["p1", "p1", "", "p2", "p,3", "p2"], "label": ["x"] * COUNT}
ENDINGS = [".parquet", ".npy", ".csv", ".h5ad", ".safetensors"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two layers, further columns, one of which has the name of an export's own; row 2 failed; the last row has no label."""
    return write(tmp_path / "in" / "photos--lenet5.h5")


def write(path: Path, dtype: str = "float32", **given: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    writer = begin(path, COUNT, dtype=dtype, columns=COLUMNS, **given)
    rows = np.array([0, 1, 3, 4, 5])
    features = {layer: vectors(COUNT, dim, dtype)[rows] for layer, dim in DIMS.items()}
    writer.write(rows, keys_of(COUNT)[rows], features)
    writer.fail(2, keys_of(COUNT)[2].tobytes(), "is cut off")
    writer.finish()
    return path


def expected(file: Path, layer: str = "penultimate") -> np.ndarray:
    return np.asarray(FeatureSet.load(file, layer).features)


def test_parquet_is_read_by_pandas_with_all_layers_and_columns(file: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    exported = export_features(file, tmp_path / "x.parquet")
    frame = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(frame) == [
        "path", "label", "label_index", "split", "key", "patient", "label_", "penultimate", "hidden"
    ]  # fmt: skip
    assert frame.label.tolist() == ["ant", "bee", "bee", "ant", None]
    assert frame.label_index.tolist() == [0, 1, 1, 0, -1]
    assert frame.patient.tolist() == ["p1", "p1", "p2", "p,3", "p2"]
    assert frame.key[0] == keys_of(COUNT)[0].tobytes().hex()
    for layer in DIMS:
        np.testing.assert_array_equal(np.stack(frame[layer]), expected(file, layer))
    assert (exported.images, exported.left_out, exported.layers) == (5, 1, DIMS)
    assert exported.notes == (
        "the column 'label' of the data set is 'label_' in the export, whose own column has that name",
        "1 image failed and has no features, so it is left out",
    )
    origin = json.loads(parquet.read_metadata(tmp_path / "x.parquet").metadata[b"featx_features"])
    header = FeatureFile(file)
    assert (origin["identity"], origin["backbone"]["name"]) == (header.identity, "lenet5")
    assert parquet.read_schema(tmp_path / "x.parquet").field("hidden").type.list_size == 3


def test_parquet_is_read_by_datasets(file: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is an extra")
    export_features(file, tmp_path / "x.parquet")
    rows = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "hub"))
    np.testing.assert_array_equal(np.array(rows["penultimate"], dtype=np.float32), expected(file))


def test_anndata_reads_the_h5ad_file(file: Path, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata is an extra")
    export_features(file, tmp_path / "x.h5ad")
    data = anndata.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(data.X, expected(file))
    np.testing.assert_array_equal(data.obsm["hidden"], expected(file, "hidden"))
    assert data.obs_names.tolist() == FeatureSet.load(file).paths.tolist()
    assert data.obs["label"].tolist()[:4] == ["ant", "bee", "bee", "ant"]
    assert data.obs["label"].isna().tolist() == [False] * 4 + [True]
    assert data.obs["patient"].tolist() == ["p1", "p1", "p2", "p,3", "p2"]
    assert data.uns["featx"]["identity"] == FeatureFile(file).identity
    assert json.loads(data.uns["featx"]["backbone"])["name"] == "lenet5"
    data.write_h5ad(tmp_path / "again.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "again.h5ad").X, data.X)


def test_safetensors_has_a_tensor_for_each_layer(file: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    export_features(file, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    assert sorted(tensors) == ["hidden", "keys", "labels", "penultimate"]
    np.testing.assert_array_equal(tensors["hidden"], expected(file, "hidden"))
    np.testing.assert_array_equal(tensors["labels"], [0, 1, 1, 0, -1])
    with safe_open(tmp_path / "x.safetensors", "np") as opened:
        metadata = {name: json.loads(value) for name, value in opened.metadata().items() if name != "featx"}
    assert metadata["paths"] == FeatureSet.load(file).paths.tolist()
    assert metadata["classes"] == ["ant", "bee"]
    assert metadata["columns"]["patient"] == ["p1", "p1", "p2", "p,3", "p2"]


def test_npy_is_the_matrix_with_a_table_of_names_beside_it(file: Path, tmp_path: Path) -> None:
    exported = export_features(file, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected(file))
    assert exported.names == tmp_path / "x.csv"
    with (tmp_path / "x.csv").open() as names:
        rows = list(csv.DictReader(names))
    assert [row["path"] for row in rows] == FeatureSet.load(file).paths.tolist()
    assert [row["label_index"] for row in rows] == ["0", "1", "1", "0", ""]
    assert rows[3]["patient"] == "p,3"
    joint = export_features(file, tmp_path / "x.npy", layers=["penultimate", "hidden"])  # in the place of the first
    assert joint.layers == {"penultimate,hidden": 8}
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected(file, "penultimate,hidden"))


def test_csv_begins_as_lightly_train_writes_it_and_gives_the_same_numbers(file: Path, tmp_path: Path) -> None:
    export_features(file, tmp_path / "x.csv", layers="hidden")
    with (tmp_path / "x.csv").open() as table_file:
        header, *rows = list(csv.reader(table_file))
    assert header[:5] == ["filename", "embedding_0", "embedding_1", "embedding_2", "label"]
    np.testing.assert_array_equal(np.array([row[1:4] for row in rows], dtype=np.float32), expected(file, "hidden"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_number_survives(ending: str, dtype: str, tmp_path: Path) -> None:
    file = write(tmp_path / "in" / "x.h5", dtype)
    path = tmp_path / f"x{ending}"
    exported = export_features(file, path)
    np.testing.assert_array_equal(matrix_in(path), expected(file).astype(np.float32))
    assert ("float16, and are written as float32" in " ".join(exported.notes)) == (
        dtype == "float16" and ending in (".parquet", ".h5ad")
    )


def matrix_in(path: Path) -> np.ndarray:
    """The first matrix of an export, read by other means than featx's."""
    if path.suffix == ".npy":
        return np.load(path).astype(np.float32)
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 6), dtype=np.float32, quotechar='"')
    if path.suffix == ".h5ad":
        import h5py

        with h5py.File(path) as root:
            return np.asarray(root["X"])
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return np.asarray(load_file(path)["penultimate"].astype(np.float32))
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    return np.stack(parquet.read_table(path)["penultimate"].to_numpy())


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_export_is_replaced_and_nothing_else_is(ending: str, file: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    first = export_features(file, path)
    before = path.read_bytes()
    assert export_features(file, path).bytes == first.bytes
    if ending != ".h5ad":  # HDF5 stores times
        assert path.read_bytes() == before
    mine = tmp_path / f"mine{ending}"
    mine.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists and is not an export of features of featx, so it is not overwritten"):
        export_features(file, mine)
    assert mine.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"in", path.name, mine.name} | ({"x.csv"} if ending == ".npy" else set())
    )


def test_the_csv_of_another_tool_is_not_replaced(file: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "embeddings.csv"
    theirs.write_text("filename,embedding_0,embedding_1\na.jpg,1,2\n")
    with pytest.raises(OutputError, match="is not an export of features"):
        export_features(file, theirs)


def test_the_names_beside_a_matrix_never_replace_another_table(file: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\na.jpg,ant\n")
    with pytest.raises(OutputError, match=r"x\.csv exists and is not a table of names"):
        export_features(file, tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_the_feature_file_is_never_written_over(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.parquet"
    link.symlink_to(file)
    with pytest.raises(OutputError, match="is a file that is read here"):
        export_features(file, link)


def test_a_feature_set_is_exported_with_its_groups(tmp_path: Path) -> None:
    features = FeatureSet.from_arrays(
        np.arange(12.0).reshape(4, 3), ["a", "b", None, "a"], groups=["p", "p", "q", ""], columns={"id": [1, 2, 3, 4]}
    )
    export_features(features, tmp_path / "x.npy")
    with (tmp_path / "x.csv").open() as names:
        rows = list(csv.DictReader(names))
    assert [(row["label"], row["id"], row["group"]) for row in rows] == [
        ("a", "1", "p"), ("b", "2", "p"), ("", "3", "q"), ("a", "4", "")
    ]  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), features.features)


def test_views_stay_apart_where_the_format_can(tmp_path: Path) -> None:
    features = FeatureSet.from_arrays(np.arange(24.0).reshape(4, 2, 3))
    export_features(features, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), features.features)
    with pytest.raises(SettingsError, match="is in 2 views, and a table holds one"):
        export_features(features, tmp_path / "y.csv")
    assert not (tmp_path / "y.csv").exists()


def test_names_that_are_not_utf8_stay_bytes_in_parquet_and_are_marked_elsewhere(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    paths = [b"%02d.png" % row for row in range(COUNT - 1)] + [b"\xff.png"]
    file = write(tmp_path / "in" / "x.h5", images=table(COUNT, paths=paths))
    export_features(file, tmp_path / "x.parquet")
    assert parquet.read_table(tmp_path / "x.parquet")["path"].to_pylist()[-1] == b"\xff.png"
    exported = export_features(file, tmp_path / "x.safetensors")
    assert (
        "1 cell of path hold bytes that are not UTF-8, which are � in the export; .parquet keeps them" in exported.notes
    )


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "x.txt",
            {},
            SettingsError,
            r"x.txt ends in .txt; expected a file that ends in .parquet, .npy, .csv, .h5ad or .safe",
        ),
        ("x", {}, SettingsError, "x ends in nothing; expected"),
        ("x.npy", {"layers": "layer9"}, CacheMissError, "has no layer 'layer9', only penultimate, hidden"),
        ("x.parquet", {"layers": ["layer9"]}, CacheMissError, "has no layer 'layer9'"),
        ("in/photos--lenet5.h5/x.npy", {}, OutputError, "cannot write .*Not a directory"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, options: dict[str, Any], error: type[Exception], message: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export_features(file, tmp_path / name, **options)


def test_one_matrix_is_not_chosen_among_layers_without_a_penultimate(tmp_path: Path) -> None:
    file = tmp_path / "x.h5"
    dims = {"low": 2, "high": 3}
    writer = begin(file, COUNT, dims=dims, identities={"low": "a" * 64, "high": "b" * 64})
    writer.write(range(COUNT), keys_of(COUNT), {layer: vectors(COUNT, dim) for layer, dim in dims.items()})
    writer.finish()
    with pytest.raises(
        SettingsError, match="has the layers low, high, and this format holds one matrix; name one or more"
    ):
        export_features(file, tmp_path / "x.npy")


def test_a_damaged_row_is_not_exported(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[FeatureFile(file).layers["hidden"].offset + 4] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"1 of 5 rows does not match its checksum, the first of 00\.png"):
        export_features(file, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_a_data_frame_has_labels_columns_and_features(file: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is an extra")
    features = FeatureSet.load(file)
    frame = features.to_pandas()
    assert frame.index.tolist() == features.paths.tolist()
    assert list(frame)[:6] == ["label", "split", "key", "patient", "label_", "embedding_0"]
    assert frame.label.tolist()[:4] == ["ant", "bee", "bee", "ant"]
    assert frame.label.isna().tolist() == [False] * 4 + [True]
    np.testing.assert_array_equal(frame.filter(regex="^embedding_").to_numpy(), features.features)
    assert list(features.to_pandas(embeddings=False)) == ["label", "split", "key", "patient", "label_"]
    again = FeatureSet.from_arrays(frame.filter(regex="^embedding_"), frame.label, splits=frame.split, keys=frame.key)
    np.testing.assert_array_equal(again.keys, features.keys)
    assert again.paths.tolist() == features.paths.tolist()
    np.testing.assert_array_equal(again.labels, features.labels)


@pytest.mark.parametrize("ending", [".h5ad", ".parquet"])
def test_an_export_needs_little_memory_beside_its_columns(ending: str, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    code = f"""
        import resource, sys
        import numpy as np
        import featx
        from featx.features.exchange import export_features
        small = featx.FeatureSet.from_arrays(np.zeros((4, 4), np.float32))
        export_features(small, {str(tmp_path / ("small" + ending))!r})
        matrix = np.memmap({str(tmp_path / "matrix")!r}, np.float32, "w+", shape=(50_000, 1024))  # 205 MB, sparse
        del matrix
        matrix = np.memmap({str(tmp_path / "matrix")!r}, np.float32, "r", shape=(50_000, 1024))
        n = len(matrix)
        names = np.arange(n).astype(str).astype(object)
        features = featx.FeatureSet(matrix, np.zeros(n, int), names, ("a",), names, np.zeros((n, 16), np.uint8))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        export_features(features, {str(tmp_path / ("large" + ending))!r})
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    used = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(used.stdout) < 110  # MB; the matrix alone has 205


@contextlib.contextmanager
def _limit_of_files(size: int) -> Iterator[None]:
    """No file may grow beyond a size, as on a full disk."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".h5ad", ".safetensors", ".csv"])
def test_a_file_that_cannot_be_finished_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    rows = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    out = tmp_path / f"x{ending}"
    export_features(FeatureSet.from_arrays(rows[:5], ["a", "b", "a", "b", "a"]), out)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for target in (out, tmp_path / f"new{ending}"):
        with _limit_of_files(50_000), pytest.raises(OutputError, match=r"cannot write .*File too large.*ulimit -f"):
            export_features(FeatureSet.from_arrays(rows, ["a", "b"] * 200), target)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_disk_without_room_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = FeatureSet.from_arrays(np.ones((40, 6), np.float32), ["a", "b"] * 20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(
        OutputError, match=r"x\.npy needs 960 bytes, and 100 bytes are free; name another disk with --to"
    ):
        export_features(features, tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []

"""The columns that a user names, in every layout; files of scanpy; lists of numbers in cells of text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featx.errors import CacheMissError, DatasetError
from featx.features.exchange import import_features
from featx.features.exchange.layouts import read_vectors
from featx.features.feature_set import FeatureSet

N = 12
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
NAMES = [f"{number:02d}.jpg" for number in range(N)]
BREEDS = ["pug", "collie", "tabby"] * 4


def _imported(source: Path, **options: Any) -> tuple[FeatureSet, tuple[str, ...]]:
    found = import_features(source, out=source.parent / "out" / "f.h5", **options)
    return FeatureSet.load(found.path), found.notes


def _classes(features: FeatureSet) -> list[str]:
    return [features.classes[label] for label in features.labels.tolist()]


def _npz(folder: Path) -> Path:
    np.savez(
        folder / "x.npz", features=X, breed=np.array(BREEDS), label=np.array(["a", "b"] * 6), paths=np.array(NAMES)
    )
    return folder / "x.npz"


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as root:
        root["features"], root["breed"], root["label"] = X, BREEDS, ["a", "b"] * 6
    return folder / "x.h5"


def _csv(folder: Path) -> Path:
    rows = [[name, breed, "a", *row] for name, breed, row in zip(NAMES, BREEDS, X.tolist(), strict=True)]
    lines = [["path", "breed", "label", *(f"e{at}" for at in range(5))], *rows]
    (folder / "x.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return folder / "x.csv"


def _saved_datasets(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets", reason="datasets is an extra")
    kinds = {
        "emb": datasets.Sequence(datasets.Value("float32"), length=5),
        "breed": datasets.ClassLabel(names=sorted(set(BREEDS))),
        "label": datasets.ClassLabel(names=["a", "b"]),
    }
    table = {"emb": X.tolist(), "breed": BREEDS, "label": ["a", "b"] * 6}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(table, features=datasets.Features(kinds)).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("make", [_npz, _hdf5, _csv, _saved_datasets])
def test_a_named_column_gives_the_labels_in_every_layout(tmp_path: Path, make: Any) -> None:
    features, _ = _imported(make(tmp_path), label_column="breed")
    assert _classes(features) == BREEDS
    assert sorted(set(features.columns["label"])) in (["a", "b"], ["a"])  # the usual name is a further column now


@pytest.mark.parametrize("make", [_npz, _hdf5, _csv])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DatasetError, match=r"has no column 'nope'; it has .*breed"):
        import_features(make(tmp_path), label_column="nope", cache=tmp_path / "c")


def test_the_columns_of_a_table_of_names_are_named_too(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    rows = [f"{name},{breed}\n" for name, breed in zip(NAMES, BREEDS, strict=True)]
    (tmp_path / "n.csv").write_text("".join(["who,what\n", *rows]))
    features, _ = _imported(tmp_path / "x.npy", names=tmp_path / "n.csv", path_column="who", label_column="what")
    assert (_classes(features), features.paths.tolist()) == (BREEDS, NAMES)


def test_the_vectors_of_a_file_of_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=X, pooled=X[:, :2])
    found = read_vectors(tmp_path / "x.npz", tmp_path, columns={"vectors": "pooled"})
    assert {name: matrix.shape[1] for name, matrix in found.layers.items()} == {"penultimate": 2, "features": 5}
    assert (
        read_vectors(tmp_path / "x.npz", tmp_path, columns={"vectors": "features"}).layers["penultimate"].shape[1] == 5
    )
    with pytest.raises(DatasetError, match="has no vectors named 'other'; it has features, pooled"):
        read_vectors(tmp_path / "x.npz", tmp_path, columns={"vectors": "other"})


def test_numbers_in_columns_stay_as_they_were_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root["features"], root["label"] = X, np.arange(N) / 10
        root["weight"], root["id"] = (np.arange(N) / 10).astype(np.float32), np.arange(N, dtype=np.uint64) + 2**63
    features, _ = _imported(tmp_path / "x.h5")
    assert sorted(map(float, features.classes)) == [number / 10 for number in range(N)]
    assert list(map(float, features.columns["weight"])) == [number / 10 for number in range(N)]
    assert features.paths.tolist() == [str(2**63 + number) for number in range(N)]


# Files of scanpy


@pytest.fixture
def anndata() -> Any:
    return pytest.importorskip("anndata", reason="anndata is an extra")


def _cells(anndata: Any, matrix: Any) -> Any:
    import pandas

    obs = {"cell_type": pandas.Categorical(BREEDS), "score": np.arange(N) / 8, "ok": np.arange(N) % 2 == 0}
    obs |= {"few": pandas.array([1, None] * 6, dtype="Int64")}
    found = anndata.AnnData(matrix, obs=pandas.DataFrame(obs, index=NAMES))
    found.obsm["X_pca"] = X[:, :2].copy()
    return found


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix"])
def test_sparse_matrices_of_scanpy(tmp_path: Path, anndata: Any, kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    positive = np.maximum(X, 0)
    cells = _cells(anndata, getattr(sparse, kind)(positive))
    cells.layers["counts"] = sparse.csr_matrix(positive)
    cells.write_h5ad(tmp_path / "x.h5ad")
    features, notes = _imported(tmp_path / "x.h5ad", label_column="cell_type")
    assert np.array_equal(features.features, positive)
    assert features.paths.tolist() == NAMES
    assert _classes(features) == BREEDS
    assert list(map(float, features.columns["score"])) == (np.arange(N) / 8).tolist()
    assert features.columns["few"].tolist() == ["1", ""] * 6
    assert any("X of x.h5ad is sparse" in note for note in notes)
    pca = FeatureSet.load(tmp_path / "out" / "f.h5", layer="X_pca")
    assert np.array_equal(pca.features, X[:, :2])


def test_without_x_the_widest_embedding_is_the_penultimate_layer(tmp_path: Path, anndata: Any) -> None:
    import pandas

    cells = anndata.AnnData(obs=pandas.DataFrame(index=NAMES), obsm={"X_a2d": X[:, :2].copy(), "X_uni": X})
    cells.write_h5ad(tmp_path / "x.h5ad")
    found = read_vectors(tmp_path / "x.h5ad", tmp_path)
    assert {name: matrix.shape[1] for name, matrix in found.layers.items()} == {"penultimate": 5, "X_a2d": 2}
    assert "has no X; the layer penultimate is X_uni of obsm" in found.notes[0]


def _sparse_file(path: Path, **parts: Any) -> Path:
    with h5py.File(path, "w") as root:
        root.attrs["encoding-type"] = "anndata"
        group = root.create_group("X")
        group.attrs["encoding-type"] = "csr_matrix"
        group.attrs["shape"] = parts.pop("shape", (2, 3))
        for name, values in {"data": [1.0, 2.0], "indices": [0, 2], "indptr": [0, 1, 2], **parts}.items():
            group[name] = np.array(values)
    return path


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"indices": [0, 3]}, "outside its 3 places"),
        ({"indices": [0, -1]}, "outside its 3 places"),
        ({"indptr": [0, 2, 1]}, "do not follow one another"),
        ({"indptr": [0, 1]}, "do not fit its shape"),
        ({"shape": (1 << 40, 3)}, "do not fit its shape"),
        ({"shape": (2, 1 << 40)}, "takes 8,796,093,022,208 bytes with its zeros"),
        ({"shape": ()}, "malformed"),
    ],
)
def test_a_hostile_sparse_matrix_is_one_clear_line(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_vectors(_sparse_file(tmp_path / "x.h5ad", **parts), tmp_path)
    assert read_vectors(_sparse_file(tmp_path / "y.h5ad"), tmp_path).layers["penultimate"].tolist() == [
        [1, 0, 0],
        [0, 0, 2],
    ]


def _no_group(root: h5py.File) -> None:
    root["X"], root["obsm"], root["obs"] = X, X, np.zeros(N, dtype=[("index", "S4")])


def _wrong_lengths(root: h5py.File) -> None:
    root["X"] = X
    obs = root.create_group("obs")
    obs.attrs["_index"], obs.attrs["column-order"] = "nowhere", ["n"]
    obs["n/values"], obs["n/mask"] = np.arange(3), np.zeros(N, bool)


def _groups_for_parts(root: h5py.File) -> None:
    group = root.create_group("X")
    group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", [2, 2]
    group.create_group("data")
    group["indices"], group["indptr"] = [0], [0, 1, 1]


@pytest.mark.parametrize(
    ("make", "message"), [(_no_group, ""), (_wrong_lengths, "cannot be read: zip"), (_groups_for_parts, "'Group'")]
)
def test_an_odd_file_of_scanpy_is_read_or_refused_by_its_reader(tmp_path: Path, make: Any, message: str) -> None:
    with h5py.File(tmp_path / "x.h5ad", "w") as root:
        root.attrs["encoding-type"] = "anndata"
        make(root)
    if message:
        with pytest.raises(DatasetError, match=f"x.h5ad cannot be read: .*{message.rpartition(' ')[2]}"):
            read_vectors(tmp_path / "x.h5ad", tmp_path)
    else:
        assert read_vectors(tmp_path / "x.h5ad", tmp_path).layers["penultimate"].tolist() == X.tolist()


# Lists in text, and other forms of one matrix


@pytest.mark.parametrize("form", ["[{}, {}]", "({}, {})", "[{} {}]", "tensor([{}, {}])", "array([{}, {}], dtype=float32)",
                                  "{} {}", "{},{}", "tensor([{}, {}], device='cuda:0')"])  # fmt: skip
def test_lists_of_numbers_in_a_cell(tmp_path: Path, form: str) -> None:
    rows = ['a.jpg,,"x,y"', *(f'{at}.jpg,"{form.format(at + 0.5, -1e-3)}","x,y"' for at in range(3))]
    (tmp_path / "x.csv").write_text("path,embedding,caption\n" + "\n".join(rows) + "\n")
    found = read_vectors(tmp_path / "x.csv", tmp_path)
    assert found.layers["penultimate"][1:].tolist() == np.array([[at + 0.5, -1e-3] for at in range(3)], "f4").tolist()
    assert np.isnan(found.layers["penultimate"][0]).all()  # one without numbers fails alone


def test_rows_under_one_key_of_json(tmp_path: Path) -> None:
    rows = [
        {"filepath": name, "ground_truth": {"label": breed}, "embedding": row}
        for name, breed, row in zip(NAMES, BREEDS, X.tolist(), strict=True)
    ]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": rows}))
    features, _ = _imported(tmp_path / "samples.json", label_column="ground_truth")
    assert (_classes(features), features.paths.tolist()) == (BREEDS, NAMES)


def test_a_matrix_in_numbered_parts_is_no_set_of_slides(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(N):
        np.save(tmp_path / "p" / f"embeddings_{number}.npy", X[number : number + 1].repeat(2, axis=0))
    found = read_vectors(tmp_path / "p", tmp_path)
    assert found.layers["penultimate"][::2].tolist() == X.tolist()  # part 10 after part 9
    assert (found.tool, list(found.columns)) == ("npy", [])


def test_the_folder_of_vectors_of_clip_retrieval_brings_its_metadata(tmp_path: Path) -> None:
    from foreign_layouts import NAMES as OF_CLIP
    from foreign_layouts import clip_retrieval

    found = read_vectors(clip_retrieval(tmp_path / "clip") / "img_emb", tmp_path)
    assert [os.path.relpath(name, "/data") for name in found.names or []] == OF_CLIP


def test_thingsvision_as_csv(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    lines = [["", *range(5)], *([at, *row] for at, row in enumerate(X.tolist()))]
    (tmp_path / "t" / "features.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    (tmp_path / "t" / "file_names.txt").write_text("\n".join(NAMES))
    found = read_vectors(tmp_path / "t", tmp_path)
    assert (found.names, found.layers["penultimate"].tolist()) == (NAMES, X.tolist())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.index", b"IxFI", r"is an index for searching.*reconstruct_n"),
        ("x.csv.gz", b"\x1f\x8b\x08", "is packed; unpack it"),
        ("saved/dataset_dict.json", b"{}", "has no list 'splits'"),
        ("saved/dataset_dict.json", b'["splits"]', "cannot be read"),
        ("saved/state.json", b"[1", "as datasets writes it, cannot be read"),
        ("saved/state.json", b'{"_data_files": [{"filename": "a.arrow"}]}', "names a.arrow, which is not there"),
    ],
)
def test_what_cannot_be_read_is_told_with_a_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_vectors(file.parent if file.suffix == ".json" else file, tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DatasetError, match="is no regular file"):
        read_vectors(tmp_path / "x.npy", tmp_path)


def test_no_command_is_said_to_add_a_layer_to_imported_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=X, pooled=X[:, :2])
    import_features(tmp_path / "x.npz", out=tmp_path / "x.h5")
    with pytest.raises(CacheMissError, match=r"has no layer .other., only penultimate, pooled; name one of these$"):
        FeatureSet.load(tmp_path / "x.h5", layer="other")

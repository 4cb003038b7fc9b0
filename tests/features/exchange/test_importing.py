"""Imports of other tools' features: each layout gives the same matrix, with its names, labels and splits."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign_layouts import (
    LAYOUTS,
    NAMES,
    X,
    clip_retrieval,
    datasets_folder,
    files_of_images,
    lightly_train,
    lists_in_parquet,
    modules,
    slide_vectors,
    slides,
    thingsvision,
)  # fmt: skip
from PIL import Image

import featx
from featx.data.file_bytes import image_key
from featx.errors import DatasetError, OutputError, SettingsError, StaleCacheError
from featx.features.exchange import export_features, import_features
from featx.features.exchange.joining import match_names
from featx.features.feature_file import FAILED, FeatureFile
from featx.features.feature_set import FeatureSet


def imported(source: Path, tmp_path: Path, **options: Any) -> tuple[featx.FeatureImport, FeatureSet]:
    result = import_features(source, cache=tmp_path / "cache", **options)
    return result, FeatureSet.load(result.path, next(iter(result.layers)))


def saved(folder: Path, matrix: np.ndarray = X, names: list[str] | None = None) -> Path:
    """A matrix with names beside it."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", matrix)
    (folder / "x.txt").write_text("\n".join(NAMES if names is None else names))
    return folder / "x.npy"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_vectors_names_and_identity(layout: str, tmp_path: Path) -> None:
    result, features = imported(LAYOUTS[layout](tmp_path), tmp_path)
    np.testing.assert_allclose(features.features, X, rtol=1e-7)
    assert features.paths.tolist() == NAMES
    labels = [features.classes[label] for label in features.labels.tolist()]
    assert labels == (
        [str(row // 6) for row in range(12)] if layout in ("eva", "npz") else [name[:3] for name in NAMES]
    )
    assert (result.images, result.failed, result.layers) == (12, 0, {"penultimate": 5})
    assert len(np.unique(features.keys, axis=0)) == 12
    np.save(tmp_path / "same.npy", X)
    assert result.identity == import_features(tmp_path / "same.npy", out=tmp_path / "same.h5").identity
    assert result.identity.startswith("foreign:")
    assert set(features.splits) <= {"train", "val", "test"}


def test_clip_retrieval_joins_its_parts_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    result, features = imported(clip_retrieval(tmp_path / "clip"), tmp_path)
    np.testing.assert_array_equal(features.features, X.astype(np.float16))
    assert features.features.dtype == np.float16
    assert features.paths.tolist() == NAMES  # relative to /data, where all of them lie
    assert features.dataset["root"] == "/data"
    assert features.classes == ("ant", "bee")
    assert features.columns["caption"].tolist() == [f"a photo {row}" for row in range(12)]
    assert result.tool == "clip-retrieval"


def test_modules_of_thingsvision_are_layers(tmp_path: Path) -> None:
    result, _ = imported(modules(tmp_path / "vision"), tmp_path)
    assert result.layers == {"avgpool": 2, "features.10": 5}
    file = FeatureFile(result.path)
    np.testing.assert_array_equal(file.features("features.10"), X)
    np.testing.assert_array_equal(file.features("avgpool"), X[:, :2])
    assert len(set(file.identities.values())) == 2


def test_patches_of_slides_are_rows_with_their_slide_and_place(tmp_path: Path) -> None:
    result, features = imported(slides(tmp_path / "slides"), tmp_path)
    np.testing.assert_array_equal(features.features, X)
    assert features.paths[:2].tolist() == ["slide_0/0_0", "slide_0/256_0"]
    assert features.columns["slide"].tolist() == [f"slide_{row // 4}" for row in range(12)]
    assert features.columns["x"][5] == "1280"
    assert "the column slide names the file of each" in " ".join(result.notes)
    (tmp_path / "labels.csv").write_text("slide_id,label\nslide_0,tumour\nslide_1,normal\nslide_2,tumour\n")
    _, labelled = imported(
        slides(tmp_path / "again"), tmp_path, labels=tmp_path / "labels.csv", path_column="slide_id", name="labelled"
    )
    assert [labelled.classes[label] for label in labelled.labels[::4]] == ["tumour", "normal", "tumour"]


def test_a_vector_for_each_file_is_a_row(tmp_path: Path) -> None:
    _, of_slides = imported(slide_vectors(tmp_path / "slides"), tmp_path)
    np.testing.assert_array_equal(of_slides.features, X)
    assert of_slides.paths[:2].tolist() == ["slide_00", "slide_01"]
    _, of_images = imported(files_of_images(tmp_path / "photos"), tmp_path)
    np.testing.assert_array_equal(of_images.features, X)
    assert of_images.paths[0] == "ant/00"
    assert of_images.classes == ("ant", "bee")


def test_data_sets_that_datasets_saved_have_splits_and_named_classes(tmp_path: Path) -> None:
    _, features = imported(datasets_folder(tmp_path / "saved"), tmp_path)
    order = [NAMES.index(path) for path in features.paths]
    np.testing.assert_array_equal(features.features, X[order])
    assert features.classes == ("ant", "bee")
    assert [features.classes[label] for label in features.labels] == [NAMES[row][:3] for row in order]
    assert features.splits.tolist() == ["train"] * 6 + ["test"] * 6


def test_further_columns_of_a_table_are_kept_and_whole_floats_are_integers(tmp_path: Path) -> None:
    _, features = imported(lists_in_parquet(tmp_path / "x.parquet"), tmp_path)
    assert features.columns["camera"].tolist() == ["1", *["2"] * 11]


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".csv", ".h5ad", ".safetensors"])
def test_an_export_comes_back_as_it_was(ending: str, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    first = FeatureSet.from_arrays(
        X, ["a", "b", None, "a|b", "a", "b"] * 2, paths=NAMES, splits=["train", "val", "test"] * 4,
        columns={"patient": [f"p{row}" for row in range(12)]},
    )  # fmt: skip
    export_features(first, tmp_path / f"x{ending}")
    _, again = imported(tmp_path / f"x{ending}", tmp_path)
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.keys, first.keys)
    for name in ("paths", "splits", "labels"):
        assert getattr(again, name).tolist() == getattr(first, name).tolist(), name
    assert again.classes == first.classes
    assert again.columns["patient"].tolist() == first.columns["patient"].tolist()
    assert list(again.columns) == ["patient"]


def test_images_give_their_keys_paths_and_classes(tmp_path: Path) -> None:
    for row, name in enumerate(NAMES):
        file = tmp_path / "photos" / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (row, 0, 0)).save(file)
    (tmp_path / "photos" / "train" / NAMES[3]).unlink()
    source = saved(
        tmp_path / "in",
        names=[Path(name).stem + f"_{name[:3]}" if row == 5 else f"/far/{name}" for row, name in enumerate(NAMES)],
    )
    result, features = imported(source, tmp_path, images=tmp_path / "photos")
    assert result.with_images == 10
    notes = " ".join(result.notes)
    assert "2 images of 12 are not there (/far/ant/03.jpg, 05_ant); their keys are hashes of the vectors" in notes
    assert features.paths[0] == "train/ant/00.jpg"
    assert features.keys[0].tobytes() == image_key((tmp_path / "photos" / "train" / NAMES[0]).read_bytes())
    assert features.keys[3].any()
    assert features.dataset["root"] == str(tmp_path / "photos")
    assert features.classes == ("ant", "bee")
    found = featx.search(result.path, tmp_path / "photos" / "train" / NAMES[0], top=1)
    assert found[0].row == 0


def test_names_match_by_folders_from_the_right_then_without_endings() -> None:
    candidates = ["a/x/1.jpg", "b/x/1.jpg", "b/2.png", "c/3.png", "d/3.png"]
    names = ["b/x/1.jpg", "/root/a/x/1.jpg", "x/1.jpg", "2", "b/2.jpg", "3.jpg", "4.jpg"]
    assert match_names(names, candidates).tolist() == [1, 0, -2, 2, 2, -2, -1]


def test_labels_splits_and_columns_come_from_a_table(tmp_path: Path) -> None:
    rows = [
        f"{name},{'cat' if row % 2 else 'dog'},{'test' if row > 8 else 'training'},s{row}"
        for row, name in enumerate(NAMES)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split,scanner", *rows[1:], "other.jpg,cat,test,s9"]))
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split,scanner", *rows, "other.jpg,cat,test,s9"]))
    result, features = imported(saved(tmp_path / "in"), tmp_path, labels=tmp_path / "labels.csv")
    assert [features.classes[label] for label in features.labels[:4]] == ["dog", "cat", "dog", "cat"]
    assert features.splits.tolist() == ["train"] * 9 + ["test"] * 3
    assert features.columns["scanner"][11] == "s11"
    assert "labels.csv has 1 row of no vector" in " ".join(result.notes)


def test_rows_that_are_not_finite_fail_alone(tmp_path: Path) -> None:
    matrix = X.astype(np.float64)
    matrix[1, 2], matrix[4], matrix[7, 0] = np.nan, np.inf, 1e300
    result, features = imported(saved(tmp_path / "in", matrix), tmp_path)
    assert (result.images, result.failed, len(features)) == (12, 3, 9)
    file = FeatureFile(result.path)
    assert np.flatnonzero(file.status == FAILED).tolist() == [1, 4, 7]
    assert file.error(1) == "the vector holds NaN or infinity (1 of 5 numbers)"
    assert file.error(7) == "the vector holds numbers that are too large for float32 (1 of 5 numbers)"
    assert "the vectors are float64, and are stored as float32" in result.notes
    assert file.checksums_match("penultimate", np.flatnonzero(file.status != FAILED)).all()


def test_a_declared_network_lets_heads_of_one_import_judge_another(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", X + 0.25)
    apart = [
        import_features(each, out=tmp_path / f"{number}.h5").identity for number, each in enumerate((first, second))
    ]
    assert apart[0] != apart[1]
    named = [
        import_features(each, out=tmp_path / f"named{number}.h5", backbone="ViT-B-32")
        for number, each in enumerate((first, second))
    ]
    assert named[0].identity == named[1].identity
    head = featx.Head("ridge", C=1.0).fit(FeatureSet.load(named[0].path), split="all")
    loaded = featx.Head.load(head.save(tmp_path / "head.safetensors"))
    assert loaded.evaluate(FeatureSet.load(named[1].path), split="all").n == 12
    predicted = featx.predict(tmp_path / "head.safetensors", str(named[1].path))
    assert [each.path for each in predicted] == NAMES
    assert all(each.value in ("ant", "bee") for each in predicted)


def test_repeated_names_are_dropped_if_equal_and_refused_if_not(tmp_path: Path) -> None:
    names = [*NAMES, NAMES[2]]
    result, features = imported(saved(tmp_path / "a", np.concatenate([X, X[2:3]]), names), tmp_path)
    assert len(features) == 12
    assert "1 vector with the name and numbers of an earlier one is left out" in result.notes
    with pytest.raises(
        DatasetError, match=r"two vectors are named 'ant/02.jpg', number 3 and number 13, and they differ"
    ):
        import_features(saved(tmp_path / "b", np.concatenate([X, X[:1]]), names), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda f: f / "nothing", {}, "there is no file or folder .*nothing"),
        (lambda f: saved(f / "in", names=NAMES[:-1]), {}, "x.txt has 11 names for 12 vectors"),
        (lambda f: saved(f / "in", X[0]), {}, "x.txt has 12 names for 1 vector"),
        (lambda f: saved(f / "in", np.zeros((12, 4, 7, 7))), {}, r"of shape \(12, 4, 7, 7\); expected \(N, D\).*Average or"),
        (lambda f: saved(f / "in", np.array(NAMES)), {}, "holds <U10; expected numbers"),
        (lambda f: saved(f / "in", X[:0], []), {}, "there are no vectors"),
        (lambda f: saved(f / "in", X * np.nan), {}, "no vector is finite; ant/00.jpg: the vector holds NaN"),
        (lambda f: saved(f / "in", names=["", *NAMES[1:]]), {}, "the name of vector 1 is ''"),
        (lambda f: saved(f / "in"), {"labels": "none.csv"}, "cannot read|there is no"),
        (lambda f: saved(f / "in"), {"names": "none.txt"}, "there is no file none.txt of names"),
        (lambda f: (f / "x.csv", (f / "x.csv").write_text("a.jpg,1,2,3\nb.jpg,3,4,5\n"))[0], {}, "numbers in its first line"),
        (lambda f: (f / "x.csv", (f / "x.csv").write_text("path,label\na,b\n"))[0], {}, "has no embeddings: expected columns"),
        (lambda f: (f / "x.csv", (f / "x.csv").write_text("path,e_0,e_1\na,1\n"))[0], {}, "a row of 2 cells .*expected 3"),
        (lambda f: (f / "x.csv", (f / "x.csv").write_text("path,e_0,e_1\na,1,x\n"))[0], {}, "a cell among e_0 to e_1"),
        (lambda f: (f / "x.jsonl", (f / "x.jsonl").write_text("{"))[0], {}, "line 1: not JSON"),
        (lambda f: (f / "x.npy", (f / "x.npy").write_bytes(b"\x93NUMPY"))[0], {}, "x.npy cannot be read"),
        (lambda f: (f / "x.npz", (f / "x.npz").write_bytes(b"PK\x03\x04"))[0], {}, "x.npz cannot be read"),
        (lambda f: (f / "x.safetensors", (f / "x.safetensors").write_bytes(b"1234"))[0], {}, "x.safetensors cannot be read"),
        (lambda f: (f / "x.h5", (f / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n"))[0], {}, "x.h5 cannot be read"),
        (lambda f: (f / "x.mat", (f / "x.mat").write_bytes(b"nothing"))[0], {}, "x.mat cannot be read"),
        (lambda f: (f / "x.pt", (f / "x.pt").write_bytes(b"nothing"))[0], {}, "x.pt is not a file of tensors"),
        (lambda f: (f / "x.zip", (f / "x.zip").write_bytes(b"PK"))[0], {}, "x.zip is none of .npy"),
        (lambda f: (f / "empty", (f / "empty").mkdir())[0], {}, "empty has no file that ends in .npy"),
        (lambda f: lightly_train(f / "x.csv"), {"path_column": "file"}, "has no column .file.; it has filename"),
        (lambda f: lightly_train(f / "x.csv"), {"vector_column": "emb"}, "has no column 'emb'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_leaves_nothing(
    make: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = make(tmp_path)
    with pytest.raises(DatasetError, match=message):
        import_features(source, cache=tmp_path / "cache", **options)
    assert not list((tmp_path / "cache").glob("*.h5*"))


def test_a_feature_file_of_featx_is_not_imported(tmp_path: Path) -> None:
    result, _ = imported(saved(tmp_path / "in"), tmp_path)
    with pytest.raises(DatasetError, match="is a feature file of featx already; name it where FEATURES is expected"):
        import_features(result.path, cache=tmp_path / "other")


def test_the_vectors_are_never_written_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.create_dataset("features", data=X)
    before = (tmp_path / "x.h5").read_bytes()
    with pytest.raises(OutputError, match="is a file that is read here"):
        import_features(tmp_path / "x.h5", out=tmp_path / "x.h5")
    assert (tmp_path / "x.h5").read_bytes() == before


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"features": torch.from_numpy(X), "more": Bomb()}, tmp_path / "x.pt")
    with pytest.raises(
        DatasetError,
        match=r"holds other objects than tensors, such as getattr, which are not loaded since they could run code",
    ):
        import_features(tmp_path / "x.pt", cache=tmp_path / "cache")
    np.save(tmp_path / "x.npy", np.array([{"a": Bomb()}], dtype=object))
    with pytest.raises(DatasetError, match=r"cannot be read: .*Python objects"):
        import_features(tmp_path / "x.npy", cache=tmp_path / "cache")
    assert not (tmp_path / "exploded").exists()


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "eva").mkdir()
    (tmp_path / "eva" / "manifest.csv").write_text("origin,embeddings\na.jpg,../secret.pt\n")
    with pytest.raises(DatasetError, match=r"names \.\./secret\.pt, which is not in"):
        import_features(tmp_path / "eva", cache=tmp_path / "cache")


def test_classes_in_names_and_groups_in_folders_are_read_as_asked(tmp_path: Path) -> None:
    names = [f"site{row % 2}/{'cat' if row < 6 else 'dog'}.{row}.jpg" for row in range(12)]
    _, features = imported(
        saved(tmp_path / "in", names=names), tmp_path, label_pattern=r"(?P<label>\w+?)\.\d+", group_level=1
    )
    assert features.classes == ("cat", "dog")
    assert features.columns["group"].tolist()[:2] == ["site0", "site1"]


def test_a_thousand_layers_of_names_are_safe(tmp_path: Path) -> None:
    names = ["=cmd()", "café/ü.jpg", "with space.jpg", "new\nline.jpg", "x" * 300 + ".jpg", *NAMES[5:]]
    np.save(tmp_path / "x.npy", X)
    with (tmp_path / "names.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["path"], *[[name] for name in names]])
    _, features = imported(tmp_path / "x.npy", tmp_path, names=tmp_path / "names.csv")
    assert features.paths.tolist() == names


def test_an_import_again_replaces_the_same_file_and_no_other(tmp_path: Path) -> None:
    source = thingsvision(tmp_path / "vision", "npy")
    first, _ = imported(source, tmp_path)
    assert imported(source, tmp_path)[0].path == first.path
    np.save(source / "features.npy", X + 1)
    other = imported(source, tmp_path)[0]
    assert other.path != first.path
    assert FeatureFile(first.path).identity != FeatureFile(other.path).identity
    (tmp_path / "mine.h5").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists and is not a feature file"):
        import_features(source, out=tmp_path / "mine.h5")


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no option 'colour' of data"):
        import_features(saved(tmp_path / "in"), cache=tmp_path, colour="red")


def test_the_origin_is_kept(tmp_path: Path) -> None:
    export_features(FeatureSet.from_arrays(X, paths=NAMES, name="photos"), tmp_path / "x.safetensors")
    result, features = imported(tmp_path / "x.safetensors", tmp_path)
    assert result.path.name == "photos--featx.h5"
    assert features.backbone["parts"]["foreign"]["origin"]["dataset"]["name"] == "photos"
    assert json.dumps(result.as_dict())


def test_images_in_the_same_parquet_file_are_not_read_and_give_the_names(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    images = pyarrow.array([{"bytes": b"\x89PNG" * 9, "path": name} for name in NAMES])
    columns = {
        "image": images,
        "thumbnail": pyarrow.array([b"\xff\xd8"] * 12),
        "bbox": pyarrow.array([[1, 2, 3, 4]] * 12),
        "scores": pyarrow.array([[0.5] * (row % 3) for row in range(12)]),
        "clip_embedding": pyarrow.array(X.tolist()),
        "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(X.astype(np.float16).ravel()), 5),
        "when": pyarrow.array(np.arange(12), pyarrow.timestamp("s")),
        "category": pyarrow.array(["a", "b", None] * 4).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    result, features = imported(tmp_path / "x.parquet", tmp_path)
    assert result.layers == {"penultimate": 5, "clip_embedding": 5}
    assert features.paths.tolist() == NAMES
    assert sorted(features.columns) == ["bbox", "scores", "when"]
    assert [features.classes[label] if label >= 0 else None for label in features.labels[:3]] == ["a", "b", None]
    assert features.columns["bbox"][0] == "[1, 2, 3, 4]"


def test_arrays_whose_names_tell_splits_are_put_one_after_the_other(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        train_features=X[:8],
        train_labels=np.arange(8) % 2,
        test_features=X[8:],
        test_labels=[1] * 4,
    )
    result, features = imported(tmp_path / "x.npz", tmp_path)
    np.testing.assert_array_equal(features.features, X)
    assert features.splits.tolist() == ["train"] * 8 + ["test"] * 4
    assert [features.classes[label] for label in features.labels] == ["0", "1"] * 4 + ["1"] * 4
    assert result.splits == {"test": 4, "train": 8}
    with h5py.File(tmp_path / "x.h5", "w") as root:
        for split, rows in {"train": slice(0, 8), "val": slice(8, 12)}.items():
            root[f"{split}/features"], root[f"{split}/labels"] = X[rows], np.arange(12)[rows] % 3
    _, grouped = imported(tmp_path / "x.h5", tmp_path, name="grouped")
    np.testing.assert_array_equal(grouped.features, X)
    assert grouped.splits.tolist() == ["train"] * 8 + ["val"] * 4


def test_a_dictionary_of_tensors_and_lists_has_labels_of_every_form(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    held = {
        "embeddings": torch.from_numpy(X).to(torch.bfloat16),
        "paths": NAMES,
        "targets": torch.arange(12)[:, None] % 4,
    }
    torch.save(held, tmp_path / "x.pt")
    _, features = imported(tmp_path / "x.pt", tmp_path)
    np.testing.assert_allclose(features.features, X, rtol=1e-2)
    assert features.paths.tolist() == NAMES
    assert features.classes == ("0", "1", "2", "3")
    table = np.zeros((12, 3), dtype=np.int64)
    table[1, [0, 2]] = table[2, 1] = 1
    np.savez(tmp_path / "y.npz", X=X, labels=table)
    _, several = imported(tmp_path / "y.npz", tmp_path)
    assert [several.classes[label] for label in several.labels[:3]] == ["|", "0|2", "1"]


def test_numbers_to_predict_make_a_regression(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "path,target,e_0,e_1\n" + "\n".join(f"{row}.jpg,{row / 7:.3f},{row},{-row}" for row in range(40))
    )
    result, features = imported(tmp_path / "x.csv", tmp_path)
    assert featx.Head("ridge").fit(features).task_ == "regression"
    assert result.classes == 40


@pytest.mark.parametrize("held", [3, {"a": 1}, [{"a": 1}], [], {}])
def test_tensor_files_without_tensors_are_one_message(held: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(DatasetError, match=r"holds .*expected a tensor|holds no array of numbers"):
        import_features(tmp_path / "x.pt", cache=tmp_path / "cache")


def test_decimals_with_commas_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("filename;f0;f1\na.jpg;0,5;1\nb.jpg;2;-1,25\n")
    _, features = imported(tmp_path / "x.csv", tmp_path)
    np.testing.assert_array_equal(features.features, [[0.5, 1], [2, -1.25]])


def test_files_of_several_vectors_are_no_classes_but_their_folders_are(tmp_path: Path) -> None:
    for number, label in enumerate(["normal", "tumour", "normal"]):
        (tmp_path / "flat").mkdir(exist_ok=True)
        np.save(tmp_path / "flat" / f"part_{number}.npy", X[4 * number : 4 * number + 4])
        (tmp_path / "nested" / label).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "nested" / label / f"slide_{number}.npy", X[4 * number : 4 * number + 4])
    _, flat = imported(tmp_path / "flat", tmp_path)
    assert flat.classes == ()
    _, nested = imported(tmp_path / "nested", tmp_path)
    assert [nested.classes[label] for label in nested.labels[::4]] == ["normal", "normal", "tumour"]


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((20_000, 1024), np.float32))
    with pytest.raises(
        DatasetError, match=r"x\.npz has features\.npy, of 81,920,128 bytes that take [\d,]+ in the file"
    ):
        import_features(tmp_path / "x.npz", cache=tmp_path / "cache")


def test_patches_of_a_slide_share_a_split(tmp_path: Path) -> None:
    for slide in range(30):
        (tmp_path / "h5").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "h5" / f"s{slide}.h5", "w") as file:
            file["features"] = np.random.default_rng(slide).normal(size=(4, 3)).astype(np.float32)
    table = ["case_id,slide_id,label", *(f"c{slide},s{slide}.svs,{'ab'[slide % 2]}" for slide in range(30))]
    (tmp_path / "clinical.csv").write_text("\n".join(table))  # without --path-column: the column of slides is known
    _, features = imported(tmp_path / "h5", tmp_path, labels=tmp_path / "clinical.csv")
    of_slide = {name: set(features.splits[features.columns["slide"] == name]) for name in features.columns["slide"]}
    assert all(len(splits) == 1 for splits in of_slide.values())
    assert set(features.splits) == {"train", "val", "test"}
    assert set(features.classes) == {"a", "b"}


def test_a_disk_without_room_is_told_with_the_options_of_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.ones((40, 6), np.float32))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OutputError, match=r"f\.h5 needs 960 bytes, and 100 bytes are free; name another disk with -o$"):
        import_features(tmp_path / "x.npy", out=tmp_path / "f.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["x.npy"]


def test_a_head_of_other_imported_vectors_is_refused_with_the_remedy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(30, 3)).astype("f4"), label=["p", "q"] * 15)
        files.append(import_features(tmp_path / f"{name}.npz", out=tmp_path / f"{name}.h5").path)
    head = featx.Head().fit(FeatureSet.load(files[0]))
    with pytest.raises(StaleCacheError, match=r"other imported vectors than those of .*b\.h5; .* same --backbone NAME"):
        head.evaluate(FeatureSet.load(files[1]))

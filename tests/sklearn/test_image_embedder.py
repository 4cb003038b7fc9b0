"""``ImageEmbedder``: every way to give images, and what scikit-learn does with a transformer."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError, DatasetError, FeatxError, ImageError, SettingsError
from featx.extraction import kept_features
from featx.sklearn import HeadClassifier, ImageEmbedder, networks

LABELS = np.arange(20) % 2
PIXELS = (np.random.default_rng(0).integers(0, 120, (20, 12, 12)) + 100 * LABELS[:, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{number:02d} é.png")
    return folder


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[str]:
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def expected(paths: list[str]) -> np.ndarray:
    return load_backbone("lenet5", device="cpu").embed(paths)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of images that were put through the network."""
    counts: list[int] = []
    real = kept_features._Keeping._compute_few

    def counted(self: Any, first: dict[str, int], *rest: Any) -> None:
        real(self, first, *rest)
        counts.append(len(first))

    monkeypatch.setattr(kept_features._Keeping, "_compute_few", counted)
    return counts


def embedder(**params: Any) -> ImageEmbedder:
    return ImageEmbedder("lenet5", **{"device": "cpu", "cache": None, **params})


def test_images_may_be_given_in_any_container(paths: list[str], expected: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    files = [Path(path).read_bytes() for path in paths]
    one = np.empty((20, 1), dtype=object)
    one[:, 0] = files
    for X in (
        paths, tuple(map(Path, paths)), np.array(paths), np.array(paths, dtype=object)[:, None], [[path] for path in paths],
        np.array([path.encode() for path in paths]), files, one, [io.BytesIO(file) for file in files],
        [Image.open(path) for path in paths], PIXELS, list(PIXELS), PIXELS[..., None],
        pandas.Series(paths, index=range(5, 25)), pandas.DataFrame({"image": files}),
        [files[0], paths[1], Path(paths[2]), PIXELS[3], Image.fromarray(PIXELS[4]), *files[5:]],
    ):  # fmt: skip
        found = embedder().transform(X)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert embedder().fit_transform(paths[:1]).shape == (1, 84)
    opened = [io.BytesIO(file) for file in files]
    for _ in range(2):  # open files are read from their beginning
        np.testing.assert_allclose(embedder().transform(opened), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "Found array with 0 sample"),
        (np.empty((0, 1), dtype=object), "a minimum of 1 is required"),
        ("one.png", "X is one image, a str, 'one.png'; expected a list of images"),
        (b"bytes", "X is one image"),
        (Image.new("L", (4, 4)), "X is one image"),
        (np.zeros((3, 4)), r"expected \(N, H, W\) or \(N, H, W, C\) images; X.reshape\(3, H, W\)"),
        (np.array([["a", "b"]]), r"expected \(N,\) or \(N, 1\) images"),
        (3, "X is an int, 3; expected a list"),
        ({"a": 1}, "X is a dict"),
        (iter(["one.png"]), "which can be read only once; expected a list"),
        ([1], "image 0 is an int, 1"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_what_is_no_column_of_images_is_refused(X: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        embedder().transform(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": 3}, "backbone is an int, 3; expected a name"),
        ({"pooling": "median"}, "there is no pooling 'median'"),
        ({"views": "both"}, "there are no views 'both'"),
        ({"options": {"zoom": 2}}, "there is no option zoom; expected arguments of load_backbone: .*size"),
        ({"options": 448}, "options are an int, 448; expected a dict"),
        ({"errors": "ignore"}, "errors is a str, 'ignore'; expected 'raise' or 'nan'"),
        ({"batch_size": 0}, "batch_size is an int, 0; expected a whole number above 0"),
        ({"workers": "two"}, "workers is a str, 'two'"),
        ({"cache": 3}, "cache is an int, 3"),
        ({"column": "image"}, "column='image' names a column of a data frame, and X is a list"),
    ],
    ids=str,
)
def test_parameters_are_checked_by_fit(params: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatxError, match=message):
        embedder().set_params(**params).fit(["image.png"])


def test_an_image_that_fails_is_an_error_with_its_row_or_nan(
    paths: list[str], expected: np.ndarray, tmp_path: Path
) -> None:
    X = [paths[0], "gone.png", None, b"no image", paths[1], float("nan"), paths[0]]
    message = (
        r"4 of 7 images cannot be embedded: row 1 \(gone.png\): .*No such file.*; row 2 .*None; row 3 .*; and 1 more"
    )
    with pytest.raises(ImageError, match=message):
        embedder().transform(X)
    for cache in (None, tmp_path / "cache"):
        with pytest.warns(UserWarning, match=f"{message}. Their features are NaN") as caught:
            found = embedder(errors="nan", cache=cache).transform(X)
        assert caught[0].filename == __file__
        assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True, False, True, False]
        np.testing.assert_allclose(found[[0, 4, 6]], expected[[0, 1, 0]], atol=1e-4)
        with pytest.warns(UserWarning, match=r"^row 0 \(image 0\): not an image of a known format"):
            assert np.isnan(embedder(errors="nan", cache=cache).transform([b"no image"])).all()
        with pytest.raises(ImageError, match=r"^row 0 \(''\): this is no path of a file"):
            embedder(cache=cache).transform([""])


def test_no_image_passes_the_network_twice(paths: list[str], passes: list[int], tmp_path: Path) -> None:
    first = embedder(cache=tmp_path).fit_transform([*paths, paths[0]])
    assert passes == [20]
    copies = [Path(path).read_bytes() for path in reversed(paths)]  # the same images in memory
    np.testing.assert_array_equal(clone(embedder(cache=tmp_path)).transform(copies), first[19::-1])
    pipeline = make_pipeline(embedder(cache=tmp_path), HeadClassifier("ridge"))
    search = GridSearchCV(pipeline, {"headclassifier__C": [0.01, 1.0]}, cv=2).fit(paths, LABELS)
    assert cross_validate(search.best_estimator_, paths, LABELS, cv=2)["test_score"].mean() > 0.8
    assert passes == [20]
    embedder(cache=tmp_path, layer="features.3:max").transform(paths)
    embedder(cache=tmp_path, views="flip").transform(paths)
    assert passes == [20, 20, 20]


def test_clones_and_pickles_share_the_network_of_the_process(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = embedder().fit(paths)
    data = pickle.dumps(one)
    assert len(data) < 2000
    monkeypatch.setattr(networks, "load_backbone", None)
    for again in (clone(one), pickle.loads(data)):
        assert again.embedding() is one.embedding()
    monkeypatch.undo()
    before = len(networks._loaded)
    for width in range(6):
        embedder(layer="features.3:max", options={"background": f"#00000{width}"}).fit(paths)
    assert before <= len(networks._loaded) <= 4


def test_layers_and_views_give_the_features_of_the_backbone(paths: list[str]) -> None:
    backbone = load_backbone("lenet5", device="cpu")
    both = embedder(layer="features.3,penultimate", pooling="max").fit(paths)
    assert both.n_features_out_ == len(both.get_feature_names_out()) == 100
    np.testing.assert_allclose(
        both.transform(paths), backbone.embed(paths, layer="features.3:max,penultimate"), atol=1e-4
    )
    flipped = backbone.embed(paths, layer="penultimate@flip").mean(axis=1)
    np.testing.assert_allclose(embedder(views="flip").transform(paths), flipped, atol=1e-4)


def test_a_data_frame_with_other_columns_goes_through_a_column_transformer(folder: Path, expected: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    names = sorted(path.name for path in folder.iterdir())
    frame = pandas.DataFrame({"file": names, "age": np.arange(20.0)}, index=[f"p{row}" for row in range(20)])
    both = make_column_transformer((embedder(root=folder), ["file"]), (StandardScaler(), ["age"]))
    found = both.set_output(transform="pandas").fit_transform(frame)
    assert found.columns[[0, -1]].tolist() == ["imageembedder__imageembedder0", "standardscaler__age"]
    assert found.index.tolist() == frame.index.tolist()
    np.testing.assert_allclose(found.iloc[:, :84], expected, atol=1e-4)
    by_name = make_column_transformer((embedder(root=folder), "file"), (StandardScaler(), ["age"]))
    np.testing.assert_allclose(by_name.fit_transform(frame)[:, :84], expected, atol=1e-4)
    named = embedder(root=folder, column="file").fit(frame)
    np.testing.assert_allclose(named.transform(frame), expected, atol=1e-4)
    with pytest.raises(DatasetError, match=r"X has 2 columns \('file', 'age'\); expected one, or column=NAME"):
        embedder().fit(frame)
    with pytest.raises(DatasetError, match="X has no column 'file'; it has 'age'"):
        named.transform(frame[["age"]])
    one = embedder(root=folder).fit(frame[["file"]])
    assert one.feature_names_in_.tolist() == ["file"]
    with pytest.raises(ValueError, match="feature names should match"):
        one.transform(frame[["file"]].rename(columns={"file": "image"}))


def test_the_output_may_be_a_frame_of_polars(paths: list[str], expected: np.ndarray) -> None:
    polars = pytest.importorskip("polars", reason="polars is no dependency")
    found = embedder().set_output(transform="polars").fit_transform(polars.DataFrame({"file": paths}))
    assert isinstance(found, polars.DataFrame)
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-4)
    both = make_union(embedder(), embedder(views="flip"))
    assert len(both.fit(paths).get_feature_names_out()) == both.transform(polars.Series(paths)).shape[1] == 168


def test_a_folder_that_cannot_be_written_costs_a_warning(
    paths: list[str], expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"the features are not kept, since .*cache=None none") as caught:
        found = embedder(cache=tmp_path / "file").transform(paths)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["check_estimator_repr", "check_no_attributes_set_in_init", "check_parameters_default_constructible",
             "check_get_params_invariance", "check_set_params", "check_mixin_order", "check_estimator_cloneable"],
)  # fmt: skip
def test_it_passes_the_checks_of_scikit_learn_that_give_no_array(name: str) -> None:
    if not hasattr(estimator_checks, name):
        pytest.skip("this version of scikit-learn has no such check")
    getattr(estimator_checks, name)("ImageEmbedder", embedder())


def test_it_says_that_there_is_nothing_to_fit() -> None:
    tags = embedder().__sklearn_tags__() if hasattr(estimator_checks, "check_estimator_repr") else None
    assert tags is None or not (tags.requires_fit or tags.input_tags.two_d_array)
    assert "ImageEmbedder" in embedder()._repr_html_()
    with pytest.raises(SettingsError, match="errors is a str, 'x'"):
        embedder(errors="x").transform(["a.png"])
    with pytest.raises(BackboneError, match="backbone is an int, 5"):
        ImageEmbedder(5).get_feature_names_out()  # type: ignore[arg-type]

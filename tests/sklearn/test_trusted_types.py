"""Estimators in files of skops, which are loaded without a list of trusted types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.errors import BackboneError
from featx.sklearn import HeadClassifier, HeadRegressor, ImageEmbedder, trusted_types
from featx.sklearn.head_estimators import HeadClassifier as Classifier

io = pytest.importorskip("skops.io", reason="skops is an extra")

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def test_the_names_are_those_of_the_classes() -> None:
    classes = (HeadClassifier, HeadRegressor, ImageEmbedder)
    assert sorted(f"{cls.__module__}.{cls.__name__}" for cls in classes) == sorted(trusted_types.TYPES)
    assert Classifier is HeadClassifier


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        (HeadClassifier("logreg", C=1.0, calibrate="isotonic"), Y),
        (HeadClassifier("svm", C=1.0, kernel="rbf"), NAMES[Y]),
        (HeadClassifier("ridge", C=1.0, class_weight={0: 2.0}, reject_below=0.9), Y),
        (HeadClassifier("knn"), Y > 0),
        (HeadClassifier("centroid"), NAMES[Y].astype(object)),
        (HeadClassifier("mlp"), np.eye(3, dtype=int)[Y]),
        (HeadRegressor("ridge"), X[:, 0] / 3),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_fitted_estimator_is_loaded_without_a_list_and_predicts_the_same(
    estimator: HeadClassifier, y: np.ndarray
) -> None:
    pipeline = make_pipeline(StandardScaler(), estimator).fit(X[::3], y[::3])
    data = io.dumps(pipeline)
    assert io.get_untrusted_types(data=data) == []
    loaded = io.loads(data)
    np.testing.assert_array_equal(loaded.predict(X), pipeline.predict(X))
    assert loaded.predict(X).dtype == pipeline.predict(X).dtype
    if hasattr(pipeline, "predict_proba"):
        np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


def test_a_pipeline_on_images_is_loaded_too() -> None:
    loaded = io.loads(io.dumps(make_pipeline(ImageEmbedder("lenet5", cache=None, root=Path("here")), HeadClassifier())))
    assert (loaded[0].backbone, loaded[0].cache, loaded[0].root) == ("lenet5", None, "here")


@pytest.mark.parametrize("order", ["featx.sklearn, skops.io", "skops.io, featx.sklearn"])
def test_either_package_may_be_imported_first(order: str, tmp_path: Path) -> None:
    (tmp_path / "skops" / "io").mkdir(parents=True)  # a stand-in, since skops itself takes seconds
    (tmp_path / "skops" / "__init__.py").touch()
    (tmp_path / "skops" / "io" / "__init__.py").write_text("from skops.io._trusted_types import *\n")
    (tmp_path / "skops" / "io" / "_trusted_types.py").write_text("SKLEARN_ESTIMATOR_TYPE_NAMES = ['sklearn.SVC']\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {order}; print(skops.io.SKLEARN_ESTIMATOR_TYPE_NAMES)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == f"{['sklearn.SVC', *trusted_types.TYPES]}\n"


def test_a_skops_without_that_list_asks_for_the_types(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.dumps(HeadClassifier())
    names = sys.modules["skops.io._trusted_types"].SKLEARN_ESTIMATOR_TYPE_NAMES
    kept = list(names)
    monkeypatch.setattr(sys.modules["skops.io._trusted_types"], "SKLEARN_ESTIMATOR_TYPE_NAMES", None)
    names[:] = [name for name in names if name not in trusted_types.TYPES]
    try:
        trusted_types.trust_when_imported()  # finds no list, and leaves all as it is
        with pytest.raises(Exception, match=r"featx\.sklearn\.head_estimators\.HeadClassifier"):
            io.loads(data)
        assert isinstance(io.loads(data, trusted=[HeadClassifier]), HeadClassifier)
    finally:
        names[:] = kept


def test_code_that_a_file_names_is_not_run(in_tmp: Path) -> None:
    Path("net.py").write_text("open('ran', 'w').close()\ndef make(): ...\n")
    loaded = io.loads(io.dumps(ImageEmbedder("net.py:make", cache=None, device="cpu")))
    images = np.zeros((1, 8, 8), dtype=np.uint8)
    for embedder in (loaded, clone(loaded)):
        with pytest.raises(BackboneError, match="code that a file names is never run; set_params"):
            embedder.transform(images)
    assert not Path("ran").exists()
    with pytest.raises(BackboneError):
        loaded.set_params(backbone="net.py:make").transform(images)  # now it runs, and makes no network
    assert Path("ran").exists()

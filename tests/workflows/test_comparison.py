"""``model="auto"``: heads of every kind, compared by cross-validation."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from made import Recorder, photos
from task_features import TASKS

from featx.errors import HeadError
from featx.heads.estimators import svm
from featx.heads.head import Head
from featx.workflows.fit import fit_head


@pytest.mark.parametrize("task", TASKS)
def test_auto_compares_every_kind_and_selects_the_simplest_within_one_standard_error(task: str, tmp_path: Path) -> None:
    recorder = Recorder()
    fit = fit_head(TASKS[task](), "auto", task=task, models=tmp_path, reporter=recorder)
    names = [line.kind for line in fit.compared]
    expected = ["centroid", "ridge", "logreg", "svm", "knn", "bilinear", "svm-rbf", "mlp"]
    unsuited = {"classification": (), "multilabel": ("centroid",), "regression": ("centroid", "logreg")}[task]
    assert names == [name for name in expected if name not in unsuited]
    assert all(math.isfinite(line.loss) and line.error > 0 and not line.why for line in fit.compared)
    best = min(fit.compared, key=lambda line: line.loss)
    selected = next(line for line in fit.compared if line.loss <= best.loss + best.error)
    assert selected.kind == (f"{fit.head.kind}-rbf" if fit.head.kernel == "rbf" else fit.head.kind)
    assert selected.loss == pytest.approx(min(t.loss for t in fit.head.search_))
    assert selected.value == pytest.approx(fit.head.held_out_.headline[1])
    assert fit.path == tmp_path / "pets--auto.safetensors"
    assert Head.load(fit.path).kind == fit.head.kind
    assert [line["kind"] for line in json.loads(json.dumps(fit.as_dict(), allow_nan=False))["compared"]] == names
    assert recorder.calls == [(n, len(names)) for n in range(1, len(names) + 1)]


def test_auto_prefers_a_simple_head_to_one_that_is_hardly_better(tmp_path: Path) -> None:
    fit = fit_head(photos(gap=1.5), "auto", models=tmp_path)
    best = min(fit.compared, key=lambda line: line.loss)
    assert fit.compared[0].loss <= best.loss + best.error
    assert fit.compared[0].loss > best.loss
    assert fit.head.kind == "centroid"


def test_auto_selects_a_nonlinear_head_where_no_linear_one_fits(tmp_path: Path) -> None:
    features = photos(classes=("in", "out"), train=100, test=60, dim=2, gap=0.0)
    far = (features.features**2).sum(axis=1) > 1.4
    features = dataclasses.replace(features, labels=far.astype(np.int64))
    fit = fit_head(features, "auto", models=tmp_path)
    assert fit.head.kind in ("knn", "svm", "bilinear", "mlp")
    assert fit.head.kind != "svm" or fit.head.kernel == "rbf"
    assert fit.report.accuracy > 0.85


def test_a_kind_that_fails_is_in_the_table_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_ROWS", 10)
    fit = fit_head(photos(), "auto", models=tmp_path)
    (failed,) = [line for line in fit.compared if line.why]
    assert failed.kind == "svm-rbf"
    assert failed.why.startswith("60 rows are too many for a support vector machine with a kernel")
    assert failed.cells() == ("svm-rbf", failed.why, "", "", "", "")
    assert math.isnan(failed.loss)
    assert len(fit.compared) == 8


def test_where_no_kind_can_be_fitted_the_error_has_the_first_reason(tmp_path: Path) -> None:
    features = photos()
    features.features[1, 2] = np.nan
    with pytest.raises(
        HeadError, match="no kind of head could be fitted: 1 row of features of the split 'train' is Na"
    ):
        fit_head(features, "auto", models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_compared_auto_takes_the_simplest(tmp_path: Path) -> None:
    fit = fit_head(photos(train=1, gap=30.0), "auto", models=tmp_path)
    assert fit.head.kind == "centroid"
    assert all(math.isnan(line.loss) for line in fit.compared)
    json.dumps(fit.as_dict(), allow_nan=False)


def test_every_kind_is_compared_in_all_views(two_views: Path, tmp_path: Path) -> None:
    fit = fit_head(two_views, "auto", models=tmp_path / "models")
    assert all(not line.why for line in fit.compared)
    assert fit.head.views == "flip"

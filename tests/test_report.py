from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn import metrics

from featx.errors import OutputError
from featx.report import Report, wilson


def predictions(n: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) labels of every class, and (n, count) probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % count)
    logits = rng.normal(size=(n, count))
    logits[np.arange(n), labels] += 1.0
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def certain(predicted: list[int], count: int) -> np.ndarray:
    """(N, count) probabilities of 0 and 1."""
    return np.eye(count)[predicted]


@pytest.mark.parametrize(("n", "count"), [(40, 2), (200, 5), (33, 11)])
def test_every_metric_is_that_of_scikit_learn(n: int, count: int) -> None:
    labels, probabilities = predictions(n, count, seed=n)
    report = Report.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test")
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    assert report.n == n
    assert report.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert report.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert report.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert report.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    np.testing.assert_array_equal(report.confusion, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(report.precision, precision)
    np.testing.assert_allclose(report.recall, recall)
    np.testing.assert_allclose(report.f1, f1)
    np.testing.assert_array_equal(report.confusion.sum(axis=1), support)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (1, 1), (0, 1), (7, 10), (146, 153), (9_990, 10_000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_stays_between_zero_and_one() -> None:
    for n in range(1, 200):
        assert wilson(0, n)[0] >= 0.0
        assert wilson(n, n)[1] <= 1.0


def test_a_class_without_images_does_not_count_in_the_means() -> None:
    report = Report.of(np.array([0, 0, 1, 1]), certain([0, 0, 1, 2], 3), ["a", "b", "c"], split="test")
    assert report.balanced_accuracy == pytest.approx((1.0 + 0.5) / 2)
    assert report.macro_f1 == pytest.approx((1.0 + 2 / 3) / 2)
    assert np.isnan(report.recall[2])
    assert report.precision[2] == 0.0


def test_a_class_without_images_is_null_in_json_and_nan_in_text() -> None:
    report = Report.of(np.array([0, 0, 1]), certain([0, 0, 1], 3), ["a", "b", "c"], split="test")
    assert report.as_dict()["per_class"][2] == {
        "class": "c",
        "precision": 0.0,
        "recall": None,
        "f1": None,
        "support": 0,
    }
    assert "c          0.000     nan     nan       0" in str(report).splitlines()


def test_certainty_of_a_wrong_class_costs_much_but_not_everything() -> None:
    report = Report.of(np.array([0, 1]), certain([0, 0], 2), ["a", "b"], split="test")
    assert report.log_loss == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)


def test_the_text_is_exactly_this() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.25, 0.75], [0.5, 0.5]])
    report = Report.of(np.array([0, 0, 0, 1, 1]), probabilities, ["ants", "bumblebees"], split="val")
    assert str(report) == (
        "accuracy           0.6000  (95 % interval 0.2307 to 0.8824; 3 of 5 images of split val)\n"
        "balanced accuracy  0.5833\n"
        "macro F1           0.5833\n"
        "log loss           0.4451\n"
        "\n"
        "class       precision  recall      F1  images\n"
        "ants            0.667   0.667   0.667       3\n"
        "bumblebees      0.500   0.500   0.500       2\n"
        "\n"
        "true \\ predicted  ants  bumblebees\n"
        "ants                 2           1\n"
        "bumblebees           1           1"
    )


def test_no_loss_at_all_has_no_sign() -> None:
    report = Report.of(np.array([0, 1]), certain([0, 1], 2), ["a", "b"], split="test")
    assert "log loss           0.0000" in str(report).splitlines()
    assert json.dumps(report.as_dict()["log_loss"]) == "0.0"


def test_the_dict_is_json_without_nan() -> None:
    report = Report.of(np.array([0, 0]), certain([1, 1], 3), ["a", "b", "c"], split="all", notes=["look"])
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["accuracy"] == 0.0
    assert found["n"] == 2
    assert found["split"] == "all"
    assert found["confusion"] == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found["notes"] == ["look"]


@pytest.mark.parametrize(("count", "shown"), [(12, True), (13, False)])
def test_the_text_shows_the_confusion_of_up_to_twelve_classes(count: int, shown: bool) -> None:
    labels, probabilities = predictions(60, count, seed=0)
    text = str(Report.of(labels, probabilities, [f"c{i}" for i in range(count)], split="test"))
    assert ("true \\ predicted" in text) == shown
    assert text.splitlines()[5].startswith("class ")


ODD = ["new\nline", "$x_{$ costs", "\N{GRINNING FACE} \u6f22\u5b57", "w" * 200, "bad \udcff byte", ""]


def test_odd_class_names_do_not_break_the_text() -> None:
    lines = str(Report.of(np.arange(6), certain([0, 1, 2, 3, 4, 5], 6), ODD, split="test")).splitlines()
    assert len(lines) == 4 + 1 + 7 + 1 + 7
    assert lines[6].startswith("new?line ")
    assert lines[7].startswith("$x_{$ costs ")
    assert lines[9].startswith("w" * 23 + "… ")
    assert lines[10].startswith("bad ? byte ")


def test_odd_class_names_do_not_break_the_picture_or_warn(tmp_path: Path) -> None:
    report = Report.of(np.arange(6), certain([0, 1, 2, 3, 4, 5], 6), ODD, split="test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.save_png(tmp_path / "odd.png")
    assert Image.open(tmp_path / "odd.png").format == "PNG"


@pytest.mark.parametrize("count", [2, 40])
def test_the_picture_is_neither_a_stamp_nor_a_poster(count: int, tmp_path: Path) -> None:
    labels, probabilities = predictions(2 * count, count, seed=0)
    report = Report.of(labels, probabilities, [f"class {i}" for i in range(count)], split="test")
    report.save_png(tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert all(300 <= side <= 2400 for side in picture.size)
        low, high = picture.convert("L").getextrema()
    assert (low, high) == (0, 255)


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    report = Report.of(np.array([0, 1]), certain([0, 1], 2), ["a", "b"], split="test")
    with pytest.raises(OutputError, match=r"cannot write .*taken\.png: Is a directory; name another file with -o"):
        report.save_png(tmp_path / "taken.png")

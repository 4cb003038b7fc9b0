from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from made_predictions import certain
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from scipy.stats import binomtest

from featx.errors import OutputError
from featx.io.outputs import CONFUSION
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.report import plots

ODD = [
    "new\nline",
    "$x_{$ costs",
    "\N{GRINNING FACE} \u6f22\u5b57",
    "w" * 200,
    "bad \udcff byte",
    "",
    "<script>alert(1)</script>",
    "\u05e9\u05dc\u05d5\u05dd \u202e\u05e2\u05d5\u05dc\u05dd",
    r"\frac{1}{2} & \$a$",
    "nul\0 bell\a",
]


def judged(count: int, each: int = 4, *, names: list[str] | None = None, seed: int = 0) -> ClassificationReport:
    """A report of predictions that are correct more often than not."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    logits = rng.normal(size=(len(labels), count))
    logits[np.arange(len(labels)), labels] += 3.0
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return ClassificationReport.from_predictions(
        labels, probabilities, names or [f"class {i}" for i in range(count)], split="test"
    )


def labelled() -> MultiLabelReport:
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 3)) < 0.4).astype(np.float32)
    probabilities = np.clip(0.6 * targets + 0.4 * rng.random((60, 3)), 0, 1)
    return MultiLabelReport.from_predictions(
        targets, probabilities, ["a", "b", "c"], thresholds=np.full(3, 0.5), split="val"
    )


def texts(figure: Figure) -> list[str]:
    """The text of a figure's SVG, in order; the SVG must be sound XML."""
    root = ElementTree.fromstring(plots.as_svg(figure))
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


TRAINED: list[dict[str, float | None]] = [
    {"epoch": 0, "loss": None, "accuracy": 0.8, "log_loss": 0.5},
    {"epoch": 1, "loss": 0.9, "accuracy": 0.7, "log_loss": 0.6},
    {"epoch": 2, "loss": 0.4, "accuracy": 0.9, "log_loss": 0.3},
]
PATH = [(10.0**power, 0.2 + 0.05 * (power + 2) ** 2, 0.01) for power in range(-6, 6)]

FIGURES: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: plots.confusion_figure(judged(3)),
    "confusion, many": lambda: plots.confusion_figure(judged(120)),
    "confusion, with a subject": lambda: plots.confusion_figure(judged(3), subject="a long name, resnet50, logreg"),
    "confusion, 56": lambda: plots.confusion_figure(judged(56)),
    "reliability": lambda: plots.reliability_figure(judged(3)),
    "reliability, labels": lambda: plots.reliability_figure(labelled()),
    "per class": lambda: plots.per_class_figure(judged(3)),
    "per label": lambda: plots.per_class_figure(labelled()),
    "path": lambda: plots.path_figure(PATH, 0.01),
    "path of one": lambda: plots.path_figure([(0.0, 0.5, 0.1)], 0.0),
    "training": lambda: plots.training_figure(TRAINED, {0.0: 0.5, 0.5: 0.25, 1.0: 0.3}),
    "training, marked": lambda: plots.training_figure(
        TRAINED,
        {0.0: 0.5, 0.5: 0.25, 1.0: 0.3},
        best_epoch=2,
        alpha=0.5,
        subject="photos, resnet50, logreg, fine-tuned",
    ),
    "courses": lambda: plots.courses_figure(
        [("pretrained, 2 epochs", [0.5, 0.8, 0.9], [0, 2, 4], 20), ("random", [0.2, 0.4], [0, 3], 20)], subject="photos"
    ),
    "training that only began": lambda: plots.training_figure(TRAINED[:1], {0.0: 0.5}),
    "shots": lambda: plots.shots_figure([(1, 0.5, 0.1), (2, 0.6, 0.05), (16, 0.9, 0.02)]),
    "shots, with a subject": lambda: plots.shots_figure([(1, 0.5, 0.1), (16, 0.9, 0.02)], subject="photos, resnet50"),
    "scatter": lambda: plots.scatter_figure(np.arange(9.0), np.arange(9.0) + 1),
    "scatter, many": lambda: plots.scatter_figure(np.zeros((3000, 2)), np.ones((3000, 2)), names=["a", "$b$"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_and_an_svg_that_refers_to_nothing_else(name: str) -> None:
    figure = FIGURES[name]()
    svg = plots.as_svg(figure)
    with Image.open(io.BytesIO(plots.as_png(figure))) as picture:
        assert picture.format == "PNG"
        assert all(100 <= side <= 2600 for side in picture.size)
        assert picture.convert("L").getextrema() == (0, 255)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith(("href", "src"))]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert [link for link in re.findall(r"url\(([^)]*)\)", svg) if not link.startswith("#")] == []
    assert {element.tag.rpartition("}")[2] for element in root.iter()} & {"script", "foreignObject", "image"} <= {
        "image"
    }
    assert plots.as_svg(FIGURES[name]()) == svg, "the same figure, the same SVG"


@pytest.mark.parametrize("name", FIGURES)
def test_texts_do_not_overlap_and_stay_within_the_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, tuple[Text, Bbox]] = {}
    draw = Text.draw

    def drawing(self: Text, renderer: RendererBase) -> None:
        if self.get_text().strip() and self.get_visible():
            drawn[id(self)] = self, self.get_window_extent(renderer)
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", drawing)
    figure = FIGURES[name]()
    plots.as_png(figure, dpi=100)
    width, height = 100 * figure.get_size_inches()
    boxes = [(text.get_text(), box) for text, box in drawn.values() if text.get_rotation() in (0, 90)]
    assert len(boxes) >= 8
    assert [
        text.get_text()
        for text, box in drawn.values()
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ] == []
    clashes = [
        (a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other.shrunk(0.9, 0.8))
    ]
    assert clashes == []


@pytest.mark.parametrize("draw", [plots.confusion_figure, plots.per_class_figure, plots.reliability_figure])
def test_odd_class_names_do_not_break_a_figure_or_warn(draw: Callable[[ClassificationReport], Figure]) -> None:
    report = ClassificationReport.from_predictions(
        np.arange(len(ODD)), certain(list(range(len(ODD))), len(ODD)), ODD, split="$te\0st$"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(report)
        assert plots.as_png(figure).startswith(b"\x89PNG")
        found = "\n".join(texts(figure))
    if draw is not plots.reliability_figure:
        for shown in (
            "new?line",
            "$x_{$ costs",
            "\u6f22\u5b57",
            "w" * 23 + "…",
            "bad ? byte",
            "<script>alert(1)</scrip…",
        ):
            assert shown in found
        assert r"\frac{1}{2} & \$a$" in found
        assert "nul? bell?" in found
        assert "\u202e" not in found
    if draw is not plots.per_class_figure:
        assert "($te?st$)" in found


def test_letters_of_two_columns_count_double_and_bring_room() -> None:
    assert plots.label("\u6f22\u5b57") == "\N{NO-BREAK SPACE}" * 4 + "\u6f22\u5b57"
    assert plots.label("\u6f22" * 40).strip("\N{NO-BREAK SPACE}") == "\u6f22" * 11 + "…"
    assert plots.label("a" * 24) == "a" * 24
    assert plots.label("a" * 25) == "a" * 23 + "…"


def test_the_users_own_settings_do_not_matter() -> None:
    expected = plots.as_svg(FIGURES["confusion"]())
    with mpl.rc_context({"font.size": 40, "text.usetex": True, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert plots.as_svg(FIGURES["confusion"]()) == expected


def test_drawing_leaves_the_users_settings_as_they_were() -> None:
    with mpl.rc_context({"font.size": 33, "svg.hashsalt": "own"}):
        before = dict(mpl.rcParams)
        plots.as_png(FIGURES["shots"]())
        assert dict(mpl.rcParams) == before


# The confusion matrix


@pytest.mark.parametrize("count", [2, 40, 1000])
def test_the_picture_is_neither_tiny_nor_huge(count: int) -> None:
    figure = plots.confusion_figure(judged(count, 2))
    with Image.open(io.BytesIO(plots.as_png(figure, dpi=120))) as picture:
        assert picture.format == "PNG"
        assert all(300 <= side <= 2400 for side in picture.size)
        low, high = picture.convert("L").getextrema()
    assert (low, high) == (0, 255)


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    report = ClassificationReport.from_predictions(np.array([0, 1]), certain([0, 1], 2), ["a", "b"], split="test")
    with pytest.raises(OutputError, match=r"taken\.png is a folder; name a file to write with -o"):
        plots.save_png(plots.confusion_figure(report), tmp_path / "taken.png", CONFUSION)


def test_right_predictions_are_blue_and_wrong_ones_orange() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 0, 1, 1]), certain([0, 1, 1, 1], 2), ["ants", "bees"], split="val"
    )
    (shown,) = plots.confusion_figure(report).axes[0].images
    red, _, blue = np.moveaxis(np.asarray(shown.get_array())[..., :3], -1, 0)
    assert blue[0, 0] > red[0, 0]  # half of the ants
    assert red[0, 1] > blue[0, 1]  # the other half
    assert red[1, 0] == blue[1, 0] == 1  # white: no bee was taken for an ant
    assert blue[1, 1] - red[1, 1] > blue[0, 0] - red[0, 0] > 0


def test_a_rare_confusion_can_be_seen() -> None:
    y = np.zeros(100, dtype=int)
    report = ClassificationReport.from_predictions(y, certain([1, *[0] * 99], 2), ["ants", "bees"], split="val")
    (shown,) = plots.confusion_figure(report).axes[0].images
    assert np.asarray(shown.get_array())[0, 1, 2] < 0.95


def test_the_confusion_of_few_classes_has_names_and_numbers() -> None:
    report = ClassificationReport.from_predictions(
        np.array([0, 0, 0, 1]), certain([0, 0, 1, 1], 2), ["ants", "bees"], split="val"
    )
    found = texts(plots.confusion_figure(report))
    assert {"ants", "bees", "2", "1", "accuracy 0.7500 on 4 images (val)", "true", "predicted"} <= set(found)
    assert found.count("1") == 2
    assert "0" not in found


def test_classes_are_named_as_far_as_there_is_room() -> None:
    def named(count: int) -> int:
        return sum(text.startswith("class ") for text in texts(plots.confusion_figure(judged(count)))) // 2

    assert [named(count) for count in (30, 31, 100)] == [30, 31, 100]
    assert named(101) == 51
    assert "true (one of 10 classes is named)" in [
        axes.get_ylabel() for axes in plots.confusion_figure(judged(1000)).axes
    ]


# Titles and fonts


def test_an_interval_that_ends_at_its_estimate_is_drawn() -> None:
    rounded = np.nextafter(1.0, 0)  # an interval of a share of 1 may end below it, by rounding
    assert plots.as_png(plots.rank_figure([("lenet5", 10.0, 1.0, 0.8, rounded, True)])).startswith(b"\x89PNG")


def test_a_long_subject_is_wrapped_to_the_width_of_the_figure() -> None:
    figure = plots.shots_figure([(1, 0.5, 0.1), (2, 0.6, 0.05)], subject="photos, " + "long " * 30)
    title = figure.get_suptitle()
    assert title.startswith("photos, long")
    assert 2 <= title.count("\n") <= 3


def test_characters_that_no_font_has_are_found() -> None:
    assert plots.missing_characters(["ants", "Käfer", "жук"]) == ""
    assert plots.missing_characters(["a\U00013000b", "\U00013000"]) == "\U00013000"  # a hieroglyph


def test_an_installed_font_gives_the_characters_that_matplotlibs_own_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from featx.report.plots import style

    other = SimpleNamespace(name="Noto Sans CJK JP")
    monkeypatch.setattr(style.font_manager.fontManager, "ttflist", [other])
    style._families.cache_clear()
    try:
        assert style._families() == ["DejaVu Sans", "Noto Sans CJK JP"]
    finally:
        style._families.cache_clear()


# Reliability


def test_the_reliability_diagram_shows_each_bin_with_its_wilson_interval() -> None:
    report = judged(3, 40)
    figure = plots.reliability_figure(report)
    upper, lower = figure.axes
    bins = [b for b in report.reliability if b.count]
    (bar,) = upper.containers
    line, _, (spans,) = bar.lines
    np.testing.assert_allclose(line.get_xdata(), [b.confidence for b in bins])
    np.testing.assert_allclose(line.get_ydata(), [b.correct / b.count for b in bins])
    for b, span in zip(bins, spans.get_segments(), strict=True):
        expected = binomtest(b.correct, b.count).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(span[:, 1], (expected.low, expected.high), atol=1e-9)
    assert [patch.get_height() for patch in lower.patches] == [b.count for b in bins]
    assert [patch.get_x() for patch in lower.patches] == [b.low for b in bins]
    assert upper.get_title() == f"expected calibration error {report.ece:.4f} on 120 images (test)"
    assert any((line.get_xdata() == [0, 1]).all() and (line.get_ydata() == [0, 1]).all() for line in upper.lines[:1])


# Classes


def test_bars_are_sorted_with_the_lowest_recall_on_top() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 2, 2, 2, 2]), [0, 0, 1, 0, 2, 0, 0, 0]
    report = ClassificationReport.from_predictions(
        labels, certain(predicted, 4), ["a", "b", "c", "no image"], split="test"
    )
    (axes,) = plots.per_class_figure(report).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "b", "a"]
    assert [patch.get_width() for patch in axes.patches] == [0.25, 0.5, 1.0]
    assert axes.yaxis_inverted()
    marks = next(line for line in axes.lines if line.get_label() == "precision")
    np.testing.assert_allclose(marks.get_xdata(), [1.0, 1.0, 2 / 6])
    (bar, *_) = [c for c in axes.containers if c.get_label() == "its 95 % interval"]
    for right, n, span in zip((1, 1, 2), (4, 2, 2), bar.lines[2][0].get_segments(), strict=True):
        expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(span[:, 0], (expected.low, expected.high), atol=1e-9)
    assert [t.get_text() for t in axes.texts] == ["images", "4", "2", "2"]
    assert axes.get_title() == "3 classes"
    assert plots.per_class_figure(labelled()).axes[0].get_title() == "3 labels"


def test_of_a_thousand_classes_the_forty_with_the_lowest_recall_are_shown() -> None:
    report = judged(1000, 3)
    (axes,) = plots.per_class_figure(report).axes
    shown = [patch.get_width() for patch in axes.patches]
    assert shown == pytest.approx(np.sort(report.recall)[:40])
    assert axes.get_title() == "the 40 of 1,000 classes with the lowest recall"


# The path


def test_the_path_shows_every_candidate_its_band_and_the_chosen_one() -> None:
    figure = plots.path_figure(PATH, 0.01)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["mean over the folds"].get_xydata(), [row[:2] for row in PATH])
    np.testing.assert_allclose(lines["chosen"].get_xydata(), [(0.01, 0.2 + 0.05 * 0)])
    assert lines["lowest + 1 standard error"].get_ydata()[0] == pytest.approx(0.21)
    band = axes.collections[0].get_paths()[0].vertices
    for candidate, mean, spread in PATH:
        at = np.sort(band[np.isclose(band[:, 0], candidate, rtol=1e-9)][:, 1])
        assert at[0] == pytest.approx(mean - spread)
        assert at[-1] == pytest.approx(mean + spread)
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "C"
    assert axes.get_title() == "C = 0.01 of 12 candidates: log loss 0.2 ± 0.01"


def test_the_axis_has_the_name_of_the_hyper_parameter_and_its_few_values_as_ticks() -> None:
    figure = plots.path_figure(
        [(1, 0.9, 0.1), (3, 0.5, 0.1), (10, 0.4, 0.1), (20, 0.45, 0.1)], 10, name="k", loss="RMSE"
    )
    found = texts(figure)
    assert {"1", "3", "10", "20", "k", "cross-validated RMSE"} <= set(found)


def test_candidates_without_a_finite_loss_are_not_drawn() -> None:
    figure = plots.path_figure([(0.1, float("inf"), 0.0), (1.0, 0.5, 0.1), (10.0, float("nan"), 0.1)], 1.0)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["mean over the folds"].get_xydata(), [(1.0, 0.5)])
    with pytest.raises(ValueError, match="no candidate for C has a finite log loss; expected at least one to draw"):
        plots.path_figure([(1.0, float("nan"), 0.0)], 1.0)


# Shots


def test_shots_are_on_an_axis_of_powers_of_two() -> None:
    figure = plots.shots_figure([(4, 0.7, 0.05), (1, 0.5, 0.1), (2, 0.6, 0.5), (8, 0.95, 0.1), (16, 0.97, 0.01)])
    (axes,) = figure.axes
    (bar,) = axes.containers
    np.testing.assert_allclose(bar.lines[0].get_xydata(), [(1, 0.5), (2, 0.6), (4, 0.7), (8, 0.95), (16, 0.97)])
    np.testing.assert_allclose(bar.lines[2][0].get_segments()[0], [(1, 0.4), (1, 0.6)])
    np.testing.assert_allclose(bar.lines[2][0].get_segments()[3], [(8, 0.85), (8, 1.0)])
    assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
    assert [text for text in texts(figure) if text in ("1", "2", "4", "8", "16")] == ["1", "2", "4", "8", "16"]


# Regression


def test_predictions_are_drawn_over_targets_and_rows_that_are_not_finite_are_left_out() -> None:
    figure = plots.scatter_figure(np.array([1.0, 2.0, np.nan]), np.array([[1.5], [2.5], [3.5]]))
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [(1.0, 1.5), (2.0, 2.5)])
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(1.0, 1.0), (2.5, 2.5)])


def test_several_targets_have_a_panel_each_up_to_six() -> None:
    targets = np.arange(40.0).reshape(5, 8)
    figure = plots.scatter_figure(targets, targets, names=["age", "a$b$", *"cdefgh"])
    assert [axes.get_title() for axes in figure.axes] == ["age", r"a\$b\$", *"cdef"]
    assert "a$b$" in texts(figure)


def test_an_svg_of_very_many_points_stays_small() -> None:
    points = np.random.default_rng(0).normal(size=100_000)
    assert len(plots.as_svg(plots.scatter_figure(points, points))) < 500_000


def test_training_curves_begin_at_the_head_which_has_no_training_loss() -> None:
    figure = plots.training_figure(TRAINED, {0.0: 0.5, 0.5: 0.25, 1.0: 0.3})
    losses, accuracy, between = figure.axes
    training, chosen = losses.lines
    np.testing.assert_array_equal(training.get_xydata(), [[1, 0.9], [2, 0.4]])
    np.testing.assert_array_equal(chosen.get_xydata(), [[0, 0.5], [1, 0.6], [2, 0.3]])
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), [0.8, 0.7, 0.9])
    np.testing.assert_array_equal(between.lines[0].get_xydata(), [[0, 0.5], [0.5, 0.25], [1, 0.3]])


def test_the_best_epoch_and_the_chosen_weights_are_marked() -> None:
    curve = {0.0: 0.5, 0.5: 0.25, 1.0: 0.3}
    losses, accuracy, between = plots.training_figure(TRAINED, curve, best_epoch=2, alpha=0.5).axes
    np.testing.assert_array_equal(losses.lines[-1].get_xydata(), [[2, 0.3]])
    np.testing.assert_array_equal(accuracy.lines[-1].get_xydata(), [[2, 0.9]])
    np.testing.assert_array_equal(between.lines[-1].get_xydata(), [[0.5, 0.25]])
    assert losses.lines[-1].get_label() == "best epoch (2)"
    assert between.lines[-1].get_label() == "chosen weights (0.5)"

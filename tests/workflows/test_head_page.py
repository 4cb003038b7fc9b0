"""The page about a head, from the fit to the HTML; tests/inspection/test_page.py tests its other parts."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Chromium
from made import Recorder
from PIL import Image

from featx.data.file_bytes import image_key
from featx.data.transform import Transform
from featx.features.feature_set import FeatureSet
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.report.html import SCRIPTS
from featx.workflows.fit import fit_head

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the MLP for as few epochs as these small sets need."""
    monkeypatch.setattr(mlp, "EPOCHS", 10)


class Page(HTMLParser):
    """The text of a page without its scripts, its tags with the attributes of each, and the data for its script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self._script = "", list[tuple[str, dict[str, str | None]]](), ""
        self.json = dict[str, Any]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = str(dict(attrs).get("id", "code")) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._script = ""

    def handle_data(self, data: str) -> None:
        if self._script in ("data", "thumbnails"):
            self.json[self._script] = json.loads(data)
        elif not self._script:
            self.text += data + "\n"

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        """What was found."""
        return self.json["data"]

    @property
    def thumbnails(self) -> dict[int, bytes]:
        """The JPEG images by the numbers of their rows."""
        return {row: base64.b64decode(text) for row, text in enumerate(self.json["thumbnails"]) if text}

    @property
    def reasons(self) -> dict[int, str]:
        """Why images are not shown."""
        return {int(row): why for row, why in self.data["pixels"]["why"].items()}


def photos(root: Path, *, names: tuple[str, ...] = ("ant", "bee"), gap: float = 0.8, **changes: Any) -> FeatureSet:
    """100 images of overlapping classes, half of them for testing; each is a picture of one colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % len(names)
    X = rng.normal(size=(100, 5))
    X[np.arange(100), labels] += gap
    root.mkdir(exist_ok=True)
    keys = rng.integers(0, 256, (100, 16), dtype=np.uint8)
    for row in range(50, 100):
        Image.new("RGB", (40, 30), (row, 255 - row, 100)).save(root / f"{row}.png")
        keys[row] = np.frombuffer(image_key((root / f"{row}.png").read_bytes()), dtype=np.uint8)
    made = FeatureSet(
        features=X.astype(np.float32),
        labels=labels,
        splits=np.array(["train"] * 50 + ["test"] * 50, dtype=object),
        classes=names,
        paths=np.array([f"{row}.png" for row in range(100)], dtype=object),
        keys=keys,
        dataset={"name": "pets", "root": str(root)},
    )
    return dataclasses.replace(made, **changes)


def with_labels(features: FeatureSet, strings: Sequence[str]) -> FeatureSet:
    """A copy with another label string for each row."""
    classes, labels = np.unique(np.array(strings, dtype=object), return_inverse=True)
    return dataclasses.replace(features, classes=tuple(classes), labels=labels.astype(np.int64))


def page_of(features: FeatureSet, head: Head | str, folder: Path, **options: Any) -> tuple[Page, Any]:
    """The page that a fit writes, and the fit."""
    fit = fit_head(features, head, report=True, out=folder / "head.safetensors", **options)
    assert fit.card == folder / "head.html"
    return Page(fit.card), fit


def test_the_page_of_a_classifier_has_its_facts_and_its_metrics(tmp_path: Path) -> None:
    page, fit = page_of(photos(tmp_path / "photos"), Head("logreg"), tmp_path)
    report, head = fit.report, fit.head
    low, high = report.interval
    for text in (
        "pets: logreg",
        f"accuracy {report.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}) on 50 images of split test",
        f"{report.balanced_accuracy:.4f}",
        f"{report.log_loss:.4f}",
        f"{report.ece:.4f}",
        f"{head.C_:g}",
        "Choice of C",
        "Classes",
        "Confusions",
        "Calibration",
        f"{head.convergence_['iterations']} iterations",
    ):
        assert text in page.text, text
    for tried in head.search_:
        assert f"{tried.candidate:.4g}" in page.text
        assert f"{tried.loss:.4f}" in page.text
        assert f"{tried.error:.4f}" in page.text
    svg = [image for image in page.of("img") if str(image["src"]).startswith("data:image/svg+xml")]
    assert len(svg) >= 4  # bars, confusion matrix, reliability, the path of C


def test_the_page_of_a_multilabel_head_has_its_thresholds_and_no_confusion_matrix(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos", gap=0.0)
    has = features.features[:, :2] > 0.2
    features = with_labels(features, ["|".join(np.array(["cat", "dog"])[row]) or "|" for row in has])
    page, fit = page_of(features, Head("ridge"), tmp_path)
    assert f"mAP {fit.report.mean_average_precision:.4f} on 50 images of split test" in page.text
    for threshold in fit.head.thresholds_:
        assert f"{threshold:.4f}" in page.text
    assert "for multilabel" in page.text
    assert "Confusions" not in page.text
    assert page.data["task"] == "multilabel"
    assert len(page.data["labelIssues"]["scores"]) == 100


def test_the_page_of_a_regression_has_a_picture_of_predictions_against_targets(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos", gap=0.0)
    features = with_labels(features, [f"{x:.3f}" for x in 50 + features.features[:, 0]])
    page, fit = page_of(features, Head("ridge", task="regression"), tmp_path)
    low, high = fit.report.interval
    assert f"RMSE {fit.report.rmse:.6g} (95 % interval {low:.6g} to {high:.6g}) on 50 images" in page.text
    assert f"{fit.report.baseline_rmse:.6g}" in page.text
    assert "squared error" in page.text
    assert "Predictions against targets" in [image["alt"] for image in page.of("img")]


def test_mistakes_are_what_the_head_predicts_and_have_thumbnails_of_the_images(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    page, fit = page_of(features, Head("logreg", C=0.1), tmp_path)
    p = fit.head.predict_proba(features.features[50:])
    issues = page.data["labelIssues"]
    suggested = [issues["names"][name] for name in issues["suggested"]]
    assert suggested[50:] == [fit.head.classes_[c] for c in p.argmax(axis=1)]
    np.testing.assert_allclose(issues["confidence"][50:], p.max(axis=1), rtol=1e-3)
    held_out, outputs = fit.head.out_of_fold_
    assert suggested[:50] == [fit.head.classes_[c] for c in outputs[np.argsort(held_out)].argmax(axis=1)]
    assert sorted(page.thumbnails) == list(range(50, 100))  # the others have no file
    for row, jpeg in page.thumbnails.items():
        with Image.open(io.BytesIO(jpeg)) as thumbnail:
            colour = np.asarray(thumbnail.convert("RGB")).reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(colour, (row, 255 - row, 100), atol=6)


def test_thumbnails_are_read_in_the_value_range_of_the_features(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    for row in range(50, 100):
        path = tmp_path / "photos" / f"{row}.png"
        Image.fromarray(np.full((30, 40), 40 * row, np.uint16)).save(path)  # of 12 bits: 2000 to 3960
        features.keys[row] = np.frombuffer(image_key(path.read_bytes()), dtype=np.uint8)
    for transform, is_dark in ((Transform(), True), (Transform(value_range=(0, 4095)), False)):
        described = {
            "name": "lenet5",
            "weights": "default",
            "parts": {"dtype": "float32", "transform": transform.as_dict()},
        }
        page, _ = page_of(dataclasses.replace(features, backbone=described), Head("logreg", C=0.1), tmp_path)
        for jpeg in page.thumbnails.values():
            with Image.open(io.BytesIO(jpeg)) as thumbnail:
                level = np.asarray(thumbnail).mean()
            assert (level < 20) if is_dark else (level > 120)
        assert page.thumbnails


def test_a_head_that_makes_no_mistakes_shows_none(tmp_path: Path) -> None:
    page, fit = page_of(photos(tmp_path / "photos", gap=50.0), Head("centroid"), tmp_path)
    assert fit.report.accuracy == 1.0
    assert page.data["labelIssues"]["ranked"] == []


def test_missing_or_unreadable_images_are_shown_as_a_labelled_box(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    for row in range(50, 100):
        (tmp_path / "photos" / f"{row}.png").unlink()
    os.mkfifo(tmp_path / "photos" / "50.png")  # a pipe without a writer would block
    odd = ["50.png", f"{'x' * 300}.png", "a\0b.png", str(tmp_path)]
    features.paths[50:] = [odd[row % 4] for row in range(50)]
    page, _ = page_of(features, Head("logreg", C=1e-5), tmp_path)
    assert page.thumbnails == {}
    assert page.data["pixels"]["unread"] == 100
    assert set(page.reasons.values()) == {"the image is missing or cannot be read"}


OUTSIDE = "the image lies outside the folder of the data set; --images FOLDER names another that is read"


def test_no_image_outside_the_data_set_is_shown_unless_its_folder_is_named(tmp_path: Path) -> None:
    features = photos(tmp_path / "elsewhere")
    root = tmp_path / "photos"
    root.mkdir()
    for row in range(50, 100):
        (root / f"{row}.png").symlink_to(tmp_path / "elsewhere" / f"{row}.png")
    ways = [f"{tmp_path}/elsewhere/{{}}", "../elsewhere/{}", "{}", "./../photos/../elsewhere/{}"]
    for way in ways:
        paths = np.array([way.format(path) for path in features.paths], dtype=object)
        strange = dataclasses.replace(features, paths=paths, dataset={"name": "pets", "root": str(root)})
        page, _ = page_of(strange, Head("logreg", C=0.1), tmp_path)
        assert (page.thumbnails, page.reasons[50]) == ({}, OUTSIDE)
        page, _ = page_of(
            strange, Head("logreg", C=0.1), tmp_path, images=[tmp_path / "nowhere", tmp_path / "elsewhere"]
        )
        assert sorted(page.thumbnails) == list(range(50, 100))


def test_a_note_counts_the_images_that_the_page_cannot_show(tmp_path: Path) -> None:
    features = dataclasses.replace(photos(tmp_path / "elsewhere"), dataset={"name": "pets", "root": str(tmp_path)})
    recorder = Recorder()
    fit_head(features, "ridge", C=0.1, report=True, models=tmp_path, reporter=recorder)
    (note,) = [note for note in recorder.notes if "could not be looked at" in note]
    assert note.startswith(f"{len(features)} images could not be looked at: the image is missing")


def test_an_image_that_was_replaced_is_not_shown_as_the_mistake(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    for row in range(50, 100):
        Image.new("RGB", (40, 30), (0, 0, 0)).save(tmp_path / "photos" / f"{row}.png")
    page, _ = page_of(features, Head("logreg", C=0.1), tmp_path)
    assert page.thumbnails == {}
    assert {page.reasons[row] for row in range(50, 100)} == {"the image has changed since its features were extracted"}


def test_an_image_of_a_terabyte_of_zeros_is_not_read(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    for row in range(50, 100):
        os.truncate(tmp_path / "photos" / f"{row}.png", 1 << 40)
    page, _ = page_of(features, Head("logreg", C=0.1), tmp_path)
    assert page.thumbnails == {}
    (why,) = {page.reasons[row] for row in range(50, 100)}
    assert "has 1,099,511,627,776 bytes; at most 1,073,741,824 are read" in why


@pytest.mark.parametrize("name", [SCRIPT, '"><img src=x onerror=alert(1)>', "a\0b\udcff", "$\\frac"])
def test_names_of_classes_images_and_data_sets_are_text_never_markup(name: str, tmp_path: Path) -> None:
    features = photos(tmp_path / "photos", names=("ant", name))
    features.dataset["name"] = name
    features.paths[50:] = [f"{row} {name}.png" for row in range(50)]
    page, _ = page_of(features, Head("logreg", C=0.1), tmp_path)
    assert len(page.of("script")) == len(SCRIPTS) + 2
    assert {str(image["src"])[:5] for image in page.of("img")} == {"data:"}
    if name == SCRIPT:
        assert page.text.count(SCRIPT) > 3
        assert page.data["classes"] == ["ant", SCRIPT]


def test_a_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    page, _ = page_of(photos(tmp_path / "photos"), Head("logreg"), tmp_path, cv=3, shots=(1, 2), repeat=2)
    for tag, attributes in page.tags:
        for attribute in ("src", "href", "action", "srcset"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert page.of("iframe") == []


def test_tables_of_all_heads_of_cross_validation_and_of_few_images_are_on_the_page(tmp_path: Path) -> None:
    page, fit = page_of(photos(tmp_path / "photos"), "auto", tmp_path, cv=3, repeat=2, shots=(1, 4))
    assert "Heads compared" in page.text
    for line in fit.compared:
        assert line.kind in page.text
        assert f"{line.loss:.4f}" in page.text
    crossed = fit.cross_validated
    assert "2 x 3 folds over 100 images" in page.text
    assert f"{crossed.mean('accuracy'):.4f}" in page.text
    assert f"{crossed.deviation('accuracy'):.4f}" in page.text
    for _, result in fit.shots:
        assert f"{result.mean('accuracy'):.4f}" in page.text
    assert "Accuracy by shots" in [image["alt"] for image in page.of("img")]


def test_where_nothing_is_held_out_the_page_shows_cross_validation_on_the_training_rows(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    features.splits[:] = "train"
    page, fit = page_of(features, Head("centroid"), tmp_path, cv=3)
    held_out = fit.head.held_out_
    assert f"accuracy {held_out.accuracy:.4f}" in page.text
    assert "on split train, cross-validated" in page.text
    assert page.data["predictions"]["rows"] == list(range(100))


def test_without_an_evaluation_the_page_states_that(tmp_path: Path) -> None:
    from featx.workflows.head_page import write_head_page

    features = photos(tmp_path / "photos")
    head = Head("centroid").fit(features, rows=np.array([0, 1]))
    assert head.held_out_ is None
    path = write_head_page(
        tmp_path / "page.html", head, features, report=None, rows=None, predictions=None, notes=["Mind this."]
    )
    assert "for classification; it was not evaluated." in Page(path).text
    assert "Mind this." in Page(path).text


def test_notes_and_a_probability_that_rejects_are_on_the_page(tmp_path: Path) -> None:
    features = photos(tmp_path / "photos")
    features.keys[50:53] = features.keys[:3]
    page, fit = page_of(features, Head("logreg", reject_below=0.6), tmp_path)
    assert "3 of 50 images of split test were trained on, byte for byte" in page.text
    assert "rejects" in page.text
    assert "0.6000" in page.text
    assert f"{fit.report.selective_accuracy:.4f}" in page.text


def test_a_browser_opens_the_page_with_the_part_about_the_head_first(tmp_path: Path, browse: Chromium) -> None:
    _, fit = page_of(photos(tmp_path / "photos", names=("ant", SCRIPT)), Head("logreg"), tmp_path)
    tab = browse(fit.card, width=390, touch=True)
    assert tab.page.locator("[role=tab][aria-selected=true]").inner_text() == "Head"
    assert "accuracy" in tab.page.locator(".part:not([hidden]) .headline").inner_text()
    tab.until("[...document.images].every((image) => image.complete)")
    drawn = tab.run("[...document.querySelectorAll('#head-part img')].map((image) => image.naturalWidth > 0)")
    assert len(drawn) >= 4
    assert all(drawn)
    assert tab.overflow == []
    tab.page.locator("#tab-mistakes").click()
    tab.page.get_by_role("button", name=f"ant predicted as {SCRIPT}").click()
    assert tab.overflow == []
    report = fit.report  # the matrix begins with the split that judged the head
    assert tab.page.locator("#tab-mistakes .n").inner_text() == str(report.n - np.trace(report.confusion))
    cells = tab.page.locator("#part-mistakes .matrix tbody td").all_inner_texts()
    assert cells == [str(count) for count in report.confusion.ravel()]
    assert tab.page.locator("#part-mistakes .count").inner_text().startswith(f"{report.confusion[0, 1]} of ")
    tab.page.locator("#part-mistakes select[aria-label=Split]").select_option("all splits")
    cells = tab.page.locator("#part-mistakes .matrix tbody td").all_inner_texts()
    assert sum(map(int, cells)) == 100


def test_the_confusion_matrix_has_only_classes_that_are_judged(tmp_path: Path, browse: Chromium) -> None:
    features = photos(tmp_path / "photos", names=("ant", "bee", "cow"))
    features.splits[features.labels == 0] = "pretrain"
    _, fit = page_of(features, Head("logreg"), tmp_path)
    tab = browse(fit.card)
    tab.page.locator("#tab-mistakes").click()
    assert tab.page.locator("#part-mistakes .matrix tbody th").all_inner_texts() == ["bee", "cow"]

"""The page of an inspection: the file, and in a browser what people do on it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Chromium, Tab
from PIL import Image

from featx.data.sources.table import read_table
from featx.errors import OutputError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.corrected_table import read_decisions
from featx.inspection.duplicates import Duplicates
from featx.inspection.fix import Decisions, fix
from featx.inspection.label_issues import LabelIssues
from featx.inspection.leaks import Leaks
from featx.inspection.neighbours import Neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import Outliers
from featx.inspection.page import json_text, page_data, write_inspection_page
from featx.inspection.pixels import PixelIssues
from featx.inspection.result import Inspection
from featx.report.html import Number, Section

CLASSES = ("ants", "<b>bees</b>", "w\"asps'&amp;", "\u05d0\u05d1\u05d2 \u202e", "a,b\nc")
"""Class names with markup, quotes, text from right to left, a comma and a line break."""

NAMES = (
    "<img src=x onerror=alert(1)>.jpg",
    "</script><script>alert(1)</script>.jpg",
    "\"quoted\", and 'more'.jpg",
    "new\nline.jpg",
    "\u05e9\u05dc\u05d5\u05dd.jpg",
    "\u202eexe.jpg",
    "${name} {{ page }} {% x %}.jpg",
    "=1+1.jpg",
)
"""Names of files that a page must show as text."""


def jpeg(colour: tuple[int, int, int], side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "JPEG")
    return file.getvalue()


def contents(count: int) -> np.ndarray:
    """Content hashes, of which the first two are equal."""
    keys = np.zeros((count, 16), dtype=np.uint8)
    keys[:, 0], keys[:, 1] = 1 + np.maximum(np.arange(count), 1) % 251, np.arange(count) // 251
    return keys


def inspection(
    count: int = 60, *, task: str = "classification", labelled: bool = True, thumbnails: bool = True
) -> Inspection:
    """An inspection made by hand.

    Rows 0 and 1 are a leak, 2 and 3 contradict one another, 4 to 6 are duplicates in one split; 10 to 15 have wrong labels, 20
    to 22 are outliers, 30 and 31 are dark, 40 has no thumbnail.
    """
    rng = np.random.default_rng(0)
    splits = np.where(np.arange(count) % 3 == 1, "test", "train").astype(object)
    splits[[0, 1, 2, 3, 4, 5, 6]] = ["train", "test", "train", "train", "train", "train", "train"]
    classes = {"regression": tuple(map(str, range(9))), "multilabel": ("cat", "cat|dog", "dog", "|")}.get(task, CLASSES)
    labels = np.arange(count) % len(classes)
    labels[1], labels[5], labels[6] = labels[0], labels[4], labels[4]
    labels[7] = -1
    if not labelled:
        labels[:], classes = -1, ()
    paths = [f"some/{i:03}.jpg" if i >= len(NAMES) else f"some/{NAMES[i]}" for i in range(count)]
    features = FeatureSet(
        features=rng.normal(size=(count, 4)).astype(np.float32),
        labels=labels,
        splits=splits,
        classes=classes,
        paths=paths,
        keys=contents(count),
        dataset={"name": "photos <i>", "root": "/data/\u00e9t\u00e9"},
        backbone={"name": "resnet18"},
    )
    pairs = np.array([[0, 1], [2, 3], [4, 5], [4, 6], [5, 6]])
    group_of = np.full(count, -1)
    group_of[:7] = [0, 0, 1, 1, 2, 2, 2]
    order = np.argsort(rng.random((count, count)) + 9 * np.eye(count), axis=1)[:, :5]
    flags = {"dark": np.isin(np.arange(count), [30, 31]), "odd_size": np.arange(count) == 30}
    pictures = {i: jpeg((4 * i % 255, 90, 200)) for i in range(count) if i != 40} if thumbnails else {}
    return Inspection(
        features=features,
        neighbours=Neighbours(order, np.sort(rng.random((count, 5)), axis=1).astype(np.float32)),
        duplicates=Duplicates(
            threshold=0.05,
            pairs=pairs,
            distances=np.array([0, 0.01, 0.02, 0.03, 0.04], dtype=np.float32),
            exact=np.array([True, False, False, False, False]),
            group_of=group_of,
            scores=np.ones(count),
            groups=tuple(np.flatnonzero(group_of == g) for g in range(3)),
        ),
        leaks=Leaks(
            across=np.array([0]),
            conflicts=np.array([1]) if labelled else np.zeros(0, np.int64),
            held_out="test",
            leaked=np.array([1]),
        ),
        outliers=Outliers(rng.random(count), 0.9, np.zeros(count, bool), np.ones(count), np.array([20, 21, 22])),
        out_of_fold=predictions(features, task) if labelled else None,
        labels=label_issues(features, task) if labelled else None,
        pixels=PixelIssues(
            flags,
            {kind: np.linspace(0, 1, count) for kind in flags},
            np.full((count, 2), 24),
            pictures,
            1,
            {40: "the image is missing"},
        ),
        notes=("One note.",),
    )


def predictions(features: FeatureSet, task: str) -> OutOfFold:
    rows = np.flatnonzero(features.labels >= 0)
    y = features.labels[rows]
    if task == "regression":
        return OutOfFold(rows, y[:, None].astype(float), y[:, None] + 0.5, ("value",), task, Head("ridge", task=task))
    if task == "multilabel":
        return OutOfFold(
            rows,
            np.ones((len(rows), 2), np.float32),
            np.full((len(rows), 2), 0.5),
            ("cat", "dog"),
            task,
            Head("logreg"),
        )
    outputs = np.full((len(rows), len(features.classes)), 0.02)
    predicted = np.where((rows >= 10) & (rows < 16), (y + 1) % len(features.classes), y)
    outputs[np.arange(len(rows)), predicted] = 0.92
    return OutOfFold(rows, y, outputs, features.classes, task, Head("logreg"))


def label_issues(features: FeatureSet, task: str) -> LabelIssues:
    count = len(features)
    given = np.array([features.classes[i] if i >= 0 else "" for i in features.labels], dtype=object)
    suggested = given.copy()
    wrong = np.arange(10, 16)
    for row in wrong:
        suggested[row] = features.classes[(features.labels[row] + 1) % len(features.classes)]
    judged = features.labels >= 0
    return LabelIssues(
        scores=np.where(judged, 0.5, np.nan),
        is_issue=np.isin(np.arange(count), wrong[:4]),
        given=given,
        suggested=suggested,
        confidence=np.where(judged, 0.92, np.nan) if task != "regression" else np.full(count, np.nan),
        expected=5,
        ranked=wrong,
    )


def square(count: int) -> np.ndarray:
    """Coordinates on a grid."""
    side = int(np.ceil(np.sqrt(count)))
    return np.stack([np.arange(count) % side, np.arange(count) // side], axis=1).astype(float)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the page of an inspection made by hand."""

    def written(found: Inspection | None = None, **settings: Any) -> Path:
        found = found or inspection()
        settings = {"coordinates": square(len(found.features))} | settings
        return write_inspection_page(tmp_path / "page.html", found, **settings)

    return written


def open_part(tab: Tab, name: str) -> None:
    tab.page.click(f"#tab-{name}")
    assert tab.page.is_visible(f"#part-{name}")


def exported(tab: Tab, path: Path) -> list[dict[str, str]]:
    """The table that the page exports, read as featx reads tables."""
    tab.download(lambda: tab.page.click("#export"), path)
    return [dict(cells) for _, cells in read_table(path, optional=("split", "group"))]


# The file


def test_data_cannot_end_the_element_that_holds_them() -> None:
    text = json_text(page_data(inspection()))
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text)["paths"][1] == f"some/{NAMES[1]}"
    assert json.loads(text)["classes"] == list(CLASSES)


def test_numbers_that_json_lacks_are_null() -> None:
    found = inspection()
    data = page_data(found, coordinates=np.full((60, 2), np.nan))
    assert data["map"] is None
    assert data["labelIssues"]["scores"][7] is None
    assert data["labelIssues"]["scores"][8] == 0.5


def test_the_policy_of_the_page_names_its_scripts_and_forbids_the_network(write: Callable[..., Path]) -> None:
    text = write().read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'none'" in policy[1]
    assert "file:" not in policy[1]
    assert "unsafe-eval" not in policy[1]
    assert len(re.findall("sha256-", policy[1])) == len(re.findall("<script>", text))


def test_thumbnails_above_the_limit_go_to_a_folder_beside_the_page(write: Callable[..., Path]) -> None:
    page = write(inline_limit=1000)
    folder = page.with_name("page_files")
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 1 + len({4 * i % 255 for i in range(60) if i != 40})
    assert "img-src data: blob: 'self' file:" in page.read_text()
    write(inline_limit=1000)
    assert {path.name for path in folder.iterdir()} == names
    write()
    assert not folder.exists()
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_a_folder_that_featx_did_not_make_is_not_replaced(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="page_files exists and is not a folder of thumbnails that featx made"):
        write(inline_limit=10)
    assert not (tmp_path / "page.html").exists()
    write()
    assert (tmp_path / "page_files" / "mine.txt").read_text() == "mine"


def test_a_file_that_is_no_page_of_featx_is_not_replaced(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="is not a page"):
        write()


# In a browser


def test_every_part_shows_foreign_names_as_text(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(
        write(sections=[Section("Classes", "A head.")], numbers=[Number("accuracy", "0.9")], headline="accuracy 0.9")
    )
    for name in (
        "overview",
        "map",
        "duplicates",
        "leaks",
        "conflicts",
        "labels",
        "mistakes",
        "outliers",
        "odd",
        "images",
        "head",
        "decisions",
    ):
        open_part(tab, name)
        assert tab.overflow == []
    open_part(tab, "images")
    shown = tab.page.locator("#part-images .name").all_inner_texts()
    assert shown[0] == NAMES[0]
    assert shown[1] == "script>.jpg"
    assert shown[3] == "new\\nline.jpg"
    assert shown[5] == "\\u202eexe.jpg"
    assert tab.run("document.querySelectorAll('main img[src=x], main b b, main i i').length") == 0


def test_the_page_exports_what_fix_makes_of_the_same_decisions(
    browse: Chromium, write: Callable[..., Path], tmp_path: Path
) -> None:
    found = inspection()
    tab = browse(write(found))
    open_part(tab, "labels")
    tab.page.locator("#part-labels .open").first.focus()
    for key in ("a", "r", "d", "1"):
        tab.page.keyboard.press(key)
    open_part(tab, "leaks")
    tab.page.click("#part-leaks button:has-text('Move to train')")
    open_part(tab, "duplicates")
    tab.page.click("#part-duplicates button:has-text('Group all')")
    table = exported(tab, tmp_path / "mended.csv")

    decisions = Decisions(
        labels={10: found.labels.suggested[10], 13: CLASSES[0]} if found.labels else {}, dropped=frozenset([12])
    )
    fixed = fix(found, duplicates="group", leaks="move", decisions=decisions)
    assert [row["path"] for row in table] == [
        f"/data/\u00e9t\u00e9/{path}" for path in found.features.paths[fixed.rows]
    ]
    assert [row["label"] for row in table] == fixed.labels.tolist()
    assert [row["split"] for row in table] == fixed.splits.tolist()
    assert [row["group"] for row in table] == fixed.groups.tolist()
    assert len(set(fixed.groups)) == 4

    read = read_decisions(tmp_path / "mended.csv", found)
    again = fix(found, duplicates="group", leaks="keep", decisions=read)
    for name in ("rows", "labels", "splits", "groups"):
        assert getattr(again, name).tolist() == getattr(fixed, name).tolist(), name


def test_groups_of_the_data_are_kept_and_joined_with_duplicates(
    browse: Chromium, write: Callable[..., Path], tmp_path: Path
) -> None:
    found = inspection()
    groups = np.array(["" if i < 5 or i > 8 else 'p, "1"' for i in range(60)], dtype=object)
    found = dataclasses.replace(found, features=dataclasses.replace(found.features, groups=groups, group="patient"))
    tab = browse(write(found))
    open_part(tab, "duplicates")
    tab.page.locator("#part-duplicates li").nth(2).get_by_role("button", name="Group").click()
    names = [row["group"] for row in exported(tab, tmp_path / "mended.csv")]
    assert [row for row, name in enumerate(names) if name == 'p, "1"'] == [4, 5, 6, 7, 8]
    assert set(names) == {"", 'p, "1"'}


def test_names_that_are_not_utf8_are_exported_as_json_lines(
    browse: Chromium, write: Callable[..., Path], tmp_path: Path
) -> None:
    found = inspection()
    paths = found.features.paths.copy()
    paths[9] = "some/caf\udce9.jpg"
    tab = browse(write(dataclasses.replace(found, features=dataclasses.replace(found.features, paths=paths))))
    open_part(tab, "outliers")
    tab.page.locator("#part-outliers .action.bad").first.click()
    table = exported(tab, tmp_path / "mended.jsonl")
    assert len(table) == 59
    assert table[9]["path"] == "/data/\u00e9t\u00e9/some/caf\udce9.jpg"
    assert [row["label"] for row in table[:7]] == [CLASSES[label] for label in found.features.labels[:7]]


def test_undo_and_redo_follow_each_step_and_a_bulk_decision_is_one_step(
    browse: Chromium, write: Callable[..., Path]
) -> None:
    tab = browse(write())
    open_part(tab, "labels")
    tab.page.click("#part-labels button:has-text('Accept all listed')")
    assert tab.page.inner_text("#state") == "6 decisions, not exported"
    tab.page.locator("#part-labels .action.good").first.click()
    assert tab.page.locator("#part-labels .card").first.get_attribute("data-status") == "rejected"
    tab.page.click("#undo")
    assert tab.page.locator("#part-labels .card").first.get_attribute("data-status") == "accepted"
    tab.page.click("#undo")
    assert tab.page.inner_text("#state") == "Nothing decided yet"
    tab.page.keyboard.press("Control+Shift+Z")
    assert tab.page.inner_text("#state") == "6 decisions, not exported"


def test_closing_the_page_warns_until_the_decisions_are_exported(
    browse: Chromium, write: Callable[..., Path], tmp_path: Path
) -> None:
    tab = browse(write())
    blocked = """() => {
      const event = new Event("beforeunload", { cancelable: true });
      dispatchEvent(event);
      return event.defaultPrevented;
    }"""
    assert not tab.run(blocked)
    open_part(tab, "outliers")
    tab.page.locator("#part-outliers .action.bad").first.click()
    assert tab.run(blocked)
    exported(tab, tmp_path / "mended.csv")
    assert not tab.run(blocked)


def test_a_second_inspection_with_the_same_groups_keeps_the_decisions(
    browse: Chromium, write: Callable[..., Path]
) -> None:
    tab = browse(write())
    open_part(tab, "outliers")
    tab.page.locator("#part-outliers .action.bad").first.click()
    write(dataclasses.replace(inspection(), seconds=3.0), coordinates=None, inline_limit=10)
    tab.page.reload()
    assert tab.page.inner_text("#state") == "1 decision, not exported"
    found = inspection()
    labels = found.features.labels.copy()
    labels[50] = -1
    write(dataclasses.replace(found, features=dataclasses.replace(found.features, labels=labels)))
    tab.page.reload()
    assert tab.page.inner_text("#state") == "Nothing decided yet"


def test_without_the_folder_beside_it_the_page_says_what_is_missing(
    browse: Chromium, write: Callable[..., Path], tmp_path: Path
) -> None:
    page = write(inline_limit=10)
    (tmp_path / "page_files").rename(tmp_path / "elsewhere")
    tab = browse(page, checked=False)
    open_part(tab, "images")
    tab.until("document.querySelectorAll('#part-images .gone').length > 3")
    assert tab.page.inner_text("#part-images .gone >> nth=0") == "the folder of thumbnails is not beside this page"


def test_rectangles_select_by_the_keyboard_and_with_shift(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(write())
    open_part(tab, "map")
    tab.until("map.width > 0")
    tab.page.focus("canvas")
    for key in ("r", "Shift+ArrowRight", "ArrowLeft", "Enter"):
        tab.page.keyboard.press(key)
    selected = tab.run("map.selection.length")
    assert 5 < selected < 40
    tab.page.keyboard.press("Escape")
    assert tab.run("map.selection.length") == 0
    box = tab.page.locator("canvas").bounding_box()
    assert box is not None
    tab.page.keyboard.down("Shift")
    tab.page.mouse.move(box["x"] + 5, box["y"] + 40)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=5)
    tab.page.mouse.up()
    tab.page.keyboard.up("Shift")
    assert tab.run("map.selection.length") > selected


def test_the_legend_hides_images_and_they_are_not_selected(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(write())
    open_part(tab, "map")
    tab.until("map.width > 0")
    tab.page.select_option(".colour-by select", "split")
    tab.page.click(".legend button:has-text('test')")
    tab.page.focus("canvas")
    tab.page.keyboard.press("s")
    splits = inspection().features.splits
    assert tab.run("map.selection") == np.flatnonzero(splits == "train").tolist()


def test_filters_narrow_a_gallery_and_a_missing_image_shows_why(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(write())
    open_part(tab, "images")
    tab.page.fill("#part-images input[type=search]", "/040")
    assert tab.page.inner_text("#part-images .count") == "1 of 60"
    assert tab.page.inner_text("#part-images .gone") == "the image is missing"
    tab.page.fill("#part-images input[type=search]", "no such name")
    assert tab.page.inner_text("#part-images .empty") == "No image passes these filters."
    open_part(tab, "odd")
    tab.page.select_option("#part-odd select[aria-label=Kind]", index=2)
    assert tab.page.locator("#part-odd .virtual > li").count() == 1


def test_labels_that_the_table_could_not_hold_are_refused(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(write())
    assert tab.run("checkedLabel(' new ')") == ["new", ""]
    assert tab.run("checkedLabel('a|b')[1]") == "a name with | would be read as several labels"
    several = browse(write(inspection(task="multilabel")))
    assert several.run("checkedLabel('b| a |b')") == ["a|b", ""]
    assert several.run("checkedLabel('|')") == ["|", ""]
    number = browse(write(inspection(task="regression")))
    assert number.run("checkedLabel('1.5')") == ["1.5", ""]
    assert number.run("checkedLabel('much')[1]") == "expected a number"


@pytest.mark.parametrize(
    ("task", "labels", "found_by"),
    [
        ("classification", f"{len(CLASSES)} classes", "confident learning"),
        ("multilabel", "2 labels", "confident learning"),
        ("regression", "numbers as labels", "far from the prediction"),
    ],
)
def test_the_page_describes_the_labels_of_each_task(
    task: str, labels: str, found_by: str, browse: Chromium, write: Callable[..., Path]
) -> None:
    tab = browse(write(inspection(task=task)))
    assert labels in tab.page.locator(".summary").inner_text()
    assert found_by in tab.page.locator(".found").inner_text()
    tab.page.locator("#tab-images").click()
    names = set(tab.page.locator(".part:not([hidden]) .label-line").all_inner_texts())
    assert "|" not in names
    assert ("no label" in names) == (task == "multilabel")


def test_a_new_class_is_asked_for_and_offered_from_then_on(browse: Chromium, write: Callable[..., Path]) -> None:
    tab = browse(write())
    open_part(tab, "images")
    tab.page.locator("#part-images .open").nth(8).click()
    tab.page.select_option("#detail .relabel", "new")
    tab.page.fill("#ask input", "wasp <2>")
    tab.page.keyboard.press("Enter")
    assert "wasp <2>" in tab.page.inner_text("#detail .label-line")
    assert "wasp <2>" in tab.page.inner_text("#detail .relabel")
    tab.page.keyboard.press("Escape")
    assert tab.run("newLabel(8)") == "wasp <2>"


@pytest.mark.parametrize("count", [7, 20])
def test_a_page_of_few_unlabelled_images_without_thumbnails_or_map(
    count: int, browse: Chromium, write: Callable[..., Path]
) -> None:
    found = dataclasses.replace(inspection(60, labelled=False), pixels=None)
    rows = np.arange(count)
    few = dataclasses.replace(
        found,
        features=found.features.take(rows),
        neighbours=Neighbours(np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32)),
        outliers=Outliers(np.full(count, np.nan), float("nan"), np.zeros(count, bool), np.ones(count), rows[:0]),
    )
    tab = browse(write(few, coordinates=None), width=320, touch=True)
    for part in tab.run("panels.map(({ id }) => id)"):
        open_part(tab, part)
        assert tab.overflow == []
    assert tab.page.locator("#tab-map, #tab-labels, #tab-conflicts, #tab-odd").count() == 0

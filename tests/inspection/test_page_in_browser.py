"""The page of an inspection in a real browser: what users do there, and what they get."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Chromium, Tab
from inspections import large
from planted import CLASSES, COPIED, COPY, ODD_NAMES, Planted, plant

import featx
from featx.inspection.coordinates import map_coordinates
from featx.inspection.data_table import extract_command, fit_options
from featx.inspection.page import write_inspection_page
from featx.inspection.result import Inspection
from featx.report.head_parts import head_facts, head_sections
from featx.report.sections import headline_of, numbers_of


def write(path: Path, inspection: Inspection, **options: Any) -> Path:
    """The page of an inspection with the map and the part about the head."""
    judged, features = inspection.judged, inspection.features
    if judged is not None:
        options |= {
            "sections": head_sections(
                judged.head, features, report=judged.report, rows=judged.rows, predictions=judged.outputs
            ),
            "numbers": numbers_of(judged.report),
            "headline": headline_of(judged.report),
            "facts": head_facts(judged.head, features),
        }
    return write_inspection_page(path, inspection, coordinates=map_coordinates(features), **options)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A data set with faults."""
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def inspection(planted: Planted) -> Inspection:
    """What an inspection finds there."""
    return planted.inspect()


@pytest.fixture(scope="module")
def page(planted: Planted, inspection: Inspection) -> Path:
    """Its page."""
    return write(planted.file.parent.parent / "inspection.html", inspection)


def show(tab: Tab, part: str) -> None:
    """Open a part of the page by its tab."""
    tab.page.locator(f"#tab-{part}").click()


def items(tab: Tab) -> Any:
    """The items of the gallery that is shown."""
    return tab.page.locator(".part:not([hidden]) .virtual > li")


def place(tab: Tab, row: int) -> tuple[float, float]:
    """Where the map shows an image, in pixels of the window."""
    box = tab.page.locator("canvas").bounding_box()
    x, y = tab.run(
        "(row) => [(map.xs[row] - map.view.x) * map.view.scale, (map.ys[row] - map.view.y) * map.view.scale]", row
    )
    return box["x"] + x, box["y"] + y


def table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of an exported table by their paths."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def save(tab: Tab, folder: Path) -> Path:
    """Export the decisions."""
    return tab.download(lambda: tab.page.locator("#export").click(), folder / "mended.csv")


# ---- What it looks like


CUT_BUTTONS = """[...document.querySelectorAll(".part:not([hidden]) .card .action")]
    .filter((button) => button.getBoundingClientRect().bottom > button.closest(".card").getBoundingClientRect().bottom)
    .map((button) => button.textContent)"""
"""The texts of buttons that stand out of their card, which cuts them."""


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1280, "light"), (3840, "dark")])
def test_every_part_fits_the_window_and_draws_its_images(
    width: int, scheme: str, page: Path, inspection: Inspection, browse: Chromium
) -> None:
    tab = browse(page, width=width, height=1600 if width > 2000 else 844, scheme=scheme, touch=width < 600)
    shown = dict.fromkeys(tab.run("panels.map((panel) => panel.id)"), 0)
    for part in shown:
        show(tab, part)
        tab.until("[...document.images].every((image) => image.complete)")
        assert tab.overflow == [], part
        broken = "[...document.images].filter((image) => !image.naturalWidth).length"
        assert tab.run(broken) == 0, part
        assert tab.run(CUT_BUTTONS) == [], part
        shown[part] = tab.run("document.querySelectorAll('.part:not([hidden]) img').length")
    assert [part for part in ("duplicates", "leaks", "labels", "mistakes", "images", "head") if not shown[part]] == []
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")


def test_names_are_text_whatever_is_in_them(page: Path, inspection: Inspection, browse: Chromium) -> None:
    tab = browse(page, width=3840, height=2400)
    scripts = tab.page.locator("script").count()
    show(tab, "images")
    names = tab.page.locator(".part:not([hidden]) .virtual .name").all_inner_texts()
    assert len(names) == len(inspection.features)
    shown = [
        "<img src=x onerror=alert(1)>.png",
        "a\\nb,\\t\"c\"'d'.png",
        "\\u202egnp.\u05d0\u05d1.png",
        "100%25 #1?.png",
    ]
    assert [names.count(name) for name in shown] == [len(CLASSES)] * len(ODD_NAMES)
    assert tab.page.locator("script").count() == scripts
    assert tab.page.locator("b", has_text="dark").count() == 0
    assert tab.page.locator("[onerror]").count() == 0
    labels = set(tab.page.locator(".part:not([hidden]) .virtual .label").all_inner_texts())
    assert labels == set(CLASSES)
    show(tab, "overview")
    assert set(CLASSES) <= set(tab.page.locator("th[scope=row] button").all_inner_texts())


# ---- The map


def test_the_map_shows_the_image_under_the_pointer_and_opens_it(
    page: Path, inspection: Inspection, browse: Chromium
) -> None:
    tab = browse(page)
    show(tab, "map")
    tab.until("map && map.width > 0")
    features = inspection.features
    row = int(np.flatnonzero(features.paths == COPIED.format(CLASSES[0]))[0])
    tab.page.mouse.move(*place(tab, row))
    tab.until("!document.querySelector('.tip').hidden")
    found = tab.run("map.hover")
    assert (features.keys[found] == features.keys[row]).all()  # or its copy, which lies at the same place
    assert tab.page.locator(".tip img").evaluate("(image) => image.complete && image.naturalWidth") > 0
    assert CLASSES[0] in tab.page.locator(".tip").inner_text()
    tab.page.mouse.click(*place(tab, row))
    assert tab.page.locator("#detail").is_visible()
    assert tab.page.locator("#detail-title").inner_text() == Path(features.paths[found]).name
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#detail").is_visible()


def test_a_lasso_selects_the_images_inside_and_saves_them_as_csv(
    page: Path, planted: Planted, inspection: Inspection, tmp_path: Path, browse: Chromium
) -> None:
    tab = browse(page)
    show(tab, "map")
    tab.until("map && map.width > 0")
    tab.page.get_by_role("button", name="Select images with a lasso").click()
    box = tab.page.locator("canvas").bounding_box()
    left, top, right, bottom = (
        box["x"] + 2,
        box["y"] + 60,
        box["x"] + 0.5 * box["width"],
        box["y"] + box["height"] - 2,
    )
    tab.page.mouse.move(left, top)
    tab.page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        tab.page.mouse.move(x, y, steps=4)
    tab.page.mouse.up()
    inside = [
        row
        for row in range(len(inspection.features))
        if left < place(tab, row)[0] < right and top < place(tab, row)[1] < bottom
    ]
    assert 5 < len(inside) < len(inspection.features) - 5
    assert f"{len(inside)} images selected" in tab.page.locator(".selection").inner_text()
    click = tab.page.get_by_role("button", name="Save selection as CSV").click
    found = table(tab.download(click, tmp_path / "selection.csv"))
    assert list(found) == [f"{planted.root}/{path}" for path in inspection.features.paths[inside]]


def test_dragging_moves_the_map_and_the_wheel_zooms_at_the_pointer(page: Path, browse: Chromium) -> None:
    tab = browse(page)
    show(tab, "map")
    tab.until("map && map.width > 0")
    x, y = place(tab, 10)
    tab.page.mouse.move(x, y)
    tab.page.mouse.wheel(0, -600)
    tab.until("map.view.scale > 1.5 * map.fitScale")
    assert np.hypot(*np.subtract(place(tab, 10), (x, y))) < 2
    tab.page.mouse.down()
    tab.page.mouse.move(x + 80, y + 50, steps=5)
    tab.page.mouse.up()
    np.testing.assert_allclose(place(tab, 10), (x + 80, y + 50), atol=2)


def test_on_a_touch_screen_a_tap_shows_an_image_and_a_second_opens_it(page: Path, browse: Chromium) -> None:
    tab = browse(page, width=390, height=844, touch=True)
    show(tab, "map")
    tab.until("map && map.width > 0")
    tab.page.touchscreen.tap(*place(tab, 10))
    tab.until("!document.querySelector('.tip').hidden")
    assert not tab.page.locator("#detail").is_visible()
    tab.page.touchscreen.tap(*place(tab, tab.run("map.hover")))
    assert tab.page.locator("#detail").is_visible()


# ---- Decisions


def test_what_is_decided_by_keys_is_exported_and_extracted_without_a_forward_pass(
    page: Path, planted: Planted, inspection: Inspection, tmp_path: Path, browse: Chromium
) -> None:
    features, labels = inspection.features, inspection.labels
    tab = browse(page)
    first, _, third, fourth = labels.ranked[:4].tolist()
    show(tab, "labels")
    items(tab).first.locator(".open").focus()
    for key in ("a", "r", "d", "3"):  # accept, reject, drop, and the third class
        tab.page.keyboard.press(key)
    assert tab.page.locator("#state").inner_text() == "4 decisions, not exported"
    tab.page.keyboard.press("Control+z")
    assert tab.page.locator("#state").inner_text() == "3 decisions, not exported"
    tab.page.keyboard.press("Control+y")
    show(tab, "leaks")
    leak = items(tab).filter(has_text="copy of 03.png").filter(has_text="same file")
    leak.get_by_role("button", name="Move to train").click()
    file = save(tab, tmp_path)
    assert tab.page.locator("#state").inner_text() == "5 decisions, exported"

    class_three = tab.run("LABEL_NAMES[2]")
    expected = {path: labels.given[row] for row, path in enumerate(features.paths)}
    expected[features.paths[first]] = labels.suggested[first]
    expected[features.paths[fourth]] = class_three
    del expected[features.paths[third]]
    images = featx.scan_images(file)
    found = {
        str(Path(images.root, path).relative_to(planted.root)): (images.classes[label], split)
        for path, label, split in zip(images.paths, images.labels, images.splits, strict=True)
    }
    gone = f"train/{CLASSES[0]}/00.png"  # the table names it as before, and it is still missing
    assert {path: label for path, (label, _) in found.items()} == {k: v for k, v in expected.items() if k in found}
    assert set(expected) - set(found) <= {gone}
    assert found[COPY.format(CLASSES[0])][1] == "train"
    assert found[COPIED.format(CLASSES[0])][1] == "train"
    extraction = featx.extract(file, "lenet5", cache=planted.file.parent)
    assert (extraction.computed, extraction.images) == (0, len(expected))
    show(tab, "decisions")
    command, fit = tab.page.locator(".commands").inner_text().splitlines()
    assert command == extract_command(features, Path(tab.run("baseName()") + "-mended.csv"))
    assert "--backbone lenet5" in command
    assert fit == shlex.join(["featx", "fit-head", *fit_options(features, "classification"), "--compare", "HEAD"])


def test_duplicates_begin_with_the_closest(page: Path, inspection: Inspection, browse: Chromium) -> None:
    tab = browse(page)
    show(tab, "duplicates")
    tab.run("scrollTo(0, 0)")
    shown = tab.run(
        "parts.duplicates.gallery.list.items.map((g) => DATA.duplicates.exact[g] ? -1 : DATA.duplicates.distances[g])"
    )
    assert len(shown) == len(inspection.duplicates.groups) > 1
    assert shown == sorted(shown)


def test_decisions_leave_the_colours_of_the_classes(page: Path, browse: Chromium) -> None:
    tab = browse(page)
    colours = """(name) => { const found = colourings()[name](); return Object.fromEntries(found.names.map((text, i) =>
        [text, found.colours[i]])) }"""
    before = {name: tab.run(colours, name) for name in ("label", "prediction", "decision")}
    assert {name: before["prediction"][name] for name in CLASSES} == {name: before["label"][name] for name in CLASSES}
    few = tab.run("LABEL_NAMES.at(-1)")  # becomes the most frequent one
    tab.run("(name) => decide(ALL_ROWS.flatMap((row) => relabel(row, name)))", few)
    assert {name: tab.run(colours, name) for name in before} == before


def test_the_state_survives_a_reload_and_undo_takes_back_step_by_step(page: Path, browse: Chromium) -> None:
    tab = browse(page)
    assert tab.page.locator("#state").inner_text() == "Nothing decided yet"
    show(tab, "labels")
    accept = items(tab).first.locator(".action.accept")
    accept.click()
    assert accept.get_attribute("aria-pressed") == "true"
    tab.page.reload()
    assert tab.page.locator("#tab-labels").get_attribute("aria-selected") == "true"  # the part of the page is kept too
    assert items(tab).first.locator(".action.accept").get_attribute("aria-pressed") == "true"
    assert tab.page.locator("#state").inner_text() == "1 decision, not exported"
    show(tab, "decisions")
    assert items(tab).count() == 1
    tab.page.get_by_role("button", name="Take all back").click()
    assert tab.page.locator("#state").inner_text() == "Nothing decided yet"
    tab.page.get_by_role("button", name="Undo").click()
    assert tab.page.locator("#state").inner_text() == "1 decision, not exported"


def test_the_page_says_that_nothing_is_kept_where_the_browser_forbids_it(
    page: Path, tmp_path: Path, browse: Chromium
) -> None:
    tab = browse(page, storage=False)
    show(tab, "labels")
    items(tab).first.locator(".action.accept").click()
    assert tab.page.locator("#state").inner_text() == "1 decision, not exported"
    assert tab.page.locator("#storage").is_visible()
    assert len(table(save(tab, tmp_path))) > 50


def test_the_keyboard_alone_reaches_everything(page: Path, tmp_path: Path, browse: Chromium) -> None:
    tab = browse(page)
    press = tab.page.keyboard.press
    focused = "document.activeElement"

    def press_until(key: str, condition: str, most: int = 40) -> None:
        for _ in range(most):
            if tab.run(condition):
                return
            press(key)
        raise AssertionError(f"{key} never made it true: {condition}")

    press_until("Tab", f"{focused}.id === 'tab-overview'")
    press_until("ArrowRight", f"{focused}.id === 'tab-labels'")
    press_until("Tab", f"{focused}.matches('.virtual .open')")
    press("a")
    assert tab.run(f"Number({focused}.closest('li').dataset.place)") == 1  # the next
    press("Enter")
    assert tab.page.locator("#detail").is_visible()
    press("ArrowRight")
    press("d")
    press("Escape")
    press_until("Shift+Tab", f"{focused}.id === 'tab-labels'")
    press_until("ArrowLeft", f"{focused}.id === 'tab-map'")
    press_until("Tab", f"{focused}.matches('canvas')")
    press("s")
    assert "selected" in tab.page.locator(".selection").inner_text()
    press("Escape")
    assert not tab.page.locator(".selection").is_visible()
    press_until("Shift+Tab", f"{focused}.id === 'export'")
    found = table(tab.download(lambda: press("Enter"), tmp_path / "mended.csv"))
    assert len(found) == tab.run("N") - 1
    press("?")
    assert tab.page.locator("#help").is_visible()


def test_a_cell_of_the_confusion_matrix_shows_its_images(page: Path, inspection: Inspection, browse: Chromium) -> None:
    labels = inspection.labels
    tab = browse(page)
    show(tab, "mistakes")
    given, suggested = CLASSES[1], CLASSES[2]
    cell = tab.page.get_by_role("button", name=f"of {given} predicted as {suggested}")
    rows = np.flatnonzero((labels.given == given) & (labels.suggested == suggested))
    assert cell.inner_text() == str(len(rows))
    cell.click()
    assert items(tab).count() == len(rows) > 0
    shown = items(tab).locator(".label").all_inner_texts()
    assert set(shown) == {given}
    cell.click()
    assert items(tab).count() == len(labels.ranked)


# ---- Other data


def test_thumbnails_beyond_a_limit_are_files_beside_the_page(
    inspection: Inspection, tmp_path: Path, browse: Chromium
) -> None:
    path = write(tmp_path / "odd name #1 100%.html", inspection, inline_limit=1000)
    tab = browse(path)
    show(tab, "images")
    tab.until("document.images.length > 10 && [...document.images].every((image) => image.complete)")
    assert tab.run("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert len([url for url in tab.requests if "_files/" in url]) > 10


def unlabelled(inspection: Inspection) -> Inspection:
    features = inspection.features
    return featx.inspect(
        dataclasses.replace(features, labels=np.full(len(features), -1), classes=(), source=None), pixels=False
    )


def relabelled(inspection: Inspection, strings: Sequence[str], task: str) -> Inspection:
    features = inspection.features
    classes, labels = np.unique(np.array(strings, dtype=object), return_inverse=True)
    changed = dataclasses.replace(features, classes=tuple(classes), labels=labels, source=None)
    return featx.inspect(changed, task=task, thumbnails=True)


def test_images_without_labels_have_a_page(inspection: Inspection, tmp_path: Path, browse: Chromium) -> None:
    tab = browse(write(tmp_path / "page.html", unlabelled(inspection)), width=390, touch=True)
    for part in tab.run("panels.map((panel) => panel.id)"):
        show(tab, part)
        assert tab.overflow == []
    assert tab.page.locator("#tab-labels").count() == 0
    show(tab, "duplicates")
    items(tab).first.get_by_role("button", name="Group").click()
    found = table(save(tab, tmp_path))
    assert len({row["group"] for row in found.values()} - {""}) == 1
    assert {row["label"] for row in found.values()} == {""}


def test_several_labels_and_numbers_have_a_page(inspection: Inspection, tmp_path: Path, browse: Chromium) -> None:
    names = [str(path).split("/")[1] for path in inspection.features.paths]
    several = ["|".join(["any", *(["dark"] if name == CLASSES[0] else [])]) for name in names]
    numbers = [f"{10 * CLASSES.index(name) + row % 7 / 10}" for row, name in enumerate(names)]
    for strings, task, new in ((several, "multilabel", "any|new"), (numbers, "regression", "12.5")):
        tab = browse(write(tmp_path / f"{task}.html", relabelled(inspection, strings, task)))
        for part in tab.run("panels.map((panel) => panel.id)"):
            show(tab, part)
            assert tab.overflow == []
        show(tab, "images")
        items(tab).first.locator(".open").click()
        tab.page.locator("#detail .relabel").fill(new)
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Escape")
        found = table(save(tab, tmp_path))
        assert next(iter(found.values()))["label"] == new


def test_of_twenty_thousand_images_only_those_in_view_are_in_the_document(tmp_path: Path, browse: Chromium) -> None:
    tab = browse(write(tmp_path / "page.html", large(20_000)))
    assert (tmp_path / "page_files").is_dir()
    size = "document.querySelectorAll('*').length"
    assert tab.run(size) < 1000
    for part in tab.run("panels.map((panel) => panel.id)"):
        show(tab, part)
        shown = "document.querySelectorAll('.part:not([hidden]) .virtual > li').length"
        assert tab.run(shown) < 120, part
        for share in (0.5, 1.0, 0.0):
            tab.run("(share) => scrollTo(0, share * document.scrollingElement.scrollHeight)", share)
            tab.until("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            assert tab.run(shown) < 120, part
            if part in ("duplicates", "leaks", "labels", "outliers", "images"):
                assert tab.run(shown) > 3, part
    assert tab.run(size) < 8000
    show(tab, "images")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("class 7/019")
    tab.until("document.querySelector('#part-images .count').textContent.startsWith('50 of 20,000')")
    show(tab, "map")
    tab.until("map.width > 0")
    before = place(tab, 7)
    box = tab.page.locator("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    for by in range(10, 101, 10):
        tab.page.mouse.move(x + by, y + by)
    tab.page.mouse.up()
    np.testing.assert_allclose(place(tab, 7), np.add(before, 100), atol=2)
    tab.page.keyboard.press("s")
    tab.until("map.selection.length > 10_000")
    assert tab.run(size) < 8000

"""Contact sheets of searches and explanations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import featx
from featx.errors import OutputError
from featx.heads.head import Head
from featx.retrieval import sheet
from featx.retrieval.explanation import explain
from featx.retrieval.sheet import write_explanation_sheet, write_search_sheet
from featx.retrieval.similar import search

EVIL = "<img src=x onerror=alert(1)>\"'\n.png"


@pytest.fixture
def file(split_photos: Path, in_tmp: Path) -> Path:
    """LeNet-5's features of the split photographs, one of which has a name with markup."""
    dark = split_photos / "train" / "dark"
    (dark / "00.png").rename(dark / EVIL.replace("/", ""))
    return featx.extract(split_photos, "lenet5").file


def test_a_search_becomes_a_page_with_a_thumbnail_of_each_image(file: Path) -> None:
    results = search(file, ["gone.png"], rows=[0, 1], top=3)
    text = write_search_sheet("sheet.html", results, file).read_text()
    assert text.count("data:image/jpeg;base64,") == 2 * (1 + 3)
    assert f"{results[0].hits[0].similarity:.4f} {results[0].hits[0].label} (" in text
    assert "cannot be read: No such file or directory" in text
    assert "Content-Security-Policy" in text


def test_names_of_images_are_text_and_never_markup(file: Path) -> None:
    row = featx.FeatureFile(file).paths.index(f"train/dark/{EVIL}")
    text = write_search_sheet("sheet.html", search(file, rows=[row], top=1), file).read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_an_image_that_is_gone_or_has_changed_has_its_reason_in_place_of_the_thumbnail(
    file: Path, split_photos: Path
) -> None:
    (split_photos / "train" / "dark" / "01.png").unlink()
    shutil.copy(split_photos / "train" / "dark" / "03.png", split_photos / "train" / "dark" / "02.png")
    text = write_search_sheet("sheet.html", search(file, rows=[5], top=99), file).read_text()
    assert text.count("the image is missing or cannot be read") == 1
    assert text.count("the image has changed since its features were extracted") == 1


def test_an_explanation_becomes_a_page_of_supporting_and_opposing_images(file: Path, split_photos: Path) -> None:
    head = Head("logreg", C=1e-3).fit(featx.FeatureSet.load(file))
    found = explain(head, [split_photos / "val" / "light" / "00.png", "gone.png"], count=2)
    text = write_explanation_sheet("sheet.html", found, file).read_text()
    assert text.count("data:image/jpeg;base64,") == 1 + 3 * 2
    assert "For light: training images with the largest influence" in text
    assert "Against light" in text
    assert f"{found[0].influences[0].supporting[0].value:+.4g}" in text


def test_a_sheet_of_very_many_images_has_thumbnails_of_the_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MOST_THUMBNAILS", 5)
    text = write_search_sheet("sheet.html", search(file, rows=[0], top=9), file).read_text()
    assert text.count("data:image/jpeg;base64,") == 5
    assert text.count("only the first 5 images have thumbnails") == 5


def test_a_sheet_takes_the_place_of_a_sheet_and_of_nothing_else(file: Path) -> None:
    results = search(file, rows=[0], top=1)
    write_search_sheet("sheet.html", results, file)
    write_search_sheet("sheet.html", results, file)
    Path("notes.html").write_text("<!DOCTYPE html>my notes")
    with pytest.raises(OutputError, match=r"notes\.html"):
        write_search_sheet("notes.html", results, file)
    assert Path("notes.html").read_text() == "<!DOCTYPE html>my notes"

"""Labels that were edited, and images that were moved, after the extraction."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_image

from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.features.label_changes import label_changes
from featx.workflows.fit import fit_head

END = (
    ". The labels in the feature file are used; the same featx extract takes the changes over, without a forward pass for "
    "images that it knows"
)
CHANGED = "has changed since its features were extracted: "
ROWS = "path,label,split\n" + "".join(
    f"{number}.png,{'ab'[number % 2]},{'train' if number < 6 else 'test'}\n" for number in range(8)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(8):
        write_image(tmp_path / "t" / f"{number}.png", seed=number, tint=60 + 120 * (number % 2))
    (tmp_path / "t" / "t.csv").write_text(ROWS)
    return tmp_path / "t" / "t.csv"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("2.png,a,", "2.png,b,", "1 image has another label (such as 2.png)"),
        ("2.png,a,", "2.png,,", "1 image has another label (such as 2.png)"),
        (",a,", ",ab,", "4 images have other labels (such as 0.png)"),
        ("7.png,b,test", "7.png,b,val", "1 image is in another split (such as 7.png)"),
        ("7.png,b,test\n", "", "1 image is no longer listed (such as 7.png)"),
        ("7.png,b,test\n", "7.png,b,test\n8.png,a,test\n", "1 image is new (such as 8.png)"),
        ("7.png,b,test\n", "7.png,b,test,x,y\n", "it cannot be read any more ("),
    ],
)
def test_a_table_that_was_edited_is_noted(table: Path, old: str, new: str, found: str) -> None:
    file = extract(table, "lenet5", cache=table.parent / "cache").file
    assert label_changes(file) == ()
    table.write_text(ROWS.replace("test", "Testing").replace(",a,", ", a ,"))
    assert label_changes(file) == ()
    table.write_text(ROWS.replace(old, new))
    (note,) = label_changes(file)
    assert note.startswith(f"t.csv {CHANGED}{found}")
    assert note.endswith(END)
    table.unlink()
    assert label_changes(file) == ()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda f: (f / "dark" / "03.png").replace(f / "light" / "03.png"), "1 image is gone (such as dark/03.png)"),
        (lambda f: (f / "dark" / "03.png").rename(f / "light" / "z.png"), "1 image is new (such as light/z.png), 1 image is g"),
        (lambda f: (f / "dark").rename(f / "night"), "20 images were moved to other folders (such as dark/00.png)"),
        (lambda f: write_image(f / "dark" / "99.png", seed=1), "1 image is new (such as dark/99.png)"),
        (lambda f: write_image(f / "third" / "1.png", seed=1), "1 image is new (such as third/1.png)"),
        (lambda f: shutil.rmtree(f / "dark"), "20 images are gone (such as dark/00.png)"),
    ],
    ids=["overwritten", "renamed", "class renamed", "added", "class added", "removed"],
)  # fmt: skip
def test_a_folder_whose_images_were_moved_is_noted(photos: Path, change: Callable[[Path], object], found: str) -> None:
    file = extract(photos, "lenet5", cache=photos.parent / "cache").file
    assert label_changes(file) == ()
    (photos / "dark" / "notes.txt").write_text("no image")
    assert label_changes(file) == ()
    change(photos)
    (note,) = label_changes(file)
    assert note.startswith(f"photos {CHANGED}{found}")
    extract(photos, "lenet5", cache=photos.parent / "cache")
    assert label_changes(file) == ()


def test_rows_of_parquet_with_other_labels_are_noted(tmp_path: Path) -> None:
    rows = pytest.importorskip("row_files", reason="needs pyarrow")
    data = tmp_path / "pets"
    rows.pets(data / "train-0001-of-0002.parquet", 4)
    rows.pets(data / "test-0002-of-0002.parquet", 4, 10)
    file = extract(data, "lenet5", cache=tmp_path / "cache").file
    assert label_changes(file) == ()
    rows.pets(data / "test-0002-of-0002.parquet", 5, 11)
    (note,) = label_changes(file)
    assert note.startswith(
        f"pets {CHANGED}5 images are new (such as test-0002-of-0002.parquet/0/pet_11.png), 4 images are no longer listed"
    )
    extract(data, "lenet5", cache=tmp_path / "cache")
    assert label_changes(file) == ()
    (data / "test-0002-of-0002.parquet").write_bytes(b"PAR1")
    (note,) = label_changes(file)
    assert "it cannot be read any more (" in note


def test_a_fit_notes_it_and_uses_the_labels_of_the_features(table: Path, in_tmp: Path) -> None:
    file = extract(table, "lenet5").file
    table.write_text(ROWS.replace("2.png,a,", "2.png,c,"))
    for source in (file, FeatureSet.load(file)):
        fit = fit_head(source, "centroid")
        assert fit.head.classes_ == ("a", "b")
        assert fit.notes[0].startswith(f"t.csv {CHANGED}1 image has another label")
    extract(table, "lenet5")
    assert fit_head(file, "centroid").head.classes_ == ("a", "b", "c")


def test_features_from_no_file_and_of_a_set_that_is_gone_are_not_compared(photos: Path) -> None:
    file = extract(photos, "lenet5", cache=photos.parent / "cache").file
    shutil.rmtree(photos)
    assert label_changes(file) == label_changes(None) == label_changes(photos / "none.h5") == ()

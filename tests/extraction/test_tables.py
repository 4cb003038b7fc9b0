"""Tables whose columns travel with the features: a second run, changes, and what reads the table again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.data.scan import scan_images
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.features.label_changes import label_changes
from featx.heads.groups import read_column
from featx.inspection.corrected_table import write_fixed_table
from featx.inspection.exports import export
from featx.inspection.info import describe_file
from featx.inspection.pipeline import inspect
from featx.workflows.fit import fit_head

ROWS = [f"x{number},{'cat' if number % 2 else 'dog'},p{number // 3},{number % 4},10" for number in range(12)]


@pytest.fixture
def pets(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    """A table of ids with images in a folder beside it."""
    for number in range(12):
        make_image(tmp_path / "train" / f"x{number}.png", seed=number, tint=20 * number + 10)
    write(tmp_path / "pets.csv", ROWS)
    return tmp_path / "pets.csv"


def write(table: Path, rows: list[str]) -> None:
    """The table with these rows."""
    table.write_text("\n".join(["image_id;species;patient;fold;x", *(row.replace(",", ";") for row in rows)]) + "\n")


def run(table: Path, **options: Any) -> Extraction:
    """Extract the images of the table through the small backbone."""
    images = scan_images(table, root=table.parent / "train", **options)
    return extract(images, "lenet5", cache=table.parent / "cache")


def test_columns_travel_with_the_features_and_cost_no_forward_pass(pets: Path) -> None:
    first = run(pets)
    assert (first.computed, first.failed) == (12, 0)
    features = FeatureSet.load(first.file)
    assert list(features.columns) == ["image_id", "patient", "fold", "x"]
    assert features.columns["image_id"].tolist() == [path.removesuffix(".png") for path in features.paths]
    assert describe_file(first.file)["columns"] == ["image_id", "patient", "fold", "x"]
    before = first.file.read_bytes()
    again = run(pets)
    assert (again.computed, again.reused) == (0, 12)
    assert again.file.read_bytes() == before

    write(pets, [ROWS[0].replace("p0", "p9"), *ROWS[1:]])
    changed = run(pets)
    assert (changed.computed, changed.reused) == (0, 12)
    assert FeatureSet.load(changed.file).columns["patient"].tolist().count("p9") == 1


def test_a_table_without_columns_makes_the_file_that_it_always_made(pets: Path) -> None:
    pets.write_text("path,label\n" + "".join(f"x{number}.png,{number % 2}\n" for number in range(12)))
    file = run(pets).file
    assert FeatureFile(file).structure.attrs["version"] == 1
    assert describe_file(file)["columns"] == []


def test_changed_labels_are_found_by_the_options_of_the_file(pets: Path) -> None:
    file = run(pets).file
    assert label_changes(file) == ()
    write(pets, [ROWS[0].replace("dog", "cat"), *ROWS[1:-1], "x99,cat,p1,0,10"])
    (note,) = label_changes(file)
    assert (
        "1 image has another label (such as x0.png), 1 image is new (such as x99), 1 image is no longer listed" in note
    )


def test_columns_come_out_of_every_table(pets: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(pets, [*ROWS[:-2], ROWS[-2].replace("dog", ""), ROWS[-1].replace("cat", "")])
    file = run(pets).file
    fit = fit_head(file, "ridge", models=tmp_path / "models", predictions=tmp_path / "each.csv", cv=2)
    inspection = inspect(file, pixels=False, out=tmp_path / "issues.csv", models=tmp_path / "models")
    exported = export(file, out=tmp_path / "viewer.parquet", pixels="none")
    tables = (tmp_path / "each.csv", fit.unlabelled, *inspection.files)
    headers = [path.read_text().splitlines()[0].split(",") for path in tables]
    assert headers[0][-4:] == ["image_id", "patient", "fold_", "x"]  # the table has a column fold of its own
    assert headers[1] == ["path", "label", "probability", "image_id", "patient", "fold", "x"]
    assert headers[2][-4:] == ["image_id", "patient", "fold", "x"]
    assert exported.columns[-4:] == ("image_id", "patient", "fold", "x_")  # the place on the map is x
    assert parquet.read_table(tmp_path / "viewer.parquet").column("patient").to_pylist()[0].startswith("p")
    (row, _) = sorted(fit.unlabelled.read_text().splitlines()[1:])
    assert row.split(",")[0] == "x10.png"
    assert row.split(",")[3:] == ["x10", "p3", "2", "10"]


def test_groups_come_from_the_stored_columns_and_then_from_tables(pets: Path, tmp_path: Path) -> None:
    features = FeatureSet.load(run(pets).file)
    pets.unlink()
    assert set(read_column(features, "patient").tolist()) == {"p0", "p1", "p2", "p3"}
    (tmp_path / "other.tsv").write_text(
        "image_id\tdoctor\n" + "".join(f"x{number}\td{number % 2}\n" for number in range(12))
    )
    doctors = read_column(features, "doctor", table=tmp_path / "other.tsv")
    expected = [f"d{int(path.removeprefix('x').removesuffix('.png')) % 2}" for path in features.paths]
    assert doctors.tolist() == expected


def test_a_corrected_table_keeps_the_columns_and_is_read_without_a_forward_pass(pets: Path, tmp_path: Path) -> None:
    first = run(pets)
    inspection = inspect(first.file, pixels=False, models=tmp_path / "models")
    corrected = write_fixed_table(inspection, tmp_path / "fixed.csv", leaks="keep")
    header = corrected.path.read_text().splitlines()[0]
    assert header == "path,label,split,change,group,image_id,patient,fold,x"
    images = scan_images(corrected.path)
    assert not any("is read as" in note for note in images.notes)
    again = extract(images, "lenet5", cache=tmp_path / "cache")
    assert (again.computed, again.reused) == (0, len(images))


def test_columns_of_features_of_an_earlier_featx_come_from_the_table(pets: Path, tmp_path: Path) -> None:
    first = run(pets)
    inspection = inspect(first.file, pixels=False, models=tmp_path / "models")
    old = dataclasses.replace(inspection.features, columns={})
    write_fixed_table(dataclasses.replace(inspection, features=old), tmp_path / "fixed.csv", leaks="keep")
    assert (
        tmp_path.joinpath("fixed.csv").read_text().splitlines()[0]
        == "path,label,split,change,group,image_id,patient,fold,x"
    )


def test_boxes_of_one_image_are_rows_of_their_own(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image(tmp_path / "street.png", seed=0, size=(64, 48))
    table = tmp_path / "boxes.csv"
    table.write_text("path,label,x,y,w,h\nstreet.png,car,0,0,20,20\nstreet.png,dog,30.5,10,20,20\nstreet.png,sky,,,,\n")
    result = extract(scan_images(table), "lenet5", cache=tmp_path / "cache")
    assert (result.computed, result.failed) == (3, 0)
    features = FeatureSet.load(result.file)
    assert features.paths.tolist() == ["street.png", "street.png#xywh=0,0,20,20", "street.png#xywh=30,10,21,20"]
    assert len(np.unique(features.keys, axis=0)) == 3
    assert extract(scan_images(table), "lenet5", cache=tmp_path / "cache").computed == 0
    assert label_changes(result.file) == ()

"""Further columns of a feature file: version 2 of its format, and what a feature set makes of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from feature_files import begin, flip, keys_of, make, write_rows

from featx.data.columns import MOST_CELL, MOST_COLUMNS, storable
from featx.errors import CacheMissError, CorruptFileError, HeadError
from featx.features import hdf5
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.inspection.verify import verify_file

COLUMNS = {
    "patient": ["p1", "p1", "p2", "", "p3", "p3"],
    "µg/l 100%": ["1.5", "", "é", "日本", "5", "6"],
    ".": [""] * 6,
    "%2F": list("abcdef"),
}
GOLDEN = Path(__file__).parent.parent / "golden" / "features-v2.h5"


def test_columns_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5", columns=COLUMNS)
    assert file.structure.attrs["version"] == 2
    assert file.column_names == tuple(COLUMNS)
    assert {name: cells.tolist() for name, cells in file.columns.items()} == COLUMNS
    assert verify_file(tmp_path / "f.h5")["ok"]
    with pytest.raises(CacheMissError, match=r"f\.h5 has no column 'doctor'; it has patient, "):
        file.column("doctor")


def test_the_hdf5_library_reads_the_columns(tmp_path: Path) -> None:
    make(tmp_path / "f.h5", columns=COLUMNS)
    with h5py.File(tmp_path / "f.h5") as file:
        assert list(file["columns"]) == sorted(["patient", "µg%2Fl 100%25", "%2E", "%252F"], key=str.encode)
        assert [cell.decode() for cell in file["columns/patient"][()].tolist()] == COLUMNS["patient"]


def test_a_file_without_columns_is_of_version_1(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    assert (file.structure.attrs["version"], file.column_names, file.columns) == (1, (), {})


def test_the_digest_covers_every_cell(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5", columns=COLUMNS)
    for name in ("columns/patient", "columns/%2E"):
        table = file.structure.tables[name]
        for offset in range(table.offset, table.offset + table.nbytes, 5):
            shutil.copy(tmp_path / "f.h5", tmp_path / "damaged.h5")
            flip(tmp_path / "damaged.h5", offset)
            with pytest.raises(CorruptFileError, match="its tables do not match their digest"):
                FeatureFile(tmp_path / "damaged.h5")


@pytest.mark.parametrize(("version", "columns"), [(2, None), (1, COLUMNS)])
def test_a_version_that_does_not_fit_the_columns_is_refused(
    tmp_path: Path, version: int, columns: dict[str, list[str]] | None
) -> None:
    path = tmp_path / "f.h5"
    make(path, columns=columns)
    handle = os.open(path, os.O_RDWR)
    old = hdf5.parse(handle, path)
    os.pwrite(handle, hdf5.pack({**old.attrs, "version": version}, old.tables).data, 0)
    os.close(handle)
    with pytest.raises(
        CorruptFileError, match=f"columns, and is of version {version}; version 2 has some, version 1 none"
    ):
        FeatureFile(path)


@pytest.mark.parametrize(("patient", "continued"), [("p1", True), ("p9", False)])
def test_an_interrupted_run_is_continued_if_its_columns_are_the_same(
    tmp_path: Path, patient: str, continued: bool
) -> None:
    writer = begin(tmp_path / "f.h5", columns=COLUMNS)
    writer.publish()
    write_rows(writer, range(3))
    del writer
    again = begin(tmp_path / "f.h5", columns={**COLUMNS, "patient": [patient, *COLUMNS["patient"][1:]]})
    assert (again.resumed is not None) is continued
    assert again.kept.tolist() == [continued] * 3 + [False] * 3
    again.publish()
    write_rows(again, range(6))
    assert again.finish().column("patient")[0] == patient


def test_a_feature_set_has_the_columns_of_the_images_that_did_not_fail(tmp_path: Path) -> None:
    make(tmp_path / "f.h5", columns=COLUMNS)  # row 4 failed
    features = FeatureSet.load(tmp_path / "f.h5")
    assert features.columns["patient"].tolist() == ["p1", "p1", "p2", "", "p3"]
    assert features.take(np.array([4, 0])).columns["patient"].tolist() == ["p3", "p1"]
    assert features.split("train").columns["%2F"].tolist() == list("abcd")


def feature_set(**columns: object) -> FeatureSet:
    """Two rows with columns."""
    return FeatureSet(
        features=np.zeros((2, 1), np.float32),
        labels=np.zeros(2, np.int64),
        splits=np.array(["train"] * 2, dtype=object),
        classes=("ant",),
        paths=np.array(["a", "b"], dtype=object),
        keys=keys_of(2),
        columns=columns,  # type: ignore[arg-type]
    )


def test_columns_made_in_python_become_text() -> None:
    columns = feature_set(age=np.array([30.0, np.nan]), name=["Ann", None]).columns
    assert {name: cells.tolist() for name, cells in columns.items()} == {"age": ["30", ""], "name": ["Ann", ""]}
    with pytest.raises(
        HeadError, match=r"a feature set needs one of each per image; found .* cells of the column 'age': 1"
    ):
        feature_set(age=[30])
    with pytest.raises(HeadError, match="the column 'age' holds the list"):
        feature_set(age=np.array([[1], 2], dtype=object))


def test_columns_that_a_file_cannot_hold_are_left_out_with_a_note() -> None:
    columns = {
        "a": ["1"],
        "long": ["x" * (MOST_CELL + 1)],
        "": ["x"],
        "\ud800": ["x"],
        "bad": ["\ud800"],
        "n" * 1001: ["x"],
        "b": ["é"],
    }
    kept, notes = storable(columns)
    assert list(kept) == ["a", "b"]
    assert [note.partition(": ")[2].split(";")[0] for note in notes] == [
        "one of its cells has 4,097 bytes",
        "its name is empty or holds a null character",
        "its name holds what is not Unicode text",
        "one of its cells holds bytes that are not UTF-8",
        "its name has 1,001 bytes",
    ]
    kept, notes = storable({f"c{number}": ["x"] for number in range(MOST_COLUMNS + 2)})
    assert (len(kept), len(notes)) == (MOST_COLUMNS, 1)
    assert "only the first 1,000 of 1,002 further columns are kept, without 'c1000'" in notes[0]


def test_a_file_of_version_2_of_an_earlier_featx_is_read() -> None:
    file = FeatureFile(GOLDEN)
    assert file.digest == "7da4e1a54b9ff34475712043e1846d0b52a21bfa22fc69103d43e0f21b1a6b3c"
    assert {name: cells.tolist() for name, cells in file.columns.items()} == COLUMNS
    assert verify_file(GOLDEN) == {"ok": True, "rows": 6, "bad_rows": 0, "duplicates": 0, "problems": []}


def test_what_grants_access_to_urls_in_columns_is_not_stored() -> None:
    cells = [
        "https://ann:pass@server/a.jpg?v=2&X-Amz-Signature=12ab",
        "see https://server/b.jpg?sig=1",
        "c",
        "a://b?x=1",
    ]
    kept, notes = storable({"source": cells})
    assert list(kept["source"]) == ["https://server/a.jpg?v=2", "see https://server/b.jpg", "c", "a://b?x=1"]
    assert notes == ["the column 'source' has 2 URLs with passwords or signatures, which are not stored"]

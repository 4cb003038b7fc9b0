"""Tables of results in CSV and Parquet."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.data.scan import scan_images
from featx.errors import OutputError
from featx.io.outputs import Output, require_outputs
from featx.io.tables import table_kind, write_table

KIND = table_kind("table of predictions", ("path", "label"), more="p_", option="--predictions")
HOSTILE = ["=1+1.jpg", 'a "b", c.jpg', "two\nlines.jpg", "caf\udce9.jpg", "\u202eltr.jpg"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_parquet(path: Path) -> dict[str, list[Any]]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    return parquet.read_table(path).to_pydict()


def test_text_of_csv_is_safe_for_spreadsheets_and_numbers_that_are_not_finite_are_empty(tmp_path: Path) -> None:
    columns = {
        "path": np.array(HOSTILE, dtype=object),
        "label": ["a"] * 5,
        "p_a": np.array([0.1, 1, math.nan, math.inf, -2]),
    }
    write_table(tmp_path / "t.csv", columns, KIND)
    rows = read(tmp_path / "t.csv")
    assert [row["path"] for row in rows] == [
        "'=1+1.jpg",
        'a "b", c.jpg',
        r"two\nlines.jpg",
        r"caf\udce9.jpg",
        r"\u202eltr.jpg",
    ]
    assert [row["p_a"] for row in rows] == ["0.1", "1", "", "", "-2"]


def test_cells_of_csv_hold_booleans_integers_lists_and_nothing(tmp_path: Path) -> None:
    columns = {
        "path": ["1", "2"], "label": [None, "x"], "p_is": np.array([True, False]), "p_n": np.array([3, -4]),
        "p_sets": [np.array([1, 2]), []], "p_text": [["a", "b"], np.float32(0.5)],
    }  # fmt: skip
    write_table(tmp_path / "t.csv", columns, KIND)
    assert (tmp_path / "t.csv").read_text() == (
        "path,label,p_is,p_n,p_sets,p_text\n1,,True,3,1|2,a|b\n2,x,False,-4,,0.5\n"
    )


def test_parquet_keeps_types_and_paths_that_are_not_utf8(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    columns = {
        "path": np.array(HOSTILE, dtype=object), "label": ["a", "b", None, "=x", ""],
        "p_a": np.array([0.1, 1, math.nan, math.inf, -2]), "p_sets": [[1], [], [2, 3], None, [4]],
    }  # fmt: skip
    write_table(tmp_path / "t.parquet", columns, KIND)
    found = read_parquet(tmp_path / "t.parquet")
    assert found["path"] == [name.encode("utf-8", "surrogateescape") for name in HOSTILE]
    assert found["label"] == ["a", "b", None, "=x", ""]
    assert found["p_a"] == [0.1, 1, None, None, -2]
    assert found["p_sets"] == [[1], [], [2, 3], None, [4]]
    write_table(tmp_path / "t.parquet", {"path": ["a"], "label": ["b"]}, KIND)  # its own kind is replaced
    assert read_parquet(tmp_path / "t.parquet") == {"path": ["a"], "label": ["b"]}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_featx_reads_the_same_paths_and_labels_from_an_exact_table(ending: str, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    names = ["=1+1.jpg", 'a "b", c.jpg', "two\nlines.jpg", "\u202eltr.jpg"] + (
        ["caf\udce9.jpg"] if ending == ".parquet" else []
    )
    for name in names:
        (tmp_path / name).touch()
    kind = table_kind("table of labels", ("path", "label"))
    write_table(tmp_path / f"t{ending}", {"path": names, "label": ["-1"] * len(names)}, kind, exact=True)
    images = scan_images(tmp_path / f"t{ending}")
    assert sorted(images.paths) == sorted(names)
    assert images.classes == ("-1",)


def test_an_exact_csv_refuses_paths_that_are_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError,
        match=r"t\.csv cannot hold 'caf\\udce9', which is not UTF-8; name a file that ends in \.parquet with --predictions",
    ):
        write_table(tmp_path / "t.csv", {"path": ["a,b\n", "caf\udce9"], "label": ["a", "b"]}, KIND, exact=True)
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("header", "is_own"),
    [
        ("path,label\n", True),
        ("path,label,p_a,p_b\r\n", True),
        ('path,label,"p_a, b"\n', True),
        ("path,label," + ",".join(f"p_{n:06}" for n in range(20_000)) + "\n", True),
        ("path,label,note\n", False),
        ("path,label,p_a,note\n", False),
        ("label,path\n", False),
        ('path,"label\n', False),
        ("\0\xff", False),
        ("PAR1", False),
    ],
)
def test_a_table_is_replaced_only_by_its_own_kind(header: str, is_own: bool, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(header)
    if is_own:
        write_table(tmp_path / "t.csv", {"path": ["a"], "label": ["b"]}, KIND)
        return
    with pytest.raises(
        OutputError, match=r"exists and is not a table of predictions of featx.* with --predictions, or rem"
    ):
        write_table(tmp_path / "t.csv", {"path": ["a"], "label": ["b"]}, KIND)
    assert (tmp_path / "t.csv").read_text() == header


def test_a_parquet_table_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    parquet.write_table(pyarrow.table({"path": ["a"], "label": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(OutputError, match="exists and is not a table of predictions of featx"):
        require_outputs([Output(tmp_path / "t.parquet", KIND)])


def test_another_ending_is_refused_by_name(tmp_path: Path) -> None:
    wrong = (
        r"\.txt, but a table of predictions is written; name a file that ends in \.csv or \.parquet with --predictions"
    )
    with pytest.raises(OutputError, match=wrong):
        require_outputs([Output(tmp_path / "t.txt", KIND, named=True)])
    require_outputs([Output(tmp_path / "t.PARQUET", KIND, named=True), Output(tmp_path / "t", KIND, named=True)])


def test_parquet_without_pyarrow_is_refused_before_the_work_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"needs pyarrow: pip install 'featx\[parquet\]'"):
        require_outputs([Output(tmp_path / "t.parquet", KIND, named=True)])
    with pytest.raises(OutputError, match=r"needs pyarrow: pip install 'featx\[parquet\]'"):
        write_table(tmp_path / "t.parquet", {"path": ["a"], "label": ["b"]}, KIND)

"""``featx search``: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import featx

from featx.cli.main import main


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture
def features(split_photos: Path, in_tmp: Path) -> str:
    """The feature file of ``split_photos``, in the cache folder."""
    return str(json.loads(featx("extract", split_photos, "-b", "lenet5", "--json").stdout)["file"])


def test_the_newest_file_is_searched_unless_one_is_named(features: str, split_photos: Path) -> None:
    query = split_photos / "val" / "dark" / "00.png"
    named, newest = featx("search", features, query, "--top", 3), featx("search", query, "--top", 3)
    assert named.stdout == newest.stdout
    found = rows(named)
    assert list(found[0]) == ["query", "rank", "path", "label", "split", "similarity", "error"]
    assert [row["rank"] for row in found] == ["1", "2", "3"]
    assert {row["query"] for row in found} == {str(query)}
    assert float(found[0]["similarity"]) >= float(found[2]["similarity"])


def test_queries_are_stored_paths_rows_and_a_list_on_standard_input(features: str) -> None:
    stored = featx("search", "val/dark/00.png", "--top", 1)
    listed = CliRunner().invoke(main, ["search", "-", "--top", "1"], input="val/dark/00.png\n")
    facts = json.loads(featx("search", "val/dark/00.png", "--json").stdout)
    by_row = featx("search", "--row", facts["results"][0]["row"], "--top", 1)
    assert stored.stdout == listed.stdout == by_row.stdout
    assert rows(stored)[0]["query"] == "val/dark/00.png"


def test_json_is_one_object(features: str) -> None:
    facts = json.loads(featx("search", "val/dark/00.png", "gone.png", "--top", 2, "--json").stdout)
    assert facts.keys() == {"results", "images", "failed"}
    found, gone = facts["results"]
    assert found.keys() == {"query", "row", "hits"}
    assert found["hits"][0].keys() == {"path", "label", "split", "similarity", "row"}
    assert gone.keys() == {"query", "error"}
    assert (facts["images"], facts["failed"]) == (2, 1)


def test_a_search_in_which_every_query_fails_is_a_failure(features: str) -> None:
    done = featx("search", "gone.png", status=1)
    assert rows(done)[0]["error"].startswith("cannot be read")
    assert "Error: the image failed: gone.png: cannot be read" in done.stderr


def test_names_that_a_spreadsheet_would_run_are_escaped(features: str, split_photos: Path) -> None:
    shutil.copy(split_photos / "val" / "dark" / "00.png", "=cmd().png")
    assert rows(featx("search", "=cmd().png", "--top", 1))[0]["query"] == "'=cmd().png"


def test_arguments_that_make_no_search_are_explained(features: str, fitted: Path) -> None:
    assert "Missing argument 'QUERIES...'" in featx("search", status=2).stderr
    assert "Missing argument 'QUERIES...'" in featx("search", features, status=2).stderr
    assert (
        f"{features} is a feature file; it stands before the images"
        in featx("search", "a.png", features, status=2).stderr
    )
    assert "expected a feature file before QUERIES..." in featx("search", fitted, "a.png", status=1).stderr
    assert "gone.h5" in featx("search", "gone.h5", "a.png", status=1).stderr
    assert "--cache has no effect with FEATURES" in featx("search", features, "a.png", "--cache", "x", status=2).stderr
    unwritable = featx("search", features, "a.png", "--sheet", f"{features}/x.html", status=1)
    assert "name another file with --sheet" in unwritable.stderr
    assert "expected a whole number from 0 to 47" in featx("search", "--row", 999, status=1).stderr


def test_a_contact_sheet_is_written_beside_the_table(features: str) -> None:
    done = featx("search", "val/dark/00.png", "--top", 2, "--sheet", "sheet.html")
    assert len(rows(done)) == 2
    assert "Note: the contact sheet is sheet.html" in done.stderr
    assert Path("sheet.html").read_text().count("data:image/jpeg") == 3
    facts = json.loads(featx("search", "val/dark/00.png", "--sheet", "sheet.html", "--json").stdout)
    assert facts["sheet"] == "sheet.html"
    assert (
        "ends in .png, but a contact sheet is written" in featx("search", "x.jpg", "--sheet", "a.png", status=1).stderr
    )
    assert "--images has no effect without --sheet" in featx("search", "x.jpg", "--images", "y", status=2).stderr

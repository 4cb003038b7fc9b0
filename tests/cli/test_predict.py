"""``featx predict``: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from command_line import featx


def test_predict_prints_csv_with_a_row_for_every_image(fitted: Path, split_photos: Path) -> None:
    Path("bad.jpg").write_text("=cmd()")
    result = featx("predict", fitted, split_photos / "val" / "dark", "bad.jpg", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 8 * 2 + 1
    assert [(row["rank"], row["label"]) for row in rows[:2]] == [("1", "dark"), ("2", "light")]
    assert rows[-1]["path"] == "bad.jpg"
    assert rows[-1]["label"] == ""
    assert "not an image of a known format" in rows[-1]["error"]


def test_predict_as_json_is_one_object(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("predict", fitted, split_photos / "val" / "light", "--json").stdout)
    assert len(facts["predictions"]) == 8
    assert {"path", "label", "probability", "top"} == facts["predictions"][0].keys()

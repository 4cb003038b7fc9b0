"""``featx evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import featx


def test_evaluate_prints_the_report(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("evaluate", fitted, split_photos, "--json").stdout)
    wanted = {"accuracy", "interval", "balanced_accuracy", "macro_f1", "log_loss", "n", "confusion"}
    assert wanted <= facts.keys()
    assert (facts["n"], facts["confusion"]) == (16, [[8, 0], [0, 8]])
    assert featx("evaluate", fitted, split_photos).stdout.splitlines()[:2] == [
        "Evaluated on 16 images of split val",
        "accuracy  1.0000  (95 % interval 0.8064 to 1.0000; 16 of 16 right; always 'dark' 0.5000)",
    ]


def test_the_predictions_for_each_image_go_to_a_file(fitted: Path, split_photos: Path, in_tmp: Path) -> None:
    shown = featx("evaluate", fitted, split_photos, "--predictions", "each.csv").stdout
    assert shown.endswith("\npredictions for each image: each.csv\n")
    rows = Path("each.csv").read_text().splitlines()
    assert len(rows) == 17
    assert rows[0].startswith("path,split,label,prediction,probability,label_probability,correct,predicted_by,fold,")
    facts = json.loads(featx("evaluate", fitted, split_photos, "--predictions", "each.csv", "--json").stdout)
    assert facts["predictions"] == "each.csv"
    assert json.loads(featx("evaluate", fitted, split_photos, "--json").stdout)["predictions"] is None


def test_a_promoted_model_writes_its_predictions_too(fitted: Path, split_photos: Path, in_tmp: Path) -> None:
    featx("promote", fitted, "-o", "model.safetensors")
    featx("evaluate", "model.safetensors", split_photos, "--predictions", "each.csv", "--split", "all")
    rows = Path("each.csv").read_text().splitlines()[1:]
    labelled = list(split_photos.rglob("*.png"))
    assert len(rows) == len(labelled)
    assert all(",model,," in row for row in rows)
    assert {row.split(",")[1] for row in rows} == {"train", "val"}


def test_predictions_are_refused_before_the_images_are_read(fitted: Path, split_photos: Path, in_tmp: Path) -> None:
    Path("mine.csv").write_text("path,label\n")
    found = featx("evaluate", fitted, split_photos, "--predictions", "mine.csv", status=1)
    assert "mine.csv exists and is not a table of predictions for each image of featx" in found.stderr
    assert "with --predictions" in found.stderr
    table = Path("t.csv")
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in split_photos.rglob("*.png")))
    found = featx("evaluate", fitted, table, "--predictions", table, status=1)
    assert "t.csv is a file that is read here" in found.stderr

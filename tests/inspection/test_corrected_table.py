"""The corrected table: what is in it, that extract reads it without a forward pass, and the table of decisions."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from inspections import inspection_of

from featx.errors import DatasetError, OutputError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.inspection.corrected_table import read_decisions, write_fixed_table
from featx.inspection.result import Inspection

Look = Callable[..., Inspection]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in train and test, a table of them with further columns, and the features of both."""
    root = tmp_path_factory.mktemp("corrected")
    for label, tint in (("dark", 60), ("light", 190)):
        for split, count in (("train", 6), ("test", 4)):
            for number in range(count):
                write_image(
                    root / "data" / split / label / f"{number}.png",
                    seed=number + tint + 30 * (split == "test"),
                    tint=tint,
                )
    shutil.copy(root / "data/train/dark/0.png", root / 'data/test/dark/copy, with "quotes"\nand a line.png')
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "camera", "label", "split", "group"])
        for path in sorted((root / "data").rglob("*.png")):
            split, label, name = path.relative_to(root / "data").parts
            writer.writerow([path.relative_to(root).as_posix(), f"=cam {len(name)}", label, split, "site A"])
    extract(root / "data", "lenet5", cache=root / "cache")
    extract(root / "images.csv", "lenet5", cache=root / "cache")
    return root


def loaded(extracted: Path, name: str = "data") -> FeatureSet:
    return FeatureSet.load(extracted / "cache" / f"{name}--lenet5.h5")


def row_of(features: FeatureSet, end: str) -> int:
    (row,) = (row for row, path in enumerate(features.paths) if path.endswith(end))
    return row


def look(features: FeatureSet, **suggested: str) -> Inspection:
    """An inspection that found the copy."""
    pair = (row_of(features, "train/dark/0.png"), row_of(features, "a line.png"))
    return inspection_of(
        features, [(min(pair), max(pair))], suggested={int(row): label for row, label in suggested.items()}
    )


def cells(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("place", ["elsewhere/deep/fixed.csv", "fixed.csv", "data/fixed.csv"])
@pytest.mark.parametrize("name", ["data", "images"])
def test_extract_reads_the_table_from_any_folder_without_a_forward_pass(extracted: Path, place: str, name: str) -> None:
    table = extracted / place
    table.parent.mkdir(parents=True, exist_ok=True)
    corrected = write_fixed_table(look(loaded(extracted, name)), table)
    again = extract(table, "lenet5", cache=extracted / "cache")
    assert (again.computed, again.failed, again.images) == (0, 0, 21)
    features = again.load()
    assert features.splits[row_of(features, "a line.png")] == "train"
    grouped = with_groups(features, corrected.group)
    assert grouped.groups is not None
    assert np.count_nonzero(grouped.groups != "") == 2
    assert Head("ridge", C=0.1).fit(grouped).evaluate(grouped).n == 8
    assert any("absolute" in note for note in corrected.notes) == place.startswith("elsewhere")
    table.unlink()


def test_the_table_keeps_further_columns_and_gives_way_to_a_column_group(extracted: Path, tmp_path: Path) -> None:
    corrected = write_fixed_table(look(loaded(extracted, "images")), tmp_path / "fixed.csv")
    rows = cells(tmp_path / "fixed.csv")
    assert [*rows[0]] == ["path", "label", "split", "change", "duplicate_group", "camera", "group"]
    assert corrected.group == "duplicate_group"
    assert {(row["camera"], row["group"]) for row in rows if row["path"].endswith("/0.png")} == {("=cam 5", "site A")}
    features = with_groups(loaded(extracted, "images"), "group")
    joined = write_fixed_table(look(features), tmp_path / "fixed2.csv", leaks="keep")
    assert [*cells(tmp_path / "fixed2.csv")[0]] == ["path", "label", "split", "change", "group", "camera"]
    assert joined.group == "group"


def test_the_summary_counts_what_was_changed(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(extracted)
    features = loaded(extracted)
    row = row_of(features, "train/light/3.png")
    corrected = write_fixed_table(
        look(features, **{str(row): "dark"}), tmp_path / "fixed.csv", accept=1, duplicates="drop"
    )
    assert corrected.summary == (
        "1 label changed",
        "1 image moved to another split",
        "1 image dropped (a duplicate of an image that remains)",
    )
    changed = [line for line in cells(tmp_path / "fixed.csv") if line["change"].startswith("label")]
    assert [(line["path"].endswith("train/light/3.png"), line["label"]) for line in changed] == [(True, "dark")]
    assert changed[0]["change"] == "label: light -> dark"
    found = json.loads(json.dumps(corrected.as_dict()))
    assert (found["images"], found["relabelled"], found["moved"], found["groups"]) == (20, 1, 1, 0)
    assert found["commands"] == [
        f"featx extract {tmp_path}/fixed.csv --backbone lenet5",
        "featx fit-head --group group --compare HEAD",
    ]


def test_the_commands_name_what_is_no_default(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = dataclasses.replace(
        loaded(extracted),
        backbone={"name": "lenet5", "parts": {"precision": "bfloat16", "transform": {"decoding": "scaled"}}},
    )
    inspection = inspection_of(features, task="regression")
    monkeypatch.chdir(extracted / "cache")
    inside = write_fixed_table(inspection, tmp_path / "fixed.csv").commands
    monkeypatch.chdir(tmp_path)
    outside = write_fixed_table(inspection, tmp_path / "fixed.csv").commands
    for commands, folder in ((inside, "."), (outside, str(extracted / "cache"))):
        assert commands == (
            f"featx extract {tmp_path}/fixed.csv --backbone lenet5 --precision bfloat16 --fast-decode --cache {folder}",
            f"featx fit-head --task regression --cache {folder} --group group --compare HEAD",
        )


def test_no_head_is_to_be_fitted_to_one_class(extracted: Path, tmp_path: Path) -> None:
    features = loaded(extracted)
    features = dataclasses.replace(features, labels=np.zeros_like(features.labels))
    assert len(write_fixed_table(inspection_of(features), tmp_path / "fixed.csv").commands) == 1


def test_conflicts_are_named_and_not_resolved(extracted: Path, tmp_path: Path) -> None:
    features = loaded(extracted)
    pair = (row_of(features, "train/dark/1.png"), row_of(features, "train/light/1.png"))
    corrected = write_fixed_table(inspection_of(features, [pair]), tmp_path / "fixed.csv", duplicates="drop")
    assert len(cells(tmp_path / "fixed.csv")) == 21
    assert any("2 images still have duplicates with another label" in note for note in corrected.notes)


def test_images_that_could_not_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", seed=number)
    (tmp_path / "data" / "a" / "broken.png").write_bytes(b"no image")
    features = extract(tmp_path / "data", "lenet5", cache=tmp_path / "cache").load()
    corrected = write_fixed_table(inspection_of(features), tmp_path / "fixed.csv")
    assert corrected.notes == ("1 image that featx extract could not read is left out of the table",)
    assert len(cells(tmp_path / "fixed.csv")) == 4


def test_names_that_are_not_utf8_need_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the table of such names is Parquet")
    for number in range(4):
        write_image(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", seed=number)
    odd = os.fsdecode(bytes(tmp_path) + b"/data/a/ \xe9.png")
    shutil.move(tmp_path / "data" / "a" / "0.png", odd)
    inspection = inspection_of(extract(tmp_path / "data", "lenet5", cache=tmp_path / "cache").load())
    with pytest.raises(OutputError, match=r"not UTF-8; name a file that ends in \.parquet with --fix"):
        write_fixed_table(inspection, tmp_path / "fixed.csv")
    write_fixed_table(inspection, tmp_path / "data" / "a" / "fixed.parquet")
    again = extract(tmp_path / "data" / "a" / "fixed.parquet", "lenet5", cache=tmp_path / "cache")
    assert (again.computed, again.failed, again.images) == (0, 0, 4)


def test_only_a_corrected_table_is_replaced(extracted: Path, tmp_path: Path) -> None:
    inspection = look(loaded(extracted, "images"))
    write_fixed_table(inspection, tmp_path / "fixed.csv")
    write_fixed_table(inspection, tmp_path / "fixed.csv", leaks="keep")
    with pytest.raises(OutputError, match=r"is a file that is read here .* with --fix"):
        write_fixed_table(inspection, extracted / "images.csv")
    (tmp_path / "mine.csv").write_text("path,label,split,group\n")
    with pytest.raises(OutputError, match="exists and is not a corrected table of featx"):
        write_fixed_table(inspection, tmp_path / "mine.csv")
    for name in ("fixed", "fixed.txt"):
        with pytest.raises(OutputError, match=r"\.csv or \.parquet with --fix"):
            write_fixed_table(inspection, tmp_path / name)


def test_a_complete_table_of_decisions_labels_moves_groups_and_drops(extracted: Path, tmp_path: Path) -> None:
    features = loaded(extracted)
    paths = [str(extracted / "data" / path) for path in features.paths]
    with (tmp_path / "decided.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for row, path in enumerate(paths[1:]):
            label = features.classes[features.labels[row + 1]]
            writer.writerow(
                [path, "light" if row == 3 else label, "test" if row == 4 else "train", "g" if row < 2 else ""]
            )
    corrected = write_fixed_table(
        look(features), tmp_path / "fixed.csv", decisions=tmp_path / "decided.csv", leaks="keep"
    )
    rows = cells(tmp_path / "fixed.csv")
    assert len(rows) == 20
    assert (corrected.fix.dropped, corrected.fix.relabelled) == ({"left out by a decision": 1}, 1)
    assert rows[3]["label"] == "light"
    assert [row["group"] for row in rows[:3]] == ["g", "g", ""]
    assert [row["split"] for row in rows[3:6]] == ["train", "test", "train"]


@pytest.mark.parametrize("where", ["absolute", "as in the feature file", "beside the table"])
def test_a_table_of_labels_alone_changes_these_labels(extracted: Path, tmp_path: Path, where: str) -> None:
    features = loaded(extracted)
    path = str(features.paths[2])
    table = (extracted / "data" if where == "beside the table" else tmp_path) / "labels.csv"
    table.write_text(f"path,label\n{extracted / 'data' / path if where == 'absolute' else path},other\n")
    decisions = read_decisions(table, look(features))
    table.unlink()
    assert (decisions.labels, decisions.splits, decisions.groups) == ({2: "other"}, {}, {})
    assert not decisions.dropped


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nno.png,a\n", r"lists 1 image that the features lack \(no\.png\); expected images of"),
        ("path,label\n", "lists 0 images that the features lack"),
        ("path,label,split\n{0},a,train\n{1},a,\n", "has rows without a split"),
        ("path,label\n{0},a\n{0},b\n", r"is on line 2 and, with other cells, on line 3; keep one"),
        ("path\n{0}\n", "there is no column label"),
    ],
)
def test_tables_of_decisions_that_do_not_fit_are_refused(
    extracted: Path, tmp_path: Path, text: str, message: str
) -> None:
    features = loaded(extracted)
    (tmp_path / "decided.csv").write_text(text.format(*features.paths[:2]))
    with pytest.raises(DatasetError, match=message):
        read_decisions(tmp_path / "decided.csv", look(features))

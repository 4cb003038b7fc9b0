"""Backbones compared on one data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made import Recorder
from safetensors.torch import save_file

import featx
from featx.advice.ranking import RankedBackbone, _on_front, rank
from featx.advice.transferability import h_score, logme
from featx.backbones.architectures import LeNet5
from featx.errors import AdviceError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.features.folder import newest
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.heads.nested import nested_report

TWO = {"lenet5": "default", "mobilenet_v1_025": "random"}


def test_each_backbone_is_extracted_once_and_judged_on_training_images(split_photos: Path, in_tmp: Path) -> None:
    recorder = Recorder()
    found = rank(split_photos, TWO, reporter=recorder)
    assert [stage for stage in recorder.stages if " of 2)" in stage] == ["lenet5 (1 of 2)", "mobilenet_v1_025 (2 of 2)"]
    assert found.images == 32, "of 48: the others judge what comes of the choice"
    assert [row.accuracy for row in found.rows] == sorted((row.accuracy for row in found.rows), reverse=True)
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    by_name = {row.backbone: row for row in found.rows}
    assert [by_name[name].embedding for name in TWO] == [84, 256]
    assert by_name["lenet5"].parameters == sum(p.numel() for p in LeNet5().parameters()) - 85 * 5
    for name, row in by_name.items():
        extraction = featx.extract(split_photos, featx.load_backbone(name, weights=TWO[name]))
        assert (extraction.computed, str(extraction.file)) == (0, row.features)
        own = extraction.load()
        train = own.rows("train")
        X, y = np.asarray(own.features[train]), own.labels[train]
        assert (row.logme, row.h_score) == (logme(X, y), h_score(X, y))
        nested = nested_report(Head("logreg"), own, coarse=True)
        assert (row.accuracy, row.interval, row.log_loss) == (nested.accuracy, nested.interval, nested.log_loss)
        assert row.interval[0] <= row.accuracy <= row.interval[1]
        assert row.images_per_second > 0
    again = rank(split_photos, TWO)
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in found.rows]
    assert all(row.images_per_second > 0 for row in again.rows), "it is measured though nothing was left to compute"


def test_a_backbone_that_cannot_be_made_does_not_stop_the_others(split_photos: Path, in_tmp: Path) -> None:
    found = rank(split_photos, ["nonsense", "lenet5"])
    assert [row.backbone for row in found.rows] == ["lenet5", "nonsense"]
    assert found.rows[1].why.startswith("there is no backbone 'nonsense'")
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))["ranking"]
    assert (facts[1]["accuracy"], facts[1]["interval"]) == (None, None)
    with pytest.raises(AdviceError, match="no backbone could be ranked: there is no backbone 'nonsense'"):
        rank(split_photos, ["nonsense"])


def test_each_note_of_the_extractions_appears_once(split_photos: Path, in_tmp: Path) -> None:
    (split_photos / "train" / "dark" / "broken.png").write_bytes(b"no image")
    (split_photos / "train" / "dark" / "notes.txt").write_text("x")
    found = rank(split_photos, TWO)
    assert sum("broken.png" in note for note in found.notes) == 1
    assert sum(".txt" in note for note in found.notes) == 1
    assert any("random weights" in note for note in found.notes)


def test_labels_that_are_no_classes_are_refused(split_photos: Path, in_tmp: Path) -> None:
    lines = [f"{path.relative_to(split_photos)},a|b,train" for path in sorted((split_photos / "train").rglob("*.png"))]
    table = split_photos / "t.csv"
    table.write_text("\n".join(["path,label,split", *lines]))
    with pytest.raises(AdviceError, match="the labels are for multilabel, but rank compares heads for classification"):
        rank(table, ["lenet5"])


def test_on_the_front_is_what_no_other_beats_in_both() -> None:
    rows = [
        RankedBackbone("slow and good", accuracy=0.9, images_per_second=10),
        RankedBackbone("fast and bad", accuracy=0.5, images_per_second=90),
        RankedBackbone("beaten", accuracy=0.8, images_per_second=9),
        RankedBackbone("as good, slower", accuracy=0.9, images_per_second=8),
        RankedBackbone("between", accuracy=0.7, images_per_second=50),
    ]
    assert [row.backbone for row in rows if _on_front(row, rows)] == ["slow and good", "fast and bad", "between"]


def test_one_backbone_with_two_weights_gives_two_rows_that_can_be_told_apart(split_photos: Path, in_tmp: Path) -> None:
    weights = featx.load_backbone("lenet5", device="cpu").network.state_dict()
    save_file(weights, "mine.safetensors")
    found = rank(split_photos, [("lenet5", "mine.safetensors"), ("lenet5", "random"), ("mobilenet_v1_025", "random")])
    assert {(row.label, row.weights) for row in found.rows} == {
        ("lenet5=mine.safetensors", "mine.safetensors"), ("lenet5=random", "random"), ("mobilenet_v1_025", "random"),
    }  # fmt: skip
    assert len({row.features for row in found.rows}) == 3
    again = rank(split_photos, ["lenet5", ("lenet5", "default"), "lenet5"])
    assert [row.label for row in again.rows] == ["lenet5"], "the same twice is one row"


def test_one_name_is_one_backbone(split_photos: Path, in_tmp: Path) -> None:
    assert [row.backbone for row in rank(split_photos, "lenet5").rows] == ["lenet5"]
    with pytest.raises(SettingsError, match=r"backbones is \[\('lenet5', 'random', 'x'\)\]; expected names, or pairs"):
        rank(split_photos, [("lenet5", "random", "x")])  # type: ignore[list-item]


def test_the_best_backbone_is_the_one_that_a_bare_fit_takes(split_photos: Path, in_tmp: Path) -> None:
    for backbones in (["lenet5", ("mobilenet_v1_025", "random")], [("mobilenet_v1_025", "random"), "lenet5"]):
        found = rank(split_photos, backbones)
        assert found.command == f"featx fit-head {found.rows[0].features}"
        assert newest(Path("cache")) == Path(found.rows[0].features)
    assert rank(split_photos, "lenet5", models="m").command.endswith("--models m")


def test_groups_stay_in_one_fold_and_intervals_are_by_groups(split_photos: Path, in_tmp: Path) -> None:
    paths = sorted(path.relative_to(split_photos) for path in (split_photos / "train").rglob("*.png"))
    lines = [f"{path},{path.parent.name},p{number // 4}" for number, path in enumerate(paths)]
    (split_photos / "t.csv").write_text("\n".join(["path,label,patient", *lines]))
    found = rank(split_photos / "t.csv", ["lenet5"], group="patient")
    features = FeatureSet.load(found.rows[0].features)
    grouped = nested_report(Head("logreg", task="classification"), with_groups(features, "patient"), coarse=True)
    assert (found.images, found.groups) == (grouped.n, grouped.groups)
    assert grouped.groups == -(-grouped.n // 4)
    assert (found.rows[0].accuracy, found.rows[0].interval) == (grouped.accuracy, grouped.interval)
    assert found.as_dict()["groups"] == grouped.groups
    assert found.command.endswith(" --group patient")


def test_a_table_with_further_columns_is_ranked(
    split_photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The speed is measured on some of the images, of whose columns as many cells are taken."""
    monkeypatch.setattr("featx.advice.ranking.TIMED_IMAGES", 20)
    names = sorted(path.relative_to(split_photos).as_posix() for path in split_photos.glob("*/*/*.*"))
    table = split_photos / "t.csv"
    lines = [f"{name},{name.split('/')[1]},{name.split('/')[0]},{at}" for at, name in enumerate(names)]
    table.write_text("\n".join(["path,label,split,site", *lines]))
    featx.extract(table, featx.load_backbone("lenet5"))
    (row,) = rank(table, ["lenet5"]).rows
    assert row.images_per_second > 0

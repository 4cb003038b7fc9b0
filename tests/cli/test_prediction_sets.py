"""Prediction sets and intervals, from ``fit-head --conformal`` to every place that shows them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import featx
from conftest import write_image
from made_heads import measured, photos

import featx as library
from featx.errors import SettingsError
from featx.heads.head import Head
from featx.promotion.config import FineTuning


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three tints that overlap, with their features, and a head with prediction sets; read-only."""
    folder = tmp_path_factory.mktemp("sets")
    for label, tint in (("dark", 60), ("grey", 61), ("light", 190)):
        for split, count in (("train", 12), ("val", 6)):
            for number in range(count):
                seed = number + 100 * tint + 50 * (split == "val")
                write_image(folder / "split" / split / label / f"{number:02}.png", seed=seed, tint=tint)
    library.extract(folder / "split", "lenet5", cache=folder / "cache", compute="eager")
    return folder


@pytest.fixture(scope="module")
def head(place: Path) -> Path:
    (file,) = (place / "cache").glob("*.h5")
    made = featx("fit-head", file, "-C", 0.001, "--conformal", 0.2, "--models", place / "models", "--json")
    facts = json.loads(made.stdout)
    assert facts["head"].endswith("--conformal0.2.safetensors")
    assert facts["sets"]["wanted"] == 0.8
    return Path(facts["head"])


def images(place: Path) -> list[Path]:
    return sorted((place / "split" / "val").rglob("*.png"))


def test_predict_prints_the_set_of_each_image(place: Path, head: Path) -> None:
    files = images(place)
    printed = list(csv.DictReader(io.StringIO(featx("predict", head, *files, place / "missing.png").stdout)))
    assert list(printed[0]) == ["path", "rank", "label", "probability", "set", "error"]
    found = json.loads(featx("predict", head, *files, "--json").stdout)["predictions"]
    assert [row["set"] for row in printed[:-1]] == ["|".join(each["set"]) for each in found]
    assert printed[-1]["set"] == ""
    assert {len(each["set"]) for each in found} > {1}, "tints that overlap make sets of several classes"
    assert all(each["set"][0] == each["label"] for each in found)
    assert [each.set for each in library.predict(head, files)] == [tuple(each["set"]) for each in found]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_tables_of_predictions_have_a_column_of_sets(tmp_path: Path, place: Path, head: Path, ending: str) -> None:
    out = tmp_path / f"found.{ending}"
    featx("predict", head, place / "split" / "val", "-o", out, "--top", 2)
    rows: list[dict[str, Any]]
    if ending == "parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
    else:
        rows = [json.loads(line) for line in out.open()] if ending == "jsonl" else list(csv.DictReader(out.open()))
    assert [*rows[0]][4:8] == ["probability_2", "set", "error", "key"]
    sets = {each.path: "|".join(each.set or ()) for each in library.predict(head, place / "split" / "val")}
    assert {row["path"]: row["set"] for row in rows} == sets


def test_evaluate_info_and_heads_show_what_the_sets_are_worth(place: Path, head: Path) -> None:
    (file,) = (place / "cache").glob("*.h5")
    assert "set coverage" in featx("evaluate", head, file).stdout
    page = featx("info", head).stdout
    assert "prediction sets  a share of 0.2 of them may miss the truth; chosen on 36 images out of fold" in page
    assert "\nsets or intervals with the truth  " in page
    assert "\nmean size of a set  " in page
    (listed,) = json.loads(featx("heads", place / "models", "--json").stdout)["heads"]
    assert listed["sets"] == "0.2"
    assert "sets" in featx("heads", place / "models").stdout.splitlines()[0]


def test_a_service_answers_with_sets(place: Path, head: Path) -> None:
    pytest.importorskip("fastapi", reason="a service needs FastAPI")
    pytest.importorskip("python_multipart", reason="a service needs python-multipart")
    from starlette.testclient import TestClient

    from featx.serving.creation import create_app

    file = images(place)[6]
    with TestClient(create_app(head, compute="eager", device="cpu")) as client:
        (found,) = client.post("/predict", content=file.read_bytes()).json()["predictions"]
        assert client.get("/model").json()["conformal"]["alpha"] == 0.2
    assert tuple(found["set"]) == library.predict(head, [file])[0].set


def test_an_assembled_model_keeps_the_sets_and_a_fine_tuned_one_drops_them(
    place: Path, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = featx("promote", head, "-o", place / "assembled.safetensors", "--device", "cpu", "--json")
    assert json.loads(model.stdout)["verdict"] == "assembled"
    files = images(place)
    found = library.predict(place / "assembled.safetensors", files)
    assert [each.set for each in found] == [each.set for each in library.predict(head, files)]
    report = library.evaluate(place / "assembled.safetensors", place / "split")
    assert report.sets is not None  # type: ignore[union-attr]
    monkeypatch.setattr("featx.promotion.promotion.verdict_of", lambda *_: ("promoted", "it is right more often"))
    settings = FineTuning(epochs=1, repeats=0)
    promotion = library.promote(head, finetune=True, settings=settings, out=place / "tuned.safetensors", device="cpu")
    assert "the model has no prediction sets: those of the head were calibrated for the head" in str(promotion.notes)
    assert library.predict(place / "tuned.safetensors", files[:1])[0].set is None


def test_numbers_get_intervals(tmp_path: Path) -> None:
    features = measured()
    head = Head("ridge", task="regression", conformal=0.1).fit(features)
    found = library.predict(head, features)[0]
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert found.as_dict()["interval"] == list(found.interval)
    done = library.write_predictions(head, features, tmp_path / "numbers.csv")
    (row, *_) = csv.DictReader(done.file.open())
    assert (float(row["lower"]), float(row["upper"])) == pytest.approx(found.interval, rel=1e-8)
    report = head.evaluate(features)
    assert report.as_dict()["prediction_intervals"]["wanted"] == 0.9
    assert "of the prediction intervals, on average" in str(report)


def test_options_of_sets_that_mean_nothing_are_refused(place: Path) -> None:
    (file,) = (place / "cache").glob("*.h5")
    alone = featx("fit-head", file, "--conformal-per-class", status=2)
    assert "--conformal-per-class has no effect without --conformal" in alone.stderr
    few = featx("fit-head", file, "--conformal", 0.01, "--models", place / "none", status=1)
    assert "take 99 held-out rows or more, and there are 36; use a larger --conformal, from 0.028 on" in few.stderr


def test_a_split_of_its_own_chooses_the_thresholds(place: Path) -> None:
    features = library.FeatureSet.load(next((place / "cache").glob("*.h5")))
    splits = features.splits.copy()
    splits[np.flatnonzero(splits == "train")[::3]] = "calibration"
    features = dataclasses.replace(features, splits=splits)
    fit = library.fit_head(features, C=0.001, conformal=0.2, calibrate_on="calibration", models=place / "other")
    assert fit.path.stem.endswith("--conformal0.2--on-calibration")
    assert fit.head.conformal_ is not None
    assert (
        fit.head.conformal_.sentence
        == "a share of 0.2 of them may miss the truth; chosen on 12 images that the head was not fitted to"
    )
    assert "not used" not in str(fit.notes)
    for name, why in (
        ("val", "images of split val would choose what the head promises, and judge it too"),
        ("train", "--calibrate-on train names the images that the head is fitted to"),
    ):
        with pytest.raises(SettingsError, match=why):
            library.fit_head(features, conformal=0.2, calibrate_on=name, models=place / "other")
    with pytest.raises(SettingsError, match="calibrate_on has no effect without conformal or target_precision"):
        library.fit_head(features, calibrate_on="calibration", models=place / "other")


def test_the_best_of_all_kinds_has_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = [("centroid", "linear"), ("ridge", "linear")]
    monkeypatch.setattr("featx.workflows.comparison.auto_candidates", lambda *_: kinds)
    monkeypatch.setattr("featx.workflows.fit.auto_candidates", lambda *_: kinds)
    fit = library.fit_head(photos(gap=1.0), "auto", conformal=0.2, models=tmp_path)
    assert fit.head.conformal_ is not None
    assert fit.head.evaluate(photos(gap=1.0)).as_dict()["sets"]["wanted"] == 0.8
    assert [line.why for line in fit.compared] == ["", ""]

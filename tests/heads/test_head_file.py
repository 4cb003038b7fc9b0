"""A head, saved and loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import EVERY_HEAD, new
from made_heads import measured, photos, tagged

from featx.errors import CorruptFileError, HeadError, ModelNotFoundError
from featx.heads.estimators import mlp
from featx.heads.head import Head
from featx.heads.head_file import HEAD, stored_report
from featx.inspection.info import describe_file
from featx.io import model_file
from featx.metrics.classification import ClassificationReport


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many passes over minibatches as these small sets need; tests/heads/estimators/test_mlp.py is about the others."""
    monkeypatch.setattr(mlp, "EPOCHS", 30)


def test_a_head_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no head .*none\.safetensors; featx fit-head makes one"):
        Head.load(tmp_path / "none.safetensors")


def test_a_head_on_features_made_by_hand_is_saved_and_judges_them(tmp_path: Path) -> None:
    features = photos(identity="", backbone={}, dataset={})
    head = Head.load(Head("centroid").fit(features).save(tmp_path / "h"))
    assert head.evaluate(features).n == 45


def test_what_a_user_has_set_by_hand_to_nonsense_is_not_saved(tmp_path: Path) -> None:
    head = Head("centroid").fit(photos())
    head.postprocess_ = dataclasses.replace(head.postprocess_, temperature=0.0)
    with pytest.raises(
        HeadError, match=r"h was not written, because it could not be read again: .*temperature is 0\.0"
    ):
        head.save(tmp_path / "h")
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_very_many_classes_is_kept_without_its_table() -> None:
    for count, kept in ((1000, True), (1001, False)):
        classes = tuple(map(str, range(count)))
        report = ClassificationReport.from_predictions(np.array([0]), np.eye(count)[:1], classes, split="test")
        assert ("confusion" in stored_report(report)) == kept


@EVERY_HEAD
def test_the_same_seed_gives_files_of_the_same_arrays(name: str, tmp_path: Path) -> None:
    features = photos(gap=1.0)
    first, second = (model_file.read(new(name, seed=7).fit(features).save(tmp_path / at), HEAD) for at in "ab")
    assert first[0].keys() == second[0].keys()
    for array, other in zip(first[0].values(), second[0].values(), strict=True):
        assert array.tobytes() == other.tobytes()
    assert {**first[1], "seconds": 0} == {**second[1], "seconds": 0}


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_file_of_a_head_holds_what_it_was_chosen_on_and_what_it_is_worth(task: str, tmp_path: Path) -> None:
    features = {"classification": lambda: photos(gap=1.0), "multilabel": tagged, "regression": measured}[task]()
    head = Head("ridge", task=task).fit(features)
    report = head.evaluate(features)
    kept = model_file.read_metadata(head.save(tmp_path / "h", report=report), HEAD)
    table = [(line["candidate"], line["mean"], line["standard_error"]) for line in kept["search"]]
    assert table == [(t.candidate, t.loss, t.error) for t in head.search_]
    assert len(table) >= 45
    assert kept["parameters"]["C"] == head.C_
    assert kept["report"] == report.as_dict()
    assert kept["held_out"] == head.held_out_.as_dict()
    assert kept["task"] == task
    described = describe_file(tmp_path / "h")
    assert described["report"]["split"] == "test"
    assert described["held_out"]["split"] == "train, cross-validated"


def json_of(data: bytes) -> tuple[Any, Any]:
    """The header of a .safetensors file, and featx's JSON in it, without what only spells it."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {**header, "__metadata__": None}, json.loads(header["__metadata__"]["featx"])


def test_a_flipped_bit_anywhere_in_the_file_of_a_head_is_found(tmp_path: Path) -> None:
    path = Head("ridge", C=0.1, calibrate="isotonic").fit(photos(train=4, dim=3)).save(tmp_path / "h")
    data, rng = path.read_bytes(), np.random.default_rng(0)
    places = np.union1d(np.arange(0, len(data), 13), np.arange(16))
    header_end = 8 + int.from_bytes(data[:8], "little")
    for place, bit in zip(places.tolist(), rng.integers(0, 8, len(places)).tolist(), strict=True):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError, LookupError, TypeError):
            if place < header_end and json_of(bytes(damaged)) == json_of(data):
                continue  # the last digit of a number, without which it is the same number
        with pytest.raises(CorruptFileError, match=r"h is|h cannot be"):
            Head.load(path)
    path.write_bytes(data)
    assert Head.load(path).C_ == 0.1

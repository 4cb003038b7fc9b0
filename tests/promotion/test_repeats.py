"""Repeats on other splits, where the gain on the test split may be luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import PromotionError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.info import describe_file
from featx.metrics.paired import PromotionCriterion
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuner
from featx.promotion.promotion import promote
from featx.promotion.splits import RunSplit


@pytest.mark.parametrize(
    ("repeats", "note"),
    [
        (0, "--repeats 5 fine-tunes on up to five other splits, which together test every image"),
        (5, "fine-tuning was not repeated: on all 896 images so small a gain would prove nothing"),
    ],
)
def test_a_gain_that_luck_would_give_promotes_nothing(
    digits: FeatureSet, tmp_path: Path, repeats: int, note: str
) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8, significance=1e-200, repeats=repeats)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    assert result.run is not None
    assert result.run.paired.gained > 0
    assert result.notes == (f"a gain of {result.run.paired.gained} of 173 test images may be luck; {note}",)
    assert not result.repeats
    assert result.verdict == "kept-head"
    assert (
        f"above the {1e-200 if not repeats else 5e-201:.2g} that would be proof), so the model is the head on its backbone"
        in result.why
    )
    assert result.report.accuracy == result.head_report.accuracy == featx.evaluate(result.model, "digits").accuracy


def test_other_splits_test_each_image_once_on_networks_that_were_not_trained_on_it(
    digits: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8, repeats=2, last=2, significance=1e-3)
    tested: list[set[int]] = []
    honest = FineTuner.run

    def run(tuner: FineTuner, split: RunSplit, **more):  # type: ignore[no-untyped-def]
        tested.append(set(split.test))
        assert not set(split.test) & {*split.train, *split.validation}
        assert not set(split.train) & set(split.validation)
        sizes = {len(split.train), len(split.train) + len(split.validation)}
        assert {split.start.n_train_, split.rival.n_train_} <= sizes
        return honest(tuner, split, **more)

    monkeypatch.setattr(FineTuner, "run", run)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    assert (result.verdict, len(result.repeats)) == ("promoted", 1), "one is enough"
    assert f"; on the {len(tested[1])} test images of another split, the network alone is right on" in result.why
    tested.clear()
    monkeypatch.setattr(PromotionCriterion, "undecided", lambda _self, _first, others, _images: len(others) < 2)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    labelled = set(np.flatnonzero(np.isin(digits.splits, ["train", "val", "test"])))
    assert tested[1] | tested[2] == labelled
    assert not tested[1] & tested[2]
    assert result.verdict == "promoted"
    assert f"; on the {len(labelled)} test images of 2 other splits in all, the network alone is right on" in result.why
    facts = describe_file(result.path)["repeats"]
    assert facts["n"] == len(labelled)
    assert [split["n"] for split in facts["splits"]] == [len(tested[1]), len(tested[2])]
    assert featx.evaluate(result.model, "digits").accuracy == result.report.accuracy, (
        "the network of the data set's own split is saved"
    )
    assert not list(tmp_path.glob("*.checkpoint"))


def test_fine_tuning_without_a_gain_is_not_repeated(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featx.promotion.repeats.repeated_splits", lambda *_: pytest.fail("it was repeated"))
    settings = FineTuning(epochs=1, lr=50.0)
    assert promote(Head("logreg").fit(features), finetune=True, settings=settings).verdict == "kept-head"


def test_where_repeats_fail_the_first_verdict_stands(
    digits: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise PromotionError("too few training images")

    monkeypatch.setattr("featx.promotion.repeats.repeated_splits", fails)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8, last=2, significance=1e-9)
    result = promote(Head("centroid").fit(digits), finetune=True, settings=settings, out=tmp_path / "m.safetensors")
    assert (result.verdict, result.repeats) == ("kept-head", ())
    failed = "may be luck; fine-tuning on other splits failed: too few training images"
    assert any(note.endswith(failed) for note in result.notes)
    assert featx.evaluate(result.model, "digits").accuracy == result.head_report.accuracy

"""Promotion as a whole: what is checked before work begins, where the model goes, what the result contains."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import CacheMissError, HeadError, OutputError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.seen import are_copies, with_splits_of_head
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuner
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote


def test_a_path_that_cannot_be_written_is_an_error_before_anything_is_read(
    features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    monkeypatch.setattr(FeatureSet, "load", lambda *_: pytest.fail("the features were read"))
    (tmp_path / "file").touch()
    for out, message in [
        (tmp_path, "is a folder; name a file to write with -o"),
        (
            tmp_path / "file" / "m.safetensors",
            r"cannot write .*m\.safetensors: Not a directory; name another file with -o",
        ),
    ]:
        with pytest.raises(OutputError, match=message):
            promote(head, finetune=True, out=out)


def test_a_disk_without_room_for_the_network_is_an_error_before_the_training(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    free = shutil.disk_usage(".")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr("featx.promotion.promotion.assemble", lambda *_: pytest.fail("the work began"))
    with pytest.raises(
        OutputError, match=r"promoted\.safetensors needs 2\d\d\.\d kB, and 100\.0 kB are free; name another disk"
    ):
        promote(head, finetune=True)


def test_what_could_not_be_saved_is_refused_before_the_training(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    features.dataset["odd"] = float("nan")
    monkeypatch.setattr(FineTuner, "run", lambda *_, **__: pytest.fail("the training began"))
    with pytest.raises(HeadError, match=r"promoted\.safetensors was not written, because it could not be read again"):
        promote(head, features=features, finetune=True)


def test_a_model_is_named_after_its_heads_data_set_in_no_other_folder(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    head.dataset_ = {**head.dataset_, "name": "../../other"}
    assert promote(head).path == Path("models/other--logreg--promoted.safetensors")


def test_a_feature_file_that_is_gone_is_an_error(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    assert features.source
    features.source.unlink()
    with pytest.raises(CacheMissError, match=r"is gone; run featx extract again"):
        promote(head)


def test_a_fine_tuned_model_is_not_judged_by_images_that_trained_it_or_chose_its_epoch(
    photos: Path, make_image: Callable[..., Path], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg", C=0.1).fit(featx.extract(photos, "lenet5").load())
    add_images(
        photos, make_image, range(20, 26)
    )  # the head was not fitted to these, and the network is trained on most
    features = featx.extract(photos, "lenet5").load()
    monkeypatch.setattr("featx.promotion.promotion.verdict_of", lambda *_: ("promoted", "it is right more often"))
    settings = FineTuning(epochs=1, repeats=0)
    path = promote(head, finetune=True, features=features, settings=settings, device="cpu").path
    own, _ = with_splits_of_head(features, "classification", head.seen)
    model = PromotedModel.load(path, device="cpu")
    assert len(model.seen.train) == len(own.rows("train")) > head.n_train_
    assert are_copies(own.split("train").keys, model.seen.train).all()
    np.testing.assert_array_equal(model.seen.validation, own.split("val").keys)
    add_images(photos, make_image, range(26, 60))
    report = featx.evaluate(model, photos, predictions="each.csv")
    with Path("each.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["split"], row["trained_on"], row["validated_on"]) for row in rows} == {("test", "False", "False")}
    assert len(rows) < 2 * 12, "else no image moved, and this shows nothing"
    assert "whose thresholds or epoch were chosen on" in " ".join(report.notes)


def add_images(photos: Path, make_image: Callable[..., Path], numbers: Iterable[int]) -> None:
    for number in numbers:
        for label, tint in (("dark", 60), ("light", 190)):
            make_image(photos / label / f"{number}.png", seed=number + 100 * tint, tint=tint)


def test_the_json_has_the_documented_keys(features: FeatureSet) -> None:
    facts = json.loads(json.dumps(promote(Head("logreg").fit(features)).as_dict()))
    expected = {"model", "max_logit_difference", "accuracy_head", "accuracy", "verdict", "epochs", "seconds"}
    assert expected <= facts.keys()


@pytest.mark.real
def test_hymenoptera_is_never_worse_after_fine_tuning(hymenoptera: Path, mobilenet_weights: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone("mobilenet_v1_075", weights=str(mobilenet_weights))
    features = featx.extract(hymenoptera, backbone).load()
    head = Head("logreg").fit(features)
    assert featx.evaluate(head, features).accuracy >= 0.928
    result = promote(head, finetune=True, settings=FineTuning(epochs=1))
    assert result.proof.images == 64
    assert result.proof.largest < 1e-3
    assert result.report.accuracy >= result.head_report.accuracy

"""The head on its backbone as one network: proved, fine-tuned, never worse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made import Recorder
from safetensors.torch import load_file
from torchvision import models

import featx
from featx.errors import CacheMissError, CorruptFileError, HeadError, OutputError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.inference import evaluate, predict
from featx.inspection.info import describe_file
from featx.layer_spec import VIEWS
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PromotionCriterion
from featx.promotion.batches import Images, Pictures
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRuns
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import backbone_of, promote
from featx.promotion.trainer import TrainingProgress


@pytest.fixture
def features(split_photos: Path, in_tmp: Path) -> FeatureSet:
    """LeNet-5's features of 32 train and 16 val photographs."""
    return featx.extract(split_photos, "lenet5").load()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """The digits through a LeNet-5 with random weights: there is something to win by fine-tuning."""
    backbone = featx.load_backbone("lenet5", weights="random")
    return featx.extract("digits", backbone, cache=tmp_path_factory.mktemp("digits")).load()


def small_backbone(name: str, crop: int) -> featx.Backbone:
    return featx.load_backbone(name, weights="random", resize=crop, crop=crop)


def pixels_of(features: FeatureSet, transform: featx.Transform) -> np.ndarray:
    from featx.data.decode import read_pixels

    root = Path(features.dataset["root"])
    return np.stack([read_pixels((root / str(path)).read_bytes(), transform) for path in features.paths])


@pytest.mark.parametrize("kind", ["logreg", "linear", "svm", "ridge", "centroid"])
def test_every_linear_head_becomes_a_network_with_its_logits(features: FeatureSet, kind: str) -> None:
    head = Head(kind).fit(features)
    result = promote(head)
    assert result.verdict == "assembled"
    assert result.proof.largest < 1e-3
    assert result.report.accuracy == result.head_report.accuracy
    model = PromotedModel.load(result.path)
    logits = model.logits(pixels_of(features, model.transform))
    np.testing.assert_allclose(
        logits, head.decision_function(features.features), atol=1e-3 * max(1, np.abs(logits).max())
    )


@pytest.mark.parametrize(
    ("name", "crop"), [("squeezenet1_1", 64), ("vgg11", 32), ("densenet121", 32), ("inception_v3", 80), ("swin_t", 32)]
)
def test_networks_of_every_build_take_the_head(split_photos: Path, in_tmp: Path, name: str, crop: int) -> None:
    head = Head("logreg", C=1.0).fit(featx.extract(split_photos, small_backbone(name, crop)).load())
    result = promote(head)
    assert result.verdict == "assembled"
    assert 0 < result.proof.images <= 16
    again = PromotedModel.load(result.path)
    batch = np.random.default_rng(0).integers(0, 255, (2, 3, crop, crop), dtype=np.uint8)
    np.testing.assert_allclose(again.logits(batch), result.model.logits(batch), rtol=1e-5, atol=1e-5)


def test_a_model_says_nothing_where_its_head_does_not(features: FeatureSet) -> None:
    sureness = np.sort(Head("logreg", C=1e-3).fit(features).predict_proba(features.features).max(axis=1))
    middle = float(sureness[23:25].mean())
    head = Head("logreg", C=1e-3, reject_below=middle).fit(features)
    settings = FineTuning(epochs=1, lr=1e-2, significance=1.0)
    for result in (promote(head), promote(head, finetune=True, settings=settings)):
        files = [Path(features.dataset["root"]) / str(path) for path in features.paths]
        said = predict(result.path, files)
        sure = np.array([prediction.top[0][1] >= middle for prediction in said])
        assert result.run or sure.sum() == 24
        np.testing.assert_array_equal([prediction.value is not None for prediction in said], sure)
        judged = evaluate(result.path, features.dataset["root"])
        assert isinstance(judged, ClassificationReport)
        assert judged.reject_below == result.report.reject_below == middle
        assert (judged.accepted, judged.accepted_right) == (result.report.accepted, result.report.accepted_right)
        if result.run:
            assert result.run.report.reject_below == middle


def test_half_precision_features_are_proved_too(split_photos: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone("lenet5", dtype="float16")
    result = promote(Head("logreg").fit(featx.extract(split_photos, backbone).load()))
    assert 0 < result.proof.largest < 0.5


def test_a_network_whose_logits_are_not_the_heads_is_refused(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    honest = head.decision_function
    head.decision_function = lambda X: honest(X) + 1.0  # type: ignore[method-assign]
    with pytest.raises(HeadError, match=r"differ from the head's by up to 1 on 16 images"):
        promote(head)
    assert not Path("models").exists()


@pytest.mark.parametrize(("kind", "kernel"), [("knn", "linear"), ("svm", "rbf")])
def test_a_head_that_is_not_linear_is_refused_with_the_command_that_helps(
    features: FeatureSet, kind: str, kernel: str
) -> None:
    with pytest.raises(HeadError, match=r"featx fit-head --model logreg makes one that is"):
        promote(Head(kind, kernel=kernel).fit(features))


def test_an_image_that_changed_since_extraction_is_named(features: FeatureSet, split_photos: Path, make_image) -> None:
    head = Head("logreg").fit(features)
    make_image(split_photos / "val" / "dark" / "00.png", seed=999)
    with pytest.raises(StaleCacheError, match=r"val/dark/00\.png has changed since its features were extracted"):
        promote(head)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
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


def test_a_disk_without_room_for_the_network_is_said_before_the_training(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    free = shutil.disk_usage(".")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr("featx.promotion.finetune_run.FineTuningRuns.prove", lambda *_: pytest.fail("the work began"))
    with pytest.raises(
        OutputError, match=r"promoted\.safetensors needs 2\d\d\.\d kB, and 100\.0 kB are free; name another disk"
    ):
        promote(head, finetune=True)


def test_what_could_not_be_saved_is_refused_before_the_training(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    features.dataset["odd"] = float("nan")
    monkeypatch.setattr(
        "featx.promotion.finetune_run.FineTuningRuns.first", lambda *_: pytest.fail("the training began")
    )
    with pytest.raises(HeadError, match=r"promoted\.safetensors was not written, because it could not be read again"):
        promote(head, features=features, finetune=True)


def test_scores_of_nan_on_the_images_that_choose_are_tried_again_at_half_the_rate_and_then_the_head_is_kept(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    honest, calls = Pictures.logits, iter(range(100))
    # The proof, epoch 0, and then three tries of epoch 1.
    monkeypatch.setattr(Pictures, "logits", lambda *given: honest(*given) * (np.nan if 2 <= next(calls) < 5 else 1))
    result = promote(head, finetune=True, settings=FineTuning(epochs=3))
    assert (result.verdict, result.epochs) == ("kept-head", 0)
    again = "the log loss on the images that choose became nan in epoch 1"
    assert result.notes == (
        *[f"{again}; it was tried again from epoch 0 on at half the rate"] * 2,
        f"{again} again, at a rate of 0.00025; training ended there",
    )


def test_a_model_is_named_after_its_heads_data_set_in_no_other_folder(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    head.dataset_ = {**head.dataset_, "name": "../../other"}
    assert promote(head).path == Path("models/other--logreg--promoted.safetensors")


def test_a_feature_file_that_is_gone_is_said(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    assert features.source
    features.source.unlink()
    with pytest.raises(CacheMissError, match=r"is gone; run featx extract again"):
        promote(head)


def test_fine_tuning_that_fails_keeps_the_head(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    result = promote(head, finetune=True, settings=FineTuning(epochs=2, lr=50.0))
    assert result.verdict == "kept-head"
    assert result.run is not None
    assert result.run.report.accuracy <= result.report.accuracy == result.head_report.accuracy
    logits = PromotedModel.load(result.path).logits(pixels_of(features, result.model.transform))
    np.testing.assert_allclose(
        logits, head.decision_function(features.features), atol=1e-3 * max(1, np.abs(logits).max())
    )


def test_fine_tuning_that_wins_is_kept_and_saved_as_it_was_judged(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=6, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    assert result.verdict == "promoted"
    assert result.report.accuracy > result.head_report.accuracy
    report = featx.evaluate(PromotedModel.load(result.path), "digits")
    assert (report.n, report.split) == (173, "test")
    assert report.accuracy == result.report.accuracy
    np.testing.assert_array_equal(report.confusion, result.report.confusion)


def test_the_best_epoch_by_log_loss_on_val_is_the_one_that_is_kept(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=6, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    best = min(result.log, key=lambda entry: entry["log_loss"])
    val = featx.evaluate(PromotedModel.load(result.path), "digits", split="val")
    assert val.log_loss == pytest.approx(best["log_loss"], rel=1e-4)


def test_two_runs_of_one_seed_end_at_the_same_weights(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    settings = FineTuning(epochs=2, lr=1e-3, batch_size=8)
    states = []
    for number in range(2):
        out = tmp_path / f"{number}.safetensors"
        result = promote(head, finetune=True, settings=settings, out=out)
        states.append([entry["log_loss"] for entry in result.log])
    assert states[0] == states[1]


def test_the_images_that_choose_are_none_of_those_that_judge_nor_of_those_that_train(
    features: FeatureSet, digits: FeatureSet
) -> None:
    head = Head("logreg", C=0.1).fit(features)
    runs = FineTuningRuns(head, features, backbone_of(head))
    start, train, select, words = runs.chosen()
    assert set(features.splits[train]) == set(features.splits[select]) == {"train"}
    assert not set(train) & set(select)
    assert len(train) + len(select) == 32
    assert set(runs.pictures.labels[select]) == {0, 1}
    assert (start.C_, start.n_train_) == (0.1, len(train)), (
        "a head that has seen the images that choose would flatter itself"
    )
    assert words == f"{len(select)} of the training images, held back by their content"
    head = Head("logreg", C=0.1).fit(digits)
    runs = FineTuningRuns(head, digits, backbone_of(head))
    start, train, select, _ = runs.chosen()
    assert start is head
    assert (set(digits.splits[train]), set(digits.splits[select]), runs.test_split) == ({"train"}, {"val"}, "test")


def test_groups_stay_together_where_training_images_are_held_back(split_photos: Path, in_tmp: Path) -> None:
    features = featx.extract(split_photos, "lenet5").load()
    Path("groups.csv").write_text(
        "path,who\n" + "".join(f"{path},{row // 4}\n" for row, path in enumerate(features.paths))
    )
    features = with_groups(features, "who", "groups.csv")
    head = Head("ridge").fit(features)
    _, train, select, _ = FineTuningRuns(head, features, backbone_of(head)).chosen()
    assert len(select)
    assert not {row // 4 for row in train} & {row // 4 for row in select}


def test_too_few_images_to_choose_by_are_said(make_image, in_tmp: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            make_image(Path(split) / name / "1.png", seed=hash((split, name)) % 100)
    features = featx.extract(Path(), "lenet5").load()
    with pytest.raises(HeadError, match=r"too few training images to hold some back that choose the best epoch"):
        promote(Head("ridge").fit(features), finetune=True)


def test_an_interrupted_promotion_goes_on_and_ends_at_the_same_network(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    settings = FineTuning(epochs=3, lr=1e-3, batch_size=8)

    def stop(step: TrainingProgress) -> None:
        if (step.epoch, step.done) == (2, 16):
            raise KeyboardInterrupt

    expected = promote(head, finetune=True, settings=settings, out=tmp_path / "whole.safetensors")
    out = tmp_path / "model.safetensors"
    with pytest.raises(KeyboardInterrupt):
        promote(head, finetune=True, settings=settings, out=out, reporter=Recorder(stop))
    assert not out.exists()
    assert {path.suffix for path in tmp_path.glob("model.*")} == {".checkpoint", ".csv"}
    assert [line.split(",")[0] for line in (tmp_path / "model.csv").read_text().splitlines()] == ["epoch", "0", "1"]
    other = promote(head, finetune=True, settings=FineTuning(epochs=1), out=out)
    assert not other.notes, "a run of other settings does not go on from there"
    result = promote(head, finetune=True, settings=settings, out=out)
    assert result.notes == ("went on from the checkpoint of epoch 1",)
    assert not list(tmp_path.glob("*.checkpoint"))
    for name, tensor in expected.model.network.state_dict().items():
        assert torch.equal(tensor, result.model.network.state_dict()[name]), name
    assert result.run is not None
    assert expected.run is not None
    assert result.run.report.log_loss == expected.run.report.log_loss


def test_the_evidence_is_in_the_file_and_the_epochs_beside_it(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    said = describe_file(result.path)
    assert result.run is not None
    paired = result.run.paired
    assert said["paired"]["p_value"] == paired.p_value
    assert {name: said[name] for name in ("interpolation", "step_0")} == {
        name: result.as_dict()[name] for name in ("interpolation", "step_0")
    }
    assert paired.n == result.report.n == 173
    head_right, tuned_right = (round(r.accuracy * 173) for r in (result.head_report, result.run.report))
    assert paired.both_right + len(paired.head_only) == head_right
    assert paired.both_right + len(paired.tuned_only) == tuned_right
    lines = (tmp_path / "model.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,log_loss,rate,seconds"
    assert len(lines) == result.epochs + 2
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("repeats", "note"),
    [
        (0, "--repeats 5 asks up to five other splits, which together judge every image"),
        (5, "no other splits were asked, for so small a gain on all 896 images would be no proof"),
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
    assert result.notes == (f"{result.run.paired.gained} more right of 173 may be luck; {note}",)
    assert not result.repeats
    assert result.verdict == "kept-head"
    assert (
        f"no proof at {1e-200 if not repeats else 5e-201:.2g}), so the model is the head on its backbone" in result.why
    )
    assert result.report.accuracy == result.head_report.accuracy == featx.evaluate(result.model, "digits").accuracy


def test_before_the_first_step_the_network_is_as_right_as_the_head(features: FeatureSet) -> None:
    result = promote(Head("logreg").fit(features), finetune=True, settings=FineTuning(epochs=1))
    assert result.run is not None
    start, first = result.run.start, result.log[0]
    assert first["accuracy"] == start.accuracy
    assert first["log_loss"] == pytest.approx(start.log_loss, abs=1e-4)
    assert result.as_dict()["step_0"] == {
        "accuracy": first["accuracy"], "accuracy_of_head": start.accuracy,
        "log_loss": first["log_loss"], "log_loss_of_head": start.log_loss,
    }  # fmt: skip


def test_other_splits_judge_each_image_once_by_networks_that_never_saw_it(
    digits: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8, repeats=2, last=2, significance=1e-3)
    seen: list[set[int]] = []
    honest = FineTuningRuns._trial

    def run(runs: FineTuningRuns, settings: FineTuning, path: Path, start, train, select, words, head, judge, **more):  # type: ignore[no-untyped-def]
        seen.append(set(judge))
        assert not set(judge) & {*train, *select}
        assert not set(train) & set(select)
        assert {start.n_train_, head.n_train_} <= {len(train), len(train) + len(select)}
        return honest(runs, settings, path, start, train, select, words, head, judge, **more)

    monkeypatch.setattr(FineTuningRuns, "_trial", run)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    assert (result.verdict, len(result.repeats)) == ("promoted", 1), "one is enough"
    assert f"; on another split, {len(seen[1])} images, it alone gets" in result.why
    seen.clear()
    monkeypatch.setattr(PromotionCriterion, "undecided", lambda _self, _first, others, _images: len(others) < 2)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    labelled = set(np.flatnonzero(np.isin(digits.splits, ["train", "val", "test"])))
    assert seen[1] | seen[2] == labelled
    assert not seen[1] & seen[2]
    assert result.verdict == "promoted"
    assert f"; on 2 other splits, {len(labelled)} images in all, it alone gets" in result.why
    facts = describe_file(result.path)["repeats"]
    assert facts["n"] == len(labelled)
    assert [split["n"] for split in facts["splits"]] == [len(seen[1]), len(seen[2])]
    assert featx.evaluate(result.model, "digits").accuracy == result.report.accuracy, (
        "that of the split asked for is kept"
    )
    assert not list(tmp_path.glob("*.checkpoint"))


def test_no_other_split_is_asked_about_what_did_not_win(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FineTuningRuns, "_others", lambda *_: pytest.fail("it was asked"))
    settings = FineTuning(epochs=1, lr=50.0)
    assert promote(Head("logreg").fit(features), finetune=True, settings=settings).verdict == "kept-head"


def test_where_other_splits_cannot_be_asked_the_first_verdict_stands(
    digits: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise HeadError("too few training images")

    monkeypatch.setattr(FineTuningRuns, "_others", fails)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8, last=2, significance=1e-9)
    result = promote(Head("centroid").fit(digits), finetune=True, settings=settings, out=tmp_path / "m.safetensors")
    assert (result.verdict, result.repeats) == ("kept-head", ())
    assert result.notes[-1].endswith("may be luck; other splits could not be asked: too few training images")
    assert featx.evaluate(result.model, "digits").accuracy == result.head_report.accuracy


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_training_images_are_varied_as_asked_and_alike_each_time(features: FeatureSet, augment: str) -> None:
    head = Head("logreg").fit(features)
    runs = FineTuningRuns(head, features, backbone_of(head))
    settings = FineTuning(augment=augment, batch_size=8)
    rows = runs.pictures.rows("train")

    def epoch(number: int) -> torch.Tensor:
        torch.manual_seed(number)
        return torch.cat(
            [x.flatten(1) for x, _ in Images(runs.pictures, runs.network, settings, rows, rows).batches(number)]
        )

    assert torch.equal(epoch(1), epoch(1))
    assert torch.equal(epoch(1).sum(1).sort().values, epoch(2).sum(1).sort().values) == (augment == "none")


def test_progress_counts_the_images_of_every_epoch(features: FeatureSet) -> None:
    told = Recorder()
    settings = FineTuning(epochs=2, batch_size=8, patience=5)
    promote(Head("logreg").fit(features), finetune=True, settings=settings, reporter=told)
    assert [(s.epoch, s.done, s.total) for s in told.details] == [(e, d, 24) for e in (1, 2) for d in (8, 16, 24)], (
        "8 of 32 choose"
    )
    assert all(np.isfinite(s.loss) for s in told.details)


def test_a_promoted_model_loads_into_plain_torchvision(split_photos: Path, in_tmp: Path) -> None:
    head = Head("logreg").fit(featx.extract(split_photos, small_backbone("resnet18", 64)).load())
    result = promote(head)
    network = models.resnet18(num_classes=2)
    state = {name: tensor for name, tensor in load_file(result.path).items() if not name.startswith("featx.")}
    network.load_state_dict(state)
    batch = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    from featx.backbones.backbone import normalise

    with torch.inference_mode():
        logits = network.eval()(normalise(torch.from_numpy(batch), result.model.transform))
    np.testing.assert_allclose(logits.numpy(), result.model.logits(batch), rtol=1e-4, atol=1e-4)


def test_a_model_of_a_file_of_code_never_runs_a_stored_path(split_photos: Path, in_tmp: Path) -> None:
    code = "from featx.backbones.architectures import LeNet5\nfrom featx import Transform\n"
    code += "def make():\n    net = LeNet5(7)\n    net.transform = Transform(resize=32, crop=32)\n    return net\n"
    Path("own.py").write_text(code)
    backbone = featx.load_backbone("own.py:make")
    head = Head("logreg").fit(featx.extract(split_photos, backbone).load())
    with pytest.raises(featx.FeatxError, match=r"a stored path is never run; name it with --backbone own\.py:make"):
        promote(head)
    result = promote(head, backbone="own.py:make")
    with pytest.raises(featx.FeatxError, match=r"a stored path is never run; name it with --backbone"):
        PromotedModel.load(result.path)
    assert PromotedModel.load(result.path, backbone="own.py:make").classes == ("dark", "light")


def test_a_head_is_no_promoted_model(features: FeatureSet, tmp_path: Path) -> None:
    path = Head("logreg").fit(features).save(tmp_path / "head.safetensors")
    with pytest.raises(CorruptFileError, match=r"is a featx-head; expected a featx-model"):
        PromotedModel.load(path)


def test_the_json_has_the_documented_keys(features: FeatureSet) -> None:
    facts = json.loads(json.dumps(promote(Head("logreg").fit(features)).as_dict()))
    wanted = {"model", "max_logit_difference", "accuracy_head", "accuracy", "verdict", "epochs", "seconds"}
    assert wanted <= facts.keys()


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


@pytest.mark.parametrize(
    ("views", "layer"), [("flip", "penultimate"), ("10crop", "penultimate"), ("flip", "features.3")]
)
def test_a_head_on_views_becomes_a_model_that_averages_over_them_too(
    split_photos: Path, in_tmp: Path, views: str, layer: str
) -> None:
    extracted = featx.extract(split_photos, featx.load_backbone("lenet5", layers=(layer,), views=views, resize=40))
    features = extracted.load(layer)
    head = Head("logreg").fit(features)
    path = head.save("head.safetensors")
    result = promote(path)
    assert result.proof.largest < 1e-3
    assert result.report.as_dict() == result.head_report.as_dict() == head.evaluate(features).as_dict()
    model = PromotedModel.load(result.path)
    assert model.views == VIEWS[views]
    files = [split_photos / str(name) for name in features.paths]
    for one, other in zip(predict(path, files, top=2), predict(result.path, files, top=2), strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-4)
    assert evaluate(result.path, split_photos).as_dict()["accuracy"] == result.report.accuracy
    logits = model.logits(pixels_of(features, model.transform))
    np.testing.assert_allclose(logits, head.decision_function(features.plain), atol=1e-3 * max(1, np.abs(logits).max()))
    (note,) = [note for note in result.notes if "views" in note]
    once = head.predict_values(features.plain).argmax(axis=1) == features.labels
    assert note.startswith(
        f"head and model average over {len(VIEWS[views])} views of each image ({views}); whoever uses the"
    )
    assert note.endswith(f"on the 16 images of split val is {once[features.splits == 'val'].mean():.4f}")


@pytest.mark.parametrize("last", [None, 1])
def test_a_network_tuned_from_a_head_on_views_is_judged_in_them(
    split_photos: Path, in_tmp: Path, last: int | None
) -> None:
    features = featx.extract(split_photos, featx.load_backbone("lenet5", views="flip", weights="random")).load()
    head = Head("logreg", C=1e-3).fit(features)
    settings = FineTuning(epochs=2, lr=1e-2, last=last, significance=1.0, interpolate=False)
    result = promote(head, finetune=True, settings=settings)
    assert result.run is not None
    # Epoch 0 is the network while it is the head, both in the plain view of the images that choose.
    assert result.log[0]["log_loss"] == pytest.approx(result.run.start.log_loss, abs=1e-3)
    judged = evaluate(result.path, split_photos)
    assert judged.as_dict()["confusion"] == result.report.as_dict()["confusion"]
    assert judged.as_dict()["log_loss"] == pytest.approx(result.report.as_dict()["log_loss"], abs=1e-5)

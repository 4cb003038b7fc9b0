"""Teachers: what they teach was said without the label of the image, and never with that of a test image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made import Recorder

import featx
from featx.errors import CacheMissError, HeadError, PromotionError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out
from featx.heads.seen import NOTHING_SEEN
from featx.inspection.info import describe_file
from featx.metrics.paired import PairedTest
from featx.promotion.assemble import Assembly, assemble, backbone_of
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuner
from featx.promotion.promotion import promote
from featx.promotion.repeats import repeat_runs
from featx.promotion.splits import standard_split
from featx.promotion.teacher import HeadTeacher, ModelTeacher, load_teacher
from featx.reporter import SILENT

QUICK = FineTuning(last=1, epochs=2, batch_size=8, cached_crops=1, repeats=0, lr=1e-2)


@pytest.fixture
def assembly(features: FeatureSet) -> Assembly:
    head = Head("logreg", C=0.1).fit(features)
    return assemble(head, features, backbone_of(head))


@pytest.fixture
def other(features: FeatureSet, split_photos: Path) -> FeatureSet:
    """The features of the same images through another network."""
    return featx.extract(split_photos, featx.load_backbone("lenet5", weights="random"), cache="other").load()


def test_a_head_teaches_what_the_folds_say_that_hold_an_image_out(assembly: Assembly, other: FeatureSet) -> None:
    split = standard_split(assembly)
    lesson = HeadTeacher(Head("logreg").fit(other), other, "other").lesson(assembly, split.train, split.test)
    assert np.isnan(np.delete(lesson.log_probabilities, split.train, axis=0)).all()
    taught = np.exp(lesson.log_probabilities[split.train])
    np.testing.assert_allclose(taught.sum(axis=1), 1, atol=1e-5)
    head = Head("logreg", C=Head("logreg").fit(other).C_).fit(other, rows=split.train)
    np.testing.assert_allclose(taught, predict_held_out(head, other, split.train).outputs, atol=1e-6)
    knows = head.predict_values(np.asarray(other.features[split.train]))
    labels = assembly.data.labels[split.train]
    own = [-np.log(p[np.arange(len(labels)), labels]).mean() for p in (taught, knows)]
    assert own[0] > own[1], "a teacher that has seen the labels would be surer"
    np.testing.assert_array_equal(
        lesson.said, head.predict_values(np.asarray(other.features[split.test])).argmax(axis=1)
    )


def test_labels_of_images_that_judge_never_reach_a_lesson(assembly: Assembly, other: FeatureSet) -> None:
    split = standard_split(assembly)
    everything = dataclasses.replace(other, splits=np.full(len(other), "train", dtype=object))
    lessons = []
    for flipped in (False, True):
        labels = other.labels.copy()
        labels[split.test] = 1 - labels[split.test] if flipped else labels[split.test]
        teacher = Head("logreg", C=0.1).fit(dataclasses.replace(everything, labels=labels))
        lessons.append(HeadTeacher(teacher, other, "other").lesson(assembly, split.train, split.test).log_probabilities)
    np.testing.assert_array_equal(*lessons)


def test_a_head_on_several_backbones_teaches_from_their_files(
    features: FeatureSet, other: FeatureSet, assembly: Assembly
) -> None:
    joint = FeatureSet.join([features, other])
    Head("logreg", C=0.1).fit(joint).save("joint.safetensors")
    result = promote(assembly.head, finetune=True, settings=QUICK, teacher="joint.safetensors", features=features)
    assert result.run is not None
    assert result.run.teacher is not None
    own = HeadTeacher(Head("logreg", C=0.1).fit(joint), joint, "joint")
    split = standard_split(assembly)
    said = own.lesson(assembly, split.train, split.test).said
    assert result.run.teacher.accuracy == (said == assembly.data.labels[split.test]).mean()
    assert all(speed is not None and speed > 0 for speed in result.run.teacher.images_per_second)
    assert result.as_dict()["teacher"]["name"] == "joint"
    assert describe_file(result.path)["teacher"]["accuracy"] == result.run.teacher.accuracy
    assert "--teacher-joint" in result.path.name


def test_a_teacher_changes_what_is_learned(assembly: Assembly, other: FeatureSet) -> None:
    losses = []
    for teacher in (None, Head("ridge").fit(other)):
        result = promote(assembly.head, finetune=True, settings=QUICK, teacher=teacher, out="model.safetensors")
        losses.append(result.log[1]["loss"])
    assert losses[0] != losses[1]


def test_a_model_that_was_trained_on_images_that_judge_may_not_teach(
    assembly: Assembly, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(assembly.head, out="own.safetensors")
    result = promote(assembly.head, finetune=True, settings=QUICK, teacher="own.safetensors")
    assert any(note.startswith("the teacher own was trained on") for note in result.notes)
    seen = dataclasses.replace(features, splits=np.where(np.arange(len(features)) % 2, "train", "val").astype(object))
    promote(Head("logreg", C=0.1).fit(seen), features=seen, out="seen.safetensors")
    monkeypatch.setattr("featx.promotion.promotion.prove", lambda _: pytest.fail("images were read"))
    with pytest.raises(
        PromotionError, match=r"the teacher seen was trained on \d+ of the 16 images of split val, so their"
    ):
        promote(assembly.head, finetune=True, settings=QUICK, teacher="seen.safetensors")
    with pytest.raises(
        PromotionError, match=r"the teacher own was trained on 32 of the 32 training images, on which --search"
    ):
        promote(assembly.head, finetune=True, settings=dataclasses.replace(QUICK, search=2), teacher="own.safetensors")


def test_a_model_teaches_on_one_split_only_which_is_said_before_the_training(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(assembly.head, out="own.safetensors")
    settings, recorder = dataclasses.replace(QUICK, repeats=5), Recorder()
    tuner = FineTuner(assembly, settings, Path("new.safetensors"), recorder, load_teacher("own.safetensors"))
    assert tuner.settings == QUICK, "all of the significance is for the one split that is tested"
    assert recorder.notes == [
        "the teacher own was trained on 32 of the 32 images that train and validate the network, so it is surer of them than "
        "of new ones; a head as the teacher predicts each image by a fold without it",
        "a gain that may be luck will not be tested on other splits: the teacher own was trained on 32 of the 48 images, all "
        "of which judge there; a head as the teacher is fitted anew on each split",
    ]
    lucky = PairedTest(16, 14, first_only=(), second_only=("a.jpg",))
    runs, notes = repeat_runs(tuner, SimpleNamespace(paired=lucky, seconds=1.0))  # type: ignore[arg-type]
    assert (runs, notes) == ((), [
        "a gain of 1 of 16 test images may be luck; fine-tuning was not repeated on other splits: the teacher own was trained "
        "on 32 of the 48 images, all of which judge there; a head as the teacher is fitted anew on each split"
    ])  # fmt: skip
    stranger = load_teacher("own.safetensors")
    stranger.model.seen = NOTHING_SEEN  # type: ignore[attr-defined]
    tuner = FineTuner(assembly, settings, Path("new.safetensors"), SILENT, stranger)
    assert tuner.settings == settings


def test_a_model_whose_epoch_was_chosen_on_images_that_judge_is_noted(assembly: Assembly) -> None:
    model, split = promote(assembly.head, out="own.safetensors").model, standard_split(assembly)
    model.seen = model.seen.plus(validation=assembly.features.keys[split.test[:3]])
    notes = ModelTeacher(model, "own").lesson(assembly, split.train, split.test).notes
    assert "thresholds or the epoch of the teacher own were chosen on 3 of the 16 images that judge" in notes[0]


def test_a_network_has_seen_the_images_of_the_model_that_taught_it(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.promotion.promotion.verdict_of", lambda *_: ("promoted", "it is better"))
    elsewhere = np.arange(80, dtype=np.uint8).reshape(5, 16)
    model = promote(assembly.head, out="own.safetensors").model
    model.seen = model.seen.plus(train=elsewhere[:3], validation=elsewhere[3:])
    seen = promote(assembly.head, finetune=True, settings=QUICK, teacher=model, out="new.safetensors").model.seen
    assert (seen.has(elsewhere).all(), seen.has(elsewhere[:3]).all()) == (True, True)
    assert len(seen.train) == 32 + 3
    alone = promote(assembly.head, finetune=True, settings=QUICK, teacher=assembly.head, out="alone.safetensors")
    assert not alone.model.seen.has(elsewhere).any()


def test_teachers_that_cannot_teach_are_refused(assembly: Assembly, features: FeatureSet, other: FeatureSet) -> None:
    with pytest.raises(
        SettingsError, match=r"a teacher is given, and nothing is trained; give finetune \(--finetune\)"
    ):
        promote(assembly.head, teacher=assembly.head)
    numbers = FeatureSet.from_arrays(np.random.default_rng(0).normal(size=(30, 3)), np.linspace(0, 1.5, 30))
    with pytest.raises(HeadError, match="is a head for regression; a network learns from a head that predicts one"):
        HeadTeacher(Head("ridge").fit(numbers), numbers, "numbers")
    few = dataclasses.replace(
        other, keys=np.where(np.arange(len(other))[:, None] % 2, other.keys, 0).astype(np.uint8), source=None
    )
    split = standard_split(assembly)
    with pytest.raises(PromotionError, match=r"the features of the teacher few lack \d+ of \d+ images, such as "):
        HeadTeacher(Head("ridge").fit(few), few, "few").lesson(assembly, split.train, split.test)
    head = Head("ridge").fit(other)
    Path(head.source_ or "").unlink()
    with pytest.raises(CacheMissError, match=r"the feature file .* of the teacher .* is gone; run featx extract"):
        load_teacher(head)
    joint = Head("ridge").fit(FeatureSet.join([features, dataclasses.replace(other, source=None)]))
    with pytest.raises(
        CacheMissError, match=r"the teacher .* was fitted to features that are in no file; run featx extract"
    ):
        load_teacher(joint)

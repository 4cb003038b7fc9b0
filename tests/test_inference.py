"""Predictions and evaluations, alike for heads and promoted models."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made import photos as photos_in_memory
from PIL import Image

import featx
from featx.errors import (
    BackboneError,
    DatasetError,
    FeatxError,
    HeadError,
    ModelNotFoundError,
    SettingsError,
    StaleCacheError,
)
from featx.features.feature_set import FeatureSet, views_in
from featx.heads.asked_groups import AskedGroups, group_rows
from featx.heads.head import Head
from featx.heads.seen import NOTHING_SEEN
from featx.inference import HeadOnBackbone, evaluate, iter_predictions, load_model, predict, with_keys
from featx.inspection.info import describe_file, file_kind
from featx.inspection.verify import verify_file
from featx.layer_spec import VIEWS
from featx.promotion.model import PromotedModel


@pytest.fixture
def head_file(split_photos: Path, in_tmp: Path) -> Path:
    """A head on LeNet-5's features of the split photographs."""
    return Head("logreg").fit(featx.extract(split_photos, "lenet5").load()).save(in_tmp / "head.safetensors")


@pytest.fixture
def model_file(head_file: Path) -> Path:
    """The same, promoted."""
    return featx.promote(head_file, out="model.safetensors").path


def test_a_head_and_its_promoted_model_predict_the_same(head_file: Path, model_file: Path, split_photos: Path) -> None:
    assert isinstance(load_model(head_file), HeadOnBackbone)
    assert isinstance(load_model(model_file), PromotedModel)
    by_head = predict(head_file, [split_photos / "val"], top=2)
    by_model = predict(model_file, [split_photos / "val"], top=2)
    assert len(by_head) == 16
    for one, other in zip(by_head, by_model, strict=True):
        assert one.path == other.path
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        np.testing.assert_allclose([p for _, p in one.top], [p for _, p in other.top], atol=1e-5)
        assert sum(p for _, p in one.top) == pytest.approx(1.0)
        assert one.top[0][0] == Path(one.path).parent.name


def test_a_head_in_memory_predicts_as_its_file_does(head_file: Path, split_photos: Path) -> None:
    images = [split_photos / "val" / "dark"]
    assert predict(Head.load(head_file), images) == predict(head_file, images)


def test_a_head_on_several_layers_predicts_the_same_from_pixels_as_from_features(
    split_photos: Path, in_tmp: Path
) -> None:
    backbone = featx.load_backbone("lenet5", layers=("features.3:max", "features.0"))
    extracted = featx.extract(split_photos, backbone)
    layer = "features.3:max,penultimate"
    features = extracted.load(layer)
    assert features.features.shape == (48, 16 + 84)
    assert backbone.identity_of(layer) == features.identity
    head = Head("logreg").fit(features)
    path = head.save("several.safetensors")
    files = [split_photos / str(name) for name in features.paths]
    p = head.predict_values(features.features)
    promoted = featx.promote(path, out="model.safetensors").path
    for file in (path, promoted):
        for prediction, row in zip(predict(file, files, top=2), p, strict=True):
            assert dict(prediction.top) == pytest.approx(dict(zip(head.classes_, row, strict=True)), abs=1e-5)
    judged = evaluate(path, split_photos)
    assert judged.as_dict()["accuracy"] == head.evaluate(features).as_dict()["accuracy"]
    with pytest.raises(StaleCacheError, match=r"layer: features\.3:max,penultimate against penultimate"):
        head.evaluate(extracted.load())


def test_a_file_in_a_folder_that_may_not_be_searched_is_a_row_too(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    loaded = load_model(model_file)
    monkeypatch.setattr(Path, "is_dir", deny)
    (prediction,) = predict(loaded, ["locked/a.png"])
    assert prediction.error.startswith("cannot be read: ")


def test_files_keep_their_order_and_folders_are_sorted_by_path(model_file: Path, split_photos: Path) -> None:
    first = split_photos / "val" / "light" / "03.png"
    predictions = predict(model_file, [first, split_photos / "val" / "dark", first])
    dark = [str(split_photos / "val" / "dark" / f"{n:02}.png") for n in range(8)]
    assert [p.path for p in predictions] == [str(first), *dark, str(first)]


def test_a_bad_image_gets_a_prediction_with_its_error_and_stops_nothing(model_file: Path, split_photos: Path) -> None:
    Path("text.jpg").write_text("no image")
    good = split_photos / "val" / "dark" / "00.png"
    predictions = predict(model_file, ["text.jpg", good, "gone.png"])
    assert [bool(p.error) for p in predictions] == [True, False, True]
    assert predictions[0].as_dict() == {"path": "text.jpg", "error": predictions[0].error}
    assert "not an image of a known format" in predictions[0].error
    assert predictions[2].error == "cannot be read: No such file or directory"


def test_a_prediction_as_json_has_label_probability_and_top(model_file: Path, split_photos: Path) -> None:
    (prediction,) = predict(model_file, [split_photos / "val" / "dark" / "00.png"], top=9)
    facts = prediction.as_dict()
    assert facts["label"] == facts["top"][0]["label"] == "dark"
    assert facts["probability"] == facts["top"][0]["probability"] > 0.5
    assert [entry["label"] for entry in facts["top"]] == ["dark", "light"]


def test_a_folder_without_images_is_an_error(model_file: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(DatasetError, match=r"no images in empty; it is empty"):
        predict(model_file, ["empty"])


def test_an_evaluation_takes_the_held_out_split(head_file: Path, model_file: Path, split_photos: Path) -> None:
    for file in (head_file, model_file):
        report = evaluate(file, split_photos)
        assert (report.split, report.n, report.notes) == ("val", 16, ())
        assert report.accuracy == 1.0


def test_a_heads_evaluation_uses_the_cached_features(
    head_file: Path, split_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featx.Backbone, "encode", lambda *_: pytest.fail("a forward pass was run"))
    assert evaluate(head_file, split_photos).n == 16


def test_evaluating_on_training_images_is_noted(head_file: Path, model_file: Path, split_photos: Path) -> None:
    for file in (head_file, model_file):
        report = evaluate(file, split_photos, split="all")
        assert report.n == 48
        assert report.notes == (
            "32 of 48 images of split all were trained on, byte for byte: they flatter the accuracy",
        )


def test_new_images_without_splits_are_evaluated_whole(model_file: Path, head_file: Path, make_image) -> None:
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(6):
            make_image(Path("new") / label / f"{number}.png", seed=5000 + number + tint, tint=tint)
    for file in (head_file, model_file):
        report = evaluate(file, "new")
        assert (report.split, report.n, report.notes) == ("all", 12, ())


def test_a_set_it_was_trained_on_is_evaluated_on_its_held_out_part(photos: Path, in_tmp: Path) -> None:
    features = featx.extract(photos, "lenet5").load()
    head = Head("logreg").fit(features)
    model = featx.promote(head).path
    expected = features.split("test")
    for judged in (evaluate(head, photos), evaluate(model, photos)):
        assert (judged.split, judged.n) == ("test", len(expected))
        assert not any("trained on" in note for note in judged.notes)


def test_an_unknown_class_is_named(head_file: Path, model_file: Path, split_photos: Path, make_image) -> None:
    shutil.copytree(split_photos, "more")
    for split in ("train", "val"):
        make_image(Path("more") / split / "purple" / "0.png", seed=7)
    for file in (head_file, model_file):
        with pytest.raises(
            HeadError, match=r"1 image of the split 'val' is of a class that the head was not fitted to"
        ):
            evaluate(file, "more")


def test_classes_are_matched_by_name_not_by_number(model_file: Path, split_photos: Path) -> None:
    shutil.copytree(split_photos / "val" / "light", Path("other") / "val" / "light")
    report = evaluate(model_file, "other")
    assert (report.n, report.accuracy) == (8, 1.0)


def test_undecodable_images_are_counted_not_evaluated(head_file: Path, model_file: Path, split_photos: Path) -> None:
    (split_photos / "val" / "dark" / "bad.png").write_bytes(b"")
    for file in (head_file, model_file):
        report = evaluate(file, split_photos)
        assert report.n == 16
        assert report.notes == (
            "1 image could not be decoded and was not evaluated, val/dark/bad.png: the file is empty",
        )


def test_a_pipe_among_the_images_does_not_hold_up_an_evaluation(model_file: Path, split_photos: Path) -> None:
    os.mkfifo(split_photos / "val" / "dark" / "pipe.png")
    report = evaluate(model_file, split_photos)
    assert report.n == 16
    assert report.notes[0].endswith("val/dark/pipe.png: is not a regular file")


def test_features_of_another_identity_are_refused(head_file: Path, split_photos: Path) -> None:
    other = featx.extract(split_photos, featx.load_backbone("lenet5", weights="random")).load()
    with pytest.raises(StaleCacheError, match=r"weights_sha256: [0-9a-f]{64} against [0-9a-f]{64}"):
        evaluate(load_model(head_file), other)


def test_a_promoted_model_is_not_evaluated_on_features(model_file: Path, split_photos: Path) -> None:
    with pytest.raises(HeadError, match=r"evaluated on images, not on features"):
        evaluate(model_file, featx.extract(split_photos, "lenet5").load())


def test_moved_weights_are_an_error_until_they_are_named(split_photos: Path, in_tmp: Path) -> None:
    from safetensors.torch import save_file

    save_file(featx.load_backbone("lenet5", weights="random").network.state_dict(), "w.safetensors")
    backbone = featx.load_backbone("lenet5", weights="w.safetensors")
    path = Head("logreg").fit(featx.extract(split_photos, backbone).load()).save("head.safetensors")
    Path("w.safetensors").rename("moved.safetensors")
    with pytest.raises(BackboneError, match=r"there is no weights file .*w\.safetensors"):
        load_model(path)
    assert isinstance(load_model(path, weights="moved.safetensors"), HeadOnBackbone)
    with pytest.raises(StaleCacheError, match=r"gives other features here than the stored ones \(weights_sha256"):
        load_model(path, weights="default")


def test_a_missing_model_is_an_error(in_tmp: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no head or model nothing\.safetensors"):
        predict("nothing.safetensors", ["a.jpg"])


@pytest.mark.parametrize(("views", "layer"), [("flip", "penultimate"), ("10crop", "hidden,penultimate")])
def test_a_head_on_views_predicts_the_same_from_pixels_as_from_features(
    views: str, layer: str, split_photos: Path, in_tmp: Path
) -> None:
    extracted = featx.extract(split_photos, featx.load_backbone("lenet5", layers=("hidden",), views=views, resize=40))
    features = extracted.load(layer)
    head = Head("logreg").fit(features)
    path = head.save("views.safetensors")
    files = [split_photos / str(name) for name in features.paths]
    p = head.predict_values(features.features)
    model = load_model(path)
    assert isinstance(model, HeadOnBackbone)
    assert model.views == VIEWS[views]
    for prediction, row in zip(predict(model, files, top=2), p, strict=True):
        assert dict(prediction.top) == pytest.approx(dict(zip(head.classes_, row, strict=True)), abs=1e-5)
    assert evaluate(path, split_photos).as_dict() == head.evaluate(features).as_dict()
    assert evaluate(path, extracted.load(layer)).as_dict() == head.evaluate(features).as_dict()
    with pytest.raises(StaleCacheError, match=f"layer: {layer}@{views} against"):
        head.evaluate(FeatureSet.load(extracted.file, layer))


def test_evaluating_a_head_on_views_extracts_new_images_in_these_views(split_photos: Path, in_tmp: Path) -> None:
    head = Head("logreg").fit(featx.extract(split_photos, featx.load_backbone("lenet5", views="flip")).load())
    new = split_photos.rename(split_photos.with_name("new"))
    evaluate(head, new, cache="other")
    (file,) = Path("other").glob("*.h5")
    assert views_in(file, "penultimate") == "flip"


def test_a_bare_path_is_one_image_and_gives_one_row(head_file: Path, model_file: Path, split_photos: Path) -> None:
    file = split_photos / "val" / "dark" / "00.png"
    for model in (head_file, model_file):
        (expected,) = predict(model, [file])
        assert predict(model, str(file)) == predict(model, file) == [expected]
        (of_pillow,) = predict(model, Image.open(file))
        (of_array,) = predict(model, np.asarray(Image.open(file)))
        assert (of_pillow.path, of_array.path) == (str(file), "image 0")
        assert of_pillow.top == of_array.top
        assert dict(of_array.top) == pytest.approx(dict(expected.top), abs=1e-5)
        assert (
            predict(model, file.parent) == predict(model, [file.parent]) == predict(model, str(file.parent / "*.png"))
        )


def test_a_generator_is_predicted_step_by_step(model_file: Path, split_photos: Path) -> None:
    file, taken = split_photos / "val" / "dark" / "00.png", []

    def frames() -> Iterator[np.ndarray]:
        for number in range(1000):
            taken.append(number)
            yield np.asarray(Image.open(file))

    predictions = iter_predictions(model_file, frames(), workers=1)
    assert [next(predictions).path for _ in range(2)] == ["image 0", "image 1"]
    assert len(taken) < 100


def test_a_head_takes_cached_features_by_the_content_of_an_image(
    head_file: Path, split_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = split_photos / "val" / "dark" / "00.png"
    shutil.copy(file, "renamed.png")
    loaded = load_model(head_file)
    computed = predict(loaded, [file, "renamed.png"], cache=None)
    monkeypatch.setattr(featx.Backbone, "encode", lambda *_: pytest.fail("a forward pass was run"))
    cached = predict(loaded, [file, "renamed.png", file.read_bytes()])
    assert [prediction.value for prediction in cached] == ["dark"] * 3
    for prediction in cached:
        assert dict(prediction.top) == pytest.approx(dict(computed[0].top), abs=1e-5)
    assert predict(loaded, file, cache="elsewhere") == cached[:1], "the file that it was fitted to"
    with pytest.raises(pytest.fail.Exception, match="a forward pass was run"):
        predict(loaded, file, cache=None)
    next(Path("cache").glob("*.h5")).rename("gone.h5")
    with pytest.raises(pytest.fail.Exception, match="a forward pass was run"):
        predict(loaded, file)


def test_a_damaged_cached_row_is_computed_again(head_file: Path, split_photos: Path) -> None:
    files = sorted((split_photos / "val").rglob("*.png"))
    loaded = load_model(head_file)
    expected = predict(loaded, files, cache=None)
    cache = featx.FeatureFile(next(Path("cache").glob("*.h5")))
    rows = cache.features("penultimate")
    offset, width = cache.layers["penultimate"].offset, rows[0].nbytes
    with cache.path.open("r+b") as file:
        for row in range(0, len(cache), 2):
            file.seek(offset + row * width)
            file.write(np.full(rows.shape[1], 99, rows.dtype).tobytes())
    for one, other in zip(predict(loaded, files), expected, strict=True):
        assert (one.path, one.value, one.error) == (other.path, other.value, "")
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)


def test_a_head_in_several_views_takes_all_of_them_from_the_cache(
    split_photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = featx.load_backbone("lenet5", layers="features.3", views="flip")
    extraction = featx.extract(split_photos, backbone)
    loaded = load_model(Head("logreg").fit(extraction.load("features.3,penultimate@flip")).save("flip.safetensors"))
    files = sorted((split_photos / "val").rglob("*.png"))
    computed = predict(loaded, files, cache=None)
    monkeypatch.setattr(featx.Backbone, "encode", lambda *_: pytest.fail("a forward pass was run"))
    for one, other in zip(predict(loaded, files), computed, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)


def test_a_promoted_model_is_evaluated_by_the_groups_of_its_head(photos: Path, in_tmp: Path) -> None:
    paths = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
    lines = [f"{path},{path.parent.name},p{number // 4}" for number, path in enumerate(paths)]
    (photos / "t.csv").write_text("\n".join(["path,label,patient", *lines]))
    rows = with_keys(featx.scan_images(photos / "t.csv"))
    grouped, moved, notes = group_rows(rows, AskedGroups(None, None), "patient", NOTHING_SEEN)
    assert (moved, notes) == ({}, [])
    assert grouped.groups.tolist() == [f"p{number // 4}" for number in range(len(paths))]
    splits = grouped.splits.astype(str)
    assert all(len(set(splits[at : at + 4])) == 1 for at in range(0, len(paths), 4))
    (photos / "t.csv").write_text("\n".join(["path,label", *(line.rpartition(",")[0] for line in lines)]))
    plain = dataclasses.replace(rows, columns={})  # as features of an earlier featx
    without, _, (note,) = group_rows(plain, AskedGroups(None, None), "patient", NOTHING_SEEN)
    assert without is plain
    assert note.startswith(
        "the model was fitted with groups (patient), but here intervals treat images as independent: "
    )


def test_a_head_of_groups_is_evaluated_on_other_images_that_name_none() -> None:
    features = photos_in_memory(gap=1.0)
    column = np.array([f"p{row // 5}" for row in range(len(features))], dtype=object)
    head = Head("centroid").fit(dataclasses.replace(features, groups=column, group="patient"))
    others = photos_in_memory(gap=1.0, seed=1)
    report = evaluate(head, others)
    assert report.groups == report.n == 105
    assert report.notes[-1].startswith(
        "the head was fitted with groups (patient), but here intervals treat images as ind"
    )
    own = dataclasses.replace(features, dataset={**features.dataset, "splits": "hash"})
    with pytest.raises(HeadError, match="there is no table to read the column 'patient' from"):
        evaluate(head, own)


def _patients(photos: Path, file: str) -> Path:
    """A table that gives four images of each class in turn to one patient."""
    paths = [path.relative_to(photos) for path in sorted(photos.rglob("*.png"))]
    lines = [f"{path},p{number // 4},w{number // 4}" for number, path in enumerate(paths)]
    Path(file).write_text("\n".join(["path,patient,ward", *lines]))
    return Path(file)


def test_a_head_of_groups_of_a_table_is_evaluated_and_promoted_with_that_table(photos: Path, in_tmp: Path) -> None:
    features = featx.extract(photos, "lenet5")
    table = _patients(photos, "patients.csv")
    fit = featx.fit_head(features.file, "logreg", group="patient", table=table)
    for data in (photos, features.file, features.load()):
        with pytest.raises(
            HeadError, match=r"no table to read the column 'patient' from: .* Name one with --table FILE"
        ):
            evaluate(fit.path, data)
        report = evaluate(fit.path, data, table=table)
        assert (report.as_dict()["accuracy"], report.groups) == (fit.report.as_dict()["accuracy"], fit.report.groups)
        by_ward = evaluate(fit.path, data, group="ward", table=table)  # the hashes of other names give other splits
        assert by_ward.groups < report.groups
        assert "do not judge this head, which was fitted to them" in by_ward.notes[0]
    with pytest.raises(HeadError, match="no table to read the column 'patient' from"):
        featx.promote(fit.path)
    model = featx.promote(fit.path, table=table)
    assert model.report.groups == fit.report.groups
    assert evaluate(model.path, photos, table=table).groups == fit.report.groups
    with pytest.raises(HeadError, match=r"patients\.csv has no column 'doctor'"):
        evaluate(fit.path, photos, group="doctor", table=table)


def test_a_head_without_groups_keeps_its_splits_when_groups_are_named(photos: Path, in_tmp: Path) -> None:
    table = _patients(photos, "patients.csv")
    fit = featx.fit_head(featx.extract(photos, "lenet5").file, "logreg")
    model = featx.promote(fit.path)
    for file in (fit.path, model.path):
        plain, grouped = evaluate(file, photos), evaluate(file, photos, group="patient", table=table)
        assert (grouped.n, grouped.accuracy) == (plain.n, plain.accuracy)
        assert grouped.groups < plain.groups
        with pytest.raises(SettingsError, match="--table has no effect without --group"):
            evaluate(file, photos, table=table)
    with pytest.raises(SettingsError, match="--table has no effect"):
        featx.promote(fit.path, table=table)


@pytest.mark.parametrize("wrong", [["a.h5"], ("a.h5", "b.h5"), 3, None, np.zeros(2), b"a.h5", ""])
def test_whatever_takes_one_path_refuses_everything_else_in_words(wrong: object) -> None:
    calls = [
        featx.load_model, FeatureSet.load, featx.FeatureFile, Head.load, featx.PromotedModel.load, describe_file, file_kind,
        verify_file, featx.promote, lambda path: predict(path, "x.jpg"), lambda path: evaluate(path, "digits"),
        lambda path: evaluate(Head(), path), lambda path: featx.advise(path, "lenet5"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(FeatxError, match=r"; expected one path|is an empty path"):
            call(wrong)
    if wrong is not None:
        expected = r"; expected a feature set, the path of|; expected one path|is an empty path|no feature file a\.h5"
        with pytest.raises(FeatxError, match=expected):
            featx.fit_head(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("top", [0, -1, "3", 1.5, None, True])
def test_top_is_a_whole_number_above_0(head_file: Path, top: object) -> None:
    with pytest.raises(SettingsError, match=r"top is .*; expected a whole number above 0"):
        predict(head_file, [np.zeros((8, 8, 3), np.uint8)], top=top)


def test_an_empty_path_is_not_the_present_folder(head_file: Path) -> None:
    for images in ("", ["", "x.jpg"]):
        with pytest.raises(DatasetError, match="the images are an empty path; expected an image file"):
            predict(head_file, images)
        with pytest.raises(DatasetError, match="the images are an empty path; expected an image file"):
            featx.write_predictions(head_file, images, head_file.with_name("empty.csv"))


def test_the_network_of_a_promoted_model_is_weights_like_any_other(model_file: Path) -> None:
    own, other = (featx.load_backbone("lenet5", weights=weights) for weights in (str(model_file), "default"))
    pixels = np.full((1, 3, 32, 32), 99, np.uint8)
    assert np.array_equal(own.encode(pixels)["penultimate"], other.encode(pixels)["penultimate"])


def test_evaluate_notes_how_the_data_were_read_and_what_has_changed_in_them(split_photos: Path, in_tmp: Path) -> None:
    features = featx.extract(split_photos, "lenet5")
    fit = featx.fit_head(features.file, "centroid")
    (split_photos / "train").rename(split_photos / "train_set")
    (split_photos / "val").rename(split_photos / "val_set")
    report = evaluate(fit.head, split_photos)
    assert report.notes[-1] == "split: train_set is read as the split train, val_set as val"
    (split_photos / "val_set" / "dark" / "00.png").rename(split_photos / "val_set" / "light" / "x.png")
    assert (
        evaluate(fit.head, features.file)
        .notes[-1]
        .startswith("split has changed since its features were extracted: 1 image")
    )


def test_a_file_that_cannot_be_read_changes_the_split_of_no_other(photos: Path) -> None:
    whole = with_keys(featx.scan_images(photos))
    gone = [photos / "dark" / f"zz-{number}.png" for number in range(3)]
    for path in gone:
        path.write_bytes((photos / "dark" / "00.png").read_bytes())
    images = featx.scan_images(photos)
    for path in gone:
        path.unlink()
    found = with_keys(images)
    here = np.isin(found.paths, whole.paths)
    assert found.splits[here].tolist() == whole.splits.tolist()
    assert found.splits[~here].tolist() == ["test"] * 3

"""Zero-shot heads and anchors made of the texts of classes, by the text tower of the features' backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import vision_models
from command_line import featx as run

import featx
from featx.errors import BackboneError, FeatxError, HeadError, SettingsError
from featx.workflows.class_texts import class_texts


@pytest.fixture
def clip_features(split_photos: Path, tmp_path: Path) -> Path:
    """Features of a tiny random CLIP."""
    vision_models.clip(tmp_path / "clip")
    found = featx.extract(split_photos, f"hf/{tmp_path}/clip", cache=tmp_path / "cache")
    return Path(found.file)


def test_the_texts_of_a_class_are_averaged_as_clip_does(clip_features: Path) -> None:
    features = featx.FeatureSet.load(clip_features)
    prompts = ["a photo of a {}", "the {}"]
    texts = class_texts(features, "classification", prompts=prompts, class_names={"dark": ["dark cat", "dog"]})
    assert texts.names == ("dark", "light")
    assert texts.words == ("dark cat; dog", "light")
    backbone = featx.load_backbone(features.backbone["name"], device="cpu")
    unit = backbone.encode_text(["a photo of a dark cat", "the dark cat", "a photo of a dog", "the dog"]).mean(axis=0)
    np.testing.assert_allclose(texts.vectors[0], unit / np.linalg.norm(unit), atol=1e-6)
    assert texts.scale == pytest.approx(backbone.text_tower().scale)


def test_a_zero_shot_head_gives_the_models_own_probabilities(clip_features: Path, tmp_path: Path) -> None:
    fit = featx.fit_head(clip_features, "zeroshot", prompts="a photo of a {}", models=tmp_path / "models")
    features = featx.FeatureSet.load(clip_features)
    backbone = featx.load_backbone(features.backbone["name"], device="cpu")
    images = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    logits = backbone.text_tower().scale * images @ backbone.encode_text(["a photo of a dark", "a photo of a light"]).T
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(fit.head.predict_proba(features.features), p / p.sum(1, keepdims=True), atol=1e-5)
    assert fit.report is not None
    assert fit.report.n == 16
    assert "the texts of the classes: 'a photo of a {}'" in fit.notes
    for file in (tmp_path / "clip").glob("tokenizer*"):
        file.unlink()  # prediction needs no text
    ((one,),) = [list(featx.predict(fit.path, tmp_path / "split" / "val" / "light" / "00.png"))]
    row = list(features.paths).index("val/light/00.png")
    assert dict(one.top)["light"] == pytest.approx(fit.head.predict_proba(features.features[[row]])[0, 1], abs=1e-5)


def test_a_head_without_training_images_is_not_explained_by_them(clip_features: Path, tmp_path: Path) -> None:
    fit = featx.fit_head(clip_features, "zeroshot", models=tmp_path / "models")
    image = tmp_path / "split" / "val" / "light" / "00.png"
    with pytest.raises(
        HeadError, match=r"names of its classes \(--model zeroshot\), so its predictions rest on no training"
    ):
        featx.explain(fit.path, image, count=2)
    anchored = featx.fit_head(clip_features, "logreg", anchor="zeroshot", models=tmp_path / "models")
    (found,) = featx.explain(anchored.path, image, count=2)
    assert len(found.neighbours) == 2


def test_classes_are_called_by_a_file_and_underscores_are_spaces(clip_features: Path, tmp_path: Path) -> None:
    features = featx.FeatureSet.load(clip_features)
    (tmp_path / "names.json").write_text(json.dumps({"dark": "dark cat", "good_dog": "good dog"}))
    (tmp_path / "names.csv").write_text("dark,dark cat\n\ngood_dog,good dog\n")
    for file in ("names.json", "names.csv"):
        texts = class_texts(features, "classification", class_names=tmp_path / file)
        assert dict(zip(texts.names, texts.words, strict=True)) == {
            "dark": "dark cat",
            "light": "light",
            "good_dog": "good dog",
        }
    (tmp_path / "bad.csv").write_text("dark\n")
    with pytest.raises(SettingsError, match="have a row without a text"):
        class_texts(features, "classification", class_names=tmp_path / "bad.csv")
    (tmp_path / "bad.json").write_text('{"dark": 3}')
    with pytest.raises(SettingsError, match=r"the class names have 'dark': 3; expected a text"):
        class_texts(features, "classification", class_names=tmp_path / "bad.json")
    with pytest.raises(SettingsError, match="nowhere cannot be read"):
        class_texts(features, "classification", class_names=tmp_path / "nowhere")


def test_what_cannot_be_compared_with_texts_is_refused(clip_features: Path, split_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the prompt 'a photo' has no \{\}"):
        featx.fit_head(clip_features, "zeroshot", prompts=["a photo"], models=tmp_path)
    plain = featx.extract(split_photos, "lenet5", cache=tmp_path / "other").file
    with pytest.raises(BackboneError, match="lenet5 has no text tower; expected a model of images and text"):
        featx.fit_head(plain, "zeroshot", models=tmp_path)
    pooled = featx.load_backbone(f"hf/{tmp_path}/clip", layers="pooled", device="cpu")
    layered = featx.extract(split_photos, pooled, cache=tmp_path / "c").file
    with pytest.raises(HeadError, match="only the penultimate layer lies beside the texts, not pooled"):
        featx.fit_head(layered, "zeroshot", layer="pooled", models=tmp_path)
    for options, message in (
        ({"model": "logreg", "prompts": ["{}"]}, "prompts and class names describe the classes of a zero-shot head"),
        ({"model": "ridge", "anchor": "zeroshot"}, r"anchor \(--anchor\) is for logreg, and the model is ridge"),
        ({"anchor": "other"}, "anchor is 'other'; expected zeroshot"),
    ):
        with pytest.raises(FeatxError, match=message):
            featx.fit_head(clip_features, models=tmp_path, **options)  # type: ignore[arg-type]


def test_the_commands_fit_evaluate_and_show_both_heads(clip_features: Path, in_tmp: Path) -> None:
    out = run(
        "fit-head", str(clip_features), "--model", "zeroshot", "--prompt", "a photo of a {}", "--prompt", "the {}"
    ).output
    assert "zeroshot on penultimate" in out
    assert "the texts of 2 classes, fitted to no image" in out
    zeroshot, *_ = Path("models").glob("*--zeroshot--prompts.safetensors")
    assert "accuracy" in run("evaluate", str(zeroshot), str(clip_features)).output
    assert "zeroshot" in run("info", str(zeroshot)).output
    anchored = run(
        "fit-head", str(clip_features), "--anchor", "zeroshot", "--shots", "1,2", "--compare", str(zeroshot)
    ).output
    assert "logreg (C=" in anchored
    assert "shots" in anchored
    assert list(Path("models").glob("*--logreg-anchored.safetensors"))


def test_a_data_set_without_training_images_is_classified_and_judged_whole(tmp_path: Path, split_photos: Path) -> None:
    vision_models.clip(tmp_path / "clip")
    shutil.rmtree(split_photos / "train")
    found = featx.extract(split_photos, f"hf/{tmp_path}/clip", cache=tmp_path / "cache")
    fit = featx.fit_head(found.file, "zeroshot", models=tmp_path / "models")
    assert fit.report is not None
    assert (fit.report.n, fit.head.n_train_) == (16, 0)


def test_classes_that_the_texts_do_not_tell_apart_and_those_without_images_are_said(
    clip_features: Path, tmp_path: Path
) -> None:
    names = {"dark": "dog", "light": "dog", "drak": "cat"}
    for options in ({"model": "zeroshot"}, {"anchor": "zeroshot"}):
        fit = featx.fit_head(clip_features, class_names=names, models=tmp_path / "models", **options)
        same = "the classes dark, light have one and the same text vector, so the texts do not tell them apart"
        assert [note for note in fit.notes if note.startswith(same)]
        assert "the data set has no image of 1 class: drak" in fit.notes
    apart = featx.fit_head(clip_features, "zeroshot", models=tmp_path / "models")
    assert not [note for note in apart.notes if "text vector" in note or "no image of" in note]


def test_a_class_may_have_several_rows_of_names_but_a_key_of_json_comes_once(
    clip_features: Path, tmp_path: Path
) -> None:
    features = featx.FeatureSet.load(clip_features)
    (tmp_path / "names.csv").write_text("dark,dog,\ndark,cat\nlight,light\n")
    texts = class_texts(features, "classification", class_names=tmp_path / "names.csv")
    assert texts.words == ("dog; cat", "light")
    (tmp_path / "names.json").write_text('{"dark": "dog", "dark": "cat"}')
    with pytest.raises(SettingsError, match=r"names\.json cannot be read: a key of its JSON comes twice"):
        class_texts(features, "classification", class_names=tmp_path / "names.json")
    with pytest.raises(SettingsError, match=r"the class names have 'dark': ' '; expected a text"):
        class_texts(features, "classification", class_names={"dark": " "})


@pytest.mark.parametrize(
    ("text", "message"), [("", "blank"), (" ", "blank"), ("a \udcff dog", r"bytes that are not UTF-8")]
)
def test_a_text_without_words_or_unicode_is_refused(clip_features: Path, text: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        list(featx.search(clip_features, text=text))
    with pytest.raises((BackboneError, SettingsError), match=rf"{message}|expected a text"):
        class_texts(featx.FeatureSet.load(clip_features), "classification", class_names={"dark": text})

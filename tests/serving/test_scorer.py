"""A model in the engine of extraction: its sizes of passes, and what runs where no engine gives the model's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featx
from featx.errors import BackboneError, EngineError
from featx.extraction.autotune import Chosen
from featx.extraction.engines import open_engine
from featx.heads.head import Head
from featx.serving import scorer
from featx.serving.scorer import open_scorer


@pytest.fixture(scope="module")
def promoted(head_file: Path) -> Any:
    return featx.promote(head_file, out=head_file.with_name("promoted.safetensors")).model


def pixels(model: Any, count: int) -> np.ndarray:
    shape = (count, len(model.views), *model.transform.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_on_a_cpu_each_image_has_a_pass_of_its_own_so_that_others_do_not_change_its_outputs(model: Any) -> None:
    ready = open_scorer(model, compute="eager", workers=2)
    assert (ready.engine, ready.threads, ready.runners, ready.images) == ("eager", 2, 0, 4)
    images = pixels(model, 5)
    together = ready.compute(images)
    alone = np.concatenate([ready.compute(images[row : row + 1]) for row in range(5)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)  # the head's product in float64
    np.testing.assert_allclose(together, model.predict_values(images), atol=1e-6)


def test_on_a_device_passes_have_the_least_of_a_few_sizes(model: Any) -> None:
    engine, sizes = open_engine("eager", model.backbone, batch=64), list[int]()
    runner = engine.runner
    engine.on_cpu, engine.runner = False, lambda images: sizes.append(len(images)) or runner(images)  # type: ignore[func-returns-value]
    for count in (1, 2, 8, 9, 64, 65):
        images = pixels(model, count)
        found = scorer._head_values(model, engine, images)
        np.testing.assert_allclose(found, model.predict_values(images), atol=1e-6)
    assert sizes == [1, 8, 8, 64, 64, 64, 64]
    sizes.clear()
    engine.batch = 4  # because it ran out of memory
    scorer._head_values(model, engine, pixels(model, 9))
    assert sizes == [4, 4, 4]


def test_a_promoted_model_that_no_engine_runs_right_runs_by_itself_and_says_so(
    promoted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pixels(promoted, 3)
    by_engine = open_scorer(promoted, compute="eager", workers=2)
    assert (by_engine.runners, by_engine.notes) == (0, ())
    np.testing.assert_allclose(by_engine.compute(images), promoted.predict_values(images), atol=1e-6)
    real = scorer._features
    for change in (
        {"_features": lambda *args: {layer: rows + 1 for layer, rows in real(*args).items()}},
        {"_as_backbone": lambda _: (_ for _ in ()).throw(BackboneError("it has no such layer"))},
    ):
        with monkeypatch.context() as patch:
            for name, value in change.items():
                patch.setattr(scorer, name, value)
            with pytest.raises((EngineError, BackboneError), match=r"eager gives other logits|it has no such layer"):
                open_scorer(promoted, compute="eager", workers=2)
            monkeypatch.setattr(scorer, "_opened", lambda backbone, *_: (open_engine("eager", backbone, batch=1), ()))
            alone = open_scorer(promoted, workers=2)
        assert (alone.engine, alone.runners) == ("eager", 1)
        assert alone.notes[0].startswith("the network runs in PyTorch, one pass at a time: ")
        np.testing.assert_array_equal(alone.compute(images), promoted.predict_values(images))


def test_code_of_the_users_own_runs_one_pass_at_a_time(in_tmp: Path, photos_here: Path) -> None:
    Path("nets").mkdir()
    Path("nets/own.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 4 * 4, 8), nn.ReLU(), nn.Linear(8, 2))\n"
        "    return net\n"
    )
    backbone = featx.load_backbone("nets/own.py:build", weights="random", crop=32, resize=32, device="cpu")
    head = Head("logreg", C=1.0).fit(featx.extract(photos_here, backbone, compute="eager").load())
    model = featx.inference.HeadOnBackbone(head, backbone)
    ready = open_scorer(model, compute="eager", workers=2)
    assert ready.runners == 1
    np.testing.assert_allclose(ready.compute(pixels(model, 3)), model.predict_values(pixels(model, 3)), atol=1e-6)


def test_an_engine_that_is_not_there_is_refused(model: Any) -> None:
    with pytest.raises(
        EngineError, match=r"compute is 'tensorrt'; expected auto, eager, compile, openvino, onnxruntime"
    ):
        open_scorer(model, compute="tensorrt")


def test_the_engine_is_chosen_as_for_an_extraction_that_never_ends_and_takes_single_images(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def choose(name: str, backbone: Any, sample: np.ndarray, **options: Any) -> Chosen:
        asked.append((name, options["images"] > 10**6, options["lanes"]))
        return Chosen(open_engine("eager", backbone, lanes=options["lanes"]), "eager is fastest here")

    monkeypatch.setattr(scorer, "choose_engine", choose)
    ready = open_scorer(model, workers=2)
    assert asked == [("auto", True, 2)]
    assert ready.notes == ("eager is fastest here",)
    images = pixels(model, 2)
    np.testing.assert_allclose(ready.compute(images)[1:], ready.compute(images[1:]), rtol=1e-12)

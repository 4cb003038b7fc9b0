"""Engines: all give the backbone's own features, whatever is beside an image, however many lanes there are."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_networks import EXPORTED, Load, assert_close, assert_same, pixels_for, replace_maker, require
from torch import Tensor

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.loader import Workers
from featx.errors import EngineError
from featx.extraction import engines
from featx.extraction.engine_table import ENGINES, EngineSpec
from featx.extraction.engines import Engine, Runner, images_per_second, installed, one_thread_each, open_engine
from featx.extraction.network_copy import NetworkCopy
from featx.extraction.pipeline import extract
from featx.extraction.torch_engines import make_eager

KINDS = {
    "several layers": lambda own, trained: load_backbone("lenet5", layers=("features.3", "features.0"), device="cpu"),
    "layers pooled otherwise": lambda own, trained: load_backbone(
        "lenet5", layers=("features.3:max", "features.3:gem", "features.0:flatten"), device="cpu"
    ),
    "many kinds of layers, tapped inside": lambda own, trained: own(
        "mixed", layers=("stem.0", "stem.1", "depth", "depth_norm", "dense_norm", "dense", "hidden")
    ),
    "padding as TensorFlow's": lambda own, trained: trained("mobilenet_v1_025", crop=64),
    "norms with an activation": lambda own, trained: trained("timm/mobilenetv3_small_050", crop=64, layers=("bn1",)),
    "a traced graph": lambda own, trained: trained(
        "resnet18", crop=64, layers=("layer1.0.add", "layer1.0.bn2", "layer3")
    ),
    "a vision transformer": lambda own, trained: own("vit", layers=("encoder.layers.encoder_layer_0",)),
    "shifted windows": lambda own, trained: own("swin"),
}
COMPILED = ("many kinds of layers, tapped inside",)
"""Compiling takes long."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_gives_the_features_of_the_backbone(kind: str, engine: str, own: Load, trained: Load) -> None:
    require(engine)
    if engine == "compile" and kind not in COMPILED:
        pytest.skip("compiling takes long; see the other kinds")
    if "activation" in kind:
        pytest.importorskip("timm")
    backbone = KINDS[kind](own, trained)
    pixels = pixels_for(backbone)
    opened = open_engine(engine, backbone, lanes=2)
    assert (opened.name, opened.lanes, opened.on_cpu) == (engine, 2, True)
    assert_close(opened(pixels), backbone.encode(pixels))
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(opened, [pixels] * 4):
            assert_close(found, backbone.encode(pixels))


@pytest.mark.parametrize("kind", KINDS)
def test_such_networks_are_folded_and_laid_out_anew(
    kind: str, own: Load, trained: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "activation" in kind:
        pytest.importorskip("timm")
    plain: list[bool] = []

    def noted(network: NetworkCopy, *arguments: Any) -> Runner:
        plain.append(network.plain)
        return make_eager(network, *arguments)

    replace_maker(monkeypatch, "eager", noted)
    open_engine("eager", KINDS[kind](own, trained))
    assert plain == [False]


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", ("conv1", "layer1.0.add")), ("timm/mobilenetv3_small_050", ("blocks.0.0.bn1.act", "conv_stem"))],
)
def test_a_layer_that_folding_would_change_or_take_away_is_given_as_it_is(
    name: str, layers: Sequence[str], trained: Load
) -> None:
    if "timm" in name:
        pytest.importorskip("timm")
    backbone = trained(name, crop=64, layers=layers)
    pixels = pixels_for(backbone)
    assert_close(open_engine("eager", backbone)(pixels), backbone.encode(pixels))


@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "compile"])
def test_every_engine_gives_the_type_that_is_kept(engine: str) -> None:
    require(engine)
    backbone = load_backbone("lenet5", dtype="float16", device="cpu")
    pixels = pixels_for(backbone)
    found = open_engine(engine, backbone)(pixels)["penultimate"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, backbone.encode(pixels)["penultimate"], rtol=2e-3, atol=2e-3)


def test_what_float16_cannot_hold_is_infinite_and_no_warning(lenet: Backbone, recwarn: pytest.WarningsRecorder) -> None:
    half = lenet.with_dtype("float16")
    engine = Engine("eager", half, lambda pixels: [np.full((len(pixels), 84), 1e6)], batch=4, portion=4, lanes=1)
    assert np.isinf(engine(pixels_for(lenet))["penultimate"]).all()
    assert np.isfinite(engine.raw(pixels_for(lenet))["penultimate"]).all()
    assert not recwarn.list


@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "compile"])
def test_an_engine_gives_nan_where_the_backbone_does_or_is_refused(engine: str, own: Load) -> None:
    require(engine)
    backbone = own("logarithm")
    pixels = pixels_for(backbone)
    pixels[1::2] //= 4
    wanted = backbone.encode(pixels)["penultimate"]
    assert np.isnan(wanted).all(axis=1).tolist() == [False, True] * 3
    try:
        found = open_engine(engine, backbone, sample=pixels)(pixels)["penultimate"]
    except EngineError as error:
        assert engine != "eager"  # which is the backbone itself
        assert "gives other features" in str(error)  # noqa: PT017
        return
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_allclose(found[::2], wanted[::2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factory", ["viewing", "solid", "parametrised", "odd_norm"])
def test_a_network_that_cannot_be_folded_or_laid_out_anew_runs_as_it_is(factory: str, own: Load) -> None:
    backbone = own(factory)
    pixels = pixels_for(backbone)
    assert_close(open_engine("eager", backbone)(pixels), backbone.encode(pixels))


def test_opening_an_engine_leaves_the_backbone_as_it_was(trained: Load, own: Load) -> None:
    for backbone in (own("mixed", layers=("depth",)), trained("resnet18", crop=64, layers=("layer1.0.add",))):
        before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
        modules = [type(module) for module in backbone.network.modules()]
        open_engine("eager", backbone)(pixels_for(backbone))
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.network.state_dict().items())
        assert [type(module) for module in backbone.network.modules()] == modules
        assert not any(module.training for module in backbone.network.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.network.modules())


def test_an_engine_takes_any_number_of_images(lenet: Backbone) -> None:
    pixels = pixels_for(lenet, 9)
    engine = open_engine("eager", lenet, batch=4)
    whole = engine(pixels)
    for count in (0, 1, 4, 5, 8):
        found = engine(pixels[:count])
        assert found["penultimate"].shape == (count, 84)
        assert_same(found, {layer: rows[:count] for layer, rows in whole.items()})
    assert_same(engine(torch.from_numpy(pixels)), whole)


def test_a_lower_precision_runs_by_torch_alone() -> None:
    backbone = load_backbone("lenet5", precision="bfloat16", device="cpu")
    pixels = pixels_for(backbone)
    assert_close(open_engine("eager", backbone)(pixels), backbone.encode(pixels), engines.LOW_TOLERANCE)
    for engine in EXPORTED:
        require(engine)
        with pytest.raises(
            EngineError,
            match=f"^{engine} computes in float32 only; --precision bfloat16 needs --compute eager or compile$",
        ):
            open_engine(engine, backbone)


# What is beside an image changes no bit of its features


@pytest.mark.parametrize(
    ("engine", "batch"),
    [("eager", None), ("eager", 7), ("compile", None), *((each, size) for each in EXPORTED for size in (None, 4))],
)
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025"])
def test_what_else_is_in_a_batch_changes_no_bit(name: str, engine: str, batch: int | None, trained: Load) -> None:
    require(engine)
    if name != "lenet5" and (engine == "compile" or (engine, batch) == ("onnxruntime", 4)):
        pytest.skip("exporting and compiling take long; see the other networks")
    backbone = load_backbone(name, device="cpu") if name == "lenet5" else trained(name, crop=64)
    opened = open_engine(engine, backbone, batch=batch)
    assert batch is None or (opened.batch, opened.portion) == (batch, batch)
    pixels = pixels_for(backbone, 8)
    whole = opened(pixels)
    for count in (1, 3, 7):
        assert_same(opened(pixels[:count]), {layer: rows[:count] for layer, rows in whole.items()})
    for shift in (1, 2, 5):
        moved = opened(np.roll(pixels, shift, axis=0))
        assert_same({layer: np.roll(rows, -shift, axis=0) for layer, rows in moved.items()}, whole)
    other = 255 - pixels
    other[2] = pixels[2]
    assert_same({layer: rows[2:3] for layer, rows in opened(other).items()}, {k: v[2:3] for k, v in whole.items()})


@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "compile"])
def test_the_number_of_lanes_and_of_torchs_threads_changes_no_bit(engine: str, trained: Load, threads: None) -> None:
    require(engine)
    backbone = trained("mobilenet_v1_025", crop=64)
    pixels = pixels_for(backbone, 8)
    with one_thread_each():
        alone = open_engine(engine, backbone)(pixels)
    torch.set_num_threads(3)
    with one_thread_each(), Workers(4, begin=lambda: torch.set_num_threads(1)) as pool:
        opened = open_engine(engine, backbone, lanes=4)
        for found in [pool.start("forward", opened, pixels) for _ in range(12)]:
            assert_same(found.result(), alone)
    assert torch.get_num_threads() == 3


def test_the_callers_number_of_threads_is_set_again_after_an_exception(threads: None) -> None:
    torch.set_num_threads(2)
    seen = []

    def fail() -> None:
        with one_thread_each():
            seen.append(torch.get_num_threads())
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert [*seen, torch.get_num_threads()] == [1, 2]


def test_a_speed_is_measured_with_all_lanes_and_leaves_threads_alone(lenet: Backbone, threads: None) -> None:
    torch.set_num_threads(2)
    ran: set[int] = set()
    engine = open_engine("eager", lenet, lanes=3, batch=2)
    run = engine.runner

    def noted(pixels: Tensor) -> Sequence[np.ndarray]:
        assert len(pixels) == 2
        ran.add(threading.get_ident())
        return run(pixels)

    engine.runner = noted
    assert images_per_second(engine, pixels_for(lenet, 5), 0.05) > 0
    assert 2 <= len(ran) <= 3
    assert torch.get_num_threads() == 2


# Engines that cannot be opened


def replace_runner(monkeypatch: pytest.MonkeyPatch, name: str, run: Runner) -> None:
    """Let an engine compute its passes by a function."""
    replace_maker(monkeypatch, name, lambda *_: run)


def test_an_engine_that_is_not_installed_names_those_that_are(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == "openvino" else find(package))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "openvino" not in installed("cpu")
    assert "compile" not in installed("cpu")
    with pytest.raises(
        EngineError,
        match=r"^the engine openvino is not installed or does not run on cpu; expected one of eager(, onnxruntime)?$",
    ):
        open_engine("openvino", lenet)


def test_a_new_engine_is_one_entry_of_the_table(
    photos: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "own", EngineSpec("featx.extraction.torch_engines:make_eager", ("cpu",), cpu_batch=2))
    assert installed("cpu")[-1] == "own"
    assert "own" not in installed("cuda")
    assert open_engine("own", lenet).batch == 2
    assert extract(photos, lenet, cache=tmp_path / "cache", compute="own").engine == "own"


def test_engines_by_device() -> None:
    assert "eager" in installed("cpu")
    assert set(installed("cpu")) <= set(ENGINES)
    assert installed("cuda") == ("eager", "compile")
    assert installed("mps") == ("eager",)


def test_an_engine_that_gives_other_features_is_refused(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(pixels: Tensor) -> list[np.ndarray]:
        return [1.001 * lenet.encode(pixels)["penultimate"]]

    replace_runner(monkeypatch, "compile", run)
    message = r"^compile gives other features of lenet5: penultimate differs by 1\.0e-03 of its norm$"
    with pytest.raises(EngineError, match=message):
        open_engine("compile", lenet)


def test_of_several_layers_the_one_that_differs_most_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("lenet5", layers=("features.3",), device="cpu")

    def run(pixels: Tensor) -> list[np.ndarray]:
        found = backbone.encode(pixels)
        return [found["penultimate"], found["features.3"] + np.float32(0.1)]

    replace_runner(monkeypatch, "eager", run)
    with pytest.raises(EngineError, match=r"^eager gives other features of lenet5: features\.3 differs by "):
        open_engine("eager", backbone)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_engine_that_gives_no_number_where_the_backbone_does_is_refused(
    lenet: Backbone, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def run(pixels: Tensor) -> list[np.ndarray]:
        found = lenet.encode(pixels)["penultimate"]
        found[0, 3] = value
        return [found]

    replace_runner(monkeypatch, "eager", run)
    with pytest.raises(EngineError, match="eager gives other features of lenet5: penultimate differs by inf"):
        open_engine("eager", lenet)


def test_an_engine_is_proved_on_the_images_that_it_is_given(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = pixels_for(lenet, 6)

    def run(pixels: Tensor) -> list[np.ndarray]:
        found = lenet.encode(pixels)["penultimate"]
        found[(pixels.numpy() == sample[1]).all(axis=(1, 2, 3))] = 0
        return [found]

    replace_runner(monkeypatch, "eager", run)
    open_engine("eager", lenet)
    open_engine("eager", lenet, sample=sample[2:])
    with pytest.raises(EngineError, match=r"penultimate differs by 1\.0e\+00 of its norm"):
        open_engine("eager", lenet, sample=sample)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("no such operator\nand pages more"), r"^compile cannot run lenet5: no such operator$"),
        (AssertionError(), r"^compile cannot run lenet5: AssertionError$"),
        (torch.OutOfMemoryError("out of it"), r"^compile does not fit on cpu: out of it$"),
    ],
)
def test_whatever_an_exporter_raises_is_one_error_of_one_line(
    lenet: Backbone, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    replace_maker(monkeypatch, "compile", fail)
    with pytest.raises(EngineError, match=message):
        open_engine("compile", lenet)


def test_ctrl_c_while_an_engine_is_opened_is_ctrl_c(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt("Ctrl-C")

    replace_maker(monkeypatch, "eager", stop)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        open_engine("eager", lenet)


def test_what_an_exporter_prints_and_warns_is_not_heard(
    lenet: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A logger of this test's own: other libraries set levels of those that exist, and disable them.
    logger = logging.getLogger(f"exporter.{uuid.uuid4()}")
    caplog.set_level(logging.WARNING, logger=logger.name)

    def talk(*args: Any) -> Any:
        print("step 1 of 3")  # noqa: T201
        print("step 2 of 3", file=sys.stderr)  # noqa: T201
        warnings.warn("deprecated", stacklevel=1)
        logger.warning("step 3 of 3")
        return make_eager(*args)

    monkeypatch.setattr(logging.root.manager, "disable", 0)  # whatever another library has set
    replace_maker(monkeypatch, "eager", talk)
    open_engine("eager", lenet)
    assert tuple(capsys.readouterr()) == ("", "")
    assert not recwarn.list
    assert not caplog.records
    logger.warning("heard again")
    assert [record.getMessage() for record in caplog.records] == ["heard again"]

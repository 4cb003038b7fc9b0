"""Engines: all give the backbone's own features, whatever is beside an image, however many lanes there are."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

from featx.backbones.backbone import Backbone, load_backbone
from featx.cli.main import main
from featx.constants import ENGINES
from featx.data.decode import read_pixels
from featx.data.loader import Workers
from featx.errors import EngineError
from featx.extraction import engines, onnx_export
from featx.extraction.engines import TOLERANCE, Engine, images_per_second, installed, one_thread_each, open_engine
from featx.extraction.extraction import extract
from featx.extraction.network_copy import fold_norms
from featx.features.feature_set import FeatureSet

EXPORTED = ("openvino", "onnxruntime")
NOT_EVEN_ONE = r"^not even one image at a time fits on the device \(CUDA out of memory\); try --device cpu$"
"""Engines that run an exported network."""

NETWORKS = '''
from __future__ import annotations

import threading

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer

from featx import Transform


class Mixed(nn.Module):
    """Convolutions before and after their norms, grouped and by channel, a sum in place, a norm of vectors."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depth = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.depth_norm = nn.BatchNorm2d(8, affine=False)
        self.dense_norm = nn.BatchNorm2d(8)
        self.dense = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.hidden = nn.Linear(16, 12)
        self.hidden_norm = nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.depth_norm(self.depth(x))
        y += x
        z = self.dense(self.dense_norm(y).relu())
        z = torch.cat([y, z], 1).mean((2, 3))
        return self.fc(self.hidden_norm(self.hidden(z)).relu())


class Small(nn.Module):
    """Two convolutions, each with its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 3)

    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu())).relu().mean((2, 3))

    def forward(self, x):
        return self.fc(self.embed(x))


class Logarithm(Small):
    """NaN of dark images."""

    def embed(self, x):
        return super().embed(x) + torch.log(x.mean((1, 2, 3)) - 0.25)[:, None]


class OutputTwice(Small):
    def embed(self, x):
        out = self.conv(x)
        return self.norm2(self.conv2(self.norm(out).relu())).mean((2, 3)) + out.mean((2, 3))


class CalledTwice(Small):
    def embed(self, x):
        out = self.norm(self.conv(x)).relu()
        return self.norm2(self.conv2(self.conv2(out))).mean((2, 3))


class NormTwice(Small):
    def embed(self, x):
        out = self.norm(self.conv(x))
        return self.norm(self.conv2(out)).mean((2, 3))


class InPlaceBetween(Small):
    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu()).mul_(2).sub_(1)).mean((2, 3))


class Odd(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2 + 1


class OddNorm(Small):
    """Its norm is more than a norm."""

    def __init__(self):
        super().__init__()
        self.norm2 = Odd(8)


class Parametrised(Small):
    """Its weight is made anew from other tensors."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.utils.parametrizations.weight_norm(self.conv2)


class Viewing(Small):
    """Takes for granted that channels come first in memory."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8 * 28 * 28, 3)

    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu())).relu().view(len(x), -1)


class Solid(Small):
    """Has weights of five dimensions."""

    def __init__(self):
        super().__init__()
        self.solid = nn.Conv3d(8, 8, (1, 3, 3))

    def embed(self, x):
        return self.solid(self.norm(self.conv(x)).relu()[:, :, None])[:, :, 0].mean((2, 3))


def between():
    """Called in the middle of a pass."""


class Keeping(Small):
    """Keeps a map in itself from one layer to another."""

    def embed(self, x):
        self.map = self.norm(self.conv(x)).relu()
        between()
        return self.norm2(self.conv2(self.map)).mean((2, 3)) + self.map.mean((2, 3))


class Hooked(Small):
    """A hook keeps a map beside the network."""

    def __init__(self):
        super().__init__()
        self.seen = (seen := {}).get
        self.conv.register_forward_hook(lambda _, __, out: seen.update(map=out))

    def embed(self, x):
        out = super().embed(x)
        between()
        return out + self.seen("map").mean((2, 3))


class HookedInItself(Small):
    """A hook keeps a map in the network that it was made for, whatever copy of it runs."""

    def __init__(self):
        super().__init__()
        self.conv.register_forward_hook(lambda _, __, out: setattr(self, "kept", [out]))

    def embed(self, x):
        return super().embed(x) + self.kept[0].mean((2, 3))


class Uncopied(Small):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def ready(network):
    """Its norms as if it had been trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_()
    network.transform = Transform(resize=32, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network.get_classifier = lambda: network.heads.head if hasattr(network, "heads") else (
        network.head if hasattr(network, "head") else network.fc)
    return network


def factory(kind):
    return lambda: ready(kind())


mixed, small, logarithm, odd_norm, parametrised = map(factory, (Mixed, Small, Logarithm, OddNorm, Parametrised))
viewing, solid, keeping = map(factory, (Viewing, Solid, Keeping))
hooked, hooked_in_itself, uncopied = map(factory, (Hooked, HookedInItself, Uncopied))
output_twice, called_twice, norm_twice = map(factory, (OutputTwice, CalledTwice, NormTwice))
in_place_between = factory(InPlaceBetween)


def vit():
    sizes = dict(num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    return ready(VisionTransformer(image_size=32, patch_size=8, num_classes=5, **sizes))


def swin():
    sizes = dict(embed_dim=8, depths=[2], num_heads=[2], window_size=[4, 4])
    return ready(SwinTransformer(patch_size=[4, 4], num_classes=5, **sizes))
'''

Load = Callable[..., Backbone]

_is_own = engines._is_own


def require(engine: str) -> None:
    if engine not in installed("cpu"):
        pytest.skip(f"{engine} is not installed")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Loads a network of the file above, which is trusted as those of the zoo are."""
    file = tmp_path_factory.mktemp("networks") / "networks.py"
    file.write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_is_own", lambda _: False)
        yield lambda factory, **options: load_backbone(f"{file}:{factory}", device="cpu", **options)


@pytest.fixture
def strange(own: Load, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The same, as somebody's own."""
    monkeypatch.setattr(engines, "_is_own", _is_own)
    return own


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a network of the zoo with norms as if it had been trained: random weights have norms that do nothing."""
    folder = tmp_path_factory.mktemp("trained")

    def load(name: str, **options: Any) -> Backbone:
        network = load_backbone(name, weights="random", device="cpu", **options).network
        generator = torch.Generator().manual_seed(0)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                scale = norm.running_var.new_empty(norm.running_var.shape).uniform_(0.5, 1.5, generator=generator)
                norm.running_var.mul_(scale)
                norm.running_mean.normal_(0, 0.1, generator=generator)
        file = folder / f"{name.replace('/', '-')}.safetensors"
        save_file(network.state_dict(), file)
        return load_backbone(name, weights=str(file), device="cpu", **options)

    return load


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the machine's own."""
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    """torch's number of threads is afterwards what it was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pixels_for(backbone: Backbone, count: int = 6) -> np.ndarray:
    side = backbone.transform.crop
    return np.random.default_rng(3).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Row for row and layer for layer."""
    assert list(found) == list(wanted)
    for layer, rows in wanted.items():
        assert found[layer].shape == rows.shape
        assert found[layer].dtype == rows.dtype
        distances = np.linalg.norm((found[layer] - rows).astype(np.float64), axis=1)
        assert (distances <= tolerance * np.linalg.norm(rows.astype(np.float64), axis=1)).all(), layer


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    for layer, rows in wanted.items():
        np.testing.assert_array_equal(found[layer], rows)


# Every engine gives the backbone's own features

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
    made, plain = engines._MAKERS["eager"], []
    monkeypatch.setitem(
        engines._MAKERS, "eager", lambda network, *args: plain.append(network.plain) or made(network, *args)
    )
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


def test_an_exported_network_may_take_for_granted_that_channels_come_first(own: Load) -> None:
    require("onnxruntime")
    backbone = own("viewing")
    pixels = pixels_for(backbone)
    assert_close(open_engine("onnxruntime", backbone)(pixels), backbone.encode(pixels))


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


# Folding


def folded(backbone: Backbone, *keep: str) -> tuple[int, nn.Module]:
    """How many norms are folded into which network."""
    network = backbone.network
    images = torch.rand(1, 3, backbone.transform.crop, backbone.transform.crop)
    return fold_norms(network, images, keep=[network.get_submodule(name) for name in keep]), network


def norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "crop", "count", "left"),
    [
        ("lenet5", 32, 0, 0),
        ("resnet18", 64, 20, 0),
        ("mobilenet_v1_025", 64, 27, 0),
        ("mobilenet_v3_small", 64, 34, 0),
        ("densenet121", 64, 59, 62),  # the first of each layer normalises what several layers gave
    ],
)
def test_each_norm_right_after_a_convolution_is_folded(
    name: str, crop: int, count: int, left: int, trained: Load
) -> None:
    backbone = trained(name, crop=crop)
    pixels = pixels_for(backbone, 2)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone)
    assert (found, len(norms(network))) == (count, left)
    assert_close(backbone.encode(pixels), wanted)


def test_norms_of_timm_keep_their_activation(trained: Load) -> None:
    pytest.importorskip("timm")
    backbone = trained("timm/mobilenetv3_small_050", crop=64)
    pixels = pixels_for(backbone, 2)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone)
    assert (found, norms(network)) == (34, [])
    assert sum(isinstance(module, nn.Hardswish) for module in network.modules()) > 5
    assert_close(backbone.encode(pixels), wanted)


@pytest.mark.parametrize(
    ("factory", "keep", "count", "left"),
    [
        ("mixed", (), 3, ["dense_norm"]),
        ("mixed", ("depth",), 2, ["depth_norm", "dense_norm"]),
        ("mixed", ("dense", "hidden", "stem.0"), 1, ["stem.1", "dense_norm", "hidden_norm"]),
        ("mixed", ("depth_norm", "stem"), 3, ["dense_norm"]),
        ("called_twice", (), 1, ["norm2"]),
        ("norm_twice", (), 0, ["norm", "norm2"]),
        ("in_place_between", (), 1, ["norm2"]),
    ],
)
def test_what_runs_twice_or_is_wanted_or_changed_in_between_is_not_folded(
    factory: str, keep: Sequence[str], count: int, left: list[str], own: Load
) -> None:
    backbone = own(factory)
    pixels = pixels_for(backbone)
    wanted = backbone.encode(pixels)
    found, network = folded(backbone, *keep)
    assert (found, norms(network)) == (count, left)
    assert_close(backbone.encode(pixels), wanted)


def test_folding_leaves_no_hooks_even_where_the_network_fails(own: Load) -> None:
    network = own("small").network
    with pytest.raises(RuntimeError, match="expected input"):
        fold_norms(network, torch.rand(1, 4, 32, 32))
    assert fold_norms(network, torch.rand(1, 3, 32, 32)) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("factory", ["output_twice", "odd_norm"])
def test_where_folding_goes_wrong_the_network_runs_unfolded_and_right(factory: str, own: Load) -> None:
    backbone = own(factory)
    pixels = pixels_for(backbone)
    wanted = backbone.encode(pixels)
    engine = open_engine("eager", backbone)
    assert_close(engine(pixels), wanted)
    count, _ = folded(backbone)
    assert count == 2
    spoilt = np.linalg.norm(backbone.encode(pixels)["penultimate"] - wanted["penultimate"])
    assert spoilt > 0.01 * np.linalg.norm(wanted["penultimate"])  # so that the fallback was needed


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


def test_what_one_lane_keeps_in_its_network_is_not_seen_by_another(own: Load) -> None:
    assert_passes_do_not_meet(own("keeping"))


@pytest.mark.parametrize("factory", ["keeping", "hooked"])
def test_passes_of_somebodys_own_network_do_not_meet_whatever_it_keeps(factory: str, strange: Load) -> None:
    assert_passes_do_not_meet(strange(factory))


@pytest.mark.parametrize("factory", ["hooked_in_itself", "uncopied", "viewing"])
def test_somebodys_own_network_runs_as_it_is_one_pass_at_a_time(factory: str, strange: Load) -> None:
    backbone = strange(factory)
    pixels = pixels_for(backbone)
    engine = open_engine("eager", backbone, lanes=2)
    assert (engine.lanes, engine.on_cpu) == (1, True)
    assert_close(engine(pixels), backbone.encode(pixels))


def test_an_extraction_by_somebodys_own_network_is_right(photos: Path, tmp_path: Path, strange: Load) -> None:
    backbone = strange("hooked")
    result = extract(photos, backbone, cache=tmp_path / "cache", workers=3, batch_size=2)
    assert result.engine == "eager"
    rows = result.load()
    pixels = np.stack([read_pixels((photos / path).read_bytes(), backbone.transform) for path in rows.paths])
    np.testing.assert_allclose(rows.features, backbone.encode(pixels)["penultimate"], rtol=1e-4, atol=1e-5)


def assert_passes_do_not_meet(backbone: Backbone) -> None:
    """One pass is held up in its middle while another wants to run."""
    pixels = pixels_for(backbone, 8)
    wanted = [backbone.encode(half) for half in (pixels[:4], pixels[4:])]
    engine = open_engine("eager", backbone, lanes=2)
    first, other_done = threading.Lock(), threading.Event()

    def between() -> None:
        """The first pass waits in its middle for a whole other one; not for ever, where passes take turns."""
        if first.acquire(blocking=False):
            other_done.wait(2)

    module_of(backbone)["between"] = between
    try:
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(engine, pixels[:4])
            while not first.locked():
                pass
            other = pool.submit(engine, pixels[4:])
            other.add_done_callback(lambda _: other_done.set())
            assert_close(waiting.result(), wanted[0])
            assert_close(other.result(), wanted[1])
    finally:
        module_of(backbone)["between"] = lambda: None


def module_of(backbone: Backbone) -> dict[str, Any]:
    """The names of the file that a network comes from."""
    names: dict[str, Any] = type(backbone.network).forward.__globals__
    return names


# Memory


class Device:
    """A stand-in for a device whose memory holds so many images."""

    def __init__(self, backbone: Backbone, room: int) -> None:
        self.backbone, self.room = backbone, room
        self.sizes: list[int] = []

    def run(self, pixels: Tensor) -> list[np.ndarray]:
        self.sizes.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(self.backbone.encode(pixels).values())

    def engine(self, batch: int, lanes: int = 1) -> Engine:
        return Engine("eager", self.backbone, self.run, batch=batch, portion=batch, lanes=lanes)


def test_a_device_without_memory_gets_half_as_many_images_and_loses_none(lenet: Backbone) -> None:
    device = Device(lenet, room=3)
    engine = device.engine(batch=16)
    pixels = pixels_for(lenet, 11)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert engine.batch == 2
    assert device.sizes == [16, 8, 4, 2, 2, 2, 2, 2, 2]
    device.sizes.clear()
    assert_close(engine(pixels[:3]), lenet.encode(pixels[:3]))
    assert device.sizes == [2, 2]  # remembered


def test_memory_that_ends_half_way_loses_no_image(lenet: Backbone) -> None:
    device = Device(lenet, room=8)
    engine = device.engine(batch=8)
    run = engine._run

    def shrinking(pixels: Tensor) -> list[np.ndarray]:
        found = run(pixels)
        device.room = 4
        return list(found)

    engine._run = shrinking
    pixels = pixels_for(lenet, 19)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert (device.sizes, engine.batch) == ([8, 8, 4, 4, 4], 4)


def test_lanes_that_run_out_of_memory_together_halve_once(lenet: Backbone) -> None:
    device, together = Device(lenet, room=4), threading.Barrier(4)
    engine = device.engine(batch=8, lanes=4)
    run, running = engine._run, threading.Lock()

    def run_together(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) == 8:
            together.wait(20)
        with running:  # encode is for one thread at a time
            return run(pixels)

    engine._run = run_together
    pixels = pixels_for(lenet, 6)
    wanted = lenet.encode(pixels)
    with ThreadPoolExecutor(4) as pool:
        for found in [pool.submit(engine, pixels) for _ in range(4)]:
            assert_close(found.result(), wanted)
    assert engine.batch == 4
    assert sorted(device.sizes) == [4] * 8 + [8] * 4


def test_a_lane_that_runs_out_of_memory_late_does_not_undo_what_others_learned(lenet: Backbone) -> None:
    device = Device(lenet, room=2)
    engine = device.engine(batch=8)
    run = engine._run

    def late(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) == 8:
            engine.batch = 2  # another lane, meanwhile
        return run(pixels)

    engine._run = late
    pixels = pixels_for(lenet)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert device.sizes == [8, 2, 2, 2]


def test_a_device_that_holds_no_image_is_an_error(lenet: Backbone) -> None:
    device = Device(lenet, room=0)
    engine = device.engine(batch=4)
    with pytest.raises(EngineError, match=NOT_EVEN_ONE):
        engine(pixels_for(lenet))
    assert device.sizes == [4, 2, 1]
    assert engine.batch == 1


def limit_memory(monkeypatch: pytest.MonkeyPatch, room: Callable[[], int]) -> None:
    """torch's engines hold so many images at once."""
    made = engines._torch_runner

    def limited(encoder: Any, device: torch.device) -> Callable[[Tensor], Sequence[np.ndarray]]:
        run = made(encoder, device)

        def run_limited(pixels: Tensor) -> Sequence[np.ndarray]:
            if len(pixels) > room():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(pixels)

        return run_limited

    monkeypatch.setattr(engines, "_torch_runner", limited)


def test_an_extraction_goes_on_with_less_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    wanted = extract(photos, lenet, cache=tmp_path / "whole").load()
    left = iter([8] * 5)
    limit_memory(monkeypatch, lambda: next(left, 3))
    found = extract(photos, lenet, cache=tmp_path / "cache", batch_size=8, workers=3).load()
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-4, atol=1e-5)


def test_a_network_that_does_not_fit_is_an_engine_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    limit_memory(monkeypatch, lambda: 0)
    with pytest.raises(EngineError, match=NOT_EVEN_ONE):
        extract(photos, lenet, cache=tmp_path / "cache", compute="eager")


def test_memory_that_ends_for_good_is_an_engine_error_and_what_is_done_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Backbone
) -> None:
    left = iter([8] * 3)
    with monkeypatch.context() as patch:
        limit_memory(patch, lambda: next(left, 0))
        with pytest.raises(EngineError, match=NOT_EVEN_ONE):
            extract(photos, lenet, cache=tmp_path / "cache", batch_size=8, workers=1)
    result = extract(photos, lenet, cache=tmp_path / "cache")
    assert (result.images, result.failed) == (40, 0)
    assert result.reused > 0


def test_a_compiled_network_may_be_given_smaller_batches(lenet: Backbone) -> None:
    require("compile")
    engine = open_engine("compile", lenet, batch=4)
    run = engine._run

    def limited(pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(pixels)

    engine._run = limited
    pixels = pixels_for(lenet)
    assert_close(engine(pixels), lenet.encode(pixels))
    assert engine.batch == 2


# Engines that cannot be had


def maker(run: Callable[[Tensor], Sequence[np.ndarray]]) -> Callable[..., Any]:
    """A stand-in for what makes an engine."""
    return lambda *_: run


def test_an_engine_that_is_not_installed_names_those_that_are(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    here = engines._importable
    monkeypatch.setattr(engines, "_importable", lambda *packages: "openvino" not in packages and here(*packages))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "openvino" not in installed("cpu")
    assert "compile" not in installed("cpu")
    with pytest.raises(
        EngineError, match=r"^openvino is not installed, or does not run on cpu; here are eager(, onnxruntime)?$"
    ):
        open_engine("openvino", lenet)


def test_engines_by_device() -> None:
    assert "eager" in installed("cpu")
    assert set(installed("cpu")) <= set(ENGINES)
    assert installed("cuda") == ("eager", "compile")
    assert installed("mps") == ("eager",)


def test_an_engine_that_gives_other_features_is_refused(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(pixels: Tensor) -> list[np.ndarray]:
        return [1.001 * lenet.encode(pixels)["penultimate"]]

    monkeypatch.setitem(engines._MAKERS, "compile", maker(run))
    monkeypatch.setattr(engines, "installed", lambda _: ENGINES)
    message = r"^compile gives other features of lenet5: penultimate differs by 1\.0e-03 of its norm$"
    with pytest.raises(EngineError, match=message):
        open_engine("compile", lenet)


def test_of_several_layers_the_one_that_differs_most_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("lenet5", layers=("features.3",), device="cpu")

    def run(pixels: Tensor) -> list[np.ndarray]:
        found = backbone.encode(pixels)
        return [found["penultimate"], found["features.3"] + np.float32(0.1)]

    monkeypatch.setitem(engines._MAKERS, "eager", maker(run))
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

    monkeypatch.setitem(engines._MAKERS, "eager", maker(run))
    with pytest.raises(EngineError, match="eager gives other features of lenet5: penultimate differs by inf"):
        open_engine("eager", lenet)


def test_an_engine_is_proved_on_the_images_that_it_is_given(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = pixels_for(lenet, 6)

    def run(pixels: Tensor) -> list[np.ndarray]:
        found = lenet.encode(pixels)["penultimate"]
        found[(pixels.numpy() == sample[1]).all(axis=(1, 2, 3))] = 0
        return [found]

    monkeypatch.setitem(engines._MAKERS, "eager", maker(run))
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

    monkeypatch.setitem(engines._MAKERS, "compile", fail)
    monkeypatch.setattr(engines, "installed", lambda _: ENGINES)
    with pytest.raises(EngineError, match=message):
        open_engine("compile", lenet)


def test_ctrl_c_while_an_engine_is_opened_is_ctrl_c(lenet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setitem(engines._MAKERS, "eager", stop)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        open_engine("eager", lenet)


def test_what_an_exporter_prints_and_warns_is_not_heard(
    lenet: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = engines._MAKERS["eager"]

    def talk(*args: Any) -> Any:
        import logging
        import sys
        import warnings

        print("step 1 of 3")  # noqa: T201
        print("step 2 of 3", file=sys.stderr)  # noqa: T201
        warnings.warn("deprecated", stacklevel=1)
        logging.getLogger("onnx").warning("step 3 of 3")
        return made(*args)

    monkeypatch.setitem(engines._MAKERS, "eager", talk)
    open_engine("eager", lenet)
    assert tuple(capsys.readouterr()) == ("", "")
    assert not recwarn.list
    assert not caplog.records
    import logging

    logging.getLogger("onnx").warning("heard again")
    assert [record.getMessage() for record in caplog.records] == ["heard again"]


@pytest.mark.parametrize(("most", "expected"), [(4_000_000_000, [0, 0]), (0, [2])])
def test_openvino_is_compiled_for_each_lane_or_once_where_copies_are_too_large(
    most: int, expected: list[int], own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("openvino")
    import openvino

    streams: list[int] = []
    compile_model = openvino.Core.compile_model

    def noted(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        streams.append(settings["NUM_STREAMS"])
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    monkeypatch.setattr(engines, "_MOST_IN_COPIES", most)
    engine = open_engine("openvino", lenet, lanes=2)
    pixels = pixels_for(lenet)
    together = threading.Barrier(2)

    def run(_: int) -> dict[str, np.ndarray]:
        together.wait(20)
        return engine(pixels)

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, range(2)):
            assert_close(found, lenet.encode(pixels))
    assert len(streams) <= len(expected)
    assert set(streams) == set(expected)


def test_a_speed_is_measured_with_all_lanes_and_leaves_threads_alone(lenet: Backbone, threads: None) -> None:
    torch.set_num_threads(2)
    ran: set[int] = set()
    engine = open_engine("eager", lenet, lanes=3, batch=2)
    run = engine._run

    def noted(pixels: Tensor) -> Sequence[np.ndarray]:
        assert len(pixels) == 2
        ran.add(threading.get_ident())
        return run(pixels)

    engine._run = noted
    assert images_per_second(engine, pixels_for(lenet, 5), 0.05) > 0
    assert 2 <= len(ran) <= 3
    assert torch.get_num_threads() == 2


# Exported networks are kept


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Exporting takes no time, and gives something else every time."""
    made: list[bytes] = []

    def export(*_: Any) -> bytes:
        made.append(f"network {len(made)}".encode())
        return made[-1]

    monkeypatch.setattr(onnx_export, "_export", export)
    return made


def exported(backbone: Backbone, batch: int = 1, *, plain: bool = False) -> bytes:
    return onnx_export.onnx_bytes(SimpleNamespace(plain=plain, encoder=object), backbone, batch)  # type: ignore[arg-type]


def kept(home: Path) -> list[Path]:
    return sorted((home / "engines").iterdir())


@pytest.mark.parametrize("engine", EXPORTED)
def test_a_network_is_exported_once(
    engine: str, own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(engine)
    first = open_engine(engine, lenet)(pixels_for(lenet))
    (file,) = kept(own_home)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    for _ in range(2):
        again = load_backbone("lenet5", device="cpu")
        assert_same(open_engine(engine, again)(pixels_for(again)), first)
    assert kept(own_home) == [file]


def test_what_is_kept_is_the_same_for_both_engines_that_take_it(
    own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in EXPORTED:
        require(engine)
    open_engine("onnxruntime", lenet)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    open_engine("openvino", lenet)


def test_a_damaged_network_is_exported_anew(own_home: Path, lenet: Backbone) -> None:
    require("onnxruntime")
    wanted = open_engine("onnxruntime", lenet)(pixels_for(lenet))
    (file,) = kept(own_home)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (bytes(flipped), whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        assert_close(open_engine("onnxruntime", lenet)(pixels_for(lenet)), wanted)
        assert any(path.read_bytes() != damaged for path in kept(own_home))


def test_a_damaged_file_is_not_read_as_a_network(own_home: Path, lenet: Backbone, exports: list[bytes]) -> None:
    assert exported(lenet) == exported(lenet) == b"network 0"
    (file,) = kept(own_home)
    file.write_bytes(b"network X")
    assert exported(lenet) == exported(lenet) == b"network 1"


def test_whatever_changes_a_network_changes_its_export(
    own_home: Path, tmp_path: Path, lenet: Backbone, exports: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lenet.network.state_dict()
    state["classifier.bias"][0] += 1e-3
    save_file(state, tmp_path / "changed.safetensors")
    backbones = [
        load_backbone("lenet5", device="cpu"),
        load_backbone("lenet5", weights=str(tmp_path / "changed.safetensors"), device="cpu"),
        load_backbone("lenet5", layers=("features.3",), device="cpu"),
        load_backbone("mobilenet_v1_025", weights="random", crop=64, device="cpu"),
        load_backbone("mobilenet_v1_025", weights="random", crop=96, device="cpu"),
    ]

    def every() -> list[bytes]:
        return [
            *(exported(backbone) for backbone in backbones),
            exported(backbones[0], batch=4),
            exported(backbones[0], plain=True),
        ]

    first = every()
    assert len(set(first)) == len(first) == len(exports)
    assert every() == first
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert not set(every()) & set(first)


def test_no_more_exports_are_kept_than_sixteen_and_the_oldest_go(
    own_home: Path, lenet: Backbone, exports: list[bytes]
) -> None:
    import os

    for batch in range(1, 20):
        exported(lenet, batch)
        for path in kept(own_home):  # a second older, so that the order is certain
            stat = path.stat()
            os.utime(path, (stat.st_atime - 1, stat.st_mtime - 1))
        if batch > 4:
            exported(lenet, 2)  # used again and again
    files = kept(own_home)
    assert len(files) == 16
    assert {path.suffix for path in files} == {".onnx"}
    assert len(exports) == 19
    contents = {path.read_bytes() for path in files}
    assert {b"network 1", b"network 18"} <= contents
    assert not {b"network 0", b"network 2", b"network 3"} & contents


def test_a_home_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, exports: list[bytes]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    assert [exported(lenet), exported(lenet)] == [b"network 0", b"network 1"]
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "full"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        assert exported(lenet) == b"network 2"
    assert kept(tmp_path / "full") == []
    monkeypatch.delenv("FEATX_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert exported(lenet) == b"network 3"


def full_disk(*_: Any) -> int:
    raise OSError(28, "No space left on device")


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_network_too_large_for_one_file_is_refused_before_it_is_exported(
    lenet: Backbone, own_home: Path, monkeypatch: pytest.MonkeyPatch, exports: list[bytes]
) -> None:
    require("onnxruntime")
    monkeypatch.setattr(onnx_export, "_LARGEST_EXPORT", 1000)
    with pytest.raises(EngineError, match="lenet5 is too large for one ONNX file"):
        open_engine("onnxruntime", lenet)
    assert exports == []


# In a lower precision


def test_a_lower_precision_runs_by_torch_alone() -> None:
    backbone = load_backbone("lenet5", precision="bfloat16", device="cpu")
    pixels = pixels_for(backbone)
    assert_close(open_engine("eager", backbone)(pixels), backbone.encode(pixels), engines.LOW_TOLERANCE)
    for engine in EXPORTED:
        require(engine)
        with pytest.raises(
            EngineError, match=f"^{engine} computes in float32 alone; bfloat16 is for eager and compile$"
        ):
            open_engine(engine, backbone)


# extract


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], FeatureSet]:
    """The features of a folder by the eager engine."""
    folder = tmp_path_factory.mktemp("reference")
    return lambda photos: extract(photos, load_backbone("lenet5", device="cpu"), cache=folder, compute="eager").load()


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_writes_the_same_features(
    engine: str, photos: Path, tmp_path: Path, reference: Callable[[Path], FeatureSet], lenet: Backbone
) -> None:
    require(engine)
    result = extract(photos, lenet, cache=tmp_path / "cache", compute=engine, workers=2)
    assert (result.engine, result.computed, result.as_dict()["engine"]) == (engine, 40, engine)
    wanted, found = reference(photos), result.load()
    assert found.identity == wanted.identity
    assert_close({"penultimate": found.features}, {"penultimate": wanted.features})
    again = extract(photos, lenet, cache=tmp_path / "cache", compute=engine)
    assert (again.engine, again.computed) == ("", 0)


def test_the_number_of_workers_changes_no_bit_of_a_file(
    photos: Path, tmp_path: Path, lenet: Backbone, threads: None
) -> None:
    written = []
    for workers in (1, 2, 5):
        torch.set_num_threads(workers)
        result = extract(photos, lenet, out=tmp_path / f"{workers}.h5", compute="eager", workers=workers)
        assert torch.get_num_threads() == workers
        written.append(result.file.read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"compute": "tensorrt"},
            r"^compute is 'tensorrt'; expected one of auto, eager, compile, openvino, onnxruntime$",
        ),
        ({"compute": ""}, r"^compute is ''; expected one of auto, eager"),
        ({"batch_size": 0}, r"^batch_size is 0; expected a whole number above 0, or auto$"),
        ({"batch_size": -4}, r"^batch_size is -4; expected a whole number above 0, or auto$"),
        ({"batch_size": 2.5}, r"^batch_size is 2\.5; expected a whole number above 0, or auto$"),
        ({"workers": -1}, r"^workers is -1; expected a number of threads above 0$"),
        ({"batch_size": "many"}, r"^batch_size is 'many'; expected a whole number above 0, or auto$"),
    ],
)
def test_a_wrong_engine_or_batch_size_is_an_error_before_anything_is_written(
    options: dict[str, Any], message: str, photos: Path, tmp_path: Path, lenet: Backbone
) -> None:
    with pytest.raises(EngineError, match=message):
        extract(photos, lenet, cache=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_a_batch_size_of_auto_means_on_the_cpu_the_engines_own(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    automatic = extract(photos, lenet, out=tmp_path / "auto.h5", batch_size="auto", compute="eager")
    usual = extract(photos, lenet, out=tmp_path / "usual.h5", compute="eager")
    assert automatic.file.read_bytes() == usual.file.read_bytes()


def test_an_engine_that_cannot_be_had_fails_the_extraction_and_leaves_no_file(
    photos: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "installed", lambda _: ("eager",))
    with pytest.raises(EngineError, match=r"^openvino is not installed, or does not run on cpu; here are eager$"):
        extract(photos, lenet, cache=tmp_path / "cache", compute="openvino")
    assert not list((tmp_path / "cache").glob("*.h5"))
    assert extract(photos, lenet, cache=tmp_path / "cache").computed == 40


def test_the_command_line_tells_the_engine_and_errors_in_one_line(photos: Path, in_tmp: Path) -> None:
    def run(*options: str) -> Any:
        return CliRunner().invoke(main, ["extract", str(photos), "--backbone", "lenet5", "--device", "cpu", *options])

    said = run("--compute", "eager", "--batch-size", "auto", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["engine"] == "eager"
    for options, message in (
        (("--compute", "onnxruntime", "--precision", "bfloat16"), "onnxruntime computes in float32 alone"),
        (("--compute", "nonsense"), "'nonsense' is not one of 'auto', 'eager', 'compile', 'openvino', 'onnxruntime'"),
        (("--batch-size", "0"), "0 is not in the range x>=1"),
        (("--batch-size", "many"), "'many' is not a valid integer range"),
        (("--fast-decode", "--nvjpeg"), "expected one of them"),
    ):
        failed = run(*options)
        assert failed.exit_code in (1, 2)
        assert message in failed.stderr
        assert len([line for line in failed.stderr.splitlines() if line.startswith("Error: ")]) == 1
        assert "Traceback" not in failed.output

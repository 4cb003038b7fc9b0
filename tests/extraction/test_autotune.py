"""The choice of an engine: asked for, remembered, or measured where a run is long enough to pay for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import Recorder
from safetensors.torch import save_file
from torch import Tensor

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import EngineError
from featx.extraction import autotune
from featx.extraction.autotune import Chosen, choose_engine, largest_useful_batch
from featx.extraction.engines import Engine
from featx.extraction.pipeline import extract

LONG = 1_000_000
"""Images of a run that lasts long enough."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the machine's own."""
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


class Machine:
    """A machine whose engines have made-up speeds.

    Attributes:
        rates: images per second of each engine that can run the network.
        opened, measured: engines, in order.
        told: what the user was told.
    """

    def __init__(self, **rates: float) -> None:
        self.rates = rates
        self.installed: tuple[str, ...] = ("eager", "compile", "openvino", "onnxruntime")
        self.opened: list[str] = []
        self.measured: list[str] = []
        self.told = Recorder()
        self.options: dict[str, Any] = {}

    def open(self, name: str, backbone: Backbone, **options: Any) -> Engine:
        self.opened.append(name)
        self.options = options
        if name not in self.rates:
            raise EngineError(f"{name} cannot run {backbone.name}: no such operator")
        return Engine(name, backbone, lambda _: [], batch=4, portion=4, lanes=options["lanes"])

    def measure(self, engine: Engine, pixels: np.ndarray, seconds: float = 1.0) -> float:
        self.measured.append(engine.name)
        return self.rates[engine.name]

    def choose(self, backbone: Backbone, *, images: int = LONG, name: str = "auto", **options: Any) -> Chosen:
        """What is chosen now; only what is done for it is on record."""
        self.opened, self.measured, self.told = [], [], Recorder()
        return choose_engine(
            name, backbone, sample(backbone), images=images, reporter=self.told, **{"lanes": 2, **options}
        )


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """Puts made-up engines in place of the real ones."""

    def make(**rates: float) -> Machine:
        made = Machine(**rates)
        monkeypatch.setattr(autotune, "open_engine", made.open)
        monkeypatch.setattr(autotune, "images_per_second", made.measure)
        monkeypatch.setattr(autotune, "installed", lambda _: made.installed)
        return made

    return make


def in_turns(*names: str) -> list[str]:
    """Eager alone, to see whether a measurement pays, then all of them three times."""
    return ["eager", *3 * names]


def sample(backbone: Backbone) -> np.ndarray:
    side = backbone.transform.crop
    return np.zeros((3, 3, side, side), np.uint8)


def remembered(home: Path) -> list[dict[str, Any]]:
    return list(json.loads((home / "engines.json").read_text()).values())


# Asked for, or not worth a measurement


@pytest.mark.parametrize("name", ["eager", "compile", "openvino", "onnxruntime"])
def test_the_engine_that_is_asked_for_is_opened_and_nothing_measured(
    name: str, machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=1, compile=1, openvino=9, onnxruntime=1)
    chosen = made.choose(lenet, name=name, batch=7, lanes=3)
    assert (chosen.engine.name, chosen.note) == (name, "")
    assert (made.opened, made.measured, made.told.notes) == ([name], [], [])
    assert (made.options["batch"], made.options["lanes"]) == (7, 3)
    np.testing.assert_array_equal(made.options["sample"], sample(lenet))
    assert not home.exists()


def test_an_engine_that_is_asked_for_and_cannot_be_had_is_an_error(
    machine: Callable[..., Machine], lenet: Backbone
) -> None:
    with pytest.raises(EngineError, match="openvino cannot run lenet5: no such operator"):
        machine(eager=1).choose(lenet, name="openvino")


def test_few_images_run_by_eager_and_nothing_is_measured(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=0.001, openvino=100)
    chosen = made.choose(lenet, images=299)
    assert (chosen.engine.name, chosen.note) == ("eager", "")
    assert (made.opened, made.measured, made.told.notes) == (["eager"], [], [])
    assert not home.exists()


def test_a_run_that_eager_soon_ends_is_not_worth_more_than_measuring_eager(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=100, openvino=1000)
    seconds = int(autotune.PAYS_AFTER)
    assert made.choose(lenet, images=100 * seconds - 1).engine.name == "eager"
    assert (made.opened, made.measured, made.told.notes) == (["eager"], ["eager"], [])
    assert not home.exists()
    assert made.choose(lenet, images=100 * seconds).engine.name == "openvino"


def test_where_nothing_else_is_installed_eager_runs_unmeasured(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=1)
    made.installed = ("eager", "compile")  # which takes longer to compile for a CPU than it gains
    assert made.choose(lenet).engine.name == "eager"
    assert (made.measured, made.told.notes) == ([], [])
    assert not home.exists()


def test_a_lower_precision_on_the_cpu_runs_by_eager(machine: Callable[..., Machine], home: Path) -> None:
    made = machine(eager=1, openvino=9, onnxruntime=9)
    assert made.choose(load_backbone("lenet5", precision="bfloat16", device="cpu")).engine.name == "eager"
    assert (made.opened, made.measured) == (["eager"], [])


# Measured


def test_a_long_run_measures_every_engine_and_takes_the_fastest(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=100, openvino=140.04, onnxruntime=250.06)
    chosen = made.choose(lenet)
    assert chosen.engine.name == "onnxruntime"
    assert chosen.note == (
        "lenet5 runs with onnxruntime on this machine, 2.5 times as fast as eager "
        "(images/s of the network alone: eager 100, onnxruntime 250, openvino 140); later runs reuse this choice"
    )
    assert made.opened == ["eager", "onnxruntime", "openvino"]
    assert made.measured == in_turns("eager", "onnxruntime", "openvino")
    assert made.told.notes == ["measuring once which of eager, onnxruntime, openvino runs lenet5 fastest here"]
    assert remembered(home) == [
        {
            "engine": "onnxruntime",
            "backbone": "lenet5",
            "images_per_second": {"eager": 100, "openvino": 140.0, "onnxruntime": 250.1},
        }
    ]


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({"eager": 100, "openvino": 105, "onnxruntime": 104}, "eager"),
        ({"eager": 100, "openvino": 105.1, "onnxruntime": 104}, "openvino"),
        ({"eager": 100, "openvino": 125, "onnxruntime": 120}, "onnxruntime"),
        ({"eager": 100, "openvino": 127, "onnxruntime": 120}, "openvino"),
        ({"eager": 100, "openvino": 50, "onnxruntime": 20}, "eager"),
    ],
)
def test_another_engine_must_be_clearly_faster(
    rates: dict[str, float], best: str, machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    chosen = machine(**rates).choose(lenet)
    assert chosen.engine.name == best
    assert ("times as fast" in chosen.note) == (best != "eager")
    assert remembered(home)[0]["engine"] == best


def test_an_engine_is_as_fast_as_in_most_of_its_turns(
    machine: Callable[..., Machine], home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(eager=100, openvino=150, onnxruntime=140)
    disturbed = {"openvino": iter([20.0, 150.0, 150.0]), "onnxruntime": iter([140.0, 900.0, 140.0])}

    def measure(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
        return next(disturbed[engine.name]) if engine.name in disturbed else 100.0

    monkeypatch.setattr(autotune, "images_per_second", measure)
    made.choose(lenet)
    assert remembered(home)[0]["images_per_second"] == {"eager": 100, "openvino": 150, "onnxruntime": 140}


def test_engines_that_fail_are_passed_over(machine: Callable[..., Machine], home: Path, lenet: Backbone) -> None:
    made = machine(eager=100, onnxruntime=200)
    chosen = made.choose(lenet)
    assert chosen.engine.name == "onnxruntime"
    assert (made.opened, made.measured) == (
        ["eager", "onnxruntime", "openvino"],
        in_turns("eager", "onnxruntime"),
    )
    assert "openvino" not in chosen.note
    none = machine(eager=100)
    chosen = none.choose(lenet, lanes=5)
    assert chosen.engine.name == "eager"
    assert chosen.note == (
        "lenet5 runs with eager on this machine (images/s of the network alone: eager 100); later runs reuse this choice"
    )


# Remembered


@pytest.mark.parametrize("best", ["openvino", "onnxruntime", "eager"])
def test_what_was_measured_is_remembered_and_opened_unmeasured(
    best: str, machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(**{"eager": 100, "openvino": 90, "onnxruntime": 90, best: 200})
    made.choose(lenet)
    for images in (1, LONG):  # also for few images
        chosen = made.choose(load_backbone("lenet5", device="cpu"), images=images)
        assert (chosen.engine.name, chosen.note) == (best, "")
        assert (made.opened, made.measured, made.told.notes) == ([best], [], [])


def test_a_remembered_engine_that_fails_gives_way_to_eager(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    machine(eager=100, openvino=300).choose(lenet)
    made = machine(eager=100, onnxruntime=200)
    assert made.choose(lenet).engine.name == "eager"
    assert (made.opened, made.measured) == (["openvino", "eager"], [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{ damaged",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b'"openvino"',
        b'{"KEY": "openvino"}',
        b'{"KEY": {"engine": "warp"}}',
        b'{"KEY": {"engine": ["openvino"]}}',
        b'{"KEY": {"engine": {}}}',
        b'{"KEY": {}}',
        b'{"another": {"engine": "openvino"}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_memory_is_ignored_and_written_anew(
    content: bytes, machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=100, openvino=90, onnxruntime=300)
    home.mkdir()
    key = autotune.memory_key(lenet, 2)
    (home / "engines.json").write_bytes(content.replace(b"KEY", key.encode()))
    assert made.choose(lenet).engine.name == "onnxruntime"
    assert made.measured == in_turns("eager", "onnxruntime", "openvino")
    assert json.loads((home / "engines.json").read_text())[key]["engine"] == "onnxruntime"


def test_what_is_remembered_of_other_networks_stays(
    machine: Callable[..., Machine], home: Path, lenet: Backbone
) -> None:
    made = machine(eager=100, openvino=300)
    made.choose(lenet)
    mobilenet = load_backbone("mobilenet_v1_025", weights="random", crop=64, device="cpu")
    made.choose(mobilenet)
    assert [entry["backbone"] for entry in remembered(home)] == ["lenet5", "mobilenet_v1_025"]
    assert [path.name for path in home.iterdir()] == ["engines.json"]


def test_a_home_that_cannot_be_written_costs_another_measurement(
    machine: Callable[..., Machine], tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(eager=100, openvino=300)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert made.choose(lenet).engine.name == "openvino"
        assert made.measured == in_turns("eager", "openvino")

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FEATX_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    assert made.choose(lenet).engine.name == "openvino"


def test_the_memory_is_of_this_machine_these_versions_and_this_network(
    lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "package_version", lambda _: "")
    keys = {
        "as it is": autotune.memory_key(lenet, 2),
        "lanes": autotune.memory_key(lenet, 3),
        "layers": autotune.memory_key(lenet.with_layers(["features.3"]), 2),
        "crop": autotune.memory_key(load_backbone("mobilenet_v1_025", weights="random", crop=64, device="cpu"), 2),
        "another crop": autotune.memory_key(
            load_backbone("mobilenet_v1_025", weights="random", crop=96, device="cpu"), 2
        ),
        "precision": autotune.memory_key(load_backbone("lenet5", precision="bfloat16", device="cpu"), 2),
    }
    with monkeypatch.context() as patch:
        patch.setattr(autotune, "processor_name", lambda: "Another CPU @ 1 GHz")
        keys["machine"] = autotune.memory_key(lenet, 2)
    for package in ("torch", "openvino", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setattr(autotune, "package_version", lambda name, other=package: "0.0" if name == other else "")
            keys[package] = autotune.memory_key(lenet, 2)
    assert len(set(keys.values())) == len(keys), keys


def test_the_memory_does_not_depend_on_the_weights_nor_on_what_is_kept(lenet: Backbone, tmp_path: Path) -> None:
    save_file(lenet.network.state_dict(), tmp_path / "lenet.safetensors")
    other_mean = dataclasses.replace(lenet.transform, mean=(0.1, 0.2, 0.3))
    same = [
        load_backbone("lenet5", device="cpu"),
        load_backbone("lenet5", weights="random", device="cpu"),
        load_backbone("lenet5", weights=str(tmp_path / "lenet.safetensors"), device="cpu"),
        load_backbone("lenet5", dtype="float16", device="cpu"),
        load_backbone("lenet5", transform=other_mean, device="cpu"),
    ]
    assert {autotune.memory_key(backbone, 2) for backbone in same} == {autotune.memory_key(lenet, 2)}


def test_the_processor_and_versions_have_names() -> None:
    assert autotune.processor_name()
    assert torch.__version__.split("+")[0] == autotune.package_version("torch").split("+")[0]
    assert autotune.package_version("no-such-package") == ""


# The batch of a device


class Fake:
    """An engine whose speed depends on its batch, on a device whose memory holds so many images."""

    def __init__(self, backbone: Backbone, rates: dict[int, float], room: int = 10_000) -> None:
        self.rates, self.room = rates, room
        self.measured: list[int] = []
        self.engine = Engine("eager", backbone, self.run, batch=64, portion=64, lanes=2)

    def run(self, pixels: Tensor) -> Sequence[np.ndarray]:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [np.zeros((len(pixels), 84), np.float32)]

    def measure(self, engine: Engine, pixels: np.ndarray, seconds: float = 1.0) -> float:
        self.measured.append(engine.batch)
        engine(np.resize(pixels, (engine.batch, *pixels.shape[1:])))
        return self.rates.get(engine.batch, max(self.rates.values()))


@pytest.mark.parametrize(
    ("rates", "room", "best", "measured"),
    [
        ({32: 100, 64: 150, 128: 170, 256: 175}, 10_000, 128, [32, 64, 128, 256]),
        ({32: 100, 64: 104}, 10_000, 32, [32, 64]),
        ({32: 100, 64: 90, 128: 900}, 10_000, 32, [32, 64]),
        ({32: 100, 64: 200, 128: 400, 256: 800, 512: 1600, 1024: 3200}, 10_000, 1024, [32, 64, 128, 256, 512, 1024]),
        ({32: 100, 64: 200, 128: 400, 256: 800}, 200, 128, [32, 64, 128, 256]),
        ({32: 100}, 20, 16, [32]),
        ({32: 100}, 0, 1, [32]),
    ],
)
def test_the_largest_batch_that_pays_and_fits_is_taken(
    rates: dict[int, float],
    room: int,
    best: int,
    measured: list[int],
    lenet: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(lenet, rates, room)
    monkeypatch.setattr(autotune, "images_per_second", fake.measure)
    assert largest_useful_batch(fake.engine, sample(lenet)) == best
    assert fake.engine.batch == best
    assert fake.measured == measured


# extract


def test_an_extraction_tells_the_gain_and_asks_for_no_second_measurement(
    photos: Path, tmp_path: Path, home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(autotune, "LEAST_IMAGES", 10)
    monkeypatch.setattr(autotune, "installed", lambda _: ("eager", "onnxruntime"))
    monkeypatch.setattr(
        autotune, "images_per_second", lambda engine, *_: {"eager": 1.0, "onnxruntime": 3.0}[engine.name]
    )
    told = Recorder()
    first = extract(photos, lenet, out=tmp_path / "first" / "f.h5", reporter=told)
    assert first.engine == "onnxruntime"
    assert told.notes == ["measuring once which of eager, onnxruntime runs lenet5 fastest here"]
    (note,) = [note for note in first.notes if "runs with" in note]
    assert note == (
        "lenet5 runs with onnxruntime on this machine, 3.0 times as fast as eager "
        "(images/s of the network alone: eager 1, onnxruntime 3); later runs reuse this choice"
    )
    monkeypatch.setattr(autotune, "images_per_second", lambda *_: pytest.fail("measured again"))
    second = extract(photos, lenet, out=tmp_path / "second" / "f.h5", reporter=told)
    assert (second.engine, len(told.notes), second.notes) == (
        "onnxruntime",
        1,
        tuple(n for n in first.notes if n != note),
    )
    assert second.file.read_bytes() == first.file.read_bytes()

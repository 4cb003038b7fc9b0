"""Fixtures of the tests of extraction."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_networks import NETWORKS, Load
from extractions import MakeImage
from safetensors.torch import save_file
from torch import nn

from featx.backbones.backbone import Backbone, load_backbone
from featx.extraction import engines
from featx.extraction.engines import Engine


@pytest.fixture
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


@pytest.fixture
def few(tmp_path: Path, make_image: MakeImage) -> Path:
    """Two classes of four images each."""
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(4):
            make_image(tmp_path / "few" / label / f"{number}.png", seed=number + tint, tint=tint)
    return tmp_path / "few"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that goes through a network."""
    sizes: list[int] = []
    run = Engine.__call__

    def counted(self: Engine, pixels: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(pixels))
        return run(self, pixels)

    monkeypatch.setattr(Engine, "__call__", counted)
    return sizes


_opened: list[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append("" if isinstance(arguments[0], int) else os.fsdecode(arguments[0]))


sys.addaudithook(_note_open)  # hooks cannot be removed; this one records for the fixture below only


@pytest.fixture
def opened() -> Iterator[Callable[..., list[str]]]:
    """Names of the images, or of files with other endings, that Python opened since the last call."""
    global _opened
    _opened = []

    def images(endings: tuple[str, ...] = (".png", ".jpg")) -> list[str]:
        assert _opened is not None
        found = sorted({Path(name).name for name in _opened if name.endswith(endings)})
        _opened.clear()
        return found

    yield images
    _opened = None


@pytest.fixture
def spoilt(few: Path) -> Path:
    """Bad images before, between and after the good ones."""
    (few / "dark" / "0-empty.jpg").touch()
    (few / "dark" / "1-text.jpg").write_text("these are not the pixels you are looking for")
    data = (few / "light" / "0.png").read_bytes()
    (few / "light" / "9-truncated.png").write_bytes(data[: len(data) // 2])
    return few


# Networks for engines


runs_custom_code = engines.runs_custom_code


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Loads a network of the file above, which is trusted as those of the zoo are."""
    file = tmp_path_factory.mktemp("networks") / "networks.py"
    file.write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "runs_custom_code", lambda _: False)
        yield lambda factory, **options: load_backbone(f"{file}:{factory}", device="cpu", **options)


@pytest.fixture
def strange(own: Load, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The same, as somebody's own."""
    monkeypatch.setattr(engines, "runs_custom_code", runs_custom_code)
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
def threads() -> Iterator[None]:
    """torch's number of threads is afterwards what it was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

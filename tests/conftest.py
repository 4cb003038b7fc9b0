"""What all tests share: small real files, made where they are needed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny networks, and results that do not depend on it
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of many processes would compile featx again

import numpy as np
import pytest
from browser import Chromium, started
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from joint_pair import JointPair

sys.dont_write_bytecode = False  # or each run would compile all tests again
collect_ignore = ["images"]  # files to decode and the programs that made them, without tests

settings.register_profile("repeatable", derandomize=True)  # pytest --hypothesis-profile default draws new cases
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that differ between processes. Tests marked ``cuda`` need a GPU, which torch is asked for."""
    unstable = [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]{6}", item.nodeid)]
    if unstable:  # pytest-xdist would stop, since its processes do not collect the same tests
        raise pytest.UsageError(f"names of tests hold an address in memory; give them ids: {unstable}")
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The built-in digits, memos and downloads of the tests stay out of the user's own folders."""
    os.environ["FEATX_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ["TORCH_HOME"] = str(tmp_path_factory.mktemp("torch"))


@pytest.fixture(autouse=True, scope="session")
def _disk_that_is_not_waited_for() -> Iterator[None]:
    """No test cuts the power, so that data may stay in the memory of the kernel; a descriptor has to be open all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_cross_validation_by_itself() -> Iterator[None]:
    """Each fit to the few images of a test would take 21 fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.workflows.small_data.FEW_HELD_OUT", 0)
        yield


@pytest.fixture(autouse=True)
def _cross_validation_by_itself(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests marked ``few`` are about the cross-validation that such a fit adds."""
    if request.node.get_closest_marker("few"):
        monkeypatch.setattr("featx.workflows.small_data.FEW_HELD_OUT", 200)


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Chromium]:
    """One browser for all tests of a process."""
    with started() as chromium:
        yield chromium


@pytest.fixture
def browse(_chromium: Chromium) -> Iterator[Chromium]:
    """A function that opens a page in a browser; a request for anything else, or an error on its console, fails the test."""
    yield _chromium
    _chromium.close()


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def joint_pair(tmp_path_factory: pytest.TempPathFactory) -> JointPair:
    """A head on two small backbones, their feature files, and the images; nothing of it is changed by a test."""
    from joint_pair import make_joint_pair

    return make_joint_pair(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="session")
def hymenoptera() -> Path:
    """Ants and bees, 245 train and 153 val images."""
    folder = SHARED / "datasets" / "hymenoptera"
    if not folder.is_dir():
        pytest.skip("needs the real images of ../shared/datasets/hymenoptera")
    return folder


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """ImageNet weights of MobileNet v1, width 0.75."""
    file = SHARED / "weights" / "mobilenet_v1_075.safetensors"
    if not file.is_file():
        pytest.skip("needs the real weights of ../shared/weights/mobilenet_v1_075.safetensors")
    return file


def write_image(path: Path, seed: int, *, tint: int = 128, size: tuple[int, int] = (40, 32)) -> Path:
    """A noisy image whose mean colour is its tint, so that classes can be told apart; format by the file's ending."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(tint, 25, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes that are easy to tell apart, 20 images each, no splits."""
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(20):
            write_image(tmp_path / "photos" / label / f"{number:02}.png", seed=number + 100 * tint, tint=tint)
    return tmp_path / "photos"


@pytest.fixture
def split_photos(tmp_path: Path) -> Path:
    """The same two classes in the folders train (16 each) and val (8 each)."""
    for label, tint in (("dark", 60), ("light", 190)):
        for split, count in (("train", 16), ("val", 8)):
            for number in range(count):
                seed = number + 100 * tint + 50 * (split == "val")
                write_image(tmp_path / "split" / split / label / f"{number:02}.png", seed=seed, tint=tint)
    return tmp_path / "split"


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """``write_image``, for tests that lay out folders of their own."""
    return write_image

"""A head on LeNet-5, and the service of it, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_image

import featx
from featx.heads.head import Head
from featx.serving.creation import create_app

pytest.importorskip("fastapi", reason="a service needs FastAPI")
pytest.importorskip("python_multipart", reason="a service needs python-multipart")

from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def photos_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light photographs: 12 of each to train, 4 to judge."""
    folder = tmp_path_factory.mktemp("served") / "photographs"
    for label, tint in (("dark", 60), ("light", 190)):
        for split, count in (("train", 12), ("val", 4)):
            for number in range(count):
                seed = number + 100 * tint + 50 * (split == "val")
                write_image(folder / split / label / f"{number:02}.png", seed=seed, tint=tint)
    return folder


@pytest.fixture(scope="session")
def features(photos_here: Path) -> featx.FeatureSet:
    return featx.extract(photos_here, "lenet5", cache=photos_here.parent / "cache", compute="eager").load()


@pytest.fixture(scope="session")
def head_file(photos_here: Path, features: featx.FeatureSet) -> Path:
    """A head, with the report on the held-out images."""
    head = Head("logreg").fit(features)
    return head.save(photos_here.parent / "dark-or-light.safetensors", report=head.evaluate(features))


@pytest.fixture(scope="session")
def model(head_file: Path) -> Any:
    return featx.load_model(head_file, device="cpu")


@pytest.fixture(scope="session")
def client(head_file: Path) -> Iterator[TestClient]:
    """The service of the head, with limits by default."""
    with TestClient(create_app(head_file, compute="eager", device="cpu"), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def serve(model: Any) -> Callable[..., TestClient]:
    """A function that makes a service of a model, by default of the head, with other options."""
    return lambda served=None, **options: TestClient(
        create_app(served or model, compute="eager", **options), raise_server_exceptions=False
    )

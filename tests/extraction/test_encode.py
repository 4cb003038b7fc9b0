"""Extraction through each engine gives the same features, with any number of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_networks import EXPORTED, assert_close, require

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import EngineError
from featx.extraction.engine_table import ENGINES
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet


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


def test_a_batch_size_of_auto_means_on_the_cpu_the_engines_own(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    automatic = extract(photos, lenet, out=tmp_path / "auto.h5", batch_size="auto", compute="eager")
    usual = extract(photos, lenet, out=tmp_path / "usual.h5", compute="eager")
    assert automatic.file.read_bytes() == usual.file.read_bytes()


def test_an_engine_that_cannot_be_had_fails_the_extraction_and_leaves_no_file(
    photos: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*EXPORTED, "compile"):
        monkeypatch.setitem(ENGINES, name, dataclasses.replace(ENGINES[name], packages=("no_such_package",)))
    with pytest.raises(
        EngineError, match=r"^the engine openvino is not installed or does not run on cpu; expected one of eager$"
    ):
        extract(photos, lenet, cache=tmp_path / "cache", compute="openvino")
    assert not list((tmp_path / "cache").glob("*.h5"))
    assert extract(photos, lenet, cache=tmp_path / "cache").computed == 40

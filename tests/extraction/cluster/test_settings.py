"""What is refused before Ray is asked; these tests need no Ray."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.errors import EngineError, SettingsError
from featx.extraction.cluster.settings import RaySettings
from featx.extraction.pipeline import extract


def test_without_ray_one_line_says_what_to_install(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    result = CliRunner().invoke(main, ["extract", str(photos), "--ray", "auto", "--cache", str(tmp_path / "cache")])
    assert result.exit_code
    assert "a cluster needs Ray: pip install 'featx[ray]', on all of its machines" in result.output
    assert not (tmp_path / "cache").exists()


def test_settings_that_cannot_be_are_refused(photos: Path) -> None:
    for address in ("ray://head:10001", "head", "head:port", ""):
        with pytest.raises(SettingsError, match="expected auto, local, or HOST:PORT"):
            RaySettings(address)
    with pytest.raises(SettingsError, match="ray_actors is 0"):
        RaySettings("auto", actors=0)
    with pytest.raises(SettingsError, match=r"ray_gpus is 1\.5; expected a whole number, or a fraction below 1"):
        RaySettings("auto", gpus=1.5)
    result = CliRunner().invoke(main, ["extract", str(photos), "--ray-actors", "2"])
    assert "--ray-actors has no effect without --ray" in result.output


def test_what_does_not_go_with_a_cluster_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find("json") if name == "ray" else find(name))
    with pytest.raises(EngineError, match="devices are those of this machine, and ray names a cluster"):
        extract(photos, "lenet5", cache=tmp_path / "cache", ray="auto", devices="cpu,cpu")
    with pytest.raises(EngineError, match="batch_size auto measures the GPU of one machine"):
        extract(photos, "lenet5", cache=tmp_path / "cache", ray="auto", batch_size="auto")

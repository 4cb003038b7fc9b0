"""The check for machines with a GPU, on the processor, with tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpu_parts import NETWORKS, PARTS, Setting, child

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the parts find, in this process, one network for all."""
    setting = Setting(str(tmp_path_factory.mktemp("check")), "cpu", tiny=True)
    found: dict[str, Any] = {"versions": gpu_check.versions(), "seconds": 9.0}
    for name in ("machine", "decoding", "resnet50", "heads", "finetuning", "devices"):
        child(name, setting.as_json())
        found[name] = json.loads(Path(setting.folder, f"{name}.json").read_text())
    return found


def errors(value: Any) -> list[str]:
    """All errors in what was found, however deep."""
    if not isinstance(value, dict):
        return []
    own = [value["error"]] if "error" in value else []
    return own + [error for each in value.values() for error in errors(each)]


def test_each_part_finds_its_figures(found: dict[str, Any]) -> None:
    assert errors(found) == []
    assert found["machine"]["images"] == 24
    assert found["decoding"]["all_threads"]["per_second"] > 0
    resnet = found["resnet50"]
    assert set(resnet["device"]) == {"eager float32", "eager bfloat16"}
    assert resnet["extraction"]["eager float32"]["images"] == 24
    assert resnet["extraction"]["eager float32"]["limited_by"] in ("decoding", "device")
    assert set(found["heads"]["kinds"]) == {"logreg", "svm", "mlp"}
    assert all(kind["difference"] == 0 for kind in found["heads"]["kinds"].values())
    assert found["finetuning"]["images_per_second"] > 0
    assert "left_out" in found["devices"] or found["devices"]["same_bytes"]
    assert all(part["rss_gb"] > 0 for name, part in found.items() if name in PARTS)


def test_the_tests_are_counted(tmp_path: Path) -> None:
    part = gpu_check.run_part("tests", Setting(str(tmp_path), "cpu", tiny=True), 600)
    assert "error" not in part
    assert part["passed"] + part["skipped"] >= 6
    assert part["failed"] == 0


def test_all_parts_together_take_less_than_eight_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 60 * gpu_check.MINUTES < 480


def test_a_part_that_fails_or_takes_too_long_is_an_entry(tmp_path: Path) -> None:
    slow = gpu_check.run_part("machine", Setting(str(tmp_path), "cpu", tiny=True), 0.05)
    assert slow["error"] == "it took longer than 0 s"
    wrong = gpu_check.run_part("machine", Setting(str(tmp_path), "abacus", tiny=True), 100)
    assert wrong["error"].startswith("exit status 1: featx.errors.BackboneError: --device abacus")
    over = gpu_check.measure(Setting(str(tmp_path), "cpu", tiny=True), ["heads"], minutes=0.001)
    assert over["heads"] == {"left_out": "0.001 minutes were over"}


def test_the_figures_become_tables_between_the_marks(found: dict[str, Any], tmp_path: Path) -> None:
    text = gpu_check.tables({**found, "tests": {"error": "exit status 3"}})
    (row,) = [line for line in text.splitlines() if line.startswith("| resnet50 ")]
    assert f"{found['resnet50']['device']['eager float32']['per_second']:,.0f}" in row
    assert sum(line.startswith("| ") for line in text.splitlines()) == 1 + len(NETWORKS)
    assert "Not finished: tests (exit status 3)." in text
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    gpu_check.write(found, page)
    once = page.read_text()
    gpu_check.write(found, page)
    assert gpu_check.tables(found) in once == page.read_text()
    gpu_check.write(found, tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == found
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has 0 places for the figures"):
        gpu_check.write(found, page)

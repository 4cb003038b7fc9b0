"""What scaling out costs: the model, and the benchmark with tiny sizes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import bench_scale
import pytest
from bench_scale import Cluster, Rates, cost

RATES = Rates(listing=1e-5, decoding=500.0, writing=100_000.0, merging_image=2e-6, merging_byte=1e-9)
CLUSTER = Cluster(machines=2, gpus=4, per_gpu=1000.0, cores=32, storage=1e12, network=1e12)


def test_the_slowest_stage_limits_and_phases_follow_one_another() -> None:
    found = cost(8e6, RATES, CLUSTER, image_bytes=1e5, row_bytes=4000, file_rows=1e6)
    assert found["images_per_second"] == {
        "reading": 10_000_000,
        "decoding": 2 * 32 * 500,
        "network": 8 * 1000,
        "writing": 800_000,
        "merging": round(2 / 6e-6),
    }
    assert found["limit"] == "network"
    assert found["hours"]["extraction"] == round(1000 / 3600, 3)
    assert found["hours"]["listing"] == round(8e6 * 1e-5 / 8 / 3600, 3)
    assert found["hours"]["merging"] == round(6e-6 * 1e6 * 4 / 3600, 3)  # eight files, of which two are merged at once
    assert found["gpu_hours"] == round(8 * (1000 + 10 + 24) / 3600, 1)
    assert found["slowest_phase"] == "extraction"
    assert found["cores_for_the_network"] == 8
    assert found["bytes"] == {"read": 8e11, "features": 3.2e10, "written": 6.4e10}
    assert (found["files"], found["shards"]) == (8, 8)


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("reading", {"storage": 1e8}),
        ("reading", {"network": 1e8}),
        ("decoding", {"cores": 4}),
        ("network", {"per_gpu": 10.0}),
    ],
)
def test_any_stage_may_be_the_limit(stage: str, change: dict[str, float]) -> None:
    found = cost(1e6, RATES, dataclasses.replace(CLUSTER, **change))  # type: ignore[arg-type]
    assert found["limit"] == stage
    assert found["hours"]["extraction"] == round(1e6 / found["images_per_second"][stage] / 3600, 3)


def test_shards_of_everything_are_listed_by_every_worker() -> None:
    own, one = (cost(1e9, RATES, CLUSTER, own_sets=own_sets) for own_sets in (True, False))
    assert one["hours"]["listing"] == round(1e9 * 1e-5 / 3600, 3)
    assert one["hours"]["listing"] > 7 * own["hours"]["listing"]
    assert (own["shards"], one["shards"]) == (100, 800)


def test_the_rates_of_merges_are_told_apart_by_images_and_bytes() -> None:
    cases = [
        {"images": images, "bytes_per_row": width, "seconds": images * (3e-6 + 2e-9 * width)}
        for images, width in ((1000, 64), (1000, 4096), (100_000, 2048))
    ]
    rates = bench_scale.rates_of(
        {
            "merging": {"cases": cases},
            "listing": {"seconds_per_image": {"folder": 2e-5, "tar": 1e-5}},
            "decoding": {"per_second_and_core": 500.0},
            "writing": {"per_second": 1e5},
        }
    )
    assert rates.merging_image == pytest.approx(3e-6)
    assert rates.merging_byte == pytest.approx(2e-9)
    assert rates.listing == 1e-5


def test_everything_is_measured_in_a_trial(tmp_path: Path) -> None:
    setting = bench_scale.Setting(tmp_path, tiny=True, rounds=1)
    found = {name: measure(setting) for name, measure in bench_scale.MEASURED.items() if name != "ray"}
    assert found["overhead"]["images"] == {"2": 64}
    assert all(case["images_per_second"] > 0 for case in found["merging"]["cases"])
    model = bench_scale.model(found)
    assert model["own_sets"]["files"] == 100
    assert model["one_set"]["hours"]["all"] > 0


def test_the_start_of_a_cluster_is_told_apart_from_its_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        task = json.loads(command[-1])
        images = sum(1 for _ in Path(task["images"]).rglob("*.ppm"))
        seconds = 10 + images / 16 if task["ray"] else 1 + images / 32
        return subprocess.CompletedProcess(command, 0, f"a line\n[{seconds}, {images}]\n", "")

    bench_scale.tiny_images(tmp_path / "images", 4)
    bench_scale.ray_child(str(tmp_path / "images"), False, True)
    assert json.loads(capsys.readouterr().out)[1] == 4
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    found = bench_scale.ray(bench_scale.Setting(tmp_path, tiny=True, rounds=1))
    assert found["images"] == [32, 64]
    assert found["images_per_second"] == {"plain": 32, "ray": 16}
    assert found["start_seconds"] == {"plain": 1, "ray": 10}
    assert found["overhead_steady"] == 1

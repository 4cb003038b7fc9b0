"""``featx backbones``: names, stages and blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import featx


def test_the_stages_that_are_listed_are_those_that_are_extracted(split_photos: Path, in_tmp: Path) -> None:
    lines = featx("backbones", "lenet5", "--layers").stdout.splitlines()
    assert lines[0].split() == ["layer", "output", "width", "blocks"]
    assert lines[1].split() == ["features.0", "6", "x", "28", "x", "28", "6", "1", "of", "4"]
    assert "featx extract DATA --backbone lenet5 --stages" in lines[-2]
    listed = json.loads(featx("backbones", "lenet5", "--layers", "--json").stdout)
    assert listed["blocks"] == ["features.0", "features.3", "features.6", "hidden.1"]
    options = ("--backbone", "lenet5", "--stages", "--pooling", "max", "--layer", "features.3:avg", "--json")
    layers = json.loads(featx("extract", split_photos, *options).stdout)["layers"]
    assert layers == {"penultimate": 84, "features.3": 16} | {
        f"{stage['layer']}:max": stage["width"] for stage in listed["layers"]
    }
    fitted = json.loads(featx("fit-head", "--layer", "features.3:max", "--json").stdout)
    assert (fitted["layer"], fitted["n_train"]) == ("features.3:max", 32)
    assert Path(fitted["head"]).name == "split--lenet5--features.3_max--logreg.safetensors"
    output = json.loads(featx("predict", fitted["head"], split_photos / "val" / "dark", "--json").stdout)
    assert len(output["predictions"]) == 8
    assert featx("backbones", "--layers", status=1).stderr == (
        "Error: --layers needs the name of one backbone, as in featx backbones resnet50 --layers\n"
    )


def test_backbones_lists_what_fits_the_pattern(in_tmp: Path) -> None:
    lines = featx("backbones", "lenet").stdout.splitlines()
    assert lines[0].split() == [
        "name", "family", "embedding", "parameters", "input", "ImageNet", "top-1", "weights", "here",
    ]  # fmt: skip
    (row,) = [line.split() for line in lines if line.startswith("lenet5")]
    assert row == ["lenet5", "LeNet5", "84", "0.06", "M", "32", "-", "yes"]
    (entry,) = json.loads(featx("backbones", "squeezenet1_1", "--json").stdout)["backbones"]
    assert (entry["embedding"], entry["input_size"], entry["local"]) == (512, 224, False)
    assert entry["top1"] == pytest.approx(58.178)


def test_a_backbone_that_cannot_be_used_has_its_reason_in_its_line(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("FEATX_HOME", str(in_tmp / "home"))
    featx("backbones", "timm/deit_tiny*patch16_224")
    (memo,) = (in_tmp / "home").glob("backbones-*timm*.json")
    measured = json.loads(memo.read_text())
    measured["timm/deit_tiny_distilled_patch16_224"] = {"why": "this timm cannot build it"}
    memo.write_text(json.dumps(measured))
    done = featx("backbones", "timm/deit_tiny*patch16_224")
    names = ["name", "timm/deit_tiny_distilled_patch16_224", "timm/deit_tiny_patch16_224"]
    assert [line.split()[0] for line in done.stdout.splitlines()] == names
    assert "timm/deit_tiny_distilled_patch16_224  cannot be used: this timm cannot build it\n" in done.stdout
    assert done.stderr == "Note: 1 of 2 backbones cannot be used; its line has the reason\n"
    listed = json.loads(featx("backbones", "timm/deit_tiny*patch16_224", "--json").stdout)
    assert [entry["name"] for entry in listed["backbones"]] == ["timm/deit_tiny_patch16_224"]
    assert listed["skipped"] == [{"name": names[1], "why": "this timm cannot build it"}]
    assert listed["backbones"][0]["top1"] == pytest.approx(72.172)
    alone = featx("backbones", "timm/deit_tiny_distilled_patch16_224", status=1)
    assert alone.stderr == "Error: this timm cannot build it\n"


def test_an_unknown_backbone_names_those_that_are_spelled_alike(in_tmp: Path) -> None:
    assert featx("backbones", "ResNett18", status=1).stderr.startswith(
        "Error: no backbone's name contains 'ResNett18'; did you mean resnet18"
    )

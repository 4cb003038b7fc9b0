"""Heads that two processes fit together, under torchrun, on the CPU by gloo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fits_together
import numpy as np
import pytest
from digit_features import digit_features, regression_features
from feature_files import flip
from fits_together import EPOCHS
from scipy.special import logsumexp

import featx
from featx.backbones.backbone import load_backbone
from featx.errors import SettingsError
from featx.features.feature_file import FeatureFile, ImageTable
from featx.features.set_update import SetUpdate
from featx.features.writer import FeatureFileWriter
from featx.heads.estimators import mlp
from featx.workflows.fit_together import require_together

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
    return subprocess.run([*TORCHRUN, *map(str, words)], capture_output=True, text=True, timeout=300, env=env)


def objective(head: featx.Head, features: featx.FeatureSet, C: float) -> float:
    """The objective of ridge or logreg that a head reaches on the rows that it was fitted to."""
    train = features.split("train")
    scores = ((train.features - head.mean_) / head.scale_) @ head.predictor_.weight.T + head.predictor_.bias
    y = np.searchsorted(head.classes_, np.array(train.classes, dtype=object)[train.labels].astype(str))
    penalty = float(np.sum(head.predictor_.weight**2))
    if head.kind == "ridge":
        return float(np.sum((np.where(np.arange(scores.shape[1]) == y[:, None], 1, -1) - scores) ** 2)) + penalty / (
            2 * C
        )
    return C * float(np.sum(logsumexp(scores, axis=1) - scores[np.arange(len(y)), y])) + penalty / 2


def write_features(features: featx.FeatureSet, path: Path, rows: np.ndarray) -> FeatureFile:
    """Some of the rows as a feature file."""
    path.parent.mkdir(exist_ok=True)
    images = ImageTable(
        paths=np.array([b"%05d.png" % row for row in rows]),
        labels=features.labels[rows],
        splits=features.splits[rows].astype(bytes),
        sizes=rows,
        mtimes=rows,
    )
    backbone = load_backbone("lenet5", device="cpu")
    writer = FeatureFileWriter(
        path, images=images, classes=features.classes, layers={"penultimate": (features.width, "a" * 64)}, dtype="float32",
        identity="c" * 64, backbone={"name": "lenet5", "weights": "default", "parts": backbone.describe()},
        dataset={"name": "digits", "root": "/digits", "splits": "given"},
    )  # fmt: skip
    writer.publish()
    writer.write(np.arange(len(rows)), features.keys[rows], {"penultimate": features.features[rows]})
    return writer.finish()


def make_files(folder: Path) -> None:
    """The digits as a feature file, as a set, and as a set with a damaged row in the part of the second process."""
    features = digit_features()
    write_features(features, folder / "one.h5", np.arange(len(features)))
    parts = np.split(np.arange(len(features)), range(700, len(features), 700))
    files = [write_features(features, folder / "several.set" / f"{n:04d}.h5", rows) for n, rows in enumerate(parts, 1)]
    SetUpdate(folder / "several.set", 700).finish(files)
    shutil.copytree(folder / "several.set", folder / "damaged.set")
    file = FeatureFile(folder / "damaged.set" / "0003.h5")
    flip(file.path, file.layer("penultimate").offset + 9)


def test_two_processes_fit_the_head_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", EPOCHS)
    make_files(tmp_path)
    found = run(fits_together.__file__, tmp_path)
    assert found.returncode == 0, found.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["ridge"] == second["ridge"]  # all processes return the result
    assert first["different"] == second["different"]
    assert "rank 1 of 2 processes: the feature set holds other features than rank 0 reads (digest" in first["different"]
    features = digit_features()
    folds = featx.fit_head(features, "ridge", C=0.3, cv=2, out=tmp_path / "alone.safetensors").cross_validated
    assert first["folds"] == pytest.approx(folds.mean("accuracy"), abs=1e-3)
    for kind in ("ridge", "logreg"):
        alone, together = featx.Head(kind, C=0.3).fit(features), featx.Head.load(tmp_path / f"{kind}.safetensors")
        assert objective(together, features, 0.3) == pytest.approx(objective(alone, features, 0.3), rel=1e-6)
        np.testing.assert_allclose(together.predictor_.weight, alone.predictor_.weight, atol=1e-4)
    ridge = featx.Head("ridge", C=0.3).fit(regression_features())
    numbers = featx.Head.load(tmp_path / "numbers.safetensors")
    np.testing.assert_allclose(numbers.predictor_.weight, ridge.predictor_.weight, rtol=1e-6, atol=1e-9)
    trained, linear = featx.Head("linear").fit(features), featx.Head.load(tmp_path / "linear.safetensors")
    np.testing.assert_allclose(linear.predictor_.weight, trained.predictor_.weight, atol=1e-4)
    np.testing.assert_allclose(linear.predictor_.bias, trained.predictor_.bias, atol=1e-4)
    assert "rank 1 of 2 processes" in first["damaged"]
    assert "0003.h5: 1 of 397 rows of layer penultimate does not match" in first["damaged"]
    for name in ("one.h5", "several.set"):
        of_file = featx.FeatureSet.load(tmp_path / name)
        for kind in ("ridge", "logreg"):
            alone = featx.Head(kind, C=0.3).fit(of_file)
            together = featx.Head.load(tmp_path / f"{name}-{kind}.safetensors")
            assert objective(together, of_file, 0.3) == pytest.approx(objective(alone, of_file, 0.3), rel=1e-6)
        read = [each[f"checked {name}"] for each in (first, second)]
        assert sum(len(rows) for each in read for rows in each.values()) == 2 * 1797  # of two heads; no row twice
        parts = [sum(map(bool, each.values())) for each in read]
        assert sum(parts) == (2 if name == "one.h5" else 4)  # files; each process reads a part of the second one


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("svm", {}, "torchrun is for --model logreg, ridge and linear, and the model is svm; use one process"),
        ("auto", {}, r"the model is a comparison of all kinds \(auto\)"),
        (featx.Head("knn"), {}, "the model is knn"),
        (
            None,
            {"anchor": "zeroshot", "layer": ("best",)},
            "--anchor and --layer best cannot be combined with torchrun",
        ),
        (
            "ridge",
            {"device": "cuda"},
            "--device cannot be combined with torchrun, whose processes fit heads on the CPU",
        ),
    ],
)
def test_what_several_processes_cannot_fit_is_said(model: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        require_together(model, options)


def test_the_command_prints_and_writes_in_one_process(split_photos: Path, in_tmp: Path) -> None:
    featx.extract(split_photos, "lenet5")
    found = run("-m", "featx", "fit-head", "--model", "ridge", "--predictions", "each.csv", "--json")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)  # one object: one process prints
    alone = featx.fit_head(model="ridge", predictions="alone.csv", out="alone.safetensors")
    assert facts["accuracy"] == alone.report.accuracy
    assert facts["C"] == alone.head.C_
    np.testing.assert_allclose(
        featx.Head.load(facts["head"]).predictor_.weight, alone.head.predictor_.weight, atol=1e-6
    )
    assert Path("each.csv").read_text().count("\n") == Path("alone.csv").read_text().count("\n")


def test_a_process_that_torchrun_did_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(SettingsError, match=r"MASTER_ADDR and MASTER_PORT not set.*start them with torchrun"):
        featx.fit_head(digit_features(), "ridge")

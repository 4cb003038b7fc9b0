"""What each process of test_fit_together.py runs under torchrun: fits of all kinds, of files, and some that go wrong."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from digit_features import digit_features, regression_features

import featx
from featx.errors import FeatxError
from featx.features.feature_file import FeatureFile
from featx.heads.estimators import mlp
from featx.system import started

EPOCHS = 6
"""Passes of the linear head over the rows, here and in the test."""


def main() -> None:
    """Fit, and write what this process was told."""
    folder, rank = Path(sys.argv[1]), started()[0]
    mlp.EPOCHS = EPOCHS
    found = {}
    for kind in ("ridge", "logreg", "linear"):
        fit = featx.fit_head(
            digit_features(), kind, C=None if kind == "linear" else 0.3, out=folder / f"{kind}.safetensors"
        )
        found[kind] = fit.report.accuracy if fit.report else None
    folds = featx.fit_head(digit_features(), "ridge", C=0.3, cv=2, out=folder / "folds.safetensors").cross_validated
    found["folds"] = folds.mean("accuracy") if folds else None
    featx.fit_head(regression_features(), "ridge", C=0.3, out=folder / "numbers.safetensors")
    found["different"] = _error(digit_features(seed=rank))
    for name in ("one.h5", "several.set"):
        if (folder / name).exists():
            with _checked() as found[f"checked {name}"]:
                for kind in ("ridge", "logreg"):
                    featx.fit_head(folder / name, kind, C=0.3, out=folder / f"{name}-{kind}.safetensors")
    if (folder / "damaged.set").exists():
        found["damaged"] = _error(folder / "damaged.set")
    (folder / f"{rank}.json").write_text(json.dumps(found))


@contextlib.contextmanager
def _checked() -> Iterator[dict[str, list[int]]]:
    """The rows of each file whose checksums this process compares."""
    rows: dict[str, list[int]] = {}
    match = FeatureFile.checksums_match

    def record(file: FeatureFile, layer: str, some: np.ndarray) -> np.ndarray:
        rows.setdefault(file.path.name, []).extend(np.asarray(some).tolist())
        return match(file, layer, some)

    FeatureFile.checksums_match = record  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        FeatureFile.checksums_match = match  # type: ignore[method-assign]


def _error(features: featx.FeatureSet | Path) -> str:
    try:
        featx.fit_head(features, "ridge", out="never.safetensors")
    except FeatxError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    main()

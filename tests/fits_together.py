"""What each process of test_fit_together.py runs under torchrun: fits of all kinds, and two that go wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from digit_features import digit_features, regression_features

import featx
from featx.errors import FeatxError
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
    (folder / f"{rank}.json").write_text(json.dumps(found))


def _error(features: featx.FeatureSet) -> str:
    try:
        featx.fit_head(features, "ridge", out="never.safetensors")
    except FeatxError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    main()

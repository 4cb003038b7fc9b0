"""``featx evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import featx


def test_evaluate_prints_the_report(fitted: Path, split_photos: Path) -> None:
    facts = json.loads(featx("evaluate", fitted, split_photos, "--json").stdout)
    wanted = {"accuracy", "interval", "balanced_accuracy", "macro_f1", "log_loss", "n", "confusion"}
    assert wanted <= facts.keys()
    assert (facts["n"], facts["confusion"]) == (16, [[8, 0], [0, 8]])
    assert featx("evaluate", fitted, split_photos).stdout.startswith("accuracy           1.0000")

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from made_predictions import certain

from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report


def one_of_each() -> list[Report]:
    """Reports of one image, the least there can be."""
    return [
        ClassificationReport.from_predictions(
            np.array([1]), certain([1], 3), ["a", "b", "c"], split="test", reject_below=1.0
        ),
        MultiLabelReport.from_predictions(
            np.array([[0, 1]]), np.array([[0.0, 1.0]]), ["a", "b"], thresholds=np.full(2, 0.5), split="test"
        ),
        RegressionReport.from_predictions(np.array([2.0]), np.array([3.0]), split="test"),
    ]


@pytest.mark.parametrize("report", one_of_each(), ids=lambda report: type(report).__name__)
def test_a_report_of_one_image_is_json_and_text(report: Report) -> None:
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (facts["n"], report.n, facts["split"]) == (1, 1, "test")
    name, value = report.headline
    heading, line, *_ = str(report).splitlines()
    assert heading == "Evaluated on 1 image of split test"
    assert re.match(rf"{name} +{value:.4g}", line)
    assert value == next(iter(report.metrics.values()))


@pytest.mark.parametrize("report", one_of_each(), ids=lambda report: type(report).__name__)
def test_notes_are_added_to_those_that_are_there(report: Report) -> None:
    more = report.with_notes(["one"]).with_notes(["two", "three"])
    assert more.notes == (*report.notes, "one", "two", "three")
    assert more.as_dict() == {**report.as_dict(), "notes": list(more.notes)}


def test_the_reports_are_imported_without_scipy_and_the_package_without_numpy() -> None:
    code = (
        "import sys, featx.metrics; print('numpy' in sys.modules);"
        "from featx.metrics import *; print('scipy' in sys.modules or 'sklearn' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "False\nFalse\n"

"""What a head computes for the rows of a feature file, and what is said of labels that are not its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from joint_features import part, written

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.on_features import notes_on_labels
from featx.inference import predict
from featx.reporter import Reporter
from featx.streaming.writing import write_predictions


class _Notes(Reporter):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture
def head() -> Head:
    return Head("ridge", C=1.0).fit(part())


def test_labels_of_another_data_set_are_noted_where_its_images_are_predicted(tmp_path: Path) -> None:
    head = Head("ridge", C=1.0).fit(FeatureSet.load(written(tmp_path / "cache", part())))
    other = written(tmp_path / "other", part(classes=("dog", "elk", "cow")), name="other.h5")
    expected = (
        "60 of 90 labelled images of other.h5 have labels that this head was not fitted to (dog, elk); it predicts its own "
        "classes alone (ant, bee, cow)"
    )
    heard = _Notes()
    assert len(predict(head, other, reporter=heard)) == 90
    assert heard.sentences == [expected]
    assert write_predictions(head, other, tmp_path / "x.csv").notes == (expected,)


def test_nothing_is_said_of_known_labels_or_of_none(head: Head) -> None:
    assert notes_on_labels(head, part()) == []
    assert notes_on_labels(head, part(classes=("dog", "elk", "cow"), labels=np.full(90, -1))) == []
    assert notes_on_labels(head, part(classes=("ant", "bee", "cow", "dog"))) == []


def test_labels_that_are_no_numbers_are_noted_for_a_regression() -> None:
    head = Head("ridge", C=1.0, task="regression").fit(part(classes=("1", "2", "3")))
    assert notes_on_labels(head, part(classes=("1", "2.5", "3"))) == []
    (note,) = notes_on_labels(head, part(classes=("1", "2", "high")))
    assert note.startswith("30 of 90 labelled images of one have labels that are not numbers (high)")

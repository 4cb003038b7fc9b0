"""Learning curves and their extrapolation."""

from __future__ import annotations

import numpy as np
import pytest
from made import Recorder

from featx.advice.learning_curve import FOLDS, MAX_SIZES, REPEATS, PowerLaw, _stratified_order, measure_learning_curve
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head


def features(count: int, *, classes: int = 3, apart: float = 1.0, copies: int = 1, seed: int = 0) -> FeatureSet:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count).repeat(copies)
    centres = rng.normal(size=(classes, 8)) * apart
    X = centres[labels] + rng.normal(size=(count, 8)).repeat(copies, axis=0)
    keys = rng.integers(256, size=(count, 16), dtype=np.uint8).repeat(copies, axis=0)
    return FeatureSet(
        features=X.astype(np.float32), labels=labels, splits=np.full(len(labels), "train", dtype=object),
        classes=tuple("abcdefgh"[:classes]), paths=np.array([f"{i:04}" for i in range(len(labels))], dtype=object), keys=keys,
    )  # fmt: skip


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(0.05, 1.0, 0.5), (0.0, 2.0, 0.8), (0.2, 0.0, 1.0)])
def test_the_power_law_is_found_again(floor: float, scale: float, exponent: float) -> None:
    sizes = np.geomspace(20, 1000, 6)
    errors = floor + scale * sizes**-exponent
    law = PowerLaw.fit(sizes, errors, np.full(6, 0.002))
    np.testing.assert_allclose(law.errors_at(sizes)[0], errors, atol=0.002)
    gain, low, high = law.gain(1000)
    expected = scale * (1000**-exponent - 2000**-exponent)
    assert gain == pytest.approx(expected, abs=0.004)
    assert low - 1e-9 <= expected <= high + 1e-3
    assert min(law.floor.min(), law.scale.min()) >= 0, "an error is never below 0, and more images never hurt"


def test_the_interval_covers_the_truth_as_often_as_it_should() -> None:
    sizes, rng, held = np.geomspace(20, 640, 6), np.random.default_rng(3), 0
    for seed in range(60):
        measured = 0.05 + 1.5 * sizes**-0.6 + rng.normal(0, 0.01, 6)
        law = PowerLaw.fit(sizes, measured, np.full(6, 0.01), seed=seed)
        _, low, high = law.errors_at(np.array([1280.0]))
        held += bool(low[0] <= 0.05 + 1.5 * 1280**-0.6 <= high[0])
    assert held >= 51, "95 % of 60 is 57"


def test_a_curve_that_is_no_power_law_from_the_start_is_fitted_at_its_end_and_less_surely() -> None:
    sizes = np.geomspace(50, 1600, 6)
    errors = np.array([0.46, 0.35, 0.25, 0.114, 0.049, 0.018])
    law = PowerLaw.fit(sizes, errors, np.full(6, 0.005))
    assert law.smallest_size > sizes[0]
    assert law.errors_at(sizes[-1:])[0][0] == pytest.approx(0.018, abs=0.01)
    assert law.gain(2000)[0] < 0.018, "no more than there is left"
    wild = PowerLaw.fit(sizes, np.array([0.4, 0.2, 0.35, 0.1, 0.3, 0.05]), np.full(6, 0.005))
    _, low, high = wild.errors_at(sizes[-1:])
    assert high[0] - low[0] > 0.1, "a fit as poor as this says little"


def test_a_curve_rises_to_the_cross_validated_accuracy() -> None:
    own = features(400, apart=0.7)
    head = Head("logreg").fit(own, cross_validate=True)
    assert head.held_out_ is not None
    recorder = Recorder()
    curve = measure_learning_curve(own, head, own.rows("train"), reporter=recorder)
    assert curve is not None
    assert len(curve.sizes) == MAX_SIZES
    assert curve.sizes[-1] == 320, "four of five folds"
    assert curve.accuracy[-1] > curve.accuracy[0] + 0.1
    assert curve.accuracy[-1] == pytest.approx(head.held_out_.headline[1], abs=3 * curve.standard_error[-1])
    assert (curve.fits, curve.images) == (FOLDS * REPEATS, 400)
    assert recorder.calls[-1] == (MAX_SIZES * curve.fits, MAX_SIZES * curve.fits)
    again = measure_learning_curve(own, head, own.rows("train"))
    assert again is not None
    assert again.as_dict() == curve.as_dict(), "one seed, one curve"
    gain, low, high = curve.doubling_gain
    assert 0 <= low <= gain <= high
    drawn = curve.band(7)
    assert drawn[-1, 0] == pytest.approx(800)
    assert (drawn[:, 2] <= drawn[:, 3]).all()


def test_copies_of_an_image_do_not_flatter_the_curve() -> None:
    own = features(120, apart=0.0, copies=3)
    head = Head("logreg", C=1000.0).fit(own, cross_validate=True)
    curve = measure_learning_curve(own, head, own.rows("train"))
    assert curve is not None
    assert curve.accuracy[-1] < 0.5, "copies in training would make it nearly 1"


def test_too_few_images_give_no_curve() -> None:
    own = features(8, classes=4)
    head = Head("logreg", C=1.0).fit(own)
    assert measure_learning_curve(own, head, own.rows("train")) is None


def test_every_beginning_has_the_classes_in_their_shares() -> None:
    labels = np.repeat([0, 1, 2], [300, 60, 40])
    order = _stratified_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(400))
    for size in (20, 50, 133, 400):
        np.testing.assert_allclose(np.bincount(labels[order[:size]], minlength=3) / size, [0.75, 0.15, 0.1], atol=0.1)

"""Exact copies and near-duplicates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from inspections import unlabelled

from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import Duplicates, find_duplicates
from featx.inspection.neighbours import nearest_neighbours
from featx.inspection.whitening import whiten


def duplicates_of(features: FeatureSet, threshold: float | None = None) -> Duplicates:
    return find_duplicates(features, nearest_neighbours(features), threshold=threshold)


def spread(count: int = 60, width: int = 20) -> np.ndarray:
    """Images that are far from one another."""
    return np.random.default_rng(0).normal(size=(count, width))


def test_slightly_changed_copies_are_near() -> None:
    Z = spread()
    Z[[50, 51, 52]] = Z[[3, 3, 7]] + np.random.default_rng(1).normal(size=(3, 20)) * [[0.02], [0.03], [0.1]]
    found = duplicates_of(unlabelled(Z))
    assert found.pairs.tolist() == [[3, 50], [3, 51], [50, 51], [7, 52]]
    assert (np.diff(found.distances) >= 0).all()
    assert found.distances[-1] < found.threshold
    assert found.closest[[3, 50, 7]] == pytest.approx(found.distances[[0, 0, 3]])
    assert (np.delete(found.closest, [3, 50, 51, 7, 52]) >= found.threshold).all()
    assert not found.exact.any()
    assert [group.tolist() for group in found.groups] == [[3, 50, 51], [7, 52]]
    assert found.group_of[[3, 50, 51, 7, 52, 0]].tolist() == [0, 0, 0, 1, 1, -1]


def test_a_threshold_finds_the_pairs_of_whitened_features_below_it() -> None:
    Z = spread(width=8)
    whitened = whiten(Z, np.arange(len(Z)))
    distances = 1 - whitened @ whitened.T
    for threshold in (0.3, 0.7, 2.1):
        found = duplicates_of(unlabelled(Z), threshold=threshold)
        expected = np.triu(distances < threshold, 1)
        assert set(map(tuple, found.pairs.tolist())) == set(zip(*expected.nonzero(), strict=True))
        assert found.distances == pytest.approx(distances[tuple(found.pairs.T)], abs=1e-6)
        assert found.threshold == threshold


def test_the_scale_is_that_of_images_that_are_no_copies() -> None:
    Z, rng = spread(), np.random.default_rng(1)
    once = duplicates_of(unlabelled(Z)).threshold
    twice = duplicates_of(unlabelled(np.vstack([Z, Z + rng.normal(size=Z.shape) * 0.05])))
    assert twice.threshold == pytest.approx(once, rel=0.1)
    assert [group.tolist() for group in twice.groups] == [[row, row + 60] for row in range(60)]


def test_groups_of_a_chain_hold_only_images_that_are_close_to_each_other() -> None:
    Z = np.vstack([spread(), spread()[0] + np.linspace(0.5, 6, 12)[:, None] * np.eye(20)[4]])
    found = duplicates_of(unlabelled(Z))
    close = set(map(tuple, found.pairs.tolist()))
    in_chain = [group for group in found.groups if group[-1] >= 60]
    assert len(in_chain) > 1
    assert max(map(len, in_chain)) > 2
    assert all(pair in close for group in found.groups for pair in itertools.combinations(group.tolist(), 2))


def test_too_many_pairs_lower_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unlabelled(spread())
    every = duplicates_of(features, threshold=1.5)
    monkeypatch.setattr("featx.inspection.duplicates.MOST_PAIRS", 100)
    found = duplicates_of(features, threshold=1.5)
    assert found.pairs.tolist() == every.pairs[:100].tolist()
    assert found.threshold == every.distances[100]
    assert found.notes == (
        f"more than 100 pairs of images are closer than 1.5; near-duplicates are those closer than {found.threshold:.3g}",
    )


def test_very_many_copies_are_one_group_with_some_of_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unlabelled(np.vstack([spread(), np.tile(spread()[:1], (40, 1))]), contents=[*range(1, 61), *[1] * 40])
    monkeypatch.setattr("featx.inspection.duplicates.MOST_PAIRS", 100)
    found = duplicates_of(features)
    assert [group.tolist() for group in found.groups] == [[0, *range(60, 100)]]
    assert set(found.pairs.ravel()) == {0, *range(60, 100)}
    left_out = 41 * 40 // 2 - len(found.pairs)
    assert left_out > 500
    assert f"copies have {left_out:,} more pairs than can be listed" in found.notes[0]


def test_images_of_unknown_content_are_no_exact_copies() -> None:
    Z = np.vstack([spread(), spread()[:2]])
    found = duplicates_of(unlabelled(Z))
    assert found.pairs.tolist() == [[0, 60], [1, 61]]
    assert found.distances.tolist() == [0, 0]
    assert not found.exact.any()
    assert duplicates_of(unlabelled(Z, contents=[*range(1, 61), 1, 99])).exact.tolist() == [True, False]


def test_many_exact_copies_leave_the_threshold_as_it_is() -> None:
    Z, numbers = spread(), np.arange(1, 61)
    once = duplicates_of(unlabelled(Z, contents=numbers))
    thrice = duplicates_of(unlabelled(np.tile(Z, (3, 1)), contents=np.tile(numbers, 3)))
    assert thrice.threshold == once.threshold > 0
    assert len(thrice.groups) == 60
    assert len(thrice.pairs) == 180
    assert thrice.exact.all()
    assert (thrice.scores == 0).all()


def test_a_cluster_of_more_images_than_neighbours_has_all_its_pairs() -> None:
    Z = np.vstack([spread(), spread()[:1] + np.random.default_rng(1).normal(size=(25, 20)) * 0.02])
    found = duplicates_of(unlabelled(Z))
    assert len(found.pairs) == 26 * 25 // 2
    assert [len(group) for group in found.groups] == [26]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_very_small_sets_have_no_near_duplicates(count: int) -> None:
    found = duplicates_of(unlabelled(spread(count)))
    assert len(found.pairs) == len(found.groups) == 0
    assert {len(column) for column in found.columns().values()} == {count}


def test_images_that_are_all_alike_are_one_group() -> None:
    found = duplicates_of(unlabelled(np.ones((5, 3))))
    assert len(found.pairs) == 10
    assert [group.tolist() for group in found.groups] == [[0, 1, 2, 3, 4]]


def test_images_without_finite_features_have_no_near_duplicates() -> None:
    Z = spread()
    Z[[3, 8]] = np.nan
    found = duplicates_of(unlabelled(Z))
    assert len(found.pairs) == 0
    assert found.notes[0].startswith("2 images of 60 with features that are NaN or infinite cannot be compared")
    assert np.isnan(found.nearest).nonzero()[0].tolist() == [3, 8]


def test_the_columns_have_the_names_of_datalab() -> None:
    Z = np.vstack([spread(), spread()[:1], spread()[:1] * 1.001 + 0.001])
    columns = duplicates_of(unlabelled(Z, contents=[*range(1, 61), 1, 99])).columns()
    assert columns["near_duplicate_sets"][[0, 60, 61, 5]].tolist() == ["60 61", "0 61", "0 60", ""]
    assert columns["is_near_duplicate_issue"].nonzero()[0].tolist() == [0, 60, 61]
    assert columns["is_exact_duplicate"].nonzero()[0].tolist() == [0, 60]
    assert columns["duplicate_group"][[0, 60, 61, 5]].tolist() == [0, 0, 0, -1]


def test_scores_are_those_of_datalab_and_no_duplicate_of_datalab_is_missed() -> None:
    datalab = pytest.importorskip("cleanlab.datalab.datalab", reason="cleanlab is a development dependency")
    Z = spread(200)
    Z[150:160] = Z[:10] + np.random.default_rng(1).normal(size=(10, 20)) * 0.05
    lab = datalab.Datalab(data={"number": np.arange(200)}, verbosity=0)
    lab.find_issues(features=Z, issue_types={"near_duplicate": {}})
    expected, columns = lab.get_issues("near_duplicate"), duplicates_of(unlabelled(Z)).columns()
    for name in ("near_duplicate_score", "distance_to_nearest_neighbor"):
        assert columns[name] == pytest.approx(expected[name].to_numpy(), abs=1e-5)
    sets = [set(map(int, rows)) for rows in expected["near_duplicate_sets"]]
    assert sum(map(len, sets)) == 20
    assert all(rows <= {*map(int, own.split())} for rows, own in zip(sets, columns["near_duplicate_sets"], strict=True))

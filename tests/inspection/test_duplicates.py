"""Exact copies and near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from inspections import unlabelled

from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import Duplicates, find_duplicates
from featx.inspection.neighbours import nearest_neighbours


def duplicates_of(features: FeatureSet, threshold: float | None = None) -> Duplicates:
    return find_duplicates(features, nearest_neighbours(features), threshold=threshold)


def spread(count: int = 60, width: int = 20) -> np.ndarray:
    """Images that are far from one another."""
    return np.random.default_rng(0).normal(size=(count, width))


def test_slightly_changed_copies_are_near_and_the_threshold_is_half_the_median_distance() -> None:
    Z = spread()
    Z[[50, 51, 52]] = Z[[3, 3, 7]] + np.random.default_rng(1).normal(size=(3, 20)) * [[0.02], [0.03], [0.1]]
    features = unlabelled(Z)
    found = duplicates_of(features)
    assert found.threshold == pytest.approx(np.median(nearest_neighbours(features).distances[:, 0]) / 2)
    assert found.pairs.tolist() == [[3, 50], [3, 51], [50, 51], [7, 52]]
    assert (np.diff(found.distances) >= 0).all()
    assert found.distances[-1] < found.threshold
    assert not found.exact.any()
    assert [group.tolist() for group in found.groups] == [[3, 50, 51], [7, 52]]
    assert found.group_of[[3, 50, 51, 7, 52, 0]].tolist() == [0, 0, 0, 1, 1, -1]


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


def test_groups_hold_only_images_that_are_close_to_each_other() -> None:
    angles = np.array([0.0, 0.1, 0.22, 0.31, 2.0, 4.0])  # a chain, whose ends are far apart
    found = duplicates_of(unlabelled(np.column_stack([np.cos(angles), np.sin(angles)])), threshold=1 - np.cos(0.15))
    assert [group.tolist() for group in found.groups] == [[0, 1], [2, 3]]
    assert found.pairs.tolist() == [[2, 3], [0, 1], [1, 2]]


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
    assert np.isnan(found.nearest).nonzero()[0].tolist() == [3, 8]


def test_the_columns_have_the_names_of_datalab() -> None:
    Z = np.vstack([spread(), spread()[:1], spread()[:1] * 1.001 + 0.001])
    columns = duplicates_of(unlabelled(Z, contents=[*range(1, 61), 1, 99])).columns()
    assert columns["near_duplicate_sets"][[0, 60, 61, 5]].tolist() == ["60 61", "0 61", "0 60", ""]
    assert columns["is_near_duplicate_issue"].nonzero()[0].tolist() == [0, 60, 61]
    assert columns["is_exact_duplicate"].nonzero()[0].tolist() == [0, 60]
    assert columns["duplicate_group"][[0, 60, 61, 5]].tolist() == [0, 0, 0, -1]


def test_scores_and_sets_are_those_of_datalab() -> None:
    datalab = pytest.importorskip("cleanlab.datalab.datalab", reason="cleanlab is a development dependency")
    Z = spread(200)
    Z[150:160] = Z[:10] + np.random.default_rng(1).normal(size=(10, 20)) * 0.05
    lab = datalab.Datalab(data={"number": np.arange(200)}, verbosity=0)
    lab.find_issues(features=Z, issue_types={"near_duplicate": {}})
    expected = lab.get_issues("near_duplicate")
    found = duplicates_of(unlabelled(Z), threshold=0.13 * np.median(expected["distance_to_nearest_neighbor"]))
    columns = found.columns()
    assert columns["is_near_duplicate_issue"].sum() == 20
    assert (columns["is_near_duplicate_issue"] == expected["is_near_duplicate_issue"]).all()
    for name in ("near_duplicate_score", "distance_to_nearest_neighbor"):
        assert columns[name] == pytest.approx(expected[name].to_numpy(), abs=1e-5)
    sets = [sorted(map(int, rows.split())) for rows in columns["near_duplicate_sets"]]
    assert sets == [sorted(map(int, rows)) for rows in expected["near_duplicate_sets"]]

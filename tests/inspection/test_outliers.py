"""Images that are far from all others."""

from __future__ import annotations

import numpy as np
import pytest
from inspections import unlabelled

from featx.inspection.duplicates import find_duplicates
from featx.inspection.neighbours import nearest_neighbours
from featx.inspection.outliers import Outliers, find_outliers


def outliers_of(Z: np.ndarray) -> Outliers:
    return find_outliers(nearest_neighbours(unlabelled(Z)))


def crowd(count: int = 100) -> np.ndarray:
    """Images in one direction of a space of 20."""
    return np.random.default_rng(0).normal(size=(count, 20)) * 0.1 + np.eye(20)[0]


def test_images_in_another_direction_are_outliers_the_furthest_first() -> None:
    Z = crowd()
    Z[17], Z[60] = np.eye(20)[1] + np.eye(20)[0], -np.eye(20)[0]
    found = outliers_of(Z)
    assert found.ranked[:2].tolist() == [60, 17]
    assert (found.is_issue.nonzero()[0] == np.sort(found.ranked)).all()
    assert (found.distances[found.ranked] > found.threshold).all()
    assert found.scores[60] == found.scores.min()


def test_copies_of_an_odd_image_do_not_hide_each_other() -> None:
    Z = crowd()
    Z[[5, 17, 60]] = -np.eye(20)[0]
    assert set(outliers_of(Z).ranked) >= {5, 17, 60}


def test_odd_images_that_are_nearly_alike_do_not_hide_each_other() -> None:
    Z = crowd()
    Z[[5, 17, 60]] = -np.eye(20)[0] + np.random.default_rng(1).normal(size=(3, 20)) * 0.01
    Z[80] = np.eye(20)[1]
    features = unlabelled(Z)
    neighbours = nearest_neighbours(features)
    duplicates = find_duplicates(features, neighbours)
    assert [5, 17, 60] in [group.tolist() for group in duplicates.groups]
    assert set(find_outliers(neighbours, duplicates).ranked[:3]) == {5, 17, 60}
    assert find_outliers(neighbours).distances[5] < 0.9 * find_outliers(neighbours, duplicates).distances[5]


def test_an_image_without_finite_features_is_the_first_outlier() -> None:
    Z = crowd()
    Z[3], Z[40] = -np.eye(20)[0], np.nan
    found = outliers_of(Z)
    assert found.ranked[:2].tolist() == [40, 3]
    assert found.scores[40] == 0
    assert np.isnan(found.distances[40])


@pytest.mark.parametrize("Z", [np.empty((0, 3)), np.ones((1, 3)), np.ones((9, 3)), crowd(2)])
def test_a_set_without_a_spread_of_distances_has_no_outliers(Z: np.ndarray) -> None:
    found = outliers_of(Z)
    assert len(found.ranked) == 0
    assert not found.is_issue.any()
    assert {len(column) for column in found.columns().values()} == {len(Z)}
    assert not np.isnan(found.scores).any()


def test_outliers_and_scores_are_those_of_datalab() -> None:
    datalab = pytest.importorskip("cleanlab.datalab.datalab", reason="cleanlab is a development dependency")
    Z = crowd(300)
    Z[::40] = np.random.default_rng(1).normal(size=(8, 20))
    lab = datalab.Datalab(data={"number": np.arange(300)}, verbosity=0)
    lab.find_issues(features=Z, issue_types={"outlier": {}})
    expected, columns = lab.get_issues("outlier"), outliers_of(Z).columns()
    assert columns["is_outlier_issue"].sum() > 5
    assert (columns["is_outlier_issue"] == expected["is_outlier_issue"]).all()
    assert columns["outlier_score"] == pytest.approx(expected["outlier_score"].to_numpy(), abs=1e-5)

"""The choice of images that represent all others."""

from __future__ import annotations

import numpy as np
import pytest

from featx.heads.nearest import unit
from featx.inspection import coverage
from featx.inspection.coverage import choose_covering

NOTHING = np.empty((0, 8), dtype=np.float32)


def clusters(sizes: tuple[int, ...], *, spread: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around so many directions, as rows of length 1, and the cluster of each."""
    rng = np.random.default_rng(seed)
    centres = np.eye(8)[: len(sizes)]
    of = np.repeat(np.arange(len(sizes)), sizes)
    return unit(centres[of] + spread * rng.normal(size=(len(of), 8))), of


def plainly_chosen(points: np.ndarray, weight: np.ndarray, labelled: np.ndarray, budget: int) -> list[int]:
    """The greedy choice as it is written in a book, without near-duplicates to pass over."""
    distances = np.maximum(1 - points @ points.T, 0)
    np.fill_diagonal(distances, 0)
    share = max(1, len(points) // (len(labelled) + budget))
    scale = np.median(np.sort(distances, axis=1)[:, share])
    kernel = np.exp(-distances / scale)
    covered = np.exp(-np.maximum(1 - points @ labelled.T, 0) / scale).max(axis=1, initial=0)
    chosen: list[int] = []
    for _ in range(budget):
        gains = weight @ np.maximum(kernel - covered[:, None], 0)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, kernel[chosen[-1]])
    return chosen


def test_the_choice_is_the_greedy_one() -> None:
    rng = np.random.default_rng(0)
    points, weight = unit(rng.normal(size=(400, 8))), rng.random(400) + 0.1
    chosen = choose_covering(points[:300], weight[:300], points[300:310], 30)
    assert chosen.tolist() == plainly_chosen(points[:300], weight[:300], points[300:310], 30)


def test_the_first_images_are_one_of_each_cluster_the_largest_first() -> None:
    points, of = clusters((10, 60, 30, 20))
    chosen = choose_covering(points, np.ones(len(points)), NOTHING, 4)
    assert of[chosen].tolist() == [1, 2, 3, 0]


def test_clusters_with_a_labelled_image_come_last() -> None:
    points, of = clusters((30, 30, 30, 30))
    chosen = choose_covering(points, np.ones(len(points)), points[of == 2][:1], 3)
    assert set(of[chosen].tolist()) == {0, 1, 3}


def test_images_of_more_weight_come_first() -> None:
    points, of = clusters((40, 20, 20))
    chosen = choose_covering(points, np.where(of == 2, 1.0, 0.1), NOTHING, 1)
    assert of[chosen].tolist() == [2]


def test_a_near_duplicate_is_chosen_only_when_no_other_image_is_left() -> None:
    points = unit(np.random.default_rng(0).normal(size=(20, 8)))
    both = np.concatenate([points, unit(points + 1e-4)])
    chosen = choose_covering(both, np.ones(40), NOTHING, 30) % 20
    assert sorted(chosen[:20].tolist()) == list(range(20))
    labelled = choose_covering(both, np.ones(40), points[:5], 15) % 20
    assert sorted(labelled.tolist()) == list(range(5, 20))


def test_a_second_image_of_a_group_is_chosen_only_when_all_groups_have_one() -> None:
    points = unit(np.random.default_rng(0).normal(size=(30, 8)))
    groups = np.array([0] * 10 + [1] * 10 + [-1] * 10)
    chosen = choose_covering(points, np.ones(30), NOTHING, 30, groups=groups)
    assert sorted(groups[chosen[:12]].tolist()) == [-1] * 10 + [0, 1]
    assert sorted(chosen.tolist()) == list(range(30))


def test_of_many_images_a_sample_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    points, of = clusters((400, 300, 200, 100))
    monkeypatch.setattr(coverage, "MOST_COMPARED", 100)
    chosen = choose_covering(points, np.ones(len(points)), NOTHING, 60)
    assert len(set(chosen.tolist())) == 60
    assert set(of[chosen[:4]].tolist()) == {0, 1, 2, 3}
    assert chosen.tolist() == choose_covering(points, np.ones(len(points)), NOTHING, 60).tolist()
    assert chosen.tolist() != choose_covering(points, np.ones(len(points)), NOTHING, 60, seed=1).tolist()


@pytest.mark.parametrize("points", [np.ones((1, 8)), np.ones((5, 8)), np.zeros((4, 8)), np.eye(2, 8)])
def test_copies_and_single_images_are_chosen_once_each(points: np.ndarray) -> None:
    chosen = choose_covering(unit(points), np.zeros(len(points)), NOTHING, len(points))
    assert sorted(chosen.tolist()) == list(range(len(points)))
    assert choose_covering(unit(points), np.ones(len(points)), unit(points), 0).tolist() == []

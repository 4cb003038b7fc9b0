"""Features of several backbones joined by the content of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from joint_features import part

from featx.errors import HeadError
from featx.features import joint_sets
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import blocks_of, joint_fields, part_names
from featx.features.side_by_side import SideBySide
from featx.identity import joint_identity


def shuffled(features: FeatureSet) -> FeatureSet:
    return features.take(np.random.default_rng(1).permutation(len(features)))


def test_the_columns_of_each_backbone_lie_side_by_side_image_by_image() -> None:
    one, two, three = part(), part("two"), part("three")
    joined = FeatureSet.join([one, shuffled(two), shuffled(three)])
    np.testing.assert_array_equal(joined.features, np.hstack([one.features, two.features, three.features]))
    assert (joined.layer, joined.backbone["name"], joined.backbone["source"]) == (
        "penultimate",
        "one+two+three",
        "joint",
    )
    assert joined.identity == joint_identity([one.identity, two.identity, three.identity])
    assert [(p["width"], p["identity"]) for p in joined.backbone["parts"]] == [
        (each.width, each.identity) for each in (one, two, three)
    ]
    np.testing.assert_array_equal(joined.paths, one.paths)
    assert [joined.features[:, block].shape[1] for block in blocks_of(joined.backbone, joined.width)] == [6, 10, 4]


def test_a_joint_set_is_joined_further_part_by_part() -> None:
    sets = [part(), part("two"), part("three")]
    nested = FeatureSet.join([FeatureSet.join(sets[:2]), sets[2]])
    whole = FeatureSet.join(sets)
    assert (nested.identity, nested.backbone) == (whole.identity, whole.backbone)


def test_images_that_one_file_lacks_are_left_out_and_counted() -> None:
    one, two = part().take(np.arange(5, 90)), part("two").take(np.arange(80))
    fields, notes = joint_fields([one, two])
    assert fields["paths"].tolist() == [f"{row:03}.png" for row in range(5, 80)]
    assert notes == ("75 images that all files hold are used; left out: 10 of one, 5 of two",)


def test_copies_of_an_image_have_a_row_each_with_the_label_of_their_path() -> None:
    keys = part().keys.copy()
    keys[1] = keys[0]  # an ant and a bee
    one, two = part(keys=keys), part("two", keys=keys)
    two.features[1] = two.features[0]
    joined = FeatureSet.join([one, shuffled(two)])
    assert len(joined) == 90
    assert joined.labels.tolist() == one.labels.tolist()
    np.testing.assert_array_equal(joined.features[:, 6:], two.features)
    once = two.take(np.delete(np.arange(90), 1))
    assert len(FeatureSet.join([one.take(np.delete(np.arange(90), 1)), once])) == 89


def test_views_are_joined_view_by_view() -> None:
    one, two = part(views=2), part("two", views=2)
    joined = FeatureSet.join([one, shuffled(two)])
    assert (joined.layer, joined.features.shape) == ("penultimate@flip", (90, 2, 16))
    np.testing.assert_array_equal(joined.features, np.concatenate([one.features, two.features], axis=2))
    with pytest.raises(HeadError, match=r"same views .*one in 2 views \(penultimate@flip\), two in 1 view"):
        FeatureSet.join([one, part("two")])


def test_large_features_stay_where_they_are_and_read_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sets = [part(views=2), shuffled(part("two", views=2))]
    sets[0].features.tofile(tmp_path / "f")
    mapped = np.memmap(tmp_path / "f", np.float32, "r", shape=sets[0].features.shape)
    whole = FeatureSet.join(sets).features
    monkeypatch.setattr(joint_sets, "MOST_JOINED", 0)
    joined = FeatureSet.join([part(views=2, features=mapped), sets[1]])
    rows = joined.features
    assert isinstance(rows, SideBySide)
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (whole.shape, whole.dtype, 3, 90)
    for which in (0, -1, slice(3, 70), slice(None, None, -7), [4, 80, 4], np.arange(90) % 4 == 0, []):
        np.testing.assert_array_equal(rows[which], whole[which])
    np.testing.assert_array_equal(rows.reshape(-1, 16)[np.array([5, 179, 5])], whole.reshape(-1, 16)[[5, 179, 5]])
    np.testing.assert_array_equal(np.asarray(rows.take(np.array([9, 2])).view(1)), whole[[9, 2], 1])
    np.testing.assert_array_equal(joined.take(np.array([7, 3])).features, whole[[7, 3]])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(most=999))), whole)


def test_different_labels_of_one_image_are_an_error_whatever_the_order_of_the_classes() -> None:
    two = part("two", classes=("cow", "bee", "ant"), labels=2 - np.arange(90) % 3)
    assert len(FeatureSet.join([part(), two])) == 90
    wrong = two.labels.copy()
    wrong[[3, 4]] = 0, -1
    with pytest.raises(HeadError, match=r"one and two give 1 image different labels: 003\.png \(ant and cow\); give"):
        FeatureSet.join([part(), part("two", classes=two.classes, labels=wrong)])


def test_other_splits_and_missing_labels_are_notes_and_the_first_file_counts() -> None:
    splits, labels = part().splits.copy(), part().labels.copy()
    splits[:2], labels[:3] = "test", -1
    fields, notes = joint_fields([part(labels=labels), part("two", splits=splits)])
    assert fields["splits"].tolist() == part().splits.tolist()
    assert fields["labels"][:3].tolist() == [-1, -1, -1]
    assert notes == (
        "two has 2 images in other splits than one, whose splits count",
        "one has no label for 3 images that two labels; its labels count",
    )


def test_files_without_a_common_image_cannot_be_joined() -> None:
    others = part("two").keys[::-1] + 1
    with pytest.raises(HeadError, match="no image is in all of one, two"):
        FeatureSet.join([part(), part("two", keys=others)])
    with pytest.raises(HeadError, match="no image is in all"):
        FeatureSet.join([part(keys=np.zeros((90, 16), np.uint8)), part("two", keys=np.zeros((90, 16), np.uint8))])
    with pytest.raises(HeadError, match="1 feature set was given"):
        FeatureSet.join([part()])


def test_parts_of_one_network_are_told_apart_by_their_layers() -> None:
    joined = FeatureSet.join([part(), part(layer="layer3"), part(), part("two")])
    assert part_names(joined.backbone) == ["one (1)", "one layer3", "one (3)", "two"]

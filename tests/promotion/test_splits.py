"""Which images train, validate and test, and the heads that go with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import PromotionError
from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_groups
from featx.heads.head import Head
from featx.promotion.assemble import assemble, backbone_of
from featx.promotion.promotion import promote
from featx.promotion.splits import repeated_splits, standard_split


def test_no_image_is_for_two_of_training_validation_and_test(features: FeatureSet, digits: FeatureSet) -> None:
    head = Head("logreg", C=0.1).fit(features)
    assembly = assemble(head, features, backbone_of(head))
    split = standard_split(assembly)
    start, train, validation = split.start, split.train, split.validation
    assert set(features.splits[train]) == set(features.splits[validation]) == {"train"}
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 32
    assert set(assembly.data.labels[validation]) == {0, 1}
    assert (start.C_, start.n_train_) == (0.1, len(train)), (
        "a head fitted to the validation images would look better than it is"
    )
    assert split.chosen_on == f"{len(validation)} of the training images, held back by their content"
    head = Head("logreg", C=0.1).fit(digits)
    assembly = assemble(head, digits, backbone_of(head))
    split = standard_split(assembly)
    assert split.start is head
    assert assembly.test_split == "test"
    assert [set(digits.splits[rows]) for rows in (split.train, split.validation, split.test)] == [
        {"train"},
        {"val"},
        {"test"},
    ]


def test_groups_stay_together_where_training_images_are_held_back(split_photos: Path, in_tmp: Path) -> None:
    features = featx.extract(split_photos, "lenet5").load()
    Path("groups.csv").write_text(
        "path,who\n" + "".join(f"{path},{row // 4}\n" for row, path in enumerate(features.paths))
    )
    features = with_groups(features, "who", "groups.csv")
    head = Head("ridge").fit(features)
    split = standard_split(assemble(head, features, backbone_of(head)))
    assert len(split.validation)
    assert not {row // 4 for row in split.train} & {row // 4 for row in split.validation}


def test_too_few_images_to_hold_some_back_for_validation_are_refused(make_image, in_tmp: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            make_image(Path(split) / name / "1.png", seed=hash((split, name)) % 100)
    features = featx.extract(Path(), "lenet5").load()
    with pytest.raises(PromotionError, match=r"too few training images to hold some back for validation"):
        promote(Head("ridge").fit(features), finetune=True)


def test_repeated_splits_test_each_labelled_image_once(digits: FeatureSet) -> None:
    head = Head("centroid").fit(digits)
    assembly = assemble(head, digits, backbone_of(head))
    splits = list(repeated_splits(assembly, 3, seed=0))
    assert [split.repeat for split in splits] == [1, 2, 3]
    tested = np.concatenate([split.test for split in splits])
    np.testing.assert_array_equal(np.sort(tested), np.sort(assembly.data.labelled_rows))
    for split in splits:
        assert split.rival.n_train_ == len(split.train) + len(split.validation)
        assert split.start.n_train_ == len(split.train)
        together = np.concatenate([split.train, split.validation, split.test])
        assert len(np.unique(together)) == len(together) == len(tested)

"""The images that a head has seen: neither those it was fitted to nor those that chose its thresholds judge it unsaid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from listings import keys_of
from made_heads import INSECTS, insects, photos

import featx
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.seen import SeenImages, are_copies, with_splits_of_head
from featx.heads.texts import ClassTexts
from featx.io import model_file

PROMISES = [{"conformal": 0.3}, {"target_precision": 0.3}, {"conformal": 0.3, "target_precision": 0.3}]


@pytest.mark.parametrize("promises", PROMISES)
def test_images_that_are_added_to_small_classes_let_no_image_judge_the_thresholds_that_it_chose(
    promises: dict[str, float], tmp_path: Path
) -> None:
    moved = 0
    for first in range(0, 600, 200):
        before, later = insects(40, gap=9.0, first=first), insects(120, gap=9.0, first=first)
        chose = before.keys[before.splits == "val"]
        head = Head("centroid", **promises).fit(before).conformalize(before, split="val")  # type: ignore[arg-type]
        known = int(are_copies(later.keys[later.splits == "test"], chose).sum())
        for each in (head, Head.load(head.save(tmp_path / "head.safetensors"))):
            report, rows, _ = each.judge(later)
            assert not each.seen.has(later.keys[rows]).any()
            notes = [note for note in report.notes if "whose thresholds or epoch were chosen on" in note]
            assert len(notes) == (known > 0)
            assert all(f"{known} image" in note for note in notes)
        moved += known
    assert moved > 0, "else this shows nothing"


def test_the_images_that_chose_are_counted_where_they_judge_all_the_same() -> None:
    features = insects(160)
    head = Head("centroid", conformal=0.3).fit(features).conformalize(features, split="val")
    count = int((features.splits == "val").sum())
    assert head.evaluate(features, split="val").notes[0] == (
        f"thresholds or the epoch were chosen on {count} of these {count} images of split val, byte for byte: they flatter "
        "the result"
    )
    assert any(f"chosen on {count} of these 160 images" in note for note in head.evaluate(features, split="all").notes)
    given = dataclasses.replace(features, dataset={"splits": "given"}, keys=features.keys.copy())
    given.keys[given.rows("test")[0]] = given.keys[given.rows("val")[0]]
    notes = head.evaluate(given).notes
    assert any("on 1 of these 32 images of split test, byte for byte: it flatters the result" in note for note in notes)


def test_a_zero_shot_head_is_not_evaluated_on_the_images_that_chose_its_thresholds() -> None:
    features = insects(160)
    vectors = np.eye(len(INSECTS), features.width)
    texts = ClassTexts(features.classes, features.classes, ("{}",), vectors, 5.0)
    plain = Head("zeroshot", texts=texts).fit(features)
    assert featx.evaluate(plain, features).split == "all"
    head = Head("zeroshot", texts=texts, conformal=0.2).fit(features)
    assert len(head.train_keys_) == 0
    report = featx.evaluate(head, features)
    assert (report.split, report.n) == ("test", int((features.splits == "test").sum()))
    assert not any("chosen on" in note for note in report.notes)


def test_a_new_fit_forgets_what_chose_before_and_a_second_choice_does_not(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    rows = features.rows("test")
    head = Head("logreg", conformal=0.2).fit(features)
    assert len(head.validation_keys_) == 0
    head.conformalize(features, rows=rows[:10]).conformalize(features, rows=rows[5:15])
    np.testing.assert_array_equal(head.validation_keys_, features.keys[rows[:15]])
    stored = Head.load(head.save(tmp_path / "head.safetensors")).validation_keys_
    np.testing.assert_array_equal(stored, head.validation_keys_)
    assert len(head.fit(features).validation_keys_) == 0


def test_the_file_of_a_head_whose_thresholds_no_further_image_chose_has_no_such_array(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    path = Head("logreg", conformal=0.2).fit(features).save(tmp_path / "head.safetensors")
    arrays, _ = model_file.read(path, HEAD)
    assert "validation_keys" not in arrays
    assert len(Head.load(path).validation_keys_) == 0


def test_an_image_that_was_trained_on_counts_as_that_alone() -> None:
    keys = keys_of(5)
    seen = SeenImages(keys[:2]).plus(validation=keys[1:4]).plus(train=keys[3:], validation=keys[:1])
    np.testing.assert_array_equal(seen.train, keys[[0, 1, 3, 4]])
    np.testing.assert_array_equal(seen.validation, keys[2:3])
    assert seen.has(keys).all()


def test_a_group_with_an_image_that_chose_does_not_judge_either() -> None:
    features = insects(160)
    head = Head("centroid", conformal=0.3).fit(features).conformalize(features, split="val")
    test = features.rows("test")
    names = np.array([f"nest {row}" for row in range(160)], dtype=object)
    names[test[:3]] = "one nest"
    seen = head.seen.plus(validation=features.keys[test[:1]])
    later = dataclasses.replace(features, groups=names, group="nest")
    split, _ = with_splits_of_head(later, "classification", seen)
    assert len(set(split.splits[test[:3]])) == 1
    assert "test" not in split.splits[test[:3]]

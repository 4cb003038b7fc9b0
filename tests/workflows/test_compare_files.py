"""Two fitted heads or promoted models, compared on the images that neither has seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made import photos

import featx
from featx.errors import CacheMissError, HeadError, ModelNotFoundError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.promotion import promote
from featx.workflows.compare_files import compare_heads
from featx.workflows.fit import fit_head
from featx.workflows.head_files import HeadFiles


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all else here."""
    monkeypatch.setattr(HeadFiles, "write_picture", lambda *_: None)


@pytest.fixture
def two(split_photos: Path, in_tmp: Path) -> tuple[Path, Path]:
    """The features of the same photographs by two backbones."""
    plain = featx.extract(split_photos, "lenet5").file
    other = featx.load_backbone("lenet5", weights="random", device="cpu")
    return plain, featx.extract(split_photos, other, out="cache/random.h5").file


def test_two_heads_give_what_a_fit_that_compares_them_gives(two: tuple[Path, Path]) -> None:
    earlier = fit_head(two[0], "centroid").path
    fit = fit_head(two[0], "knn", compare=earlier)
    found = compare_heads(earlier, fit.path)
    assert found.as_dict() == {**fit.against.as_dict(), "sentence": found.sentence}
    assert found.called == found.short == ("split--lenet5--centroid", "split--lenet5--knn")
    low, high = found.difference[1:]
    assert low <= found.difference[0] == found.paired.gained / found.paired.n <= high
    facts = json.loads(json.dumps(found.as_pair(), allow_nan=False))
    assert facts["heads"] == list(found.called)
    assert facts["second"]["accuracy"] - facts["first"]["accuracy"] == pytest.approx(facts["difference"])
    assert facts["first_only"] == len(facts["first_only_images"])


def test_heads_of_two_backbones_are_joined_by_the_content_of_the_images(two: tuple[Path, Path]) -> None:
    fits = [fit_head(file, "ridge", C=0.1) for file in two]
    found = compare_heads(fits[0].path, fits[1].path)
    assert found.paired.n == 16
    assert [found.earlier_report.accuracy, found.report.accuracy] == [fit.report.accuracy for fit in fits]
    assert compare_heads(fits[1].path, fits[0].path).paired.first_only == found.paired.second_only


def test_a_promoted_model_is_compared_through_the_images(two: tuple[Path, Path]) -> None:
    head, rival = fit_head(two[0], C=0.1).path, fit_head(two[1], "ridge").path
    model = promote(head, device="cpu")
    same = compare_heads(head, model.path, device="cpu")
    assert (same.paired.first_only, same.paired.second_only, same.p_value) == ((), (), 1.0)
    assert same.report.accuracy == model.report.accuracy
    assert same.report.log_loss == pytest.approx(same.earlier_report.log_loss, abs=1e-5)
    found = compare_heads(model.model, rival)
    assert found.earlier_report.accuracy == model.report.accuracy
    assert found.short == ("first model", "random--ridge")
    both = compare_heads(model.path, model.path, device="cpu")
    assert (both.paired.n, both.further) == (16, ())


def test_images_on_which_thresholds_or_the_epoch_were_chosen_are_left_out_unless_nothing_else_remains(
    two: tuple[Path, Path],
) -> None:
    head = fit_head(two[0], C=0.1).path
    model = promote(head, device="cpu").model
    features = FeatureSet.load(two[0])
    model.seen = model.seen.plus(validation=features.split("val").keys[:5])
    found = compare_heads(head, model)
    assert found.left_out == {"images on which thresholds or the epoch were chosen": 5}
    assert (found.paired.n, found.further) == (11, ())
    model.seen = model.seen.plus(validation=features.split("val").keys)
    found = compare_heads(model, head)
    assert found.further == (
        "thresholds or the epoch of first model were chosen on 16 of these 16 images, which flatters it",
    )


def test_images_that_the_second_head_was_fitted_to_before_its_file_changed_are_left_out(tmp_path: Path) -> None:
    features = photos(train=60, test=60, gap=5.0, dim=40)
    test = features.rows("test")
    second = Head("ridge", C=0.1).fit(features, rows=np.concatenate([features.rows("train"), test[:5]]))
    found = compare_heads(Head("ridge", C=0.1).fit(features), second, features=features)
    assert found.left_out["copies of training images"] == 5
    assert not np.isin(test[:5], found.rows).any()


def test_features_that_are_gone_are_named_and_found_where_they_are_said_to_be(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = (fit_head(two[0], kind).path for kind in ("ridge", "centroid"))
    two[0].rename(tmp_path / "moved.h5")
    with pytest.raises(
        CacheMissError, match=r"the features that models/split--lenet5--centroid\.safetensors was fitted to are gone"
    ):
        compare_heads(one, other)
    assert compare_heads(one, other, features=tmp_path / "moved.h5").paired.n == 16
    third = fit_head(two[1], "ridge").path
    with pytest.raises(StaleCacheError, match="or name the feature file that it was fitted to with --features"):
        compare_heads(one, third)
    assert compare_heads(one, third, features=[tmp_path / "moved.h5"]).paired.n == 16


def test_what_cannot_be_compared_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    head = fit_head(two[0], "ridge").path
    with pytest.raises(ModelNotFoundError, match="there is no head or model none"):
        compare_heads("none", head)
    features = FeatureSet.load(two[0])
    regression = Head("ridge", task="regression")
    numbers = photos(identity=features.identity)
    with pytest.raises(HeadError, match="expected two of one task"):
        compare_heads(head, regression.fit(with_numbers(numbers)), features=two[0])


def with_numbers(features: FeatureSet) -> FeatureSet:
    from made import with_labels

    return with_labels(features, [str(row) for row in range(len(features))])

"""``FeatureSet.from_arrays``: the labels, names and tables of other libraries as a feature set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featx.errors import HeadError
from featx.features.array_labels import array_labels
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def named(features: FeatureSet) -> list[str | None]:
    """The label of each row as text; None for none."""
    return [features.classes[label] if label >= 0 else None for label in features.labels.tolist()]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (["b", "a", None, "a", "", float("nan")], ["b", "a", None, "a", None, None]),
        (np.array(["b", "a", "a", "a", "b", "b"]), ["b", "a", "a", "a", "b", "b"]),
        ([1, 10, 9, -1, 1, 1], ["1", "10", "9", "-1", "1", "1"]),
        ([1.0, 2.0, float("nan"), 1.0, 2.0, 2.0], ["1", "2", None, "1", "2", "2"]),
        ([True, False, True, True, True, True], ["True", "False", "True", "True", "True", "True"]),
        ([0.5, 2.0, float("nan"), 1.25, 0.1, 0.5], ["0.5", "2.0", None, "1.25", "0.1", "0.5"]),
        (
            [["dog", "cat"], ["cat"], [], ("dog",), {"cat", "dog"}, None],
            ["cat|dog", "cat", "|", "dog", "cat|dog", None],
        ),
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], ["0", "1", "2", "0", "1", "2"]),
        ([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0], [1, 0]], ["0", "0|1", "|", "1", "0", "0"]),
        (None, [None] * 6),
        (np.array([[3], [4], [3], [3], [4], [4]]), ["3", "4", "3", "3", "4", "4"]),
    ],
)
def test_labels_of_any_form_become_names(y: Any, expected: list[str | None]) -> None:
    assert named(FeatureSet.from_arrays(X, y)) == expected


def test_numbers_of_classes_are_in_the_order_of_numbers() -> None:
    assert FeatureSet.from_arrays(X, [1, 10, 9, -1, 1, 1]).classes == ("-1", "1", "9", "10")


def test_with_classes_whole_numbers_are_indices_and_minus_one_is_no_label() -> None:
    features = FeatureSet.from_arrays(X, [0, 1, -1, 0, 1, 1], classes=["dog", "cat"])
    assert (features.classes, named(features)) == (("dog", "cat"), ["dog", "cat", None, "dog", "cat", "cat"])


def test_pandas_objects_bring_their_names() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = pandas.DataFrame(X, index=[f"{row}.jpg" for row in range(6)])
    features = FeatureSet.from_arrays(
        frame,
        pandas.Series(["a", "b", None, "a", "b", "a"], dtype="category"),
        groups=pandas.Series([1, 1, 2, 2, None, 3], dtype="Int64"),
    )
    assert features.paths.tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert named(features) == ["a", "b", None, "a", "b", "a"]
    assert features.groups is not None
    assert features.groups.tolist() == ["1", "1", "2", "2", "", "3"]
    table = pandas.DataFrame({"cat": [1, 1, 0, 0, 1, 0], "dog": [0, 1, 0, 1, 1, 0]})
    assert named(FeatureSet.from_arrays(X, table)) == ["cat", "cat|dog", "|", "dog", "cat|dog", "|"]


def test_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    features = FeatureSet.from_arrays(torch.from_numpy(X).requires_grad_(), torch.tensor([0, 1, 0, 1, 0, 1]))
    np.testing.assert_array_equal(features.features, X)
    assert features.classes == ("0", "1")


def test_equal_rows_have_one_key_and_one_split_and_splits_are_made_as_for_images() -> None:
    many = np.random.default_rng(1).normal(size=(500, 4))
    features = FeatureSet.from_arrays(np.concatenate([many, many]), np.arange(1000) % 2)
    np.testing.assert_array_equal(features.keys[:500], features.keys[500:])
    assert len(np.unique(features.keys, axis=0)) == 500
    np.testing.assert_array_equal(features.splits[:500], features.splits[500:])
    assert features.dataset["splits"] == "hash"
    shares = {name: float(np.mean(features.splits == name)) for name in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.06)


def test_splits_and_keys_are_taken_as_they_are() -> None:
    keys = FeatureSet.from_arrays(X).keys
    features = FeatureSet.from_arrays(
        X, splits="train", keys=[key.tobytes().hex() for key in keys], paths=list("abcdef")
    )
    assert set(features.splits) == {"train"}
    np.testing.assert_array_equal(features.keys, keys)


def test_a_head_predicts_numbers_of_arrays_without_being_told() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(80, 4))
    features = FeatureSet.from_arrays(matrix, matrix @ [1.0, 2.0, 0.0, -1.0], splits="train")
    head = Head("ridge").fit(features)
    assert head.task_ == "regression"
    np.testing.assert_allclose(head.predict(matrix), matrix @ [1.0, 2.0, 0.0, -1.0], atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": X[0]}, r"features are \(3,\) of float32; .*X\[None\] makes a single row"),
        ({"X": [["a", "b"]]}, r"features are \(1, 2\) of <U1; expected \(N, D\) numbers"),
        ({"X": "cache/x.h5"}, r"features are \(\) of <U10"),
        ({"X": X, "y": ["a"]}, "found 6 rows of features and 1 label"),
        ({"X": X, "y": "aabbaa"}, "labels are a str, 'aabbaa'; expected one for each row"),
        (
            {"X": X, "y": np.zeros((6, 2)) + 0.5},
            r"expected \(N,\) labels, or \(N, C\) of 0 and 1.*fit one to each column",
        ),
        ({"X": X, "y": [1, "a", 1, 1, 1, 1]}, "labels hold int, str; expected one type"),
        ({"X": X, "y": [np.inf, 1, 1, 1, 1, 1]}, "labels hold infinity"),
        ({"X": X, "y": [["a|b"], [], [], [], [], []]}, r"the labels a list, \['a\|b'\] of a row are no list of names"),
        (
            {"X": X, "y": [0, 1, 2, 0, 0, 0], "classes": ["a", "b"]},
            "labels are 0 to 2; expected indices of the 2 classes",
        ),
        ({"X": X, "y": ["c"] * 6, "classes": ["a", "b"]}, "labels hold c; the classes are a, b"),
        (
            {"X": X, "y": np.eye(3)[[0, 1, 2, 0, 1, 2]], "classes": ["a"]},
            "labels have 3 columns, and there is 1 class",
        ),
        ({"X": X, "keys": ["ab"] * 6}, "a key is not of 16 bytes.*expected .* 32 hexadecimal digits"),
        ({"X": X, "splits": ["train"]}, "a feature set needs one of each per image; found features: 6.*splits: 1"),
    ],
)
def test_unsuitable_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        FeatureSet.from_arrays(**arguments)


def test_the_input_is_never_changed() -> None:
    given = np.array([[-0.0, 1.0], [2.0, -0.0]], dtype=np.float32)
    before = given.tobytes()
    FeatureSet.from_arrays(given, [0, 1])
    assert given.tobytes() == before


def test_float_labels_in_object_arrays_with_gaps_are_whole_numbers_again() -> None:
    assert array_labels(np.array([1, None, 2], dtype=object)).classes == ("1", "2")

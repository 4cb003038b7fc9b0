"""Rules for JSON and arrays, and a container of a made-up format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from featx.errors import CorruptFileError, HeadError
from featx.io.model_file import Schema, digest, newest, read, read_metadata, write
from featx.io.schema import (
    NULL,
    NUMBER,
    TEXT,
    ArraySpec,
    Rule,
    content_fault,
    each,
    member_of,
    one_of,
    shape_fault,
    value_fault,
    whole,
)
from featx.io.tensor_file import Tensor

SOUP = Schema(
    format="featx-soup",
    version=3,
    command="cook",
    metadata={"bowls": whole(1, 9), "name": (NULL, TEXT), "herbs": [{"grams": NUMBER}]},
    arrays=lambda metadata, names: (
        {"salt": ArraySpec("F64", "BD", 0, 1)} | ({"spoon": ArraySpec("I64", "", 1, "B-1")} if "spoon" in names else {})
    ),
    lengths=lambda metadata: {"B": metadata["bowls"]},
)
FACTS = {"bowls": 2, "name": None, "herbs": [{"grams": 1.5, "kind": "any"}], "more": True}
SALT = np.array([[0.0, 0.5, 1.0], [0.25, 0.5, 0.75]])


@pytest.mark.parametrize(
    ("value", "rule", "fault"),
    [
        (3, whole(1, 9), ""),
        (10, whole(1, 9), "x is 10; expected a whole number, 1 to 9"),
        (True, whole(0), "x is true; expected a whole number, at least 0"),
        (1.0, whole(0), "x is 1.0; expected a whole number, at least 0"),
        ("b", one_of("a", "b"), ""),
        ("c", one_of("a", "b"), 'x is "c"; expected one of a, b'),
        ([1, 2, 3], each(NUMBER, 3), ""),
        ([1] * 4, each(NUMBER, 3), "x is [1, 1, 1, 1]; expected a list of 1 to 3, each a finite number"),
        (None, (NULL, TEXT), ""),
        (1, (NULL, TEXT), "x is 1; expected a string"),
        ({"a": 1, "b": 2}, {"a": NUMBER}, ""),
        ({"b": 2}, {"a": NUMBER}, "x lacks a"),
        ({"a": "1"}, {"a": NUMBER}, 'x.a is "1"; expected a finite number'),
        ([1, "2"], [NUMBER], 'x[1] is "2"; expected a finite number'),
        ({}, [NUMBER], "x is {}; expected a list"),
        ([], {"a": NUMBER}, "x is []; expected an object"),
    ],
)
def test_the_first_fault_of_a_value_is_named_with_its_place(value: Any, rule: Any, fault: str) -> None:
    assert value_fault(value, rule, "x") == fault


def test_a_rule_on_names_is_read_when_it_is_checked() -> None:
    names = ["a"]
    rule = member_of(lambda: names)
    assert value_fault("b", rule, "x") == 'x is "b"; expected one of a'
    names.append("b")
    assert value_fault("b", rule, "x") == ""
    assert Rule("a thing", bool).words == "a thing"


def test_a_letter_takes_the_length_of_the_first_array_that_has_it() -> None:
    specs = {"a": ArraySpec("F64", "SD"), "b": ArraySpec("I64", "S", 0, "S-1")}

    def tensors(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Tensor]:
        return {"a": Tensor("F64", a, 0, 0), "b": Tensor("I64", b, 0, 0)}

    assert shape_fault(tensors((4, 2), (4,)), specs, {"D": 2}) == ("", {"D": 2, "S": 4})
    assert shape_fault(tensors((4, 3), (4,)), specs, {"D": 2})[0] == "array a is F64 (4, 3); expected F64 (4, 2)"
    assert shape_fault(tensors((4, 2), (5,)), specs, {"D": 2})[0] == "array b is I64 (5,); expected I64 (4,)"
    assert shape_fault({}, specs, {})[0] == "there is no array a"
    arrays = {"a": np.zeros((4, 2)), "b": np.array([0, 1, 3, 2])}
    assert content_fault(arrays, specs, {"S": 4}) == ""
    assert content_fault(arrays, specs, {"S": 3}) == "array b holds numbers that are not from 0 to 2"
    assert content_fault({**arrays, "a": np.full((4, 2), np.nan)}, specs, {"S": 4}) == "array a holds NaN or infinity"


def test_a_file_of_any_schema_comes_back_as_it_was(tmp_path: Path) -> None:
    arrays = {"salt": SALT, "spoon": np.array(1)}
    write(tmp_path / "a.safetensors", arrays, FACTS, SOUP)
    found, metadata = read(tmp_path / "a.safetensors", SOUP)
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["salt"], SALT)
    assert metadata == {**FACTS, "format": "featx-soup", "version": 3}
    assert read_metadata(tmp_path / "a.safetensors", SOUP)["bowls"] == 2
    assert newest(tmp_path, SOUP) == tmp_path / "a.safetensors"
    assert (SOUP.noun, SOUP.open_ended) == ("soup", False)


@pytest.mark.parametrize(
    ("arrays", "facts", "fault"),
    [
        ({"salt": SALT}, {**FACTS, "bowls": 0}, "bowls is 0; expected a whole number, 1 to 9"),
        ({"salt": SALT}, {**FACTS, "bowls": 3}, r"array salt is F64 \(2, 3\); expected F64 \(3, 3\)"),
        ({"salt": SALT * 2}, FACTS, "array salt holds numbers that are not from 0 to 1"),
        ({"salt": SALT, "spoon": np.array(2)}, FACTS, "array spoon holds numbers that are not from 1 to 1"),
        ({"salt": SALT, "pepper": SALT}, FACTS, r'surplus arrays: \["pepper"\]'),
        ({"pepper": SALT}, FACTS, "there is no array salt"),
        ({"salt": SALT}, {**FACTS, "herbs": [{}]}, r"herbs\[0\] lacks grams"),
    ],
)
def test_what_breaks_a_schema_is_neither_written_nor_read(
    arrays: dict[str, np.ndarray], facts: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(HeadError, match=f"could not be read again: .*x is not a valid soup: {fault}"):
        write(tmp_path / "x", arrays, facts, SOUP)
    assert list(tmp_path.iterdir()) == []
    stored = {**facts, "format": "featx-soup", "version": 3}
    text = json.dumps({**stored, "sha256": digest(arrays, stored)})
    save_file(
        {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()},
        tmp_path / "x",
        metadata={"featx": text},
    )
    with pytest.raises(CorruptFileError, match=f"x is not a valid soup: {fault}"):
        read(tmp_path / "x", SOUP)


def test_a_further_check_and_arrays_besides_are_the_schema_s_choice(tmp_path: Path) -> None:
    schema = Schema(
        "featx-stew", 1, "stew", {}, lambda metadata, names: {}, lambda metadata: {}, open_ended=True,
        tensor_fault=lambda tensors, metadata: "" if "meat" in tensors else "there is no meat",
    )  # fmt: skip
    write(tmp_path / "s", {"meat": SALT, "bones": SALT}, {}, schema)
    assert read(tmp_path / "s", schema)[0].keys() == {"meat", "bones"}
    with pytest.raises(HeadError, match="s is not a valid stew: there is no meat"):
        write(tmp_path / "s", {"bones": SALT}, {}, schema)

"""Files from strangers: whatever a head, a model or a weights file holds, it runs nothing and takes no more than its size."""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import nn

import featx
from featx.backbones import catalog, registry
from featx.backbones.checkpoint import load_checkpoint
from featx.backbones.weight_reader import read_file
from featx.cli.main import main
from featx.errors import (
    BackboneError,
    CorruptFileError,
    FeatxError,
    HeadError,
    ModelNotFoundError,
    StaleCacheError,
)
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.inference import HeadOnBackbone, evaluate, load_model, predict
from featx.inspection.info import describe_file
from featx.io import model_file
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.promotion.promotion import promote

Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]


# Real files, to be spoilt


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """LeNet-5's features of the built-in digits."""
    return featx.extract("digits", "lenet5", cache=tmp_path_factory.mktemp("cache")).load()


@pytest.fixture(scope="module")
def heads(digits: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A head's file of every form, by the form."""
    folder = tmp_path_factory.mktemp("heads")
    odd = tuple(f"odd|{name}" if name in "579" else name for name in digits.classes)
    many = dataclasses.replace(digits, classes=odd)
    fitted = {
        "linear": Head("centroid").fit(digits),
        "kernel": Head("svm", kernel="rbf", C=1.0, calibrate="isotonic").fit(digits),
        "neighbour": Head("knn", k=3, logit_adjustment=1.0, target_precision=0.9).fit(digits),
        "neighbour-labels": Head("knn", k=3).fit(many),
        "neighbour-mean": Head("knn", k=3, task="regression").fit(digits),
        "bilinear": Head("bilinear", C=0.1).fit(digits, rows=digits.rows("train")[::16]),
        "hidden": Head("mlp").fit(digits, rows=digits.rows("train")[::16]),
    }
    return {form: head.save(folder / f"{form}.safetensors") for form, head in fitted.items()}


FORMS = ("linear", "kernel", "neighbour", "neighbour-labels", "neighbour-mean", "bilinear", "hidden")


@pytest.fixture(scope="module")
def model(heads: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A promoted LeNet-5."""
    return promote(heads["linear"], out=tmp_path_factory.mktemp("model") / "model.safetensors").path


@pytest.fixture(scope="module")
def image(digits: FeatureSet) -> Path:
    return Path(digits.dataset["root"]) / str(digits.paths[0])


def contents(path: Path) -> tuple[Arrays, Facts]:
    """What a sound file holds, to change it."""
    form = model_file.read_metadata(path, HEAD, MODEL)["format"]
    arrays, facts = model_file.read(path, HEAD if form == HEAD.format else MODEL)
    return arrays, copy.deepcopy(facts)


def craft(path: Path, arrays: Mapping[str, np.ndarray], facts: Any) -> Path:
    """A file of any content whose checksum is right: what ``model_file.write`` would write if it checked nothing."""
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    if isinstance(facts, dict):
        stored = json.loads(json.dumps(facts))
        stored.pop("sha256", None)
        facts = {**stored, "sha256": model_file.digest(arrays, stored)}
    save_file(arrays, path, metadata={"featx": json.dumps(facts)})
    return path


def raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def consume(path: Path, image: Path) -> None:
    """All that featx does with a head or a model."""
    describe_file(path)
    predictions = predict(load_model(path, device="cpu"), [image], top=3)
    json.dumps([p.as_dict() for p in predictions], allow_nan=False)


def only_featx_errors(path: Path, image: Path) -> None:
    for use in (describe_file, Head.load, PromotedModel.load, lambda path: consume(path, image)):
        with contextlib.suppress(FeatxError):
            use(path)
    with contextlib.suppress(ModelNotFoundError):
        model_file.newest(path.parent, HEAD)


# Heads whose checksum is right and whose content is not


def at(facts: Facts, place: str, value: Any) -> None:
    *way, last = place.split(".")
    for key in way:
        facts = facts[key]
    facts[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("kind", "forest", r'kind is "forest"; expected one of logreg, linear, svm'),
        ("kind", ["logreg"], r"kind is \[\"logreg\"\]; expected one of"),
        ("kind", "knn", "a linear predictor does not make a knn head"),
        ("form", "neighbour", "there is no array scorer.support"),
        ("parameters", None, "parameters is null; expected an object"),
        ("parameters", {}, "parameters lacks C, calibrate, class_weight, group, k, kernel, logit_adjustment, seed, w"),
        ("parameters.class_weight", "even", 'parameters.class_weight is "even"; expected "balanced", or the weights'),
        ("parameters.logit_adjustment", -1, "logit_adjustment is -1; expected a number of at least 0"),
        ("parameters.logit_adjustment", None, "parameters.logit_adjustment is null; expected a finite number"),
        (
            "parameters.calibrate",
            "platt",
            'parameters.calibrate is "platt"; expected one of temperature, isotonic, none',
        ),
        ("parameters.group", 3, "parameters.group is 3; expected a string"),
        ("parameters.weight_decay", "1", 'parameters.weight_decay is "1"; expected a finite number'),
        ("task", "ranking", 'task is "ranking"; expected one of classification, multilabel, regression'),
        ("task", "multilabel", "centroid cannot do multilabel"),
        ("task", None, "task is null; expected one of"),
        ("reject_below", 1.5, "reject_below is 1.5; expected a number from 0 to 1"),
        ("parameters.k", -3, "parameters.k is -3; expected a whole number, at least 1"),
        ("parameters.k", 7, "k is 7 for centroid"),
        ("parameters.C", 0.5, "C is only for logreg, svm, ridge, bilinear; centroid has none"),
        ("parameters.C", "1", r'parameters.C is "1"; expected a number above 0'),
        ("parameters.seed", True, "parameters.seed is true; expected a whole number"),
        ("parameters.kernel", "rbf", "kernel is 'rbf' for centroid"),
        ("temperature", 0, "temperature is 0; expected a number above 0"),
        ("temperature", -1.5, "temperature is -1.5; expected a number above 0"),
        ("temperature", float("nan"), "its JSON holds nan"),
        ("temperature", float("inf"), "its JSON holds inf"),
        ("temperature", 10**400, "its JSON holds a number of more than 64 bits"),
        ("classes", "56789", r"classes is \"56789\"; expected a list of 1 to 32,768 different names"),
        ("classes", ["5", "6", "7", "8"], r"array offset is F64 \(5,\); expected F64 \(4,\)"),
        ("classes", ["5", "6", "7", "8", "8"], "classes is .*; expected a list of 1 to 32,768 different names"),
        ("classes", ["5", "6", "7", "8", 9], "classes is .*; expected a list of 1 to 32,768 different names"),
        ("classes", [str(n) for n in range(40000)], "classes is .*; expected a list of 1 to 32,768 different names"),
        ("layer", 3, "layer is 3; expected the name of a layer, with a known set of views"),
        ("layer", "own@twice", 'layer is "own@twice"; expected the name of a layer, with a known set of views'),
        ("identity", "f00d", r'identity is "f00d"; expected a SHA-256'),
        ("identity", "F00D" * 16, "identity is .*; expected a SHA-256"),
        ("backbone", {"name": "lenet5"}, "backbone lacks parts, weights"),
        ("backbone.name", None, "backbone.name is null; expected a path"),
        ("backbone.weights", "a\0b", r'backbone.weights is "a\\u0000b"; expected a path'),
        ("backbone.weights", "\ud800", r'backbone.weights is "\\ud800"; expected a path'),
        ("backbone.parts.dtype", "object", r'dtype is "object"; expected one of float32, float16'),
        ("backbone.parts.transform.crop", 10**9, "transform.crop is 1000000000; expected a whole number, 1 to 2048"),
        ("backbone.parts.transform.resize", -1, "transform.resize is -1; expected a whole number, 0 to 2048"),
        (
            "backbone.parts.transform.mean",
            [0.5],
            r"mean has 1 value; expected one for each channel, of which there are 3",
        ),
        (
            "backbone.parts.transform.std",
            [1, 0, 1],
            r"transform.std is .*; expected a list of 1 to 1,024, each a number above",
        ),
        ("backbone.parts.transform.interpolation", "x\x1b[2J", r"interpolation is 'x\\x1b\[2J'"),
        ("backbone.parts.transform.new", 1, "unexpected keyword argument 'new'"),
        ("dataset", ["pets"], "dataset is .*; expected an object"),
        ("source", 7, "source is 7; expected a path"),
        ("n_train", 644, r"array train_keys is U8 \(645, 16\); expected U8 \(644, 16\)"),
        ("n_train", 645.0, "n_train is 645.0; expected a whole number"),
        ("search", {"1": 0.5}, "search is .*; expected a list"),
        ("search", [0.5], r"search\[0\] is 0.5; expected an object"),
        ("search", [{"candidate": 1.0, "mean": 0.5}], r"search\[0\] lacks standard_error"),
        (
            "search",
            [{"candidate": None, "mean": 0.5, "standard_error": 0.1}],
            r"search\[0\].candidate is null; expected a finite number",
        ),
        (
            "search",
            [{"candidate": 1.0, "mean": "0.5", "standard_error": 0.1}],
            r'search\[0\].mean is "0.5"; expected a finite number',
        ),
        ("convergence", {"gap": 0.1}, "convergence lacks iterations"),
        ("convergence", {"gap": 0.1, "iterations": -1}, "convergence.iterations is -1; expected a whole number"),
        ("held_out", {"n": 3}, "held_out lacks split"),
        ("seconds", None, "seconds is null; expected a finite number"),
        ("notes", ["x", 3], r"notes\[1\] is 3; expected a string"),
        ("notes", "none", r'notes is "none"; expected a list'),
        ("report", [], r"report is \[\]; expected an object"),
        ("report", {"accuracy": 1.0, "n": 0, "split": "test"}, "report.n is 0; expected a whole number, at least 1"),
        ("more", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "its JSON is nested too deeply"),
    ],
)
def test_a_head_of_wrong_metadata_is_refused_with_what_is_wrong(
    heads: dict[str, Path], tmp_path: Path, place: str, value: Any, message: str
) -> None:
    arrays, facts = contents(heads["linear"])
    at(facts, place, value)
    path = craft(tmp_path / "head.safetensors", arrays, facts)
    with pytest.raises(
        CorruptFileError, match=rf"head\.safetensors is (not a valid head|not a safetensors file): .*{message}"
    ):
        Head.load(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_head_without_one_of_its_keys_or_arrays_is_refused_whichever_it_is(
    heads: dict[str, Path], tmp_path: Path, form: str
) -> None:
    arrays, facts = contents(heads[form])
    for key in facts.keys() - {"format", "version", "constant"}:  # files of earlier versions lack the constant answer
        craft(tmp_path / "h", arrays, {k: v for k, v in facts.items() if k != key})
        with pytest.raises(CorruptFileError, match=f"h is not a valid head: its JSON lacks {key}"):
            Head.load(tmp_path / "h")
    for name in arrays.keys() - {"thresholds"}:
        craft(tmp_path / "h", {k: v for k, v in arrays.items() if k != name}, facts)
        with pytest.raises(CorruptFileError, match=f"h is not a valid head: there is no array {name}"):
            Head.load(tmp_path / "h")


@pytest.mark.parametrize(
    ("form", "name", "value", "message"),
    [
        ("linear", "scorer.weight", np.zeros((5, 83)), r"array scorer.weight is F64 \(5, 83\); expected F64 \(5, 84"),
        ("linear", "scorer.weight", np.zeros((84, 5)), r"array scorer.weight is F64 \(84, 5\); expected F64 \(5, "),
        (
            "linear",
            "scorer.weight",
            np.zeros((5, 84), np.float32),
            r"array scorer.weight is F32 \(5, 84\); expected F64",
        ),
        ("linear", "scorer.weight", np.zeros((5, 0)), r"array scorer.weight is F64 \(5, 0\)"),
        ("linear", "scorer.weight", np.full((5, 84), np.nan), "array scorer.weight holds NaN or infinity"),
        ("linear", "scorer.bias", np.array([0, 0, np.inf, 0, 0]), "array scorer.bias holds NaN or infinity"),
        ("linear", "scorer.bias", np.zeros(()), r"array scorer.bias is F64 \(\); expected F64 \(5,\)"),
        ("linear", "mean", np.zeros(84, np.int64), r"array mean is I64 \(84,\); expected F64 \(84,\)"),
        ("linear", "scale", np.zeros(84), "array scale holds numbers that are not from 2.22507e-308 to inf"),
        ("linear", "scale", -np.ones(84), "array scale holds numbers that are not from 2.22507e-308 to inf"),
        (
            "linear",
            "train_keys",
            np.zeros((645, 15), np.uint8),
            r"array train_keys is U8 \(645, 15\); expected U8 \(645, 16",
        ),
        ("linear", "extra\n", np.zeros(3), r'surplus arrays: \["extra\\n"\]'),
        ("linear", "offset", np.zeros(4), r"array offset is F64 \(4,\); expected F64 \(5,\)"),
        ("linear", "offset", np.full(5, np.nan), "array offset holds NaN or infinity"),
        ("linear", "thresholds", np.full(5, 0.5), "a head of classification with thresholds"),
        ("linear", "isotonic.x", np.zeros((5, 9)), r"there is no array isotonic\.y"),
        ("kernel", "isotonic.x", np.full((5, 128), 2.0), r"array isotonic\.x holds numbers that are not from 0 to 1"),
        ("kernel", "isotonic.y", np.zeros((5, 3)), r"array isotonic\.y is F64 \(5, 3\); expected F64 \(5, 128\)"),
        ("kernel", "isotonic.doubt", np.array(0.0), r"array isotonic\.doubt holds numbers that are not from"),
        ("hidden", "scorer.weight", np.zeros((5, 3)), r"array scorer.weight is F64 \(5, 3\); expected F64 \(5, 512\)"),
        ("hidden", "scorer.hidden_bias", np.zeros(512), r"array scorer.hidden_bias is F64 \(512,\); expected F32"),
        ("neighbour", "scorer.support_weight", np.zeros(645), "array scorer.support_weight holds numbers that are not"),
        ("neighbour", "scorer.sharpness", np.array(-1.0), "array scorer.sharpness holds numbers that are not from 0"),
        ("neighbour-labels", "thresholds", np.full(6, 1.5), "array thresholds holds numbers that are not from 0 to 1"),
        (
            "neighbour-labels",
            "scorer.support_labels",
            np.full((645, 6), 2, np.uint8),
            "array scorer.support_labels holds numbers that are not from 0 to 1",
        ),
        (
            "neighbour-mean",
            "scorer.support_values",
            np.zeros((645, 2)),
            r"array scorer.support_values is F64 \(645, 2\); expected F64 \(645, 1\)",
        ),
        ("kernel", "scorer.gamma", np.array(-1.0), "array scorer.gamma holds numbers that are not from 0 to inf"),
        ("kernel", "scorer.dual", np.zeros((5, 3)), r"array scorer.dual is F64 \(5, 3\); expected F64 \(5, "),
        ("neighbour", "scorer.k", np.array(0), "array scorer.k holds numbers that are not from 1 to 645"),
        ("neighbour", "scorer.k", np.array(10**15), "array scorer.k holds numbers that are not from 1 to 645"),
        ("neighbour", "scorer.count", np.array(10**12), "array scorer.count holds numbers that are not from 5 to 5"),
        (
            "neighbour",
            "scorer.support_labels",
            np.full(645, 5),
            "array scorer.support_labels holds numbers that are not",
        ),
        (
            "neighbour",
            "scorer.support_labels",
            np.full(645, -1),
            "array scorer.support_labels holds numbers that are not",
        ),
    ],
)
def test_a_head_of_wrong_arrays_is_refused_with_what_is_wrong(
    heads: dict[str, Path], tmp_path: Path, form: str, name: str, value: np.ndarray, message: str
) -> None:
    arrays, facts = contents(heads[form])
    path = craft(tmp_path / "head.safetensors", {**arrays, name: value}, facts)
    with pytest.raises(CorruptFileError, match=rf"head\.safetensors is not a valid head: {message}"):
        Head.load(path)


def test_a_head_whose_task_is_not_that_of_its_parts_is_refused(heads: dict[str, Path], tmp_path: Path) -> None:
    arrays, facts = contents(heads["neighbour-labels"])
    del arrays["thresholds"]
    with pytest.raises(CorruptFileError, match="h is not a valid head: a head of multilabel without thresholds"):
        Head.load(craft(tmp_path / "h", arrays, facts))
    arrays, facts = contents(heads["neighbour-mean"])
    for name in ("offset", "scorer.support_values"):
        arrays[name] = np.concatenate([arrays[name], arrays[name]], axis=-1)
    facts["classes"] = ["one", "two"]
    with pytest.raises(CorruptFileError, match="h is not a valid head: 2 classes do not make a head of regression"):
        Head.load(craft(tmp_path / "h", arrays, facts))
    arrays, facts = contents(heads["linear"])
    for name in ("offset", "scorer.weight", "scorer.bias"):
        arrays[name] = arrays[name][:1]
    facts["classes"] = ["5"]
    with pytest.raises(CorruptFileError, match="h is not a valid head: 1 class does not make a head of classification"):
        Head.load(craft(tmp_path / "h", arrays, facts))


def test_parameters_that_no_head_has_change_nothing(heads: dict[str, Path], tmp_path: Path) -> None:
    arrays, facts = contents(heads["linear"])
    facts["parameters"] |= {"kind": "svm", "task": "regression", "table": "/etc/passwd", "self": 1}
    head = Head.load(craft(tmp_path / "h", arrays, facts))
    assert (head.kind, head.task_, head.group_) == ("centroid", "classification", None)
    assert not hasattr(head, "table")


def test_a_head_of_numbers_that_overflow_gives_a_row_that_says_so(
    heads: dict[str, Path], tmp_path: Path, image: Path
) -> None:
    arrays, facts = contents(heads["linear"])
    arrays["scorer.weight"] = np.full((5, 84), 1e308)
    (prediction,) = predict(craft(tmp_path / "h", arrays, facts), [image])
    assert prediction.as_dict() == {"path": str(image), "error": "the model's scores for it are NaN or infinite"}


# Headers


EMPTY = b'{"__metadata__":{"featx":"{}"}}'


@pytest.mark.parametrize(
    ("header", "length", "message"),
    [
        (b"{}", 2**63, "a header of 9223372036854775808 bytes in a file of 10"),
        (b"{}", 3, "a header of 3 bytes in a file of 10"),
        (b"{}", 0, "a header of 0 bytes in a file of 10"),
        (b" " * (2**25 + 1), None, r"a header of 33\.6 MB; at most 33\.6 MB make sense"),
        (b"[]", None, "its header is no object"),
        (b"\xff\xfe{}", None, "'utf-8' codec can't decode"),
        ("{}".encode("utf-16"), None, "'utf-8' codec can't decode"),
        (b'{"__metadata__":{"featx":1}}', None, "its metadata are not all strings"),
        (b'{"__metadata__":[]}', None, "its metadata are not all strings"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":1}', None, "a key of its JSON comes twice"),
        (b'{"__metadata__":{"featx":"{\\"format\\":1,\\"format\\":2}"}}', None, "a key of its JSON comes twice"),
        (b'{"a":NaN}', None, "its JSON holds nan"),
        (b'{"a":1e999}', None, "its JSON holds inf"),
        (b'{"a":' + b"9" * 5000 + b"}", None, "Exceeds the limit"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "its JSON is nested too deeply"),
        (b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", None, "its JSON is nested too deeply"),
        (b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":1}}', None, 'tensor "a" has other parts than dtype'),
        (b'{"a":{"dtype":"F8","shape":[],"data_offsets":[0,1]}}', None, 'tensor "a" is of dtype "F8"; known are BOOL'),
        (b'{"a":{"dtype":["U8"],"shape":[],"data_offsets":[0,1]}}', None, r'tensor "a" is of dtype \["U8"\]; known'),
        (
            b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}',
            None,
            r'tensor "a" has \[-1\] where lengths should be',
        ),
        (b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', None, r'"a" has \[1.0\] where lengths should be'),
        (
            b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}',
            None,
            r'"a" has \[true\] where lengths should be',
        ),
        (b'{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}', None, '"a" has 1 where lengths should be'),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}', None, r"shape \[1\] is at bytes \[1, 0\]"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}', None, r"shape \[1\] at \[0, 1, 2\]"),
        (b'{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,1]}}', None, r"shape \[1\] is at bytes \[0, 1\]"),
        (b'{"a":{"dtype":"U8","shape":[99999999999999],"data_offsets":[0,1]}}', None, r"is at bytes \[0, 1\]"),
        (b'{"a":{"dtype":"U8","shape":[0,99999999999999,99999999999],"data_offsets":[0,0]}}', None, "is of shape"),
        (b'{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}', None, "is of shape"),
        (b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', None, r"tensors up to byte \d+ in a file of"),
        (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}', None, "a gap or overlap of tensors at byte"),
        (
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            None,
            "a gap or overlap of tensors at byte",
        ),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused_with_the_rule(
    tmp_path: Path, header: bytes, length: int | None, message: str
) -> None:
    data = b"\0" if b'"data_offsets":[0,1]' in header else b""
    path = raw(tmp_path / "h", header, data, length)
    with pytest.raises(CorruptFileError, match=f"h is not a safetensors file: .*{message}"):
        model_file.read_metadata(path, HEAD, MODEL)


def test_bytes_that_belong_to_no_tensor_are_refused(heads: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_bytes(heads["linear"].read_bytes() + b"\0")
    with pytest.raises(CorruptFileError, match=r"h is not a safetensors file: tensors up to byte \d+ in a file of \d+"):
        Head.load(path)


# Models


@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (
            "width",
            10**12,
            CorruptFileError,
            r"classifier\.weight\" is of shape \(5, 84\); expected \(5, 1000000000000\)",
        ),
        ("width", 83, CorruptFileError, r"classifier\.weight\" is of shape \(5, 84\); expected \(5, 83\)"),
        ("classes", ["5", "6"], CorruptFileError, r"is of shape \(5, 84\); expected \(2, 84\)"),
        ("classifier", "", CorruptFileError, 'there is no array ".weight"'),
        ("classifier", "\x1b[2J", CorruptFileError, r'there is no array "\\u001b\[2J.weight"'),
        ("transform.crop", 10**6, CorruptFileError, "transform.crop is 1000000; expected a whole number, 1 to 2048"),
        ("transform.crop", 1, CorruptFileError, "is not a valid model: it cannot be run: "),
        ("transform.crop", 64, CorruptFileError, "is not a valid model: it cannot be run: "),
        ("transform.std", [1e-300, 1, 1], CorruptFileError, "is not a valid model: .*or NaN; expected 5 finite logits"),
        ("transform.interpolation", "\u202e", CorruptFileError, r"interpolation is '\\u202e'"),
        ("origin", "lenet5", CorruptFileError, 'origin is "lenet5"; expected an object'),
        ("origin.source", "hub", CorruptFileError, r'origin.source is "hub"; expected one of torchvision, featx'),
        ("origin.name", "lenet6", BackboneError, "there is no network 'lenet6' of featx"),
        ("origin.name", "mobilenet_v1_025", BackboneError, "does not fit MobileNetV1: .* missing: "),
        ("origin", {"source": "torchvision", "name": "vit_h_14"}, CorruptFileError, "no attribute|not an nn.Module"),
        (
            "origin",
            {"source": "torchvision", "name": "densenet201"},
            BackboneError,
            "does not fit DenseNet: .* missing",
        ),
        ("origin", {"source": "torchvision", "name": "raft_large"}, BackboneError, "no network 'raft_large' of torchv"),
        ("origin", {"source": "timm", "name": "resnet18"}, BackboneError, "there is no network 'resnet18' of timm"),
        ("origin", {"source": "file", "name": "e\nvil.py:make"}, BackboneError, r"is e\\nvil.py:make, a file of code"),
        ("head.kind", 3, CorruptFileError, "head.kind is 3; expected one of"),
        ("verdict", "best", CorruptFileError, r'verdict is "best"; expected one of assembled, promoted, kept-head'),
        ("log", [1], CorruptFileError, r"log\[0\] is 1; expected an object"),
        ("settings", 1, CorruptFileError, "settings is 1; expected an object"),
        ("head_report", None, CorruptFileError, "head_report is null; expected an object"),
    ],
)
def test_a_model_of_wrong_metadata_is_refused_with_what_is_wrong(
    model: Path, tmp_path: Path, place: str, value: Any, error: type[Exception], message: str
) -> None:
    arrays, facts = contents(model)
    at(facts, place, value)
    with pytest.raises(error, match=message):
        PromotedModel.load(craft(tmp_path / "model.safetensors", arrays, facts))


@pytest.mark.parametrize("size", ["x", "-16", "17", "999999999999999999", "9" * 5000, "1e3", ""])
def test_an_absurd_image_size_makes_no_network(size: str) -> None:
    with pytest.raises(BackboneError, match=r"vit_b_16 cannot be built for images of .* pixels"):
        registry.rebuild({"source": "torchvision", "name": "vit_b_16", "image_size": size})


def test_a_network_that_the_file_has_no_tensors_for_is_never_made(model: Path, tmp_path: Path) -> None:
    arrays, facts = contents(model)
    arrays["heads.head.weight"] = arrays.pop("classifier.weight")
    facts |= {"classifier": "heads.head"}
    facts["origin"] = {"source": "torchvision", "name": "vit_b_16", "image_size": "16000"}  # 1.6 GB of places alone
    with pytest.raises(BackboneError, match=r"does not fit VisionTransformer: \d+ missing: "):
        PromotedModel.load(craft(tmp_path / "model.safetensors", arrays, facts))


def test_a_model_of_nan_is_refused(model: Path, tmp_path: Path) -> None:
    arrays, facts = contents(model)
    arrays["classifier.bias"] = np.full(5, np.nan, dtype=np.float32)
    with pytest.raises(
        CorruptFileError,
        match=r"is not a valid model: one image gives logits of shape \(1, 5\), or NaN; expected 5 finite logits",
    ):
        PromotedModel.load(craft(tmp_path / "model.safetensors", arrays, facts))


# Code


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file of code that leaves a mark when it is run; the mark must not be there in the end."""
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom featx.backbones.architectures import LeNet5\n"
        "def make():\n    return LeNet5()\n"
    )
    monkeypatch.chdir(tmp_path)
    yield f"{tmp_path / 'evil.py'}:make"
    assert not (tmp_path / "ran").exists()
    registry.build("evil.py:make", "random")
    assert (tmp_path / "ran").exists(), "the file was harmless, and this test shows nothing"


@pytest.mark.parametrize("source", ["featx", "torchvision", "timm", "file"])
def test_a_file_of_code_that_a_model_names_is_not_run(trap: str, model: Path, tmp_path: Path, source: str) -> None:
    arrays, facts = contents(model)
    for name in (trap, "evil.py:make", f"timm/{trap}"):
        facts["origin"] = {"source": source, "name": name}
        with pytest.raises(BackboneError, match=r"there is no network|is never run; name it with|timm has no model"):
            load_model(craft(tmp_path / "m", arrays, facts))


def test_a_file_of_code_that_a_head_names_is_not_run(
    trap: str, heads: dict[str, Path], tmp_path: Path, digits: FeatureSet
) -> None:
    arrays, facts = contents(heads["linear"])
    for name in (trap, "evil.py:make", f"timm/{trap}"):
        facts["backbone"]["name"] = name
        path = craft(tmp_path / "h", arrays, facts)
        for use in (load_model, promote):
            with pytest.raises(BackboneError, match="a stored path is never run; name it with --backbone"):
                use(path)


@pytest.mark.parametrize(
    "name",
    ["hf-hub:evil/model", "hf_hub:evil/model", "local-dir:/tmp/evil", "resnet18.x:y", "../resnet18", "resnet18.a/../b"],
)
def test_timm_fetches_and_reads_nothing_that_a_file_names(
    heads: dict[str, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    arrays, facts = contents(heads["linear"])
    facts["backbone"]["name"] = f"timm/{name}"
    with pytest.raises(BackboneError, match=f"timm has no model '{name}'"):
        load_model(craft(tmp_path / "h", arrays, facts))
    arrays, facts = contents(model)
    facts["origin"] = {"source": "timm", "name": f"timm/{name}"}
    with pytest.raises(BackboneError, match=f"timm has no model '{name}'"):
        load_model(craft(tmp_path / "m", arrays, facts))


def test_another_file_of_code_than_the_models_own_is_refused_with_both_hashes(split_photos: Path, in_tmp: Path) -> None:
    code = "from featx.backbones.architectures import LeNet5\nfrom featx import Transform\n"
    code += "def make():\n    net = LeNet5(7)\n    net.transform = Transform(resize=32, crop=32)\n    return net\n"
    Path("own.py").write_text(code)
    head = Head("centroid").fit(featx.extract(split_photos, featx.load_backbone("own.py:make")).load())
    path = promote(head, backbone="own.py:make").path
    Path("own.py").write_text(code + "# changed\n")
    with pytest.raises(
        StaleCacheError, match=r"another network than own\.py:make \(code_sha256: \w{64} against \w{64}\)"
    ):
        PromotedModel.load(path, backbone="own.py:make")


def test_a_pipe_or_a_device_that_a_head_names_is_not_waited_for(heads: dict[str, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    os.mkfifo(tmp_path / "pipe.h5")
    arrays, facts = contents(heads["linear"])
    for weights in (str(tmp_path / "pipe.safetensors"), "/dev/zero", "/dev/stdin"):
        facts["backbone"]["weights"] = weights
        with pytest.raises(BackboneError, match=r"as a weights file: it is (not a regular file|empty)|no weights"):
            load_model(craft(tmp_path / "h", arrays, facts))
    facts["source"] = str(tmp_path / "pipe.h5")
    with pytest.raises(FeatxError, match=r"pipe\.h5 is not a regular file"):
        promote(craft(tmp_path / "h", arrays, facts))


# Weights


class RunsCode:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class Calls:
    """A pickle that calls a function which torch holds for harmless."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def as_tar(path: Path, evil: Path) -> None:
    """The format of 2016: a tar with pickles in it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in {
            "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
            "pickle": pickle.dumps({"a": RunsCode(evil)}, 2),
            "storages": pickle.dumps(RunsCode(evil), 2),
            "tensors": pickle.dumps(0, 2),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def as_torchscript(path: Path, evil: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/evil.pkl", pickle.dumps(RunsCode(evil), 2))


def as_zip_with_code(path: Path, evil: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": RunsCode(evil)}, path)


def as_one_pickle(path: Path, evil: Path) -> None:
    path.write_bytes(pickle.dumps(RunsCode(evil), 2))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("write", [as_tar, as_torchscript, as_zip_with_code, as_one_pickle])
@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
def test_weights_that_carry_code_are_refused_and_it_does_not_run(
    tmp_path: Path, write: Callable[[Path, Path], None], ending: str
) -> None:
    path, evil = tmp_path / f"w.{ending}", tmp_path / "ran"
    write(path, evil)
    with pytest.raises(
        BackboneError, match=rf"w\.{ending} (cannot be read as a file of tensors|is not a safetensors file)"
    ):
        read_file(path)
    assert not evil.exists()


def test_a_few_bytes_that_unfold_to_gigabytes_are_refused(tmp_path: Path) -> None:
    torch.save({"a": Calls(bytearray, 10**11)}, tmp_path / "call.pth")
    torch.save({"a": Calls(bytearray, 10**11)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(1000, 1000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as squeezed,
    ):
        for name in plain.namelist():
            squeezed.writestr(name, plain.read(name))
    for name, message in [
        ("call.pth", "it calls bytearray, which no tensor needs"),
        ("old.pth", "it calls bytearray, which no tensor needs"),
        ("zip.pth", "its parts are compressed, which torch.save never does"),
    ]:
        with pytest.raises(
            BackboneError, match=rf"cannot be read as a file of tensors only \(weights_only\): {message}"
        ):
            read_file(tmp_path / name)
    assert read_file(tmp_path / "plain.pth")["a"].shape == (1000, 1000)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
@pytest.mark.parametrize(
    "odd",
    [torch.empty(3, device="meta"), torch.zeros(3, 3).to_sparse(), torch.zeros(2, dtype=torch.complex64), 3, "x", None],
    ids=["without data", "sparse", "complex", "number", "string", "none"],
)
def test_what_is_no_tensor_of_numbers_is_refused(tmp_path: Path, odd: Any) -> None:
    network = nn.Module()
    network.a, network.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    torch.save({"a": torch.zeros(1), "b": odd}, tmp_path / "w.pth")
    fault = r"is b, which is (missing|.* instead of float32)"
    with pytest.raises(BackboneError, match=f"does not fit Module: 1 of 2 tensors fits; .* {fault}"):
        load_checkpoint(network, tmp_path / "w.pth")
    assert network.a == network.b == 1


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"{}", 2**62),
        (b"{}", 99_999_999),
        (b'{"a":{"dtype":"F32","shape":[9999999999999],"data_offsets":[0,4]}}', None),
        (b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}', None),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b"\xff" * 20, None),
    ],
)
def test_weights_with_an_absurd_header_are_refused(tmp_path: Path, header: bytes, length: int | None) -> None:
    path = raw(tmp_path / "w.safetensors", header, bytes(4), length)
    with pytest.raises(BackboneError, match=r"w\.safetensors is not a safetensors file: "):
        read_file(path)


# Identity: every way a head can meet features or a backbone that are not its own


def test_a_head_meets_no_backbone_and_no_features_but_its_own(
    heads: dict[str, Path], digits: FeatureSet, tmp_path: Path
) -> None:
    head = Head.load(heads["linear"])
    other = featx.load_backbone("lenet5", weights="random")
    theirs = featx.extract("digits", other, cache=tmp_path / "cache").load()
    both = r"weights_sha256: [0-9a-f]{64} against [0-9a-f]{64}"
    for use in (
        lambda: HeadOnBackbone(head, other),
        lambda: load_model(heads["linear"], weights="random"),
        lambda: promote(head, weights="random"),
        lambda: promote(head, features=theirs),
        lambda: promote(heads["linear"], features=theirs.source),
        lambda: evaluate(head, theirs),
        lambda: evaluate(heads["linear"], theirs),
        lambda: head.evaluate(theirs),
    ):
        with pytest.raises(StaleCacheError, match=both):
            use()
    own = featx.load_backbone("lenet5")
    head.layer_ = "features.5"
    with pytest.raises(StaleCacheError, match=r"layer: features\.5 against penultimate"):
        HeadOnBackbone(head, own)


def test_a_head_whose_identity_was_forged_is_refused(heads: dict[str, Path], tmp_path: Path) -> None:
    arrays, facts = contents(heads["linear"])
    facts["identity"] = "f00d" * 16
    path = craft(tmp_path / "h", arrays, facts)
    for use in (load_model, promote):
        with pytest.raises(StaleCacheError, match="other features"):
            use(path)


def test_a_head_on_features_made_by_hand_has_no_backbone_and_says_so(digits: FeatureSet, tmp_path: Path) -> None:
    features = dataclasses.replace(digits, identity="", backbone={}, dataset={}, source=None)
    path = Head("centroid").fit(features).save(tmp_path / "h")
    for use in (load_model, lambda path: predict(path, ["a.jpg"]), lambda path: promote(path, features=features)):
        with pytest.raises(HeadError, match="were not extracted by featx, so there is no backbone"):
            use(path)


@pytest.mark.parametrize("memo", ["[1]", '"x"', '{"lenet5": 3}', '{"lenet5": {"family": "x"}}', "[" * 100_000, "\0"])
def test_a_damaged_memo_of_backbones_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memo: str
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    (before,) = catalog.describe_backbones(["lenet5"])
    (file,) = tmp_path.iterdir()
    file.write_text(memo)
    assert catalog.describe_backbones(["lenet5"]) == [before]


# Names


def cells(arguments: list[Any]) -> list[dict[str, str]]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert all(c.isprintable() for c in result.stdout.replace("\n", ""))
    return list(csv.DictReader(io.StringIO(result.stdout)))


NAMES = {
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "  =1+1": "'  =1+1",
    "\t=1": "'\\t=1",
    "\r=1": "'\\r=1",
    "\uff1d1": "'\uff1d1",
    "\u3000=1": "'\\u3000=1",
    "\u202egpj.exe": "\\u202egpj.exe",
    "\ufeff=1": "\\ufeff=1",
    "\x1b[2Jred": "\\x1b[2Jred",
    'a,"b"\nc': 'a,"b"\\nc',
    "bad\udcffbyte": "bad\\udcffbyte",
    "plain=1": "plain=1",
    "\N{GREEK SMALL LETTER ALPHA} \N{ANT}": "\N{GREEK SMALL LETTER ALPHA} \N{ANT}",
}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_a_formula_or_upsets_a_terminal(
    heads: dict[str, Path], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arrays, facts = contents(heads["linear"])
    facts["classes"] = [name, *facts["classes"][1:]]
    head = craft(tmp_path / "h.safetensors", arrays, facts)
    monkeypatch.chdir(tmp_path)
    Path(f"{name.replace('/', ':')}.png").write_bytes(image.read_bytes())
    Path(f"{name.replace('/', ':')}.jpg").write_bytes(b"")
    given = [f"{name.replace('/', ':')}{ending}" for ending in (".png", ".jpg")]
    rows = cells(["predict", head, "--top", "5", "--", *given])
    assert NAMES[name] in [row["label"] for row in rows]
    shown = NAMES[name].replace("/", ":")
    assert [row["path"] for row in rows] == [f"{shown}.png"] * 5 + [f"{shown}.jpg"]
    assert rows[-1]["error"] == "the file is empty"
    exact = json.loads(CliRunner().invoke(main, ["predict", str(head), "--top=5", "--json", "--", *given]).stdout)
    assert [p["path"] for p in exact["predictions"]] == given
    assert name in [entry["label"] for entry in exact["predictions"][0]["top"]]


# Fuzzing: whatever is done to real files, only FeatxErrors come out


MUTATIONS = int(os.environ.get("FEATX_MUTATIONS", "600"))
"""Of each real file; a night's run takes more."""


def spoil(out: bytearray, place: int, rng: random.Random) -> None:
    """One bit, byte or stretch of bytes there changed, cut, doubled or overwritten."""
    stretch = slice(place, place + rng.choice([1, 1, 1, 2, 8, 100]))
    count = len(out[stretch])
    changes: list[Callable[[], bytes]] = [
        lambda: bytes([out[place] ^ 1 << rng.randrange(8)]) + out[place + 1 : stretch.stop],
        lambda: rng.randbytes(count),
        lambda: bytes(rng.choices(b'0123456789-.eE+[]{}",:', k=count)),
        lambda: b"",
        lambda: bytes(out[stretch] * 2),
        lambda: bytes(count),
    ]
    out[stretch] = rng.choice(changes)()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes, spoilt in one to four places, mostly in the header, and sometimes cut short."""
    out, header = bytearray(data), int.from_bytes(data[:8], "little")
    for _ in range(rng.randint(1, 4)):
        in_header = rng.random() < 0.8 and header < len(data)
        spoil(out, min(rng.randrange(8 + header if in_header else len(data)), len(out) - 1), rng)
    if rng.random() < 0.7 and header < len(data):  # the header's length stays true, so that what follows is read
        out[:8] = max(0, header + len(out) - len(data)).to_bytes(8, "little")
    return bytes(out[: rng.randrange(len(out))] if rng.random() < 0.02 else out)


@pytest.mark.parametrize("what", [*FORMS, "model"])
def test_changed_bytes_of_a_head_or_model_give_only_featx_errors(
    what: str, heads: dict[str, Path], model: Path, image: Path, tmp_path: Path
) -> None:
    source = model if what == "model" else heads[what]
    data, path, rng = source.read_bytes(), tmp_path / "x.safetensors", random.Random(f"{what} 0")
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(data, rng))
        only_featx_errors(path, image)


def test_changed_bytes_of_weights_give_only_featx_errors(tmp_path: Path) -> None:
    embedded = (Path(featx.__file__).parent / "backbones" / "lenet5-digits.safetensors").read_bytes()
    torch.save(featx.load_backbone("lenet5").network.state_dict(), tmp_path / "zip.pth")
    torch.save(torch.load(tmp_path / "zip.pth"), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    rng = random.Random(0)
    for name, data in [
        ("w.safetensors", embedded),
        ("zip.pth", (tmp_path / "zip.pth").read_bytes()),
        ("old.pth", (tmp_path / "old.pth").read_bytes()),
    ]:
        for _ in range(MUTATIONS):
            (tmp_path / name).write_bytes(mutated(data, rng))
            with contextlib.suppress(BackboneError):
                registry.build("lenet5", str(tmp_path / name))


WORDS = st.sampled_from(
    ["", "lenet5", "mobilenet_v1_025", "default", "random", "penultimate", "features.5", "classifier", "svm", "rbf", "knn",
     "a\0b", "\ud800", "/", "/dev/zero", "timm/hf-hub:a/b", "x.py:f", "1e999", "nan", "bilinear", "file", "timm", "featx"]
)  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 32, 84, 2048, 2**31, 2**53, 2**62, 10**18, 10**30, 1e-320, 1e308, -0.0])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | WORDS, inner, max_size=3),
    max_leaves=6,
)
ARRAYS = st.builds(
    lambda dtype, shape, fill: np.full(shape, fill).astype(dtype),
    st.sampled_from(["f8", "f4", "f2", "i8", "i4", "u1", "u8", "?"]),
    st.sampled_from(
        [(), (0,), (1,), (5,), (84,), (5, 84), (84, 5), (5, 0), (645, 84), (645, 16), (5, 84, 1, 1), (1,) * 8]
    ),
    st.sampled_from([0, 1, 2, 4, 5, 100]),
)


def places(facts: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and item in JSON, however deep, as the way to it; of long lists the first."""
    inner = facts.items() if isinstance(facts, dict) else enumerate(facts[:3]) if isinstance(facts, list) else ()
    found = [(*way, key) for key, _ in inner]
    for key, value in list(facts.items() if isinstance(facts, dict) else enumerate(facts[:3])) if found else ():
        found += places(value, (*way, key))
    return found


@st.composite
def changes(draw: st.DrawFn, arrays: Arrays, facts: Facts) -> tuple[Arrays, Facts]:
    """A real file's content with one to three of its parts dropped, replaced or added."""
    arrays, facts = dict(arrays), copy.deepcopy(facts)
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["drop", "replace", "replace", "replace", "add", "array", "lose array"]))
        if what in ("drop", "replace", "add"):
            way = draw(st.sampled_from(places(facts) or [("x",)]))
            holder: Any = facts
            for key in way[:-1]:
                holder = holder[key]
            if what == "drop" and (way[-1] in holder if isinstance(holder, dict) else way[-1] < len(holder)):
                del holder[way[-1]]
            elif what == "add" and isinstance(holder, dict):
                holder[draw(st.text(max_size=5) | WORDS)] = draw(JSON)
            elif isinstance(holder, dict) or way[-1] < len(holder):
                holder[way[-1]] = draw(JSON)
        else:
            name = draw(st.sampled_from([*arrays, "more"]))
            arrays.pop(name, None)
            if what == "array":
                arrays[name] = draw(ARRAYS)
    return arrays, facts


@pytest.mark.parametrize("what", [*FORMS, "model"])
def test_changed_content_of_a_head_or_model_gives_only_featx_errors(
    what: str, heads: dict[str, Path], model: Path, image: Path, tmp_path: Path
) -> None:
    arrays, facts = contents(model if what == "model" else heads[what])

    @settings(
        max_examples=MUTATIONS // 5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes(arrays, facts))
    def check(changed: tuple[Arrays, Facts]) -> None:
        only_featx_errors(craft(tmp_path / "x.safetensors", *changed), image)

    check()

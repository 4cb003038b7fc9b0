"""The file of a head: what it must hold, and how a fitted head becomes one and is made from one.

A head is passed as two mappings: its parameters (the arguments of ``Head``) and its fitted attributes, whose names end in
"_". Whatever a file holds, nothing of it is run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import CALIBRATIONS, KERNELS, TASKS
from featx.data.transform import Transform
from featx.errors import CorruptFileError
from featx.features.joint_sets import blocks_of, is_joint
from featx.heads.conformal import Conformal
from featx.heads.parameters import WITHOUT_GUARANTEES, check_for_task, check_parameters
from featx.heads.postprocess import Isotonic, Postprocess, class_name
from featx.heads.predictors import CosinePredictor
from featx.heads.registry import HEAD_KINDS, PARAMETERS, get_kind, kind_names, predictor_classes
from featx.heads.search import Tried
from featx.heads.seen import NO_KEYS
from featx.heads.targets import Constant
from featx.heads.texts import ClassTexts
from featx.io import model_file
from featx.io.atomic import write_whole
from featx.io.model_file import Schema
from featx.io.outputs import require_replaceable
from featx.io.schema import (
    ANY_BACKBONE,
    DIGEST,
    FOREIGN_DIGEST,
    LAYER,
    NAMES,
    NO_TEXT,
    NULL,
    NUMBER,
    OBJECT,
    PATH,
    POSITIVE,
    SHARE,
    TEXT,
    TINY,
    ArraySpec,
    Rule,
    member_of,
    one_of,
    value_fault,
    whole,
)
from featx.metrics.classification import ClassificationReport
from featx.metrics.reports import Report
from featx.text import counted, printable

# What a promoted model's file holds too: what it was made from, and the head that it began as.

KIND = member_of(kind_names)
"""The rule for the name of a kind of head."""
IDENTITY = (NO_TEXT, (DIGEST, FOREIGN_DIGEST))
"""The rule for the identity of features, which is empty if they were not extracted by featx."""
REPORT = {"n": whole(1), "split": TEXT}
"""The rule for a stored report."""
ORIGIN = {"sha256": DIGEST, "dataset": OBJECT, "n_train": whole(0), "seconds": NUMBER}
"""The rules for the checksum, the data set and the fit."""
SEARCHED = {
    "C": (NULL, POSITIVE),
    "k": (NULL, whole(1)),
    "kernel": (NULL, one_of(*KERNELS)),
    "seed": (NULL, whole(-(2**63))),
}
"""The rules for a head's hyper-parameters."""

_CLASS_WEIGHT = Rule(
    '"balanced", or the weights of classes by name', lambda value: value == "balanced" or isinstance(value, dict)
)

_METADATA = {
    **ORIGIN,
    "classes": NAMES,
    "kind": KIND,
    "form": member_of(lambda: predictor_classes()),
    "task": one_of(*TASKS),
    "parameters": {
        **SEARCHED,
        "weight_decay": (NULL, NUMBER),
        "class_weight": (NULL, _CLASS_WEIGHT),
        "logit_adjustment": NUMBER,
        "calibrate": (NULL, one_of(*CALIBRATIONS)),
        "group": (NULL, TEXT),
    },
    "temperature": POSITIVE,
    "reject_below": (NULL, SHARE),
    "layer": LAYER,
    "identity": IDENTITY,
    "backbone": ANY_BACKBONE,
    "source": (NULL, PATH),
    "search": [{"candidate": NUMBER, "mean": (NULL, NUMBER), "standard_error": (NULL, NUMBER)}],
    "convergence": (NULL, {"gap": NUMBER, "iterations": whole(0)}),
    "notes": [TEXT],
    "held_out": (NULL, REPORT),
    "report": (NULL, REPORT),
}
_ARRAYS = {
    "mean": ArraySpec("F64", "D"),
    "scale": ArraySpec("F64", "D", TINY),
    "offset": ArraySpec("F64", "C"),
    "train_keys": ArraySpec("U8", "NK"),
}
_OPTIONAL_ARRAYS = (
    {"thresholds": ArraySpec("F64", "C", 0, 1)},
    {f"isotonic.{name}": spec for name, spec in Isotonic.ARRAYS.items()},
    {"texts": ArraySpec("F64", "TD")},
    {"conformal": Conformal.THRESHOLDS},
    {"validation_keys": ArraySpec("U8", "VK")},
)
"""Arrays that a head may have besides: of each group all or none."""
_STORED_ARGUMENTS = ("kernel", "class_weight", "logit_adjustment", "calibrate", "seed")
_MAX_CONFUSION_CLASSES = 1000  # the report of more classes is stored without its C x C table


def _expected_arrays(metadata: Mapping[str, Any], names: Collection[str]) -> dict[str, ArraySpec]:
    specs = dict(_ARRAYS)
    specs |= {f"scorer.{name}": spec for name, spec in predictor_classes()[metadata["form"]].ARRAYS.items()}
    for group in _OPTIONAL_ARRAYS:
        specs |= group if group.keys() & set(names) else {}
    return specs


HEAD = Schema(
    format="featx-head",
    version=2,
    command="fit-head",
    metadata=_METADATA,
    arrays=_expected_arrays,
    lengths=lambda metadata: {"C": len(metadata["classes"]), "N": metadata["n_train"], "K": 16},
)
"""What a head's file must hold."""


def parameters_in_use(params: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a fitted head, as in its file and in ``--json``; None where the kind has none such.

    Args:
        params: the arguments of ``Head``.
        fitted: its fitted attributes.
    """
    return {
        **{name: fitted[f"{name}_"] for name in PARAMETERS},
        "kernel": params["kernel"] if len(HEAD_KINDS[params["kind"]].kernels) > 1 else None,
        "class_weight": weights_by_name(params["class_weight"]),
        "logit_adjustment": params["logit_adjustment"],
        "calibrate": params["calibrate"],
        "group": fitted["group_"],
        "seed": params["seed"],
    }


def weights_by_name(class_weight: Any) -> Any:
    """The weights of classes by their names, as JSON holds them; "balanced" and None as they are."""
    if not isinstance(class_weight, Mapping):
        return class_weight
    return {class_name(name): float(weight) for name, weight in class_weight.items()}


def write_head(
    path: Path, params: Mapping[str, Any], fitted: Mapping[str, Any], *, report: Report | None = None,
    made: Mapping[str, Any] | None = None, cross_validated: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a fitted head as one .safetensors file: arrays, and JSON in its metadata.

    Args:
        path: of the file.
        params: the arguments of ``Head``.
        fitted: its fitted attributes.
        report: on the held-out split, to be stored with the head.
        made: how it was made, from ``featx.heads.refits.Made``, to be stored too.
        cross_validated: from ``featx.metrics.cross_validation.stored``, to be stored too.

    Raises:
        OutputError: the file cannot be written, or there is a file at the path that is not a head.
        HeadError: an attribute was set to something that could not be read again.
    """
    require_replaceable(path, HEAD.kind)
    write_whole(path, pack_head(path, params, fitted, report=report, made=made, cross_validated=cross_validated))


def pack_head(
    path: Path, params: Mapping[str, Any], fitted: Mapping[str, Any], *, report: Report | None = None,
    made: Mapping[str, Any] | None = None, cross_validated: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """Make the whole file of a fitted head in memory. The arguments are as above; the path is for messages.

    Raises:
        HeadError: an attribute was set to something that could not be read again.
    """
    predictor, postprocess = fitted["predictor_"], fitted["postprocess_"]
    arrays = {
        "mean": fitted["mean_"],
        "scale": fitted["scale_"],
        "offset": postprocess.offset,
        "train_keys": fitted["train_keys_"],
        **{f"scorer.{f.name}": getattr(predictor, f.name) for f in fields(predictor)},
    }
    if postprocess.isotonic is not None:
        arrays |= {f"isotonic.{f.name}": getattr(postprocess.isotonic, f.name) for f in fields(Isotonic)}
    optional = {
        "thresholds": postprocess.thresholds,
        "conformal": None if postprocess.conformal is None else postprocess.conformal.thresholds,
        "validation_keys": fitted["validation_keys_"] if len(fitted["validation_keys_"]) else None,
    }
    arrays |= {name: array for name, array in optional.items() if array is not None}
    task, held_out, source = fitted["task_"], fitted["held_out_"], fitted["source_"]
    metadata = {
        "kind": params["kind"],
        "form": _form(params, task),
        "task": task,
        "parameters": parameters_in_use(params, fitted),
        "temperature": postprocess.temperature,
        "reject_below": postprocess.reject_below,
        "source": str(source) if source else None,
        "search": [tried.as_dict() for tried in fitted["search_"]],
        "held_out": stored_report(held_out) if held_out else None,
        "report": stored_report(report) if report else None,
        **{
            name: fitted[f"{name}_"]
            for name in (
                "classes", "layer", "identity", "backbone", "dataset", "n_train", "constant", "convergence", "seconds",
                "notes",
            )
        },
    }  # fmt: skip
    if params["texts"] is not None:
        arrays["texts"], metadata["texts"] = params["texts"].vectors, params["texts"].facts
    if postprocess.conformal is not None:
        metadata["conformal"] = postprocess.conformal.facts
    if fitted.get("factors_"):
        metadata["factors"] = list(fitted["factors_"])
    if fitted.get("gains_"):
        metadata["side_by_side"] = fitted["gains_"]
    if made is not None:
        metadata["made"] = dict(made)
    if cross_validated is not None:
        metadata["cross_validated"] = dict(cross_validated)
    return model_file.pack(path, arrays, metadata, HEAD)


def read_head(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a head: the arguments of ``Head``, and its fitted attributes.

    Raises:
        ModelNotFoundError: the file does not exist, or cannot be opened.
        CorruptFileError: not a head, or a damaged one; the message names the fault.
    """
    return _from_contents(path, *model_file.read(path, HEAD))


def unpack_head(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the file of a head that is in memory, as ``pack_head`` makes it; the path is for messages.

    Raises:
        CorruptFileError: as ``read_head``.
    """
    return _from_contents(path, *model_file.unpack(path, data, HEAD))


def _from_contents(
    path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    stored, task = meta["parameters"], meta["task"]
    params = {
        "kind": meta["kind"],
        "task": task,
        "C": stored["C"],
        "k": stored["k"],
        **{name: stored[name] for name in _STORED_ARGUMENTS},
        "kernel": stored["kernel"] or "linear",
        "reject_below": None,
        **WITHOUT_GUARANTEES,
        "texts": None,
    }
    try:
        conformal = None
        if "conformal" in arrays:
            conformal = Conformal.of(meta.get("conformal"), arrays["conformal"])
            params |= {"conformal": conformal.alpha, "conformal_per_class": conformal.per_class}
        if "texts" in arrays:
            if fault := value_fault(meta.get("texts"), ClassTexts.RULES, "texts"):
                raise ValueError(fault)
            params["texts"] = ClassTexts.of(meta["texts"], arrays["texts"])
        check_parameters(params)
        check_for_task(params, task)
        form = _form(params, task)
        if meta["form"] != form:
            raise ValueError(f"a {meta['form']} predictor does not make a {meta['kind']} head of {task}")
        _require_task(task, meta["classes"], "thresholds" in arrays)
        _require_backbone(meta["backbone"], len(arrays["mean"]))
        if fault := value_fault(meta.get("factors", []), [POSITIVE], "factors"):
            raise ValueError(fault)
        if fault := value_fault(meta.get("side_by_side"), (NULL, OBJECT), "side_by_side"):
            raise ValueError(fault)
    except (TypeError, ValueError) as error:  # a HeadError is a ValueError
        raise CorruptFileError(f"{path} is not a valid head: {printable(str(error))}") from error
    return params, _fitted_attributes(arrays, meta, conformal)


def short_weights(backbone: Mapping[str, Any]) -> str:
    """The weights of a stored backbone by name: of a file or URL the last part alone, which names no folder and no server.

    Of several backbones side by side they have a plus between them, as the names have.
    """
    if is_joint(backbone):
        return "+".join(short_weights(part["backbone"]) for part in backbone["parts"])
    return str(backbone.get("weights") or "default").partition("?")[0].rstrip("/").rpartition("/")[2]


def _require_backbone(backbone: Mapping[str, Any], width: int) -> None:
    """Raise ValueError if a backbone has a transform that cannot be, or parts of other columns than the head."""
    blocks = blocks_of(backbone, width)
    if not blocks or blocks[-1].stop != width:
        raise ValueError(
            f"its backbones have {counted(blocks[-1].stop if blocks else 0, 'column')} together, the head {width}"
        )
    for each in [part["backbone"] for part in backbone["parts"]] if is_joint(backbone) else [backbone]:
        if "transform" in each.get("parts", {}):
            Transform.from_dict(each["parts"]["transform"])


def _form(params: Mapping[str, Any], task: str) -> str:
    """The name of the predictor that a head with these parameters has."""
    if params["texts"] is not None:
        return CosinePredictor.FORM
    return get_kind(params["kind"], kernel=params["kernel"]).form(task, params["kernel"])


def _fitted_attributes(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], conformal: Conformal | None
) -> dict[str, Any]:
    predictor = predictor_classes()[meta["form"]]
    curves = {name: arrays.get(f"isotonic.{name}") for name in Isotonic.ARRAYS}
    postprocess = Postprocess(
        meta["task"],
        float(meta["temperature"]),
        arrays["offset"],
        None if curves["x"] is None else Isotonic(**curves),  # type: ignore[arg-type]  # all or none, by the schema
        arrays.get("thresholds"),
        meta["reject_below"],
        conformal,
    )
    return {
        "task_": meta["task"],
        "classes_": tuple(meta["classes"]),
        "predictor_": predictor(**{f.name: arrays[f"scorer.{f.name}"] for f in fields(predictor)}),
        "postprocess_": postprocess,
        "mean_": arrays["mean"],
        "scale_": arrays["scale"],
        "factors_": tuple(map(float, meta.get("factors", ()))),
        "gains_": meta.get("side_by_side"),
        "train_keys_": arrays["train_keys"],
        "validation_keys_": arrays.get("validation_keys", NO_KEYS),
        "n_features_in_": len(arrays["mean"]),
        **{f"{name}_": meta["parameters"][name] for name in (*PARAMETERS, "group")},
        **{
            f"{name}_": meta[name]
            for name in ("layer", "identity", "backbone", "dataset", "n_train", "convergence", "seconds", "notes")
        },
        "constant_": _constant(meta),
        "source_": Path(meta["source"]) if meta["source"] else None,
        "search_": tuple(map(Tried.from_dict, meta["search"])),
        "held_out_": None,
        "out_of_fold_": None,
    }


def _constant(meta: Mapping[str, Any]) -> Constant:
    """The best answer without an image; None in a file of an earlier version, or a stranger's."""
    found, task = meta.get("constant"), meta["task"]
    if task == "multilabel" and isinstance(found, list) and all(name in meta["classes"] for name in found):
        return tuple(found)
    if task == "regression" and isinstance(found, int | float) and not isinstance(found, bool):
        return float(found)
    return found if task == "classification" and found in meta["classes"] else None


def _require_task(task: str, classes: Sequence[str], thresholds: bool) -> None:
    """Raise ValueError if the parts of a file do not make a head of its task."""
    if not {"classification": len(classes) > 1, "multilabel": True, "regression": len(classes) == 1}[task]:
        raise ValueError(f"{counted(len(classes), 'class does', 'classes do')} not make a head of {task}")
    if thresholds != (task == "multilabel"):
        raise ValueError(f"a head of {task} {'with' if thresholds else 'without'} thresholds")


def stored_report(report: Report) -> dict[str, Any]:
    """A report as a file holds it: without the (C, C) confusion of very many classes, for which no header has room."""
    facts = report.as_dict()
    if isinstance(report, ClassificationReport) and len(report.classes) > _MAX_CONFUSION_CLASSES:
        del facts["confusion"]
    return facts

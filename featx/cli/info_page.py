"""The page of ``featx info``: what a file is, for people. ``--json`` has everything that the file states."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from featx.cli.output import digits, print_columns
from featx.constants import FOREIGN, JOINT
from featx.text import counted, listed, noted, printable, size_text

_MOST_NAMED, _MOST_CLASSES, _MOST_EPOCHS = 10, 20, 20

_HELD_OUT = "held out of training"

_MEASURES = {
    "accuracy": "accuracy", "baseline_accuracy": "always one class", "mAP": "mAP", "baseline_mAP": "mAP by chance",
    "rmse": "RMSE", "baseline_rmse": "RMSE of the mean", "mae": "MAE", "r2": "R2",
    "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "micro_f1": "micro F1", "exact_match": "exact match",
    "baseline_exact_match": "always one set of labels",
    "hamming_loss": "Hamming loss", "log_loss": "log loss", "auroc": "AUROC", "average_precision": "average precision",
    "top5": "top-5 accuracy", "ece": "calibration error", "coverage": "accepted", "selective_accuracy": "accuracy if accepted",
    "truth_covered": "sets or intervals with the truth", "mean_size": "mean size of a set", "mean_width": "mean interval width",
}  # fmt: skip
"""The measures of a report in the order of the page, and their names."""

_INTERVALS = {
    "accuracy": "interval",
    "rmse": "interval",
    "exact_match": "exact_match_interval",
    "selective_accuracy": "selective_interval",
    "truth_covered": "covered_interval",
}
"""The key of each measure's interval."""


def show_info(facts: dict[str, Any], file: str) -> None:
    """Print the page about a file, from what ``describe_file`` gives; a stranger's file may state anything in its reports."""
    state = "" if facts.get("complete", True) else " of an interrupted extraction"
    click.echo(f"{printable(file)}: {facts['kind']}{state}, {size_text(facts['bytes'])}\n")
    {"feature file": _show_features, "head": _show_head, "promoted model": _show_model}[facts["kind"]](facts, file)
    click.echo(f"\nfeatx info {printable(shlex.quote(file))} --json prints everything that the file states.")


def _show_features(facts: Mapping[str, Any], file: str) -> None:
    """The page of a feature file: what the features are, its rows as a table, and the first failed images."""
    failed = f", {facts['failed']:,} failed" if facts["failed"] else ""
    parts = facts["backbone"]["parts"]
    _show_lines({
        "images": f"{facts['images']:,}: {facts['done']:,} done{failed}",
        "files": f"{len(facts['files']):,}, of one set" if "files" in facts else "",
        "data set": _data_set(facts["dataset"]),
        "columns": listed(facts["columns"]),
        "backbone": _backbone(facts["backbone"]),
        "layers": "; ".join(f"{name} ({shape})" for name, shape in facts["layers"].items()),
        "images are": _transform(parts["transform"]) if "transform" in parts else "",
        "identity": facts["identity"],
    })  # fmt: skip
    click.echo()
    _show_rows(facts["rows"], facts["classes"])
    _show_failures(facts["failures"], file)


def _show_head(facts: Mapping[str, Any], file: str) -> None:  # noqa: ARG001 - as every page
    """The page of a head: what it is, what it was fitted to, and its results."""
    parameters, search = facts["parameters"], facts.get("search") or []
    tried = f", chosen from {len(search)} values by cross-validation" if len(search) > 1 else ""
    _show_lines({
        "model": f"{_kind(facts['model'], parameters)}{tried}",
        "task": facts["task"],
        "labels" if facts["task"] == "multilabel" else "classes": _classes(facts) if facts["task"] != "regression" else "",
        "settings": _settings(parameters),
        "rejects": _rejects(facts.get("reject_below")),
        "intervals" if facts["task"] == "regression" else "prediction sets": _sets(facts.get("conformal")),
        "temperature": f"{facts['temperature']:.4f}" if facts.get("temperature", 1) != 1 else "",
        "fitted to": f"{counted(facts['n_train'], 'image')} in {facts['seconds']:.2f} s{_made(facts.get('made'))}",
        "data set": _data_set(facts["dataset"]),
        **_head_features(facts),
    })  # fmt: skip
    from featx.metrics.stored import StoredCrossValidation  # it imports numpy

    if (crossed := StoredCrossValidation.of(facts.get("cross_validated"))) is not None:
        click.echo(f"\n{printable(str(crossed))}")
    _show_reports({"": facts.get("report"), _HELD_OUT: facts.get("held_out")})
    _show_notes(facts.get("notes") or [])


def _show_model(facts: Mapping[str, Any], file: str) -> None:  # noqa: ARG001 - as every page
    """The page of a promoted model: the verdict and its evidence, what the network is, and its results."""
    head, log = facts["head"], facts["log"]
    _show_lines({
        "verdict": f"{facts['verdict']}: {facts['why']}",
        "evidence": _evidence(facts.get("paired")),
        "network": f"{facts['name']}, up to {facts['layer']} ({facts['width']} numbers)",
        "head": _kind(head["kind"], head["parameters"]),
        "classes": _classes(facts),
        "rejects": _rejects(facts.get("reject_below")),
        "prediction sets": _sets(facts.get("conformal")),
        "data set": _data_set(facts["dataset"]),
        "fitted to": f"{counted(facts['n_train'], 'image')}, in {facts['seconds']:.1f} s{_made(facts.get('made'))}",
        "images are": _transform(facts["transform"]),
        "fine-tuning": _settings(facts["settings"] or {}),
        "epochs are": f"compared on {facts['chosen_on']}" if facts.get("chosen_on") else "",
        "proof": f"its logits differ from the head's by at most {facts['max_logit_difference']:.2g} before fine-tuning",
    })  # fmt: skip
    reports = {"head": facts["head_report"], "fine-tuned": facts.get("finetuned_report")}
    _show_reports(reports if facts.get("finetuned_report") else {"": facts["report"]})
    if log:
        click.echo()
        names = ("epoch", "loss", "log_loss", "accuracy")
        lines = [
            [str(entry.get("epoch")), *(_number(entry.get(name)) for name in names[1:])] for entry in log[:_MOST_EPOCHS]
        ]
        print_columns(["epoch", "training loss", "log loss", "accuracy"], lines)


def _made(made: Any) -> str:
    """When a file was made and by which featx, as the end of a line; "" where it does not state it."""
    if not isinstance(made, dict) or not isinstance(made.get("at"), str) or not made["at"]:
        return ""
    return f", at {made['at'][:16].replace('T', ' ')} UTC by featx {made.get('featx')}"


def _show_lines(lines: Mapping[str, Any]) -> None:
    """Print one name and its value on each line; what is not set is left out."""
    shown = {name: str(value) for name, value in lines.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {printable(value)}")


def _show_reports(reports: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Print the measures of reports side by side, each with its interval; their titles name the images."""
    present = {title: report for title, report in reports.items() if report}
    if not present:
        return
    present = {title: {**report, **_guaranteed(report)} for title, report in present.items()}
    columns = [_images_of(title, report) for title, report in present.items()]
    names = [name for name in _MEASURES if any(report.get(name) is not None for report in present.values())]
    lines = [[_MEASURES[name], *(_measured(report, name) for report in present.values())] for name in names]
    click.echo()
    print_columns(["", *columns], lines)


def _guaranteed(report: Mapping[str, Any]) -> dict[str, Any]:
    """The measures of a report's prediction sets or intervals, by their keys in ``_MEASURES`` and ``_INTERVALS``."""
    of = report.get("sets", report.get("prediction_intervals"))
    if not isinstance(of, dict):
        return {}
    keys = {
        "truth_covered": "coverage",
        "covered_interval": "interval",
        "mean_size": "mean_size",
        "mean_width": "mean_width",
    }
    return {name: of.get(key) for name, key in keys.items()}


def _images_of(title: str, report: Mapping[str, Any]) -> str:
    """The title of a report's column."""
    of = "" if title == _HELD_OUT else f" of {report.get('split')}"
    return f"{title + ', ' if title else ''}{_images(report.get('n'))}{of}"


def _measured(report: Mapping[str, Any], name: str) -> str:
    """A measure with its interval, if it has one."""
    value, interval = report.get(name), report.get(_INTERVALS.get(name, ""))
    ends = f" ({' to '.join(map(_number, interval))})" if isinstance(interval, list) and len(interval) == 2 else ""
    return f"{_number(value)}{ends if value is not None else ''}"


def _show_notes(notes: Sequence[str]) -> None:
    for number, note in enumerate(notes):
        click.echo(f"{'' if number else chr(10)}{noted(note)}")


def _show_rows(rows: dict[str, dict[str, int]], classes: dict[str, int]) -> None:
    """Print how many images of each class are in each split: the first classes, then all others together."""
    names = sorted({name for counts in rows.values() for name in counts}, key=lambda n: (n not in classes, n))
    lines = [[name, *(counts.get(name, 0) for counts in rows.values())] for name in names[:_MOST_CLASSES]]
    if len(names) > _MOST_CLASSES:
        others = names[_MOST_CLASSES:]
        lines.append([f"({len(others)} more)", *(sum(c.get(n, 0) for n in others) for c in rows.values())])
    lines.append(["all", *(sum(counts.values()) for counts in rows.values())])
    print_columns(["rows", *rows, "all"], [[*line, sum(line[1:])] for line in lines])


def _show_failures(failures: dict[str, str], file: str) -> None:
    """Print the first images that failed, and why."""
    if not failures:
        return
    click.echo(f"\n{len(failures):,} failed:")
    for path, error in list(failures.items())[:_MOST_NAMED]:
        click.echo(f"  {printable(path)}: {printable(error)}")
    if len(failures) > _MOST_NAMED:
        click.echo(f"  and {len(failures) - _MOST_NAMED} more (featx info --failed {file} lists them)")


def _classes(facts: Mapping[str, Any]) -> str:
    """The first classes or labels of a head."""
    return listed(facts["classes"], _MOST_CLASSES)


def _number(value: Any) -> str:
    """A number with four decimals; anything else as it is, and "-" where there is nothing."""
    return digits(value) if value is None or type(value) in (int, float) else str(value)


def _images(value: Any) -> str:
    return counted(value, "image") if type(value) is int else f"{value} images"


def _count(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def _kind(kind: str, parameters: Mapping[str, Any]) -> str:
    """A kind of head with its hyper-parameters."""
    chosen = [
        f"{name} = {parameters[name]:g}" for name in ("C", "k", "weight_decay") if parameters.get(name) is not None
    ]
    kernel = ["rbf kernel"] if parameters.get("kernel") == "rbf" else []
    return ", ".join([kind, *chosen, *kernel])


def _settings(parameters: Mapping[str, Any]) -> str:
    """The settings that are not off, less those that ``_kind`` shows."""
    shown = ("C", "k", "weight_decay", "kernel") if "calibrate" in parameters else ()
    return ", ".join(
        _setting(name, value) for name, value in parameters.items() if name not in shown and _is_set(value)
    )


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def _is_set(value: Any) -> bool:
    return value is True or value not in (None, False, 0, "", [])


def _rejects(threshold: float | None) -> str:
    from featx.heads.rejection import rejected_text  # it imports numpy

    return "" if threshold is None else rejected_text(threshold)


def _sets(conformal: Any) -> str:
    """What the prediction sets of a head or model promise; "" where there are none, or the file's facts are no such."""
    import numpy as np  # with what follows it, it takes longer to import than the page to print

    from featx.heads.conformal import Conformal

    try:
        return Conformal.of(conformal, np.empty(0)).sentence
    except ValueError:
        return ""


def _evidence(paired: Mapping[str, Any] | None) -> str:
    """The comparison of the head and the fine-tuned network, image by image."""
    if not paired:
        return ""
    return (
        f"on {_images(paired.get('n'))} the head alone is right on {_count(paired.get('head_only'))}, the fine-tuned "
        f"network alone on {_count(paired.get('finetuned_only'))}; p = {_number(paired.get('p_value'))}"
    )


def _data_set(dataset: Mapping[str, Any]) -> str:
    """A data set's name, its place, and who made its splits."""
    made = {"given": "its own splits", "hash": "splits by content"}.get(str(dataset.get("splits")), "")
    place = dataset.get("table") or dataset.get("root") or ""
    return ", ".join(filter(None, [f"{dataset.get('name', '')} ({place})", made]))


def _head_features(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The lines about the features of a head: its backbone, layer and file; of several backbones a line for each."""
    backbone = facts["backbone"]
    if backbone.get("source") != JOINT:
        return {"backbone": _backbone(backbone), "layer": facts["layer"], "features": facts.get("source")}
    parts, lines = backbone["parts"], dict[str, Any]()
    scales = [*(facts.get("factors") or ()), *[1.0] * len(parts)]  # kinds without scales name none
    for number, (part, scale) in enumerate(zip(parts, scales, strict=False), start=1):
        columns = counted(part["width"], "column")
        lines[f"backbone {number}"] = f"{_backbone(part['backbone'])}: {part['layer']}, {columns}, scale {scale:g}"
        lines[f"features {number}"] = part["file"]
    return lines


def _backbone(backbone: Mapping[str, Any]) -> str:
    """A backbone's name, weights and precision."""
    if not backbone:
        return ""
    if FOREIGN in backbone["parts"]:
        return f"{backbone['name']}, another tool's; featx cannot compute these features for new images"
    precision = backbone["parts"].get("precision", "float32")
    computed = [f"computed in {precision}"] if precision != "float32" else []
    return ", ".join([backbone["name"], f"{backbone['weights']} weights", *computed])


def _transform(transform: Mapping[str, Any]) -> str:
    """How images become the input of the network, or of each of several."""
    if "parts" in transform:
        return "; ".join(", ".join(_steps(part)) for part in transform["parts"])
    return ", ".join(_steps(transform))


def _steps(transform: Mapping[str, Any]) -> Iterator[str]:
    if {"fit", "crop_width", "channels"}.isdisjoint(transform):
        if transform.get("resize"):
            yield f"resized to {transform['resize']} pixels ({transform.get('interpolation')})"
        yield f"cropped to {transform['crop']}"
    else:
        from featx.data.fitting import fit_words
        from featx.data.transform import Transform

        yield f"{fit_words(Transform.from_dict(transform))} ({transform.get('interpolation')})"
        if (channels := transform.get("channels", 3)) != 3:
            yield "grey" if channels == 1 else f"{channels} channels"
    if transform.get("decoding", "exact") != "exact":
        yield f"decoded by {transform['decoding']}"
    for name in ("value_range", "bands"):
        if transform.get(name):
            yield f"{name.replace('_', ' ')} {transform[name]}"

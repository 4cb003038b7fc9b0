"""README.md of a folder that is handed over: a model card with the front matter of the Hugging Face hub."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from featx.deployment.card_facts import CardFacts
from featx.deployment.front_matter import front_matter
from featx.deployment.library_network import FEATURES, LOGITS, LibraryNetwork
from featx.deployment.proof import Proof
from featx.layer_spec import LayerSpec
from featx.text import as_sentence, counted, form, printable

MOST_CLASSES = 12
"""The classes up to which the confusion matrix is a table in the text too."""

_MOST_NAMED = 100  # classes whose images and scores are listed
_SMALL = 100  # images of a test set, below which the card warns
_TASKS = {
    "classification": ("image-classification", "Image classification"),
    "multilabel": ("image-classification", "Multi-label image classification"),
    "regression": ("image-regression", "Image regression"),
}
_METRICS = {
    "accuracy": ("accuracy", "Accuracy", "interval"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy", ""),
    "macro_f1": ("f1", "Macro F1", ""),
    "mAP": ("mean_average_precision", "Mean average precision", ""),
    "exact_match": ("exact_match", "Exact match", "exact_match_interval"),
    "rmse": ("rmse", "RMSE", "interval"),
    "mae": ("mae", "MAE", ""),
    "log_loss": ("log_loss", "Log loss", ""),
    "auroc": ("roc_auc", "AUROC", ""),
    "r2": ("r_squared", "R²", ""),
    "ece": ("ece", "Expected calibration error", ""),
}
"""The numbers of a report: the hub's name, the name in the text, and the key of the interval."""


def model_card(
    card: CardFacts, network: LibraryNetwork, proof: Proof, *, files: Mapping[str, str], difference: str
) -> str:
    """The text of README.md.

    Args:
        card: what is known of the model.
        network: how its network is stored.
        proof: the comparison of the program with featx.
        files: what each file of the folder is.
        difference: what the network's own outputs were compared with, as a sentence; "" without one.
    """
    sections = [
        _head(card),
        _use(card, network, files),
        _data(card),
        _results(card, "confusion.png" in files),
        _decisions(card),
        _sets(card),
        _made(card, proof, difference),
        _limits(card, network),
        _files(files),
    ]
    body = "\n\n".join("\n".join(section) for section in sections if section)
    return f"{front_matter(_fields(card, network))}\n{body}\n"


def _fields(card: CardFacts, network: LibraryNetwork) -> dict[str, Any]:
    """The front matter. What is not known, such as a license, is left out."""
    kind, words = _TASKS[card.task]
    found = [(key, *_METRICS[key]) for key in _METRICS if _number(card.report, key) is not None]
    metrics = [
        {"type": hub, "value": _number(card.report, key), "name": f"{name}{_interval(card.report, interval)}"}
        for key, hub, name, interval in found
    ]
    result = {
        "task": {"type": kind, "name": words},
        "dataset": {
            "name": printable(card.data),
            "type": _slug(card.data),
            "split": str((card.report or {}).get("split", "")) or None,
        },
        "metrics": metrics,
    }
    return {
        "library_name": network.library,
        "pipeline_tag": kind if card.task != "regression" else None,
        "tags": ["featx", kind, *(["multi-label"] if card.task == "multilabel" else [])],
        "base_model": _base_model(card),
        "metrics": list(dict.fromkeys(hub for _, hub, _, _ in found)),
        "model-index": [{"name": printable(str(card.facts["name"])), "results": [result]}] if metrics else None,
    }


def _base_model(card: CardFacts) -> str | None:
    """The repository of the hub that the backbone is from, where it is one."""
    short = card.backbone.removeprefix("hf/").partition("@")[0]
    from_hub = card.backbone.startswith("hf/") and card.weights in ("default", "")
    return short if from_hub and re.fullmatch(r"[\w.-]+/[\w.-]+", short) else None


# The text


_HEADLINES = {"accuracy": "accuracy", "mAP": "mean average precision", "rmse": "RMSE"}


def _head(card: CardFacts) -> list[str]:
    n = len(card.classes)
    does = {
        "classification": f"tells images of {n} classes apart",
        "multilabel": form(n, "tells whether an image has its one label", f"tells which of {n} labels an image has"),
        "regression": "predicts a number from an image",
    }[card.task]
    lines = [f"# {md(str(card.facts['name']))}", "", f"This model {does}. {_headline(card)}".rstrip()]
    if card.task != "regression":
        names = ", ".join(map(md, card.classes[:_MOST_NAMED]))
        more = f", and {n - _MOST_NAMED:,} more" if n > _MOST_NAMED else ""
        lines += ["", f"{'Classes' if card.task == 'classification' else 'Labels'}: {names}{more}."]
    return lines


def _beside(report: Mapping[str, Any], key: str) -> str:
    """The number of a model that gives every image the same answer, for a sentence."""
    always = _number(report, f"baseline_{key}")
    return "" if always is None else f"; the same answer for every image would have {always:.4g}"


def _headline(card: CardFacts) -> str:
    for key in _HEADLINES:
        value = _number(card.report, key)
        if value is not None and card.report:
            interval = _interval(card.report, _METRICS[key][2])
            return (
                f"On {counted(card.report['n'], 'image')} of the split {md(card.report['split'])} of {md(card.data)}, its "
                f"{_HEADLINES[key]} is {value:.4g}{interval}{_beside(card.report, key)}."
            )
    return "It has not been evaluated on held-out images."


def _use(card: CardFacts, network: LibraryNetwork, files: Mapping[str, str]) -> list[str]:
    lines = ["## How to use it", ""]
    if "predict.py" in files:
        lines += [
            "With torch alone (and Pillow for images other than `.ppm`):", "", "```sh",
            "pip install torch pillow", "python predict.py photo.jpg", "```", "",
            "`python predict.py example.ppm` prints what `example.json` holds, up to rounding.", "",
        ]  # fmt: skip
    lines += [
        f"`model.pt2` is the whole model: it takes {_pixels(card)}, resizes, crops and normalises them, and gives "
        f"{_outputs(card)}. It was written by torch {card.torch}; load it with that version or a newer one.", "",
        "```python", "import torch", "", 'model = torch.export.load("model.pt2").module()',
        f"outputs = model(pixels)  # a dict: {', '.join(_names(card))}", "```",
    ]  # fmt: skip
    if network.usage:
        lines += ["", f"With {network.library}, {_gives(card, network)}:", "", "```python"]
        lines += [*network.usage.rstrip().split("\n"), "```"]
        lines += ["", f"{network.library} prepares images by code of its own: a level may differ by one from that in "
                  "`model.pt2`, and probabilities accordingly."]  # fmt: skip
    return [*lines, *(part for note in network.notes for part in ("", _sentence(note)))]


def _pixels(card: CardFacts) -> str:
    transform = card.facts["transform"]
    channels = transform.get("channels", 3)
    if channels in (1, 3):
        return "`(N, H, W, 3)` uint8 RGB of any size, upright (EXIF orientation applied; convert OpenCV's BGR to RGB first)"
    return f"`(N, H, W, {channels})` uint8, the bands of the images, of any size"


def _names(card: CardFacts) -> list[str]:
    return ["value", "embedding"] if card.task == "regression" else ["probabilities", "label", "embedding"]


def _outputs(card: CardFacts) -> str:
    return {
        "classification": "the probabilities of the classes, the index of the predicted class (-1 for none), and the embedding",
        "multilabel": "the probability of each label, which labels are predicted, and the embedding",
        "regression": "the number and the embedding",
    }[card.task]


def _gives(card: CardFacts, network: LibraryNetwork) -> str:
    if network.gives != LOGITS:
        return "the network gives the features alone; the head is in `head.safetensors` and inside `model.pt2`"
    scores = {
        "classification": "logits, whose softmax are the probabilities",
        "multilabel": "logits, whose sigmoid are the probabilities",
        "regression": "the number",
    }[card.task]
    return f"the network gives {scores}"


def _data(card: CardFacts) -> list[str]:
    lines = ["## Data", "", f"The data set is {md(card.data)}. {_splits(card)}".rstrip()]
    if card.group:
        lines += [
            "",
            f"Images with the same {md(card.group)} are never in two splits or folds; intervals are by these groups.",
        ]
    splits: list[str] = [split for split in ("train", "val", "test") if split in card.counts]
    splits += [split for split in card.counts if split not in splits]
    if not splits:
        return lines
    names = list(dict.fromkeys(name for split in splits for name in card.counts[split]))
    rows = [
        [md(name) or "images", *(f"{card.counts[s].get(name, 0):,}" for s in splits)] for name in names[:_MOST_NAMED]
    ]
    if len(names) > 1 and card.task == "classification":
        rows.append(["all", *(f"{sum(card.counts[split].values()):,}" for split in splits)])
    lines += ["", *_table(["images", *map(md, splits)], rows)]
    if len(names) > _MOST_NAMED:
        lines += ["", f"The table shows {_MOST_NAMED} of {len(names):,} classes."]
    return [*lines, "", "The labels are those of the data set as it was given; nobody checked them for this card."]


def _splits(card: CardFacts) -> str:
    origin = (card.facts.get("dataset") or {}).get("splits")
    trained = f"The head was fitted to {counted(card.trained_on, 'image')} of the split train."
    if origin == "hash":
        return f"featx made the splits itself, by the hash of each image's content. {trained}"
    return f"The splits are those of the data set. {trained}" if origin else trained


def _results(card: CardFacts, picture: bool) -> list[str]:
    report = card.report
    if not report:
        return ["## Results", "", "The model's file holds no evaluation on held-out images."]
    groups = f" in {counted(report['groups'], 'group')}" if report.get("groups", report["n"]) != report["n"] else ""
    lines = ["## Results", "", f"On {counted(report['n'], 'image')}{groups} of the split {md(report['split'])}:", ""]
    rows = []
    for key, (_, name, interval) in _METRICS.items():
        value = _number(report, key)
        if value is not None:
            always = _number(report, f"baseline_{key}")
            interval = _interval(report, interval).strip(" ()").removeprefix("95 % interval ")
            rows.append([name, f"{value:.4f}", interval, "" if always is None else f"{always:.4f}"])
    lines += _table(["", "value", "95 % interval", "without looking"], rows)
    lines += _without_looking(report)
    lines += [*_chosen(card), *_per_class(report), *_confusion(report, picture)]
    notes = [_sentence(note) for note in report.get("notes", ())]
    return [*lines, *(("", *notes) if notes else ())]


def _chosen(card: CardFacts) -> list[str]:
    """What hyper-parameters were chosen on, and what the cross-validation says."""
    split = str((card.report or {}).get("split", ""))
    other = "no other choice" if card.verdict in ("promoted", "kept-head") else "none of these choices"
    lines = ["", f"{_how_chosen(card)} The split {md(split)} was used for {other}."]
    value = _number(card.validation, "accuracy")
    if value is not None and card.validation:
        interval = _interval(card.validation, "interval")
        lines += ["", f"On {counted(card.validation['n'], 'training image')}, each predicted by a head that was not fitted to "
                  f"it, the accuracy is {value:.4f}{interval}."]  # fmt: skip
    return lines


def _how_chosen(card: CardFacts) -> str:
    if card.verdict == "promoted":
        return (
            "The epoch of fine-tuning was chosen on validation images. Whether the fine-tuned network or the head it began "
            f"as is handed over was decided on the split {md(str((card.report or {}).get('split', '')))}: "
            f"{md(card.why).rstrip('.')}."
        )
    what = "Hyper-parameters were chosen" if card.searched or card.verdict else "No hyper-parameter was searched for"
    if card.calibration.startswith("calibrated") and card.searched:
        what = "Hyper-parameters were chosen, and probabilities calibrated,"
    elif card.calibration.startswith("calibrated"):
        what += "; probabilities were calibrated"
    by = " by cross-validation on the training images alone" if "were" in what else ""
    compared = f" Fine-tuning was tried: {md(card.why).rstrip('.')}." if card.verdict == "kept-head" else ""
    return f"{what}{by}.{compared}"


def _per_class(report: Mapping[str, Any]) -> list[str]:
    each = report.get("per_class") or report.get("per_label") or ()
    if not each:
        return []
    name, columns = ("class" if "class" in each[0] else "label"), ("precision", "recall", "f1")
    rows = [[md(str(row[name])), *(_shown(row.get(column)) for column in columns), f"{row['support']:,}"]
            for row in each[:_MOST_NAMED]]  # fmt: skip
    return ["", *_table([name, "precision", "recall", "F1", "images"], rows)]


def _confusion(report: Mapping[str, Any], picture: bool) -> list[str]:
    confusion, classes = report.get("confusion"), [md(name) for name in report["classes"]]
    lines = []
    if confusion and len(classes) <= MOST_CLASSES:
        rows = [[name, *map(str, row)] for name, row in zip(classes, confusion, strict=True)]
        lines += ["", "The confusion matrix; rows are the true classes, columns the predicted ones:", ""]
        lines += _table(["true \\ predicted", *classes], rows)
    return [*lines, "", "![The confusion matrix as a picture](confusion.png)"] if picture else lines


def _decisions(card: CardFacts) -> list[str]:
    if card.task == "regression":
        return []
    lines = ["## Probabilities and decisions", ""]
    lines.append(f"Probabilities are {card.calibration}." if card.calibration else
                 "Probabilities are the softmax of the network's logits.")  # fmt: skip
    below, report = card.facts.get("reject_below"), card.report or {}
    if card.thresholds:
        listed = ", ".join(f"{md(name)} {value:.4g}" for name, value in [*card.thresholds.items()][:_MOST_NAMED])
        lines += ["", f"A label is predicted from its own probability on: {listed}."]
    elif below:
        lines += [
            "",
            f"No class is predicted where the highest probability is below {below:.4g}: `label` is -1, or null.",
        ]
        if report.get("coverage") is not None and report.get("selective_accuracy") is not None:
            interval = _interval(report, "selective_interval")
            lines[-1] += (
                f" On the split {md(report['split'])}, {100 * report['coverage']:.1f} % of the images got a prediction, and "
                f"{report['selective_accuracy']:.4f} of these predictions were right{interval}."
            )
    else:
        lines += ["", "The most probable class is always predicted; no image is rejected."]
    return lines


def _sets(card: CardFacts) -> list[str]:
    """What prediction sets or intervals promise, and what they were found to keep."""
    conformal, report = card.facts.get("conformal"), card.report or {}
    if not conformal:
        return []
    numbers = card.task == "regression"
    what = "intervals" if numbers else "sets"
    of = " of each class" if conformal["per_class"] else ""
    rule = (
        f"The interval of a number is the number plus and minus {conformal['thresholds'][0]:.4g}."
        if numbers
        else "A class is in the set of an image if the classes that are more probable have at most its threshold of "
        "probability together; `config.json` has the thresholds, and `predict.py` applies them."
    )
    text = (
        f"At most {conformal['alpha']:.4g} of the prediction {what}{of} should miss the truth, for images that are drawn as "
        f"those were that chose the thresholds ({counted(conformal['rows'], 'image')}). Nothing is promised for images of "
        f"other kinds. {rule}"
    )
    if found := report.get("prediction_intervals" if numbers else "sets"):
        interval = " to ".join(f"{end:.4f}" for end in found["interval"])
        size = f"are {found['mean_width']:.4g} wide" if numbers else f"have {found['mean_size']:.2f} classes"
        text += (
            f" On the split {md(report['split'])}, {found['coverage']:.4f} of them contain the truth (95 % interval "
            f"{interval}); they {size} on average."
        )
    return [f"## Prediction {what}", "", text]


def _made(card: CardFacts, proof: Proof, difference: str) -> list[str]:
    parameters = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                           for name, value in card.parameters.items())  # fmt: skip
    weights = {"": "", "default": ", with its published weights", "random": ", with random weights"}.get(
        card.weights, f", with the weights {md(card.weights)}"
    )
    networks = "frozen networks side by side give" if card.backbones else "a frozen network gives"
    how = {
        "": f"{networks} features, and a {card.kind} head on them gives the scores",
        "promoted": f"a {card.kind} head became the last layer of the network, which was then fine-tuned as a whole or in part",
    }.get(card.verdict, f"a {card.kind} head is the last layer of the network")
    layer, views = LayerSpec.parse(str(card.facts["layer"])).layer, card.views
    command = f"featx fit-head --model {card.kind.split()[0]}"
    command += " && featx promote" if card.verdict else ""
    command += " --finetune" if card.verdict in ("promoted", "kept-head") else ""
    averaged = f", in the views of {views}, over which scores are averaged" if views != "plain" else ""
    each = card.backbones or [(card.backbone, "")]
    extract = [f"`featx extract DATA --backbone {_code(name)}`" for name, _ in each]
    backbones = [f"- backbone: {md(name)}, layer {md(layer)}" for name, layer in card.backbones]
    lines = [
        "## How it was made", "",
        f"featx {card.featx} made it: {how}.", "",
        *(backbones or [f"- backbone: {md(card.backbone)}{weights}"]),
        f"- features: {'those of all backbones, side by side' if backbones else 'layer ' + md(layer)}{averaged}",
        f"- head: {card.kind}" + (f" ({md(parameters)})" if parameters else ""),
        f"- commands: {', '.join(extract)}, `{command}`, and `featx export MODEL --to FOLDER/`",
        "",
        f"Before it was written, `model.pt2` was compared with featx: {proof} (at most 0.0001 is allowed).",
    ]  # fmt: skip
    return [*lines, *(("", difference) if difference else ())]


def _without_looking(report: Mapping[str, Any]) -> list[str]:
    """What the last column of the results is; [] for a report of an earlier version."""
    if _number(report, "baseline_rmse") is not None:
        which = "the training" if report.get("baseline_from") == "training images" else "these"
        return ["", f"Without looking: the mean of {which} targets, predicted for every image."]
    if not isinstance(answer := report.get("baseline_answer"), str):
        return []
    return [
        "",
        f"Without looking: the answer {md(answer)} for every image, the commonest of the {report.get('baseline_from')}.",
    ]


def _limits(card: CardFacts, network: LibraryNetwork) -> list[str]:
    limits = []
    report = card.report
    if not report:
        limits.append("It was not evaluated on held-out images, so its accuracy is not known.")
    elif report["n"] < _SMALL:
        limits.append(
            f"The evaluation has {counted(report['n'], 'image')} only, so the numbers are uncertain: see the intervals."
        )
    elif report.get("interval"):
        limits.append(
            f"The evaluation has {counted(report['n'], 'image')}; the intervals say how far its numbers may be off."
        )
    limits += [
        f"It was evaluated on images of {md(card.data)} alone; other cameras, places, times and objects were not tested.",
        _of_no_class(card),
        "" if card.group else "Images that belong together (of one object, person or day) were not known as groups; if there "
        "are any, they may be in several splits, and the numbers too good.",
        "Labels were not checked; wrong ones count as mistakes or hide them.",
    ]  # fmt: skip
    if card.views != "plain":
        limits.append(
            f"The model averages over {len(card.facts['views'])} views of each image. Other programs, which run the network "
            "once, get the scores of one view, which differ."
        )
    if network.gives == LOGITS and card.facts.get("reject_below"):
        limits.append(f"{network.library} does not apply the rejection threshold; `model.pt2` does.")
    if network.gives == LOGITS and card.thresholds:
        limits.append(f"{network.library} does not apply the thresholds of the labels; `model.pt2` does.")
    if network.gives == FEATURES:
        limits.append(f"{network.library} gives the features only, and no probabilities.")
    if card.kind.startswith("knn") or "rbf" in card.kind:
        limits.append("The files hold the features of training images, which the head compares with.")
    limits += [_sentence(note) for note in card.notes]
    return ["## Limits", "", *(f"- {limit}" for limit in limits if limit)]


def _of_no_class(card: CardFacts) -> str:
    if card.task != "classification":
        return ""
    unless = ", unless its probability is too low" if card.facts.get("reject_below") else ""
    return f"An image of none of the classes gets one of them all the same{unless}."


def _files(files: Mapping[str, str]) -> list[str]:
    return ["## Files", "", *_table(["file", "what it is"], [[f"`{name}`", what] for name, what in files.items()])]


# Pieces


def md(text: str) -> str:
    r"""A text for Markdown: printable, on one line, and without a meaning of its own.

    Examples:
        >>> md("a|b_c\n<i>")
        'a\\|b\\_c\\\\n\\<i\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", printable(text))


def _code(text: str) -> str:
    return printable(text).replace("`", "'")


def _sentence(note: str) -> str:
    return md(as_sentence(note.strip()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _number(report: Mapping[str, Any] | None, key: str) -> float | None:
    value = (report or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(report: Mapping[str, Any] | None, key: str) -> str:
    pair = (report or {}).get(key) if key else None
    return f" (95 % interval {pair[0]:.4g} to {pair[1]:.4g})" if pair else ""


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._-]+", "-", plain.lower()).strip("-.") or "dataset"

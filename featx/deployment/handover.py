"""A folder that can be handed over: the model as a program and as its library's weights, a card, a script that predicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx.data.joint_transform import parts_of
from featx.data.transform import Transform
from featx.deployment.card_facts import CardFacts
from featx.deployment.example_image import as_ppm, example_pixels
from featx.deployment.image_processor import processor_config
from featx.deployment.job import ExportJob, ModelExport
from featx.deployment.library_network import LOGITS, LibraryNetwork, OwnNetwork, own_network
from featx.deployment.model_card import model_card
from featx.deployment.proof import TOLERANCE
from featx.deployment.published import published
from featx.deployment.tensors import packed_tensors
from featx.deployment.torch_program import proved_program, runner
from featx.heads.conformal import Conformal
from featx.heads.postprocess import Isotonic
from featx.inference import HeadOnBackbone, conformal_of
from featx.io.folders import replacing_folder, require_replaceable_folder
from featx.io.outputs import Output, OutputKind, require_separate
from featx.metrics.baseline import Baseline
from featx.metrics.classification import ClassificationReport

MANIFEST = "featx.json"
"""The file in the folder that lists the others with their checksums."""

_NOUN = "a folder of an exported model"
_MOST_CLASSES_IN_PICTURE = 100
_KIND = OutputKind("folder of an exported model", "", lambda _: False, option="--to")


@dataclass(frozen=True, eq=False)
class _Folder:
    """The files of a folder on their way: their contents, and what each is."""

    contents: dict[str, bytes]
    meanings: dict[str, str]

    def add(self, name: str, data: bytes | str, meaning: str) -> None:
        """Add one file."""
        self.contents[name] = data.encode("utf-8", "replace") if isinstance(data, str) else data
        self.meanings[name] = meaning


def write_folder(job: ExportJob) -> ModelExport:
    """Write the folder of a model."""
    require_separate([Output(job.path, _KIND)], job.inputs)
    require_replaceable_folder(job.path, MANIFEST, _NOUN, option="--to")
    data, proof, facts = proved_program(job)
    own = OwnNetwork.of(job.model)
    job.reporter.stage("building the network as its library does")
    network = _library_network(own)
    folder = _Folder({}, {})
    folder.add("model.pt2", data, "the whole model as a program of torch.export, from pixels to decisions")
    difference = _add_network(folder, job, own, network)
    _add_example(folder, job, data, facts)
    card = CardFacts.of(job, {**job.whole().facts, "torch": facts["torch"]}, job.stored)
    _add_picture(folder, card)
    meanings = {**folder.meanings, "README.md": "this model card", MANIFEST: "the checksums of the files"}
    folder.add("README.md", model_card(card, network, proof, files=meanings, difference=difference), "")
    job.reporter.stage(f"writing {job.path}")
    with replacing_folder(job.path, MANIFEST, _NOUN, option="--to") as temporary:
        for name, content in folder.contents.items():
            (temporary / name).write_bytes(content)
    files = tuple((job.path / name, (job.path / name).stat().st_size) for name in (*folder.contents, MANIFEST))
    notes = (*job.notes(), *network.notes, *_notes(network))
    return ModelExport(job.path, "folder", "float32", files, proof, None, facts, notes)


def _library_network(own: OwnNetwork) -> LibraryNetwork:
    """The network as its library loads it; by its own names where no library does."""
    makers: Mapping[str, Callable[[OwnNetwork], LibraryNetwork | None]] = {
        "timm": _timm,
        "hf": _transformers,
        "torchvision": _torchvision,
    }
    make = makers.get(own.origin["source"])
    if make is None:
        return own_network(own)
    if found := make(own):
        return found
    library = {"hf": "transformers"}.get(own.origin["source"], own.origin["source"])
    why = "it ends at inner layers" if own.inner else "it was changed"
    return own_network(own, f"{library} does not build this network, because {why}; use model.pt2")


def _timm(own: OwnNetwork) -> LibraryNetwork | None:
    from featx.deployment.timm_network import timm_network

    return timm_network(own)


def _transformers(own: OwnNetwork) -> LibraryNetwork | None:
    from featx.deployment.transformers_network import transformers_network

    return transformers_network(own)


def _torchvision(own: OwnNetwork) -> LibraryNetwork | None:
    from featx.deployment.torchvision_network import torchvision_network

    return torchvision_network(own)


def _add_network(folder: _Folder, job: ExportJob, own: OwnNetwork, network: LibraryNetwork) -> str:
    """Add the weights, the configurations and, where the network has no head, the head; a sentence on the comparison."""
    has_head = network.gives == LOGITS or (own.has_head and network.library == "featx")
    largest = _difference(job, own) if has_head else None
    about = {
        "task": own.task,
        "classes": list(own.classes),
        "gives": "logits" if has_head else "features",
        "probabilities": _PROBABILITIES[own.task] if has_head else None,
        "views": [view.name for view in job.model.views],
        "reject_below": job.whole().facts["reject_below"],
        **({} if (conformal := conformal_of(job.model)) is None else {"conformal": conformal.as_dict()}),
        "largest_difference": largest,
        "model": published(job.whole().facts)["name"],
    }
    what = "the network's weights, in the names of " + (
        "its own code" if network.library == "featx" else network.library
    )
    folder.add(
        "model.safetensors",
        packed_tensors(network.tensors),
        what + (", with the head as its last layer" if has_head else ""),
    )
    config = json.dumps({**network.config, "featx": about}, indent=2)
    folder.add("config.json", config, f"how {network.library} builds the network")
    if not has_head:
        folder.add(
            "head.safetensors", packed_tensors(_head_tensors(job)), "the arrays of the head, as in a head of featx"
        )
    swap, is_timm = own.origin.get("channels") == "BGR", network.library == "timm"
    processor = None
    if isinstance(own.transform, Transform):  # no processor of transformers prepares images for several networks
        processor = processor_config(own.transform, timm=is_timm, swap_channels=swap)
    if processor:
        folder.add(
            "preprocessor_config.json", json.dumps(processor, indent=2), "how transformers prepares images for it"
        )
    if largest is None:
        return ""
    where = "the mean of its scores over all views" if len(job.model.views) > 1 else "its scores"
    fault = "" if largest <= TOLERANCE else ", more than rounding, because the features are stored in less precision"
    return (
        f"The network in `model.safetensors` was compared on the same images: probabilities that follow from {where} differ "
        f"from featx's by at most {largest:.2g}{fault}."
    ).replace(
        "probabilities that follow from",
        "numbers from" if own.task == "regression" else "probabilities that follow from",
    )


_PROBABILITIES = {
    "classification": "softmax of the logits",
    "multilabel": "sigmoid of the logits",
    "regression": "none: the output is the number",
}


def _difference(job: ExportJob, own: OwnNetwork) -> float:
    """The largest difference between what follows from the network's logits and what featx predicts, on the proof's images."""
    reference, largest = job.reference, 0.0
    for image, expected in zip(reference.images, reference.outputs, strict=True):
        found = own.probabilities(image.views)
        scale = np.maximum(1.0, np.abs(expected)) if own.task == "regression" else 1.0
        largest = max(largest, float((np.abs(found - expected) / scale).max()))
    return largest


def _head_tensors(job: ExportJob) -> dict[str, Tensor]:
    """The arrays of a head: those of its predictor, and what comes before and after it."""
    assert isinstance(job.model, HeadOnBackbone)  # a promoted model's head is its last layer
    head = job.model.head
    arrays: dict[str, Any] = {
        "mean": head.mean_,
        "scale": head.scale_,
        "offset": head.offset_,
        "temperature": np.array(head.temperature_),
        **{f"scorer.{f.name}": getattr(head.predictor_, f.name) for f in fields(head.predictor_)},
    }
    if head.thresholds_ is not None:
        arrays["thresholds"] = head.thresholds_
    if head.isotonic_ is not None:
        arrays |= {f"isotonic.{f.name}": getattr(head.isotonic_, f.name) for f in fields(Isotonic)}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _add_example(folder: _Folder, job: ExportJob, data: bytes, facts: Mapping[str, Any]) -> None:
    """Add the script, a picture, and what the script prints for it. A network of bands takes no pictures."""
    first = parts_of(job.model.transform)[0]
    if first.reads_bands:
        return
    pixels = example_pixels()
    found = {name: values[0].tolist() for name, values in runner(data)(pixels[None]).items() if name != "embedding"}
    if "probabilities" in found:
        label, names = found["label"], list(facts["classes"])
        if isinstance(label, list):
            found["label"] = [name for name, has in zip(names, label, strict=True) if has]
        else:
            found["label"] = names[label] if label >= 0 else None
        found["probabilities"] = dict(zip(names, found["probabilities"], strict=True))
    if conformal := conformal_of(job.model):
        outputs = np.array([found["value"]] if "value" in found else [*found["probabilities"].values()])
        found |= _set_of(conformal, outputs, facts["classes"], regression="value" in found)
    script = (resources.files("featx.deployment") / "predict.py.txt").read_text()
    background = "#{:02x}{:02x}{:02x}".format(*first.background)
    folder.add("predict.py", script.replace("BACKGROUND", {"#ffffff": "white"}.get(background, background)),
               "predicts images, with torch alone")  # fmt: skip
    folder.add("example.ppm", as_ppm(pixels), "a drawn picture")
    folder.add("example.json", json.dumps({"image": "example.ppm", **found}) + "\n", "what predict.py prints for it")


def _set_of(conformal: Conformal, outputs: np.ndarray, classes: Sequence[str], *, regression: bool) -> dict[str, Any]:
    """The prediction set or interval of (C,) outputs, as the script prints it."""
    if regression:
        return {"interval": conformal.intervals(outputs[None])[0].tolist()}
    return {"set": [classes[label] for label in conformal.members(outputs)]}


def _add_picture(folder: _Folder, card: CardFacts) -> None:
    """Add the confusion matrix as a picture."""
    report = card.report
    if not report or not report.get("confusion") or len(card.classes) > _MOST_CLASSES_IN_PICTURE:
        return
    from featx.report.plots.evaluation import confusion_figure
    from featx.report.plots.style import as_png

    figure = confusion_figure(_drawn(report), subject=card.data)
    folder.add("confusion.png", as_png(figure), "the confusion matrix")


def _drawn(report: Mapping[str, Any]) -> ClassificationReport:
    """A stored report as far as its confusion matrix is drawn."""
    confusion, count = np.array(report["confusion"], dtype=np.int64), len(report["classes"])
    return ClassificationReport(
        classes=tuple(report["classes"]), split=report["split"], confusion=confusion, log_loss=float("nan"),
        auroc=np.full(count, np.nan), average_precision=np.full(count, np.nan), reliability=(), top5=None, reject_below=None,
        accepted=int(confusion.sum()), accepted_right=int(np.trace(confusion)), groups=report["groups"],
        interval=tuple(report["interval"]), selective_interval=None, recall_intervals=np.full((count, 2), np.nan),
        baseline=Baseline("", 0.0, 0, 1.0),
    )  # fmt: skip


def _notes(network: LibraryNetwork) -> list[str]:
    if network.library != "featx" and network.gives != LOGITS:
        return [
            f"{network.library} loads the features alone: the head is not a layer of its network (see head.safetensors)"
        ]
    return []

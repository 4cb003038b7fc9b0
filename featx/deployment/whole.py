"""A model as one torch module, from the pixels of decoded images to decisions: what every export is made from."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from featx._version import __version__
from featx.arguments import path_of
from featx.backbones.feature_extractor import pool
from featx.backbones.joint import embedder_of
from featx.backbones.pixels import normalise
from featx.constants import JOINT
from featx.data.joint_transform import AnyTransform
from featx.data.transform import Transform
from featx.deployment.layers import HeadLayers, PostprocessLayers
from featx.deployment.preprocessing import AnyPreprocess, preprocess_of
from featx.devices import full_float32
from featx.heads.head_file import HEAD
from featx.heads.postprocess import Postprocess
from featx.inference import HeadOnBackbone, Model, conformal_of, load_model
from featx.io import model_file
from featx.layer_spec import PENULTIMATE, LayerNode, View
from featx.promotion.assemble import origin_of
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL


class Classified(NamedTuple):
    """What a whole model gives for N images of a classification, or of labels that do not exclude each other.

    Attributes:
        probabilities: (N, C) float32.
        label: (N,) int64, the index of the class, or -1 where the model predicts none; of labels (N, C) bool.
        embedding: (N, D) float32, the mean over the views.
    """

    probabilities: Tensor
    label: Tensor
    embedding: Tensor


class Measured(NamedTuple):
    """What a whole model gives for N images of a regression.

    Attributes:
        value: (N,) float32.
        embedding: (N, D) float32, the mean over the views.
    """

    value: Tensor
    embedding: Tensor


class WholeModel(nn.Module):
    """A head with its backbone, or a promoted model, as one torch module in eval mode.

    ``WholeModel.of`` makes it of a model, and ``WholeModel.load`` of a file. Its parts are ``preprocess``, from images to uint8
    views, and ``scores``, from views to the outputs.

    Attributes:
        preprocess: (N, H, W, 3) uint8 to (N, V, C, h, w) uint8; of several networks side by side (N, V, L).
        scores: such views to the outputs.
        classes: names of the C classes or labels; of a regression "value".
        task: "classification", "multilabel" or "regression".
        transform: how an image becomes the network's input.
        views: the views of each image that the scores are averaged over.
        facts: what a file should say of the model, as JSON can hold it: name, identity (of the features), featx (its version),
            task, classes, reject_below, conformal (if there are prediction sets), backbone, layer, views, transform, dataset,
            report, and sha256 where it was read from a file. The report is that on the held-out split, without its tables:
            accuracy, interval, n, split, ...; None where none is known.
        report: the same report with its tables, or None.

    Examples:
        >>> import featx
        >>> whole = WholeModel.load("models/digits--lenet5--logreg.safetensors")  # doctest: +SKIP
        >>> whole(torch.zeros(1, 28, 28, 3, dtype=torch.uint8)).probabilities.shape  # doctest: +SKIP
        torch.Size([1, 10])
    """

    def __init__(
        self,
        preprocess: AnyPreprocess,
        scores: Scores,
        facts: Mapping[str, Any],
        report: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.preprocess, self.scores, self.facts, self.report = preprocess, scores, dict(facts), report
        self.eval().requires_grad_(False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes or labels."""
        return tuple(self.facts["classes"])

    @property
    def task(self) -> str:
        """The task: "classification", "multilabel" or "regression"."""
        return str(self.facts["task"])

    @property
    def transform(self) -> AnyTransform:
        """How an image becomes the network's input."""
        return self.preprocess.transform

    @property
    def views(self) -> tuple[View, ...]:
        """The views of each image."""
        return self.preprocess.views

    def forward(self, pixels: Tensor) -> Classified | Measured:
        """Predict.

        Args:
            pixels: (N, H, W, 3) uint8: RGB, upright, decoded at full size, of any one size. A network of one channel makes grey
                of them itself; one that reads bands takes as many channels.
        """
        outputs: Classified | Measured = self.scores(self.preprocess(pixels))
        return outputs

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        report: Mapping[str, Any] | None = None,
        name: str = "",
        dtype: torch.dtype = torch.float64,
    ) -> WholeModel:
        """Make a whole model; the networks and arrays are copies.

        Args:
            model: a head on its backbone, or a promoted model.
            report: the report on the held-out split that the model's file holds; of a promoted model its own by default.
            name: what to call it.
            dtype: the floating-point type in which the head computes; featx itself computes in float64.

        Raises:
            HeadError: the head has a predictor of its own (``register_head``).
        """
        if isinstance(model, HeadOnBackbone):
            head = HeadLayers(model.head, dtype)
            network = embedder_of(model.backbone, model.head.layer_)
            scores = Scores(model.transform, network, head, model.head.postprocess_, dtype)
        else:
            blank = Postprocess("classification", 1.0, np.zeros(len(model.classes)), reject_below=model.reject_below)
            scores = Scores(model.transform, _Network(model), None, blank, dtype)
            report = model.metadata["report"] if report is None else report
        facts = _facts(model, report, name)
        return cls(preprocess_of(model.transform, model.views), scores, facts, report).to(model.device)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: str | None = None,
        weights: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> WholeModel:
        """Read a file that ``fit-head`` or ``promote`` wrote, as ``load_model`` does.

        Raises:
            ModelNotFoundError, CorruptFileError: the file is missing or damaged.
            BackboneError, StaleCacheError: the backbone is not available, or gives other features than those of the head.
            HeadError: as ``of``.
        """
        file = Path(path_of(path, "the model"))
        stored = model_file.read_metadata(file, HEAD, MODEL)
        model = load_model(file, backbone=backbone, weights=weights, device=device)
        whole = cls.of(model, report=stored["report"], name=file.stem, dtype=dtype)
        whole.facts["sha256"] = stored["sha256"]
        return whole


class Scores(nn.Module):
    """From uint8 views to the outputs of a whole model, in three steps: normalise, run the network, decide.

    Args:
        transform: gives the mean and deviation that pixels are normalised with.
        network: (B, C, h, w) normalised images to (B, D) float32 embeddings; without a head, to (B, C) logits and embeddings.
        head: (N, V, D) embeddings to (N, C) scores, or None.
        postprocess: what becomes of the scores.
        dtype: the floating-point type of ``head`` and ``postprocess``.
    """

    def __init__(
        self,
        transform: AnyTransform,
        network: nn.Module,
        head: HeadLayers | None,
        postprocess: Postprocess,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.transform, self.network, self.head, self.dtype = transform, network, head, dtype
        self.decide = None if postprocess.task == "regression" else PostprocessLayers(postprocess, dtype)

    def forward(self, views: Tensor) -> Classified | Measured:
        """Predict from (N, V, C, h, w) uint8."""
        with full_float32():
            rows = self.network(self.images(views))
        return self.outputs(rows, views.shape[1])

    def images(self, views: Tensor) -> Tensor:
        """(N, V, C, h, w) uint8 to (N V, C, h, w) float32: what the network takes."""
        return normalise(views.flatten(0, 1), self.transform)

    def outputs(self, rows: Tensor | tuple[Tensor, Tensor], views: int) -> Classified | Measured:
        """What the network gives for N images in so many views, to the outputs."""
        if isinstance(rows, Tensor):
            assert self.head is not None
            embedding = rows.unflatten(0, (-1, views))
            scores = self.head(embedding)
        else:
            logits, inputs = rows
            embedding = inputs.unflatten(0, (-1, views))
            scores = logits.to(self.dtype).unflatten(0, (-1, views)).mean(dim=1)
        mean = embedding.mean(dim=1)
        if self.decide is None:
            return Measured(scores[:, 0].to(torch.float32), mean)
        probabilities, label = self.decide(scores)
        return Classified(probabilities.to(torch.float32), label, mean)


class _Network(nn.Module):
    """The network of a promoted model: (B, C, h, w) normalised images to (B, C) logits and (B, D) inputs of its classifier."""

    def __init__(self, model: PromotedModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network).eval()  # the copy of a traced graph is in training mode
        self.classifier, transform = model.metadata["classifier"], model.transform
        self.size = transform.size if isinstance(transform, Transform) else (1, 1)  # a joint network has no maps there

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        classifier = self.network.get_submodule(self.classifier)
        hook = classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        return logits, pool(LayerNode(PENULTIMATE), seen[-1], self.size)


_TABLES = ("per_class", "per_label", "confusion", "reliability", "notes")  # of a report; too long for ``facts``


def _facts(model: Model, report: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """What a file should say of a model."""
    if isinstance(model, HeadOnBackbone):
        head = model.head
        identity, layer, dataset, task = head.identity_, head.layer_, head.dataset_, head.task_
        reject_below, backbone, origin = head.reject_below_, model.backbone.name, origin_of(model.backbone)
    else:
        meta = model.metadata
        identity, layer, dataset, task = meta["head"]["identity"], meta["layer"], meta["dataset"], "classification"
        reject_below, backbone, origin = model.reject_below, meta["name"], meta["origin"]
    parts = origin["parts"] if origin["source"] == JOINT else []
    return {
        "name": name or f"{dataset.get('name', 'model')}--{backbone}",
        "identity": identity,
        "featx": __version__,
        "task": task,
        "classes": list(model.classes),
        "reject_below": reject_below,
        **({} if (conformal := conformal_of(model)) is None else {"conformal": conformal.as_dict()}),
        "backbone": backbone,
        **({"backbones": [{"name": p["origin"]["name"], "layers": list(p["layers"])} for p in parts]} if parts else {}),
        "layer": layer,
        "views": [view.name for view in model.views],
        "transform": model.transform.as_dict(),
        "dataset": dataset,
        "report": {key: report[key] for key in report if key not in _TABLES} if report else None,
    }

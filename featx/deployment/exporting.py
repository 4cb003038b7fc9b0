"""``export_model``: a head with its backbone, or a promoted model, as a file that runs without featx."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from featx.arguments import names_of, path_of
from featx.constants import EXPORT_PRECISIONS
from featx.deployment.formats import ENDINGS, expected, format_of
from featx.deployment.graph_exports import write_onnx, write_openvino
from featx.deployment.handover import write_folder
from featx.deployment.job import ExportJob, ModelExport
from featx.deployment.own_images import OwnImages
from featx.deployment.torch_program import write_torch_export
from featx.errors import SettingsError, system_errors
from featx.heads.head_file import HEAD
from featx.heads.own_features import code_and_weights, fitted_files
from featx.inference import HeadOnBackbone, Model, load_model
from featx.io import model_file
from featx.progress import shows_progress
from featx.promotion.model_file import MODEL
from featx.reporter import SILENT, Reporter


@system_errors()
@shows_progress("export", "images")
def export_model(
    model: Model | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    precision: str = "float32",
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    features: str | os.PathLike[str] | None = None,
    batch_only: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> ModelExport:
    """Write a model for use without featx: from the pixels of a decoded image to probabilities and a decision.

    Resizing, cropping, normalisation, the network, the head, calibration and rejection are all inside. Before it is written,
    its outputs are compared with featx's on 64 images of the data set: the labels must be the same, and no probability may
    differ by more than 1e-4.

    Args:
        model: a head on its backbone or a promoted model, or a file of either.
        to: ``model.onnx``; ``model.xml`` for OpenVINO, with ``model.bin`` beside it; ``model.pt2``, a program of torch.export;
            or a folder, ``model/``, with that program, weights for timm or transformers, a model card and a script.
            "onnx", "openvino", "torch-export" and "folder" stand for one of them beside the model's own file.
        precision: "float32"; "float16"; or "int8", whose ranges are measured on training images. The network alone is changed.
            Accuracy, size and speed are then measured before and after, on the split that judges the model.
        images: a folder, or folders, in which the images of the data set may lie now; any other such images serve as well.
        features: the feature file of the data set, where a head's own is gone.
        batch_only: declare the input of an ONNX model as (N, H, W, 3). By default (H, W, 3) is taken too, for which the input
            has no declared rank: ONNX Runtime does not mind, but TensorRT, Triton and ``onnx.checker`` do.
        backbone: a replacement for the stored name of the backbone; needed if that is a Python file.
        weights: a replacement for the stored weights of a head's backbone, if their file has moved.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: receives the progress.

    Raises:
        ExportError: the exported model does not predict what featx predicts, or no image of the data set can be read.
        EngineError: torch cannot export the network, or it is too large.
        HeadError: the head has a predictor of its own (``register_head``).
        SettingsError: there is no such format or precision.
        OutputError: the file cannot be written, or would replace another.

    Example:

        exported = featx.export_model("models/photos--resnet50--logreg.safetensors", "photos.onnx")
        print(exported.proof)
    """
    started = time.perf_counter()
    wanted = os.fspath(to)
    form = format_of(wanted)
    if not form:
        raise SettingsError(f"{wanted} is no format of a model; expected {expected()}")
    if precision not in EXPORT_PRECISIONS:
        raise SettingsError(f"precision is {precision!r}; expected {', '.join(EXPORT_PRECISIONS)}")
    file = None if isinstance(model, Model) else Path(path_of(model, "the model"))
    stored = model_file.read_metadata(file, HEAD, MODEL) if file else {}
    reporter.stage("loading the backbone")
    loaded = (
        model if isinstance(model, Model) else load_model(file or "", backbone=backbone, weights=weights, device="cpu")
    )
    folders = names_of(images, "images")
    job = ExportJob(
        model=loaded,
        path=_path(wanted, form, file),
        precision=precision,
        inputs=tuple(str(each) for each in (file, features, weights, *_sources(loaded)) if each),
        stored=stored,
        name=file.stem if file else "",
        find=lambda: OwnImages.of(loaded, features=features, folders=folders, workers=workers),
        batch_only=batch_only,
        reporter=reporter,
    )
    return replace(_WRITERS[form](job), seconds=time.perf_counter() - started)


_WRITERS: dict[str, Callable[[ExportJob], ModelExport]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch-export": write_torch_export,
    "folder": write_folder,
}
"""What writes each format of ``formats.ENDINGS``."""


def _path(wanted: str, form: str, file: Path | None) -> Path:
    """The file of an export: the one that is named, or for the name of a format one beside the model's."""
    if wanted != form:
        return Path(wanted)
    return (file or Path("model")).with_suffix(ENDINGS[form][0].rstrip("/"))


def _sources(model: Model) -> list[str]:
    """The files that a head comes from."""
    if not isinstance(model, HeadOnBackbone):
        return []
    return [*map(str, fitted_files(model.head)), *code_and_weights(model.head.backbone_)]

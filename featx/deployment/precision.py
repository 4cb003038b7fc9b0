"""Networks in half precision or 8-bit integers, and what that does to accuracy, size and speed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto

from featx.deployment.own_images import OwnImages
from featx.deployment.proof import Run
from featx.deployment.whole import WholeModel
from featx.errors import ExportError
from featx.extraction.onnx_export import silenced
from featx.heads.evaluation import make_report
from featx.heads.groups import row_groups
from featx.heads.postprocess import Postprocess
from featx.heads.targets import is_known_label, targets_of
from featx.inference import HeadOnBackbone, Model
from featx.metrics.paired import PairedTest
from featx.metrics.reports import Report
from featx.reporter import SILENT, Reporter
from featx.text import brief, counted, form, size_text

CALIBRATION_IMAGES = 128
"""The training images that the ranges of activations are measured on."""

SIGNIFICANCE = 0.05
"""The p-value of the paired test below which a loss of accuracy is said to be one."""


def to_float16(network: ModelProto) -> ModelProto:
    """A network whose weights and activations are float16; its inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copied = ModelProto()
    copied.CopyFrom(network)
    with silenced():
        converted = OnnxModel(convert_float_to_float16(copied, keep_io_types=True))
        converted.topological_sort()  # the casts of its inputs were appended
    made: ModelProto = converted.model
    return made


def to_int8(network: ModelProto, whole: WholeModel, own: OwnImages, reporter: Reporter = SILENT) -> ModelProto:
    """A network of 8-bit integers, whose ranges are measured on training images (static quantisation, QDQ).

    Weights have a scale for each channel. They are quantised to 7 bits, so that 16-bit sums cannot overflow on processors
    without 8-bit dot products.

    Args:
        network: takes normalised images.
        whole: the model that the network is of; it makes the network's input of images.
        own: the images of its data set.
        reporter: receives the progress.

    Raises:
        ExportError: no training image can be read, or ONNX Runtime cannot quantise the network.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.shape_inference import quant_pre_process

    taken = network.graph.input[0].name

    class Images(CalibrationDataReader):  # type: ignore[misc]
        """The network's inputs, one image after another."""

        def __init__(self) -> None:
            self.images = _network_inputs(whole, own, reporter)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({taken: each} for each in self.images), None)

    with tempfile.TemporaryDirectory() as folder, silenced():
        given, prepared, out = (Path(folder, name) for name in ("given.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(network, given)
        try:
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared, out, Images(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
            )  # fmt: skip
        except ExportError:
            raise
        except Exception as error:  # its exceptions have no common parent
            raise ExportError(f"ONNX Runtime cannot quantise this network: {brief(error)}") from error
        return onnx.load(out)


def _network_inputs(whole: WholeModel, own: OwnImages, reporter: Reporter) -> Iterator[np.ndarray]:
    rows = own.rows("train")
    rows = rows if len(rows) else own.rows("all")
    chosen = rows[np.linspace(0, len(rows) - 1, min(CALIBRATION_IMAGES, len(rows))).astype(np.int64)]
    count, fault = 0, ""
    for done, image in enumerate(own.read(chosen), start=1):
        reporter.progress(done, len(chosen))
        if isinstance(image, str):
            fault = image
            continue
        count += 1
        with torch.inference_mode():
            yield whole.scores.images(torch.from_numpy(image.views)[None]).numpy()
    if not count:
        raise ExportError(
            f"none of {counted(len(chosen), 'training image')} can be read to measure ranges of activations on, the first "
            f"{fault}; --images FOLDER names a folder in which they lie now"
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model in less precision against the same in float32, on the same images.

    Attributes:
        precision: the name of the lesser one.
        before: the report in float32.
        after: the report in less precision.
        paired: the test of both; None for a regression.
        bytes: sizes of both files.
        images_per_second: of both, one image at a time from decoded pixels to decisions, on this machine.
        same_labels: the images for which both decide the same.
        images: their number.
    """

    precision: str
    before: Report
    after: Report
    paired: PairedTest | None
    bytes: tuple[int, int]
    images_per_second: tuple[float, float]
    same_labels: int
    images: int

    @property
    def lost(self) -> bool:
        """Whether accuracy dropped by more than luck explains."""
        return self.paired is not None and self.paired.gained < 0 and self.paired.p_value <= SIGNIFICANCE

    def as_dict(self) -> dict[str, Any]:
        """The comparison as ``--json`` prints it and as exported files hold it."""
        name, before = self.before.headline
        paired = self.paired.as_dict("float32", self.precision) if self.paired else None
        return {
            "metric": name,
            "float32": before,
            self.precision: self.after.headline[1],
            "split": self.before.split,
            "images": self.images,
            "same_labels": self.same_labels,
            "paired": {key: value for key, value in (paired or {}).items() if not key.endswith("_images")} or None,
            "bytes": {"float32": self.bytes[0], self.precision: self.bytes[1]},
            "images_per_second": {
                "float32": round(self.images_per_second[0], 1),
                self.precision: round(self.images_per_second[1], 1),
            },
        }

    def lines(self) -> list[str]:
        """What the command prints."""
        (name, before), (_, after) = self.before.headline, self.after.headline
        lines = [
            f"{name} on the {counted(self.images, 'image')} of split {self.before.split}: {before:.4f} in float32, "
            f"{after:.4f} in {self.precision}; {self.same_labels:,} {form(self.same_labels, 'is', 'are')} decided alike"
        ]
        if self.paired:
            lines.append(
                f"{counted(len(self.paired.first_only), 'image is', 'images are')} right in float32 alone, "
                f"{len(self.paired.second_only)} in "
                f"{self.precision} alone: p = {self.paired.p_value:.3g} ({self.paired.method})"
            )
        sizes, speeds = map(size_text, self.bytes), self.images_per_second
        return [
            *lines,
            f"{' and '.join(sizes)}; {speeds[0]:.1f} and {speeds[1]:.1f} images/s on this machine, float32 and "
            f"{self.precision}",
        ]

    def notes(self) -> list[str]:
        """A sentence where accuracy dropped."""
        if not self.lost or self.paired is None:
            return []
        return [
            f"{self.precision} costs accuracy: {-self.paired.gained:,} more of {counted(self.images, 'image')} "
            f"{form(-self.paired.gained, 'is', 'are')} wrong than in float32, "
            f"which luck does not explain (p = {self.paired.p_value:.2g}); "
            + ("--precision float16 loses less" if self.precision == "int8" else "leave out --precision")
        ]


def compared(
    precision: str,
    runs: tuple[Run, Run],
    sizes: tuple[int, int],
    model: Model,
    own: OwnImages,
    reporter: Reporter = SILENT,
) -> Comparison | None:
    """Measure a model in less precision against the same in float32, image by image in turn, on the split that judges it.

    Args:
        precision: the name of the lesser one.
        runs: run both.
        sizes: of both files, in bytes.
        model: what was exported.
        own: the images of its data set.
        reporter: receives the progress.

    Returns:
        None where no image has a label.
    """
    names, postprocess = _judge_of(model)
    rows = own.rows(own.split)
    known = np.array([is_known_label(name, postprocess.task, names) for name in own.features.classes] or [False])
    rows = rows[own.features.labels[rows] >= 0]
    rows = rows[known[own.features.labels[rows]]] if len(rows) else rows
    outputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    labels: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    seconds, judged = [0.0, 0.0], []
    for done, image in enumerate(own.read(rows), start=1):
        reporter.progress(done, len(rows))
        if isinstance(image, str):
            continue
        judged.append(image.row)
        for at in (0, 1) if done % 2 else (1, 0):
            started = time.perf_counter()
            found = runs[at](image.pixels[None])
            seconds[at] += (time.perf_counter() - started) if done > 1 else 0.0  # the first pass lays out memory
            outputs[at].append(_values(found))
            labels[at].append(found.get("label", found.get("value"))[0])  # type: ignore[index]
    if not judged:
        return None
    kept = np.array(judged)
    y = targets_of(own.features.without_features(kept), postprocess.task, names).y
    groups = row_groups(own.features, kept)
    reports = [
        make_report(postprocess, names, y, np.stack(each), split=own.split, groups=groups, notes=[]) for each in outputs
    ]
    alike = sum(bool(np.array_equal(one, other)) for one, other in zip(*labels, strict=True))
    speed = [(len(kept) - 1 or 1) / max(each, 1e-9) for each in seconds]
    paths = own.features.paths[kept]
    return Comparison(
        precision, reports[0], reports[1], _paired(postprocess, paths, y, outputs, groups), sizes, (speed[0], speed[1]),
        alike, len(kept),
    )  # fmt: skip


def _judge_of(model: Model) -> tuple[tuple[str, ...], Postprocess]:
    """The names of the classes, and what makes a report of probabilities."""
    if isinstance(model, HeadOnBackbone):
        return model.head.names_, model.head.postprocess_
    offset = np.zeros(len(model.classes))
    return model.classes, Postprocess(
        "classification", 1.0, offset, reject_below=model.reject_below, conformal=model.conformal_
    )


def _values(found: Mapping[str, np.ndarray]) -> np.ndarray:
    values = found["probabilities"][0] if "probabilities" in found else found["value"]
    out: np.ndarray = values.astype(np.float64)
    return out


def _paired(
    postprocess: Postprocess, paths: np.ndarray, y: np.ndarray, outputs: tuple[Any, Any], groups: np.ndarray
) -> PairedTest | None:
    """The paired test: of classes, whether the most probable one is right; of labels, whether all are."""
    if postprocess.task == "regression":
        return None
    first, second = map(np.stack, outputs)
    copies = groups if len(np.unique(groups)) < len(groups) else None
    if postprocess.thresholds is None:
        return PairedTest.from_predictions(list(paths), y, first.argmax(axis=1), second.argmax(axis=1), copies)
    ones = np.ones(len(y), dtype=np.int64)
    right = [((p >= postprocess.thresholds) == (y > 0.5)).all(axis=1).astype(np.int64) for p in (first, second)]
    return PairedTest.from_predictions(list(paths), ones, right[0], right[1], copies)

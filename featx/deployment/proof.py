"""The proof that an exported model is the model: its outputs on images of the data set, against featx's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.deployment.own_images import DecodedImage, OwnImages
from featx.errors import ExportError
from featx.inference import NOT_FINITE, HeadOnBackbone, Model
from featx.reporter import SILENT, Reporter
from featx.text import counted

IMAGES = 64
"""The images that an export is compared with featx on."""

TOLERANCE = 1e-4
"""The largest difference of a probability; of a regression, relative to the number where that is above 1."""

_TIE = 1e-5  # probabilities that are so close are as high as one another

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Runs an exported model: from (N, H, W, 3) uint8 to its outputs by name."""


@dataclass(frozen=True)
class Proof:
    """What a comparison of an exported model with featx found.

    Attributes:
        images: the images that were compared.
        largest: the largest difference of a probability, or of the number of a regression, relative where that is above 1.
        same_labels: the images for which both predict the same label, set of labels, or number.
        split: the split that the images are of, as far as it has enough.
        unreadable: the images that could not be read, of those that were chosen.
    """

    images: int
    largest: float
    same_labels: int
    split: str
    unreadable: int = 0

    @property
    def holds(self) -> bool:
        """Whether the exported model is the model."""
        return self.same_labels == self.images and self.largest <= TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        """The proof as ``--json`` prints it and as exported files hold it."""
        return {
            "images": self.images,
            "split": self.split,
            "largest_difference": self.largest,
            "same_labels": self.same_labels,
            "tolerance": TOLERANCE,
        }

    def __str__(self) -> str:
        same = f"{counted(self.same_labels, 'label is', 'labels are')} the same"
        return f"on {counted(self.images, 'image')} the largest difference is {self.largest:.2g}, and {same}"


@dataclass(frozen=True, eq=False)
class Reference:
    """What featx itself predicts for the images of a proof.

    Attributes:
        images: they, decoded.
        outputs: (n, C) float64, as ``featx.predict`` computes them.
        split: as in ``Proof``.
        unreadable: as in ``Proof``.
    """

    images: tuple[DecodedImage, ...]
    outputs: np.ndarray
    split: str
    unreadable: int

    @classmethod
    def of(cls, model: Model, own: OwnImages, *, count: int = IMAGES, reporter: Reporter = SILENT) -> Reference:
        """Predict images that are spread over the split that judges the model.

        Raises:
            ExportError: none of them can be read.
        """
        rows = own.spread(own.split, count)
        images: list[DecodedImage] = []
        faults: list[str] = []
        outputs: list[np.ndarray] = []
        for done, image in enumerate(own.read(rows), start=1):
            if isinstance(image, str):
                faults.append(image)
            else:
                outputs.append(model.predict_values(image.views[None])[0])
                images.append(image)
            reporter.progress(done, len(rows))
        if not images:
            raise ExportError(
                f"none of {counted(len(rows), 'image')} of the model's data set can be read, the first {faults[0]}; --images "
                "FOLDER names a folder in which they lie now, or any other such images"
            )
        if not np.isfinite(outputs).all():
            raise ExportError(f"{own.features.paths[images[0].row]}: {NOT_FINITE}, so that nothing can be compared")
        return cls(tuple(images), np.stack(outputs), own.split, len(faults))


def prove(run: Run, model: Model, reference: Reference) -> Proof:
    """Compare an exported model with featx, image by image; and check that it takes batches.

    Args:
        run: runs the exported model.
        model: what was exported.
        reference: what featx predicts.

    Raises:
        ExportError: an image of a batch gets other outputs than the image alone.
    """
    _require_batches(run, reference.images[0].pixels)
    largest, same = 0.0, 0
    for image, expected in zip(reference.images, reference.outputs, strict=True):
        found = run(image.pixels[None])
        difference, is_same = compare(found, expected, model)
        largest, same = max(largest, difference), same + bool(is_same)  # not a number of numpy, which JSON cannot hold
    return Proof(len(reference.images), largest, same, reference.split, reference.unreadable)


def require(proof: Proof, what: str, hint: str = "") -> Proof:
    """Raise ExportError unless a proof holds; return it. The hint ends the message."""
    if not proof.holds:
        raise ExportError(
            f"the model as {what} is not the same as in featx: {proof}; at most {TOLERANCE:g} and the same labels are "
            f"expected. Nothing was written{hint}"
        )
    return proof


def compare(found: Mapping[str, np.ndarray], expected: np.ndarray, model: Model) -> tuple[float, bool]:
    """The largest difference of the outputs for one image, and whether the decision is the same."""
    if "value" in found:
        difference = abs(float(found["value"][0]) - float(expected[0])) / max(1.0, abs(float(expected[0])))
        return difference, difference <= TOLERANCE
    probabilities, label = found["probabilities"][0].astype(np.float64), found["label"][0]
    difference = float(np.abs(probabilities - expected).max())
    difference = difference if np.isfinite(difference) else float("inf")
    decide = model.head.decide if isinstance(model, HeadOnBackbone) else model.decide
    decided, classes = decide(expected), model.classes
    if label.ndim:
        return difference, set(np.array(classes, dtype=object)[label]) == set(decided or ())
    if label < 0 or decided is None:
        return difference, (label < 0) == (decided is None)
    return difference, classes[int(label)] == decided or bool(expected[int(label)] >= expected.max() - _TIE)


def _require_batches(run: Run, pixels: np.ndarray) -> None:
    """Check that the images of a batch do not depend on one another, and that a batch may be of any size."""
    turned = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
    together = run(turned)
    for row, image in enumerate(turned):
        for name, values in run(image[None]).items():
            if not np.allclose(values[0], together[name][row], rtol=1e-3, atol=1e-3):
                raise ExportError(
                    f"the exported network gives other numbers for an image in a batch than for the image alone ({name}). "
                    "Nothing was written"
                )

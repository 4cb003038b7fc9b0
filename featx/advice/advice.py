"""Advice on a backbone and a data set: measure heads on cached features in seconds, decide, and name the next command.

One pass over the images extracts every stage of the network; heads on single layers and on several are cross-validated.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.advice import wording
from featx.advice.decision import Decision, bootstrap, decide
from featx.advice.evidence import Measurements, gather
from featx.arguments import path_of
from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.restored import restore_backbone
from featx.constants import CACHE, MODELS
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.scan import scan_images
from featx.errors import AdviceError, BackboneError, SettingsError, StaleCacheError, system_errors
from featx.extraction.pipeline import extract
from featx.features.file_set import Features, open_features
from featx.features.image_store import image_places
from featx.features.label_changes import label_changes
from featx.io.file_kinds import is_feature_file
from featx.io.outputs import ADVICE, Output, require_outputs
from featx.layer_spec import plain_layers
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter


@dataclass(frozen=True, eq=False)
class Advice:
    """The measurements, the decision that follows from them, and the command to run next.

    Attributes:
        measurements: what was measured.
        decision: what is recommended, and the accuracy to expect.
        layer: the layer of the recommended head (several separated by commas), or the first block that is fine-tuned; "" for
            none.
        confidence: share of bootstrap resamples of the images, group by group (Efron, 1979), with the same recommendation.
        gain_interval: 95 % interval of the expected gain, from the same resamples.
        command: the command to run next.
        reasons: the reasons, one sentence each.
        picture: the figure of the curves, a PNG file.
        notes: what else the user should know, one sentence each.
    """

    measurements: Measurements
    decision: Decision
    layer: str
    confidence: float
    gain_interval: tuple[float, float]
    command: str
    reasons: tuple[str, ...]
    picture: Path
    notes: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """The cell of the usual table, such as "little-similar".

        "little" or "much" data, "similar" to or "unlike" the images that the backbone was trained on; "chance" if no head
        learns anything.
        """
        return self.measurements.evidence.cell

    @property
    def recommendation(self) -> str:
        """One of ``decision.RECOMMENDATIONS``."""
        return self.decision.recommendation

    @property
    def what_to_do(self) -> str:
        """What the recommendation asks for, such as "fit a head on the penultimate layer"."""
        return wording.what_to_do(self.recommendation, self.layer)

    @property
    def features(self) -> Path:
        """The feature file."""
        return self.measurements.features

    @property
    def accuracies(self) -> dict[str, float]:
        """{layer: cross-validated accuracy of a head on it}, from the input on."""
        return self.measurements.accuracies

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as ``featx advise --json`` prints it."""
        measured, counts = self.measurements, self.measurements.class_counts
        return {
            "cell": self.cell,
            "recommendation": self.decision.recommendation,
            "what_to_do": self.what_to_do,
            "layer": self.layer or None,
            "expected_accuracy": self.decision.expected_accuracy,
            "expected_gain": self.decision.expected_gain,
            "gain_interval": list(self.gain_interval),
            "confidence": self.confidence,
            "command": self.command,
            "reasons": list(self.reasons),
            "depths": measured.accuracies,
            "log_loss": {score.layer: score.held_out.loss for score in measured.layer_scores},
            "together": measured.joint_accuracies,
            "baseline": measured.random_weights.as_dict() if measured.random_weights else None,
            "learning_curve": measured.curve.as_dict() if measured.curve else None,
            "seen": measured.classifier.as_dict() if measured.classifier else None,
            "images": measured.images,
            "judged": measured.held_out_images,
            "groups": measured.held_out_groups,
            "classes": len(counts),
            "commonest_class": measured.evidence.majority.accuracy,
            "smallest_class": int(counts.min()),
            "largest_class": int(counts.max()),
            "features": str(self.features),
            "picture": str(self.picture),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("advise", "images")
def advise(
    data: ImageSet | str | os.PathLike[str],
    backbone: str | None = None,
    *,
    weights: str = "default",
    device: str = "auto",
    value_range: str | int | tuple[float, float] | None = None,
    bands: str | Sequence[int] | None = None,
    fit: str | None = None,
    seed: int = 0,
    group: str | None = None,
    table: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Advice:
    """Measure what a backbone's features are worth on a data set, and recommend what to do next.

    Everything is cross-validated on the training images. Those of val and test have no part in it, so that they can evaluate
    what comes of the advice.

    Args:
        data: a data set, or what ``scan_images`` takes, whose images go through every stage of the backbone once; or a
            feature file, whose layers are used as they are.
        backbone: for a data set, the backbone, by default "resnet50"; for a feature file, a replacement for the stored name,
            needed if that is a Python file.
        weights: see ``load_backbone``; for a feature file, a replacement for the stored weights if their file has moved.
        device: see ``load_backbone``.
        value_range: for a data set, see ``load_backbone``.
        bands: for a data set, see ``load_backbone``.
        fit: for a data set, see ``load_backbone``.
        seed: of folds, samples and draws.
        group: a column of the data set's table; images of one group never straddle a split or a fold, and count as one unit
            in errors and resamples.
        table: the table with that column, where it is not the one that the features were extracted from.
        cache: the folder of feature files.
        workers: see ``extract``.
        out: the figure's file, instead of ``<models>/<features>--advice.png``.
        models: the folder for the figure, and for what the recommended command writes.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: see ``extract``.

    Raises:
        AdviceError: the labels are not classes, there are too few images, or the file lacks the penultimate layer.
        DatasetError, BackboneError, CacheMissError, CorruptFileError: see ``extract`` and ``FeatureSet.load``.
        OutputError: the figure cannot be written.
        SettingsError: a value range, bands or a fit are given for a feature file.

    Example:

        advice = featx.advise("photos/", "mobilenet_v3_small")
        print(advice.recommendation, advice.layer, advice.confidence)
        print("; ".join(advice.reasons))
        print(advice.command)  # featx fit-head cache/photos--mobilenet_v3_small.h5
    """
    network: Backbone | None
    data = data if isinstance(data, ImageSet) else path_of(data, "data")
    if out:
        _require_picture(Path(out), data, backbone, weights)  # before the images pass through the network
    if not isinstance(data, ImageSet) and is_feature_file(data):
        if any(option is not None for option in (value_range, bands, fit)):
            raise SettingsError(
                f"{data} is a feature file, whose images were read already; --value-range, --bands and --fit are for a data set"
            )
        file = open_features(data)
        network, notes = _restore(file, backbone, weights, device)
        notes = (*label_changes(file.path), *notes)
    else:
        images = _labelled_images(data)
        load = functools.partial(load_backbone, value_range=value_range, bands=bands, fit=fit)
        network = load(backbone or "resnet50", weights=weights, stages=True, device=device)
        extraction = extract(images, network, cache=cache, workers=workers, reporter=reporter)
        file, notes = open_features(extraction.file), extraction.remarks
    picture = Path(out) if out else Path(models) / f"{file.path.stem}--advice.png"
    _require_picture(picture, data, backbone, weights, file, named=bool(out))
    measurements = gather(file, network, seed=seed, group=group, table=table, workers=workers, reporter=reporter)
    decision = decide(measurements.evidence)
    confidence, interval = bootstrap(measurements.evidence, seed=seed)
    _draw(measurements, picture)
    return Advice(
        measurements=measurements,
        decision=decision,
        layer=wording.layer_name(decision, measurements.blocks),
        confidence=confidence,
        gain_interval=interval,
        command=wording.next_command(measurements, decision, Path(models)),
        reasons=tuple(wording.reasons(measurements, decision)),
        picture=picture,
        notes=(*notes, *measurements.notes),
    )


def _require_picture(
    picture: Path,
    data: ImageSet | str | os.PathLike[str],
    backbone: str | None,
    weights: str,
    file: Features | None = None,
    *,
    named: bool = True,
) -> None:
    """Refuse a picture that cannot be written, or that would take the place of another file."""
    source = data.table if isinstance(data, ImageSet) else data
    read = [each for each in (source, weights, (backbone or "").rpartition(":")[0], file and file.path) if each]
    require_outputs([Output(picture, ADVICE, named=named)], read, images=image_places(file))


def _labelled_images(data: ImageSet | str | os.PathLike[str]) -> ImageSet:
    """Return an image set; an AdviceError if none of its images is labelled."""
    images = data if isinstance(data, ImageSet) else scan_images(data)
    if (images.labels == UNLABELLED).all():
        raise AdviceError(
            f"{images.root} has no labels, but advise compares heads, which need them; make one folder for each class, or a "
            "table with labels"
        )
    return images


def _restore(
    file: Features, backbone: str | None, weights: str, device: str
) -> tuple[Backbone | None, tuple[str, ...]]:
    """Load the backbone of a feature file; None, and a note, if it is not available here."""
    identities = {name: file.layers[name].identity for name in plain_layers(file.layers)}
    moved = None if weights == "default" else weights
    try:
        return restore_backbone(file.backbone, layers=identities, name=backbone, weights=moved, device=device), ()
    except (BackboneError, StaleCacheError) as error:
        return None, (f"{error}; so its own classifier and random weights were not compared",)


def _draw(measurements: Measurements, picture: Path) -> None:
    """Write the figure: accuracy by layer, and the learning curve."""
    from featx.report.plots import advice_figure, save_png  # matplotlib, loaded late

    curve, random_weights = measurements.curve, measurements.random_weights
    figure = advice_figure(
        measurements.accuracies,
        measurements.joint_accuracies,
        random_weights.untrained if random_weights else {},
        measurements.evidence.majority.accuracy,
        curve.points if curve else (),
        curve.band() if curve else np.empty((0, 4)),
        measurements.images,
        subject=f"{measurements.dataset}, {measurements.backbone}: heads cross-validated on {measurements.images} images",
    )
    save_png(figure, picture, ADVICE)

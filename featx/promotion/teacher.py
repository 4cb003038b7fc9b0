"""Teachers: heads and models whose probabilities a network is trained towards (knowledge distillation; Hinton et al., 2015).

A teacher that has seen the labels of an image is too sure of it, and one that has seen the labels of a test image would
bring them into the network. So a head teaches by predictions that were made without the image: it is fitted to the training
images of each run anew, and each of these is predicted by the fold that holds it out. A model cannot be fitted again within
minutes. It teaches by what it says, and it must not have seen a test image.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featx.arguments import path_of
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError, CacheMissError, HeadError, PromotionError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import is_joint
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.out_of_fold import predict_held_out
from featx.heads.own_features import features_in, fitted_files
from featx.heads.seen import NOTHING_SEEN, SeenImages, are_copies
from featx.io import model_file
from featx.layer_spec import LayerSpec
from featx.metrics.paired import PairedTest
from featx.promotion.assemble import Assembly
from featx.promotion.config import FineTuning
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.system import MISSING, why_unreadable
from featx.text import counted, form

LEAST = 1e-6
"""The least probability that a teacher gives a class: its logarithm is finite."""

_LABEL = 0.9
"""The probability of the label of an image that no fold can hold out, in place of a teacher's."""

TIMED = 16
"""Images that speeds are measured on."""


class Teacher(Protocol):
    """A classifier that teaches a network.

    Attributes:
        name: What to call it.
    """

    name: str

    @property
    def seen(self) -> SeenImages:
        """The images that it has seen besides those of a run; a network that learned from it has seen them too."""

    def prepare(self, assembly: Assembly, settings: FineTuning) -> tuple[FineTuning, list[str]]:
        """Check that it can teach, before anything is trained.

        Args:
            assembly: The network and its data set.
            settings: The settings of fine-tuning.

        Returns:
            The settings, without repeats on other splits where the teacher has seen the labels that would judge there, and
            sentences for the user.

        Raises:
            PromotionError: It does not know the images or the classes, or it has seen labels that it must not have.
        """
        ...

    def why_once(self, assembly: Assembly) -> str:
        """Return why the network cannot be fine-tuned on other splits, in one sentence; "" if it can."""
        ...

    def lesson(self, assembly: Assembly, train: np.ndarray, unseen: np.ndarray) -> Lesson:
        """Return what it teaches on some images.

        Args:
            assembly: The network and its data set of N images and C classes.
            train: (n,) int64, the rows that the network is trained on.
            unseen: (m,) int64, the rows whose labels the teacher must not have seen.

        Raises:
            PromotionError: It does not know the images or the classes, or it has seen labels that it must not have.
        """
        ...

    def images_per_second(self) -> float | None:
        """Measure how many images its networks take in a second; None if they cannot be built here."""
        ...


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher teaches in one run.

    Attributes:
        log_probabilities: (N, C) float64, NaN in rows that are not trained on.
        said: (m,) int64, the classes that the same teacher predicts for the images of ``unseen``.
        notes: Sentences for the user.
    """

    log_probabilities: np.ndarray
    said: np.ndarray
    notes: tuple[str, ...] = ()


class HeadTeacher:
    """A head as the teacher: on another backbone, on several, or of another kind.

    Args:
        head: A fitted head for classes. It is fitted anew, with the hyper-parameters that were chosen for it.
        features: The features of its layer, with the images of the network's data set among them.
        name: What to call it.
    """

    def __init__(self, head: Head, features: FeatureSet, name: str) -> None:
        if head.task_ != "classification":
            raise HeadError(
                f"the teacher {name} is a head for {head.task_}; a network learns from a head that predicts one class"
            )
        self.head, self.features, self.name = head, features, name

    @property
    def seen(self) -> SeenImages:
        """None, because it is fitted anew to the images that the network is trained on."""
        return NOTHING_SEEN

    def prepare(self, assembly: Assembly, settings: FineTuning) -> tuple[FineTuning, list[str]]:
        """Check that the images of the data set are among its features."""
        self._rows(assembly, assembly.data.labelled_rows)
        return settings, []

    def why_once(self, assembly: Assembly) -> str:  # noqa: ARG002 - it is fitted to each split anew
        """Return ""."""
        return ""

    def lesson(self, assembly: Assembly, train: np.ndarray, unseen: np.ndarray) -> Lesson:
        """Fit the head to the training images, and predict each of them by the fold that holds it out."""
        own = self._images(assembly, np.concatenate([train, unseen]))
        rows, classes = np.arange(len(train)), assembly.data.classes
        head = self.head.clone().fit(own, rows=rows, cross_validate=True)
        if set(head.names_) != set(classes):
            raise PromotionError(
                f"the teacher {self.name} knows the classes {', '.join(head.names_)}, and the network is to learn "
                f"{', '.join(classes)}"
            )
        order = [head.names_.index(name) for name in classes]
        held_out = predict_held_out(head, own, rows)
        labels = assembly.data.labels[train]
        probabilities = np.where(labels[:, None] == np.arange(len(classes)), _LABEL, (1 - _LABEL) / len(classes))
        probabilities[held_out.rows] = held_out.outputs[:, order]
        said = head.predict_values(np.asarray(own.features[len(train) :]))[:, order].argmax(axis=1)
        alone = len(train) - len(held_out.rows)
        notes = (
            f"no fold holds out {alone} of the training images, so {form(alone, 'its label teaches', 'their labels teach')} "
            "in place of the teacher",
        )
        return Lesson(_logarithms(assembly, train, probabilities), said, notes if alone else ())

    def images_per_second(self) -> float | None:
        """Measure the speed of its backbones, one after the other."""
        head = self.head
        parts: list[dict[str, Any]] = [{"backbone": head.backbone_, "layer": head.layer_, "identity": head.identity_}]
        seconds = 0.0
        for part in head.backbone_["parts"] if is_joint(head.backbone_) else parts:
            try:
                backbone = restore_backbone(part["backbone"], layers={part["layer"]: part["identity"]})
            except (BackboneError, StaleCacheError, KeyError):
                return None
            pixels = np.zeros((TIMED, *backbone.transform.shape), dtype=np.uint8)
            seconds += len(LayerSpec.parse(part["layer"]).views) / speed(partial(backbone.encode, pixels), TIMED)
        return 1 / seconds

    def _rows(self, assembly: Assembly, rows: np.ndarray) -> np.ndarray:
        """The rows of the teacher's features that hold some images of the data set."""
        known = {key.tobytes(): row for row, key in reversed(list(enumerate(self.features.keys)))}
        found = [known.get(key.tobytes(), -1) for key in assembly.features.keys[rows]]
        missing = found.count(-1)
        if missing:
            example = assembly.features.paths[rows[found.index(-1)]]
            raise PromotionError(
                f"the features of the teacher {self.name} lack {missing} of {counted(len(rows), 'image')}, such as {example}; "
                "run featx extract on this data set with the teacher's backbone, and fit the teacher to its features"
            )
        return np.array(found, dtype=np.int64)

    def _images(self, assembly: Assembly, rows: np.ndarray) -> FeatureSet:
        """The teacher's features of some images of the data set, with the labels and groups of the data set."""
        groups, data = assembly.features.groups, assembly.data
        return dataclasses.replace(
            self.features,
            features=np.asarray(self.features.features[self._rows(assembly, rows)]),
            labels=data.labels[rows],
            classes=data.classes,
            splits=np.full(len(rows), "train", dtype=object),
            paths=assembly.features.paths[rows],
            keys=assembly.features.keys[rows],
            groups=None if groups is None else groups[rows],
            columns={},
        )


class ModelTeacher:
    """A promoted model as the teacher, by what it says of the images.

    Args:
        model: The model.
        name: What to call it.
    """

    def __init__(self, model: PromotedModel, name: str) -> None:
        self.model, self.name = model, name
        self._known: dict[int, np.ndarray] = {}

    @property
    def seen(self) -> SeenImages:
        """The images of the model."""
        return self.model.seen

    def prepare(self, assembly: Assembly, settings: FineTuning) -> tuple[FineTuning, list[str]]:
        """Check the classes, and which images it was trained on: none may judge, in the folds of a search neither."""
        data, classes = assembly.data, assembly.data.classes
        if set(self.model.classes) != set(classes):
            raise PromotionError(
                f"the teacher {self.name} knows the classes {', '.join(self.model.classes)}, and the network is to learn "
                f"{', '.join(classes)}"
            )
        test, train = data.rows(assembly.test_split), data.rows("train")
        self._require_unseen(assembly, test, f"{counted(len(test), 'image')} of split {assembly.test_split}")
        if settings.search:
            images = counted(len(train), "training image")
            self._require_unseen(assembly, train, f"{images}, on which --search judges settings")
        others = np.setdiff1d(data.labelled_rows, test)
        seen = int(self._seen(assembly)[others].sum())
        if not seen:
            return settings, []
        training = counted(len(others), "image that trains or validates", "images that train and validate")
        notes = [
            f"the teacher {self.name} was trained on {seen:,} of the {training} the network, so it is surer of "
            f"{form(seen, 'it', 'them')} than of new ones; a head as the teacher predicts each image by a fold without it"
        ]
        if settings.repeats:
            notes.append(f"a gain that may be luck will not be tested on other splits: {self.why_once(assembly)}")
        return dataclasses.replace(settings, repeats=0), notes

    def why_once(self, assembly: Assembly) -> str:
        """Return how many of the images that other splits would test it was trained on."""
        labelled = assembly.data.labelled_rows
        seen = int(self._seen(assembly)[labelled].sum())
        if not seen:
            return ""
        return (
            f"the teacher {self.name} was trained on {seen:,} of the {len(labelled):,} images, all of which judge there; a "
            "head as the teacher is fitted anew on each split"
        )

    def lesson(self, assembly: Assembly, train: np.ndarray, unseen: np.ndarray) -> Lesson:
        """Predict the training images."""
        classes = assembly.data.classes
        judging = counted(len(unseen), "image that judges", "images that judge")
        self._require_unseen(assembly, unseen, judging)
        order = [self.model.classes.index(name) for name in classes]
        logits = self._logits(assembly, np.concatenate([train, unseen]))[:, order]
        probabilities = np.exp(logits[: len(train)] - np.logaddexp.reduce(logits[: len(train)], axis=1)[:, None])
        said = logits[len(train) :].argmax(axis=1)
        chose = int(are_copies(assembly.features.keys[unseen], self.seen.validation).sum())
        note = (
            f"thresholds or the epoch of the teacher {self.name} were chosen on {chose:,} of the {judging}, "
            "which flatters it and the network a little"
        )
        return Lesson(_logarithms(assembly, train, probabilities), said, (note,) if chose else ())

    def images_per_second(self) -> float | None:
        """Measure the speed of its network."""
        pixels = np.zeros((TIMED, *self.model.transform.shape), dtype=np.uint8)
        return speed(lambda: self.model.logits(pixels), TIMED)

    def _require_unseen(self, assembly: Assembly, rows: np.ndarray, images: str) -> None:
        """Raise PromotionError if the model was trained on some of the images that judge, which ``images`` names."""
        seen = int(self._seen(assembly)[rows].sum())
        if seen:
            raise PromotionError(
                f"the teacher {self.name} was trained on {seen:,} of the {images}, so "
                f"{form(seen, 'its label', 'their labels')} would reach the network; take a head as the teacher, which is "
                f"fitted anew without {form(seen, 'it', 'them')}"
            )

    def _seen(self, assembly: Assembly) -> np.ndarray:
        """(N,) bool: whether the model's head was fitted to an image."""
        return are_copies(assembly.features.keys, self.seen.train)

    def _logits(self, assembly: Assembly, rows: np.ndarray) -> np.ndarray:
        new = np.array([row for row in rows.tolist() if row not in self._known], dtype=np.int64)
        if len(new):
            data = dataclasses.replace(
                assembly.data, transform=self.model.transform, device=self.model.device, classes=self.model.classes
            )
            self._known.update(zip(new.tolist(), data.logits(self.model.network, new, self.model.views), strict=True))
        return np.stack([self._known[row] for row in rows.tolist()])


@dataclass(frozen=True, eq=False)
class TeacherComparison:
    """The network beside its teacher, on the test images.

    Attributes:
        name: Of the teacher.
        paired: The comparison of teacher and network, image by image.
        images_per_second: Images in a second of the teacher's networks, and of the network; None where not measured.
    """

    name: str
    paired: PairedTest
    images_per_second: tuple[float | None, float | None] = (None, None)

    @property
    def accuracy(self) -> float:
        """The teacher's accuracy."""
        return self.paired.first_accuracy

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON has it."""
        teacher, network = self.images_per_second
        return {
            "name": self.name,
            "accuracy": self.accuracy,
            "paired": self.paired.as_dict("teacher", "finetuned"),
            "images_per_second": None if teacher is None else round(teacher, 1),
            "images_per_second_finetuned": None if network is None else round(network, 1),
        }


def load_teacher(teacher: Head | PromotedModel | str | os.PathLike[str], device: str = "auto") -> Teacher:
    """Return a teacher.

    Args:
        teacher: A head that names its feature files, a model, or a file of either.
        device: Device that a model runs on.

    Raises:
        ModelNotFoundError, CorruptFileError: The file is missing or damaged.
        HeadError: The head does not predict one class.
        CacheMissError, StaleCacheError: Its features are gone, or are not those that it was fitted to.
    """
    name = ""
    if not isinstance(teacher, Head | PromotedModel):
        path = Path(path_of(teacher, "the teacher"))
        is_model = model_file.read_metadata(path, HEAD, MODEL)["format"] == MODEL.format
        teacher, name = (PromotedModel.load(path, device=device) if is_model else Head.load(path)), path.stem
    if isinstance(teacher, PromotedModel):
        return ModelTeacher(teacher, name or str(teacher.metadata["name"]))
    name = name or f"{teacher.backbone_.get('name', 'features')} {teacher.kind}"
    return HeadTeacher(teacher, _features_of(teacher, name), name)


def _features_of(head: Head, name: str) -> FeatureSet:
    """The features that a head was fitted to."""
    files, count = fitted_files(head), len(head.backbone_["parts"]) if is_joint(head.backbone_) else 1
    gone = [file for file in files if why_unreadable(file) == MISSING]
    if gone or len(files) < count:
        what = (
            f"the feature file {gone[0]} of the teacher {name} is gone"
            if gone
            else (f"the teacher {name} was fitted to features that are in no file")
        )
        raise CacheMissError(f"{what}; run featx extract and featx fit-head again")
    features = features_in(head, files)
    head.require_identity(features)
    return features


def _logarithms(assembly: Assembly, train: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    out = np.full((len(assembly.features), len(assembly.data.classes)), np.nan)
    out[train] = np.log(np.clip(probabilities, LEAST, 1.0))
    return out


def speed(run: Callable[[], object], images: int, seconds: float = 0.5) -> float:
    """Images in a second of a call that takes so many, after one that does not count."""
    run()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        run()
        calls += 1
    return calls * images / (time.perf_counter() - began)

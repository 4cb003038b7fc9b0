"""A head on its backbone as one network: proved to be the head, trained from there, judged beside it, on one split or more."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from featx.backbones.backbone import Backbone
from featx.backbones.truncate import head_of
from featx.constants import CACHE, FROZEN
from featx.data.splits import hash_group_splits
from featx.errors import FoldError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.postprocess import balanced_weights, softmax
from featx.layer_spec import LayerSpec
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest, PromotionCriterion
from featx.promotion.batches import Pictures, Sources
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.distributed import processes
from featx.promotion.epoch_log import EpochLog
from featx.promotion.model import PromotedModel, ending_at, set_last_layer
from featx.promotion.param_groups import trained
from featx.promotion.trainer import Trainer, TrainingHistory, ValidationScore, tune
from featx.reporter import SILENT, Reporter
from featx.system import cores

PROOF_IMAGES = 64
"""How many images, or views of them, the assembled network is compared with the head on."""

TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest logit difference that counts as equal, relative to the largest logit (or 1), by the features' dtype."""


@dataclass(frozen=True)
class Proof:
    """That the assembled network is the head.

    Attributes:
        largest: difference between a logit of the network and the head's.
        mean: of all such differences, without their signs.
        images: that were compared.
    """

    largest: float
    mean: float
    images: int


@dataclass(frozen=True, eq=False)
class FineTuningRun:
    """One fine-tuning, judged.

    Attributes:
        tuning: how it went.
        report: the network that came out, or the head where that was best, on the images that judge.
        paired: it and the head on them, image by image.
        start: what the head that it started at gets on the images that choose, by its features; entry 0 of the log is what the
            network got.
        chosen_on: those images, in words.
    """

    history: TrainingHistory
    report: ClassificationReport
    paired: PairedTest
    start: ValidationScore
    chosen_on: str


class FineTuningRuns:
    """A head as a network, and the images that it is proved, trained, chosen and judged on.

    Attributes:
        judge_split: where the verdict falls.
        pictures: the images, with their labels as the head counts classes.
        classifier: name of the network's last layer.
        network: the assembled network, which is trained in place.
        as_head: its tensors while it is the head.
    """

    def __init__(
        self,
        head: Head,
        features: FeatureSet,
        backbone: Backbone,
        workers: int | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        self.head, self.features, self.backbone = head, features, backbone
        self.processes = processes(backbone.device)
        self.reporter = reporter if self.processes.first else SILENT
        self.test_split = features.held_out()
        index = {name: i for i, name in enumerate(head.classes_)}
        ours = np.array([index.get(name, -1) for name in features.classes], dtype=np.int64)
        labels = np.where(features.labels >= 0, ours[features.labels], -1)
        workers = workers or max(1, cores() // self.processes.count)
        self.pictures = Pictures(
            features, labels, head.classes_, backbone.transform, backbone.device, workers, self.processes
        )
        self.classifier = head_of(head.layer, backbone.classifier)
        self.network = self._assembled(head)
        self.as_head = copy.deepcopy(self.network.state_dict())
        self._checkpoints: list[Checkpoint] = []

    def prove(self) -> Proof:
        """How far the network's logits are from the head's, over images of the data set.

        Raises:
            HeadError: further than rounding.
        """
        every = self.pictures.rows(self.test_split)
        count = min(-(-PROOF_IMAGES // self.features.views), len(every))
        rows = every[np.linspace(0, len(every) - 1, count).astype(int)]
        head_logits = self._says(self.head, rows)
        apart = np.abs(self._shows(self.network, rows) - head_logits)
        allowed = TOLERANCE[self.backbone.dtype] * max(1.0, float(np.abs(head_logits).max()))
        if not apart.max() <= allowed:
            raise HeadError(
                f"the assembled network's logits differ from the head's by up to {apart.max():.3g} on {len(rows)} images; "
                f"at most {allowed:.3g} is rounding. The network was not saved"
            )
        return Proof(float(apart.max()), float(apart.mean()), len(rows))

    def first(self, settings: FineTuning, path: Path, *, tensorboard: bool = False) -> FineTuningRun:
        """Train from the head on; the network ends as what did best on the images that choose. A log lies beside the model."""
        log = EpochLog(path, tensorboard=tensorboard) if self.processes.first else None
        start, train, select, chosen_on = self.chosen()
        judge = self.pictures.rows(self.test_split)
        run = self._trial(settings, path, start, train, select, chosen_on, self.head, judge, log=log)
        if log:
            log.end(run.history)
        return run

    def others(
        self, settings: FineTuning, path: Path, first: FineTuningRun
    ) -> tuple[tuple[FineTuningRun, ...], list[str]]:
        """The same on other splits, as long as they may prove a gain, and what to say of it.

        In all of them together each labelled image judges once. The network is as before in the end.
        """
        standard, gain, every = PromotionCriterion(settings.significance, settings.repeats), first.paired, self._every()
        if gain.gained <= 0 or standard.proved(gain):
            return (), []
        luck = f"{gain.gained} more right of {gain.n} may be luck"
        if not settings.repeats:
            return (), [f"{luck}; --repeats 5 asks up to five other splits, which together judge every image"]
        if not standard.undecided(gain, (), len(every)):
            return (), [
                f"{luck}; no other splits were asked, for so small a gain on all {len(every)} images would be no proof"
            ]
        minutes = math.ceil(sum(entry.get("seconds") or 0 for entry in first.history.log) / 60)
        self.reporter.note(
            f"{luck}: up to {settings.repeats} other splits are asked, each some {minutes} min; --repeats 0 asks none"
        )
        before, runs, notes = copy.deepcopy(self.network.state_dict()), list[FineTuningRun](), list[str]()
        try:
            for run in self._others(settings, path, every):
                runs.append(run)
                if not standard.undecided(gain, [each.paired for each in runs], len(every)):
                    break
        except (HeadError, FoldError) as error:  # the first verdict stands without them
            notes.append(f"{luck}; {'further' if runs else 'other'} splits could not be asked: {error}")
        self.network.load_state_dict(before)
        return tuple(runs), notes

    def _others(self, settings: FineTuning, path: Path, every: np.ndarray) -> Iterator[FineTuningRun]:
        groups = row_groups(self.features, every)
        folds = make_folds(self.pictures.labels[every], groups, folds=settings.repeats, seed=settings.seed)
        for number, (rest, judge) in enumerate(folds, start=1):
            self.reporter.note(f"split {number}: {len(rest)} images to train on and choose by, {len(judge)} judge")
            head = self.head.clone().fit(self.features, rows=every[rest])
            start, train, select, chosen_on = self._held_back(every[rest])
            yield self._trial(settings, path, start, train, select, chosen_on, head, every[judge], repeat=number)

    def chosen(self) -> tuple[Head, np.ndarray, np.ndarray, str]:
        """The head to start at, the rows to train on and to choose by, and the latter in words."""
        train, val = self.pictures.rows("train"), self.pictures.rows("val")
        if self.test_split != "val" and len(val):
            return self.head, train, val, f"the {len(val)} images of split val"
        return self._held_back(train)

    def back_to_head(self) -> None:
        """Undo the training."""
        self.network.load_state_dict(self.as_head)

    def clear(self) -> None:
        """The model is there: what training could have gone on from is needed no more."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    def model(self, facts: dict[str, Any]) -> PromotedModel:
        """The network with all that its file says of it."""
        metadata = {
            **facts,
            "name": self.backbone.name,
            "origin": self.backbone.describe()["architecture"],
            "classifier": self.classifier,
            "reject_below": self.head.reject_below_,
            "layer": self.head.layer_,
            "width": self.head.as_linear()[0].shape[1],
            "dataset": self.features.dataset,
            "head": {"kind": self.head.kind, "parameters": self.head.parameters, "identity": self.head.identity_},
            "n_train": self.head.n_train_,
        }
        return PromotedModel(
            self.network,
            transform=self.backbone.transform,
            classes=self.head.classes_,
            metadata=metadata,
            train_keys=self.head.train_keys_,
            device=self.backbone.device,
        )

    def _trial(
        self, settings: FineTuning, path: Path, start: Head, train: np.ndarray, select: np.ndarray, chosen_on: str,
        head: Head, judge: np.ndarray, *, repeat: int = 0, log: EpochLog | None = None,
    ) -> FineTuningRun:  # fmt: skip
        """Train from one head on, and judge the network against another on rows that had no part in it."""
        pictures = self.pictures
        before = pictures.judged(select, start.decision_function(np.asarray(self.features.plain[select])))
        checkpoint = Checkpoint(path, self._asked(settings, start, train, select, repeat))
        self._checkpoints.append(checkpoint)
        self.network = self._assembled(start)
        which = trained(self.network, self.classifier, settings)
        folder = (self.features.source.parent if self.features.source else Path(CACHE)) / FROZEN
        source, module, notes = Sources(pictures, self.network, self.backbone, folder, self.reporter).of(
            which, settings, train, select, every=self._every() if repeat else None
        )
        balanced = settings.class_weight == "balanced"
        trainer = Trainer(
            self.network,
            module,
            which,
            settings,
            images=len(train),
            class_weights=balanced_weights(pictures.labels[train], len(pictures.classes)) if balanced else None,
            processes=self.processes,
        )
        history = tune(trainer, source, checkpoint, reporter=self.reporter, logged=log.write if log else None)
        history.notes[:0] = notes
        of_head = self._says(head, judge)
        logits = self._shows(self.network, judge) if history.alpha else of_head
        report = ClassificationReport.from_predictions(
            pictures.labels[judge], softmax(logits), pictures.classes,
            split="other images" if repeat else self.test_split, reject_below=head.reject_below_,
        )  # fmt: skip
        paths, said = self.features.paths[judge], (of_head.argmax(axis=1), logits.argmax(axis=1))
        return FineTuningRun(
            history, report, PairedTest.from_predictions(paths, pictures.labels[judge], *said), before, chosen_on
        )

    def _held_back(self, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray, str]:
        """As ``chosen``: a fifth of the rows chooses, and the head is fitted again without it."""
        groups = None if self.features.groups is None else self.features.groups[rows]
        chooses = hash_group_splits(self.features.keys[rows], groups, self.pictures.labels[rows]) == "test"
        select, train = rows[chooses], rows[~chooses]
        start = self.head.clone().fit(self.features, rows=train) if len(select) else self.head
        if not len(select) or start.classes_ != self.head.classes_:
            raise HeadError(
                "too few training images to hold some back that choose the best epoch; add images, or a split val beside test"
            )
        return start, train, select, f"{len(select)} of the training images, held back by their content"

    def _asked(
        self, settings: FineTuning, start: Head, train: np.ndarray, select: np.ndarray, repeat: int
    ) -> dict[str, Any]:
        """What a run of fine-tuning depends on, as JSON."""
        sha256 = hashlib.sha256()
        for array in (*start.as_linear(), self.features.keys, self.pictures.labels, train, select):
            sha256.update(np.ascontiguousarray(array).tobytes())
        training = {k: v for k, v in asdict(settings).items() if k not in ("significance", "repeats")}
        return {"settings": training, "identity": self.head.identity_, "sha256": sha256.hexdigest(), "repeat": repeat}

    def _assembled(self, head: Head) -> nn.Module:
        """A head on the backbone, as one network."""
        weight, bias = head.as_linear()
        network = ending_at(head.layer, copy.deepcopy(self.backbone.network), weight.shape[1], self.classifier)
        set_last_layer(network, self.classifier, weight, bias)
        return network.to(self.backbone.device).eval()

    def _says(self, head: Head, rows: np.ndarray) -> np.ndarray:
        """(R, C) float64 logits of a head, by the features."""
        return head.decision_function(np.asarray(self.features.features[rows]))

    def _shows(self, network: nn.Module, rows: np.ndarray) -> np.ndarray:
        """The same of a network, by the images, in the views that the head goes by."""
        return self.pictures.logits(network, rows, LayerSpec.parse(self.head.layer_).views)

    def _every(self) -> np.ndarray:
        """All rows that a head may be fitted to or judged on."""
        return np.concatenate([self.pictures.rows(split) for split in ("train", "val", "test")])

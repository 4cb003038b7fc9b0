"""The loop that trains a network from its head on, epoch by epoch, and survives what happens meanwhile.

All chance is drawn from the seed and the epoch's number, so that a run that goes on from its last checkpoint ends at the
same weights as one that was never stopped: bit for bit on the CPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featx.errors import HeadError
from featx.extraction.engines import installed
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.distributed import Processes
from featx.promotion.param_groups import Trained, frozen, parameter_groups
from featx.reporter import SILENT, Reporter
from featx.text import brief

MOST_HALVED = 2
"""How often training that diverged begins again from its last good epoch at half the rate."""
EXPLODED = 3.0
"""An epoch has diverged where its loss is this many times that of a head that knows nothing, and of the first epoch; or its log
loss on the images that choose, and of the head there."""
ALPHAS = (0.25, 0.5, 0.75)
"""Shares of the way from the head's network to the tuned one that are tried between the two."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where fine-tuning stands, for a progress bar.

    Attributes:
        epoch: from 1; 0 while a frozen part is run, once for all epochs.
        epochs: at most.
        done: images of this epoch.
        total: images in an epoch.
        loss: mean training loss of this epoch so far, in nats.
        accuracy: of the best epoch so far, on the images that choose; the head's before the first.
        rate: the head's learning rate.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float
    rate: float

    @classmethod
    def caching(cls, done: int, total: int) -> TrainingProgress:
        """While the outputs of a frozen part are computed, before the first epoch."""
        return cls(0, 0, done, total, math.nan, 0.0, 0.0)

    def __str__(self) -> str:
        if not self.epoch:
            return "the frozen part, once"
        return f"epoch {self.epoch}/{self.epochs}, loss {self.loss:.3f}, rate {self.rate:.1e}, best {self.accuracy:.4f}"


@dataclass(frozen=True)
class ValidationScore:
    """What weights got on the images that choose."""

    accuracy: float
    log_loss: float


class Source(Protocol):
    """Where the trained part of a network gets its inputs.

    Attributes:
        images: of an epoch.
        classes: C.
    """

    images: int
    classes: int

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and (B,) int64 labels of all training images once, on the device, in an order of the epoch's own.

        Of each batch this process's part.
        """
        ...

    def judge(self) -> ValidationScore:
        """The network as it is, on the images that choose."""
        ...


@dataclass
class TrainingHistory:
    """One run, as far as it has come.

    Attributes:
        log: one entry per epoch, the first for epoch 0, the head itself: loss, selection accuracy and log loss, rate, seconds.
        best_epoch: of those trained, the one of least log loss on the images that choose; 0 before the first.
        halved: how often the rate was.
        pieces: into how many a batch is cut to fit in memory; their gradients are summed.
        alpha: share of the way from the head to the best epoch that is kept.
        curve: {alpha: log loss} on the images that choose.
        notes: what the user should know.
    """

    log: list[dict[str, float | None]] = field(default_factory=list)
    best_epoch: int = 0
    halved: int = 0
    pieces: int = 1
    alpha: float = 0.0
    curve: dict[float, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The last that is done."""
        return len(self.log) - 1

    @property
    def best(self) -> ValidationScore:
        """What the best epoch got; the head, before the first."""
        entry = self.log[self.best_epoch]
        return ValidationScore(float(entry["accuracy"] or 0), float(entry["log_loss"] or 0))


class Trainer:
    """A network in training: what is trained of it, and at what rates.

    Args:
        network: on its device; what is not trained is frozen.
        module: what is run: the network, or its part behind a frozen one.
        which: of its blocks are trained.
        settings: how.
        images: of an epoch.
        class_weights: (C,) of the loss, or None.
        processes: those that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        module: nn.Module,
        which: Trained,
        settings: FineTuning,
        *,
        images: int,
        class_weights: np.ndarray | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.network, self.settings = network.to(memory_format=torch.channels_last), settings
        self.processes = processes or Processes()
        self.device = next(network.parameters()).device
        self.start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.best = self.start
        self.scale, self.pieces, self.steps = 1.0, 1, 0
        self.total_steps = settings.epochs * math.ceil(images / settings.batch_size)
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = torch.from_numpy(class_weights.astype(np.float32)).to(self.device)
        self.still = list(frozen(network, which, norms=settings.train_bn))
        groups = parameter_groups(network, which, settings)
        self.module = self.processes.shared(module)
        if settings.compile:
            self.module = _compiled(self.module, self.device)
        self.rates = [group["lr"] for group in groups]
        fused = self.device.type in ("cuda", "cpu")
        if settings.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, lr=settings.lr, momentum=0.9, nesterov=True, fused=fused
            )
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=fused)
        self.averaged = {name: p.detach().clone() for name, p in self._trained()} if settings.ema else {}
        cuda = self.device.type == "cuda"
        self.precision = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler("cuda", enabled=cuda and self.precision == torch.float16)

    @property
    def rate(self) -> float:
        """The head's, now."""
        return self.settings.lr * self._share()

    def epoch(self, number: int, source: Source, done: Callable[[int, float], None]) -> float:
        """Train on all images once; returns the mean loss in nats, or the first that is not finite."""
        devices = [self.device] if self.device.type == "cuda" else []
        total, count = 0.0, 0
        with torch.random.fork_rng(devices):
            seed = [self.settings.seed, number, *([self.processes.rank] if self.processes.rank else [])]
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
            self.network.train()
            for module in self.still:
                module.eval()
            for inputs, labels in source.batches(number):
                size = round(self.processes.sum(len(labels)))
                total += self._step(inputs, labels, size, np.random.default_rng([self.settings.seed, number, count]))
                count += size
                if not math.isfinite(total):
                    break
                done(count, total / count)
        self.network.eval()
        self.processes.agree(self.network.buffers())
        return total / count

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Meanwhile the network has the weights that are judged and kept: the average's, where there is one."""
        if not self.averaged:
            yield
            return
        own = {name: p.detach().clone() for name, p in self._trained()}
        self.network.load_state_dict(self.averaged, strict=False)
        try:
            yield
        finally:
            self.network.load_state_dict(own, strict=False)

    def keep(self) -> None:
        """The weights as they are now are the best so far."""
        self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def take(self, alpha: float) -> None:
        """Give the network the weights at a share of the way from its start to the best."""
        with torch.no_grad():
            self.network.load_state_dict({
                name: torch.lerp(before, self.best[name], alpha) if before.is_floating_point() else self.best[name]
                for name, before in self.start.items()
            })  # fmt: skip

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that the next epoch depends on, and the best weights so far."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()} if self.best is not self.start else {}
        tensors |= {f"average.{name}": tensor for name, tensor in self.averaged.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
        facts = {"steps": self.steps, "scaler": self.scaler.state_dict()}
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Go back, or on, to what ``state`` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): torch.from_numpy(array.copy())
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        self.network.load_state_dict(part("network."))
        self.best = {name: t.to(self.device) for name, t in part("best.").items()} or self.start
        self.averaged = {name: t.to(self.device) for name, t in part("average.").items()}
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, tensor in part("optimizer.").items():
            index, key = name.split(".", 1)
            like = parameters[int(index)]  # fused steps go through both in the order that they have in memory
            state = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            optimizer["state"].setdefault(int(index), {})[key] = state
        self.optimizer.load_state_dict(optimizer)
        self.steps = facts["steps"]
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.network.named_parameters() if p.requires_grad)

    def _share(self) -> float:
        """Of the highest rate: it rises in a line, then falls as a cosine."""
        warmup = max(1, round(self.settings.warmup * self.total_steps))
        falling = 0.5 * (1 + math.cos(math.pi * min(1.0, self.steps / max(1, self.total_steps))))
        return self.scale * min((self.steps + 1) / warmup, falling)

    def _step(self, inputs: Tensor, labels: Tensor, images: int, rng: np.random.Generator) -> float:
        """One step on a batch of so many images, these of which are this process's; the sum of the losses of all."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._share()
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        mixup, share = self.settings.mixup, 1.0
        partners = labels
        if mixup:
            share = float(rng.beta(mixup, mixup))
            inputs, partners = share * inputs + (1 - share) * inputs.flip(0), labels.flip(0)
        total = 0.0
        self.optimizer.zero_grad()
        size = math.ceil(len(labels) / self.pieces)
        for at in range(0, len(labels), size):
            some = slice(at, at + size)
            with torch.autocast("cuda", self.precision, enabled=self.device.type == "cuda"):
                out = self.module(inputs[some])
                loss = share * self._loss(out, labels[some])
                if share < 1:
                    loss = loss + (1 - share) * self._loss(out, partners[some])
                loss = loss.sum()
            self.scaler.scale(loss * (self.processes.count / images)).backward()
            total += float(loss.detach())
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        for name, parameter in self._trained() if self.averaged else ():
            self.averaged[name].lerp_(parameter.detach(), 1 - self.settings.ema)
        return self.processes.sum(total)

    def _loss(self, out: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            out, labels, self.class_weights, reduction="none", label_smoothing=self.settings.label_smoothing
        )


def _compiled(module: nn.Module, device: torch.device) -> nn.Module:
    """A program for each size of batch: there are two at most, and one for all would be slow."""
    if "compile" not in installed(device.type):
        raise HeadError(f"--compile needs a GPU, or a C++ compiler (g++); {device} has none")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it says that there is no GPU
    program: nn.Module = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    return program


def tune(
    trainer: Trainer,
    source: Source,
    checkpoint: Checkpoint,
    *,
    reporter: Reporter = SILENT,
    logged: Callable[[TrainingHistory], None] | None = None,
) -> TrainingHistory:
    """Train until the epochs are over or their log loss on the images that choose falls no more.

    The network ends with the weights that did best there: of the best epoch, between the head and it, or the head's own. Goes
    on where the checkpoint ends.

    Args:
        trainer: at its start.
        source: of images.
        checkpoint: written after each epoch.
        reporter: gets the progress after each step.
        logged: called at the start and after each epoch, when the checkpoint is written.

    Raises:
        OutputError: a checkpoint cannot be written.
        HeadError: not even one image at a time fits in memory, or torch.compile fails.
    """
    settings = trainer.settings
    run = _resumed(trainer, checkpoint) or _begun(trainer, source, checkpoint)
    logged = logged or (lambda _: None)
    logged(run)
    while run.epoch < settings.epochs and run.epoch - run.best_epoch < settings.patience:
        try:
            entry, better = _epoch(trainer, source, run, reporter)
        except torch.OutOfMemoryError as error:
            _cut(trainer, run, error)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise HeadError(f"torch.compile cannot train this network: {brief(error)}; leave out --compile") from error
        except _DivergedError as error:
            if run.halved == MOST_HALVED:
                run.notes.append(f"{error} again, at a rate of {settings.lr * trainer.scale:g}; training ended there")
                _back(trainer, checkpoint)
                break
            run.halved += 1
            run.notes.append(f"{error}; it was tried again from epoch {run.epoch} on at half the rate")
        else:
            run.log.append(entry)
            run.best_epoch = run.epoch if better else run.best_epoch
            _save(checkpoint, trainer, run)
            logged(run)
            continue
        _back(trainer, checkpoint)
    _interpolate(trainer, source, run)
    return run


class _DivergedError(ArithmeticError):
    """The loss is not finite, or far above that of a head that knows nothing."""


def _begun(trainer: Trainer, source: Source, checkpoint: Checkpoint) -> TrainingHistory:
    before = source.judge()
    run = TrainingHistory([{"epoch": 0, "loss": None, "accuracy": before.accuracy, "log_loss": before.log_loss}])
    _save(checkpoint, trainer, run)
    return run


def _epoch(
    trainer: Trainer, source: Source, run: TrainingHistory, reporter: Reporter
) -> tuple[dict[str, float | None], bool]:
    """Train once on all images, and judge; the log's entry, and whether it is the best so far."""
    epoch, epochs, started = run.epoch + 1, trainer.settings.epochs, time.perf_counter()
    trainer.scale, trainer.pieces = 0.5**run.halved, run.pieces

    def done(images: int, loss: float) -> None:
        step = TrainingProgress(epoch, epochs, images, source.images, loss, run.best.accuracy, trainer.rate)
        reporter.progress((epoch - 1) * source.images + images, epochs * source.images, step)

    loss, rate = trainer.epoch(epoch, source, done), trainer.rate
    least, before = math.log(source.classes), run.log[0]["log_loss"] or 0
    first = run.log[1]["loss"] if run.epoch else math.inf  # augmented images may be hard for a head that is very sure
    if not math.isfinite(loss) or loss > EXPLODED * max(least, first or 0):
        raise _DivergedError(f"the loss became {loss:.4g} in epoch {epoch}")
    with trainer.judged():
        judged = source.judge()
        if not judged.log_loss <= EXPLODED * max(least, before):
            raise _DivergedError(
                f"the log loss on the images that choose became {judged.log_loss:.4g} in epoch {epoch}"
            )
        if better := not run.best_epoch or judged.log_loss < run.best.log_loss:
            trainer.keep()
    entry = {"epoch": epoch, "loss": loss, "accuracy": judged.accuracy, "log_loss": judged.log_loss, "rate": rate}
    return {**entry, "seconds": round(time.perf_counter() - started, 3)}, better


def _cut(trainer: Trainer, run: TrainingHistory, error: torch.OutOfMemoryError) -> None:
    """Take a batch in twice as many pieces from now on."""
    size = trainer.settings.batch_size
    if trainer.processes.count > 1:  # the others wait for gradients
        raise HeadError(
            f"a batch of {size} images does not fit on {trainer.device}; try a smaller --batch-size"
        ) from error
    if run.pieces >= size:
        raise HeadError(
            f"not even one image at a time fits on {trainer.device}; try --last 1 or --device cpu"
        ) from error
    run.pieces *= 2
    run.notes.append(f"a batch of {size} images did not fit in memory: it is taken in {run.pieces} pieces")
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


def _interpolate(trainer: Trainer, source: Source, run: TrainingHistory) -> None:
    """Leave the network at the best weights between the head's and the best epoch's."""
    run.curve = {0.0: float(run.log[0]["log_loss"] or 0)}
    if run.best_epoch:
        run.curve[1.0] = run.best.log_loss
        for alpha in ALPHAS if trainer.settings.interpolate else ():
            trainer.take(alpha)
            run.curve[alpha] = source.judge().log_loss
    run.curve = dict(sorted(run.curve.items()))
    run.alpha = min(run.curve, key=run.curve.__getitem__)
    trainer.take(run.alpha)


def _save(checkpoint: Checkpoint, trainer: Trainer, run: TrainingHistory) -> None:
    if trainer.processes.first:
        arrays, facts = trainer.state()
        facts["run"] = {**dataclasses.asdict(run), "curve": {}}
        checkpoint.save(arrays, facts)
    trainer.processes.wait()


def _back(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """To the last good epoch."""
    state = checkpoint.load()
    if state is None:
        raise HeadError(f"{checkpoint.path}, which training was to go back to, is gone or damaged; start it again")
    trainer.restore(*state)


def _resumed(trainer: Trainer, checkpoint: Checkpoint) -> TrainingHistory | None:
    state = checkpoint.load()
    if state is None:
        return None
    trainer.restore(*state)
    run = TrainingHistory(**state[1]["run"])
    run.notes.append(f"went on from the checkpoint of epoch {run.epoch}")
    return run

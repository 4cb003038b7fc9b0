"""The training loop: trains a network from its head on, epoch by epoch, and recovers from interruptions and divergence.

All random numbers depend on the seed and the epoch's number alone. A run that is resumed from its last checkpoint therefore
ends at the same weights as an uninterrupted one; on the CPU, bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featx.backbones.weights import copy_into
from featx.errors import PromotionError
from featx.extraction.engines import installed
from featx.promotion.checkpoint import Checkpoint, MemoryCheckpoint
from featx.promotion.config import FineTuning
from featx.promotion.distributed import ProcessGroup
from featx.promotion.history import TrainingHistory, TrainingProgress, ValidationScore
from featx.promotion.param_groups import TrainedBlocks, modules_in_eval_mode, parameter_groups
from featx.promotion.targets import Targets, distillation_losses
from featx.reporter import SILENT, Reporter
from featx.text import brief, counted

MAX_HALVINGS = 2
"""How often training that diverges is resumed from its last good epoch at half the learning rate."""
DIVERGENCE_FACTOR = 3.0
"""An epoch has diverged if its training loss exceeds this many times both the loss of uniform predictions and the first epoch's
loss, or if its validation log loss exceeds this many times both the loss of uniform predictions and the head's log loss."""
ALPHAS = (0.25, 0.5, 0.75)
"""The shares of the way from the head's weights to the fine-tuned ones at which interpolated weights are validated."""


class BatchSource(Protocol):
    """The inputs of the module that is trained.

    Attributes:
        n_images: Number of training images.
        n_classes: Number of classes, C.
    """

    n_images: int
    n_classes: int

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield inputs (B, ...) and targets of B images on the device: all training images once, in an order set by the epoch.

        In a group of processes, each process gets its shard of every batch.
        """
        ...

    def validate(self) -> ValidationScore:
        """Return the current network's score on the validation images."""
        ...


class Trainer:
    """A network in training: its optimizer, learning rates, average of weights, and best weights so far.

    Args:
        network: The whole network, on its device; blocks that are not trained are frozen.
        module: The module to run: the network itself, or its suffix behind the frozen blocks.
        trained: The blocks that are trained.
        settings: The settings of fine-tuning.
        n_images: Number of training images.
        class_weights: (C,) weights of the classes in the loss; None weights all images alike.
        processes: The processes that train together.

    Attributes:
        initial_state: The network's tensors before training, by name.
        best_state: The network's tensors at the best epoch so far; ``initial_state`` before the first.
        rate_scale: Factor of all learning rates, halved after divergence.
        accumulation_steps: Number of micro-batches that each batch is split into.
        steps: Optimizer steps so far.
        peak_rates: Peak learning rate of each parameter group.
        ema_weights: Exponential moving average of the trained parameters, by name; empty without ``settings.ema``.
    """

    def __init__(
        self,
        network: nn.Module,
        module: nn.Module,
        trained: TrainedBlocks,
        settings: FineTuning,
        *,
        n_images: int,
        class_weights: np.ndarray | None = None,
        processes: ProcessGroup | None = None,
    ) -> None:
        self.network, self.settings = network.to(memory_format=torch.channels_last), settings
        self.processes = processes or ProcessGroup()
        self.device = next(network.parameters()).device
        self.initial_state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.best_state = self.initial_state
        self.rate_scale, self.accumulation_steps, self.steps = 1.0, 1, 0
        self._total_steps = settings.epochs * math.ceil(n_images / settings.batch_size)
        self._class_weights = None
        if class_weights is not None:
            self._class_weights = torch.from_numpy(class_weights.astype(np.float32)).to(self.device)
        self._eval_modules = list(modules_in_eval_mode(network, trained, train_bn=settings.train_bn))
        groups = parameter_groups(network, trained, settings)
        self.module = self.processes.wrap(module)
        if settings.compile:
            self.module = _compiled(self.module, self.device)
        self.peak_rates = [group["lr"] for group in groups]
        self.optimizer = _optimizer(groups, settings, self.device)
        self.ema_weights = {name: p.detach().clone() for name, p in self._trained_parameters()} if settings.ema else {}
        is_cuda = self.device.type == "cuda"
        self._precision = torch.bfloat16 if is_cuda and torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler("cuda", enabled=is_cuda and self._precision == torch.float16)

    @property
    def rate(self) -> float:
        """The head's current learning rate."""
        return self.settings.lr * self._schedule()

    def train_epoch(self, epoch: int, source: BatchSource, on_step: Callable[[int, float], None]) -> float:
        """Train on all images once.

        Args:
            epoch: Number of the epoch, from 1.
            source: The inputs.
            on_step: Called after each step with the images so far and the mean loss so far.

        Returns:
            The mean training loss in nats. An epoch ends at once when the loss is not finite.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        loss_sum, count = 0.0, 0
        with torch.random.fork_rng(devices):
            seed = [self.settings.seed, epoch, *([self.processes.rank] if self.processes.rank else [])]
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
            self.network.train()
            for module in self._eval_modules:
                module.eval()
            for inputs, targets in source.batches(epoch):
                size = round(self.processes.sum(len(targets)))
                rng = np.random.default_rng([self.settings.seed, epoch, count])
                loss_sum += self.train_step(inputs, targets, size, rng)
                count += size
                if not math.isfinite(loss_sum):
                    break
                on_step(count, loss_sum / count)
        self.network.eval()
        self.processes.broadcast(self.network.buffers())
        return loss_sum / count

    def train_step(self, inputs: Tensor, targets: Targets, batch_size: int, rng: np.random.Generator) -> float:
        """Do one optimizer step.

        Args:
            inputs: (b, ...) inputs of this process, b = ``batch_size`` unless several processes share the batch.
            targets: Of these b images.
            batch_size: Images of the batch, over all processes.
            rng: Draws the weight of mixup.

        Returns:
            The sum of the losses of all images of the batch, in nats.
        """
        for group, rate in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = rate * self._schedule()
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        weight, partners = 1.0, targets
        if self.settings.mixup:
            weight = float(rng.beta(self.settings.mixup, self.settings.mixup))
            inputs, partners = weight * inputs + (1 - weight) * inputs.flip(0), targets.flip()
        loss_sum = 0.0
        self.optimizer.zero_grad()
        size = math.ceil(len(targets) / self.accumulation_steps)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            with torch.autocast("cuda", self._precision, enabled=self.device.type == "cuda"):
                logits = self.module(inputs[part])
                loss = weight * self._losses(logits, targets[part])
                if weight < 1:
                    loss = loss + (1 - weight) * self._losses(logits, partners[part])
                loss = loss.sum()
            self._scaler.scale(loss * (self.processes.count / batch_size)).backward()
            loss_sum += float(loss.detach())
        self._scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.steps += 1
        self._update_average()
        return self.processes.sum(loss_sum)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Give the network the average of its weights inside the block, if ``settings.ema`` asks for one."""
        if not self.ema_weights:
            yield
            return
        own = {name: p.detach().clone() for name, p in self._trained_parameters()}
        copy_into(self.network, self.ema_weights)
        try:
            yield
        finally:
            copy_into(self.network, own)

    def record_best(self) -> None:
        """Record the network's current weights as the best so far."""
        self.best_state = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def interpolate(self, alpha: float) -> None:
        """Give the network the weights at a share of the way from its initial to its best weights."""
        with torch.no_grad():
            between = {
                name: torch.lerp(initial, self.best_state[name], alpha)
                if initial.is_floating_point()
                else self.best_state[name]
                for name, initial in self.initial_state.items()
            }
            copy_into(self.network, between, strict=True)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return everything that the next epoch depends on, and the best weights so far: arrays and JSON."""
        has_best = self.best_state is not self.initial_state
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_state.items()} if has_best else {}
        tensors |= {f"average.{name}": tensor for name, tensor in self.ema_weights.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
        facts = {"steps": self.steps, "scaler": self._scaler.state_dict()}
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Restore a state that ``state`` returned."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): torch.from_numpy(array.copy())
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        copy_into(self.network, part("network."), strict=True)
        self.best_state = {name: t.to(self.device) for name, t in part("best.").items()} or self.initial_state
        self.ema_weights = {name: t.to(self.device) for name, t in part("average.").items()}
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, tensor in part("optimizer.").items():
            index, key = name.split(".", 1)
            like = parameters[int(index)]  # fused steps need states in the memory format of their parameters
            state = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            optimizer["state"].setdefault(int(index), {})[key] = state
        self.optimizer.load_state_dict(optimizer)
        self.steps = facts["steps"]
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])

    def _trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.network.named_parameters() if p.requires_grad)

    def _schedule(self) -> float:
        """Return the learning rate as a share of its peak: a linear warm-up, then half a cosine."""
        warmup = max(1, round(self.settings.warmup * self._total_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.steps / max(1, self._total_steps))))
        return self.rate_scale * min((self.steps + 1) / warmup, cosine)

    def _losses(self, logits: Tensor, targets: Targets) -> Tensor:
        """(b, C) logits and the targets of b images to (b,) losses."""
        settings = self.settings
        own = F.cross_entropy(
            logits, targets.labels, self._class_weights, reduction="none", label_smoothing=settings.label_smoothing
        )
        if targets.teacher is None:
            return own
        from_teacher = distillation_losses(logits, targets.teacher, settings.temperature)
        return (1 - settings.teacher_weight) * own + settings.teacher_weight * from_teacher

    def _update_average(self) -> None:
        for name, parameter in self._trained_parameters() if self.ema_weights else ():
            self.ema_weights[name].lerp_(parameter.detach(), 1 - self.settings.ema)


def _optimizer(groups: list[dict[str, Any]], settings: FineTuning, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cuda", "cpu")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)


def _compiled(module: nn.Module, device: torch.device) -> nn.Module:
    """Compile one program for each batch size: there are at most two, and one program for both would be slow."""
    if "compile" not in installed(device.type):
        raise PromotionError(f"--compile needs a GPU or a C++ compiler (g++), and {device} has none; leave it out")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no GPU
    program: nn.Module = torch.compile(module, dynamic=False)  # type: ignore[assignment]
    return program


def train(
    trainer: Trainer,
    source: BatchSource,
    checkpoint: Checkpoint | MemoryCheckpoint,
    *,
    reporter: Reporter = SILENT,
    on_epoch: Callable[[TrainingHistory], None] = lambda _: None,
) -> TrainingHistory:
    """Train until the last epoch, or until the validation log loss stops falling, and leave the best weights in the network.

    The best weights are those of least validation log loss: the best epoch's, interpolated ones between the head's and these,
    or the head's own. A run that has a checkpoint is resumed from it.

    Args:
        trainer: The network in training, before its first step.
        source: The training and validation inputs.
        checkpoint: Written after each epoch; in memory for a run that need not be resumed.
        reporter: Receives the progress after each step, and a milestone after each epoch.
        on_epoch: Called before the first epoch and after each epoch, once the checkpoint is written.

    Raises:
        OutputError: A checkpoint cannot be written.
        PromotionError: Not even one image at a time fits in memory, or torch.compile fails.
    """
    settings = trainer.settings
    history = _resume(trainer, checkpoint, reporter) or _start(trainer, source, checkpoint)
    on_epoch(history)
    patience = settings.patience or settings.epochs
    while history.epoch < settings.epochs and history.epoch - history.best_epoch < patience:
        try:
            entry, is_best = _train_and_validate(trainer, source, history, reporter)
        except torch.OutOfMemoryError as error:
            _split_batches(trainer, history, error)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise PromotionError(
                f"torch.compile cannot train this network: {brief(error)}; leave out --compile"
            ) from error
        except _DivergedError as error:
            if history.halved == MAX_HALVINGS:
                rate = settings.lr * trainer.rate_scale
                history.notes.append(f"{error}, even at a learning rate of {rate:g}; training ended there")
                _restore(trainer, checkpoint)
                break
            history.halved += 1
            history.notes.append(f"{error}; training resumed from epoch {history.epoch} at half the learning rate")
        else:
            history.log.append(entry)
            reporter.milestone(
                f"epoch {history.epoch} of {settings.epochs}: training loss {entry['loss']:.4f}, validation log loss "
                f"{entry['log_loss']:.4f}, accuracy {entry['accuracy']:.4f}"
            )
            history.best_epoch = history.epoch if is_best else history.best_epoch
            _save(checkpoint, trainer, history)
            on_epoch(history)
            continue
        _restore(trainer, checkpoint)
    _interpolate(trainer, source, history)
    return history


class _DivergedError(ArithmeticError):
    """The loss is not finite, or far above that of uniform predictions."""


def _start(trainer: Trainer, source: BatchSource, checkpoint: Checkpoint | MemoryCheckpoint) -> TrainingHistory:
    """Return the history of a run that begins: its entry 0 is the head's validation score."""
    head = source.validate()
    history = TrainingHistory([{"epoch": 0, "loss": None, "accuracy": head.accuracy, "log_loss": head.log_loss}])
    _save(checkpoint, trainer, history)
    return history


def _resume(trainer: Trainer, checkpoint: Checkpoint | MemoryCheckpoint, reporter: Reporter) -> TrainingHistory | None:
    """Restore the trainer from the checkpoint, and return its history; None without a checkpoint that can be used."""
    state = checkpoint.load()
    trainer.processes.wait()  # all have read it
    if state is None:
        if isinstance(checkpoint, MemoryCheckpoint):
            return None
        if not trainer.processes.rank and (aside := checkpoint.set_aside()):
            reporter.note(
                f"{checkpoint.path.name} is damaged, or of another version of featx, so training starts anew; the file is kept "
                f"as {aside.name}"
            )
        return None
    trainer.restore(*state)
    history = TrainingHistory.from_stored(state[1]["run"])
    history.notes.append(f"resumed from the checkpoint of epoch {history.epoch}")
    return history


def _train_and_validate(
    trainer: Trainer, source: BatchSource, history: TrainingHistory, reporter: Reporter
) -> tuple[dict[str, float | None], bool]:
    """Train one epoch and validate the network.

    Returns:
        The entry for the log, and whether this epoch is the best so far.
    """
    epoch, epochs, started = history.epoch + 1, trainer.settings.epochs, time.perf_counter()
    trainer.rate_scale, trainer.accumulation_steps = 0.5**history.halved, history.accumulation_steps

    def on_step(done: int, loss: float) -> None:
        progress = TrainingProgress(epoch, epochs, done, source.n_images, loss, history.best.accuracy, trainer.rate)
        reporter.progress((epoch - 1) * source.n_images + done, epochs * source.n_images, progress)

    loss, rate = trainer.train_epoch(epoch, source, on_step), trainer.rate
    _require_converging_loss(loss, source.n_classes, history)
    with trainer.averaged_weights():
        score = source.validate()
        _require_converging_score(score, source.n_classes, history)
        if is_best := not history.best_epoch or score.log_loss < history.best.log_loss:
            trainer.record_best()
    entry = {"epoch": epoch, "loss": loss, "accuracy": score.accuracy, "log_loss": score.log_loss, "rate": rate}
    return {**entry, "seconds": round(time.perf_counter() - started, 3)}, is_best


def _require_converging_loss(loss: float, n_classes: int, history: TrainingHistory) -> None:
    # Augmented images may be hard for a head that is very sure: the first epoch's loss is never too large.
    first = history.log[1]["loss"] if history.epoch else math.inf
    if not math.isfinite(loss) or loss > DIVERGENCE_FACTOR * max(math.log(n_classes), first or 0):
        raise _DivergedError(f"the training loss became {loss:.4g} in epoch {history.epoch + 1}")


def _require_converging_score(score: ValidationScore, n_classes: int, history: TrainingHistory) -> None:
    head = history.log[0]["log_loss"] or 0
    raw = score.log_loss if score.raw_log_loss is None else score.raw_log_loss
    if not raw <= DIVERGENCE_FACTOR * max(math.log(n_classes), head):
        raise _DivergedError(f"the validation log loss became {raw:.4g} in epoch {history.epoch + 1}")


def _split_batches(trainer: Trainer, history: TrainingHistory, error: torch.OutOfMemoryError) -> None:
    """Double the number of micro-batches."""
    size = trainer.settings.batch_size
    if trainer.processes.count > 1:  # the others would wait for this one's gradients for ever
        raise PromotionError(
            f"a batch of {counted(size, 'image')} does not fit on {trainer.device}; try a smaller --batch-size"
        ) from error
    if history.accumulation_steps >= size:
        raise PromotionError(
            f"not even one image at a time fits on {trainer.device}; try --last 1 or --device cpu"
        ) from error
    history.accumulation_steps *= 2
    history.notes.append(
        f"a batch of {size} images did not fit in memory, so gradients are accumulated over "
        f"{history.accumulation_steps} micro-batches"
    )
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


def _interpolate(trainer: Trainer, source: BatchSource, history: TrainingHistory) -> None:
    """Give the network the best weights between the head's and the best epoch's."""
    history.curve = {0.0: float(history.log[0]["log_loss"] or 0)}
    if history.best_epoch:
        history.curve[1.0] = history.best.log_loss
        for alpha in ALPHAS if trainer.settings.interpolate else ():
            trainer.interpolate(alpha)
            history.curve[alpha] = source.validate().log_loss
    history.curve = dict(sorted(history.curve.items()))
    history.alpha = min(history.curve, key=history.curve.__getitem__)
    trainer.interpolate(history.alpha)


def _save(checkpoint: Checkpoint | MemoryCheckpoint, trainer: Trainer, history: TrainingHistory) -> None:
    if trainer.processes.is_main or isinstance(checkpoint, MemoryCheckpoint):
        arrays, facts = trainer.state()
        checkpoint.save(arrays, {**facts, "run": history.as_stored()})
    trainer.processes.wait()


def _restore(trainer: Trainer, checkpoint: Checkpoint | MemoryCheckpoint) -> None:
    """Restore the trainer's state after the last good epoch."""
    state = checkpoint.load()
    if state is None:
        assert isinstance(checkpoint, Checkpoint)  # memory keeps what it was given
        raise PromotionError(f"the checkpoint {checkpoint.path} is gone or damaged; start the same command again")
    trainer.restore(*state)

"""Heads trained on minibatches in torch: a linear layer, and a network with one hidden layer.

Both heads are trained by AdamW (Loshchilov and Hutter, 2019) with cosine decay of the learning rate, and stop early by the loss
on a tenth of the rows, the validation rows. If the rows fit in memory, training is then repeated on all rows, for as long: on
the real features at hand this lowered the log loss of other rows by 1 to 10 %. Rows that do not fit in memory are read from
their file. With the same seed, machine and number of threads, a head is the same to the last bit.

N rows of D features, C outputs, H hidden units.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from featx.errors import HeadError
from featx.heads.predictors import HiddenLayerPredictor, LinearPredictor, NotConvergedWarning
from featx.heads.training_data import Rows, TrainingData, fold_by_fold, view_rows

EPOCHS, MIN_EPOCHS, MAX_STEPS = 200, 8, 5000
"""The most epochs: EPOCHS, or as many as make MAX_STEPS steps, but at least MIN_EPOCHS. A hidden layer gets half of EPOCHS,
which had the same losses on the real features at hand."""
STEPS_PER_EPOCH, MIN_BATCH, MAX_BATCH = 64, 64, 1024
"""The batch size is a power of 2 that gives about STEPS_PER_EPOCH steps, within these limits."""
PATIENCE = 0.1
"""Share of the epochs without a lower validation loss after which training stops."""
VALIDATION_EVERY, MIN_VALIDATION, MAX_VALIDATION = 10, 10, 10_000
"""One row of VALIDATION_EVERY is for validation; none if they were fewer than MIN_VALIDATION, and at most MAX_VALIDATION."""
BUFFER_BYTES, RUN_BYTES = 256 << 20, 256 << 10
"""Sizes in bytes of float32 rows from a file: the buffer that is shuffled in memory, and the runs that are read at once."""

_STILL_FALLING = (
    0.03  # share of the total decrease of the loss; the low rates of the last half make up 0.18 of the schedule
)
_MAX_SINGLE_THREAD = 10_000_000  # multiplications of a batch, below which threads wait longer than they compute


@dataclass(frozen=True)
class SgdLinearEstimator:
    """Trains a linear layer on minibatches: ``--model linear``.

    The loss is cross-entropy for classification, binary cross-entropy for multilabel, and squared error or Huber's loss for
    regression. Early stopping is the only regularisation; penalties brought nothing on real features.

    Attributes:
        smoothing: label smoothing, the share of each label that is spread over all classes (Szegedy et al., 2016); 0..1, for
            classification.
        huber: standard deviations of the target from which on errors count linearly; None for squared error. For regression.
        device: of torch.
        candidates: values of AdamW's weight decay; only 0.

    Examples:
        >>> rows = Rows(np.array([[-2.0], [-1.0], [1.0], [2.0]]))
        >>> training = TrainingData(rows, np.array([0, 0, 1, 1]), 2, "classification", np.ones(4))
        >>> predictor = SgdLinearEstimator().fit(training)
        >>> predictor.decision_function(np.array([[-3.0], [3.0]])).argmax(axis=1)
        array([0, 1])
    """

    smoothing: float = 0.0
    huber: float | None = None
    device: str = "cpu"
    candidates: tuple[float, ...] = (0.0,)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a head that is trained on the training rows of the fold that holds it out.

        Yields:
            Each candidate, and its (N, C) float64 scores; NaN for rows that no fold holds out.
        """
        return fold_by_fold(self, training, candidates)

    def fit(self, training: TrainingData, candidate: float = 0.0) -> LinearPredictor:
        """Train on all rows.

        Args:
            training: N rows; those of weight 0 are left out.
            candidate: AdamW's weight decay.

        Raises:
            HeadError: the loss is NaN or infinite.

        Warns:
            NotConvergedWarning: the validation loss was still falling after the last epoch.
        """
        # A step of Adam changes each of D weights by the learning rate, and so a score by up to D times as much.
        rate = min(0.3 / training.rows.width, 0.01)
        settings = _Settings(learning_rate=rate, weight_decay=candidate, device=self.device, epochs=EPOCHS)
        weight, bias = _train(training, settings, _Loss(training.task, self.smoothing, self.huber))
        return LinearPredictor(weight, bias)


@dataclass(frozen=True)
class MlpEstimator:
    """Trains a network with one hidden layer of rectified linear units on minibatches: ``--model mlp``.

    The loss is that of ``SgdLinearEstimator``.

    Attributes:
        width: H.
        dropout: share of the hidden units that each step drops (Srivastava et al., 2014).
        smoothing: label smoothing, the share of each label that is spread over all classes; 0..1, for classification.
        huber: standard deviations of the target from which on errors count linearly; None for squared error. For regression.
        device: of torch.
        candidates: values of AdamW's weight decay, the largest first.

    Examples:
        >>> rows = Rows(np.array([[-2.0], [-1.0], [1.0], [2.0]]))
        >>> training = TrainingData(rows, np.array([0, 0, 1, 1]), 2, "classification", np.ones(4))
        >>> predictor = MlpEstimator(width=8).fit(training, 1.0)
        >>> predictor.decision_function(np.array([[-3.0], [3.0]])).argmax(axis=1)
        array([0, 1])
    """

    width: int = 512
    dropout: float = 0.25
    smoothing: float = 0.0
    huber: float | None = None
    device: str = "cpu"
    candidates: tuple[float, ...] = (10.0, 1.0)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a head that is trained on the training rows of the fold that holds it out.

        Yields:
            Each candidate, and its (N, C) float64 scores; NaN for rows that no fold holds out.
        """
        return fold_by_fold(self, training, candidates)

    def fit(self, training: TrainingData, candidate: float) -> HiddenLayerPredictor:
        """Train on all rows.

        Args:
            training: N rows; those of weight 0 are left out.
            candidate: AdamW's weight decay.

        Raises:
            HeadError: the loss is NaN or infinite.

        Warns:
            NotConvergedWarning: the validation loss was still falling after the last epoch.
        """
        settings = _Settings(
            learning_rate=0.01 / math.sqrt(training.rows.width),
            weight_decay=candidate,
            device=self.device,
            epochs=EPOCHS // 2,
            hidden=self.width,
            dropout=self.dropout,
        )
        loss = _Loss(training.task, self.smoothing, self.huber)
        hidden_weight, hidden_bias, weight, bias = _train(training, settings, loss)
        return HiddenLayerPredictor(hidden_weight.astype(np.float32), hidden_bias.astype(np.float32), weight, bias)


@dataclass(frozen=True)
class _Settings:
    """Settings of one training.

    Attributes:
        learning_rate: of AdamW at the start.
        weight_decay: of AdamW, for weights but not for biases.
        device: of torch.
        epochs: the most epochs, if they make no more than MAX_STEPS steps.
        hidden: H; 0 for a linear layer.
        dropout: share of the hidden units that each step drops.
    """

    learning_rate: float
    weight_decay: float
    device: str
    epochs: int
    hidden: int = 0
    dropout: float = 0.0

    @property
    def kind(self) -> str:
        """The kind of head, as ``--model`` takes it."""
        return "mlp" if self.hidden else "linear"


@dataclass(frozen=True)
class _Loss:
    """The loss of each row: from (n, C) outputs and n targets to (n,)."""

    task: str
    smoothing: float
    huber: float | None

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        if self.task == "classification":
            return F.cross_entropy(out, y, reduction="none", label_smoothing=self.smoothing)
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(out, y, reduction="none").mean(dim=1)
        if self.huber is None:
            return F.mse_loss(out, y, reduction="none").mean(dim=1)
        return F.huber_loss(out, y, reduction="none", delta=self.huber).mean(dim=1)


class _TensorData:
    """Rows, targets and weights as tensors on a device.

    Attributes:
        rows: (N, D) float32 if they fit in memory, otherwise the rows of the file.
        y: (N,) int64 or (N, C) float32; standardised for regression.
        weight: (N,) float32, 1 on average.
        mean: (C,) float64, of the targets of a regression; otherwise 0.
        deviation: (C,) float64, of the targets of a regression; otherwise 1.
        start: (C,) float32, the best constant scores; 0 for regression.
        batch_size: of a step, approximately.
    """

    def __init__(self, training: TrainingData, device: torch.device) -> None:
        self.device = device
        weight, y = training.weight / training.weight.mean(), training.y
        self.mean, self.deviation = np.zeros(training.count), np.ones(training.count)
        start = np.zeros(training.count)
        if training.task == "classification":
            start = np.log(_smoothed_share(np.bincount(y, weight, minlength=training.count), len(y), training.count))
        elif training.task == "multilabel":
            share = _smoothed_share(weight @ y, len(y), 2)
            start = np.log(share / (1 - share))
        else:
            self.mean = np.average(y, axis=0, weights=weight)
            deviation = np.sqrt(np.average((y - self.mean) ** 2, axis=0, weights=weight))
            self.deviation = np.where(deviation == 0, 1.0, deviation)
            y = ((y - self.mean) / self.deviation).astype(np.float32)
        rows = training.rows
        self.rows: Tensor | Rows = torch.from_numpy(rows.whole()).to(device) if rows.fits else rows
        self.y = torch.tensor(y, device=device)
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.start = torch.from_numpy(start.astype(np.float32)).to(device)
        self.batch_size = min(max(2 ** round(math.log2(len(y) / STEPS_PER_EPOCH)), MIN_BATCH), MAX_BATCH)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Tensor:
        """Read some rows, (n, D) float32."""
        if isinstance(self.rows, Tensor):
            return self.rows[index]
        return torch.from_numpy(self.rows.take(index.cpu().numpy()).whole()).to(self.device)

    def batches(self, index: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of some rows in random order, each row once, as indices and their (n, D) features.

        Rows of a file are shuffled in buffers of many short runs. A file is fastest to read in runs; and since its rows may be
        sorted by class, a few long runs would fill a buffer with few classes.
        """
        if isinstance(self.rows, Tensor):
            for part in _equal_parts(_shuffled(index, generator), self.batch_size):
                yield part, self.rows[part]
            return
        row_bytes = 4 * self.rows.width
        run = max(1, RUN_BYTES // row_bytes)
        starts = _shuffled(torch.arange(0, len(index), run, device=self.device), generator)
        for some in starts.split(max(1, BUFFER_BYTES // (row_bytes * run))):
            at = (some.sort().values[:, None] + torch.arange(run, device=self.device)).flatten()
            inside = index[at[at < len(index)]]
            buffer = torch.from_numpy(self.rows.take(inside.cpu().numpy()).whole())
            order = _shuffled(torch.arange(len(inside), device=self.device), generator)
            for part in _equal_parts(order, self.batch_size):
                yield inside[part], buffer[part.to(buffer.device)].to(self.device)
            del buffer  # before the next one is read, so that only one is in memory


def _train(training: TrainingData, settings: _Settings, loss: _Loss) -> list[np.ndarray]:
    """Train a head: its parameters in the order of ``_initial_parameters``, float64, for targets in their own units."""
    if (training.weight == 0).any():
        training = training.take(np.flatnonzero(training.weight))
    with _torch_state(settings, training):
        data = _TensorData(training, torch.device(settings.device))
        all_rows = torch.arange(len(data), device=data.device)
        held = _validation_rows(training)
        validation = torch.from_numpy(held).to(data.device)
        train = torch.from_numpy(np.setdiff1d(np.arange(len(data)), held)).to(data.device)
        steps = math.ceil(len(train) / data.batch_size)
        epochs = min(settings.epochs, max(MIN_EPOCHS, MAX_STEPS // steps))
        trainer = _Trainer(data, settings, loss, epochs=epochs, seed=training.seed)
        parameters, best = trainer.train_with_early_stopping(train, validation)
        # Of rows that do not fit in memory few are for validation, and another training would read them all again.
        if len(validation) and training.rows.fits:
            parameters = trainer.train_as_long(all_rows, best)
        *hidden, weight, bias = [p.detach().cpu().double().numpy() for p in parameters]
    return [*hidden, weight * data.deviation[:, None], bias * data.deviation + data.mean]


class _Trainer:
    """Trains one head, each time from the same start with the same random numbers."""

    def __init__(self, data: _TensorData, settings: _Settings, loss: _Loss, *, epochs: int, seed: int) -> None:
        self.data, self.settings, self.loss, self.epochs, self.seed = data, settings, loss, epochs, seed

    def train_with_early_stopping(self, rows: Tensor, validation: Tensor) -> tuple[list[Tensor], int]:
        """Train on some rows until the validation loss no longer falls.

        Args:
            rows: (n,) int64, the training rows.
            validation: (m,) int64; if there are none, the loss on the training rows decides.

        Returns:
            The parameters with the lowest loss, and the number of epochs after which they had it.
        """
        scored = validation if len(validation) else rows
        x, y, weight = self.data.take(scored), self.data.y[scored], self.data.weight[scored]
        patience = max(2, round(PATIENCE * self.epochs))
        losses: list[float] = []
        best, best_parameters = 0, list[Tensor]()
        for epoch, parameters in enumerate(self._train_epochs(rows, self.epochs)):
            with torch.no_grad():
                total = (self.loss(_forward(parameters, x), y) * weight).sum() / weight.sum()
            losses.append(self._require_finite(total, epoch))
            if epoch == 0 or losses[-1] < losses[best]:
                best, best_parameters = epoch, [p.detach().clone() for p in parameters]
            elif epoch - best >= patience:
                return best_parameters, best
        first_half = min(losses[: len(losses) // 2 + 1])
        if len(validation) and first_half - losses[best] > _STILL_FALLING * (losses[0] - losses[best]):
            warnings.warn(
                f"--model {self.settings.kind} was still improving when its {self.epochs} epochs were over: "
                f"their second half gave over {_STILL_FALLING:.0%} of what was learnt",
                NotConvergedWarning,
                stacklevel=4,
            )
        return best_parameters, best

    def train_as_long(self, rows: Tensor, best: int) -> list[Tensor]:
        """Train on some rows for as long as ``best`` epochs of an early stopped training, with rates that decay to 0.

        Early stopping ends at a high learning rate, at which weights still fluctuate. The sum of the rates is the same over
        best + sin(pi best / most) most / pi epochs of a whole cosine, where ``most`` is the number of epochs.
        """
        epochs = round(best + math.sin(math.pi * best / self.epochs) * self.epochs / math.pi)
        *_, parameters = self._train_epochs(rows, epochs)
        return parameters

    def _train_epochs(self, rows: Tensor, count: int) -> Iterator[list[Tensor]]:
        """Yield the parameters before the first epoch and after each; the rate decays to 0 over all epochs."""
        data, settings = self.data, self.settings
        generator = torch.Generator(data.device).manual_seed(self.seed)
        parameters = _initial_parameters(data, settings, generator)
        yield parameters
        groups: list[dict[str, Any]] = [
            {"params": parameters[0::2], "weight_decay": settings.weight_decay},
            {"params": parameters[1::2]},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0, fused=True)
        steps, step = count * math.ceil(len(rows) / data.batch_size), 0
        for epoch in range(1, count + 1):
            total = torch.zeros((), device=data.device)
            for part, x in data.batches(rows, generator):
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
                out = _forward(parameters, x, settings.dropout, generator)
                loss = (self.loss(out, data.y[part]) * data.weight[part]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                step += 1
            self._require_finite(total, epoch)
            yield parameters

    def _require_finite(self, loss: Tensor, epoch: int) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise HeadError(
                f"the loss of --model {self.settings.kind} is {value} in epoch {epoch}; expected a number: features or targets "
                "are NaN, infinite or extreme; delete the feature file and run featx extract again, or correct the targets"
            )
        return value


def _initial_parameters(data: _TensorData, settings: _Settings, generator: torch.Generator) -> list[Tensor]:
    """Weight and bias of each layer, float32.

    A hidden layer is drawn as by He et al. (2015). The last layer has weights of 0 and the best constant scores as biases.
    """
    width = data.rows.shape[1] if isinstance(data.rows, Tensor) else data.rows.width
    layers = []
    if settings.hidden:
        drawn = torch.randn((settings.hidden, width), generator=generator, device=data.device, dtype=torch.float32)
        layers = [drawn * math.sqrt(2 / width), torch.zeros(settings.hidden, device=data.device, dtype=torch.float32)]
        width = settings.hidden
    layers += [torch.zeros((len(data.start), width), device=data.device, dtype=torch.float32), data.start.clone()]
    return [layer.requires_grad_() for layer in layers]


def _forward(
    parameters: Sequence[Tensor], x: Tensor, dropout: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Compute (n, C) outputs of (n, D) rows."""
    *hidden, weight, bias = parameters
    if hidden:
        x = F.relu(F.linear(x, *hidden))
        if dropout:
            drawn = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x * (drawn >= dropout) / (1 - dropout)
    return F.linear(x, weight, bias)


def _validation_rows(training: TrainingData) -> np.ndarray:
    """Draw the rows for early stopping, (n,) int64: every tenth image, sorted by class or by the target of a regression.

    Each class gives a tenth of its images, plus or minus one, and never its only image. If these are too few to be informative,
    there are none. All views of an image are for validation, or none.
    """
    y = training.y[:: training.together]
    every = max(VALIDATION_EVERY, math.ceil(len(training) / MAX_VALIDATION))
    if len(y) // every < MIN_VALIDATION:
        return np.empty(0, dtype=np.int64)
    rng = np.random.default_rng(training.seed)
    order = rng.permutation(len(y))
    if training.task == "classification":
        order = order[(np.bincount(y) > 1)[y[order]]]
    if training.task != "multilabel":
        key = y if y.ndim == 1 else y[:, 0]
        order = order[np.argsort(key[order], kind="stable")]
    return view_rows(np.sort(order[rng.integers(every) :: every]), training.together)


def _smoothed_share(counts: np.ndarray, total: float, outcomes: int) -> np.ndarray:
    """Shares of counts, none of them 0 or 1, by additive smoothing (Laplace) with one more row for all outcomes together."""
    shares: np.ndarray = (counts + 1.0 / outcomes) / (total + 1.0)
    return shares


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator, device=values.device)]


def _equal_parts(values: Tensor, most: int) -> Sequence[Tensor]:
    """Split into parts of equal size, give or take one, of at most ``most``.

    A last part of a few rows would change the weights as much as any other part.
    """
    return values.tensor_split(max(1, math.ceil(len(values) / most)))


@contextlib.contextmanager
def _torch_state(settings: _Settings, training: TrainingData) -> Iterator[None]:
    """Enable gradients and, for little work, use a single thread; the former state is restored."""
    threads = torch.get_num_threads()
    work = MIN_BATCH * training.rows.width * max(settings.hidden, training.count)
    if work < _MAX_SINGLE_THREAD:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)

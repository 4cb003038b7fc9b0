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
from torch.optim.adamw import adamw

from featx.errors import HeadError
from featx.heads.estimators.minibatches import MIN_BATCH, SharedData, TargetFacts, TensorData
from featx.heads.predictors import HiddenLayerPredictor, LinearPredictor, NotConvergedWarning
from featx.heads.training_data import TrainingData, fold_by_fold, view_rows

EPOCHS, MIN_EPOCHS, MAX_STEPS = 200, 8, 5000
"""The most epochs: EPOCHS, or as many as make MAX_STEPS steps, but at least MIN_EPOCHS. A hidden layer gets half of EPOCHS,
which had the same losses on the real features at hand."""
PATIENCE = 0.1
"""Share of the epochs without a lower validation loss after which training stops."""
VALIDATION_EVERY, MIN_VALIDATION, MAX_VALIDATION = 10, 10, 10_000
"""One row of VALIDATION_EVERY is for validation; none if they were fewer than MIN_VALIDATION, and at most MAX_VALIDATION."""

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
        >>> from featx.heads.training_data import Rows
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
        loss = _Loss(training.task, self.smoothing, self.huber)
        if training.ranks is None:
            weight, bias = _train(training, settings, loss)
        else:
            weight, bias = _train_together(training, settings, loss)
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
        >>> from featx.heads.training_data import Rows
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


def _train(training: TrainingData, settings: _Settings, loss: _Loss) -> list[np.ndarray]:
    """Train a head: its parameters in the order of ``_initial_parameters``, float64, for targets in their own units."""
    if (training.weight == 0).any():
        training = training.take(np.flatnonzero(training.weight))
    with _torch_state(settings, training):
        facts, fits = TargetFacts.of(training), training.rows.fits
        data = TensorData(training, torch.device(settings.device), facts, fits=fits)
        validation = _Validation.of(data, _validation_rows(training))
        return _trained(data, settings, loss, validation, seed=training.seed, again=fits)


def _trained(
    data: TensorData, settings: _Settings, loss: _Loss, validation: _Validation, *, seed: int, again: bool
) -> list[np.ndarray]:
    """Train a head, with early stopping and, with ``again``, once more on all rows."""
    all_rows = torch.arange(len(data), device=data.device)
    train = torch.from_numpy(np.setdiff1d(np.arange(len(data)), validation.rows)).to(data.device)
    steps = math.ceil(len(train) / data.facts.batch_size)
    epochs = min(settings.epochs, max(MIN_EPOCHS, MAX_STEPS // steps))
    trainer = _Trainer(data, settings, loss, epochs=epochs, seed=seed)
    parameters, best = trainer.train_with_early_stopping(train, validation)
    # Of rows that do not fit in memory few are for validation, and another training would read them all again.
    if len(validation.rows) and again:
        parameters = trainer.train_as_long(all_rows, best)
    *hidden, weight, bias = [p.detach().cpu().double().numpy() for p in parameters]
    mean, deviation = data.facts.mean, data.facts.deviation
    return [*hidden, weight * deviation[:, None], bias * deviation + mean]


def _train_together(training: TrainingData, settings: _Settings, loss: _Loss) -> list[np.ndarray]:
    """Train a head as ``_train`` does, with the rows of all processes; each computes the gradients of its own rows."""
    ranks = training.ranks
    if (training.weight == 0).any():
        training = training.take(np.flatnonzero(training.weight))
    ranks.share(training)
    held = _validation_rows(training)
    some = held if len(held) else np.arange(len(training))[:MAX_VALIDATION]
    x = training.rows.take(some).whole()
    found: list[np.ndarray] = ranks.first(
        "train", settings=settings, loss=loss, facts=TargetFacts.of(training), held=held,
        scored=(x, training.y[some], training.weight[some]), in_file=not training.rows.fits,
    )  # fmt: skip
    return found


def train_part(
    training: TrainingData, messages: Any, *, total: int, first: int, settings: _Settings, loss: _Loss,
    facts: TargetFacts, held: np.ndarray, scored: tuple[np.ndarray, np.ndarray, np.ndarray], in_file: bool,
    **_: Any,
) -> list[np.ndarray]:  # fmt: skip
    """Train a head together with the other processes, which call this at the same time, each with its rows.

    Args:
        training: the rows of this process.
        messages: to the other processes.
        total: number of rows of all processes.
        first: number of the first row of this process.
        settings: of the training.
        loss: of each row.
        facts: of the targets of all rows.
        held: numbers of the rows that are for early stopping.
        scored: features, targets and weights of the rows whose loss stops the training.
        in_file: whether all rows together do not fit in memory.

    Returns:
        The parameters, the same in all processes.
    """
    with _torch_state(settings, training):
        data = SharedData(training, messages, facts, total=total, first=first, in_file=in_file)
        x, y, weight = scored
        if training.task == "regression":
            y = ((y - facts.mean) / facts.deviation).astype(np.float32)
        weights = torch.from_numpy((weight / facts.mean_weight).astype(np.float32))
        validation = _Validation(held, torch.from_numpy(x), torch.tensor(y), weights)
        return _trained(data, settings, loss, validation, seed=training.seed, again=not in_file)


@dataclass(frozen=True, eq=False)
class _Validation:
    """The rows whose loss stops a training: those that are held out, or all where there are none.

    Attributes:
        rows: (m,) int64, the rows that are held out.
        x: (n, D) float32, of the rows whose loss decides.
        y: their targets.
        weight: (n,) float32.
    """

    rows: np.ndarray
    x: Tensor
    y: Tensor
    weight: Tensor

    @classmethod
    def of(cls, data: TensorData, rows: np.ndarray) -> _Validation:
        """Read them."""
        scored = torch.from_numpy(rows if len(rows) else np.arange(len(data))).to(data.device)
        return cls(rows, data.take(scored), data.y[scored], data.weight[scored])


class _Trainer:
    """Trains one head, each time from the same start with the same random numbers."""

    def __init__(self, data: TensorData, settings: _Settings, loss: _Loss, *, epochs: int, seed: int) -> None:
        self.data, self.settings, self.loss, self.epochs, self.seed = data, settings, loss, epochs, seed

    def train_with_early_stopping(self, rows: Tensor, validation: _Validation) -> tuple[list[Tensor], int]:
        """Train on some rows until the validation loss no longer falls.

        Args:
            rows: (n,) int64, the training rows.
            validation: whose loss decides.

        Returns:
            The parameters with the lowest loss, and the number of epochs after which they had it.
        """
        x, y, weight = validation.x, validation.y, validation.weight
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
        if len(validation.rows) and first_half - losses[best] > _STILL_FALLING * (losses[0] - losses[best]):
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
        weights, biases = _AdamW(parameters[0::2], settings.weight_decay), _AdamW(parameters[1::2], 0.0)
        steps, step = count * math.ceil(len(rows) / data.facts.batch_size), 0
        for epoch in range(1, count + 1):
            total = torch.zeros((), device=data.device)
            for batch in data.batches(rows, generator):
                rate = settings.learning_rate * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
                out = _forward(parameters, batch.x, settings.dropout, generator)
                loss = data.mean_loss(self.loss(out, batch.y) * batch.weight, batch.size)
                for p in parameters:
                    p.grad = None
                loss.backward()
                total += data.sum_gradients(parameters, loss.detach())
                weights.step(rate)
                biases.step(rate)
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


class _AdamW:
    """``torch.optim.AdamW`` of some parameters, by the function that it calls.

    The class imports torch's compiler, which takes longer than to fit a head, and its step takes longer than the function.
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters]

    def step(self, rate: float) -> None:
        """Change the parameters by their gradients."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        with torch.no_grad():
            adamw(
                self.parameters, gradients, self.first, self.second, [], self.steps, fused=True, amsgrad=False, beta1=0.9,
                beta2=0.999, lr=rate, weight_decay=self.weight_decay, eps=1e-8, maximize=False,
            )  # fmt: skip


def _initial_parameters(data: TensorData, settings: _Settings, generator: torch.Generator) -> list[Tensor]:
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

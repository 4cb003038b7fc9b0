"""Heads trained by minibatches in torch: a linear layer, and one hidden layer. Their rows need not fit in memory.

N is the number of rows, D their width, C the number of outputs, H that of hidden units. Both heads are trained by AdamW
(Loshchilov and Hutter, 2019) at a rate that falls as a cosine, and stop by the loss of a tenth of the rows that is held
back. Then, where the rows fit in memory, they are trained once more on all rows, as far: on the real features at hand that
lowered the log loss of other rows by 1 to 10 %. Seeds repeat to the last bit on one machine with as many threads.
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

EPOCHS, FEWEST_EPOCHS, MOST_STEPS = 200, 8, 5000
"""Passes over the rows: EPOCHS, or as many as make MOST_STEPS, but never under FEWEST_EPOCHS. With a hidden layer half of
EPOCHS, which on the real features at hand came to the same losses."""
BATCHES, LEAST_BATCH, MOST_BATCH = 64, 64, 1024
"""An epoch is BATCHES steps, of so many rows at least and at most."""
PATIENCE = 0.1
"""Share of the epochs without a better loss on the held-back rows, after which training stops."""
HELD_BACK, FEWEST_HELD_BACK, MOST_HELD_BACK = 10, 10, 10_000
"""One row of HELD_BACK is held back, unless they were fewer or are more than these."""
BUFFER_BYTES, RUN_BYTES = 256 << 20, 256 << 10
"""Of float32 rows: what is shuffled in memory at once where rows come from a file, and what is read there in one piece."""

_FALLING = 0.03  # share of all that is learnt; the second half of the schedule, of low rates, is 0.18 of the way
_MOST_ON_ONE_THREAD = 10_000_000  # multiplications of a batch, below which threads wait longer than they work


@dataclass(frozen=True)
class LinearModel:
    """A linear layer: ``--model linear``.

    Its loss is cross-entropy for classification, binary cross-entropy for multilabel, and squared error or Huber's for
    regression. Stopping early is its only regularisation: penalties gave it nothing on real features.

    Attributes:
        smoothing: share of each label that is spread over all classes (Szegedy et al., 2016); 0..1, for classification.
        huber: deviations of the target, from which on an error counts linearly; None is squared error. For regression.
        device: of torch.
        candidates: AdamW's weight decay; 0 alone.
    """

    smoothing: float = 0.0
    huber: float | None = None
    device: str = "cpu"
    candidates: tuple[float, ...] = (0.0,)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As ``Estimator.cross_val_scores``."""
        return fold_by_fold(self, training, candidates)

    def fit(self, training: TrainingData, candidate: float = 0.0) -> LinearPredictor:
        """Fit to all rows.

        Args:
            training: N rows; those of weight 0 do not count.
            candidate: AdamW's weight decay.

        Raises:
            HeadError: the loss is NaN or infinite.
        """
        # A step of Adam moves each of D weights by the rate, and so a score by up to D times as much.
        rate = min(0.3 / training.rows.width, 0.01)
        plan = _Plan(rate=rate, decay=candidate, device=self.device, epochs=EPOCHS)
        weight, bias = _fit(training, plan, _Loss(training.task, self.smoothing, self.huber))
        return LinearPredictor(weight, bias)


@dataclass(frozen=True)
class HiddenModel:
    """One hidden layer of rectified linear units: ``--model mlp``. Its loss is ``LinearModel``'s.

    Attributes:
        width: H.
        dropout: share of the hidden units that each step leaves out (Srivastava et al., 2014).
        smoothing: as ``LinearModel``.
        huber: as ``LinearModel``.
        device: of torch.
        candidates: AdamW's weight decay.
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
        """As ``Estimator.cross_val_scores``."""
        return fold_by_fold(self, training, candidates)

    def fit(self, training: TrainingData, candidate: float) -> HiddenLayerPredictor:
        """Fit to all rows; as ``LinearModel.fit``."""
        rate = 0.01 / math.sqrt(training.rows.width)
        plan = _Plan(
            rate=rate, decay=candidate, device=self.device, epochs=EPOCHS // 2, hidden=self.width, dropout=self.dropout
        )
        hidden_weight, hidden_bias, weight, bias = _fit(
            training, plan, _Loss(training.task, self.smoothing, self.huber)
        )
        return HiddenLayerPredictor(hidden_weight.astype(np.float32), hidden_bias.astype(np.float32), weight, bias)


@dataclass(frozen=True)
class _Plan:
    """How one fit trains.

    Attributes:
        rate: AdamW's, at first.
        decay: AdamW's weight decay, of weights and not of biases.
        device: of torch.
        epochs: at most, of so many rows that these are not MOST_STEPS.
        hidden: H; 0 is a linear layer.
        dropout: share of the hidden units that each step leaves out.
    """

    rate: float
    decay: float
    device: str
    epochs: int
    hidden: int = 0
    dropout: float = 0.0

    @property
    def kind(self) -> str:
        """As ``--model`` names it."""
        return "mlp" if self.hidden else "linear"


@dataclass(frozen=True)
class _Loss:
    """Of each row: (n, C) outputs and their targets to (n,)."""

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


class _Data:
    """Rows, targets and weights as tensors on a device.

    Attributes:
        rows: (N, D) float32 where they fit in memory, else where they come from.
        y: (N,) int64 or (N, C) float32; a regression's less its mean and over its deviation.
        weight: (N,) float32, 1 on average.
        shift: (C,) float64, the mean; 0 but for regression.
        spread: (C,) float64, the deviation; 1 but for regression.
        start: (C,) float32, the best scores of a head that sees nothing; for regression that is 0, the mean.
        batch: rows of a step, roughly.
    """

    def __init__(self, training: TrainingData, device: torch.device) -> None:
        self.device = device
        weight, y = training.weight / training.weight.mean(), training.y
        self.shift, self.spread = np.zeros(training.count), np.ones(training.count)
        start = np.zeros(training.count)
        if training.task == "classification":
            start = np.log(_share(np.bincount(y, weight, minlength=training.count), len(y), training.count))
        elif training.task == "multilabel":
            share = _share(weight @ y, len(y), 2)
            start = np.log(share / (1 - share))
        else:
            self.shift = np.average(y, axis=0, weights=weight)
            deviation = np.sqrt(np.average((y - self.shift) ** 2, axis=0, weights=weight))
            self.spread = np.where(deviation == 0, 1.0, deviation)
            y = ((y - self.shift) / self.spread).astype(np.float32)
        rows = training.rows
        self.rows: Tensor | Rows = torch.from_numpy(rows.whole()).to(device) if rows.fits else rows
        self.y = torch.tensor(y, device=device)
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.start = torch.from_numpy(start.astype(np.float32)).to(device)
        self.batch = min(max(2 ** round(math.log2(len(y) / BATCHES)), LEAST_BATCH), MOST_BATCH)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Tensor:
        """Some rows, (n, D)."""
        if isinstance(self.rows, Tensor):
            return self.rows[index]
        return torch.from_numpy(self.rows.take(index.cpu().numpy()).whole()).to(self.device)

    def batches(self, index: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows in random order, each once, as (which, their (n, D)).

        Rows of a file are shuffled in buffers of many short runs, since a file is read fast in runs; and since its rows
        may be in the order of their classes, few long ones would fill a buffer with few classes.
        """
        if isinstance(self.rows, Tensor):
            for part in _parts(_shuffled(index, generator), self.batch):
                yield part, self.rows[part]
            return
        row_bytes = 4 * self.rows.width
        run = max(1, RUN_BYTES // row_bytes)
        starts = _shuffled(torch.arange(0, len(index), run, device=self.device), generator)
        for some in starts.split(max(1, BUFFER_BYTES // (row_bytes * run))):
            at = (some.sort().values[:, None] + torch.arange(run, device=self.device)).flatten()
            inside = index[at[at < len(index)]]
            buffer = torch.from_numpy(self.rows.take(inside.cpu().numpy()).whole())
            for part in _parts(_shuffled(torch.arange(len(inside), device=self.device), generator), self.batch):
                yield inside[part], buffer[part.to(buffer.device)].to(self.device)
            del buffer  # before the next one is read: two are no more than one in memory


def _fit(training: TrainingData, plan: _Plan, loss: _Loss) -> list[np.ndarray]:
    """The parameters, as ``_initial``, of a head that was trained; a regression's give the target as it was."""
    if (training.weight == 0).any():
        training = training.take(np.flatnonzero(training.weight))
    with _own_state(plan, training):
        data = _Data(training, torch.device(plan.device))
        everything = torch.arange(len(data), device=data.device)
        held = _held_back(training)
        watched = torch.from_numpy(held).to(data.device)
        trained = torch.from_numpy(np.setdiff1d(np.arange(len(data)), held)).to(data.device)
        epochs = min(plan.epochs, max(FEWEST_EPOCHS, MOST_STEPS // math.ceil(len(trained) / data.batch)))
        run = _Run(data, plan, loss, epochs=epochs, seed=training.seed)
        parameters, best = run.stopping_early(trained, watched)
        # Of rows that do not fit in memory few are held back, and to read them all again is dear.
        if len(watched) and training.rows.fits:
            parameters = run.as_far(everything, best)
        *inner, weight, bias = [p.detach().cpu().double().numpy() for p in parameters]
    return [*inner, weight * data.spread[:, None], bias * data.spread + data.shift]


class _Run:
    """Training of one head: the same start and the same draws each time."""

    def __init__(self, data: _Data, plan: _Plan, loss: _Loss, *, epochs: int, seed: int) -> None:
        self.data, self.plan, self.loss, self.most, self.seed = data, plan, loss, epochs, seed

    def stopping_early(self, rows: Tensor, watched: Tensor) -> tuple[list[Tensor], int]:
        """The parameters that did best on other rows (on these where no others are given), and after how many epochs."""
        seen = watched if len(watched) else rows
        x, y, weight = self.data.take(seen), self.data.y[seen], self.data.weight[seen]
        patience = max(2, round(PATIENCE * self.most))
        losses: list[float] = []
        best, kept = 0, list[Tensor]()
        for epoch, parameters in enumerate(self._epochs(rows, self.most)):
            with torch.no_grad():
                total = (self.loss(_outputs(parameters, x), y) * weight).sum() / weight.sum()
            losses.append(self._finite(total, epoch))
            if epoch == 0 or losses[-1] < losses[best]:
                best, kept = epoch, [p.detach().clone() for p in parameters]
            elif epoch - best >= patience:
                return kept, best
        earlier = min(losses[: len(losses) // 2 + 1])
        if len(watched) and earlier - losses[best] > _FALLING * (losses[0] - losses[best]):
            warnings.warn(
                f"--model {self.plan.kind} was still improving when its {self.most} epochs were over: "
                f"their second half gave over {_FALLING:.0%} of what was learnt",
                NotConvergedWarning,
                stacklevel=4,
            )
        return kept, best

    def as_far(self, rows: Tensor, best: int) -> list[Tensor]:
        """The parameters after about as much training as so many epochs of a run that was stopped, at rates that fall to 0.

        A run that stops early stops at a high rate, where weights still jump about. The rates' sum is the same over
        best + sin(pi best / most) most / pi epochs of a whole cosine.
        """
        epochs = round(best + math.sin(math.pi * best / self.most) * self.most / math.pi)
        *_, parameters = self._epochs(rows, epochs)
        return parameters

    def _epochs(self, rows: Tensor, count: int) -> Iterator[list[Tensor]]:
        """The parameters before any epoch, and after each of so many; the rate falls to 0 over all of them."""
        data, plan = self.data, self.plan
        generator = torch.Generator(data.device).manual_seed(self.seed)
        parameters = _initial(data, plan, generator)
        yield parameters
        groups: list[dict[str, Any]] = [
            {"params": parameters[0::2], "weight_decay": plan.decay},
            {"params": parameters[1::2]},
        ]
        optimizer = torch.optim.AdamW(groups, lr=plan.rate, weight_decay=0.0, fused=True)
        steps, step = count * math.ceil(len(rows) / data.batch), 0
        for epoch in range(1, count + 1):
            total = torch.zeros((), device=data.device)
            for part, x in data.batches(rows, generator):
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
                out = _outputs(parameters, x, plan.dropout, generator)
                loss = (self.loss(out, data.y[part]) * data.weight[part]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                step += 1
            self._finite(total, epoch)
            yield parameters

    def _finite(self, loss: Tensor, epoch: int) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise HeadError(
                f"the loss of --model {self.plan.kind} is {value} in epoch {epoch}; expected a number: features or targets "
                "are NaN, infinite or extreme; delete the feature file and run featx extract again, or mend the targets"
            )
        return value


def _initial(data: _Data, plan: _Plan, generator: torch.Generator) -> list[Tensor]:
    """Weight and bias of each layer, float32: the hidden one's as He et al. (2015), the last one's so that all start alike."""
    width = data.rows.shape[1] if isinstance(data.rows, Tensor) else data.rows.width
    layers = []
    if plan.hidden:
        drawn = torch.randn((plan.hidden, width), generator=generator, device=data.device, dtype=torch.float32)
        layers = [drawn * math.sqrt(2 / width), torch.zeros(plan.hidden, device=data.device, dtype=torch.float32)]
        width = plan.hidden
    layers += [torch.zeros((len(data.start), width), device=data.device, dtype=torch.float32), data.start.clone()]
    return [layer.requires_grad_() for layer in layers]


def _outputs(
    parameters: Sequence[Tensor], x: Tensor, dropout: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """(n, D) to (n, C)."""
    *hidden, weight, bias = parameters
    if hidden:
        x = F.relu(F.linear(x, *hidden))
        if dropout:
            drawn = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x * (drawn >= dropout) / (1 - dropout)
    return F.linear(x, weight, bias)


def _held_back(training: TrainingData) -> np.ndarray:
    """Rows to stop by, (n,) int64: every tenth image in the order of their class, or of a regression's target.

    So each class gives its tenth, give or take one image, and never its only one. None where they were too few to tell
    anything. Of an image that is seen in several views all are held back.
    """
    y = training.y[:: training.together]
    every = max(HELD_BACK, math.ceil(len(training) / MOST_HELD_BACK))
    if len(y) // every < FEWEST_HELD_BACK:
        return np.empty(0, dtype=np.int64)
    rng = np.random.default_rng(training.seed)
    order = rng.permutation(len(y))
    if training.task == "classification":
        order = order[(np.bincount(y) > 1)[y[order]]]
    if training.task != "multilabel":
        key = y if y.ndim == 1 else y[:, 0]
        order = order[np.argsort(key[order], kind="stable")]
    return view_rows(np.sort(order[rng.integers(every) :: every]), training.together)


def _share(counted: np.ndarray, of: float, count: int) -> np.ndarray:
    """Shares of counts, none of them 0 or 1, by one row more that is spread evenly (Laplace)."""
    shares: np.ndarray = (counted + 1.0 / count) / (of + 1.0)
    return shares


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator, device=values.device)]


def _parts(values: Tensor, most: int) -> Sequence[Tensor]:
    """Parts of equal size, to one, none above ``most``: a last one of a few rows would move the weights as far as any."""
    return values.tensor_split(max(1, math.ceil(len(values) / most)))


@contextlib.contextmanager
def _own_state(plan: _Plan, training: TrainingData) -> Iterator[None]:
    """Gradients on, and no more threads than pay; both are as before afterwards."""
    threads = torch.get_num_threads()
    work = LEAST_BATCH * training.rows.width * max(plan.hidden, training.count)
    if work < _MOST_ON_ONE_THREAD:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)

"""Batches of rows in random order, as tensors: of rows in memory, in a file, or divided between processes.

N rows of D features, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx.heads.training_data import Rows, TrainingData

STEPS_PER_EPOCH, MIN_BATCH, MAX_BATCH = 64, 64, 1024
"""The batch size is a power of 2 that gives about STEPS_PER_EPOCH steps, within these limits."""
BUFFER_BYTES, RUN_BYTES = 256 << 20, 256 << 10
"""Sizes in bytes of float32 rows from a file: the buffer that is shuffled in memory, and the runs that are read at once."""


@dataclass(frozen=True, eq=False)
class TargetFacts:
    """What is known of the targets of all rows.

    Attributes:
        mean: (C,) float64, of the targets of a regression; otherwise 0.
        deviation: (C,) float64, of the targets of a regression; otherwise 1.
        start: (C,) float64, the best constant scores; 0 for regression.
        mean_weight: the mean weight of a row.
        batch_size: of a step, approximately.
    """

    mean: np.ndarray
    deviation: np.ndarray
    start: np.ndarray
    mean_weight: float
    batch_size: int

    @classmethod
    def of(cls, training: TrainingData) -> TargetFacts:
        """Compute them."""
        weight, y = training.weight / training.weight.mean(), training.y
        mean, deviation, start = np.zeros(training.count), np.ones(training.count), np.zeros(training.count)
        if training.task == "classification":
            start = np.log(_smoothed_share(np.bincount(y, weight, minlength=training.count), len(y), training.count))
        elif training.task == "multilabel":
            share = _smoothed_share(weight @ y, len(y), 2)
            start = np.log(share / (1 - share))
        else:
            mean = np.average(y, axis=0, weights=weight)
            deviation = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
            deviation = np.where(deviation == 0, 1.0, deviation)
        batch_size = min(max(2 ** round(math.log2(len(y) / STEPS_PER_EPOCH)), MIN_BATCH), MAX_BATCH)
        return cls(mean, deviation, start, float(training.weight.mean()), batch_size)


@dataclass(frozen=True)
class Batch:
    """The rows of one step that this process has.

    Attributes:
        x: (n, D) float32.
        y: (n,) int64 or (n, C) float32.
        weight: (n,) float32.
        size: number of rows of the step, in all processes.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    size: int


class TensorData:
    """Rows, targets and weights as tensors on a device.

    Attributes:
        rows: (N, D) float32 if they fit in memory, otherwise the rows of the file.
        y: (N,) int64 or (N, C) float32; standardised for regression.
        weight: (N,) float32, 1 on average.
        facts: of the targets.
        start: (C,) float32, the best constant scores; 0 for regression.
    """

    def __init__(self, training: TrainingData, device: torch.device, facts: TargetFacts, *, fits: bool) -> None:
        self.device, self.facts = device, facts
        weight, y = training.weight / facts.mean_weight, training.y
        if training.task == "regression":
            y = ((y - facts.mean) / facts.deviation).astype(np.float32)
        rows = training.rows
        self.rows: Tensor | Rows = torch.from_numpy(rows.whole()).to(device) if fits else rows
        self.y = torch.tensor(y, device=device)
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.start = torch.from_numpy(facts.start.astype(np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Tensor:
        """Read some rows, (n, D) float32."""
        if isinstance(self.rows, Tensor):
            return self.rows[index]
        return torch.from_numpy(self.rows.take(index.cpu().numpy()).whole()).to(self.device)

    def batches(self, index: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches of some rows in random order, each row once.

        Rows of a file are shuffled in buffers of many short runs. A file is fastest to read in runs; and since its rows may be
        sorted by class, a few long runs would fill a buffer with few classes.
        """
        if isinstance(self.rows, Tensor):
            for part in _equal_parts(_shuffled(index, generator), self.facts.batch_size):
                yield self._batch(part, self.rows[part])
            return
        for inside, order in _buffers(index, generator, self.rows.width, self.device):
            buffer = torch.from_numpy(self.rows.take(inside.cpu().numpy()).whole())
            for part in _equal_parts(order, self.facts.batch_size):
                yield self._batch(inside[part], buffer[part.to(buffer.device)].to(self.device))
            del buffer  # before the next one is read, so that only one is in memory

    def mean_loss(self, losses: Tensor, size: int) -> Tensor:  # noqa: ARG002 - all rows of the step are here
        """The mean of the (n,) weighted losses of a step."""
        return losses.mean()

    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:  # noqa: ARG002 - as above
        """Sum the gradients of the parameters over all processes, in place, and return the sum of the losses."""
        return loss

    def _batch(self, rows: Tensor, x: Tensor) -> Batch:
        return Batch(x, self.y[rows], self.weight[rows], len(rows))


def _buffers(
    index: Tensor, generator: torch.Generator, width: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Divide some rows of a file into buffers of runs drawn at random: the rows of each, and an order to take them in."""
    row_bytes = 4 * width
    run = max(1, RUN_BYTES // row_bytes)
    starts = _shuffled(torch.arange(0, len(index), run, device=device), generator)
    for some in starts.split(max(1, BUFFER_BYTES // (row_bytes * run))):
        at = (some.sort().values[:, None] + torch.arange(run, device=device)).flatten()
        inside = index[at[at < len(index)]]
        yield inside, _shuffled(torch.arange(len(inside), device=device), generator)


class SharedData(TensorData):
    """The rows of one process of those that train together. Batches are those of one process; each has its part of them.

    Args:
        training: the rows of this process.
        messages: to the other processes, as ``featx.heads.gloo.Gloo``.
        facts: of the targets of all rows.
        total: N.
        first: the number of the first row of this process.
        in_file: whether batches are made as those of rows that do not fit in memory.
    """

    def __init__(
        self, training: TrainingData, messages: Any, facts: TargetFacts, *, total: int, first: int, in_file: bool
    ) -> None:
        super().__init__(training, torch.device("cpu"), facts, fits=training.rows.fits)
        self._messages, self._total, self._first, self._in_file = messages, total, first, in_file
        self._width = training.rows.width

    def __len__(self) -> int:
        return self._total

    def batches(self, index: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the rows of this process of each batch."""
        if not self._in_file:
            for part in _equal_parts(_shuffled(index, generator), self.facts.batch_size):
                yield self._own(part)
            return
        for inside, order in _buffers(index, generator, self._width, self.device):
            mine = self._is_own(inside)
            here = inside[mine] - self._first
            rows = self.take(here)
            place = torch.cumsum(mine, 0) - 1
            for part in _equal_parts(order, self.facts.batch_size):
                some = part[mine[part]]
                own = inside[some] - self._first
                yield Batch(rows[place[some]], self.y[own], self.weight[own], len(part))

    def mean_loss(self, losses: Tensor, size: int) -> Tensor:
        """The share of the (n,) weighted losses of this process in the mean of a step."""
        return losses.sum() / size

    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Sum the gradients of the parameters over all processes, in place, and return the sum of the losses."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), loss.reshape(1)]).double()
        self._messages.sum_in_place(flat)
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].reshape(gradient.shape))
            at += gradient.numel()
        return flat[-1].float()

    def _own(self, part: Tensor) -> Batch:
        own = part[self._is_own(part)] - self._first
        return Batch(self.take(own), self.y[own], self.weight[own], len(part))

    def _is_own(self, rows: Tensor) -> Tensor:
        return (rows >= self._first) & (rows < self._first + len(self.y))


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

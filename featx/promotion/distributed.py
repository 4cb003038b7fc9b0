"""The processes that train one network together: this one alone, or those that torchrun started, by Accelerate.

All of them run the same code. Each takes its part of every batch, and of the images that are judged; gradients are averaged as
they arise, and what is found is put together, so that all decide alike. The first of them writes files.
"""

from __future__ import annotations

import atexit
import datetime
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.errors import FeatxError
from featx.system import started

_LONGEST = datetime.timedelta(days=7)  # that one waits for another, which may be caching what enters the last blocks


class Processes:
    """One process, which does everything.

    Attributes:
        rank: which of them this is, from 0.
        count: how many there are.
    """

    rank, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This one's of (R,) rows: every ``count``-th."""
        return rows[self.rank :: self.count]

    def whole(self, part: np.ndarray) -> np.ndarray:
        """(R, …) from what each has found for its ``part``."""
        return part

    def sum(self, number: float) -> float:
        """Over all of them."""
        return number

    def shared(self, module: nn.Module) -> nn.Module:
        """The module as all train it: its gradients become the mean of theirs."""
        return module

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give all the first one's tensors."""

    def wait(self) -> None:
        """Until all have come here."""


class Several(Processes):
    """Those that torchrun started.

    Args:
        device: this one's.

    Raises:
        FeatxError: Accelerate is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
        except ImportError as error:
            raise FeatxError(
                "several processes need Accelerate, which is not installed: pip install accelerate"
            ) from error
        patient = InitProcessGroupKwargs(timeout=_LONGEST)
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[patient])
        atexit.register(self._accelerator.end_training)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def whole(self, part: np.ndarray) -> np.ndarray:
        """As ``Processes.whole``."""
        from accelerate.utils import gather_object

        parts: list[np.ndarray] = gather_object([part])
        found = np.empty((sum(map(len, parts)), *part.shape[1:]), dtype=part.dtype)
        for rank, own in enumerate(parts):
            found[rank :: self.count] = own
        return found

    def sum(self, number: float) -> float:
        """As ``Processes.sum``."""
        mine = torch.tensor(number, dtype=torch.float64, device=self._accelerator.device)
        return float(self._accelerator.reduce(mine, reduction="sum"))

    def shared(self, module: nn.Module) -> nn.Module:
        """As ``Processes.shared``: DistributedDataParallel."""
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """As ``Processes.agree``."""
        from accelerate.utils import broadcast

        for tensor in tensors:
            broadcast(tensor)  # in place

    def wait(self) -> None:
        """As ``Processes.wait``."""
        self._accelerator.wait_for_everyone()


def processes(device: torch.device) -> Processes:
    """Those that train together with this one.

    Args:
        device: this one's.
    """
    return Several(device) if started()[1] > 1 else Processes()

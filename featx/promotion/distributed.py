"""The processes that fine-tune one network together: this one alone, or those that torchrun started, through Accelerate.

All processes run the same code. Each takes its shard of every batch and of the images to score. Gradients are averaged during
the backward pass and results are gathered, so that all processes take the same decisions. Only the main process writes files.
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

_TIMEOUT = datetime.timedelta(days=7)
"""How long a process waits for another one, which may be caching the activations of many images."""


class ProcessGroup:
    """A group of one process, which does everything.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
    """

    rank, count = 0, 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's shard of (R,) rows: every ``count``-th row, from number ``rank`` on."""
        return rows[self.rank :: self.count]

    def gather(self, shard: np.ndarray) -> np.ndarray:
        """Merge the results for all shards, each (r, ...), into (R, ...) in the order of the rows."""
        return shard

    def sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        return number

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over all processes."""
        return module

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors in place with those of the main process."""

    def wait(self) -> None:
        """Wait until all processes have reached this call."""


class AccelerateGroup(ProcessGroup):
    """The processes that torchrun started.

    Args:
        device: Device of this process.

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
        timeout = InitProcessGroupKwargs(timeout=_TIMEOUT)
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[timeout])
        atexit.register(self._accelerator.end_training)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def gather(self, shard: np.ndarray) -> np.ndarray:
        """Merge the results for all shards, each (r, ...), into (R, ...) in the order of the rows."""
        from accelerate.utils import gather_object

        shards: list[np.ndarray] = gather_object([shard])
        merged = np.empty((sum(map(len, shards)), *shard.shape[1:]), dtype=shard.dtype)
        for rank, part in enumerate(shards):
            merged[rank :: self.count] = part
        return merged

    def sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        own = torch.tensor(number, dtype=torch.float64, device=self._accelerator.device)
        return float(self._accelerator.reduce(own, reduction="sum"))

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap the module in DistributedDataParallel."""
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors in place with those of the main process."""
        from accelerate.utils import broadcast

        for tensor in tensors:
            broadcast(tensor)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self._accelerator.wait_for_everyone()


def process_group(device: torch.device) -> ProcessGroup:
    """Return the group of the processes that fine-tune together with this one.

    Args:
        device: Device of this process.

    Raises:
        FeatxError: torchrun started several processes, and Accelerate is not installed.
    """
    return AccelerateGroup(device) if started()[1] > 1 else ProcessGroup()

"""Messages between the processes that torchrun started, on the CPU: torch.distributed with the backend gloo."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from featx.errors import FeatxError, SettingsError
from featx.text import brief

_TIMEOUT = datetime.timedelta(days=7)
"""How long a process waits for another one, which may be choosing a hyper-parameter on many rows."""
_MEETING = datetime.timedelta(minutes=10)
"""How long all processes have to start."""


class Gloo:
    """The processes that torchrun started; every method is called by all of them at the same time.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.

    Raises:
        SettingsError: the environment does not say where the processes meet.
        FeatxError: they did not meet.
    """

    def __init__(self) -> None:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing and not dist.is_initialized():
            raise SettingsError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')} in the environment, but {' and '.join(missing)} not set, so the "
                "processes cannot meet; start them with torchrun, or unset WORLD_SIZE"
            )
        try:
            if not dist.is_initialized():  # once: a second meeting would find the addresses of the first
                dist.init_process_group("gloo", timeout=_MEETING)
                atexit.register(_leave)
            self._group: Any = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise FeatxError(f"the processes that torchrun started did not meet: {brief(error)}") from error
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    def broadcast(self, item: Any) -> Any:
        """Return the item of the first process."""
        box = [item]
        with _messages():
            dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def scatter(self, items: Sequence[Any] | None) -> Any:
        """Return this process's item of those that the first process gives, one for each."""
        box: list[Any] = [None]
        with _messages():
            dist.scatter_object_list(box, None if items is None else list(items), src=0, group=self._group)
        return box[0]

    def gather(self, item: Any) -> list[Any]:
        """Return the items of all processes in the order of their ranks to the first process, and [] to the others."""
        items: list[Any] | None = [None] * self.count if self.rank == 0 else None
        with _messages():
            dist.gather_object(item, items, dst=0, group=self._group)
        return items or []

    def gather_all(self, item: Any) -> list[Any]:
        """Return the items of all processes, in the order of their ranks, to each."""
        items: list[Any] = [None] * self.count
        with _messages():
            dist.all_gather_object(items, item, group=self._group)
        return items

    def reduce(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Sum float64 arrays over all processes: the sums to the first one, and undefined arrays to the others."""
        tensors = [torch.from_numpy(np.array(array, dtype=np.float64, order="C")) for array in arrays]
        with _messages():
            for tensor in tensors:
                dist.reduce(tensor, dst=0, op=dist.ReduceOp.SUM, group=self._group)
        return tuple(tensor.numpy() for tensor in tensors)

    def sum_in_place(self, tensor: torch.Tensor) -> None:
        """Sum a tensor over all processes, in each."""
        with _messages():
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=self._group)

    def copy_of_first(self, tensor: torch.Tensor) -> None:
        """Overwrite a tensor with that of the first process."""
        with _messages():
            dist.broadcast(tensor, src=0, group=self._group)

    def close(self) -> None:
        """End these messages; the processes can exchange others."""
        with contextlib.suppress(RuntimeError, ValueError):
            dist.destroy_process_group(self._group)


def _leave() -> None:
    with contextlib.suppress(RuntimeError, ValueError, AssertionError):
        dist.destroy_process_group()


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Turn what torch.distributed raises into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise FeatxError(f"another process of torchrun has ended or does not answer: {brief(error)}") from error

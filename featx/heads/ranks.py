"""Several processes, each with some of the rows, that fit one head: the first one asks, the others answer. numpy only.

The first process does what a single one does: it chooses, steps, calibrates and judges. Whatever sums over all training rows it
asks of every process, itself included, by the name of a method of ``Part``; their answers are summed or gathered. So no two
processes can disagree, and an error in any of them is an error of the question, which ends all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from featx.errors import FeatxError
from featx.features.feature_set import FeatureSet
from featx.features.shared_reading import Read, reading_shared
from featx.heads.part import Part, facts_of
from featx.heads.training_data import ColumnSums, TrainingData

_END = ""
"""The question that ends the answering."""

_CURRENT: ContextVar[Ranks | None] = ContextVar("featx_ranks", default=None)


class Messages(Protocol):
    """How processes reach one another; ``featx.heads.gloo.Gloo`` is one way. All call each method at the same time."""

    rank: int
    count: int

    def broadcast(self, item: Any) -> Any:
        """The item of the first process."""
        ...

    def scatter(self, items: Sequence[Any] | None) -> Any:
        """This process's item of those of the first process."""
        ...

    def gather(self, item: Any) -> list[Any]:
        """To the first process, the items of all in order of their ranks; [] to the others."""
        ...

    def gather_all(self, item: Any) -> list[Any]:
        """To each process, the items of all in order of their ranks."""
        ...

    def reduce(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """To the first process, the sums of float64 arrays over all."""
        ...


class Ranks:
    """The processes, as the first of them sees them.

    Args:
        messages: to the others.
    """

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self._part = Part(messages)
        self._opened: np.ndarray | None = None
        self._has_read = False

    @property
    def count(self) -> int:
        """The number of processes."""
        return self.messages.count

    # The questions

    def read(self, layer: str, read: Read) -> dict[str, Any]:
        """Have every process read the features that this one reads first, and check its part of their rows.

        Args:
            layer: what is read.
            read: reads it in this process, which checks the rows of later ones alone.

        Raises:
            FeatxError: a process cannot read them, or rows are damaged.
        """
        if self._has_read:
            return read(0, 1)
        self._has_read = True
        self._ask("read", same={"layer": layer}, own={"read": read})
        fields, self._part.fields = self._part.fields, {}
        return fields

    def open(self, features: FeatureSet) -> bool:
        """Have every process open the features that a head is to be fitted to, unless others are open.

        Returns:
            Whether these are open.

        Raises:
            FeatxError: a process cannot, or has others.
        """
        if self._opened is not None:
            return self._opened is features.features
        self._part.use(features)
        self._ask("open", same={"layer": features.layer, "facts": facts_of(features)})
        self._opened = features.features
        return True

    def column_sums(self, index: np.ndarray) -> ColumnSums:
        """The sums that mean and deviation of each column of (n,) rows follow from."""
        parts = [{"index": index[rows]} for rows in self._shares(len(index))]
        sums: list[ColumnSums] = self._ask("column_sums", each=parts)
        return functools.reduce(ColumnSums.merged, sums)

    def share(self, training: TrainingData) -> None:
        """Give each process its part of the training data, for the questions that follow."""
        rows = training.rows
        parts = [
            {"index": rows.index[part], "y": training.y[part], "weight": training.weight[part], "first": part.start}
            for part in self._shares(len(training))
        ]
        same = {
            "mean": rows.mean, "scale": rows.scale, "unit": rows.unit, "count": training.count, "task": training.task,
            "seed": training.seed, "total": len(training), "weight_sum": float(training.weight.sum()),
        }  # fmt: skip
        self._ask("take", each=parts, same=same)

    def total(self, what: str, **arguments: Any) -> tuple[np.ndarray, ...]:
        """The sums over all processes of the float64 arrays that a method of ``Part`` returns."""
        sums: tuple[np.ndarray, ...] = self._ask(what, same=arguments, summed=True)
        return sums

    def first(self, what: str, **arguments: Any) -> Any:
        """What a method of ``Part`` returns in this process, after all have run it."""
        return self._ask(what, same=arguments)[0]

    def end(self, error: str = "") -> None:
        """Let the other processes go."""
        self.messages.broadcast((_END, error, False, False))

    def _shares(self, rows: int) -> list[slice]:
        """The rows of each process: runs of equal length."""
        ends = np.linspace(0, rows, self.count + 1).astype(int).tolist()
        return [slice(at, end) for at, end in itertools.pairwise(ends)]

    def _ask(
        self, what: str, *, each: Sequence[Mapping[str, Any]] = (), same: Mapping[str, Any] | None = None,
        own: Mapping[str, Any] | None = None, summed: bool = False,
    ) -> Any:  # fmt: skip
        """Ask every process, by the name of a method of ``Part`` and its arguments: for each, for all, and for this one."""
        self.messages.broadcast((what, dict(same or {}), bool(each), summed))
        mine = self.messages.scatter(each) if each else {}
        return _answer(self._part, what, {**(same or {}), **mine, **(own or {})}, summed)


def answer_all(messages: Messages, load: Callable[[str], FeatureSet]) -> None:
    """Answer the questions of the first process until it has done, in every other process.

    Args:
        messages: to the others.
        load: loads a layer of the features, as this process sees them.

    Raises:
        FeatxError: what went wrong, here or in another process.
    """
    part = Part(messages, load)
    while True:
        what, same, has_each, summed = messages.broadcast(None)
        if what == _END:
            if same:
                raise FeatxError(same)
            return
        own = messages.scatter(None) if has_each else {}
        with contextlib.suppress(_FailedError):  # the first process decides what follows
            _answer(part, what, {**same, **own}, summed)


class _FailedError(FeatxError):
    """A question that a process could not answer."""


def _answer(part: Part, what: str, arguments: Mapping[str, Any], summed: bool) -> Any:
    """Call a method of a part, and tell the others whether that went well."""
    messages, found, raised = part.messages, None, None
    try:
        found = getattr(part, what)(**arguments)
    except FeatxError as error:
        raised = error
    except Exception as error:  # whatever it is, the others wait for an answer
        raised = FeatxError(f"{type(error).__name__}: {error}")
    errors = messages.gather_all(None if raised is None else str(raised))
    failed = [rank for rank, error in enumerate(errors) if error is not None]
    if failed:
        if raised is not None and messages.rank == 0:
            raise raised
        raise _FailedError(f"rank {failed[0]} of {messages.count} processes: {errors[failed[0]]}")
    return messages.reduce(found) if summed else messages.gather(found)


def ranks_for(features: FeatureSet) -> Ranks | None:
    """The processes that fit heads to some features together now; None where this one fits alone.

    The first features of a ``fitting_together`` are those that all processes read; heads of others are fitted by this one.

    Raises:
        FeatxError: a process cannot open them, or has others.
    """
    ranks = _CURRENT.get()
    return ranks if ranks is not None and ranks.open(features) else None


@contextlib.contextmanager
def fitting_together(messages: Messages, *, from_file: bool) -> Iterator[None]:
    """Within this context of the first process, heads are fitted by all processes. The others ``answer_all``.

    Args:
        messages: to the others.
        from_file: whether the features are loaded first, by all processes.
    """
    ranks = Ranks(messages)
    token = _CURRENT.set(ranks)
    try:
        with reading_shared(ranks.read) if from_file else contextlib.nullcontext():
            yield
    except BaseException as error:
        with contextlib.suppress(FeatxError):
            ranks.end(str(error) or type(error).__name__)
        raise
    finally:
        _CURRENT.reset(token)
    ranks.end()


def alone(training: TrainingData) -> TrainingData:
    """The same training data, of which this process alone reads the rows."""
    return training if training.ranks is None else dataclasses.replace(training, ranks=None)

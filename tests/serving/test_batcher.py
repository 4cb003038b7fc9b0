"""Images of several requests are decoded and computed together, in a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from featx.errors import ImageError
from featx.serving.batcher import Batcher, Meter, QueueFullError


def decoded(data: bytes) -> np.ndarray:
    if data == b"bad":
        raise ImageError("it is bad")
    return np.array([[[[len(data)]]]], dtype=np.uint8)


def computed(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), 1).astype(float)


class Gate:
    """A decode that waits until it is opened."""

    def __init__(self) -> None:
        self.open, self.calls = threading.Event(), 0

    def __call__(self, data: bytes) -> np.ndarray:
        self.calls += 1
        assert self.open.wait(10)
        return decoded(data)


def within(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run it in a thread of its own, since a browser of other tests keeps an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(asyncio.wait_for(work(), 20))).result()


@pytest.mark.parametrize("runners", [0, 1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_gets_its_own_outcome_in_batches_of_a_bounded_size(threads: int, runners: int) -> None:
    sizes: list[int] = []
    meter = Meter(batch=sizes.append)
    batcher = Batcher(decoded, computed, threads=threads, runners=runners, images=4, queue=100, meter=meter)

    async def work() -> list[Any]:
        futures = [future for n in range(50) for future in batcher.submit([bytes(n), b"bad"])]
        return await asyncio.gather(*futures)

    outcomes = within(work)
    assert [None if each.values is None else each.values[0] for each in outcomes[::2]] == list(range(50))
    assert {each.error for each in outcomes[1::2]} == {"it is bad"}
    assert sum(sizes) == 50
    assert max(sizes) <= 4
    batcher.close(10)


def test_images_that_are_there_at_the_same_time_are_computed_together() -> None:
    gate, sizes = Gate(), list[int]()
    batcher = Batcher(gate, computed, threads=1, images=4, queue=100, meter=Meter(batch=sizes.append))

    async def work() -> None:
        futures = [*batcher.submit([b"a"]), *batcher.submit([b"b", b"c"]), *batcher.submit([b"d", b"e"])]
        gate.open.set()
        await asyncio.gather(*futures)

    within(work)
    assert sizes == [4, 1]


def test_the_images_of_a_request_are_queued_all_or_not_at_all() -> None:
    gate = Gate()
    batcher = Batcher(gate, computed, threads=1, images=4, queue=3)

    async def work() -> None:
        first = batcher.submit([b"a"])
        while gate.calls == 0:  # it waits no more
            await asyncio.sleep(0.001)
        waiting = batcher.submit([b"b", b"c"])
        with pytest.raises(QueueFullError):
            batcher.submit([b"d", b"e"])
        assert batcher.waiting == 2
        last = batcher.submit([b"f"])
        gate.open.set()
        await asyncio.gather(*first, *waiting, *last)

    within(work)
    assert gate.calls == 4


def test_images_that_nobody_waits_for_any_more_are_left_out() -> None:
    gate, sizes = Gate(), list[int]()
    batcher = Batcher(gate, computed, threads=1, images=4, queue=10, meter=Meter(batch=sizes.append))

    async def work() -> None:
        (first,) = batcher.submit([b"a"])
        gone = batcher.submit([b"b", b"c"])
        (last,) = batcher.submit([b"d"])
        for future in gone:
            future.cancel()
        gate.open.set()
        assert (await first).values == (await last).values

    within(work)
    assert gate.calls == 2
    assert sum(sizes) == 2


def test_closing_finishes_what_is_queued_and_later_images_start_the_threads_again() -> None:
    batcher = Batcher(decoded, computed, threads=2, runners=1, images=4, queue=100)

    async def work() -> list[Any]:
        futures = batcher.submit([b"a"] * 30)
        await asyncio.to_thread(batcher.close, 10)
        assert not [each for each in threading.enumerate() if each.name.startswith("featx-") and each not in before]
        return await asyncio.gather(*futures)

    before = set(threading.enumerate())
    assert len(within(work)) == 30
    assert len(within(work)) == 30


def test_a_fault_fails_its_request_alone() -> None:
    def faulty(data: bytes) -> np.ndarray:
        if data == b"fault":
            raise KeyError("a fault")
        return decoded(data)

    batcher = Batcher(faulty, computed, threads=2, images=4, queue=100)

    async def work() -> list[Any]:
        return await asyncio.gather(*batcher.submit([b"a", b"fault", b"c"]), return_exceptions=True)

    first, second, third = within(work)
    assert isinstance(second, KeyError)
    assert first.values == third.values
    assert batcher.is_alive

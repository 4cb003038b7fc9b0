"""How busy the stages of a run are, and which one limits it, by a clock that a test sets."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from featx.data.throughput import ThroughputMeter


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("featx.data.throughput.time", SimpleNamespace(perf_counter=made))
    return made


def work(meter: ThroughputMeter, clock: Clock, stage: str, seconds: float, threads: int = 1) -> None:
    """One thread of a stage is busy, and no time passes for the others: it is set back."""
    began = clock.now
    with meter.busy(stage, threads):
        clock.now += seconds
    clock.now = began


def test_seconds_of_each_stage_add_up(clock: Clock) -> None:
    meter = ThroughputMeter()
    assert meter.seconds == {}
    for seconds in (0.5, 0.25):
        work(meter, clock, "decode", seconds, threads=2)
    work(meter, clock, "forward", 3.0)
    assert meter.seconds == {"decode": 0.75, "forward": 3.0}


def test_work_that_fails_is_counted_and_its_exception_passes(clock: Clock) -> None:
    meter = ThroughputMeter()

    def fail() -> None:
        with meter.busy("decode"):
            clock.now += 2
            raise ValueError("spoilt")

    with pytest.raises(ValueError, match="spoilt"):
        fail()
    assert meter.seconds == {"decode": 2.0}


def test_the_limit_is_the_stage_whose_threads_are_busiest(clock: Clock) -> None:
    meter = ThroughputMeter()
    work(meter, clock, "decode", 6.0, threads=4)  # 6 of 16 seconds
    work(meter, clock, "forward", 3.2, threads=1)  # 3.2 of 4
    work(meter, clock, "write", 0.1)
    clock.now += 4
    assert meter.limit() == "forward 80 %"


def test_there_is_no_limit_before_anything_was_measured(clock: Clock) -> None:
    meter = ThroughputMeter()
    work(meter, clock, "decode", 1.9)
    clock.now += 1.9
    assert meter.limit() == ""
    idle = ThroughputMeter()
    clock.now += 60
    assert idle.limit() == ""


def test_the_limit_is_of_the_last_seconds_and_stays_in_between(clock: Clock) -> None:
    meter = ThroughputMeter()
    work(meter, clock, "decode", 1.8)
    clock.now += 2
    assert meter.limit() == "decode 90 %"
    work(meter, clock, "decode", 0.2)
    work(meter, clock, "forward", 1.0)
    clock.now += 1.9
    assert meter.limit() == "decode 90 %"
    clock.now += 0.1
    assert meter.limit() == "forward 50 %"
    clock.now += 2
    assert meter.limit().endswith(" 0 %")


def test_work_of_before_the_window_makes_no_more_than_all_of_it(clock: Clock) -> None:
    meter = ThroughputMeter()
    work(meter, clock, "forward", 30.0)  # began long ago, and ends only now
    clock.now += 2
    assert meter.limit() == "forward 100 %"


def test_no_second_is_lost_when_threads_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each thread has a clock of its own that gives 0, 1, 0, 1, ...: every piece of work takes one second.
    clocks = threading.local()

    def tick() -> float:
        clocks.now = 1 - getattr(clocks, "now", 1)
        return float(clocks.now)

    monkeypatch.setattr("featx.data.throughput.time", SimpleNamespace(perf_counter=tick))

    class Slow(dict[str, float]):
        """Lets other threads run between a look and what is done about it."""

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            time.sleep(1e-4)
            return found

    meter = ThroughputMeter()
    meter.seconds = Slow()

    def count() -> None:
        for _ in range(50):
            with meter.busy("count", 4):
                pass

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.seconds == {"count": 200.0}

"""Ctrl-C ends a job, even where a library swallows the exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from made import Recorder

from featx.cli.interrupt import interruptible
from featx.reporter import Reporter


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    """Handle Ctrl-C as a command on a terminal does, also where the tests run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c_where_it_is_swallowed() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return
    raise AssertionError("no KeyboardInterrupt was raised")


@pytest.mark.parametrize("report", ["stage", "milestone", "progress"])
def test_a_swallowed_interrupt_is_raised_again_at_the_next_report(report: str) -> None:
    recorder = Recorder()
    arguments = (1, 2) if report == "progress" else ("next",)
    with interruptible(recorder) as reporter:
        getattr(reporter, report)(*arguments)
        press_ctrl_c_where_it_is_swallowed()
        with pytest.raises(KeyboardInterrupt):
            getattr(reporter, report)(*arguments)
    assert recorder.stages + recorder.milestones + recorder.calls == [arguments if report == "progress" else "next"]


def test_ctrl_c_is_answered_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with interruptible(Recorder()):
        press_ctrl_c_where_it_is_swallowed()
    assert capfd.readouterr().err == "\nStopping\n"


def test_another_thread_is_not_interrupted() -> None:
    recorder = Recorder()
    with interruptible(recorder) as reporter:
        press_ctrl_c_where_it_is_swallowed()
        thread = threading.Thread(target=reporter.stage, args=("in a thread",))
        thread.start()
        thread.join()
    assert recorder.stages == ["in a thread"]


def test_a_process_that_ignores_ctrl_c_still_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible(Recorder()):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_of_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible(Reporter()):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before

"""Progress on stderr: bars on a terminal, lines in a log."""

from __future__ import annotations

import io
import sys

import pytest
from made import Recorder
from tqdm import tqdm

import featx
import featx.reporter
from featx import progress
from featx.errors import SettingsError
from featx.progress import QUIET, VERBOSE, BarReporter, LogReporter, progress_bar
from featx.reporter import SILENT, ForwardingReporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that featx.progress sees, in its one item."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_for_each_tenth_of_long_work(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("extract", "images")
    log.stage("loading resnet50")
    for done in range(0, 2001, 50):
        clock[0] = done / 100
        log.progress(done, 2000, "limit: decoding")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "extract: loading resnet50",
        "extract: 200 of 2,000 images (10 %), 18 s left, limit: decoding",
        "extract: 400 of 2,000 images (20 %), 16 s left, limit: decoding",
    ]
    assert lines[-1] == "extract: 2,000 of 2,000 images (100 %), limit: decoding"
    assert len(lines) == 11


def test_a_log_gets_no_line_for_short_work(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("extract", "images")
    for done in range(101):
        clock[0] = done / 100
        log.progress(done, 100)
    assert capsys.readouterr().err == ""


def test_each_stage_is_timed_from_its_own_start(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("advise", "images")
    log.progress(0, 100)
    clock[0] = 1.0
    log.progress(100, 100)
    for done in range(0, 51, 25):  # another stage with another total, from the second that it began
        clock[0] = 1.0 + done / 10
        log.progress(done, 50)
    assert capsys.readouterr().err.splitlines() == [
        "advise: 25 of 50 images (50 %), 2 s left",
        "advise: 50 of 50 images (100 %)",
    ]


def test_a_log_gets_milestones_instead_of_tenths(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("promote", "images")
    for epoch in (1, 2):
        for done in range(10, 101, 10):
            clock[0] += 0.15
            log.progress((epoch - 1) * 100 + done, 200)
        log.milestone(f"epoch {epoch} of 2")
    assert capsys.readouterr().err.splitlines() == ["promote: epoch 1 of 2", "promote: epoch 2 of 2"]


def test_the_time_left_is_that_of_the_work_that_this_run_does(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogReporter("extract", "images")
    log.progress(900_000, 1_000_000)  # a resumed run
    clock[0] = 100.0
    log.progress(910_000, 1_000_000)
    clock[0] = 7300.0
    log.progress(999_999, 1_000_000)
    log.progress(1_000_000, 1_000_000)
    assert capsys.readouterr().err.splitlines() == ["extract: 1,000,000 of 1,000,000 images (100 %)"]
    assert [progress._duration(s) for s in (59.4, 65, 7800)] == ["59 s", "1:05", "2:10:00"]


def test_a_timed_log_shows_when_each_stage_began(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("extract", "images", timed=True)
    clock[0] = 18.25
    log.stage("loading resnet50")
    assert capsys.readouterr().err == "[  18.2 s] extract: loading resnet50\n"


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    log = LogReporter("extract", "images")
    log.stage("reading a\x1b[2J")
    log.note("b\x1b[2J")
    assert capsys.readouterr().err == "extract: reading a\\x1b[2J\nNote: b\\x1b[2J\n"


def test_a_log_is_written_in_any_encoding_and_even_to_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    latin = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stderr", latin)
    LogReporter("extract", "images").stage("reading 写真")
    latin.seek(0)
    assert latin.read() == "extract: reading \\u5199\\u771f\n"
    monkeypatch.setattr(sys, "stderr", None)
    LogReporter("extract", "images").stage("reading")
    with progress_bar("extract", "images") as reporter:
        assert reporter is SILENT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(terminal: Terminal) -> str:
    """What a terminal that ends lines at carriage returns shows, all of it."""
    return terminal.getvalue().replace("\r", "\n")


def test_a_terminal_shows_the_stage_at_once_and_then_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("extract", "images") as reporter:
        assert isinstance(reporter, BarReporter)
        reporter.stage("loading resnet50")
        assert "extract: loading resnet50" in shown(terminal)
        reporter.progress(0, 40)
        reporter.note("the fast engine is used")
        assert "0/40" in shown(terminal)
    assert "Note: the fast engine is used\n" in shown(terminal)
    assert shown(terminal).splitlines()[-1].strip() == ""  # the bar is gone


def test_verbose_stages_stay_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("promote", "images", VERBOSE) as reporter:
        reporter.stage("fine-tuning")
        reporter.progress(1, 2)
        reporter.milestone("epoch 1 of 2")
    assert "s] promote: fine-tuning\n" in shown(terminal)
    assert "s] promote: epoch 1 of 2\n" in shown(terminal)


def test_a_bar_counts_anew_for_another_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = BarReporter("advise", "images", tqdm)
    bar.progress(5, 10)
    bar.progress(2, 4)
    assert "2/4" in shown(terminal)
    bar.close()


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("extract", "images", QUIET) as reporter:
        reporter.stage("loading")
        reporter.note("a note")
    assert capsys.readouterr().err == ""


def test_functions_show_their_progress_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    @progress.shows_progress("count", "sheep")
    def count(*, progress: bool = False, reporter: featx.reporter.Reporter = SILENT) -> None:
        assert not progress
        reporter.stage("counting")

    count()
    assert capsys.readouterr().err == ""
    count(progress=True)
    assert capsys.readouterr().err == "count: counting\n"
    with pytest.raises(SettingsError, match="exclude one another"):
        count(progress=True, reporter=Recorder())


@pytest.mark.parametrize("name", ["extract", "fit_head", "promote", "rank", "advise", "predict", "evaluate"])
def test_every_long_public_function_takes_progress(name: str) -> None:
    function = getattr(featx, name)
    with pytest.raises(SettingsError, match="exclude one another"):
        function(progress=True, reporter=Recorder())


def test_a_forwarding_reporter_forwards_everything() -> None:
    kept = Recorder()
    forwarding = ForwardingReporter(kept)
    forwarding.stage("a")
    forwarding.progress(1, 2, "b")
    forwarding.milestone("c")
    forwarding.note("d")
    assert (kept.stages, kept.calls, kept.details, kept.milestones, kept.notes) == (
        ["a"],
        [(1, 2)],
        ["b"],
        ["c"],
        ["d"],
    )

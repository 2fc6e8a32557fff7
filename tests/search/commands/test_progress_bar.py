"""Progress as people see it, in a file and on a terminal."""

import io
from dataclasses import replace

import pytest

from indexer.ingest.progress import PartsProgress, Progress
from search.commands.terminal import progress_bar
from search.commands.terminal.progress_bar import ProgressDisplay


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test moves on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_bar, "time", clock)
    return clock


def indexing(new: int, skipped: int) -> Progress:
    return Progress("index", new + skipped, 100, new, skipped, failed=0, seconds=1.0)


def test_a_file_gets_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        for done in range(0, 101, 4):
            display.show("reading maps", done, 100)
            clock.now += 1.0
        display.show("scoring", 3, None)
    lines = capsys.readouterr().err.splitlines()
    # Every ten seconds, at 4 photos per second.
    assert lines == [
        "reading maps: 40/100, 4.0/s, 0:00:15 left",
        "reading maps: 80/100, 4.0/s, 0:00:05 left",
    ]


def test_unchanged_photos_do_not_count_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as display:
        for new in range(11):
            display(indexing(new, skipped=5 * new))
            clock.now += 1.0
    # 50 of 100 photos need no work; of the others one is done each second.
    assert capsys.readouterr().err == "indexing: 10/50, 1.0/s, 0:00:40 left\n"


def test_a_fleet_says_how_many_parts_are_done(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as display:
        for new in range(11):
            display(replace(indexing(new, skipped=0), parts=PartsProgress(4, new // 5)))
            clock.now += 1.0
    assert capsys.readouterr().err == "indexing: 10/100, 1.0/s, 0:01:30 left, 2 of 4 parts\n"


def test_the_sample_and_the_rest_are_one_bar(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 100 photos, 40 are extracted for the sample, and 4 more each second."""
    with ProgressDisplay() as display:
        for sampled in range(0, 41, 4):
            display(Progress("fit", sampled, 100, sampled, 0, 0, clock.now, waiting=sampled))
            clock.now += 1.0
        # Every second photo that is recorded was in the sample.
        for done in range(0, 81, 8):
            display(Progress("index", done, 100, done, 0, 0, clock.now, waiting=40 - done // 2))
            clock.now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["indexing: 40/100", "indexing: 76/100"]
    assert all(", 4." in line or ", 3." in line for line in lines)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressDisplay() as display:
        display.show("scoring by late@prompt=[red]", 3, 12)
    drawn = terminal.getvalue()
    assert "scoring by late@prompt=[red]" in drawn  # no markup
    assert "3/12" in drawn

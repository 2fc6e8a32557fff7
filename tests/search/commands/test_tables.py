"""What tables and lines say to people on a terminal."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from search.answer import Answer
from search.commands.terminal.tables import folded_line, in_one_line, taken_line, terminal_table
from tests.search.commands.test_pages import answer


def printed(found: Answer, everything: bool, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(terminal_table(found, everything))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Matches: the query photo, then one of probability 0.83, 0.5, 0.2 and 0.19."""
    monkeypatch.chdir(tmp_path)
    made = answer(tmp_path, ["a.png", "b.png", "c.png", "d.png", "e.png"])
    likely = (0.99, 0.83, 0.5, 0.2, 0.19)
    matches = [replace(m, probability=p) for m, p in zip(made.matches, likely, strict=True)]
    return replace(made, matches=matches)


def test_matches_are_told_in_words_and_chance_is_folded(found: Answer) -> None:
    _, query, sure, likely, possible = printed(found, everything=False)
    assert query.endswith("a.png  (the query photo)")
    assert sure.split()[1:3] == ["sure", "0.83"]
    assert sure.endswith(" b.png  (2 places)")  # as seen from here
    assert likely.split()[1:3] == ["likely", "0.50"]
    assert possible.split()[1:3] == ["possible", "0.20"]
    assert folded_line(found) == "and 1 more that may be chance: --all"


def test_all_shows_chance_below_a_line(found: Answer) -> None:
    # Confidence, where there is no probability, need not fall with the rank.
    matches = [*found.matches[:2], found.matches[4], found.matches[2]]
    lines = printed(replace(found, matches=matches), everything=True)
    assert [line.split()[1] for line in lines[2:4]] == ["sure", "likely"]
    assert "what follows may be chance" in lines[4]
    assert lines[5].split()[1:4] == ["maybe", "chance", "0.19"]
    assert all(len(line) <= 80 for line in lines)


def test_nothing_but_chance_is_said(found: Answer) -> None:
    chance = [replace(match, probability=0.1) for match in found.matches]
    line = folded_line(replace(found, matches=chance))
    assert line == "nothing found that is more than chance; the best 4 all the same: --all"
    by_mean = [replace(match, probability=None, confidence=0.1) for match in found.matches]
    assert folded_line(replace(found, matches=by_mean)) == line
    unknown = [replace(match, probability=None, confidence=None) for match in found.matches]
    assert folded_line(replace(found, matches=unknown)) is None
    assert len(printed(replace(found, matches=unknown), everything=False)) == 1 + 5


def test_what_was_taken_is_told_with_its_box(found: Answer) -> None:
    # Cells 3 to 5 by 4 to 8 of 7.5 pixels.
    assert taken_line(found) == "taken as the dog: 30,22,68,45 of a.png"


def test_names_stay_in_one_line() -> None:
    assert in_one_line("Café [1].jpg") == "Café [1].jpg"
    assert in_one_line("two\nlines") == r"$'two\nlines'"
    assert in_one_line("it's\x1b[2J") == r"$'it\'s\x1b[2J'"
    assert in_one_line(os.fsdecode(b"caf\xe9")) == r"$'caf\xe9'"

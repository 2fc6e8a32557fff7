"""Running the command line within the test's process."""

import sys
from dataclasses import dataclass

import pytest

from search.commands.app import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class CommandLine:
    """Calls `waldo` with arguments and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["waldo", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = self._capsys.readouterr()
        code = stopped.value.code
        return Result(code if isinstance(code, int) else 0, out, err)

    def refusal(self, *arguments: object) -> str:
        """The one line of an error that is the user's to mend: exit 2, no traceback, no output."""
        result = self(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        [line] = [line for line in result.err.splitlines() if not line.startswith("loading")]
        assert line.startswith("error: ")
        return line

"""Printing: results on standard output, messages on standard error."""

import json
import sys
from typing import Any


def say(message: str) -> None:
    """Print a message for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def say_error(message: str) -> None:
    """Print an error as one line on standard error."""
    say(f"error: {' '.join(message.split())}")


def print_json(value: dict[str, Any]) -> None:
    """Print a result for programs: one JSON object on a line of its own."""
    print(json.dumps(value), flush=True)


def print_table(table: Any) -> None:
    """Print a rich table. In a file or a pipe it is not folded: a path must stay on its line."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)

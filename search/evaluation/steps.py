"""How an evaluation says what it is doing."""

from collections.abc import Callable

# Called with what is being done, how much of it is done, and how much there is.
OnStep = Callable[[str, int, int], None]


def ignore_step(doing: str, done: int, total: int) -> None:
    """Where nobody wants to know."""

"""failures.jsonl: the photos of the collection that could not be read, and why."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from indexer.store.files import write_text_atomically

FAILURES_NAME = "failures.jsonl"


@dataclass(frozen=True)
class Failure:
    """A photo that could not be read.

    path: absolute. reason: for people. list_path: the list that named the photo, if one did.
    """

    path: str
    reason: str
    list_path: str | None = None


def read_failures(index_dir: Path) -> list[Failure]:
    """The recorded failures, sorted by path; lines that are no such record are left out."""
    try:
        text = (index_dir / FAILURES_NAME).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    failures = []
    # Not splitlines(): a file name may hold other characters that Unicode ends a line with.
    for line in text.split("\n"):
        try:
            raw = json.loads(line)
            failures.append(Failure(raw["path"], raw["reason"], raw.get("list")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return failures


def write_failures(index_dir: Path, failures: Iterable[Failure]) -> None:
    """Replace the record atomically; one JSON object per line: path, reason, and list if any."""
    lines = []
    for failure in sorted(failures, key=lambda f: f.path):
        record = {"path": printable(failure.path), "reason": printable(failure.reason)}
        if failure.list_path is not None:
            record["list"] = printable(failure.list_path)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text_atomically(index_dir / FAILURES_NAME, "".join(lines))


def printable(text: str) -> str:
    """A file name that is not UTF-8, as text that can be printed and stored."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

"""When the base of a recall index is written anew.

A recall index is a base on disk and a delta: what its sources have beyond the base, which is added
in memory when the index is loaded. The base is replaced only when the delta has become large.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexer.store.files import StoredFile
from indexer.store.manifest import Derived


@dataclass(frozen=True)
class RecallRule:
    """When recall stops being a plain scan, and when its base is written anew.

    flat_bytes: the most bytes of float32 vectors that are scanned; 256 MiB take about 10 ms.
    delta_rows, delta_share: how many rows a base may lack, as a number and as a share of its own
    rows. The larger of the two counts.
    """

    flat_bytes: int = 256 << 20
    delta_rows: int = 4096
    delta_share: float = 0.25


RULE = RecallRule()


def refreshed(
    files: Sequence[StoredFile],
    saved: Derived | None,
    rule: RecallRule,
    write: Callable[[], StoredFile],
    *,
    rebuild: bool = False,
) -> Derived | None:
    """The base that the manifest should name: the saved one, or a new one where that is due.

    files: what the base is made from, oldest first. saved: the base that there is. write: writes a
    new base of all these files. rebuild: write it in any case. None where there are no files.
    """
    if not files:
        return None
    if saved is not None and not rebuild and not _lacks_too_much(saved, files, rule):
        return saved
    return Derived(write(), files[-1].number)


def _lacks_too_much(saved: Derived, files: Sequence[StoredFile], rule: RecallRule) -> bool:
    lacking = sum(file.rows for file in files if file.number > saved.covers)
    return lacking > max(rule.delta_rows, rule.delta_share * saved.file.rows)

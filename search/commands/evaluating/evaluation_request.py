"""What `waldo evaluate` is asked, and what an evaluation found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.ray_cluster import RayCluster


@dataclass(frozen=True)
class Request:
    """What `waldo evaluate` is asked to measure.

    work: the work folder. sam, sweep, distractors, parts: as the options have them; parts and
    cluster are of the gallery's indexes, as for `waldo index`.
    """

    protocol: str
    root: Path
    model: str
    methods: list[str]
    device: str
    batch_size: int
    codec: str
    work: Path
    sam: str | None = None
    sweep: Sequence[str] = ()
    distractors: Path | None = None
    parts: int | None = None
    cluster: "RayCluster | None" = None


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    report: JSON-ready. write: writes the report and all single results to a run file. folder: the
    stored results of the run, which nobody needs once the report is out; None where there are none.
    """

    report: dict[str, Any]
    write: Callable[[Path], None]
    folder: Path | None

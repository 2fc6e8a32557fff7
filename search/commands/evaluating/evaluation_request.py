"""What `waldo evaluate` is asked, and what an evaluation found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.ray_cluster import RayCluster


@dataclass(frozen=True)
class Request:
    """What `waldo evaluate` is asked to measure.

    work: the work folder. parts, cluster: as for `waldo index`, of the gallery's indexes.
    """

    protocol: str
    root: Path
    model: str
    methods: list[str]
    device: str
    batch_size: int
    codec: str
    sam: str | None
    work: Path
    sweep: list[str]
    distractors: Path | None
    parts: int | None
    cluster: "RayCluster | None"


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    report: JSON-ready. write: writes the report and all single results to a run file. folder: the
    stored results of the run, which nobody needs once the report is out; None where there are none.
    """

    report: dict[str, Any]
    write: Callable[[Path], None]
    folder: Path | None

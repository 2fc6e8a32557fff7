"""Looking after a collection of either kind: an index, or a fleet, by way of all its parts."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from indexer.errors import IndexMissingError
from indexer.parts import parts_of, read_fleet
from indexer.store.failures import read_failures
from indexer.store.files import digest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import CompactReport, compact

# Of `describe`, what is added up over the parts of a fleet.
_SUMS = (
    *("generation", "photos", "deleted", "shards", "small_shards", "map_rows", "dead_map_rows"),
    *("bytes", "bytes_on_disk"),
)


def describe_collection(index_dir: Path) -> dict[str, Any]:
    """As `describe`; of a fleet, all parts together, and `parts`, how many there are."""
    fleet = read_fleet(index_dir)
    if fleet is None:
        return describe(index_dir)
    parts = [describe(folder) for folder in parts_of(index_dir)]
    columns = [column for part in parts for column in part["descriptors"]]
    described = {column["name"]: {**column, "photos": 0} for column in columns}
    for column in columns:
        described[column["name"]]["photos"] += column["photos"]
    return {
        **parts[0],
        **{name: sum(part[name] for part in parts) for name in _SUMS},
        "index": str(index_dir),
        "parts": fleet.parts,
        "compact_has_work": any(part["compact_has_work"] for part in parts),
        "recall": ", ".join(sorted({part["recall"] for part in parts})),
        "descriptors": list(described.values()),
        "failures": len(read_failures(index_dir)),
        "sources": list(dict.fromkeys(source for part in parts for source in part["sources"])),
    }


def verify_collection(index_dir: Path) -> list[str]:
    """As `verify`; of a fleet, the problems of all parts, and of what they have in common."""
    fleet = read_fleet(index_dir)
    if fleet is None:
        return verify(index_dir)
    problems = []
    codec = index_dir / fleet.codec.name
    try:
        if digest(codec) != fleet.codec.sha256:
            problems.append(f"{codec}: its content is not what was written")
    except OSError as error:
        problems.append(f"{codec}: cannot be read ({error.strerror})")
    if problems:
        problems = [f"{problems[0]}; copy codec-1.safetensors of a part to it"]
    for number, folder in enumerate(fleet.folders):
        try:
            fleet.check_part(number)
            problems += verify(folder)
        except IndexMissingError as error:
            problems.append(str(error))
    return problems


def compact_collection(index_dir: Path) -> CompactReport:
    """As `compact`; of a fleet, one part after the other."""
    reports = [compact(folder) for folder in parts_of(index_dir)]
    values = {field.name: [getattr(r, field.name) for r in reports] for field in fields(reports[0])}
    merged: dict[str, Any] = {
        name: any(each) if isinstance(each[0], bool) else sum(each[1:], each[0])
        for name, each in values.items()
        if name != "index_dir"
    }
    return replace(reports[0], index_dir=index_dir, **merged)

"""Describing, verifying, compacting and removing, for an index or for all parts of a fleet."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from features.errors import WaldoError
from indexer.bucket.collection_copy import CollectionCopy
from indexer.bucket.object_store import url_in
from indexer.bucket.remote_check import FleetHead, check_remote_head, verify_remote
from indexer.fleet.fleet_progress import FleetProgress, OnParts
from indexer.fleet.ray_workers import part_workers
from indexer.ingest.progress import PartsProgress
from indexer.parts import Fleet, parts_of, read_fleet
from indexer.ray_cluster import RayCluster
from indexer.store.failures import read_failures
from indexer.store.files import digest, writing
from indexer.store.locks import writer_lock
from indexer.store.manifest import Manifest
from indexer.upkeep.check import bytes_to_verify, describe, verify
from indexer.upkeep.compact import CompactReport, compact_copy
from indexer.upkeep.part_upkeep import PartCheck, PartCompaction, PartMatches, PartRemoval
from indexer.upkeep.remove import RemoveReport, check_matches, names_of, remove

# Is called with the bytes that were read, those to be read, and how many parts of a fleet are done.
OnVerified = Callable[[int, int, PartsProgress | None], None]

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


def verify_collection(
    index: Path, progress: OnVerified | None = None, cluster: RayCluster | None = None
) -> Iterator[str]:
    """Yield the problems of an index as `verify` finds them, or `verify_remote` in a bucket; of a
    fleet, first those of what its parts have in common, then those of each part.

    index: the folder, or the URL (`url_in`). cluster: whose workers read the parts of a fleet;
    None: this process does, one after the other. Raises as `verify` and `verify_remote`,
    BucketError also after some problems were found; ClusterError; WaldoError where there is a
    cluster and no fleet.
    """
    url = url_in(index)
    head = _check_head(index) if url is None else check_remote_head(url)
    if head is None:
        _check_no_cluster(index, cluster)
        told = progress and partial(_tell_one, progress)
        yield from verify(index, told) if url is None else verify_remote(url, told)
        return
    yield from head.problems
    parts = range(head.fleet.parts)
    told_parts = progress and partial(_tell_parts, progress, head.bytes)
    check, of_all = PartCheck(head.fleet, url), FleetProgress(len(parts), told_parts)
    if cluster is None:
        for number in parts:
            yield from check.problems(number, partial(of_all.report, number))
            of_all.finish(number)
        return
    with part_workers(cluster) as workers:
        found = workers.work(check, parts, of_all)
    for number in parts:
        yield from found[number]


def compact_collection(
    index_dir: Path,
    copy: CollectionCopy | None = None,
    on_parts: OnParts | None = None,
    cluster: RayCluster | None = None,
) -> CompactReport:
    """As `compact`; of a fleet, every part.

    copy: the working copy in the folder, where the collection lies in a bucket: what is compacted
    is stored there, and old objects that no manifest names are deleted. cluster: whose workers
    compact the parts; None: this process does, one after the other. Raises as `compact`,
    `collection_copy` and `PartWorkers.work`, and WaldoError where there is a cluster and no fleet.
    """
    fleet = read_fleet(index_dir)
    if fleet is None:
        _check_no_cluster(index_dir, cluster)
        return compact_copy(index_dir, copy)
    where, parts = _where(fleet, copy), range(fleet.parts)
    with _writing(index_dir), part_workers(cluster) as workers:
        found = workers.work(PartCompaction(*where), parts, FleetProgress(len(parts), on_parts))
    reports = [found[number] for number in parts]
    values = {field.name: [getattr(r, field.name) for r in reports] for field in fields(reports[0])}
    merged: dict[str, Any] = {
        name: any(each) if isinstance(each[0], bool) else sum(each[1:], each[0])
        for name, each in values.items()
        if name != "index_dir"
    }
    return replace(reports[0], index_dir=index_dir, **merged)


def remove_from_collection(
    index_dir: Path,
    paths: Sequence[Path],
    copy: CollectionCopy | None = None,
    on_parts: OnParts | None = None,
    cluster: RayCluster | None = None,
) -> RemoveReport:
    """As `remove`; from a fleet, in one commit of each part that has some of the photos.

    copy, cluster: as for `compact_collection`. Raises as `remove`, `collection_copy` and
    `PartWorkers.work`, and WaldoError where there is a cluster and no fleet.
    """
    fleet = read_fleet(index_dir)
    if fleet is None:
        _check_no_cluster(index_dir, cluster)
        return remove(index_dir, paths)
    where, parts, names = _where(fleet, copy), range(fleet.parts), tuple(map(names_of, paths))
    with _writing(index_dir), part_workers(cluster) as workers:
        matches = workers.work(PartMatches(*where, names), parts, FleetProgress(len(parts), None))
        name = index_dir if copy is None else copy.bucket.url
        check_matches(str(name), paths, [*matches.values()])
        chosen = {number: matches[number].of(names) for number in parts if matches[number].any}
        removal, progress = PartRemoval(*where), FleetProgress(len(chosen), on_parts)
        reports = workers.work(removal, [*chosen], progress, chosen.__getitem__)
    left = {number: found.photos for number, found in matches.items()}
    left |= {number: report.total for number, report in reports.items()}
    removed = sum(report.removed for report in reports.values())
    return RemoveReport(index_dir, removed, sum(left.values()))


def _check_head(index_dir: Path) -> FleetHead | None:
    """Check what the parts of a fleet in a folder have in common; None where there is none."""
    fleet = read_fleet(index_dir)
    if fleet is None:
        return None
    codec, problems = index_dir / fleet.codec.name, []
    try:
        if digest(codec) != fleet.codec.sha256:
            problems.append("its content is not what was written")
    except OSError as error:
        problems.append(f"cannot be read ({error.strerror})")
    mend = "copy codec-1.safetensors of a part to it"
    size = 0
    for folder in fleet.folders:
        with contextlib.suppress(WaldoError):  # which the check of the part finds, too
            manifest = Manifest.load_if_present(folder)
            size += 0 if manifest is None else bytes_to_verify(manifest)
    absolute = replace(fleet, index_dir=index_dir.absolute())
    return FleetHead(absolute, [f"{codec}: {problem}; {mend}" for problem in problems], size)


def _check_no_cluster(index: Path, cluster: RayCluster | None) -> None:
    """Raise WaldoError where the workers of a cluster have nothing to do."""
    if cluster is not None:
        raise WaldoError(
            f"{url_in(index) or index}: is no fleet, whose parts the workers of a cluster could "
            "take; do this without a cluster"
        )


def _where(fleet: Fleet, copy: CollectionCopy | None) -> tuple[Fleet, str | None]:
    """A fleet by its absolute path, and its URL where it lies in a bucket."""
    absolute = replace(fleet, index_dir=fleet.index_dir.absolute())
    return absolute, None if copy is None else copy.bucket.url


@contextlib.contextmanager
def _writing(index_dir: Path) -> Iterator[None]:
    """Be the only writer of a fleet. Raises IndexBusyError, IndexWriteError."""
    with writer_lock(index_dir), writing(index_dir):
        yield


def _tell_one(progress: OnVerified, done: int, total: int) -> None:
    progress(done, total, None)


def _tell_parts(
    progress: OnVerified, total: int, done: Collection[int], parts: PartsProgress
) -> None:
    progress(sum(done), total, parts)

"""Indexing photos into a collection of either kind: an ordinary index, or a fleet.

The parts of a fleet are written by `index_photos`, one after the other, or by workers.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from features.errors import WaldoError
from indexer.bucket.collection_copy import CollectionCopy
from indexer.bucket.transfer import codec_repair, fetch
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.fleet.fleet_progress import FleetProgress, as_one_run
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_places import copy_failures_of_parts, part_folder, prepare_parts
from indexer.fleet.part_update import LoadedModels, PartUpdate
from indexer.fleet.part_work import PartWorkers, ThisProcess
from indexer.fleet.ray_workers import part_workers
from indexer.fleet.shares import Shares, divide_listing
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport, Progress, ProgressReporter
from indexer.ingest.sample_cache import SAMPLE_NAME
from indexer.ingest.sources import Exclusion, Found, Source, Unreadable, list_photos, open_sources
from indexer.parts import (
    Fleet,
    check_parts,
    read_fleet,
    write_fleet,
)
from indexer.protocols import Descriptor, Extractor
from indexer.ray_cluster import RayCluster
from indexer.store.failures import read_failures, write_failures
from indexer.store.files import digest, writing
from indexer.store.folder import FLEET_SAMPLE_NAME, make_folder
from indexer.store.locks import writer_lock
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, Manifest


def index_collection(
    sources: Sequence[Path | Source],
    index_dir: Path,
    extractor: Extractor,
    *,
    parts: int | None = None,
    exclude: Sequence[str] = (),
    batch_size: int | None = None,
    quality: str | None = None,
    descriptors: Sequence[Descriptor] = (),
    on_progress: Callable[[Progress], None] | None = None,
    cluster: RayCluster | None = None,
    fit_here: bool = False,
    copy: CollectionCopy | None = None,
) -> IndexReport:
    """Bring an index or a fleet up to date with some sources, or make it.

    parts: of a new fleet; None for an ordinary index, and for whatever there is. cluster: whose
    workers update the parts of a fleet, 16 or more in a new one where nobody says how many; they
    load the extractor themselves, one of `features.models`. None: this process does it. fit_here:
    of a new fleet this extractor fits the codec, not a worker's with the model's own settings.
    copy: the working copy in index_dir, of what lies in a bucket; of a fleet, without its parts.
    Each commit is stored there. Else as `index_photos`, but a changed photo may count as removed
    and new. Raises WaldoError for another number of parts, ClusterError, and as `collection_copy`.
    """
    fleet = read_fleet(index_dir)
    if fleet is None and parts is None and cluster is None:
        return index_photos(
            *(sources, index_dir, extractor),
            exclude=exclude,
            batch_size=batch_size,
            quality=quality,
            descriptors=descriptors,
            on_progress=on_progress,
            on_commit=None if copy is None else copy.push,
        )
    started, url = time.monotonic(), None if copy is None else copy.bucket.url
    _check_parts(index_dir, fleet, parts)
    opened = open_sources(sources, index_dir, left_out := Exclusion(exclude))
    listing = partial(list_photos, opened, index_dir, left_out)
    make_folder(index_dir, FLEET_NAME)
    with contextlib.ExitStack() as held:
        held.enter_context(writer_lock(index_dir))
        workers = held.enter_context(part_workers(cluster))
        chosen: Sequence[Found] = ()
        fingerprint = extractor.fingerprint()
        if fleet is None:
            how = quality or DEFAULT_QUALITY, batch_size
            new = NewFleet.plan(index_dir, url, parts, listing(), extractor, *how)
            fitting = ThisProcess() if fit_here else workers
            fleet = _make(new, fitting, extractor, copy, on_progress)
            chosen, fingerprint = new.chosen, fleet.fingerprint
        fleet = replace(fleet, index_dir=index_dir.absolute())
        shares = _divide(fleet, copy, opened, listing(), chosen)
        models = LoadedModels(extractor, descriptors).on(cluster, fingerprint, batch_size)
        update = PartUpdate(fleet, url, shares.sources, models, batch_size, quality)
        progress = FleetProgress(fleet.parts, as_one_run(on_progress, shares.total))
        reports = workers.work(update, range(fleet.parts), progress, shares.of)
        _finish(fleet, copy, shares)
    return _together(index_dir, reports, len(shares.unreadable), time.monotonic() - started)


def stored_settings(index_dir: Path) -> Manifest | None:
    """What an index or a fleet was made with: the manifest of an index, or of the first part with
    the descriptors of all. None where there is neither.

    Raises IndexFormatError, IndexDamagedError.
    """
    fleet = read_fleet(index_dir)
    folders = [index_dir] if fleet is None else fleet.folders
    found = [Manifest.load_if_present(folder) for folder in folders]
    manifests = [manifest for manifest in found if manifest is not None]
    if not manifests:
        return None
    columns = {column.name: column for one in manifests for column in one.descriptors}
    return replace(manifests[0], descriptors=tuple(columns.values()))


def _make(
    new: NewFleet,
    workers: PartWorkers,
    extractor: Extractor,
    copy: CollectionCopy | None,
    on_progress: Callable[[Progress], None] | None,
) -> Fleet:
    """Have the codec of a fleet fitted, and write fleet.json last.

    Raises as `NewFleet.fit`, and ConflictError where another run has made a fleet in the bucket.
    """
    progress = ProgressReporter(on_progress, new.files, time.monotonic())
    fleet = workers.fit(new, extractor, progress.report_fit)
    if copy is not None:  # a worker on a cluster has stored the codec in the bucket alone
        repair = partial(codec_repair, copy.bucket, fleet)
        fetch(copy.bucket, fleet.codec, new.index_dir, repair)
    with writing(new.index_dir):
        write_fleet(fleet)
        if copy is not None:
            copy.push()
    return fleet


def _divide(
    fleet: Fleet,
    copy: CollectionCopy | None,
    sources: Sequence[Source],
    listing: Iterable[Found | Unreadable],
    chosen: Sequence[Found],
) -> Shares:
    """Make each part ready, and divide a listing of the sources among them.

    chosen: photos that the codec was fitted to in this run. Raises IndexWriteError, BucketError.
    """
    with writing(fleet.index_dir):
        prepare_parts(fleet, None if copy is None else copy.bucket)
        shares = divide_listing(fleet, sources, listing)
        _hand_out(fleet, None if copy is None else copy.bucket.url, chosen)
    return shares


def _hand_out(fleet: Fleet, url: str | None, chosen: Sequence[Found]) -> None:
    """Give each part the maps of its photos that the codec was fitted to, so that they are not
    extracted again; but where a worker has them on its own disk. Raises OSError.
    """
    sample = fleet.index_dir / FLEET_SAMPLE_NAME / SAMPLE_NAME
    for found in chosen if sample.exists() else ():
        part = fleet.part_of(found.size, found.path)
        folder = part_folder(fleet, url, part) / SAMPLE_NAME
        with contextlib.suppress(FileNotFoundError):
            name = f"{digest(found.file)}.safetensors"
            folder.mkdir(parents=True, exist_ok=True)
            (sample / name).replace(folder / name)


def _check_parts(index_dir: Path, fleet: Fleet | None, parts: int | None) -> None:
    """Raise WaldoError where a fleet of so many parts can be neither made nor updated."""
    if parts is not None:
        check_parts(parts)
    if fleet is None and (index_dir / MANIFEST_NAME).exists():
        raise WaldoError(f"{index_dir}: is an ordinary index; choose another folder for a fleet")
    if fleet is not None and parts not in (None, fleet.parts):
        raise WaldoError(
            f"{index_dir}: is a fleet of {fleet.parts} parts, which stay as they are; choose "
            f"another folder for one of {parts}"
        )


def _finish(fleet: Fleet, copy: CollectionCopy | None, shares: Shares) -> None:
    """Delete what the run needed, and gather what failed. Raises IndexWriteError, BucketError."""
    with writing(fleet.index_dir):
        shares.delete()
        shutil.rmtree(fleet.index_dir / FLEET_SAMPLE_NAME, ignore_errors=True)
        if copy is not None:
            copy_failures_of_parts(fleet, copy.bucket)
        _gather_failures(fleet)


def _gather_failures(fleet: Fleet) -> None:
    """Write the failures of all parts to one file. Raises OSError."""
    failures = {one.path: one for folder in fleet.folders for one in read_failures(folder)}
    current = sorted(failures.values(), key=lambda failure: failure.path)
    if current != read_failures(fleet.index_dir):
        write_failures(fleet.index_dir, current)


def _together(
    index_dir: Path, reports: Mapping[int, IndexReport], unreadable: int, seconds: float
) -> IndexReport:
    """The reports of all parts as one. unreadable: what all parts reported alike."""
    names = [field.name for field in fields(IndexReport) if field.name != "index_dir"]
    sums = {name: sum(getattr(report, name) for report in reports.values()) for name in names}
    sums["failed"] -= unreadable * (len(reports) - 1)
    return IndexReport(index_dir, **{**sums, "seconds": seconds})

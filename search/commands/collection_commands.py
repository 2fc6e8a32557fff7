"""Indexes: `waldo index`, `info`, `verify`, `compact`, `remove` and `models`."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.index_places import index_to_read, index_to_write
from search.commands.terminal.option_values import check_codec, cluster_of, load_descriptors
from search.commands.terminal.options import (
    EXPERTS,
    DeviceOption,
    IndexOption,
    JsonOption,
    PartsOption,
    RayOption,
    codec_names,
    model_names,
)
from search.commands.terminal.printing import print_json, print_table, say

if TYPE_CHECKING:
    from indexer.ingest.progress import IndexReport
    from indexer.upkeep.compact import CompactReport

# Processes that may extract photos, unless the machine has more cores: each holds the model.
_MOST_WORKERS = 16


def index(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, photos, and lists of photos: text files or pipes with a path per line, "
            "or - for standard input. Also addresses in a bucket, as in s3://bucket/photos.",
        ),
    ],
    index: IndexOption,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=model_names,
            help="A name from `waldo models`, a folder, or a hub id. "
            "Default: the model of the index, or tiny.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=EXPERTS,
            help="Photos per batch. Default: 8; on an NVIDIA GPU up to 32, as its memory allows.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=EXPERTS,
            help="Processes that extract photos. Default: one per NVIDIA GPU, or one. With --ray, "
            "at most so many workers; default: one per GPU of the cluster, or one per four cores.",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="QUALITY",
            autocompletion=codec_names,
            help="How maps are stored: none, high, standard or small. Default: as the index has "
            "them, or standard.",
        ),
    ] = None,
    descriptor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also store a global descriptor of each photo, for `waldo query --recall`: "
            "dinov2, openclip, siglip, a folder in transformers' layout, or a hub id. May be "
            "repeated. Descriptors that the index has are kept up to date.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out files and folders of this name, or, if it has a /, of this path (** "
            "for any depth). May be repeated.",
        ),
    ] = None,
    parts: PartsOption = None,
    ray: RayOption = None,
    json_output: JsonOption = False,
) -> None:
    """Index photos, or update an index: only new and changed photos are extracted."""
    started = time.monotonic()
    from dataclasses import asdict

    from features.device import precision_of
    from features.models import find_extractor
    from indexer.fleet.fleet_build import index_collection, stored_settings
    from indexer.ingest.sources import Exclusion, open_sources
    from indexer.store.manifest import check_quality
    from indexer.workers.extractor_pool import ExtractorPool
    from search.albums.filling import fill_albums
    from search.commands.terminal.progress_bar import ProgressDisplay

    # Wrong arguments are refused before a model is looked for, and perhaps downloaded.
    cluster = cluster_of(ray, device, workers)
    if cluster is None:
        _check_workers(workers)
    if codec is not None:
        check_codec(codec)
    opened = open_sources(sources, index, Exclusion(exclude or []))
    try:
        is_fleet = parts is not None or cluster is not None
        with index_to_write(index, is_fleet) as target:
            stored = stored_settings(target.folder)
            if stored is not None:
                check_quality(target.folder, stored, codec)
            name = model or (str(stored.fingerprint["model"]) if stored else "tiny")
            if stored is None:
                say(f"loading the model {name}")
            precision = precision_of(stored.fingerprint) if stored else None
            one = find_extractor(name, device, batch_size, precision)
            pool = ExtractorPool(one, None if cluster else workers)
            descriptors = load_descriptors(descriptor or [], stored, device, batch_size or 8)
            with pool as extractor, ProgressDisplay() as display:
                report = index_collection(
                    opened,
                    target.folder,
                    extractor,
                    parts=parts,
                    exclude=exclude or [],
                    batch_size=batch_size,
                    quality=codec,
                    descriptors=descriptors,
                    on_progress=display,
                    cluster=cluster,
                    copy=target.copy,
                )
            filled = fill_albums(target.folder, device)
    except KeyboardInterrupt:
        say("stopped; what is done is kept: run the same command again to go on")
        raise typer.Exit(130) from None
    # What the user has waited for: also for the imports, the listing and the model.
    seconds = time.monotonic() - started
    if json_output:
        print_json({**asdict(report), "index_dir": target.name, "seconds": seconds})
    else:
        print(_report_text(report, target.name, seconds))
        if filled:
            say(f"albums brought up to date: {filled}; `waldo named` lists them")


def _check_workers(workers: int | None) -> None:
    """Raise WaldoError for more processes than make sense, which would fill the memory."""
    import os

    from features.errors import WaldoError

    most = max(_MOST_WORKERS, os.cpu_count() or 1)
    if workers is not None and workers > most:
        raise WaldoError(f"--workers {workers}: more than this machine can use; at most {most}")


def info(
    index: IndexOption,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Show this machine instead: its CPU, and the kernels that compare tokens on it.",
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what an index holds, or what decides the speed of this machine."""
    if machine:
        _show_machine(json_output)
        return
    from indexer.bucket.object_store import Bucket, url_in
    from indexer.bucket.transfer import fetch_failures
    from indexer.upkeep.every_part import describe_collection
    from search.commands.terminal.tables import info_lines

    with index_to_read(index) as folder:
        if url := url_in(index):
            fetch_failures(Bucket(url), folder)
        description = describe_collection(folder)
    if json_output:
        print_json(description)
    else:
        print("\n".join(info_lines(description)))


def _show_machine(json_output: bool) -> None:
    from dataclasses import asdict

    from indexer.codec.machine import describe_machine
    from search.commands.terminal.tables import machine_lines, machine_table

    described = describe_machine()
    if json_output:
        print_json(asdict(described))
    else:
        print("\n".join(machine_lines(described)))
        print_table(machine_table(described))


def verify(index: IndexOption, ray: RayOption = None, json_output: JsonOption = False) -> None:
    """Read and check everything in an index. The exit code is 1 where something is wrong."""
    from features.errors import WaldoError
    from indexer.upkeep.every_part import verify_collection
    from search.commands.terminal.progress_bar import ProgressDisplay

    failure = None
    problems: list[str] = []
    try:
        with ProgressDisplay() as display:
            progress = partial(display.show_bytes, "verifying")
            for problem in verify_collection(index, progress, cluster_of(ray)):
                problems.append(problem)
    except WaldoError as error:
        failure = error
    if json_output:
        print_json({"problems": problems, "complete": failure is None})
    elif problems or failure is None:
        print("\n".join(problems) or "no problem found")
    if failure is not None:
        raise failure
    if problems:
        raise typer.Exit(1)


def compact(index: IndexOption, ray: RayOption = None, json_output: JsonOption = False) -> None:
    """Free the space of deleted and changed photos, and merge small files."""
    from dataclasses import asdict

    from indexer.upkeep.every_part import compact_collection
    from search.commands.terminal.progress_bar import ProgressDisplay

    cluster = cluster_of(ray)
    try:
        with index_to_write(index) as target, ProgressDisplay() as display:
            show = partial(display.show_parts, "compacting")
            report = compact_collection(target.folder, target.copy, show, cluster)
    except KeyboardInterrupt:
        say("stopped; nothing is lost: run the same command again")
        raise typer.Exit(130) from None
    for path in report.lost:
        say(f"warning: {path}: its maps are damaged or lost; run `waldo index` again over it")
    if json_output:
        print_json({**asdict(report), "index_dir": target.name})
    else:
        print(_compact_text(report, target.name))


def remove(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Photos, or folders of photos, whether or not they still exist."
        ),
    ],
    index: IndexOption,
    ray: RayOption = None,
    json_output: JsonOption = False,
) -> None:
    """Remove photos from an index. The files themselves stay."""
    from dataclasses import asdict

    from indexer.upkeep.every_part import remove_from_collection
    from search.commands.terminal.progress_bar import ProgressDisplay

    cluster = cluster_of(ray)
    with index_to_write(index) as target, ProgressDisplay() as display:
        show = partial(display.show_parts, "removing")
        report = remove_from_collection(target.folder, paths, target.copy, show, cluster)
    say("those that are still on disk come back when their SOURCE is indexed again")
    if json_output:
        print_json({**asdict(report), "index_dir": target.name})
    else:
        print(f"{report.total} photos in {target.name}: {report.removed} removed")


def models(
    words: Annotated[
        bool,
        typer.Option("--words", help="List instead the class names that the bundled model knows."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """List the models known by name, with map shape, cost per photo, download size and licence."""
    from search.commands.terminal.tables import bundled_words, models_json, models_table

    if words:
        known = bundled_words()
        if json_output:
            print_json({"words": known})
        else:
            print("\n".join(known))
    elif json_output:
        print_json({"models": models_json()})
    else:
        print_table(models_table())


def _report_text(report: "IndexReport", index: str, seconds: float) -> str:
    parts = [f"{report.total} photos in {index}", f"{report.new} new"]
    for name in ("changed", "moved", "removed", "described", "failed"):
        count = getattr(report, name)
        if count:
            parts.append(f"{count} {name}")
    if report.kept:
        parts.append(f"{report.kept} kept whose folder cannot be reached")
    kinds = (("video", report.videos), ("raw file", report.raw_files))
    skipped = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in kinds if count]
    text = f"{parts[0]}: {', '.join(parts[1:])}"
    if skipped:
        text += f"; skipped {' and '.join(skipped)},"
    text += f" in {seconds:.1f} s"
    if report.failed:
        text += f"; what failed and why: {index}/failures.jsonl"
    return text


def _compact_text(report: "CompactReport", index: str) -> str:
    if not report.changed:
        return f"{report.photos} photos in {index}: nothing to do"
    before, after = report.bytes_before / 2**20, report.bytes_after / 2**20
    text = (
        f"{report.photos} photos in {index}: compacted in {report.seconds:.1f} s; "
        f"{report.shards_before} map shards before, {report.shards_after} now, "
        f"{before:.1f} MiB before, {after:.1f} MiB now"
    )
    if report.in_use:
        text += "; somebody has it open, so the next run deletes the files that were replaced"
    return text

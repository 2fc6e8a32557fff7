"""`waldo evaluate`: methods on labelled benchmarks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.evaluating.evaluation_request import Evaluated, Request
from search.commands.evaluating.label_evaluations import evaluate_mask_labels, evaluate_video_labels
from search.commands.terminal.option_values import (
    check_codec,
    cluster_of,
    given_settings,
    load_descriptors,
    load_extractor,
)
from search.commands.terminal.options import (
    EXPERTS,
    OTHER_BENCHMARKS,
    SEARCH_BENCHMARKS,
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PartsOption,
    RayOption,
    codec_names,
)
from search.commands.terminal.printing import print_json, print_table, say

if TYPE_CHECKING:
    from features.models import MapExtractor
    from search.evaluation.benchmarks.benchmark import Benchmark
    from search.evaluation.galleries import GalleryFleet
    from search.evaluation.methods.sweep import Sweep
    from search.evaluation.retrieval import Evaluation


def evaluate(
    context: typer.Context,
    protocol: Annotated[
        str | None,
        typer.Argument(
            metavar="PROTOCOL",
            autocompletion=lambda: (*SEARCH_BENCHMARKS, *OTHER_BENCHMARKS),
            help="folders, scenes, permir, roxford5k, rparis6k, pods, instre, gldv2, sop, "
            "inshop, ilias or mini_ilias for searches, ilias_text for those by texts, perseg, "
            "permis or pods_masks for masks, davis2017 for videos, objects-folders or "
            "objects-scenes for what recurs.",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the benchmark.")
    ] = None,
    model: ModelOption = "tiny",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A score, a baseline, a global descriptor as for `waldo index`, or NAME+SCORE: "
            "the best 400 photos by one method, re-ranked by a score; or together:NAME,NAME. May "
            "be repeated. Default: all that need no download. NAME@KEY=VALUE changes how features "
            "are extracted (late@timestep=200); KEY is one of image_size, block, timestep, "
            "inversion, steps, "
            "iterations, prompt, model, tau.",
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V...",
            rich_help_panel=EXPERTS,
            help="Measure each --method with every one of these settings, and show a grid. `block` "
            "alone takes all blocks of the model, `timestep` alone ten. May be given twice.",
        ),
    ] = None,
    distractors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For searches: photos behind the gallery that answer no query, such as the "
            "million of Revisited Oxford and Paris. They may lie in tars.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = 8,
    codec: Annotated[
        str,
        typer.Option(
            metavar="QUALITY",
            autocompletion=codec_names,
            help="How maps are stored, as for `waldo index`.",
        ),
    ] = "standard",
    out: Annotated[
        Path | None, typer.Option(metavar="RUN.json", help="Write the result of every query.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder for indexes that later runs use again, and for the results of an "
            "interrupted run. Default: waldo/evaluate in your cache folder.",
        ),
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For benchmarks of masks, as for `waldo segment`."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.json",
            help="Repeat 8 queries of a run of searches, without PROTOCOL and --root, and say "
            "whether they agree.",
        ),
    ] = None,
    parts: PartsOption = None,
    ray: RayOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare methods on a labelled benchmark. Searches rank its whole gallery.

    A run that was interrupted continues when the same command is given again.
    """
    from features.errors import WaldoError
    from indexer.parts import check_parts
    from search.evaluation.benchmarks import GROUPS, MASKS, TEXTS, VIDEOS
    from search.evaluation.method_table import evaluation_table, parts_table
    from search.evaluation.methods.sweep import sweep_table, sweep_title
    from search.evaluation.run_store import default_work_folder

    if check is not None:
        if given := given_settings(context, but=("check", "work", "json_output")):
            raise WaldoError(
                f"--check {check}: takes its settings from the run; leave out {', '.join(given)}"
            )
        _check(check, work or default_work_folder(), json_output)
        return
    if protocol is None or root is None:
        raise WaldoError("name a protocol, and its folder by --root")
    if sam is not None and protocol not in MASKS:
        known = ", ".join(MASKS)
        raise WaldoError(f"--sam {sam}: draws masks for {known}, not for {protocol}")
    if sweep and protocol in {**MASKS, **VIDEOS, **GROUPS, **TEXTS}:
        raise WaldoError(f"--sweep {sweep[0]}: searches can be swept, not {protocol}")
    if distractors and protocol in {**MASKS, **VIDEOS, **GROUPS, **TEXTS}:
        raise WaldoError(f"--distractors {distractors}: searches have a gallery, not {protocol}")
    for option, value in (("--parts", parts), ("--ray", ray)):
        if value is not None and protocol in {**MASKS, **VIDEOS, **GROUPS}:
            raise WaldoError(f"{option} {value}: searches have a gallery, not {protocol}")
    if parts is not None:
        check_parts(parts)
    check_codec(codec)
    cluster = cluster_of(ray, device)
    request = Request(
        *(protocol, root, model, method or [], device, batch_size, codec, sam),
        work=work or default_work_folder(),
        sweep=sweep or [],
        distractors=distractors,
        parts=parts,
        cluster=cluster,
    )
    if protocol in VIDEOS:
        evaluated = evaluate_video_labels(request)
    elif protocol in MASKS:
        evaluated = evaluate_mask_labels(request)
    elif protocol in GROUPS:
        evaluated = _evaluate_groups(request)
    elif protocol in TEXTS:
        evaluated = _evaluate_texts(request)
    else:
        evaluated = _evaluate_searches(request)
    if out is not None:
        evaluated.write(out)
    if json_output:
        print_json(evaluated.report)
    else:
        print_table(evaluation_table(evaluated.report, narrow=sys.stdout.isatty()))
        if (divided := parts_table(evaluated.report)) is not None:
            print()
            print_table(divided)
        for swept in evaluated.report.get("sweeps", []):
            print(f"\n{sweep_title(swept)}")
            print_table(sweep_table(swept))
    if evaluated.folder is not None:
        shutil.rmtree(evaluated.folder)


@dataclass(frozen=True)
class _Searched:
    """What a benchmark of searches was asked with, and what was found. further: for the report."""

    benchmark: "Benchmark"
    extractor: "MapExtractor"
    sweeps: "list[Sweep]"
    fleet: "GalleryFleet | None"
    evaluation: "Evaluation"
    further: dict[str, Any]


def _search(request: Request, some: "Callable[[Benchmark], Benchmark] | None" = None) -> _Searched:
    """Run the methods. some: chooses queries."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import read_benchmark
    from search.evaluation.galleries import Indexing, add_distractors, find_distractors
    from search.evaluation.methods.methods import descriptors_of, select_methods
    from search.evaluation.methods.sweep import find_sweeps
    from search.evaluation.retrieval import run_methods

    with ProgressDisplay() as display:
        benchmark = read_benchmark(request.protocol, request.root, display.show)
        photos = (
            find_distractors(request.distractors, request.work, display.show)
            if request.distractors
            else []
        )
    select_methods(request.methods, benchmark)  # refuses what is wrong before a model is looked for
    extractor = load_extractor(request.model, request.device, request.batch_size)
    sweeps = find_sweeps(request.methods, request.sweep, extractor) if request.sweep else []
    names = [name for swept in sweeps for name in swept.names.values()] or request.methods
    methods = select_methods(names, benchmark, extractor.knows_words)
    descriptors = load_descriptors(
        descriptors_of(methods), None, request.device, request.batch_size
    )
    further: dict[str, Any] = {}
    with _fleet(request, len(benchmark.gallery) + len(photos)) as fleet:
        if photos:
            with ProgressDisplay() as display:
                how = Indexing(extractor, request.work, request.codec, descriptors, display, fleet)
                benchmark, left_out = add_distractors(benchmark, photos, methods, how)
            say(left_out.in_words(benchmark.n_distractors))
            further["distractors_left_out"] = asdict(left_out)
        if some is not None:
            benchmark = some(benchmark)
        with ProgressDisplay() as display:
            found = run_methods(
                *(benchmark, methods, extractor, request.work, request.codec),
                on_progress=display,
                on_step=display.show,
                descriptors=descriptors,
                fleet=fleet,
            )
    return _Searched(benchmark, extractor, sweeps, fleet, found, further)


@contextmanager
def _fleet(request: Request, photos: int) -> "Iterator[GalleryFleet | None]":
    """What fleets the gallery's indexes are, if any; a cluster stays connected until the context
    ends. photos: how many there are to index.
    """
    from indexer.parts import usual_parts
    from search.evaluation.galleries import GalleryFleet

    if request.cluster is None:
        yield None if request.parts is None else GalleryFleet(request.parts)
        return
    with request.cluster.connect():
        yield GalleryFleet(request.parts or usual_parts(photos), request.cluster)


def _evaluate_searches(request: Request) -> Evaluated:
    from search.evaluation.methods.sweep import sweep_json
    from search.evaluation.metrics.class_map import measure_class_map
    from search.evaluation.report import evaluation_json, write_searches_run
    from search.evaluation.runs.repeat import provenance

    searched = _search(request)
    benchmark, extractor, found = searched.benchmark, searched.extractor, searched.evaluation
    say(f"indexes for later runs: {request.work}")
    measured = benchmark.scenes and extractor.knows_words
    class_map = measure_class_map(benchmark, extractor) if measured else None
    report = evaluation_json(benchmark, extractor.fingerprint(), request.codec, found, class_map)
    report |= searched.further
    if searched.sweeps:
        report["sweeps"] = [sweep_json(swept, report) for swept in searched.sweeps]

    def write(path: Path) -> None:
        # It measures the kernels of this machine, so it is asked for only here.
        made = provenance(benchmark, _as_json(request, list(report["methods"]), searched.fleet))
        write_searches_run(path, {**report, **made}, benchmark, found)

    return Evaluated(report, write, found.folder)


def _as_json(request: Request, methods: list[str], fleet: "GalleryFleet | None") -> dict[str, Any]:
    """A request for searches, so that `_check` can repeat it. methods: those that were measured."""
    return {
        "protocol": request.protocol,
        "root": str(request.root.absolute()),
        "model": request.model,
        "methods": methods,
        "device": request.device,
        "batch_size": request.batch_size,
        "codec": request.codec,
        "parts": fleet and fleet.parts,
        "ray": request.cluster is not None,
        "distractors": request.distractors and str(request.distractors.absolute()),
    }


def _check(path: Path, work: Path, json_output: bool) -> None:
    """Repeat a sample of a run of searches. Exits with 1 where it does not agree."""
    from search.evaluation.runs.repeat import compare_sample, request_of, sample
    from search.evaluation.runs.run_files import read_run

    run = read_run(path)
    asked = request_of(run)
    request = Request(
        *(asked["protocol"], Path(asked["root"]), asked["model"], asked["methods"]),
        device=asked["device"],
        batch_size=asked["batch_size"],
        codec=asked["codec"],
        sam=None,
        work=work,
        sweep=[],
        distractors=asked["distractors"] and Path(asked["distractors"]),
        parts=asked["parts"],
        cluster=None,
    )
    places: list[int] = []

    def some(benchmark: "Benchmark") -> "Benchmark":
        places.extend(sample(run, benchmark))
        queries = [benchmark.queries[place] for place in places]
        return replace(benchmark, queries=queries, parts={})

    searched = _search(request, some)
    found = compare_sample(run, places, searched.evaluation, searched.extractor.fingerprint())
    shutil.rmtree(searched.evaluation.folder)
    if json_output:
        print_json({"run": str(path), "agrees": not found.departures, **asdict(found)})
    else:
        for one in found.departures:
            print(f"{one.photo}, {one.method}: average precision {one.was} then, {one.now} now")
        for line in found.changed:
            print(f"changed since: {line}")
        agrees = "differ from" if found.departures else "agree with"
        print(f"{found.n_queries} queries by {len(found.methods)} methods {agrees} {path}")
    if found.departures:
        raise typer.Exit(1)


def _evaluate_groups(request: Request) -> Evaluated:
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import GROUPS
    from search.evaluation.photo_groups import evaluate_groups, select_group_methods
    from search.evaluation.report import write_run

    photos = GROUPS[request.protocol](request.root)
    methods = select_group_methods(request.methods, photos)
    extractor = load_extractor(request.model, request.device, request.batch_size)
    with ProgressDisplay() as display:
        report = evaluate_groups(
            *(request.protocol, photos, extractor, methods, request.work, request.codec),
            on_progress=display,
            on_step=display.show,
        )
    say(f"indexes for later runs: {request.work}")
    return Evaluated(report, partial(write_run, report=report), folder=None)


def _evaluate_texts(request: Request) -> Evaluated:
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import TEXTS
    from search.evaluation.galleries import Indexing
    from search.evaluation.report import write_run
    from search.evaluation.text_queries import check_text_methods, evaluate_texts

    check_text_methods(request.methods)
    with ProgressDisplay() as display:
        benchmark = TEXTS[request.protocol](request.root, display.show)
    extractor = load_extractor(request.model, request.device, request.batch_size)
    photos = len(benchmark.gallery.gallery)
    with _fleet(request, photos) as fleet, ProgressDisplay() as display:
        how = Indexing(extractor, request.work, request.codec, on_progress=display, fleet=fleet)
        report = evaluate_texts(benchmark, how, display.show)
    say(f"indexes for later runs: {request.work}")
    return Evaluated(report, partial(write_run, report=report), folder=None)

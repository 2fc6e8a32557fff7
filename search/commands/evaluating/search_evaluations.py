"""Evaluations of searches, by photos and by texts: a gallery is indexed, and methods rank it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.commands.evaluating.evaluation_request import Evaluated, Request
from search.commands.terminal.option_values import load_descriptors, load_extractor
from search.commands.terminal.printing import say

if TYPE_CHECKING:
    from features.models import MapExtractor
    from search.evaluation.benchmarks.benchmark import Benchmark
    from search.evaluation.galleries import GalleryFleet
    from search.evaluation.methods.sweep import Sweep
    from search.evaluation.retrieval import Evaluation


@dataclass(frozen=True)
class Searched:
    """What a benchmark of searches was asked with, and what was found. further: for the report."""

    benchmark: "Benchmark"
    extractor: "MapExtractor"
    sweeps: "list[Sweep]"
    fleet: "GalleryFleet | None"
    evaluation: "Evaluation"
    further: dict[str, Any]


def run_searches(
    request: Request, choose: "Callable[[Benchmark], Benchmark] | None" = None
) -> Searched:
    """Run the methods on a benchmark of searches. choose: leaves some of its queries."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import read_benchmark
    from search.evaluation.distractors import add_distractors, find_distractors
    from search.evaluation.galleries import Indexing
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
    with _gallery_fleet(request, len(benchmark.gallery) + len(photos)) as fleet:
        if photos:
            with ProgressDisplay() as display:
                how = Indexing(extractor, request.work, request.codec, descriptors, display, fleet)
                benchmark, left_out = add_distractors(benchmark, photos, methods, how)
            say(left_out.in_words(benchmark.n_distractors))
            further["distractors_left_out"] = asdict(left_out)
        if choose is not None:
            benchmark = choose(benchmark)
        with ProgressDisplay() as display:
            found = run_methods(
                *(benchmark, methods, extractor, request.work, request.codec),
                on_progress=display,
                on_step=display.show,
                descriptors=descriptors,
                fleet=fleet,
            )
    return Searched(benchmark, extractor, sweeps, fleet, found, further)


@contextmanager
def _gallery_fleet(request: Request, photos: int) -> "Iterator[GalleryFleet | None]":
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


def evaluate_searches(request: Request) -> Evaluated:
    from search.evaluation.methods.sweep import sweep_json
    from search.evaluation.metrics.class_map import measure_class_map
    from search.evaluation.report import evaluation_json, write_searches_run
    from search.evaluation.runs.repeat import provenance

    searched = run_searches(request)
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
    """A request for searches, for `check_sample` to repeat. methods: those that were measured."""
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


def evaluate_text_searches(request: Request) -> Evaluated:
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
    with _gallery_fleet(request, photos) as fleet, ProgressDisplay() as display:
        how = Indexing(extractor, request.work, request.codec, on_progress=display, fleet=fleet)
        report = evaluate_texts(benchmark, how, display.show)
    say(f"indexes for later runs: {request.work}")
    return Evaluated(report, partial(write_run, report=report), folder=None)

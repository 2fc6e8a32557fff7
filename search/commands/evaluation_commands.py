"""Benchmarks: evaluate methods, report runs, prepare a benchmark's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.options import (
    DeviceOption,
    IndexOption,
    JsonOption,
    check_codec,
    load_descriptors,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from search.evaluation.run_store import RunResults


def evaluate(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            help="folders, scenes, permir, roxford5k or rparis6k; perseg or permis for masks, "
            "davis2017 for videos",
        ),
    ],
    root: Annotated[Path, typer.Option(help="The benchmark's folder.")],
    model: Annotated[str, typer.Option(help="As for `waldo index`.")] = "tiny",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A score, a baseline, a global descriptor as for `waldo index`, or NAME+SCORE: "
            "the best 400 by one method, re-ranked; may be repeated. Default: all that need no "
            "download. NAME@KEY=VALUE changes how features are taken (late@timestep=200), KEY one "
            "of image_size, block, timestep, inversion, steps, iterations, prompt, tau.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos a model evaluation.")] = 8,
    codec: Annotated[
        str, typer.Option(metavar="QUALITY", help="How maps are stored, as for `waldo index`.")
    ] = "standard",
    out: Annotated[
        Path | None, typer.Option(metavar="RUN.json", help="Write every query's result.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where galleries' indexes are kept for later runs, and what an interrupted run "
            "has done. Default: waldo/evaluate in your cache folder.",
        ),
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For perseg and permis, as for `waldo segment`."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare methods on a labelled benchmark; of photos, the whole gallery is ranked.

    A run that was interrupted goes on where it was when the same command is given again.
    """
    import shutil

    from features.errors import WaldoError
    from search.evaluation.run_store import default_work_folder

    if sam is not None and protocol not in ("perseg", "permis"):
        raise WaldoError(f"--sam {sam}: draws masks for perseg and permis, not for {protocol}")
    work = work or default_work_folder()
    if protocol == "davis2017":
        _evaluate_davis(root, model, method or [], device, out, work, json_output)
        return
    if protocol in ("perseg", "permis"):
        _evaluate_masks(protocol, root, model, method or [], sam, device, out, work, json_output)
        return
    from features.extractor import FeatureExtractor
    from search.commands.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import read_benchmark
    from search.evaluation.methods.methods import descriptors_of, select_methods
    from search.evaluation.metrics.class_map import measure_class_map
    from search.evaluation.report import evaluation_json, evaluation_table, write_run
    from search.evaluation.retrieval import run_methods

    check_codec(codec)
    benchmark = read_benchmark(protocol, root)
    methods = select_methods(method or [], benchmark)
    say(f"loading the model {model}")
    extractor = FeatureExtractor.load(model, device, batch_size)
    descriptors = load_descriptors(descriptors_of(methods), None, device, batch_size)
    with ProgressDisplay() as display:
        found = run_methods(
            benchmark, methods, extractor, work, codec, display, display.show, descriptors
        )
    class_map = measure_class_map(benchmark, extractor) if benchmark.scenes else None
    report = evaluation_json(benchmark, extractor.fingerprint(), codec, found, class_map)
    if out is not None:
        write_run(out, report, benchmark, found)
    if json_output:
        print_json(report)
    else:
        print_table(evaluation_table(report))
    shutil.rmtree(found.folder)
    say(f"indexes for later runs: {work}")


def _evaluate_masks(
    protocol: str,
    root: Path,
    model: str,
    method: list[str],
    sam: str | None,
    device: str,
    out: Path | None,
    work: Path,
    json_output: bool,
) -> None:
    from features.extractor import FeatureExtractor
    from search.commands.progress_bar import ProgressDisplay
    from search.evaluation.object_masks import (
        PROTOCOLS,
        evaluate_masks,
        masks_folder,
        select_mask_methods,
    )
    from search.segmentation.cascade import prompted_by
    from search.segmentation.sam import Sam

    objects = PROTOCOLS[protocol](root)
    mask_model = None if sam is None else Sam.load(sam, device)
    refine = None if mask_model is None else prompted_by(mask_model)
    methods = select_mask_methods(method, objects, refine)
    say(f"loading the model {model}")
    extractor = FeatureExtractor.load(model, device, batch_size=1)
    of_sam = [] if mask_model is None else mask_model.files
    folder = masks_folder(work, protocol, objects, extractor, of_sam)
    names = [item.name for item in objects], [chosen.name for chosen in methods]
    with _kept_results(folder, "objects", *names) as kept:
        with ProgressDisplay() as display:
            report = evaluate_masks(protocol, objects, extractor, methods, kept, display.show)
        _tell_by_object(report, out, json_output)


def _evaluate_davis(
    root: Path,
    model: str,
    method: list[str],
    device: str,
    out: Path | None,
    work: Path,
    json_output: bool,
) -> None:
    from search.commands.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks.davis import read_davis
    from search.evaluation.video_labels import davis_folder, evaluate_davis, select_video_methods
    from search.segmentation.video import load_video_extractor

    sequences, methods = read_davis(root), select_video_methods(method)
    say(f"loading the model {model}")
    extractor = load_video_extractor(model, device)
    folder = davis_folder(work, sequences, extractor)
    names = [sequence.name for sequence in sequences], [*methods]
    with _kept_results(folder, "sequences", *names) as kept:
        with ProgressDisplay() as display:
            report = evaluate_davis(sequences, extractor, methods, kept, display.show)
        _tell_by_object(report, out, json_output)


@contextmanager
def _kept_results(
    folder: Path, things: str, items: list[str], methods: list[str]
) -> "Iterator[RunResults]":
    """What an interrupted run has kept, which is told; deleted when this one is through."""
    import shutil

    from search.evaluation.run_store import open_results

    with open_results(folder) as kept:
        if done := kept.count(items, methods):
            say(f"going on with an interrupted run: {done} of {len(items)} {things} are done")
        yield kept
    shutil.rmtree(folder)


def _tell_by_object(report: dict[str, Any], out: Path | None, json_output: bool) -> None:
    from search.evaluation.by_object import objects_table, write_objects_run

    if out is not None:
        write_objects_run(out, report)
    if json_output:
        print_json(report)
    else:
        print_table(objects_table(report))


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.json...", help="What `waldo evaluate --out` wrote."),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the best and the worst queries."),
    ] = None,
) -> None:
    """Put evaluation runs beside each other, a table for each benchmark."""
    from search.commands.runs_page import write_runs_page
    from search.evaluation.run_files import markdown_table, read_run, runs_tables, terminal_table

    found = [read_run(path) for path in runs]
    if html is not None:
        write_runs_page(found, html)
        say(f"page: {html.resolve()}")
    for number, table in enumerate(runs_tables(found)):
        if number > 0:
            print()
        if markdown:
            print(markdown_table(table))
        else:
            print_table(terminal_table(table))


def fit_weights(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            help="folders (one sub-folder an object), or another of photos, as for "
            "`waldo evaluate`.",
        ),
    ],
    root: Annotated[Path, typer.Option(help="The folder of labelled photos.")],
    index: IndexOption,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Fit how much each kind of evidence counts to labelled photos, for searches in an index.

    Nothing changes where that is not clearly better than the default.
    """
    from features.extractor import FeatureExtractor
    from indexer.store.manifest import read_manifest
    from search.commands.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import read_benchmark
    from search.evaluation.fitting import fit_index, fit_table
    from search.evaluation.run_store import default_work_folder

    stored = read_manifest(index)
    benchmark = read_benchmark(protocol, root)
    say(f"loading the model {stored.fingerprint['model']}")
    extractor = FeatureExtractor.from_fingerprint(stored.fingerprint, device, batch_size=8)
    with ProgressDisplay() as display:
        fit = fit_index(index, benchmark, extractor, default_work_folder(), display, display.show)
    if json_output:
        print_json({"index_dir": str(index), "protocol": protocol, **fit.as_json()})
    else:
        print_table(fit_table(fit))
        print(fit.verdict)


def prepare(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="permir")],
    burst: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="BURST: annotations/SPLIT/all_classes.json, and TAO's pictures as "
            "frames/SPLIT/SOURCE/SEQUENCE/FILE. All splits in it are used.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the benchmark's folder goes.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides where frames tie.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Make a benchmark's folder for `waldo evaluate` from the data set it is made of."""
    from features.errors import WaldoError
    from search.evaluation.benchmarks.permir import prepare_permir

    if benchmark != "permir":
        raise WaldoError(f"{benchmark}: no such benchmark to be prepared; only permir is")
    videos = prepare_permir(burst, out, seed)
    frames = sum(len(video.frames) for video in videos)
    classes = {video.class_name for video in videos}
    if json_output:
        report = {"videos": len(videos), "classes": sorted(classes), "frames": frames, "seed": seed}
        print_json({**report, "out": str(out)})
    else:
        print(f"{len(videos)} videos of {len(classes)} classes in {out}: {frames} frames")

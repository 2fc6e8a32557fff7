"""What is done with benchmarks and runs: `waldo report`, `fit-weights` and `prepare`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.commands.terminal.index_places import ordinary_index_to_write
from search.commands.terminal.options import (
    SEARCH_BENCHMARKS,
    DeviceOption,
    IndexOption,
    JsonOption,
)
from search.commands.terminal.printing import print_json, print_table, say

# Photos that are gone are named up to this many.
_NAMED = 5


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.json...", help="What `waldo evaluate --out` wrote."),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page with pictures of the best and worst queries."
        ),
    ] = None,
) -> None:
    """Compare evaluation runs, in one table per benchmark."""
    from search.commands.pages.runs_page import write_runs_page
    from search.evaluation.runs.comparison import compare, comparison_markdown, comparison_table
    from search.evaluation.runs.run_files import (
        by_benchmark,
        markdown_table,
        read_run,
        runs_parts_table,
        runs_table,
        terminal_table,
    )

    found = [read_run(path) for path in runs]
    if html is not None:
        gone = write_runs_page(found, html)
        if gone:
            names = ", ".join(photo.name for photo in gone[:_NAMED])
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            say(f"not shown, because they are gone or not readable: {names}{more}")
        say(f"page: {html.resolve()} ({html.stat().st_size / 1e6:.1f} MB)")
    for number, (title, group) in enumerate(by_benchmark(found).items()):
        if number > 0:
            print()
        comparison = compare(group)
        for place, table in enumerate(
            filter(None, (runs_table(title, group), runs_parts_table(group)))
        ):
            if place > 0:
                print()
            if markdown:
                print(markdown_table(table))
            else:
                print_table(terminal_table(table, narrow=sys.stdout.isatty()))
        if comparison.differences:
            print()
            if markdown:
                print(comparison_markdown(comparison))
            else:
                print_table(comparison_table(comparison))
        for note in comparison.notes:
            print(f"\n{note}")


def fit_weights(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            autocompletion=lambda: SEARCH_BENCHMARKS,
            help="folders (one sub-folder per object), or another benchmark of searches, as for "
            "`waldo evaluate`.",
        ),
    ],
    root: Annotated[Path, typer.Option(metavar="DIR", help="The folder of labelled photos.")],
    index: IndexOption,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Fit the weights of the score `fused` to labelled photos, for searches in an index.

    The default weights stay unless others are clearly better.
    """
    from features.models import extractor_of
    from indexer.store.manifest import read_manifest
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import read_benchmark
    from search.evaluation.fitting import fit_index, fit_table
    from search.evaluation.run_store import default_work_folder

    with ordinary_index_to_write(index) as target:
        stored = read_manifest(target.folder)
        with ProgressDisplay() as display:
            benchmark = read_benchmark(protocol, root, display.show)
        say(f"loading the model {stored.fingerprint['model']}")
        extractor = extractor_of(stored.fingerprint, device, batch_size=8)
        with ProgressDisplay() as display:
            fit = fit_index(
                *(target.folder, benchmark, extractor, default_work_folder()),
                on_progress=display,
                on_step=display.show,
                on_commit=target.push,
            )
    if json_output:
        print_json({"index_dir": target.name, "protocol": protocol, **fit.as_json()})
    else:
        print_table(fit_table(fit))
        print(fit.verdict)


def prepare(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="Only permir.")],
    burst: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder of BURST: annotations/SPLIT/all_classes.json, and the frames of TAO "
            "as frames/SPLIT/SOURCE/SEQUENCE/FILE. All splits in it are used.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make for the benchmark.")],
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Decides between frames that suit equally well."),
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Make the folder of a benchmark for `waldo evaluate` from its source data set."""
    from features.errors import WaldoError
    from search.evaluation.benchmarks.burst import prepare_permir

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

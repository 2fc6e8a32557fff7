"""The command line, `waldo`: parses, calls the library, prints.

Results go to standard output, messages and progress to standard error. Exit codes: 0 all well,
1 `verify` found problems, 2 bad input, 130 indexing stopped by Ctrl-C.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from indexer.build import IndexReport

app = typer.Typer(
    name="waldo",
    help="Find this very object in a photo collection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

IndexOption = Annotated[Path, typer.Option("--index", help="The index's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]


@app.command()
def index(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Folders, photos, or text files listing photos."),
    ],
    index: IndexOption,
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `waldo models`, a folder in diffusers' layout, or a hub id. "
            "Default: the index's own model, or tiny."
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos a model evaluation.")] = 8,
    json_output: JsonOption = False,
) -> None:
    """Index photos, or bring an index up to date: only what is new or changed is worked on."""
    from dataclasses import asdict

    from features.extractor import FeatureExtractor
    from indexer.build import index_photos
    from indexer.manifest import Manifest
    from indexer.sources import open_sources
    from search.progress import ProgressDisplay

    open_sources(sources, index)  # bad sources are told before a model is loaded
    stored = Manifest.load_if_present(index)
    name = model or (str(stored.fingerprint["model"]) if stored else "tiny")
    _say(f"loading the model {name}")
    extractor = FeatureExtractor.load(name, device, batch_size)
    try:
        with ProgressDisplay() as display:
            report = index_photos(
                sources, index, extractor, batch_size=batch_size, on_progress=display
            )
    except KeyboardInterrupt:
        _say("stopped; what is done is kept: run the same command again to go on")
        raise typer.Exit(130) from None
    if json_output:
        _print_json({**asdict(report), "index_dir": str(report.index_dir)})
    else:
        print(_report_text(report))


@app.command()
def query(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo of the object.")],
    index: IndexOption,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="What the object is: dog, car.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture that is white on the object.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around it, upright pixels.")
    ] = None,
    point: Annotated[
        str | None, typer.Option(metavar="X,Y", help="A point on it, upright pixels.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Matches to show.")] = 20,
    candidates: Annotated[
        int, typer.Option(min=1, help="Photos from recall that are re-ranked.")
    ] = 400,
    score: Annotated[str | None, typer.Option(metavar="NAME", help="The re-ranking score.")] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="Re-rank recall's candidates by maps.")
    ] = True,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Find the photos that show the very object of PHOTO, and where in them it is."""
    from features.reference import Box, Point
    from search.index import open_index
    from search.page import write_page
    from search.query import Query, SearchOptions
    from search.scores import DEFAULT_SCORE
    from search.tables import answer_json, answer_table

    corners: Box | None = None
    place: Point | None = None
    if box is not None:
        corners = _numbers("--box", box, "X0,Y0,X1,Y1")  # type: ignore[assignment]
    if point is not None:
        place = _numbers("--point", point, "X,Y")  # type: ignore[assignment]
    asked = Query(photo, class_name, mask, corners, place)
    options = SearchOptions(top, candidates, score or DEFAULT_SCORE, rerank)
    with open_index(index, device) as opened:
        answer = opened.search(asked, options)
    for line in answer.damaged:
        _say(f"warning: {line}")
    if html is not None:
        write_page(answer, html)
        _say(f"page: {html.resolve()}")
    if json_output:
        _print_json(answer_json(answer))
    else:
        _print_table(answer_table(answer))


@app.command()
def evaluate(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL", help="folders or scenes")],
    root: Annotated[Path, typer.Option(help="The benchmark's folder.")],
    model: Annotated[str, typer.Option(help="As for `waldo index`.")] = "tiny",
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A score or a baseline; may be repeated. Default: all."),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos a model evaluation.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN.json", help="Write every query's result.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare methods on a labelled benchmark, ranking the whole gallery for every query."""
    from features.extractor import FeatureExtractor
    from search.evaluation.classmap import measure_class_map
    from search.evaluation.methods import select_methods
    from search.evaluation.protocols import read_benchmark
    from search.evaluation.report import evaluation_json, evaluation_table, write_run
    from search.evaluation.run import run_methods
    from search.progress import ProgressDisplay

    benchmark = read_benchmark(protocol, root)
    methods = select_methods(method or [], benchmark)
    _say(f"loading the model {model}")
    extractor = FeatureExtractor.load(model, device, batch_size)
    with ProgressDisplay() as display:
        results = run_methods(benchmark, methods, extractor, display)
    class_map = measure_class_map(benchmark, extractor) if benchmark.scenes else None
    report = evaluation_json(benchmark, extractor.fingerprint(), results, class_map)
    if out is not None:
        write_run(out, report, benchmark, results)
    if json_output:
        _print_json(report)
    else:
        _print_table(evaluation_table(report))


@app.command()
def info(index: IndexOption, json_output: JsonOption = False) -> None:
    """Say what an index holds."""
    from indexer.check import describe

    description = describe(index)
    if json_output:
        _print_json(description)
        return
    for name, value in description.items():
        lines = value if isinstance(value, list) else [value]
        for line in lines or ["none"]:
            print(f"{name.replace('_', ' ')}: {line}")


@app.command()
def verify(index: IndexOption, json_output: JsonOption = False) -> None:
    """Read everything in an index and check it; exit code 1 where something is wrong."""
    from indexer.check import verify as verify_index

    problems = verify_index(index)
    if json_output:
        _print_json({"problems": problems})
    else:
        print("\n".join(problems) or "no problem found")
    if problems:
        raise typer.Exit(1)


@app.command()
def models(json_output: JsonOption = False) -> None:
    """List the models known by name: map shape, download size, licence."""
    from search.tables import models_json, models_table

    if json_output:
        _print_json({"models": models_json()})
    else:
        _print_table(models_table())


def main() -> NoReturn:
    """Run the command line; errors meant for people become one line and exit code 2."""
    from PIL import Image

    from features.errors import WaldoError

    # Large photos are fine; those over Pillow's limit are refused with an error of our own.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        app()
    except WaldoError as error:
        _fail(str(error))
    except OSError as error:
        # Disk full, no permission: the system's words, with the file they are about.
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    _say(f"error: {' '.join(message.split())}")
    sys.exit(2)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value))


def _print_table(table: Any) -> None:
    from rich.console import Console

    # In a file or a pipe nothing is folded: a path must stay on its line.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)


def _numbers(option: str, text: str, form: str) -> tuple[float, ...]:
    from features.errors import RegionError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.split(",")):
        raise RegionError(f"{option} {text}: must be {form}, in pixels")
    return values


def _report_text(report: "IndexReport") -> str:
    parts = [f"{report.total} photos in {report.index_dir}", f"{report.new} new"]
    for name in ("changed", "moved", "removed", "failed"):
        count = getattr(report, name)
        if count:
            parts.append(f"{count} {name}")
    text = f"{parts[0]}: {', '.join(parts[1:])} in {report.seconds:.1f} s"
    if report.failed:
        text += f"; what failed and why: {report.index_dir / 'failures.jsonl'}"
    return text


if __name__ == "__main__":
    main()

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
    from indexer.compact import CompactReport

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
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="QUALITY",
            help="How maps are stored: none, high, standard or small. Default: the index's own, "
            "or standard.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Index photos, or bring an index up to date: only what is new or changed is worked on."""
    from dataclasses import asdict

    from features.extractor import FeatureExtractor
    from indexer.build import index_photos
    from indexer.manifest import Manifest, check_quality
    from indexer.sources import open_sources
    from search.progress import ProgressDisplay

    # what is wrong with the question is told before a model is loaded
    open_sources(sources, index)
    stored = Manifest.load_if_present(index)
    if codec is not None:
        _check_codec(codec)
    if stored is not None:
        check_quality(index, stored, codec)
    name = model or (str(stored.fingerprint["model"]) if stored else "tiny")
    _say(f"loading the model {name}")
    extractor = FeatureExtractor.load(name, device, batch_size)
    try:
        with ProgressDisplay() as display:
            report = index_photos(
                sources,
                index,
                extractor,
                batch_size=batch_size,
                quality=codec,
                on_progress=display,
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
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO...",
            help="A photo of the object. Of several, each is a search of its own; a text file "
            "lists searches, a line each, and - reads them from standard input: a photo's path, "
            'or {"photo": ..., "class": ..., "box": [...]}.',
        ),
    ],
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
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHOTO[@REGION]",
            help="Another photo of the same object, and where it is: X0,Y0,X1,Y1 or X,Y or a "
            "mask's file; without it the class name tells. May be repeated.",
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            metavar="PHOTO[@REGION]",
            help="What is not looked for, however like it. May be repeated.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Matches to show.")] = 20,
    candidates: Annotated[
        int, typer.Option(min=1, help="Photos from recall that are re-ranked.")
    ] = 400,
    score: Annotated[str | None, typer.Option(metavar="NAME", help="The re-ranking score.")] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="Re-rank recall's candidates by maps.")
    ] = True,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            min=0.0,
            max=1.0,
            help="Leave out matches that may be chance: of searches for what is not there, about "
            "1 - C find something.",
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Only photos in this folder, or whose paths match (** for any depth): absolute, "
            "from here, or from their SOURCE; may be repeated.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Only photos taken then or later: 2020, 2020-05 ..."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only photos taken then or earlier.")
    ] = None,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Find the photos that show the very object of PHOTO, and where in them it is."""
    from features.errors import WaldoError
    from features.reference import Box, Point
    from indexer.filters import PhotoFilter
    from search.index import open_index
    from search.page import describe_object, write_page
    from search.queries import read_queries, view_of
    from search.query import Query, SearchOptions
    from search.scores import DEFAULT_SCORE
    from search.tables import answer_json, answer_table, not_found_line

    corners: Box | None = None
    place: Point | None = None
    if box is not None:
        corners = _numbers("--box", box, "X0,Y0,X1,Y1")  # type: ignore[assignment]
    if point is not None:
        place = _numbers("--point", point, "X,Y")  # type: ignore[assignment]
    pattern = Query(
        Path(),
        class_name,
        mask,
        corners,
        place,
        tuple(view_of(text, class_name) for text in also or ()),
        tuple(view_of(text, class_name) for text in unlike or ()),
    )
    # a folder as it is seen from here, too
    seen = [str(Path(place).resolve()) for place in path or () if Path(place).exists()]
    wanted = PhotoFilter(
        tuple(dict.fromkeys([*(path or ()), *seen])),
        None if since is None else _span("--since", since)[0],
        None if until is None else _span("--until", until)[1],
    )
    options = SearchOptions(
        top,
        candidates,
        score or DEFAULT_SCORE,
        rerank,
        filter=None if wanted == PhotoFilter() else wanted,
        min_confidence=min_confidence,
    )
    single = len(photos) == 1 and photos[0] != "-" and Path(photos[0]).suffix != ".txt"
    if not single and html is not None:
        raise WaldoError("--html shows one search; give one PHOTO")
    failed = False
    with open_index(index, device) as opened:
        for asked in read_queries(photos, pattern):
            try:
                if isinstance(asked, WaldoError):
                    raise asked
                answer = opened.search(asked, options)
            except WaldoError as error:
                if single:
                    raise
                # One bad search does not end the others.
                _say_error(str(error))
                failed = True
                continue
            for line in answer.damaged:
                _say(f"warning: {line}")
            if html is not None:
                write_page(answer, html)
                _say(f"page: {html.resolve()}")
            if json_output:
                _print_json(answer_json(answer))
            else:
                if not single:
                    print(describe_object(answer.query))
                _print_table(answer_table(answer))
            if answer.found is False:
                _say(not_found_line(answer))
    if failed:
        raise typer.Exit(2)


@app.command()
def evaluate(
    protocol: Annotated[
        str,
        typer.Argument(metavar="PROTOCOL", help="folders, scenes, permir, roxford5k or rparis6k"),
    ],
    root: Annotated[Path, typer.Option(help="The benchmark's folder.")],
    model: Annotated[str, typer.Option(help="As for `waldo index`.")] = "tiny",
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A score or a baseline; may be repeated. Default: all."),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos a model evaluation.")] = 8,
    codec: Annotated[
        str, typer.Option(metavar="QUALITY", help="How maps are stored, as for `waldo index`.")
    ] = "standard",
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

    _check_codec(codec)
    benchmark = read_benchmark(protocol, root)
    methods = select_methods(method or [], benchmark)
    _say(f"loading the model {model}")
    extractor = FeatureExtractor.load(model, device, batch_size)
    with ProgressDisplay() as display:
        results = run_methods(benchmark, methods, extractor, codec, display, display.show)
    class_map = measure_class_map(benchmark, extractor) if benchmark.scenes else None
    report = evaluation_json(benchmark, extractor.fingerprint(), codec, results, class_map)
    if out is not None:
        write_run(out, report, benchmark, results)
    if json_output:
        _print_json(report)
    else:
        _print_table(evaluation_table(report))


@app.command()
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
    from search.evaluation.runs import markdown_table, read_run, runs_tables, terminal_table
    from search.evaluation.runs_page import write_runs_page

    found = [read_run(path) for path in runs]
    if html is not None:
        write_runs_page(found, html)
        _say(f"page: {html.resolve()}")
    for number, table in enumerate(runs_tables(found)):
        if number > 0:
            print()
        if markdown:
            print(markdown_table(table))
        else:
            _print_table(terminal_table(table))


@app.command()
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
    from search.evaluation.burst import prepare_permir

    if benchmark != "permir":
        raise WaldoError(f"{benchmark}: no such benchmark to be prepared; only permir is")
    videos = prepare_permir(burst, out, seed)
    frames = sum(len(video.frames) for video in videos)
    classes = {video.class_name for video in videos}
    if json_output:
        report = {"videos": len(videos), "classes": sorted(classes), "frames": frames, "seed": seed}
        _print_json({**report, "out": str(out)})
    else:
        print(f"{len(videos)} videos of {len(classes)} classes in {out}: {frames} frames")


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
def compact(index: IndexOption, json_output: JsonOption = False) -> None:
    """Give back the room that deleted and changed photos take up, and merge small files."""
    from dataclasses import asdict

    from indexer.compact import compact as compact_index

    try:
        report = compact_index(index)
    except KeyboardInterrupt:
        _say("stopped; nothing is lost: run the same command again")
        raise typer.Exit(130) from None
    for path in report.lost:
        _say(f"warning: {path}: its maps are damaged or lost; run `waldo index` again over it")
    if json_output:
        _print_json({**asdict(report), "index_dir": str(index)})
    else:
        print(_compact_text(report))


@app.command()
def remove(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Photos, or folders of photos; they may be gone."),
    ],
    index: IndexOption,
    json_output: JsonOption = False,
) -> None:
    """Take photos out of an index; the photos themselves are left alone."""
    from dataclasses import asdict

    from indexer.remove import remove as remove_photos

    report = remove_photos(index, paths)
    _say("those that are still on disk come back when their SOURCE is indexed again")
    if json_output:
        _print_json({**asdict(report), "index_dir": str(index)})
    else:
        print(f"{report.total} photos in {index}: {report.removed} removed")


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
    warnings.filterwarnings("ignore", module="PIL")  # broken EXIF: the photo counts without
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
    _say_error(message)
    sys.exit(2)


def _say_error(message: str) -> None:
    _say(f"error: {' '.join(message.split())}")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


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


def _span(option: str, text: str) -> tuple[int, int]:
    """A year, month or day, in UTC: its first nanosecond since 1970, and the first after it."""
    from datetime import UTC, datetime, timedelta

    from features.errors import WaldoError

    parts = [int(part) for part in text.split("-") if part.isascii() and part.isdigit()]
    try:
        if [len(part) for part in text.split("-")] != [4, 2, 2][: len(parts)]:
            raise ValueError(text)
        year, month, day = (*parts, 1, 1)[:3]
        start = datetime(year, month, day, tzinfo=UTC)
        if len(parts) == 1:
            end = start.replace(year=year + 1)
        elif len(parts) == 2:
            end = start.replace(year=year + month // 12, month=month % 12 + 1)
        else:
            end = start + timedelta(days=1)
    except (ValueError, OverflowError):
        raise WaldoError(f"{option} {text}: must be YYYY, YYYY-MM or YYYY-MM-DD") from None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first, after = ((at - epoch) // timedelta(seconds=1) * 10**9 for at in (start, end))
    return first, after


def _check_codec(codec: str) -> None:
    from features.errors import WaldoError
    from indexer.codec import QUALITIES

    if codec not in QUALITIES:
        raise WaldoError(f"--codec {codec}: no such codec; one of {', '.join(QUALITIES)}")


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


def _compact_text(report: "CompactReport") -> str:
    if report.migrated:
        was = "brought to the format of this waldo"
    elif not report.changed:
        return f"{report.photos} photos in {report.index_dir}: nothing to do"
    else:
        was = "compacted"
    before, after = report.bytes_before / 2**20, report.bytes_after / 2**20
    text = (
        f"{report.photos} photos in {report.index_dir}: {was} in {report.seconds:.1f} s; "
        f"{report.shards_before} map shards before, {report.shards_after} now, "
        f"{before:.1f} MiB before, {after:.1f} MiB now"
    )
    if report.in_use:
        text += "; somebody has it open, so the next run deletes the files that were replaced"
    return text


if __name__ == "__main__":
    main()

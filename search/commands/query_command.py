"""The question: which photos show this very object?"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.options import (
    BoxOption,
    ClassOption,
    DeviceOption,
    IndexOption,
    JsonOption,
    MaskOption,
    PointOption,
    object_in,
    print_json,
    print_table,
    say,
    say_error,
)

if TYPE_CHECKING:
    from search.index import Index


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
    class_name: ClassOption = None,
    mask: MaskOption = None,
    box: BoxOption = None,
    point: PointOption = None,
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
    recall: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Find the candidates by a global descriptor that the index has. Default: as suits "
            "the score.",
        ),
    ] = None,
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
    maps: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="disk: each search reads its candidates' maps. ram, gpu: all maps are read at the "
            "start and kept there, for many searches.",
        ),
    ] = "disk",
    json_output: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a mask of the object in each match.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy the matches' photos, named by rank.")
    ] = None,
) -> None:
    """Find the photos that show the very object of PHOTO, and where in them it is."""
    from dataclasses import replace

    from features.errors import WaldoError
    from indexer.store.filters import PhotoFilter
    from search.commands.answer_page import describe_object, write_page
    from search.commands.search_lists import read_queries, view_of
    from search.commands.tables import answer_json, answer_table, not_found_line
    from search.query import SearchOptions
    from search.scores import DEFAULT_SCORE
    from search.segmentation.mask_files import Failure, export_matches, write_match_masks

    pattern = replace(
        object_in(Path(), class_name, mask, box, point),
        also=tuple(view_of(text, class_name) for text in also or ()),
        unlike=tuple(view_of(text, class_name) for text in unlike or ()),
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
        recall,
        filter=None if wanted == PhotoFilter() else wanted,
        min_confidence=min_confidence,
    )
    single = len(photos) == 1 and photos[0] != "-" and Path(photos[0]).suffix != ".txt"
    for option, given in (("--html", html), ("--masks", masks), ("--export", export)):
        if given is not None and not single:
            raise WaldoError(f"{option} shows one search; give one PHOTO")
    failed = False
    with _open(index, device, maps) as opened:
        for asked in read_queries(photos, pattern):
            try:
                if isinstance(asked, WaldoError):
                    raise asked
                answer = opened.search(asked, options)
            except WaldoError as error:
                if single:
                    raise
                # One bad search does not end the others.
                say_error(str(error))
                failed = True
                continue
            for line in answer.damaged:
                say(f"warning: {line}")
            if html is not None:
                write_page(answer, html)
                say(f"page: {html.resolve()}")
            drawn, failures = None, list[Failure]()
            if masks is not None:
                drawn, failures = write_match_masks(masks, opened, answer)
                say(f"masks: {masks.resolve()}")
            if export is not None:
                failures += export_matches(export, answer)
                say(f"photos: {export.resolve()}")
            for failure in failures:
                say(f"warning: {failure.reason}")
            if json_output:
                print_json(answer_json(answer, drawn))
            else:
                if not single:
                    print(describe_object(answer.query))
                print_table(answer_table(answer))
            if answer.found is False:
                say(not_found_line(answer))
    if failed:
        raise typer.Exit(2)


def _open(index: Path, device: str, maps: str) -> "Index":
    """Open an index, and show how far reading its maps is."""
    from search.commands.progress_bar import ProgressDisplay
    from search.index import open_index

    if maps == "disk":
        return open_index(index, device)
    with ProgressDisplay() as display:
        display.show("loading the model", 0, None)
        return open_index(index, device, maps, partial(display.show, "reading maps"))


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

"""`waldo query`: which photos show this very object, and where?"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.index_places import index_to_read
from search.commands.terminal.option_values import (
    check_confidence,
    cluster_of,
    object_in,
    photo_filter,
)
from search.commands.terminal.options import (
    ANSWER,
    EXPERTS,
    SCORE_NAMES,
    SEARCHED,
    AlsoOption,
    BoxOption,
    ClassOption,
    DeviceOption,
    IndexesOption,
    JsonOption,
    MaskOption,
    MinConfidenceOption,
    NotOption,
    PointOption,
    RayOption,
)
from search.commands.terminal.printing import print_json, print_table, say, say_error

if TYPE_CHECKING:
    from features.errors import WaldoError
    from indexer.fleet.cluster_reader import HiredHolders
    from indexer.ray_cluster import RayCluster
    from search.answer import Answer
    from search.index import Index
    from search.query import Query, SearchOptions


@dataclass(frozen=True)
class _Output:
    """How an answer is shown. json, paths: these instead of a table. null: paths end with a zero
    byte. everything: also matches that may be chance. html: a page's file, or None. masks, export:
    folders for masks and for photos, or None.
    """

    json: bool
    paths: bool
    null: bool
    everything: bool
    html: Path | None
    masks: Path | None
    export: Path | None

    def check(self) -> None:
        """Raise WaldoError where two outputs are asked for."""
        from features.errors import WaldoError

        if self.json and self.paths:
            raise WaldoError("--json already holds the paths; leave out --paths or -0")

    def check_for_several(self) -> None:
        """Raise WaldoError where an option would write the results of several searches."""
        from features.errors import WaldoError

        options = (("--html", self.html), ("--masks", self.masks), ("--export", self.export))
        for option, given in options:
            if given is not None:
                raise WaldoError(f"{option} shows one search; give one PHOTO")


def query(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO...",
            help="A photo of the object, or @NAME, an object with a name. Each PHOTO is a search "
            "of its own. A text file or a pipe lists searches, one per line, and - reads them from "
            'standard input. A line is a path, or {"photo": ..., "class": ..., "box": [...]}.',
        ),
    ],
    indexes: IndexesOption,
    class_name: ClassOption = None,
    mask: MaskOption = None,
    box: BoxOption = None,
    point: PointOption = None,
    also: AlsoOption = None,
    unlike: NotOption = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=ANSWER, help="The number of matches to show."
        ),
    ] = 20,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            rich_help_panel=ANSWER,
            help="Also show matches that may be chance. In a file or a pipe they always are.",
        ),
    ] = False,
    min_confidence: MinConfidenceOption = None,
    paths: Annotated[
        bool,
        typer.Option(
            "--paths", rich_help_panel=ANSWER, help="Print only the paths of the matches."
        ),
    ] = False,
    null: Annotated[
        bool,
        typer.Option(
            "-0",
            "--null",
            rich_help_panel=ANSWER,
            help="As --paths, each ended by a zero byte: for xargs -0.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=ANSWER, help="Write the answer as a page with pictures."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", rich_help_panel=ANSWER, help="Write a mask of the object for each match."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=ANSWER,
            help="Copy the photos of the matches, named by rank.",
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            rich_help_panel=SEARCHED,
            help="Only photos in this folder, or whose paths match this pattern (** for any "
            "depth): absolute, from here, or from their SOURCE. May be repeated.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            rich_help_panel=SEARCHED,
            help="Only photos taken then or later: 2020, 2020-05, 2020-05-31.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", rich_help_panel=SEARCHED, help="Only photos taken then or earlier."
        ),
    ] = None,
    candidates: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=EXPERTS,
            help="The number of photos from recall to re-rank.",
        ),
    ] = 400,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=lambda: SCORE_NAMES,
            rich_help_panel=EXPERTS,
            help="The score to re-rank by. Default: consistent.",
        ),
    ] = None,
    recall: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=EXPERTS,
            help="Find the candidates by a global descriptor that the index has. Default: by the "
            "maps, as the score needs it.",
        ),
    ] = None,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank/--no-rerank",
            rich_help_panel=EXPERTS,
            help="Re-rank the candidates by their maps.",
        ),
    ] = True,
    device: DeviceOption = "auto",
    maps: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            rich_help_panel=EXPERTS,
            help="Where maps are between searches. disk: each search reads those of its "
            "candidates. ram, gpu: all maps are read at the start, for many searches.",
        ),
    ] = "disk",
    ray: RayOption = None,
    json_output: JsonOption = False,
) -> None:
    """Find the photos that show the very object of PHOTO, and where in them it is."""
    from search.commands.terminal.search_lists import is_one_search, read_queries, with_others
    from search.index import check_maps
    from search.query import SearchOptions
    from search.scoring.scores import DEFAULT_SCORE

    check_confidence(min_confidence)
    pattern = with_others(object_in(Path(), class_name, mask, box, point), also, unlike)
    options = SearchOptions(
        top=top,
        candidates=candidates,
        score=score or DEFAULT_SCORE,
        rerank=rerank,
        recall=recall,
        filter=photo_filter(path, since, until),
        min_confidence=min_confidence,
    )
    output = _Output(
        json=json_output,
        paths=paths or null,
        null=null,
        everything=everything,
        html=html,
        masks=masks,
        export=export,
    )
    output.check()
    check_maps(maps, ray is not None)
    cluster = cluster_of(ray, device)
    single = is_one_search(photos)
    if not single:
        output.check_for_several()
    with ExitStack() as stack:
        folders = [stack.enter_context(index_to_read(index)) for index in indexes]
        workers = stack.enter_context(_hired(folders, cluster))
        opened = [stack.enter_context(_open(folder, device, maps, workers)) for folder in folders]
        searches = read_queries(photos, pattern)
        if single:
            [search] = searches
            _show(opened[0], _answer(opened, search, options), output)
        elif not _answer_each(opened, searches, options, output):
            raise typer.Exit(2)


def _answer_each(
    indexes: "Sequence[Index]",
    searches: "Iterable[Query | WaldoError]",
    options: "SearchOptions",
    output: _Output,
) -> bool:
    """Answer several searches and show each answer. Returns whether all of them succeeded.

    A search that fails is reported and does not end the others.
    """
    from features.errors import WaldoError
    from search.commands.terminal.tables import describe_object

    succeeded = True
    for search in searches:
        try:
            answer = _answer(indexes, search, options)
        except WaldoError as error:
            say_error(str(error))
            succeeded = False
            continue
        if not output.json and not output.paths:
            print(describe_object(answer.query))
        _show(indexes[0], answer, output)
    return succeeded


def _answer(
    indexes: "Sequence[Index]", search: "Query | WaldoError", options: "SearchOptions"
) -> "Answer":
    """The answer to a search. Raises WaldoError, also the one that stands for the search."""
    from features.errors import WaldoError
    from search.late_fusion import search_indexes

    if isinstance(search, WaldoError):
        raise search
    return search_indexes(indexes, search, options)


def _show(index: "Index", answer: "Answer", output: _Output) -> None:
    """Write the files that an answer is wanted in, and print it. index: the first one asked."""
    from search.albums.album import names_of_photos, read_albums
    from search.commands.pages.answer_page import write_answer_page
    from search.commands.terminal.tables import not_found_line
    from search.presentation.answer_json import answer_json
    from search.presentation.class_notes import class_note
    from search.segmentation.mask_files import Failure, export_photos, write_match_masks

    for line in answer.damaged:
        say(f"warning: {line}")
    if changed := sum(match.changed for match in answer.matches):
        say(f"warning: {changed} of these photos changed since indexed; run `waldo index` again")
    written, failures = None, list[Failure]()
    if output.masks is not None:
        device = index.extractor.device
        written, failures = write_match_masks(output.masks, index.reader, device, answer)
        say(f"masks: {output.masks.resolve()}")
    if output.html is not None:
        names = names_of_photos(read_albums(index.reader).values())
        write_answer_page(answer, output.html, names)
        say(f"page: {output.html.resolve()}")
    if output.export is not None:
        found = [(match.path, match.changed) for match in answer.matches]
        failures += export_photos(output.export, found)
        say(f"photos: {output.export.resolve()}")
    for failure in failures:
        say(f"warning: {failure.reason}")
    if note := class_note(index, answer):
        say(f"note: {note}")
    if output.json:
        masks = None if written is None else [one.mask if one else None for one in written]
        print_json(answer_json(answer, masks))
    elif output.paths:
        end = b"\0" if output.null else b"\n"
        for match in answer.matches:
            # As bytes, because names need not be valid Unicode.
            sys.stdout.buffer.write(os.fsencode(match.path) + end)
        sys.stdout.flush()
    else:
        _print_answer(answer, output.everything)
    if answer.found is False:
        say(not_found_line(answer))


def _print_answer(answer: "Answer", everything: bool) -> None:
    """Print a table: on a terminal for people, in a file or a pipe with every row and number."""
    from search.commands.terminal.tables import (
        answer_table,
        folded_line,
        taken_line,
        terminal_table,
    )

    say(taken_line(answer))
    if not sys.stdout.isatty():
        print_table(answer_table(answer))
        return
    table = terminal_table(answer, everything)
    if table.row_count:
        print_table(table)
    if not everything and (line := folded_line(answer)):
        print(line)


@contextmanager
def _hired(fleets: Sequence[Path], cluster: "RayCluster | None") -> "Iterator[HiredHolders | None]":
    """The workers that hold the parts of all the fleets, where --ray is given."""
    from indexer.fleet.cluster_reader import fleet_in, hire_holders

    if cluster is None:
        yield None
        return
    most = max(fleet_in(folder).parts for folder in fleets)
    with hire_holders(cluster, most) as workers:
        yield workers


def _open(index: Path, device: str, maps: str, workers: "HiredHolders | None") -> "Index":
    """Open an index, and show how many of its maps have been read. workers: as for `open_index`."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.index import open_index

    if maps == "disk":
        return open_index(index, device, cluster=workers)
    with ProgressDisplay() as display:
        report = partial(display.show, "reading maps")
        return open_index(index, device, maps, report, workers)

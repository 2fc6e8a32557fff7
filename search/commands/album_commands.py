"""Albums of named objects: `waldo album`, `confirm`, `refuse`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.options import IndexOption, JsonOption, print_json, print_table, say

if TYPE_CHECKING:
    from indexer.collection import PhotoRecord
    from indexer.reader import IndexReader
    from search.albums.album import Album
    from search.albums.verdicts import Said

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the object.")]
SaidArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO[@BOX]...",
        help="Photos of the index, by their paths or ids, and where the object is: X0,Y0,X1,Y1, in "
        "upright pixels. Without a box, where it is found.",
    ),
]


def album(
    object_name: NameArgument,
    index: IndexOption,
    min_probability: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Show the photos of at least this probability, from 0.05 to 1. Default: 0.5, or "
            "the threshold that was fitted to what you said.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the album as a page with pictures.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Copy the photos of the album, named by rank."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the photos that show a named object, as `waldo index` found out; no model is needed."""
    from indexer.reader import IndexReader
    from search.albums.album import read_album
    from search.commands.pages.album_page import write_album_page
    from search.presentation.album_json import album_json
    from search.segmentation.mask_files import export_photos

    _check_probability(min_probability)
    with IndexReader.open(index) as reader:
        found = read_album(reader, object_name.removeprefix("@"), min_probability)
        records = reader.photos([photo.id for photo in found.photos])
    shown = [each for each in zip(found.photos, records, strict=True) if each[0].shown]
    if html is not None:
        write_album_page(found.name, shown, html)
        say(f"page: {html.resolve()}")
    if export is not None:
        copied = [(record.path, record.is_changed()) for _, record in shown]
        for failure in export_photos(export, copied):
            say(f"warning: {failure.reason}")
        say(f"photos: {export.resolve()}")
    if found.waiting:
        say(f"warning: {found.waiting} photos were not compared yet; run `waldo index` again")
    if json_output:
        print_json(album_json(found, records))
    else:
        _print_album(found, records)


def confirm(object_name: NameArgument, photos: SaidArgument, index: IndexOption) -> None:
    """Say that photos show a named object: they stay in its album, and it is found by them, too."""
    _say_of(index, object_name, photos, shows=True)


def refuse(object_name: NameArgument, photos: SaidArgument, index: IndexOption) -> None:
    """Say that photos do not show a named object: they leave its album, and it is told apart from
    what is in them.
    """
    _say_of(index, object_name, photos, shows=False)


def _say_of(index: Path, object_name: str, photos: list[str], shows: bool) -> None:
    from indexer.reader import IndexReader
    from search.albums.album import read_album
    from search.albums.filling import fill_albums
    from search.albums.verdicts import say_of_photos

    name = object_name.removeprefix("@")
    with IndexReader.open(index) as reader:
        said = [_said(reader, text, shows) for text in photos]
    say_of_photos(index, name, said)
    fill_albums(index)
    with IndexReader.open(index) as reader:
        found = read_album(reader, name)
    verbs = ("shows", "show") if shows else ("does not show", "do not show")
    threshold = "" if found.threshold is None else f"; threshold {found.threshold:.3f}"
    say(
        f"kept: {_count(len(said), 'photo')} {verbs[len(said) > 1]} {name}; "
        f"its album has {_count(len(found.shown), 'photo')}{threshold}"
    )


def _said(reader: "IndexReader", text: str, shows: bool) -> "Said":
    """What PHOTO[@BOX] means. Raises WaldoError for a photo that the index does not hold,
    RegionError for a box of another form.
    """
    from features.errors import RegionError
    from search.albums.verdicts import Said, find_photo
    from search.commands.terminal.search_lists import view_of

    # A path that exists has no region, whatever is in its name.
    view = view_of(text, None)
    if view.mask is not None or view.point is not None:
        raise RegionError(f"{text}: what follows the @ must be a box, X0,Y0,X1,Y1")
    return Said(find_photo(reader, str(view.photo)).id, shows, view.box)


def _print_album(album: "Album", records: "list[PhotoRecord]") -> None:
    from rich.table import Table

    from search.commands.terminal.tables import in_one_line, shown_path

    table = Table(box=None, pad_edge=False)
    table.add_column("probability", justify="right")
    table.add_column("box", no_wrap=True)
    table.add_column("said", no_wrap=True)
    table.add_column("photo", overflow="fold")
    for photo, record in zip(album.photos, records, strict=True):
        if not photo.shown:
            continue
        # Programs that read a file or a pipe may run in another folder.
        path = shown_path(record.path) if sys.stdout.isatty() else in_one_line(str(record.path))
        rivals = f" (also like {', '.join(photo.rivals)})" if photo.rivals else ""
        table.add_row(
            "" if photo.probability is None else f"{photo.probability:.2f}",
            "" if photo.box is None else ",".join(map(str, photo.box)),
            "" if photo.said is None else "yes",
            path + rivals,
        )
    if table.row_count:
        print_table(table)
    else:
        say(f"no photo shows {album.name}")
    for photo, record in zip(album.photos, records, strict=True):
        if photo.lost_to is not None:
            say(f"not shown: {shown_path(record.path)} is likelier to show {photo.lost_to} there")


def _check_probability(least: float | None) -> None:
    from features.errors import WaldoError
    from search.albums.album import LEAST_PROBABILITY

    if least is not None and not LEAST_PROBABILITY <= least <= 1:
        raise WaldoError(f"--min-probability {least:g}: must be from {LEAST_PROBABILITY:g} to 1")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"

"""Albums of named objects: `waldo album`, `confirm`, `refuse`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.index_places import (
    WrittenIndex,
    index_to_read,
    ordinary_index_to_write,
)
from search.commands.terminal.options import IndexOption, JsonOption
from search.commands.terminal.printing import print_json, print_table, say

if TYPE_CHECKING:
    from rich.text import Text

    from features.regions import Box
    from indexer.collection import PhotoRecord
    from search.albums.album import Album, AlbumPhoto
    from search.albums.known_photos import KnownPhotos
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
    with (
        index_to_read(index, may_be_fleet=False) as folder,
        IndexReader.open(folder) as reader,
    ):
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
    _say_what_lacks(found)
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


def fill_and_say(target: WrittenIndex, name: str, device: str = "cpu") -> None:
    """Bring albums up to date after something of a name was kept, and say what its album has."""
    from indexer.reader import IndexReader
    from search.albums.album import read_album
    from search.albums.filling import fill_unless_busy

    fill_unless_busy(target.folder, device)
    target.push()
    with IndexReader.open(target.folder) as reader:
        found = read_album(reader, name)
    threshold = "" if found.threshold is None else f"; threshold {found.threshold:.3f}"
    say(f"the album of {name} has {_count(len(found.shown), 'photo')}{threshold}")
    _say_what_lacks(found)


def _say_of(index: Path, object_name: str, photos: list[str], shows: bool) -> None:
    from indexer.reader import IndexReader
    from search.albums.known_photos import KnownPhotos
    from search.albums.verdicts import say_of_photos

    name = object_name.removeprefix("@")
    with ordinary_index_to_write(index) as target:
        with IndexReader.open(target.folder) as reader:
            known = KnownPhotos(reader)
            said = [_said(known, text, shows) for text in photos]
        say_of_photos(target.folder, name, said)
        target.push()
        count = len({one.id for one in said})
        verbs = ("shows", "show") if shows else ("does not show", "do not show")
        # What is kept is said at once: it stays, whatever becomes of the album.
        say(f"kept: {_count(count, 'photo')} {verbs[count > 1]} {name}")
        fill_and_say(target, name)


def _said(known: "KnownPhotos", text: str, shows: bool) -> "Said":
    """What PHOTO[@BOX] means. Raises WaldoError for a photo that the index does not hold,
    RegionError for a box of another form.
    """
    from features.errors import RegionError, WaldoError
    from search.albums.known_photos import exists
    from search.albums.verdicts import Said

    whole = known.with_path(text)
    photo, _, region = text.rpartition("@")
    # A path that is known, or exists, has no region, whatever is in its name.
    if whole is not None or not photo or exists(text):
        return Said(known.find(text) if whole is None else whole, shows)
    box = _box(region)
    if box is not None:
        return Said(known.find(photo), shows, box)
    try:
        known.find(photo)
    except WaldoError:
        known.find(text)  # so the @ is one of the path
    raise RegionError(f"{text}: what follows the @ must be a box, X0,Y0,X1,Y1")


def _box(region: str) -> "Box | None":
    """The box X0,Y0,X1,Y1; None where a text is none."""
    from search.commands.terminal.option_values import box_of

    try:
        x0, y0, x1, y1 = (float(part) for part in region.split(","))
    except ValueError:
        return None
    return box_of(x0, y0, x1, y1)


def _say_what_lacks(album: "Album") -> None:
    """What there is to know of an album besides its photos."""
    if album.waiting:
        say(
            f"warning: {_count(album.waiting, 'photo')} not compared yet; the album follows with "
            "the next run of `waldo index`"
        )
    elif not album.estimated:
        only = "" if album.threshold is None else ", and those from the threshold on"
        say(
            "too few other photos to tell how likely each shows it: in the album are those that "
            f"it was named by or that you confirmed{only}"
        )


def _print_album(album: "Album", records: "list[PhotoRecord]") -> None:
    from rich.table import Table

    from search.commands.terminal.tables import shown_path

    table = Table(box=None, pad_edge=False)
    table.add_column("probability", justify="right")
    table.add_column("box", no_wrap=True)
    table.add_column("said", no_wrap=True)
    table.add_column("photo", overflow="fold")
    for photo, record in zip(album.photos, records, strict=True):
        if not photo.shown:
            continue
        table.add_row(
            "" if photo.probability is None else f"{photo.probability:.2f}",
            "" if photo.box is None else ",".join(map(str, photo.box)),
            "" if photo.said is None else "yes",
            _with_notes(photo, record),
        )
    if table.row_count:
        print_table(table)
    else:
        say(f"no photo shows {album.name}")
    for photo, record in zip(album.photos, records, strict=True):
        if photo.lost_to is not None:
            say(f"not shown: {shown_path(record.path)} is likelier to show {photo.lost_to} there")


def _with_notes(photo: "AlbumPhoto", record: "PhotoRecord") -> "Text":
    """The path of a photo, and what else there is to know of it."""
    from rich.text import Text

    from search.albums.known_photos import exists
    from search.commands.terminal.tables import CHANGED, in_one_line, shown_path

    # Programs that read a file or a pipe may run in another folder.
    path = shown_path(record.path) if sys.stdout.isatty() else in_one_line(str(record.path))
    notes = (
        (len(photo.rivals) > 0, f"also like {', '.join(photo.rivals)}"),
        (record.is_changed(), CHANGED),
        (not exists(record.path), "gone"),
    )
    # As Text, because brackets in a file name are not markup.
    return Text(path + "".join(f" ({text})" for applies, text in notes if applies))


def _check_probability(least: float | None) -> None:
    from features.errors import WaldoError
    from search.albums.album import LEAST_PROBABILITY

    if least is not None and not LEAST_PROBABILITY <= least <= 1:
        raise WaldoError(f"--min-probability {least:g}: must be from {LEAST_PROBABILITY:g} to 1")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"

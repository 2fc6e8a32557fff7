"""The objects that recur in a collection: `waldo objects`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.index_places import WrittenIndex, ordinary_index_to_write
from search.commands.terminal.options import DeviceOption, IndexOption, JsonOption
from search.commands.terminal.printing import print_json, print_table, say

if TYPE_CHECKING:
    from search.recurring.recurrence import RecurringObject

MergeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="N,N", help="Say that these objects are one. Repeatable."),
]
SplitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N=PHOTO",
        help="Say that a photo, by its path or id, does not show object N. Repeatable.",
    ),
]


def objects(
    index: IndexOption,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with a picture of each object."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="N=NAME",
            help="Keep object N under a name, as `waldo name` does, and list no objects.",
        ),
    ] = None,
    merge: MergeOption = None,
    split: SplitOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """List the objects that appear in two photos or more, those in most photos first.

    Photos that are new are compared first, from what the index holds; no model is needed. It can be
    stopped at any time, and goes on from there. Objects in few photos, and some photos of an
    object, may be missing: it rather leaves a photo out than takes two objects for one. What you
    say with --merge and --split is kept, and holds from then on; objects are numbered anew.
    """
    from features.errors import WaldoError
    from indexer.reader import IndexReader
    from search.commands.pages.objects_page import write_objects_page
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.recurring.linking import link_photos
    from search.recurring.recurrence import recurring_objects

    wanted = None if name is None else _number_and_name(name)
    if wanted is not None and (merge or split):
        raise WaldoError("--name: not with --merge and --split, after which numbers differ")
    with ordinary_index_to_write(index) as target:
        if merge or split:
            _correct(target.folder, merge or [], split or [])
            target.push()
        with ProgressDisplay() as display:
            link_photos(target.folder, device, display.show, target.push)
        if wanted is not None:
            _keep(target, *wanted)
            return
        with IndexReader.open(target.folder) as reader:
            found = recurring_objects(reader)
    if html is not None:
        write_objects_page(found, html)
        say(f"page: {html.resolve()}")
    if json_output:
        print_json({"index_dir": target.name, "objects": [_as_json(one) for one in found]})
    else:
        _print_objects(found)


def _number_and_name(text: str) -> tuple[int, str]:
    """What N=NAME says. Raises WaldoError for another form, and for a name that cannot be one."""
    from features.errors import WaldoError
    from indexer.upkeep.naming import check_name

    number, equals, name = text.partition("=")
    if not equals or not _is_number(number):
        raise WaldoError(f"--name {text}: must be N=NAME, the number of an object and its name")
    check_name(name)
    return int(number), name


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _correct(index: Path, merge: list[str], split: list[str]) -> None:
    """Keep what is said with --merge and --split, all or nothing. Raises WaldoError for another
    form, and as `correct_objects`.
    """
    from features.errors import WaldoError
    from indexer.reader import IndexReader
    from search.albums.verdicts import find_photo
    from search.recurring.corrections import correct_objects

    merged = []
    for text in merge:
        numbers = text.split(",")
        if len(numbers) < 2 or not all(map(_is_number, numbers)):
            raise WaldoError(f"--merge {text}: must be N,N, the numbers of two objects or more")
        merged.append([int(number) for number in numbers])
    taken_out: dict[int, list[int]] = {}
    with IndexReader.open(index) as reader:
        for text in split:
            number, _, photo = text.partition("=")
            if not photo or not _is_number(number):
                raise WaldoError(
                    f"--split {text}: must be N=PHOTO, the number of an object and a photo"
                )
            taken_out.setdefault(int(number), []).append(find_photo(reader, photo).id)
    correct_objects(index, merged, taken_out)


def _keep(target: WrittenIndex, number: int, name: str) -> None:
    from indexer.reader import IndexReader
    from indexer.upkeep.naming import name_object
    from search.albums.filling import fill_albums
    from search.recurring.recurrence import as_named, find_among, recurring_objects

    with IndexReader.open(target.folder) as reader:
        found = find_among(recurring_objects(reader), number)
        named, fingerprint = as_named(reader, found, name), reader.fingerprint
    kept = name_object(target.folder, named, fingerprint)
    target.push()
    fill_albums(target.folder)
    say(f"kept as {name}: {len(kept.views)} photos in all; `waldo album` lists those that show it")


def _as_json(found: "RecurringObject") -> dict[str, object]:
    return {
        "number": found.number,
        "photos": [
            {
                "path": str(photo.record.path),
                "id": photo.record.id,
                "box": photo.box,
                "strength": photo.strength,
            }
            for photo in found.photos
        ],
    }


def _print_objects(found: "list[RecurringObject]") -> None:
    from rich.table import Table

    from search.commands.terminal.tables import in_one_line, shown_path

    table = Table(box=None, pad_edge=False)
    for title in ("object", "photos"):
        table.add_column(title, justify="right")
    table.add_column("box", no_wrap=True)
    table.add_column("of", overflow="fold")
    for one in found:
        path = one.cover.record.path
        # Programs that read a file or a pipe may run in another folder.
        shown = shown_path(path) if sys.stdout.isatty() else in_one_line(str(path))
        box = ",".join(map(str, one.cover.box))
        table.add_row(str(one.number), str(len(one.photos)), box, shown)
    if found:
        print_table(table)
    else:
        say("no object appears in two photos")

"""Objects with a name: `waldo name`, `named`, `rename`, `merge`, `forget`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.album_commands import fill_and_say
from search.commands.terminal.index_places import index_to_read, ordinary_index_to_write
from search.commands.terminal.option_values import object_in
from search.commands.terminal.options import (
    AlsoOption,
    BoxOption,
    ClassOption,
    DeviceOption,
    IndexOption,
    JsonOption,
    MaskOption,
    NotOption,
    PointOption,
)
from search.commands.terminal.printing import print_json, print_table, say

if TYPE_CHECKING:
    from indexer.named_objects import NamedObject


def name(
    object_name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the object.")],
    photo: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO", help="A photo of the object; or @NAME, all photos of another name."
        ),
    ],
    index: IndexOption,
    class_name: ClassOption = None,
    mask: MaskOption = None,
    box: BoxOption = None,
    point: PointOption = None,
    also: AlsoOption = None,
    unlike: NotOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Give an object a name: then `waldo query @NAME` looks for it, though the photo may be gone,
    and `waldo album NAME` has the photos that show it.

    Photos of a name that is known are added to it.
    """
    from indexer.upkeep.naming import check_name, name_object
    from search.commands.terminal.search_lists import with_others
    from search.index import open_index

    check_name(object_name)
    query = with_others(object_in(Path(photo), class_name, mask, box, point), also, unlike)
    with ordinary_index_to_write(index) as target:
        with open_index(target.folder, device) as opened:
            named, fingerprint = opened.object_named(object_name, query), opened.reader.fingerprint
        kept = name_object(target.folder, named, fingerprint)
        target.push()
        boxes = ", ".join(
            f"{','.join(map(str, view.maps.frame.box_of(view.cells)))} of {view.photo.name}"
            for view in named.views
        )
        say(f"kept as {object_name}: {boxes}; {_count(len(kept.views), 'photo')} in all")
        fill_and_say(target, object_name, device)


def named(index: IndexOption, json_output: JsonOption = False) -> None:
    """List the objects that the index knows by name."""
    from rich.table import Table

    from indexer.reader import IndexReader
    from search.albums.album import read_albums

    with (
        index_to_read(index, may_be_fleet=False) as folder,
        IndexReader.open(folder) as reader,
    ):
        objects = [reader.named(each) for each in reader.names]
        showing = {name: len(album.shown) for name, album in read_albums(reader).items()}
    if json_output:
        print_json({"named": [_as_json(each, showing[each.name]) for each in objects]})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "photos", "not", "shown by", "class", "of"):
        is_number = title in ("photos", "not", "shown by")
        table.add_column(title, justify="right" if is_number else "left")
    for each in objects:
        first = each.views[0]
        numbers = str(len(each.views)), str(len(each.unlike)), str(showing[each.name])
        table.add_row(each.name, *numbers, first.class_name or "", first.photo.name)
    print_table(table)
    if not objects:
        say("no names yet; `waldo name NAME PHOTO` adds one")


def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name that it has.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name that it gets.")],
    index: IndexOption,
) -> None:
    """Give a named object another name."""
    from indexer.upkeep.naming import rename_object

    with ordinary_index_to_write(index) as target:
        rename_object(target.folder, old.removeprefix("@"), new)


def merge(
    object_name: Annotated[str, typer.Argument(metavar="NAME", help="The name that stays.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The name that goes.")],
    index: IndexOption,
) -> None:
    """Make two names of one object one: all that is kept of the other is added to the first."""
    from indexer.upkeep.naming import merge_objects

    name = object_name.removeprefix("@")
    with ordinary_index_to_write(index) as target:
        merge_objects(target.folder, name, other.removeprefix("@"))
        target.push()
        fill_and_say(target, name)


def forget(
    object_name: Annotated[str, typer.Argument(metavar="NAME", help="The name to forget.")],
    index: IndexOption,
) -> None:
    """Forget a name and what is kept with it. Photos stay."""
    from indexer.upkeep.naming import forget_object

    with ordinary_index_to_write(index) as target:
        forget_object(target.folder, object_name.removeprefix("@"))


def _as_json(kept: "NamedObject", showing: int) -> dict[str, object]:
    return {
        "name": kept.name,
        "class": kept.views[0].class_name,
        "photos": [
            {"photo": str(view.photo), "box": view.maps.frame.box_of(view.cells)}
            for view in kept.views
        ],
        "not": [
            {"photo": str(view.photo), "box": view.maps.frame.box_of(view.cells)}
            for view in kept.unlike
        ],
        "yes": sum(one.shows for one in kept.verdicts),
        "no": sum(not one.shows for one in kept.verdicts),
        "shown_by": showing,
    }


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"

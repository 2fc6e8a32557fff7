"""What commands share: options, and what people and programs are told."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from features.descriptors import ImageDescriptor
    from indexer.store.manifest import Manifest
    from search.query import Query

IndexOption = Annotated[Path, typer.Option("--index", help="The index's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
ClassOption = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="What the object is: dog, car.")
]
MaskOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A picture that is white on the object.")
]
BoxOption = Annotated[
    str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around it, upright pixels.")
]
PointOption = Annotated[
    str | None, typer.Option(metavar="X,Y", help="A point on it, upright pixels.")
]


def say_error(message: str) -> None:
    say(f"error: {' '.join(message.split())}")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def print_table(table: Any) -> None:
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


def object_in(
    photo: Path, class_name: str | None, mask: Path | None, box: str | None, point: str | None
) -> "Query":
    from features.regions import Box, Point
    from search.query import Query

    corners: Box | None = None
    place: Point | None = None
    if box is not None:
        corners = _numbers("--box", box, "X0,Y0,X1,Y1")  # type: ignore[assignment]
    if point is not None:
        place = _numbers("--point", point, "X,Y")  # type: ignore[assignment]
    return Query(photo, class_name, mask, corners, place)


def load_descriptors(
    asked: list[str], stored: "Manifest | None", device: str, batch_size: int
) -> "list[ImageDescriptor]":
    """The descriptors that an index has, and those that are asked for beside them."""
    from features.descriptors import ImageDescriptor, descriptor_name

    has = {} if stored is None else {c.name: dict(c.fingerprint) for c in stored.descriptors}
    descriptors = []
    for name in dict.fromkeys([*has, *map(descriptor_name, asked)]):
        say(f"loading the descriptor {name}")
        if name in has:
            descriptors.append(ImageDescriptor.from_fingerprint(has[name], device, batch_size))
        else:
            descriptors.append(ImageDescriptor.load(name, device, batch_size))
    return descriptors


def check_codec(codec: str) -> None:
    from features.errors import WaldoError
    from indexer.codec.codec import QUALITIES

    if codec not in QUALITIES:
        raise WaldoError(f"--codec {codec}: no such codec; one of {', '.join(QUALITIES)}")

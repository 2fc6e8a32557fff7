"""What commands share: their options, how these are read, and how results are printed."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from features.descriptors import ImageDescriptor
    from features.extractor import FeatureExtractor
    from indexer.store.filters import PhotoFilter
    from indexer.store.manifest import Manifest
    from search.query import Query

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The names that a shell completes. They are repeated here, because the modules that hold the scores
# and the benchmarks import numpy; a test compares them.
SCORE_NAMES = (
    *("consistent", "fused", "late", "late-gated", "correspondence", "mutual", "maximum"),
    *("top-mean", "pdm", "appearance", "cosine", "semantic"),
)
SEARCH_BENCHMARKS = ("folders", "scenes", "permir", "roxford5k", "rparis6k")
OBJECT_BENCHMARKS = ("perseg", "permis", "davis2017")


def model_names() -> list[str]:
    """The names of the presets."""
    from features.diffusion.presets import PRESETS

    return list(PRESETS)


def class_names() -> list[str]:
    """The nouns that class names are expected to be."""
    from features.vocabulary import nouns

    return nouns()


def codec_names() -> list[str]:
    """The qualities in which maps can be stored."""
    from indexer.codec.quality import QUALITIES

    return list(QUALITIES)


IndexOption = Annotated[Path, typer.Option("--index", help="The folder of the index.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ModelOption = Annotated[
    str,
    typer.Option(
        autocompletion=model_names,
        help="A name from `waldo models`, a folder in diffusers' layout, or a hub id.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1, mps ...")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Photos per batch.")]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        autocompletion=class_names,
        help="What the object is: dog, car ...",
    ),
]
MaskOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A picture that is white on the object.")
]
BoxOption = Annotated[
    str | None,
    typer.Option(metavar="X0,Y0,X1,Y1", help="A box around the object, in upright pixels."),
]
PointOption = Annotated[
    str | None, typer.Option(metavar="X,Y", help="A point on the object, in upright pixels.")
]


def say(message: str) -> None:
    """Print a message for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def say_error(message: str) -> None:
    """Print an error as one line on standard error."""
    say(f"error: {' '.join(message.split())}")


def print_json(value: dict[str, Any]) -> None:
    """Print a result for programs: one JSON object on a line of its own."""
    print(json.dumps(value), flush=True)


def print_table(table: Any) -> None:
    """Print a rich table. In a file or a pipe it is not folded: a path must stay on its line."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)


def object_in(
    photo: Path, class_name: str | None, mask: Path | None, box: str | None, point: str | None
) -> "Query":
    """The object that --class, --mask, --box and --point show. Raises RegionError."""
    from search.query import Query

    corners = None if box is None else _numbers("--box", box, "X0,Y0,X1,Y1")
    place = None if point is None else _numbers("--point", point, "X,Y")
    return Query(photo, class_name, mask, corners, place)  # type: ignore[arg-type]


def _numbers(option: str, text: str, form: str) -> tuple[float, ...]:
    from features.errors import RegionError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.split(",")):
        raise RegionError(f"{option} {text}: must be {form}, in pixels")
    return values


def photo_filter(
    paths: list[str] | None, since: str | None, until: str | None
) -> "PhotoFilter | None":
    """The photos that --path, --since and --until allow; None for all. Raises WaldoError."""
    from indexer.store.filters import PhotoFilter

    given = paths or []
    # Relative paths are also taken as seen from the working directory.
    absolute = [str(Path(path).resolve()) for path in given if Path(path).exists()]
    wanted = PhotoFilter(
        tuple(dict.fromkeys([*given, *absolute])),
        None if since is None else _time_span("--since", since)[0],
        None if until is None else _time_span("--until", until)[1],
    )
    return None if wanted == PhotoFilter() else wanted


def _time_span(option: str, text: str) -> tuple[int, int]:
    """A year, month or day in UTC: its first nanosecond since 1970, and the first one after it."""
    from features.errors import WaldoError

    parts = text.split("-")
    try:
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(text)
        if [len(part) for part in parts] != [4, 2, 2][: len(parts)]:
            raise ValueError(text)
        year, month, day = (*map(int, parts), 1, 1)[:3]
        start = datetime(year, month, day, tzinfo=UTC)
        if len(parts) == 1:
            end = start.replace(year=year + 1)
        elif len(parts) == 2:
            end = start.replace(year=year + month // 12, month=month % 12 + 1)
        else:
            end = start + timedelta(days=1)
    except (ValueError, OverflowError):
        raise WaldoError(f"{option} {text}: must be YYYY, YYYY-MM or YYYY-MM-DD") from None
    first, after = ((at - _EPOCH) // timedelta(seconds=1) * 10**9 for at in (start, end))
    return first, after


def load_extractor(name: str, device: str, batch_size: int) -> "FeatureExtractor":
    """A model by its name; raises as `FeatureExtractor.load`."""
    from features.extractor import FeatureExtractor

    say(f"loading the model {name}")
    return FeatureExtractor.load(name, device, batch_size)


def load_descriptors(
    names: list[str], stored: "Manifest | None", device: str, batch_size: int
) -> "list[ImageDescriptor]":
    """The descriptors that an index has, and those that are asked for by name."""
    from features.descriptors import ImageDescriptor, descriptor_name

    has = {} if stored is None else {c.name: dict(c.fingerprint) for c in stored.descriptors}
    descriptors = []
    for name in dict.fromkeys([*has, *map(descriptor_name, names)]):
        say(f"loading the descriptor {name}")
        if name in has:
            descriptors.append(ImageDescriptor.from_fingerprint(has[name], device, batch_size))
        else:
            descriptors.append(ImageDescriptor.load(name, device, batch_size))
    return descriptors


def check_codec(codec: str) -> None:
    """Raise WaldoError for a --codec that does not exist."""
    from features.errors import WaldoError
    from indexer.codec.quality import QUALITIES

    if codec not in QUALITIES:
        raise WaldoError(f"--codec {codec}: no such codec; one of {', '.join(QUALITIES)}")

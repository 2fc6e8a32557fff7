"""What commands share: their options, how these are read, and how results are printed."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from features.models import MapExtractor
    from features.regions import Box
    from features.vision.descriptors import ImageDescriptor
    from indexer.ray_cluster import RayCluster
    from indexer.store.filters import PhotoFilter
    from indexer.store.manifest import Manifest
    from search.query import Query

# The names that a shell completes. They are repeated here, because the modules that hold the scores
# and the benchmarks import numpy; a test compares them.
SCORE_NAMES = (
    *("consistent", "fused", "late", "late-gated", "correspondence", "mutual", "maximum"),
    *("top-mean", "pdm", "appearance", "cosine", "semantic"),
)
SEARCH_BENCHMARKS = (
    *("folders", "scenes", "permir", "roxford5k", "rparis6k"),
    *("pods", "instre", "gldv2", "sop", "inshop", "ilias", "mini_ilias"),
)
OTHER_BENCHMARKS = (
    "ilias_text",
    "perseg",
    "permis",
    "pods_masks",
    "davis2017",
    "objects-folders",
    "objects-scenes",
)


def model_names() -> list[str]:
    """The names of the presets."""
    from features.diffusion.presets import PRESETS
    from features.vision.vision_presets import VISION_PRESETS

    return [*PRESETS, *VISION_PRESETS]


def class_names() -> list[str]:
    """The nouns that class names are expected to be."""
    from features.diffusion.vocabulary import nouns

    return nouns()


def codec_names() -> list[str]:
    """The qualities in which maps can be stored."""
    from indexer.codec.quality import QUALITIES

    return list(QUALITIES)


# The folder of an index where none is named, and the groups of options in a help text.
INDEX_NAME = ".waldo"
INDEX_VARIABLE = "WALDO_INDEX"
OBJECT = "The object"
ANSWER = "The answer"
SEARCHED = "The photos that are searched"
EXPERTS = "For experts"


def nearest_index() -> Path:
    """The folder `.waldo` here or in the nearest folder above; the one here where there is none."""
    here = Path.cwd()
    above = (folder / INDEX_NAME for folder in here.parents)
    found = next((index for index in above if index.is_dir()), None)
    return Path(INDEX_NAME) if found is None or Path(INDEX_NAME).is_dir() else found


def default_index() -> str:
    """What --index is where it is not given: the variable's, else `nearest_index`."""
    return os.environ.get(INDEX_VARIABLE) or str(nearest_index())


def _default_indexes() -> list[Path]:
    """As `default_index`, where --index may be repeated. A variable has one index: a path may hold
    any sign that could part several.
    """
    return [Path(default_index())]


def _needs_faiss(context: typer.Context, index: Any) -> Any:
    """Raise ModuleNotFoundError at once where FAISS is missing, and not after hours of work."""
    if find_spec("faiss") is None and not context.resilient_parsing:
        raise ModuleNotFoundError(name="faiss")
    return index


def cluster_of(
    ray: str | None, device: str = "auto", workers: int | None = None
) -> "RayCluster | None":
    """The cluster that --ray names; None where it is not given.

    device, workers: as in `RayCluster`. Raises ClusterError where ray is missing, or where nobody
    answers at the address.
    """
    from indexer.ray_cluster import RayCluster

    if ray is None:
        return None
    cluster = RayCluster(ray, device, workers)
    cluster.check()
    return cluster


# `index_places.py` beside this gives the folder to work in.
IndexOption = Annotated[
    Path,
    typer.Option(
        "--index",
        metavar="DIR|URL",
        envvar=INDEX_VARIABLE,
        default_factory=nearest_index,
        show_default=False,
        callback=_needs_faiss,
        help="The folder of the index, or its address in a bucket. Default: the nearest .waldo, "
        "here or in a folder above.",
    ),
]
IndexesOption = Annotated[
    list[Path],
    typer.Option(
        "--index",
        metavar="DIR|URL",
        default_factory=_default_indexes,
        show_default=False,
        callback=_needs_faiss,
        help="The folder of the index, or its address in a bucket. Default: $WALDO_INDEX, or the "
        "nearest .waldo, here or in a folder above. Repeated: indexes of the same photos by other "
        "models, which rank together.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=model_names,
        help="A name from `waldo models`, a folder, or a hub id.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=EXPERTS,
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps ...",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(metavar="N", min=1, rich_help_panel=EXPERTS, help="Photos per batch.")
]
PartsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=EXPERTS,
        help="Make a fleet: N indexes that are searched as one, for very large collections.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        rich_help_panel=EXPERTS,
        help="Have workers on a Ray cluster do the work on the parts of a fleet: on that at an "
        "address, or, with auto, on that of this machine, which is started where there is none.",
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        autocompletion=class_names,
        rich_help_panel=OBJECT,
        help="What the object is: dog, car ...",
    ),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=OBJECT, help="A picture that is white on the object."
    ),
]
BoxOption = Annotated[
    str | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        rich_help_panel=OBJECT,
        help="Two opposite corners of a box around the object, in upright pixels.",
    ),
]
PointOption = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y", rich_help_panel=OBJECT, help="A point on the object, in upright pixels."
    ),
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="PHOTO[@REGION]",
        rich_help_panel=OBJECT,
        help="Another photo of the same object, and where the object is: X0,Y0,X1,Y1 or X,Y "
        "or the file of a mask. Without a region the class name selects it. May be repeated.",
    ),
]
NotOption = Annotated[
    list[str] | None,
    typer.Option(
        "--not",
        metavar="PHOTO[@REGION]",
        rich_help_panel=OBJECT,
        help="Another object, which is not looked for however similar it is. May be repeated.",
    ),
]
MinConfidenceOption = Annotated[
    float | None,
    typer.Option(
        metavar="C",
        rich_help_panel=ANSWER,
        help="Leave out matches of less confidence, from 0 to 1. Of searches for an object that no "
        "photo shows, a share of about 1 - C still finds something.",
    ),
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
    from search.query import Query, photo_of

    corners = None if box is None else _numbers("--box", box, "X0,Y0,X1,Y1")
    place = None if point is None else _numbers("--point", point, "X,Y")
    region = None if corners is None else box_of(*corners)
    return Query(photo_of(photo), class_name, mask, region, place)  # type: ignore[arg-type]


def box_of(x0: float, y0: float, x1: float, y1: float) -> "Box":
    """The box between two opposite corners, whichever they are.

    Raises RegionError for a box within the first pixel, which is meant as shares of the photo.
    """
    from features.errors import RegionError

    if min(x0, y0, x1, y1) >= 0 and max(x0, y0, x1, y1) <= 1:
        raise RegionError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g} lies within one pixel; give pixels of the upright "
            "photo, not shares of its width and height"
        )
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def check_confidence(least: float | None) -> None:
    """Raise WaldoError for a --min-confidence that is no share."""
    from features.errors import WaldoError

    if least is None or 0 <= least <= 1:
        return
    percent = f"; {least:g} % is {least / 100:g}" if 1 < least <= 100 else ""
    raise WaldoError(f"--min-confidence {least:g}: must be from 0 to 1{percent}")


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
    from indexer.store.filters import PhotoFilter, time_span

    given = paths or []
    # Relative paths are also taken as seen from the working directory.
    absolute = [str(Path(path).resolve()) for path in given if Path(path).exists()]
    wanted = PhotoFilter(
        tuple(dict.fromkeys([*given, *absolute])),
        None if since is None else time_span("--since", since)[0],
        None if until is None else time_span("--until", until)[1],
    )
    return None if wanted == PhotoFilter() else wanted


def load_extractor(name: str, device: str, batch_size: int) -> "MapExtractor":
    """A model by its name; raises as `find_extractor`."""
    from features.models import find_extractor

    say(f"loading the model {name}")
    return find_extractor(name, device, batch_size)


def load_descriptors(
    names: list[str], stored: "Manifest | None", device: str, batch_size: int
) -> "list[ImageDescriptor]":
    """The descriptors that an index has, and those that are asked for by name."""
    from features.vision.descriptors import ImageDescriptor, descriptor_name

    has = {} if stored is None else {c.name: dict(c.fingerprint) for c in stored.descriptors}
    descriptors = []
    for name in dict.fromkeys([*has, *map(descriptor_name, names)]):
        say(f"loading the descriptor {name}")
        if name in has:
            descriptors.append(ImageDescriptor.from_fingerprint(has[name], device, batch_size))
        else:
            descriptors.append(ImageDescriptor.load(name, device, batch_size))
    return descriptors


def given_settings(context: typer.Context, but: tuple[str, ...]) -> list[str]:
    """What of a command's arguments and options was given, as people write it. but: the names of
    others.
    """
    found = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in but and source is not None and source.name != "DEFAULT":
            is_option = parameter.opts[0].startswith("-")
            found.append(parameter.opts[0] if is_option else str(parameter.metavar))
    return found


def check_codec(codec: str) -> None:
    """Raise WaldoError for a --codec that does not exist."""
    from features.errors import WaldoError
    from indexer.codec.quality import QUALITIES

    if codec not in QUALITIES:
        raise WaldoError(f"--codec {codec}: no such codec; one of {', '.join(QUALITIES)}")

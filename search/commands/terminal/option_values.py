"""What the values of options stand for: objects, filters, models and clusters. Values that stand
for nothing are refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from search.commands.terminal.printing import say

if TYPE_CHECKING:
    from features.models import MapExtractor
    from features.regions import Box
    from features.vision.descriptors import ImageDescriptor
    from indexer.ray_cluster import RayCluster
    from indexer.store.filters import PhotoFilter
    from indexer.store.manifest import Manifest
    from search.query import Query


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


def _numbers(option: str, text: str, form: str) -> tuple[float, ...]:
    from features.errors import RegionError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.split(",")):
        raise RegionError(f"{option} {text}: must be {form}, in pixels")
    return values

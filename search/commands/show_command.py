"""`waldo show`: what is taken as the object, and what the model makes of photos."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.index_places import index_to_read
from search.commands.terminal.option_values import load_extractor, object_in
from search.commands.terminal.options import (
    BoxOption,
    ClassOption,
    DeviceOption,
    MaskOption,
    PointOption,
    model_names,
)
from search.commands.terminal.printing import say_error

if TYPE_CHECKING:
    from features.models import MapExtractor
    from search.query import Query
    from search.reference import Reference

_FORMATS = (".html", ".png")


def show(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="The photos to show, side by side.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The picture (.png) or page (.html) to write.")
    ],
    class_name: ClassOption = None,
    mask: MaskOption = None,
    box: BoxOption = None,
    point: PointOption = None,
    timestep: Annotated[
        list[int] | None,
        typer.Option(
            metavar="T",
            min=0,
            max=999,
            help="Show the features of this timestep; may be repeated. Default: the model's own.",
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|URL",
            help="Show what a search of this index takes as the object, by its model.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=model_names,
            help="The model, as for `waldo index`. Default: that of the index, or tiny.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show what is taken as the object, and the model's appearance and class maps."""
    from search.commands.pages.features_page import write_figures
    from search.presentation.feature_pictures import feature_figures

    queries = [object_in(photo, class_name, mask, box, point) for photo in photos]
    _check(queries, out)
    with _model(index, model, device, len(photos)) as (extractor, preview):
        shown, failures = feature_figures(queries, extractor, preview, timestep or ())
    for failure in failures:
        say_error(str(failure))
    if shown:
        write_figures(shown, out)
        print(f"to look at: {out}")
    if failures:
        raise typer.Exit(2)


def _check(queries: "list[Query]", out: Path) -> None:
    """Raise WaldoError for arguments that do not go together."""
    from features.errors import RegionError, WaldoError

    if out.suffix.lower() not in _FORMATS:
        raise WaldoError(f"--out {out}: must end in {' or '.join(_FORMATS)}")
    files = [file for query in queries for file in (query.photo, query.mask) if file is not None]
    if out.resolve() in {file.resolve() for file in files}:
        raise WaldoError(f"--out {out}: is a photo to show; choose another file")
    first = queries[0]
    if len(queries) > 1 and (first.box, first.point, first.mask) != (None, None, None):
        raise RegionError("--box, --point and --mask show the object of one photo; give one photo")


@contextmanager
def _model(
    index: Path | None, model: str | None, device: str, count: int
) -> "Iterator[tuple[MapExtractor, Callable[[Query], Reference]]]":
    """The extractor, and what tells the object in a photo. count: the number of photos."""
    from functools import partial

    from features.errors import WaldoError
    from features.models import extractor_of
    from indexer.fleet.fleet_reader import open_collection
    from search.index import Index
    from search.reference import make_reference

    if index is None:
        extractor = load_extractor(model or "tiny", device, batch_size=max(1, min(8, count)))
        yield extractor, partial(make_reference, extractor=extractor)
        return
    if model is not None:
        raise WaldoError("--model and --index: an index has its own model; give one of them")
    with index_to_read(index) as folder, open_collection(folder) as reader:
        extractor = extractor_of(reader.fingerprint, device)
        yield extractor, Index(reader, extractor).preview

"""What a model makes of photos, in pictures: appearance maps, class maps, and the object."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError, WaldoError
from features.maps import FeatureMaps
from features.models import MapExtractor
from features.photo import ModelInput, load_model_input
from search.query import Query
from search.reference import Reference, read_query_photo
from search.segmentation.overlay import heatmap_over, mask_over, size_of, thumbnail

# The longer side of a picture, in pixels.
LONGEST = 640
# The shares of all cells at which a colour is darkest and brightest, in percent.
_DARKEST, _BRIGHTEST = 1, 99


@dataclass(frozen=True)
class Figure:
    """A picture, and in words what it shows."""

    caption: str
    picture: Image.Image


@dataclass(frozen=True)
class PhotoFigures:
    """A photo's file, and what a model makes of it in figures of one size.

    These are the photo; where an object is asked for, the photo with all but the object faded; then
    for each timestep the appearance map and, where there is a class name, the class map.
    """

    path: Path
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Seen:
    """A photo that was read. picture: small. object: None where none is asked for."""

    query: Query
    picture: Image.Image
    input: ModelInput
    object: Reference | None


def principal_components(maps: Sequence[FeatureMaps], longest: int) -> list[Image.Image]:
    """Appearance maps as colours: the first three principal components of F_A in red, green, blue.

    The components and the scale of the colours are those of all maps together, so that equal
    colours stand for like cells also across photos and timesteps (PDM, Figure 2).

    maps: at least one, of one d >= 3. longest: the pixels along a picture's longer side, which is
    in the photo's proportions.
    """
    cells = np.concatenate([each.valid_cells(each.appearance) for each in maps]).astype(np.float64)
    mean = cells.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(cells - mean, rowvar=False, bias=True))
    axes = axes[:, :-4:-1]  # eigenvalues ascend
    # An axis and its opposite are as good; so that colours are the same on every machine.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(3)])
    low, high = np.percentile((cells - mean) @ axes, [_DARKEST, _BRIGHTEST], axis=0)
    pictures = []
    for each in maps:
        values = ((each.appearance - mean) @ axes - low) / np.maximum(high - low, 1e-12)
        size = size_of(each.frame, longest)
        drawn = [each.frame.to_photo(values[..., channel], *size) for channel in range(3)]
        colours = 255 * np.clip(np.dstack(drawn), 0.0, 1.0)
        pictures.append(Image.fromarray(colours.round().astype(np.uint8)))
    return pictures


def class_map(
    maps: FeatureMaps, class_vector: NDArray[np.float32], picture: Image.Image
) -> Image.Image:
    """F_S C^T (PDM Eq. 6) in colour over the photo in grey, from its median (dark) to its peak.

    class_vector: C, (d,) float32. picture: the photo, of any size.
    """
    return heatmap_over(picture, maps.semantic.astype(np.float32) @ class_vector, maps.frame)


def feature_figures(
    queries: Sequence[Query],
    extractor: MapExtractor,
    preview: Callable[[Query], Reference],
    timesteps: Sequence[int] = (),
) -> tuple[list[PhotoFigures], list[WaldoError]]:
    """What a model makes of photos, and an error for each photo that cannot be shown.

    queries: photos and the object in each; a query may have none. preview: what is taken as the
    object, such as `Index.preview`. timesteps: 0..999, at which features are taken; without any,
    the extractor's own. The colours of appearance maps can be compared among all photos and
    timesteps. Raises ModelError where the model cannot be used.
    """
    seen: list[_Seen] = []
    failures: list[WaldoError] = []
    # All photos are read and checked before the model is loaded for the first of them.
    for query in queries:
        try:
            seen.append(_read(query, extractor))
        except WaldoError as error:
            failures.append(error)
    ready: list[_Seen] = []
    for one in seen:
        try:
            ready.append(replace(one, object=preview(one.query)) if _has_object(one.query) else one)
        except WaldoError as error:
            failures.append(error)
    if not ready:
        return [], failures
    steps = list(dict.fromkeys(timesteps))
    extractors = [extractor.changed(timestep=step) for step in steps] or [extractor]
    maps = [_maps_of(ready, each) for each in extractors]
    appearance = iter(principal_components([each for some in maps for each in some], LONGEST))
    colours = [[next(appearance) for _ in some] for some in maps]
    names = [f", timestep {step}" for step in steps] or [""]
    return [
        PhotoFigures(
            one.query.photo,
            tuple(
                _figures(one, names, [step[row] for step in maps], [step[row] for step in colours])
            ),
        )
        for row, one in enumerate(ready)
    ], failures


def _has_object(query: Query) -> bool:
    return (query.class_name, query.mask, query.box, query.point) != (None, None, None, None)


def _read(query: Query, extractor: MapExtractor) -> _Seen:
    """Raises WaldoError for a photo that cannot be read, and for a region that does not fit it."""
    if _has_object(query):
        photo = read_query_photo([query], extractor).input
    else:
        photo = load_model_input(query.photo, extractor.image_size, extractor.grid)
    return _Seen(query, thumbnail(query.photo, LONGEST), photo, None)


def _maps_of(seen: Sequence[_Seen], extractor: MapExtractor) -> list[FeatureMaps]:
    """The photos' features."""
    maps = extractor.extract([one.input for one in seen])
    for one, each in zip(seen, maps, strict=True):
        if not each.is_finite:
            raise ModelError(f"{one.query.photo}: the model gave no finite features for it")
    return maps


def _figures(
    seen: _Seen,
    names: Sequence[str],
    maps: Sequence[FeatureMaps],
    colours: Sequence[Image.Image],
) -> Iterator[Figure]:
    """names, maps, colours: by timestep."""
    yield Figure(seen.query.photo.name, seen.picture)
    found = seen.object
    if found is not None:
        faded = mask_over(seen.picture, found.cells, found.maps.frame)
        yield Figure("taken as the object", faded)
    for name, each, drawn in zip(names, maps, colours, strict=True):
        yield Figure(f"appearance{name}", drawn.resize(seen.picture.size))
        if found is not None and found.class_vector is not None:
            what = f"class map of {seen.query.class_name!r}{name}"
            yield Figure(what, class_map(each, found.class_vector, seen.picture))

"""A query's side of recall by a global descriptor."""

from dataclasses import replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from features.descriptors import ImageDescriptor
from features.errors import ModelError
from features.photo import Photo, load_photo
from search.query import Query
from search.reference import Reference


def query_vector(
    query: Query, reference: Reference, descriptor: ImageDescriptor
) -> NDArray[np.float32]:
    """The descriptor of a query, (d,) float32: of the box around its region, or, where a class name
    alone says what is meant, of the whole photo.

    Raises PhotoError for a broken photo, ModelError where the model gives no finite numbers.
    """
    [vector] = descriptor.describe([descriptor.prepare(_shown(query, reference))])
    if not np.isfinite(vector).all():
        raise ModelError(f"{query.photo}: {descriptor.name} gave no finite numbers for it")
    return vector


def _shown(query: Query, reference: Reference) -> Photo:
    """What of a query's photo is described."""
    frame = reference.maps.frame
    box = query.box
    if query.mask is not None or query.point is not None:
        box = frame.box_of(reference.cells)
    if box is None or box == (0, 0, frame.width, frame.height):
        return load_photo(query.photo, at_least=2 * frame.size)  # as when it is indexed
    photo = load_photo(query.photo)
    x0, y0, x1, y1 = floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3])
    return replace(photo, image=photo.image.crop((x0, y0, x1, y1)), width=x1 - x0, height=y1 - y0)

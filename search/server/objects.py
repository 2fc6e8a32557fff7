"""From what is asked for to a query: which file is the photo, and where in it is the object."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from features.frame import Frame
from features.regions import Box
from search.index import Index
from search.query import NAME_MARK, Query
from search.reference import Reference
from search.server.listing import unchanged_photo
from search.server.request_bodies import ObjectRequest, SearchRequest
from search.server.uploads import Uploads

# The longer side of a mask that is drawn for an object with areas added or removed, pixels.
_MASK_SIDE = 1024
# How much the ratio of its sides may differ from the photo's; `load_mask` refuses twice as much.
_SAME_SHAPE = 0.005


def to_query(asked: SearchRequest, index: Index, uploads: Uploads, scratch: Path) -> Query:
    """The query of a search. scratch: a folder for masks, needed until the query is answered.

    Raises RequestError for a photo that is not there, and what `Index.preview` raises.
    """
    query, *others = (
        to_view(one, index, uploads, scratch) for one in (asked.object, *asked.also, *asked.unlike)
    )
    count = len(asked.also)
    return replace(query, also=tuple(others[:count]), unlike=tuple(others[count:]))


def to_view(asked: ObjectRequest, index: Index, uploads: Uploads, scratch: Path) -> Query:
    """The query for one object alone; as `to_query`."""
    if isinstance(asked.photo, int):
        photo = unchanged_photo(index.reader, asked.photo).path
    elif asked.photo.startswith(NAME_MARK):
        photo = Path(asked.photo)
    else:
        photo = uploads.get(asked.photo).path
    query = Query(photo, asked.class_name, box=asked.box, point=asked.point)
    if not asked.add and not asked.remove:
        return query
    mask = edited_mask(index.preview(query), asked.add, asked.remove)
    file = scratch / f"{len(list(scratch.iterdir()))}.png"
    mask.save(file)
    return replace(query, mask=file, box=None, point=None)


def edited_mask(reference: Reference, add: tuple[Box, ...], remove: tuple[Box, ...]) -> Image.Image:
    """A mask of what was taken as the object, with areas of the photo added, then others removed.

    Its longer side has at most 1,024 pixels, but for a photo so thin that its shape would be lost.
    """
    frame = reference.maps.frame
    scale = min(1.0, _MASK_SIDE / max(frame.width, frame.height))
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    ratio = size[0] / size[1] / (frame.width / frame.height)
    if abs(ratio - 1) > _SAME_SHAPE:
        size = frame.width, frame.height
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    for boxes, value in ((cell_boxes(reference.cells, frame), 1), (add, 1), (remove, 0)):
        for x0, y0, x1, y1 in boxes:
            left, top = x0 * size[0] / frame.width, y0 * size[1] / frame.height
            right, bottom = x1 * size[0] / frame.width, y1 * size[1] / frame.height
            # Pillow's rectangles include their last row and column.
            corners = round(left), round(top), round(right) - 1, round(bottom) - 1
            if corners[0] <= corners[2] and corners[1] <= corners[3]:
                draw.rectangle(corners, fill=value)
    return mask


def cell_boxes(cells: NDArray[np.bool_], frame: Frame) -> list[tuple[int, int, int, int]]:
    """Selected cells as boxes, one per run of cells in a row; pixels of the upright photo.

    cells: (grid, grid) bool.
    """
    boxes = []
    for row in np.flatnonzero(cells[: frame.rows].any(axis=1)).tolist():
        columns = np.flatnonzero(cells[row, : frame.cols])
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            part = np.zeros_like(cells)
            part[row, run] = True
            boxes.append(frame.box_of(part))
    return boxes

"""The objects of a collection that appear in two photos or more."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.frame import Frame
from indexer.collection import PhotoRecord
from indexer.named_objects import NamedObject, NamedView
from indexer.object_corrections import read_corrections
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks
from search.albums.contents import Contents
from search.recurring.clusters import average_linkage, join_overlapping
from search.recurring.corrected import corrected
from search.recurring.linking import stored_links
from search.reference import decoded_maps

# The mean strength of links within an object, and the share of its photos that another must have
# for both to be one (docs/scores.md).
LEAST_MEAN = 1.75
_SAME_PHOTOS = 0.5
# The photos of an object that are kept with a name: each of them is asked with by every search.
_MOST_VIEWS = 5


@dataclass(frozen=True)
class ObjectPhoto:
    """A photo that shows a recurring object. cells: (grid, grid) bool, where. box: [x0, y0, x1, y1]
    around them, in pixels of the upright photo. strength: the sum of the links of these cells with
    the object's other photos; the cover of an object has the largest.
    """

    record: PhotoRecord
    cells: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    strength: float


@dataclass(frozen=True)
class RecurringObject:
    """An object in two photos or more. number: 1 for the object with most photos; numbers stay as
    long as the photos of the index do. photos: the strongest first, which is the object's cover.
    """

    number: int
    photos: tuple[ObjectPhoto, ...]

    @property
    def cover(self) -> ObjectPhoto:
        return self.photos[0]


def recurring_objects(reader: IndexReader) -> list[RecurringObject]:
    """The objects that recur, by falling number of photos, as far as `link_photos` has come, and as
    people corrected them.

    Raises IndexDamagedError.
    """
    links = stored_links(reader)
    ids = Contents.of(reader).find(links.contents)
    file = reader.manifest.corrections
    said = () if file is None else read_corrections(reader.index_dir / file.name)
    objects = corrected(regions_of_objects(links), links, said)
    found = [_photos_of(reader, links, ids, regions) for regions in objects]
    found.sort(key=lambda photos: (-len(photos), photos[0].record.id, photos[0].box))
    return [RecurringObject(number, photos) for number, photos in enumerate(found, start=1)]


def regions_of_objects(links: RegionLinks) -> list[list[int]]:
    """The regions that show each object.

    Links are divided by average linkage, so that a chain of weak links joins no two objects. What
    is in the same photos as another object is a part of it.
    """
    groups = average_linkage(len(links.photos), links.pairs, links.strengths, LEAST_MEAN)
    photos = [set(links.photos[group].tolist()) for group in groups]
    places = [place for place, found in enumerate(photos) if len(found) > 1]
    joined = join_overlapping([photos[place] for place in places], _SAME_PHOTOS)
    return [sorted(r for n in numbers for r in groups[places[n]]) for numbers in joined]


def find_among(found: Sequence[RecurringObject], number: int) -> RecurringObject:
    """One of all recurring objects by its number. Raises WaldoError for a number that none has."""
    if not 1 <= number <= len(found):
        raise WaldoError(f"object {number}: there are {len(found)} recurring objects")
    return found[number - 1]


def as_named(reader: IndexReader, found: RecurringObject, name: str) -> NamedObject:
    """What is to be kept of a recurring object under a name, which `name_object` in
    `indexer.upkeep.naming` then does: its five strongest photos. Raises IndexDamagedError.
    """
    views = []
    for photo in found.photos[:_MOST_VIEWS]:
        maps = decoded_maps(reader, photo.record.id)
        if maps is not None:
            views.append(NamedView(photo.record.path, maps, photo.cells, None, None))
    if not views:
        raise WaldoError(f"object {found.number}: the maps of its photos are damaged")
    return NamedObject(name, tuple(views))


def _photos_of(
    reader: IndexReader, links: RegionLinks, ids: NDArray[np.int64], regions: list[int]
) -> tuple[ObjectPhoto, ...]:
    """The photos of an object. regions: that show it; those of one photo become one."""
    inside = np.isin(links.pairs, regions).all(axis=1)
    strength: dict[int, float] = defaultdict(float)
    cells: dict[int, NDArray[np.bool_]] = {}
    for pair, value in zip(links.pairs[inside], links.strengths[inside].tolist(), strict=True):
        for row in links.photos[pair].tolist():
            strength[row] += value
    for region in regions:
        row = int(links.photos[region])
        cells[row] = cells.get(row, np.zeros(reader.grid**2, bool)) | links.cells[region]
    rows = sorted(cells, key=lambda row: (-strength[row], int(ids[row])))
    photos = []
    for row, record in zip(rows, reader.photos(ids[rows]), strict=True):
        shape = cells[row].reshape(reader.grid, reader.grid)
        box = _frame(reader, record).box_of(shape)
        photos.append(ObjectPhoto(record, shape, box, strength[row]))
    return tuple(photos)


def _frame(reader: IndexReader, record: PhotoRecord) -> Frame:
    return Frame(record.width, record.height, reader.image_size, reader.grid)

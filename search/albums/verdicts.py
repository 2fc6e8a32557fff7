"""What people say of photos, as a name keeps it: with the place of the object in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError, WaldoError
from features.regions import Box, box_cells, check_box
from indexer.collection import PhotoRecord
from indexer.named_objects import NamedObject, NamedView, Verdict
from indexer.reader import IndexReader
from indexer.upkeep.naming import record_verdicts
from search.albums.comparing import ComparedName, Comparison
from search.albums.known_photos import KnownPhotos
from search.reference import decoded_maps


@dataclass(frozen=True)
class Said:
    """What a person says of a photo of the index. id: of the photo. shows: whether it shows the
    object. box: where, [x0, y0, x1, y1] in pixels of the upright photo; None where the object is
    found.
    """

    id: int
    shows: bool
    box: Box | None = None


def say_of_photos(
    index_dir: Path, name: str, said: Sequence[Said], device: str = "cpu"
) -> NamedObject:
    """Keep what a person says of photos, in one commit; what is said last of a photo holds.

    The place that is meant becomes a reference of the name, or something that it is told apart
    from. Nothing is compared anew: `fill_albums` does that. No model is needed. Returns the object
    as it is kept. Raises WaldoError for a name that is not known, for a photo that is not in the
    index, was changed since it was indexed, has damaged maps, or by which the object was named, and
    for yes and no to one photo; RegionError for a box that does not fit its photo; and as
    `record_verdicts`.
    """
    with IndexReader.open(index_dir) as reader:
        named = reader.named(name)
        comparison = Comparison(reader, device)
        verdicts = _verdicts(reader, comparison, named, said)
        return record_verdicts(index_dir, name, verdicts, reader.fingerprint)


def find_photo(reader: IndexReader, text: str) -> PhotoRecord:
    """The photo of an index that a path means, or the number of its id. Raises WaldoError."""
    return reader.photos([KnownPhotos(reader).find(text)])[0]


def _verdicts(
    reader: IndexReader, comparison: Comparison, named: NamedObject, said: Sequence[Said]
) -> list[Verdict]:
    compared = ComparedName.of(named, comparison.device)
    own = {view.maps.content_hash for view in named.views}
    records = dict(zip((one.id for one in said), _records(reader, said), strict=True))
    found = _found(reader, comparison, compared, [one.id for one in said if one.box is None])
    verdicts = []
    for one in said:
        record = records[one.id]
        if record.content_hash in own:
            if one.shows:
                continue  # as everybody knows
            raise WaldoError(
                f"{record.path}: {named.name} was named by this photo; `waldo forget` the name, "
                "and name the object again"
            )
        maps = decoded_maps(reader, one.id)
        if maps is None:
            raise WaldoError(
                f"{record.path}: its maps are damaged; run `waldo index` again over it"
            )
        cells = found.get(one.id)
        if one.box is not None:
            try:
                check_box(maps.frame, one.box)
                cells = box_cells(maps, one.box)
            except RegionError as error:
                raise RegionError(f"{record.path}: {error}") from None
        assert cells is not None  # maps that can be read are searched
        first = named.views[0]
        view = NamedView(record.path, maps, cells, first.class_name, first.class_vector)
        box = maps.frame.box_of(cells) if one.box is None else _rounded(one.box)
        verdicts.append(Verdict(record.path, record.content_hash, one.shows, view, box))
    return verdicts


def _rounded(box: Box) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    return floor(x0), floor(y0), ceil(x1), ceil(y1)


def _records(reader: IndexReader, said: Sequence[Said]) -> list[PhotoRecord]:
    """The photos that something is said of. Raises WaldoError where it cannot be said of them."""
    try:
        records = reader.photos([one.id for one in said])
    except KeyError as error:
        raise WaldoError(f"{reader.place}: {error.args[0]}") from None
    shows: dict[str, bool] = {}
    for record, one in zip(records, said, strict=True):
        if record.is_changed():
            raise WaldoError(f"{record.path}: was changed since it was indexed; run `waldo index`")
        if shows.setdefault(record.content_hash, one.shows) != one.shows:
            raise WaldoError(f"{record.path}: both yes and no were said of it")
    return records


def _found(
    reader: IndexReader, comparison: Comparison, name: ComparedName, ids: Sequence[int]
) -> dict[int, NDArray[np.bool_]]:
    """The cells of the object in each photo, by its id; photos with damaged maps are left out."""
    if not ids:
        return {}
    wanted = np.unique(np.array(ids, np.int64))
    sound, cells = comparison.place(name, wanted, comparison.likest(name, wanted))
    return dict(zip(sound.tolist(), cells, strict=True))

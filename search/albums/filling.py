"""Filling albums: photos and names that are new are compared, and what is found is stored."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from indexer.errors import IndexBusyError, IndexMissingError
from indexer.named_objects import NameSummary, read_name_summary
from indexer.reader import IndexReader
from indexer.store.album_rows import AlbumRows, Albums, StoredAlbum, stored_albums
from indexer.store.manifest import NameRecord
from indexer.upkeep.album_commit import commit_albums
from search.albums.album import LEAST_PROBABILITY, assess, said_of
from search.albums.comparing import ComparedName, Comparison
from search.albums.contents import Contents
from search.scoring.fusion import weights_of

# Changed where scores would come out otherwise, so that stored ones are made again.
_VERSION = 1


@dataclass(frozen=True)
class _Work:
    """What an album lacks. rows: what is kept of it, without photos that are gone. ids, sample:
    photos to be compared, rising.
    """

    record: NameRecord
    rows: AlbumRows
    ids: NDArray[np.int64]
    sample: NDArray[np.int64]
    has_changed: bool

    @property
    def is_something(self) -> bool:
        return self.has_changed or len(self.ids) > 0 or len(self.sample) > 0


def fill_albums(index_dir: Path, device: str = "cpu") -> int:
    """Compare photos that are new with the object of each name, and the objects of new names with
    all photos; returns how many names were compared. One commit, or none where nothing is new.

    Nothing is loaded or compared where the index knows no name, and no model is needed. device: the
    torch device that compares. Raises IndexFormatError, IndexDamagedError, IndexBusyError,
    IndexWriteError.
    """
    try:
        reader = IndexReader.open(index_dir)
    except IndexMissingError:
        return 0  # the last photo was removed
    with reader:
        if not reader.names:
            return 0
        basis = _basis(reader)
        contents = Contents.of(reader)
        stored = stored_albums(index_dir, reader.manifest)
        known = dict(stored.by_object) if stored and stored.basis == basis else {}
        work = [_work(reader, record, known, contents) for record in reader.manifest.names]
        work = [one for one in work if one.is_something]
        if not work:
            return 0
        filled = _fill(reader, Comparison(reader, device), work, contents)
    commit_albums(index_dir, Albums(basis, filled))
    return len(work)


def fill_unless_busy(index_dir: Path, device: str = "cpu") -> bool:
    """`fill_albums` after something was kept, which holds whether albums follow or not. False where
    another run writes at this moment, so that they follow with the next one that compares photos.
    """
    try:
        fill_albums(index_dir, device)
    except IndexBusyError:
        return False
    return True


def _basis(reader: IndexReader) -> dict[str, object]:
    """What scores depend on besides names and photos."""
    codecs = [file.sha256 for file in reader.manifest.codecs[:1]]
    return {"version": _VERSION, "weights": asdict(weights_of(reader)), "codecs": codecs}


def _work(
    reader: IndexReader, record: NameRecord, known: dict[str, StoredAlbum], contents: Contents
) -> _Work:
    album = known.get(record.file.name)
    rows = AlbumRows.none() if album is None else album.rows
    kept = rows.select(contents.find(rows.contents) >= 0)
    covers = 0 if album is None else album.covers
    ids = np.sort(contents.ids[contents.ids >= covers])
    in_rows = np.isin(contents.sample, contents.find(kept.contents))
    sample = np.sort(contents.sample[~in_rows])
    return _Work(record, kept, ids, sample, album is None or len(kept) < len(rows))


def _fill(
    reader: IndexReader, comparison: Comparison, work: Sequence[_Work], contents: Contents
) -> dict[str, StoredAlbum]:
    """The albums after the work, by the file of each name."""
    alike: dict[tuple[bytes, bytes], list[_Work]] = defaultdict(list)
    for one in work:
        alike[one.ids.tobytes(), one.sample.tobytes()].append(one)
    filled = {}
    for group in alike.values():
        names = [ComparedName.of(reader.named(o.record.name), comparison.device) for o in group]
        found = comparison.compare(names, group[0].ids, group[0].sample)
        # Photos that are damaged now are compared once they are repaired.
        covers = int(min([reader.manifest.next_id, *found.damaged.tolist()]))
        for one, name, new in zip(group, names, found.rows, strict=True):
            rows = AlbumRows.joined(one.rows, new)
            summary = read_name_summary(reader.index_dir / one.record.file.name)
            rows = _with_boxes(reader, comparison, name, rows, summary, contents)
            filled[one.record.file.name] = StoredAlbum(covers, rows)
    return filled


def _with_boxes(
    reader: IndexReader,
    comparison: Comparison,
    name: ComparedName,
    rows: AlbumRows,
    summary: NameSummary,
    contents: Contents,
) -> AlbumRows:
    """The rows with a box wherever people may want to see one."""
    likely = assess(rows, summary, contents)
    ids = contents.find(rows.contents)
    wanted = rows.listed & (rows.boxes[:, 0] < 0) & (ids >= 0)
    if likely is not None:
        wanted &= (likely >= LEAST_PROBABILITY) | (said_of(rows, summary) >= 0)
    places = np.flatnonzero(wanted)
    if len(places) == 0:
        return rows
    sound, cells = comparison.place(name, ids[places], rows.references[places].astype(np.int64))
    boxes = rows.boxes.copy()
    found = dict(zip(sound.tolist(), cells, strict=True))
    for place in places.tolist():
        number = int(ids[place])
        if number in found:
            [record] = reader.photos([number])
            frame = Frame(record.width, record.height, reader.image_size, reader.grid)
            boxes[place] = frame.box_of(found[number])
    return replace(rows, boxes=boxes)

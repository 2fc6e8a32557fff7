"""Correcting recurring objects: some are one, a photo does not show one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from features.errors import WaldoError
from indexer.object_corrections import Correction, Places
from indexer.reader import IndexReader
from indexer.upkeep.correction_commit import commit_corrections
from search.recurring.recurrence import ObjectPhoto, RecurringObject, find_among, recurring_objects


def correct_objects(
    index_dir: Path,
    merged: Sequence[Sequence[int]] = (),
    taken_out: Mapping[int, Sequence[int]] | None = None,
) -> None:
    """Keep what a person says of recurring objects, all of it in one commit.

    It holds from then on, whatever is compared later, and for the same contents wherever the photos
    lie. Objects are numbered anew after it. merged: the numbers of objects that are one, two or
    more each. taken_out: by the number of an object, the ids of photos that do not show it; if they
    are two or more, they are an object of their own. Raises WaldoError for a number that no object
    has, for one object merged with itself, for a photo that is not among the object's, and where
    none of its photos would be left; nothing is kept then. Otherwise as `commit_corrections`.
    """
    with IndexReader.open(index_dir) as reader:
        found = recurring_objects(reader)
        said = [_one_object(found, numbers) for numbers in merged]
        for number, ids in (taken_out or {}).items():
            said.append(_without(reader, find_among(found, number), ids))
        if said:
            commit_corrections(index_dir, said, reader.fingerprint)


def _one_object(found: Sequence[RecurringObject], numbers: Sequence[int]) -> Correction:
    objects = [find_among(found, number) for number in dict.fromkeys(numbers)]
    if len(objects) < 2:
        raise WaldoError(
            f"object {','.join(map(str, numbers))}: is one object already; two or more make one"
        )
    return Correction(
        tuple(_places(one.photos) for one in objects), without=np.empty((0, 32), np.uint8)
    )


def _without(reader: IndexReader, found: RecurringObject, ids: Sequence[int]) -> Correction:
    """The correction that photos do not show an object; any copy of a photo means its content."""
    try:
        records = reader.photos(list(ids))
    except KeyError as error:
        raise WaldoError(f"{reader.place}: {error.args[0]}") from None
    contents = {record.content_hash for record in records}
    shown = {photo.record.content_hash for photo in found.photos}
    for record in records:
        if record.content_hash not in shown:
            raise WaldoError(f"{record.path}: not among the photos of object {found.number}")
    left = [photo for photo in found.photos if photo.record.content_hash not in contents]
    if not left:
        raise WaldoError(f"object {found.number}: at least one of its photos must stay")
    hashes = b"".join(map(bytes.fromhex, sorted(contents)))
    return Correction((_places(left),), np.frombuffer(hashes, np.uint8).reshape(-1, 32))


def _places(photos: Sequence[ObjectPhoto]) -> Places:
    hashes = b"".join(bytes.fromhex(photo.record.content_hash) for photo in photos)
    return Places(
        np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        np.stack([photo.cells.ravel() for photo in photos]),
    )

"""Indexes whose photos are linked as a test wants, and the objects that follow."""

from pathlib import Path

import numpy as np

import search.recurring.linking as linking
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks
from indexer.upkeep.link_commit import commit_links
from search.recurring.recurrence import recurring_objects


def link_regions(index: Path, objects: tuple[tuple[int, ...], ...]) -> None:
    """Store links in an index as if photos of the same object had been found to be alike.

    objects: of each, the places of its photos in the order of file names; copies count once.
    """
    with IndexReader.open(index) as reader:
        distinct = reader.distinct()
        ids = reader.ids if distinct is None else distinct
        records = sorted(reader.photos(ids), key=lambda one: one.path.name)
        hashes = b"".join(bytes.fromhex(one.content_hash) for one in records)
        cells = np.zeros((len(records), reader.grid**2), bool)
        cells[:, :3] = True
        pairs = [(a, b) for one in objects for a in one for b in one if a < b]
        links = RegionLinks(
            np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            np.ones(len(records), bool),
            np.arange(len(records)),
            cells,
            np.ones((len(records), 2), np.float32),
            np.array(pairs, np.int64).reshape(-1, 2),
            np.full(len(pairs), 3.0, np.float32),
        )
        commit_links(index, links, linking._basis(reader), reader.fingerprint)


def objects_of(index: Path) -> set[frozenset[int]]:
    """The numbers in the names of the photos of each object."""
    with IndexReader.open(index) as reader:
        return {
            frozenset(int(photo.record.path.stem[-3:]) for photo in one.photos)
            for one in recurring_objects(reader)
        }

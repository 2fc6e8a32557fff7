"""Distractors: photos behind a benchmark's gallery that answer no query."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.fleet.fleet_reader import open_collection
from indexer.ingest.sources import Source, Unreadable, list_photos
from indexer.store.failures import read_failures
from indexer.store.files import digest
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.benchmarks.published.packed_photos import OnListing, photos_of
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk, PhotoFiles
from search.evaluation.galleries import Indexing, ids_of, index_gallery
from search.evaluation.methods.methods import METHODS, Method, single_methods
from search.evaluation.methods.same_maps import extractors_of, group_by_maps

# Names that a list of photos cannot hold.
_UNLISTABLE = re.compile("[\r\n\ud800-\udfff]")
_UNLISTED = "its name has a line break, or is not UTF-8; rename it"

# Broken distractors are named up to this many.
_NAMED = 5


@dataclass(frozen=True)
class LeftOut:
    """The photos of a folder of distractors that are not behind the gallery.

    broken: for each that cannot be read, a line that says why. copies: how many have the content of
    a photo of the gallery or of a query, which would count as found wrongly.
    """

    broken: list[str]
    copies: int

    def in_words(self, n_distractors: int) -> str:
        """How many distractors there are, and what was left out."""
        line = f"distractors: {n_distractors:,} photos"
        if self.copies:
            copies = "1 copy" if self.copies == 1 else f"{self.copies:,} copies"
            line += f"; left out: {copies} of the benchmark's photos"
        if broken := self.broken:
            line += f"; broken and left out: {len(broken):,}, {'; '.join(broken[:_NAMED])}"
            line += f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
        return line


def with_distractors(
    benchmark: Benchmark, photos: Iterable[Path], indexed: Sequence[Path] | None = None
) -> Benchmark:
    """The benchmark with photos behind its gallery that answer no query, as Revisited Oxford and
    Paris have a million of them (Radenovic et al., CVPR 2018).

    Where the gallery has classes, a distractor counts as a photo that shows none of them. indexed:
    as in Benchmark; None for the new gallery itself.
    """
    classes, gallery = benchmark.gallery_classes, PhotoFiles(chain(benchmark.gallery, photos))
    added = len(gallery) - len(benchmark.gallery)
    return replace(
        benchmark,
        gallery=gallery,
        gallery_classes=classes and [*classes, *[set[str]()] * added],
        n_distractors=benchmark.n_distractors + added,
        indexed=indexed or [],
    )


def find_distractors(folder: Path, work: Path, on_listing: OnListing | None = None) -> PhotoFiles:
    """The photos in a folder, in the order of names, each once, and behind them those in its tars.

    work: the work folder, of which no file counts. on_listing: called with the progress of listing
    tars. Raises WaldoError where the folder or one in it cannot be listed, where a tar is broken or
    compressed, and where there is no photo.
    """
    if not folder.is_dir():
        raise WaldoError(f"{folder}: no such folder; it must hold the distractors")
    files = FilesOnDisk(PhotoFiles(_listed(folder, work)))
    once = dict.fromkeys(files.resolved())  # a link may lead to one of the others
    photos = photos_of(map(Path, once), on_listing=on_listing)
    if not photos:
        raise WaldoError(f"{folder}: no picture in this folder, nor in a tar there; check the path")
    return photos


def _listed(folder: Path, work: Path) -> Iterator[Path]:
    for entry in list_photos([Source("folder", folder.resolve())], work):
        if isinstance(entry, Unreadable):
            raise WaldoError(f"{entry.path}: {entry.reason}")
        yield Path(entry.path)


def add_distractors(
    benchmark: Benchmark, photos: Sequence[Path], methods: Sequence[Method], how: Indexing
) -> tuple[Benchmark, LeftOut]:
    """The benchmark with photos behind its gallery, and those that are left out.

    photos: as from `find_distractors`. All are indexed first, by each kind of maps that the methods
    need, which shows what cannot be read and what is a copy. Raises WaldoError where nothing is
    left, and where the disk does not give a photo: whether it is broken is not known then.
    """
    broken = {photo: _UNLISTED for photo in photos if _UNLISTABLE.search(str(photo))}
    every = with_distractors(benchmark, (photo for photo in photos if photo not in broken))
    # Methods that need no maps need an index too: it shows which photos can be read.
    groups = group_by_maps(single_methods(methods), how.extractor) or group_by_maps(
        [METHODS["rgb-patches"]], how.extractor
    )
    on_disk, there = FilesOnDisk(every.gallery), np.ones(len(every.gallery), bool)
    for group in groups:
        source, _ = extractors_of(group)
        index = index_gallery(every.protocol, on_disk, group.maps, source, how)
        with open_collection(index) as reader:
            ids = ids_of(reader, on_disk)
            there &= ids >= 0
            contents = reader.hashes_of(ids)  # those of -1 mean nothing
        broken |= {Path(failure.path): failure.reason for failure in read_failures(index)}
    lines = []
    for photo in photos if broken else ():
        if photo in broken:
            _content(photo)
            lines.append(f"{photo}: {broken[photo]}")
    distractor = np.arange(len(there)) >= len(benchmark.gallery)
    known = [*contents[there & ~distractor], *(_content(q.query.photo) for q in benchmark.queries)]
    copies = there & distractor & _among(contents, known)
    left = np.flatnonzero(there & distractor & ~copies)
    if len(left) == 0:
        raise WaldoError(
            f"{photos[0].parent}: no distractor is left; all are broken, or copies of the "
            "benchmark's photos"
        )
    longer = with_distractors(
        benchmark, (every.gallery[place] for place in left.tolist()), every.gallery
    )
    return longer, LeftOut(lines, int(copies.sum()))


def _among(contents: NDArray[np.uint8], known: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """Which contents, (n, 32) uint8, are among those known, (32,) each: (n,) bool."""
    wanted = set(map(bytes, known))
    return np.fromiter((bytes(content) in wanted for content in contents), bool, len(contents))


def _content(photo: Path) -> NDArray[np.uint8]:
    """The SHA-256 of a photo's file, (32,) uint8. Raises WaldoError where the disk does not give
    it.
    """
    try:
        return np.frombuffer(bytes.fromhex(digest(photo)), np.uint8)
    except OSError as error:
        raise WaldoError(f"{photo}: cannot be read ({error.strerror})") from None

"""Galleries as indexes, one for each kind of maps, and the distractors behind them."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.models import MapExtractor
from features.vision.descriptors import ImageDescriptor
from indexer.collection import Collection
from indexer.fleet.cluster_reader import ClusterReader, hire_holders
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import open_collection
from indexer.ingest.progress import Progress
from indexer.ingest.sources import Source, Unreadable, list_photos
from indexer.protocols import Extractor
from indexer.ray_cluster import RayCluster
from indexer.store.failures import read_failures
from indexer.store.files import digest
from search.evaluation.benchmarks.benchmark import Benchmark, with_distractors
from search.evaluation.benchmarks.published.packed_photos import OnListing, photos_of
from search.evaluation.methods.baselines import EXTRACTORS
from search.evaluation.methods.methods import METHODS, RANDOM_WEIGHTS, Method, single_methods
from search.evaluation.methods.same_maps import extractors_of, group_by_maps
from search.evaluation.run_store import gallery_folder, resolved

# So many paths are in memory as objects of Python.
_PATHS_AT_ONCE = 65_536

# Names that a list of photos cannot hold.
_UNLISTABLE = re.compile("[\r\n\ud800-\udfff]")
_UNLISTED = "its name has a line break, or is not UTF-8; rename it"

# Broken distractors are named up to this many.
_NAMED = 5


@dataclass(frozen=True)
class GalleryFleet:
    """Says that the indexes of a gallery are fleets.

    parts: of each. cluster: whose workers extract the parts of the model's maps, and search those
    of all maps; None: this process does both.
    """

    parts: int
    cluster: RayCluster | None = None


@dataclass(frozen=True)
class Indexing:
    """How galleries are indexed.

    extractor: the model that is evaluated. work: the folder of indexes. quality: the codec's, for
    the model's maps. descriptors: those that methods need, stored beside the model's maps.
    on_progress: called with the progress of indexing. fleet: None for ordinary indexes.
    """

    extractor: MapExtractor
    work: Path
    quality: str
    descriptors: Sequence[ImageDescriptor] = ()
    on_progress: Callable[[Progress], None] | None = None
    fleet: GalleryFleet | None = None


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
            line += f"; left out: {self.copies:,} copies of the benchmark's photos"
        if broken := self.broken:
            line += f"; broken and left out: {len(broken):,}, {'; '.join(broken[:_NAMED])}"
            line += f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
        return line


def index_gallery(benchmark: Benchmark, maps: str, source: Extractor, how: Indexing) -> Path:
    """The index of a benchmark's gallery by one kind of maps, or its fleet, brought up to date.

    maps: the name of the kind. source: the extractor that makes it.
    """
    quality = "none" if maps in EXTRACTORS else how.quality
    parts, cluster = None, None
    if how.fleet is not None:
        parts = how.fleet.parts
        # Workers load a model by its name, which colours and random weights have not.
        if maps not in EXTRACTORS and maps != RANDOM_WEIGHTS:
            cluster = how.fleet.cluster
    place = gallery_folder(how.work, benchmark, maps, source, quality, parts)
    index_collection(
        [place / "gallery.txt"],
        place / "index",
        source,
        parts=parts,
        batch_size=how.extractor.batch_size,
        quality=quality,
        descriptors=how.descriptors if source is how.extractor else (),
        on_progress=how.on_progress,
        cluster=cluster,
        fit_here=True,
    )
    return place / "index"


@contextmanager
def open_galleries(indexes: Sequence[Path], how: Indexing) -> Iterator[list[Collection]]:
    """Indexes of a gallery, open until the context ends.

    With a cluster, one set of workers holds the parts of all of them, and leaves no room for others
    that extract photos. Raises ClusterError.
    """
    with ExitStack() as opened:
        open_index: Callable[[Path], Collection] = open_collection
        if how.fleet is not None and how.fleet.cluster is not None and indexes:
            hired = opened.enter_context(hire_holders(how.fleet.cluster, how.fleet.parts))
            open_index = partial(ClusterReader.open_on, workers=hired)
        yield [opened.enter_context(open_index(index)) for index in indexes]


def gallery_ids(reader: Collection, benchmark: Benchmark) -> NDArray[np.int64]:
    """The ids of a gallery's photos in its index, (n_gallery,) int64.

    Raises WaldoError for a photo that the index lacks, because it cannot be read.
    """
    ids, paths = np.empty(len(benchmark.gallery), np.int64), resolved(benchmark.gallery)
    for start in range(0, len(ids), _PATHS_AT_ONCE):
        found = reader.with_paths(list(islice(paths, _PATHS_AT_ONCE)))
        if (found < 0).any():
            lacking = benchmark.gallery[start + int((found < 0).argmax())]
            raise WaldoError(f"{lacking}: cannot be read; a benchmark needs all its photos")
        ids[start : start + len(found)] = found
    return ids


def find_distractors(folder: Path, work: Path, on_listing: OnListing | None = None) -> list[Path]:
    """The photos in a folder, in the order of names, each once, and behind them those in its tars.

    work: the work folder, of which no file counts. on_listing: called with the progress of listing
    tars. Raises WaldoError where the folder or one in it cannot be listed, where a tar is broken or
    compressed, and where there is no photo.
    """
    if not folder.is_dir():
        raise WaldoError(f"{folder}: no such folder; it must hold the distractors")
    files = []
    for entry in list_photos([Source("folder", folder.resolve())], work):
        if isinstance(entry, Unreadable):
            raise WaldoError(f"{entry.path}: {entry.reason}")
        files.append(Path(entry.path).resolve())
    photos = photos_of(list(dict.fromkeys(files)), on_listing=on_listing)
    if not photos:
        raise WaldoError(f"{folder}: no picture in this folder, nor in a tar there; check the path")
    return photos


def add_distractors(
    benchmark: Benchmark, photos: Sequence[Path], methods: Sequence[Method], how: Indexing
) -> tuple[Benchmark, LeftOut]:
    """The benchmark with photos behind its gallery, and those that are left out.

    photos: as from `find_distractors`. All are indexed first, by each kind of maps that the methods
    need, which shows what cannot be read and what is a copy. Raises WaldoError where nothing is
    left, and where the disk does not give a photo: whether it is broken is not known then.
    """
    broken = {photo: _UNLISTED for photo in photos if _UNLISTABLE.search(str(photo))}
    every = with_distractors(benchmark, [photo for photo in photos if photo not in broken])
    own = {photo.resolve() for photo in benchmark.gallery}
    known = {_content(query.query.photo) for query in benchmark.queries}
    contents: dict[Path, bytes] = {}
    # Methods that need no maps need an index too: it shows which photos can be read.
    groups = group_by_maps(single_methods(methods), how.extractor) or group_by_maps(
        [METHODS["rgb-patches"]], how.extractor
    )
    for group in groups:
        source, _ = extractors_of(group)
        index = index_gallery(every, group.maps, source, how)
        with open_collection(index) as reader:
            paths = map(Path, reader.paths())
            found = dict(zip(paths, map(bytes, reader.content_hashes), strict=True))
        contents = {path: found[path] for path in contents or found if path in found}
        broken |= {Path(failure.path): failure.reason for failure in read_failures(index)}
    known |= {content for path, content in contents.items() if path in own}
    left = [path for path in photos if path in contents and contents[path] not in known]
    lines = [f"{path}: {broken[path]}" for path in photos if path in broken]
    for path in photos:
        if path in broken:
            _content(path)
    if not left:
        raise WaldoError(
            f"{photos[0].parent}: no distractor is left; all are broken, or copies of the "
            "benchmark's photos"
        )
    n_copies = sum(path in contents for path in photos) - len(left)
    return with_distractors(benchmark, left, every.gallery), LeftOut(lines, n_copies)


def _content(photo: Path) -> bytes:
    """The SHA-256 of a photo's file. Raises WaldoError where the disk does not give it."""
    try:
        return bytes.fromhex(digest(photo))
    except OSError as error:
        raise WaldoError(f"{photo}: cannot be read ({error.strerror})") from None

"""Galleries as indexes, one for each kind of maps."""

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
from indexer.protocols import Extractor
from indexer.ray_cluster import RayCluster
from indexer.store.failures import read_failures
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.methods.baselines import EXTRACTORS
from search.evaluation.methods.methods import RANDOM_WEIGHTS
from search.evaluation.run_store import gallery_folder

# So many paths are in memory as objects of Python.
_PATHS_AT_ONCE = 65_536


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


def index_gallery(
    protocol: str, photos: FilesOnDisk, maps: str, source: Extractor, how: Indexing
) -> Path:
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
    place = gallery_folder(how.work, protocol, photos, maps, source, quality, parts)
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


def gallery_ids(reader: Collection, gallery: FilesOnDisk) -> NDArray[np.int64]:
    """The ids of a gallery's photos in its index, (n_gallery,) int64.

    Raises WaldoError for a photo that the index lacks, because it cannot be read.
    """
    ids = ids_of(reader, gallery)
    if (ids < 0).any():
        lacking = gallery.paths[int((ids < 0).argmax())]
        known = {Path(failure.path): failure.reason for failure in read_failures(reader.index_dir)}
        reason = known.get(lacking.resolve(), "cannot be read")
        raise WaldoError(f"{lacking}: {reason}; a benchmark needs all its photos")
    return ids


def ids_of(reader: Collection, photos: FilesOnDisk) -> NDArray[np.int64]:
    """The ids of some photos in an index, (n,) int64; -1 for a photo that the index lacks."""
    ids, paths = np.empty(len(photos.paths), np.int64), photos.resolved()
    for start in range(0, len(ids), _PATHS_AT_ONCE):
        found = reader.with_paths(list(islice(paths, _PATHS_AT_ONCE)))
        ids[start : start + len(found)] = found
    return ids

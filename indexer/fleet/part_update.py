"""What a run of `waldo index` does to every part of a fleet."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from features.models import MapExtractor, extractor_of
from features.vision.descriptors import ImageDescriptor
from indexer.bucket.object_store import url_in
from indexer.errors import SourceError
from indexer.fleet.part_places import part_to_write
from indexer.fleet.part_work import OnStep
from indexer.fleet.shares import Share
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport
from indexer.ingest.sources import Source
from indexer.parts import Fleet
from indexer.protocols import Descriptor, Extractor
from indexer.ray_cluster import RayCluster
from indexer.store.manifest import Fingerprint

# Photos per batch of descriptors where nobody says how many.
_DESCRIBED_AT_ONCE = 8


class Models(Protocol):
    """What extracts photos, and what describes them."""

    @property
    def extractor(self) -> Extractor: ...

    @property
    def descriptors(self) -> Sequence[Descriptor]: ...


@dataclass(frozen=True)
class NamedModels:
    """Models that a worker loads when it first needs them (`Models`).

    fingerprint: of the extractor; described: of the descriptors. device: its name on the worker's
    machine. batch_size: photos per batch, or None.
    """

    fingerprint: Fingerprint
    described: tuple[Mapping[str, Any], ...]
    device: str
    batch_size: int | None

    @cached_property
    def extractor(self) -> MapExtractor:
        return extractor_of(self.fingerprint, self.device, self.batch_size)

    @cached_property
    def descriptors(self) -> list[ImageDescriptor]:
        size = self.batch_size or _DESCRIBED_AT_ONCE
        return [
            ImageDescriptor.from_fingerprint(dict(fingerprint), self.device, size)
            for fingerprint in self.described
        ]


@dataclass(frozen=True)
class LoadedModels:
    """Models that this process has loaded (`Models`)."""

    extractor: Extractor
    descriptors: Sequence[Descriptor]

    def on(
        self, cluster: RayCluster | None, fingerprint: Fingerprint, batch_size: int | None
    ) -> Models:
        """The same models for the workers of a cluster to load; these ones where there is none.

        fingerprint: of the extractor, as the workers have it.
        """
        if cluster is None:
            return self
        described = tuple(descriptor.fingerprint() for descriptor in self.descriptors)
        return NamedModels(fingerprint, described, cluster.device, batch_size)


@dataclass(frozen=True)
class PartUpdate:
    """Brings parts up to date with a listing; what it is given for a part is its share of that.

    fleet, url: as in `PartWork`. sources: of the listing. batch_size, quality: as for
    `index_photos`.
    """

    fleet: Fleet
    url: str | None
    sources: tuple[Source, ...]
    models: Models
    batch_size: int | None
    quality: str | None

    def check_machine(self) -> None:
        """Raise SourceError where a machine does not see the photos."""
        for source in self.sources:
            check_visible(source)

    def run(self, number: int, given: Share, on_step: OnStep) -> IndexReport:
        """As `PartWork.run`, and raises as `index_photos` and `part_to_write`.

        on_step: called with the `Progress` of the part.
        """
        with part_to_write(self.fleet, self.url, number) as (folder, copy):
            return index_photos(
                self.sources,
                folder,
                self.models.extractor,
                batch_size=self.batch_size,
                quality=self.quality,
                descriptors=self.models.descriptors,
                on_progress=on_step,
                on_commit=None if copy is None else copy.push,
                share=given.entries,
                first_unlisted=given.first_unlisted,
            )


def check_visible(source: Source) -> None:
    """Raise SourceError where this machine does not see a source."""
    # Buckets are the same for all; who may not read them is told when a photo is fetched.
    if url_in(source.path) is None and not source.path.exists():
        raise SourceError(
            f"{source.path}: is not there on the machine {socket.gethostname()}; every machine of "
            "the cluster must see the photos at the same paths"
        )

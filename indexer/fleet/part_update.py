"""What a run does to every part of a fleet. Any process that sees its folders can do it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from indexer.fleet.parts import Fleet
from indexer.fleet.shares import Shares
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport, Progress
from indexer.protocols import Descriptor, Extractor
from indexer.store.manifest import Fingerprint


@dataclass(frozen=True)
class PartUpdate:
    """Brings parts of a fleet up to date with a listing.

    fleet: by its absolute path. shares: of the listing. fingerprint: of the extractor. batch_size,
    quality: as for `index_photos`.
    """

    fleet: Fleet
    shares: Shares
    fingerprint: Fingerprint
    batch_size: int | None
    quality: str | None

    def run(
        self,
        number: int,
        extractor: Extractor,
        descriptors: Sequence[Descriptor],
        on_progress: Callable[[Progress], None],
        on_commit: Callable[[], None] | None = None,
    ) -> IndexReport:
        """Bring the part of this number up to date. Raises as `index_photos`, and OSError."""
        return index_photos(
            self.shares.sources,
            self.fleet.folder(number),
            extractor,
            batch_size=self.batch_size,
            quality=self.quality,
            descriptors=descriptors,
            on_progress=on_progress,
            on_commit=on_commit,
            share=partial(self.shares.of, number),
        )

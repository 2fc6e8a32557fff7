"""What a run does to every part of a fleet, in any process that sees its folder or bucket."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexer.fleet.part_places import part_to_write
from indexer.fleet.shares import Share
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport, Progress
from indexer.ingest.sources import Source
from indexer.parts import Fleet
from indexer.protocols import Descriptor, Extractor
from indexer.store.manifest import Fingerprint

# A part that another run has written meanwhile is brought up to date again. Each time that run has
# got on; only a server that refuses without a reason would do so for ever.
MOST_CONFLICTS = 100


@dataclass(frozen=True)
class PartUpdate:
    """Brings parts of a fleet up to date with a listing.

    fleet: by its absolute path. url: of a fleet in a bucket, of which only the machine of the run
    has the folder. sources: of the listing. fingerprint: of the extractor. batch_size, quality: as
    for `index_photos`.
    """

    fleet: Fleet
    url: str | None
    sources: tuple[Source, ...]
    fingerprint: Fingerprint
    batch_size: int | None
    quality: str | None

    def run(
        self,
        number: int,
        share: Share,
        extractor: Extractor,
        descriptors: Sequence[Descriptor],
        on_progress: Callable[[Progress], None],
    ) -> IndexReport:
        """Bring the part of this number up to date with its share of the listing.

        Raises as `index_photos` and `part_to_write`.
        """
        with part_to_write(self.fleet, self.url, number) as (folder, on_commit):
            return index_photos(
                self.sources,
                folder,
                extractor,
                batch_size=self.batch_size,
                quality=self.quality,
                descriptors=descriptors,
                on_progress=on_progress,
                on_commit=on_commit,
                share=share.entries,
                first_unlisted=share.first_unlisted,
            )

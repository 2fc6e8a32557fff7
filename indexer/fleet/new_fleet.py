"""A fleet that is made: its codec is fitted once, to photos from all over the sources."""

import contextlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.errors import SourceError
from indexer.fleet.shares import common_sizes, without_lines
from indexer.ingest.commit import store_file
from indexer.ingest.decode import Decoder
from indexer.ingest.sample import choose_sample, extract_sample, fit_codec, photos_to_fit
from indexer.ingest.sample_cache import CachedExtraction, SampleCache
from indexer.ingest.sources import Found, Unreadable
from indexer.parts import CODEC_NUMBER, Fleet, usual_parts
from indexer.protocols import Extractor
from indexer.store.files import writing
from indexer.store.folder import FLEET_CODEC_NAME, FLEET_SAMPLE_NAME
from indexer.store.mapstore import MapStore


@dataclass(frozen=True)
class NewFleet:
    """What is known of a fleet before its codec is fitted.

    index_dir: its folder, by its absolute path. url: of a fleet in a bucket. files: in the listing.
    chosen: photos that the codec is fitted to. parts, spread, quality: as in `Fleet`. batch_size:
    as for `index_photos`.
    """

    index_dir: Path
    url: str | None
    files: int
    chosen: tuple[Found, ...]
    parts: int
    spread: frozenset[int]
    quality: str
    batch_size: int | None

    @classmethod
    def plan(
        cls,
        index_dir: Path,
        url: str | None,
        parts: int | None,
        listing: Iterable[Found | Unreadable],
        extractor: Extractor,
        quality: str,
        batch_size: int | None,
    ) -> "NewFleet":
        """Choose photos from all over a listing for the codec to be fitted to.

        parts: None for as many as suit the listing. extractor: the shape of its maps decides how
        many photos are chosen.
        """
        sizes = array("q")
        photos = photos_to_fit(extractor.grid, extractor.dim)
        chosen = [
            replace(found, source=without_lines(found.source))
            for found in choose_sample(_noting_sizes(listing, sizes), photos)
        ]
        parts = parts or usual_parts(len(sizes))
        spread = common_sizes(sizes, parts)
        where = index_dir.absolute(), url
        return cls(*where, len(sizes), tuple(chosen), parts, spread, quality, batch_size)

    def fit(self, extractor: Extractor, on_progress: Callable[[int], None]) -> Fleet:
        """Extract the photos, fit the codec to them and store it.

        on_progress: called with how many photos are extracted. The fleet that is returned exists
        once `write_fleet` has written it. Raises SourceError where no photo can be read,
        IndexWriteError, and whatever the extractor raises.
        """
        extractor.get_ready()
        folder = self.index_dir / FLEET_SAMPLE_NAME
        with writing(self.index_dir):
            folder.mkdir(exist_ok=True)
        extraction = CachedExtraction(extractor, SampleCache(folder))
        size = max(1, self.batch_size or extractor.batch_size)
        with contextlib.closing(MapStore(self.index_dir, (), 0)) as no_maps:
            decoder = Decoder(None, no_maps, extractor.image_size, extractor.grid)
            sample = extract_sample(list(self.chosen), decoder, extraction, size, on_progress)
        if not sample:
            raise SourceError(
                f"none of {len(self.chosen)} photos, from all over the sources, can be read; a "
                "fleet needs some to begin with"
            )
        codec = fit_codec(self.quality, sample, extractor)
        with writing(self.index_dir):
            file = store_file(
                *(self.index_dir, FLEET_CODEC_NAME, CODEC_NUMBER, codec.fitted_on, codec.save)
            )
        return Fleet(
            *(self.index_dir, self.parts, dict(extractor.fingerprint())),
            *(extractor.image_size, extractor.grid, extractor.dim),
            quality=self.quality,
            codec=file,
            spread=self.spread,
        )


def _noting_sizes(listing: Iterable[Found | Unreadable], sizes: "array[int]") -> Iterator[Found]:
    for entry in listing:
        if isinstance(entry, Found):
            sizes.append(entry.size)
            yield entry

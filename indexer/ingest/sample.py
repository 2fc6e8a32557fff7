"""The sample of photos that a codec is fitted on: when one is due, which photos, and the fit.

A codec is fitted before the first shard is written, and never changed. A codec that was fitted on a
handful of photos serves a large collection badly. So when many more photos are listed, another
codec is fitted for the photos that are added from then on. Every map shard names the codec that
encoded it.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from features.maps import FeatureMaps
from indexer.codec.codec import Codec
from indexer.codec.quality import uses_vocabulary
from indexer.ingest.decode import Decoded, Decoder, decoding_threads
from indexer.ingest.sample_cache import CachedExtraction
from indexer.ingest.sources import Found
from indexer.protocols import Extractor

# A codec is fitted on at most this many photos, whose maps may take this many bytes.
_MOST_PHOTOS = 256
_MOST_BYTES = 256 * 2**20
# A new codec is fitted when there are this many times the photos of the last one's sample.
_GROWTH = 4


def photos_to_fit(grid: int, dim: int) -> int:
    """How many photos a codec is fitted on, if there are enough."""
    return max(1, min(_MOST_PHOTOS, _MOST_BYTES // (4 * grid * grid * dim)))


def is_due(codec: Codec | None, listed: int, grid: int, dim: int) -> bool:
    """Whether a run that lists so many photos fits a codec before it stores any of them."""
    if codec is None:
        return True
    return min(listed, photos_to_fit(grid, dim)) >= _GROWTH * codec.fitted_on


def choose_sample(photos: Iterable[Found], count: int) -> list[Found]:
    """At most `count` photos from all over a listing; the same names give the same photos."""
    return heapq.nsmallest(count, photos, key=_key)


def _key(found: Found) -> bytes:
    return blake2b(found.relative.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def extract_sample(
    chosen: list[Found],
    decoder: Decoder,
    extraction: CachedExtraction,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> list[FeatureMaps]:
    """The maps of the chosen photos that can be read, each content once; they go to the cache.

    on_progress: called with how many maps there are. Their order depends on the photos alone, and
    not on what the cache held.
    """
    begun: deque[Callable[[], dict[str, FeatureMaps]]] = deque()
    seen: set[str] = set()
    sample: dict[str, FeatureMaps] = {}

    def wait_until(most: int) -> None:
        while len(begun) > most:
            sample.update(begun.popleft()())
            on_progress(len(sample))

    with decoding_threads() as threads:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            decoded = [item for item in threads.map(decoder, batch) if isinstance(item, Decoded)]
            new = [photo.input for photo in decoded if photo.content_hash not in seen]
            seen.update(photo.content_hash for photo in new)
            begun.append(extraction.begin(new, keep=True))
            wait_until(extraction.n_overlapping)
        wait_until(0)
    return [sample[content] for content in sorted(sample)]


def fit_codec(quality: str, sample: list[FeatureMaps], extractor: Extractor) -> Codec:
    """A codec fitted on a sample and on the extractor's vocabulary, if the quality uses one."""
    if uses_vocabulary(quality):
        vocabulary = extractor.vocabulary_vectors()
    else:
        vocabulary = np.empty((0, extractor.dim), np.float32)
    return Codec.fit(quality, sample, vocabulary)

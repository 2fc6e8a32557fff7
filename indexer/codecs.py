"""The codecs of an index: how they are found on disk, and when a new one is due.

Every map shard names the codec that encoded it. A codec is fitted before the first shard and never
changed; but one that was fitted on a handful of photos serves a large collection badly, so when
many more are at hand another is fitted for what is added from then on.
"""

import heapq
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from indexer.codec import Codec
from indexer.errors import IndexDamagedError
from indexer.files import StoredFile
from indexer.mapstore import MEND
from indexer.sources import Found

# Photos a codec is fitted on, and the bytes that their maps may fill until they are stored.
_MOST_PHOTOS = 256
_MOST_BYTES = 256 * 2**20
# A new codec needs this many times the photos of the one before.
_GROWTH = 4


def codec_name(number: int) -> str:
    """File name of a codec below the index folder."""
    return f"codec-{number}.safetensors"


def load_codec(index_dir: Path, file: StoredFile) -> Codec:
    """Read a codec. Raises IndexDamagedError with the file and the mend."""
    path = index_dir / file.name
    try:
        return Codec.load(path)
    except IndexDamagedError as error:
        raise IndexDamagedError(f"{path} {error}; {MEND}") from error


def photos_to_fit(grid: int, dim: int) -> int:
    """How many photos a codec is fitted on where there are enough."""
    return max(1, min(_MOST_PHOTOS, _MOST_BYTES // (4 * grid * grid * dim)))


def is_due(codec: Codec | None, listed: int, grid: int, dim: int) -> bool:
    """Whether a run that lists so many photos fits a codec before it stores any."""
    if codec is None:
        return True
    return min(listed, photos_to_fit(grid, dim)) >= _GROWTH * codec.fitted_on


def choose_sample(photos: Iterable[Found], count: int) -> list[Found]:
    """At most `count` photos from all over a listing, the same ones for the same names."""
    return heapq.nsmallest(count, photos, key=_key)


def _key(found: Found) -> bytes:
    return blake2b(found.relative.encode("utf-8", "surrogateescape"), digest_size=16).digest()

"""The sample of photos that a codec is fitted on: when one is due, which photos, and their maps.

A codec is fitted before the first shard and never changed. A codec that was fitted on a handful of
photos serves a large collection badly, so when many more photos are listed, another codec is fitted
for the photos that are added from then on. Every map shard names the codec that encoded it.
"""

import contextlib
import heapq
import shutil
import zlib
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec.codec import Codec
from indexer.ingest.sources import Found

# Photos a codec is fitted on, and the bytes that their maps may fill until they are stored.
_MOST_PHOTOS = 256
_MOST_BYTES = 256 * 2**20
# A new codec needs this many times the photos of the one before.
_GROWTH = 4
# The folder of `SampleCache` below the index folder.
SAMPLE_NAME = "sample"


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


class SampleCache:
    """Feature maps of the sample on disk, by content hash, until they can be stored.

    Without it, a run that is stopped before the codec is fitted would have to extract them again.
    A damaged file counts as missing.
    """

    def __init__(self, index_dir: Path) -> None:
        self._folder = index_dir / SAMPLE_NAME
        self._held = {path.stem for path in self._folder.glob("*.safetensors")}

    def __contains__(self, content_hash: str) -> bool:
        """Whether there is a file for a photo; `get` tells whether it is sound."""
        return content_hash in self._held

    def add(self, maps: FeatureMaps) -> None:
        """Keep a photo's maps. Raises OSError."""
        from safetensors.numpy import save_file

        self._folder.mkdir(exist_ok=True)
        tensors = {"appearance": maps.appearance, "semantic": maps.semantic}
        path = self._path(maps.content_hash)
        save_file(tensors, path.with_suffix(".tmp"), {"checksum": str(_checksum(maps))})
        path.with_suffix(".tmp").replace(path)
        self._held.add(maps.content_hash)

    def get(self, content_hash: str, frame: Frame) -> FeatureMaps | None:
        """The maps of a photo, or None where there are none, or others than were kept."""
        from safetensors import SafetensorError, safe_open

        if content_hash not in self._held:
            return None
        try:
            with safe_open(self._path(content_hash), framework="np") as file:
                named = [file.get_tensor(name) for name in ("appearance", "semantic")]
                maps = FeatureMaps(named[0], named[1], frame, content_hash)
                sound = (file.metadata() or {}).get("checksum") == str(_checksum(maps))
        except (OSError, SafetensorError):
            sound = False
        if not sound:
            self._held.discard(content_hash)
            return None
        return maps

    def clear(self) -> None:
        """Forget everything."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        self._held.clear()

    def _path(self, content_hash: str) -> Path:
        return self._folder / f"{content_hash}.safetensors"


def _checksum(maps: FeatureMaps) -> int:
    appearance, semantic = (np.ascontiguousarray(m).data for m in (maps.appearance, maps.semantic))
    return zlib.crc32(semantic, zlib.crc32(appearance))

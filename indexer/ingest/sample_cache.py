"""Maps of the codec's sample, kept on disk from the fit until they are stored.

Without this, a run that is stopped before the codec is fitted would have to extract the sample
again, and every run would extract it twice.
"""

import contextlib
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.protocols import Extractor
from indexer.store.files import writing

# The folder of `SampleCache` below the index folder.
SAMPLE_NAME = "sample"


class SampleCache:
    """Feature maps on disk, by content hash. A damaged file counts as missing."""

    def __init__(self, index_dir: Path) -> None:
        self.index_dir = index_dir
        self._folder = index_dir / SAMPLE_NAME
        self._held = {path.stem for path in self._folder.glob("*.safetensors")}

    def __contains__(self, content_hash: str) -> bool:
        """Whether there is a file for a photo; only `get` looks whether it is damaged."""
        return content_hash in self._held

    def add(self, maps: FeatureMaps) -> None:
        """Keep the maps of a photo. Raises OSError."""
        from safetensors.numpy import save_file

        self._folder.mkdir(exist_ok=True)
        tensors = {"appearance": maps.appearance, "semantic": maps.semantic}
        path = self._path(maps.content_hash)
        save_file(tensors, path.with_suffix(".tmp"), {"checksum": str(_checksum(maps))})
        path.with_suffix(".tmp").replace(path)
        self._held.add(maps.content_hash)

    def get(self, content_hash: str, frame: Frame) -> FeatureMaps | None:
        """The maps of a photo; None if there are none, or if their file is damaged."""
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
        """Delete everything."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        self._held.clear()

    def _path(self, content_hash: str) -> Path:
        return self._folder / f"{content_hash}.safetensors"


def _checksum(maps: FeatureMaps) -> int:
    appearance, semantic = (np.ascontiguousarray(m).data for m in (maps.appearance, maps.semantic))
    return zlib.crc32(semantic, zlib.crc32(appearance))


class CachedExtraction:
    """Extracts photos, except those whose maps are in the cache."""

    def __init__(self, extractor: Extractor, cache: SampleCache) -> None:
        self._extractor = extractor
        self._cache = cache

    def is_cached(self, content_hash: str) -> bool:
        """Whether a photo need not be extracted."""
        return content_hash in self._cache

    @property
    def n_overlapping(self) -> int:
        """How many batches should have begun while the maps of an earlier one are waited for."""
        return self._extractor.n_workers if self._extractor.is_asynchronous else 0

    def begin(
        self, photos: Sequence[ModelInput], *, keep: bool = False
    ) -> Callable[[], dict[str, FeatureMaps]]:
        """Begin to extract photos; the function that is returned waits for their maps.

        It returns them by content hash, without those whose features are not finite. It may be
        called in another thread, once.
        keep: put newly extracted maps into the cache. Both raise what the extractor raises; the
        function raises IndexWriteError, and ValueError if the extractor mixes photos up.
        """
        by_content = {photo.content_hash: photo for photo in photos}
        found = {content: self._cache.get(content, p.frame) for content, p in by_content.items()}
        cached = {content: maps for content, maps in found.items() if maps is not None}
        new = [content for content in by_content if content not in cached]
        begun = self._extractor.begin([by_content[content] for content in new]) if new else list

        def wait() -> dict[str, FeatureMaps]:
            extracted = begun()
            if [maps.content_hash for maps in extracted] != new:
                raise ValueError("the extractor returned maps of other photos, or in another order")
            finite = {maps.content_hash: maps for maps in extracted if maps.is_finite}
            if keep:
                with writing(self._cache.index_dir):
                    for maps in finite.values():
                        self._cache.add(maps)
            return cached | finite

        return wait

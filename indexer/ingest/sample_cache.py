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
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import EncodedMaps, encode_photos
from indexer.protocols import EncodesMaps, Extractor
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
        if not self._extractor.is_asynchronous:
            return 0
        workers = self._extractor.n_workers
        # Each of several extracts one batch while it encodes the one before.
        return 2 * workers if workers > 1 else 1

    def begin(
        self, photos: Sequence[ModelInput], *, keep: bool = False
    ) -> Callable[[], dict[str, FeatureMaps]]:
        """Begin to extract photos; the function that is returned waits for their maps.

        It returns them by content hash, without those whose features are not finite. It may be
        called in another thread, once.
        keep: put newly extracted maps into the cache. Both raise what the extractor raises; the
        function raises IndexWriteError, and ValueError if the extractor mixes photos up.
        """
        cached, new = self._divide(photos)
        begun = self._extractor.begin(new) if new else list

        def wait() -> dict[str, FeatureMaps]:
            extracted = begun()
            if [maps.content_hash for maps in extracted] != [photo.content_hash for photo in new]:
                raise ValueError("the extractor returned maps of other photos, or in another order")
            finite = {maps.content_hash: maps for maps in extracted if maps.is_finite}
            if keep:
                with writing(self._cache.index_dir):
                    for maps in finite.values():
                        self._cache.add(maps)
            return cached | finite

        return wait

    def begin_encoded(
        self, photos: Sequence[ModelInput], codec: Codec
    ) -> Callable[[], dict[str, EncodedMaps]]:
        """Begin to extract and encode photos, as `begin` does to extract them.

        Where the extractor does not encode, the function that is returned does.
        """
        extractor = self._extractor
        if not isinstance(extractor, EncodesMaps):
            maps = self.begin(photos)
            return lambda: encode_photos(codec, list(maps().values()))
        cached, new = self._divide(photos)
        begun = extractor.begin_encoded(new, codec) if new else dict
        return lambda: encode_photos(codec, list(cached.values())) | begun()

    def _divide(
        self, photos: Sequence[ModelInput]
    ) -> tuple[dict[str, FeatureMaps], list[ModelInput]]:
        """The maps that are cached, by content hash, and the photos to extract, each once."""
        by_content = {photo.content_hash: photo for photo in photos}
        found = {content: self._cache.get(content, p.frame) for content, p in by_content.items()}
        cached = {content: maps for content, maps in found.items() if maps is not None}
        return cached, [photo for content, photo in by_content.items() if content not in cached]

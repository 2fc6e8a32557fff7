"""Maps of the photos a codec is fitted on, kept as they are until they can be stored.

Without it a run that is stopped before the codec is fitted would have to extract them again.
"""

import contextlib
import shutil
import zlib
from pathlib import Path

import numpy as np

from features.frame import Frame
from features.maps import FeatureMaps

SPOOL_NAME = "sample"


class Spool:
    """Feature maps on disk by content hash. A damaged file counts as none."""

    def __init__(self, index_dir: Path) -> None:
        self._folder = index_dir / SPOOL_NAME
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

"""What an index stores of the maps of a photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from indexer.codec.codec import Codec


@dataclass(frozen=True)
class EncodedMaps:
    """encoded: (W,) uint8, see `Codec`. pooled: (2 d,) float32, see `FeatureMaps.pooled`. words:
    (n,) uint16, the visual words of the photo, each once, rising; none where the codec has none.
    """

    encoded: NDArray[np.uint8]
    pooled: NDArray[np.float32]
    words: NDArray[np.uint16]


def encode_photos(codec: Codec, photos: Sequence[FeatureMaps]) -> dict[str, EncodedMaps]:
    """The encoded maps of photos by content hash, without those whose features are not finite.

    None depends on the other photos of the call.
    """
    finite = [maps for maps in photos if maps.is_finite]
    if not finite:
        return {}
    encoded = codec.encode(
        np.stack([maps.appearance for maps in finite]), np.stack([maps.semantic for maps in finite])
    )
    none = np.empty(0, np.uint16)
    return {
        maps.content_hash: EncodedMaps(
            own, maps.pooled(), none if codec.words is None else codec.words.of_photo(maps)
        )
        for maps, own in zip(finite, encoded, strict=True)
    }

"""Pictures written as a video file, where a library for it is installed."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class OverlayVideo:
    """Writes pictures of one size to a video file, by PyAV or by OpenCV; `close` finishes the file.

    size: (width, height) of the pictures, pixels. rate: frames per second. Where neither library is
    installed, nothing is written, and `path` is None.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        # Codecs accept only even sizes.
        self._size = max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)
        self._writer: _PyavWriter | _OpencvWriter | None = None
        for writer in (_PyavWriter, _OpencvWriter):
            try:
                self._writer = writer(path, self._size, rate)
                break
            except ImportError:
                continue
        self.path = None if self._writer is None else path

    def add(self, picture: Image.Image) -> None:
        """Write the next frame."""
        if self._writer is not None:
            self._writer.add(picture.resize(self._size))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


class _PyavWriter:
    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        import av

        self._av = av
        self._container = av.open(path, "w")
        # Browsers play H.264, but not every build of FFmpeg can write it.
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, Fraction(rate).limit_denominator(1001))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        self._stream = stream

    def add(self, picture: Image.Image) -> None:
        frame = self._av.VideoFrame.from_image(picture)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class _OpencvWriter:
    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        import cv2

        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), code, rate, size)

    def add(self, picture: Image.Image) -> None:
        self._writer.write(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))

    def close(self) -> None:
        self._writer.release()

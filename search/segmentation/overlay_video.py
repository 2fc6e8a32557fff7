"""Pictures written as a video to look at, where a library for it is installed."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image


class OverlayVideo:
    """Writes pictures of one size to a video file, by PyAV or else by OpenCV: a context manager.

    size: of the pictures, (width, height), pixels. rate: frames a second. Where neither library is
    installed it writes nothing, and `path` is None.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        # Codecs take even sizes alone.
        self._size = max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)
        self._writer: _PyavWriter | _OpencvWriter | None = None
        for writer in (_PyavWriter, _OpencvWriter):
            try:
                self._writer = writer(path, self._size, rate)
                break
            except ImportError:
                continue
        self.path = None if self._writer is None else path

    def __enter__(self) -> "OverlayVideo":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, picture: Image.Image) -> None:
        """Write the next frame."""
        if self._writer is not None:
            self._writer.add(picture.resize(self._size))


class _PyavWriter:
    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        import av

        self._av = av
        self._container = av.open(path, "w")
        # H.264, which browsers play, where this build of FFmpeg can write it.
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

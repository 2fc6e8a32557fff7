"""Videos: frames read one at a time from a folder or a file, and pictures written as a video."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import PhotoError, WaldoError
from features.photo import Photo, is_picture, load_photo

# Frames per second where the source does not say, as a folder of pictures.
FRAME_RATE = 24.0


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    name: the name of the file with its labels, without the suffix. photo: the upright picture, or
    None where it cannot be read; then problem says why.
    """

    name: str
    photo: Photo | None
    problem: str = ""


@dataclass(frozen=True)
class Video:
    """The frames of a video.

    count: the number of frames; None where it is unknown. rate: frames per second.
    frames: starts an iteration over the frames, which reads them one at a time.
    """

    count: int | None
    rate: float
    frames: Callable[[], Iterator[VideoFrame]]


def open_video(path: Path) -> Video:
    """The pictures of a folder in natural order (frame2 before frame10), or the frames of a file.

    Video files are read by PyAV, or by OpenCV where PyAV is not installed; their frames are named
    00000, 00001, ... Raises WaldoError where there are no frames, where two pictures of a folder
    differ only in their suffix, and where a video file cannot be read.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise WaldoError(f"{path}: no such folder or video file")
    return _open_file(path)


def _open_folder(folder: Path) -> Video:
    paths = [
        path
        for path in folder.iterdir()
        if path.is_file() and path.name[0] != "." and is_picture(path)
    ]
    if not paths:
        raise WaldoError(f"{folder}: holds no pictures; give a folder of frames, or a video file")
    paths.sort(key=lambda path: (_natural(path.stem), path.name))
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise WaldoError(
                f"{folder}: the labels of {other.name} and {path.name} would be one file; keep one"
            )
    return Video(len(paths), FRAME_RATE, lambda: map(_read, paths))


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key of names that orders the numbers within them by value."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]


def _read(path: Path) -> VideoFrame:
    try:
        return VideoFrame(path.stem, load_photo(path))
    except PhotoError as error:
        return VideoFrame(path.stem, None, str(error))


def _open_file(path: Path) -> Video:
    for opened in (_by_pyav, _by_opencv):
        try:
            return opened(path)
        except ImportError:
            continue
    raise WaldoError(
        f"{path}: not a folder of frames, and video files need PyAV or OpenCV; "
        "install av or opencv-python-headless"
    )


def _numbered(decoded: Iterable[NDArray[np.uint8] | str]) -> Iterator[VideoFrame]:
    """Decoded pictures as frames, named by their numbers.

    decoded: (height, width, 3) uint8 RGB each; a text where the rest cannot be read, saying why.
    """
    for number, pixels in enumerate(decoded):
        name = f"{number:05}"
        if isinstance(pixels, str):
            yield VideoFrame(name, None, pixels)
            continue
        # The digest of the content seeds the noise that some models add.
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        height, width = pixels.shape[:2]
        photo = Photo(Path(name), digest, width, height, Image.fromarray(pixels))
        yield VideoFrame(name, photo)


def _by_pyav(path: Path) -> Video:
    """A video file read by PyAV. Raises ImportError where it is not installed."""
    import av

    def decoded() -> Iterator[NDArray[np.uint8] | str]:
        try:
            with av.open(path) as container:
                for frame in container.decode(video=0):
                    turns = round(getattr(frame, "rotation", 0) / 90)  # PyAV has it since 14
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                    yield np.ascontiguousarray(upright)
        except av.FFmpegError as error:
            yield f"{path}: the video breaks off ({error})"

    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            count, rate = stream.frames or None, float(stream.average_rate or FRAME_RATE)
    except (av.FFmpegError, IndexError) as error:
        raise WaldoError(f"{path}: not a readable video ({error})") from None
    return Video(count, rate, lambda: _numbered(decoded()))


def _by_opencv(path: Path) -> Video:
    """A video file read by OpenCV. Raises ImportError where it is not installed."""
    import cv2

    def decoded() -> Iterator[NDArray[np.uint8] | str]:
        capture = cv2.VideoCapture(str(path))
        while True:
            there, pixels = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(pixels[:, :, ::-1])

    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise WaldoError(f"{path}: not a readable video")
    count, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    return Video(max(0, count) or None, rate or FRAME_RATE, lambda: _numbered(decoded()))


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

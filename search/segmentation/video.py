"""`waldo propagate`: the objects of a video's first frame, marked in all its frames."""

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from features.models import MapExtractor, find_extractor
from features.photo import Photo
from indexer.protocols import Extractor
from search.segmentation.drawing import ContactSheet, read_ids, tinted, write_ids
from search.segmentation.frames import OverlayVideo, Video, open_video
from search.segmentation.propagate import BATCH, carry_labels

# Maps have at least this many cells per side, because masks are no finer than their cells; frames
# are scaled to the input size that this needs. Small objects gain most; the time grows with the
# square of this number, or more.
_CELLS = 64

# Longer side of the frames in the overlay video and on the contact sheet, pixels.
_DRAWN = 640


@dataclass(frozen=True)
class PropagationReport:
    """The result of a run.

    out: the folder with the masks.
    frames: the number of frames, including the first.
    objects: the object ids of the first frame.
    width, height: the size of a frame, pixels.
    failed: the frames that could not be used, (name, reason); they have the labels of the frame
        before.
    contact_sheet: a picture with frames from the whole length of the video.
    overlay: the video with its objects tinted; None where neither PyAV nor OpenCV is installed.
    seconds: the time of the run, without loading the model.
    """

    out: Path
    frames: int
    objects: list[int]
    width: int
    height: int
    failed: list[tuple[str, str]]
    contact_sheet: Path
    overlay: Path | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "out": str(self.out),
            "frames": self.frames,
            "objects": self.objects,
            "width": self.width,
            "height": self.height,
            "failed": [{"frame": name, "reason": reason} for name, reason in self.failed],
            "contact_sheet": str(self.contact_sheet),
            "overlay": None if self.overlay is None else str(self.overlay),
            "seconds": self.seconds,
        }


def load_video_extractor(name: str, device: str = "auto") -> MapExtractor:
    """Find a model as `find_extractor` does, with an input large enough for fine masks."""
    return find_extractor(name, device, BATCH).with_cells(_CELLS)


@dataclass(frozen=True)
class LabelledVideo:
    """A video and the objects of its first frame.

    source: the folder or file. first: the first frame, upright. ids: (height, width) uint8, of the
    size of that frame, 0 where there is no object.
    """

    source: Path
    video: Video
    first: Photo
    ids: NDArray[np.uint8]


def open_labelled(source: Path, mask: Path) -> LabelledVideo:
    """Open a folder of frames or a video file, and the mask of its first frame.

    The rules are those of `open_video` and `read_first_ids`. Raises WaldoError where the video or
    the mask cannot be read, and where the mask and the first frame differ in size.
    """
    video, ids = open_video(source), read_first_ids(mask)
    first = next(video.frames(), None)
    if first is None:
        raise WaldoError(f"{source}: holds no frame")
    if first.photo is None:
        raise WaldoError(f"{first.problem}; this is the first frame, to which the mask belongs")
    photo = first.photo
    if ids.shape != (photo.height, photo.width):
        raise WaldoError(
            f"mask {mask}: has {ids.shape[1]} x {ids.shape[0]} pixels, but the first frame has "
            f"{photo.width} x {photo.height} (upright); draw the mask on that frame"
        )
    return LabelledVideo(source, video, photo, ids)


def propagate_video(
    labelled: LabelledVideo,
    out: Path,
    extractor: Extractor,
    on_frame: Callable[[int, int | None, float], None] | None = None,
) -> PropagationReport:
    """Write the object ids of every frame of a video as a palette PNG into the folder `out`.

    The files have the names and the size of the frames. A frame that cannot be used gets the labels
    of the frame before. A contact sheet is written too, and an overlay video where a library for it
    is installed.

    on_frame: called after each frame with the number of frames done, the number of all frames (None
    while unknown), and the seconds since the start. Raises WaldoError where `out` is the folder of
    the frames.
    """
    if out.resolve() == labelled.source.resolve():
        raise WaldoError(f"{out}: holds the frames; choose another folder for the masks")
    out.mkdir(parents=True, exist_ok=True)
    extractor.get_ready()
    began = time.monotonic()
    first, ids, video = labelled.first, labelled.ids, labelled.video
    frames = video.frames()
    start = (next(frames), ids)
    picture = first.image
    scale = min(1.0, _DRAWN / max(picture.size))
    size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    sheet, failed, done = ContactSheet(), [], 0
    with closing(OverlayVideo(out / "overlay.mp4", size, video.rate)) as overlay:
        for frame, found in itertools.chain([start], carry_labels(first, ids, frames, extractor)):
            write_ids(out / f"{frame.name}.png", found)
            if frame.photo is None:
                failed.append((frame.name, frame.problem))
            else:
                picture = frame.photo.image
            small = Image.fromarray(found).resize(size, Image.Resampling.NEAREST)
            drawn = tinted(picture.resize(size, reducing_gap=2.0), np.asarray(small))
            sheet.add(frame.name, drawn)
            overlay.add(drawn)
            done += 1
            if on_frame is not None:
                on_frame(done, video.count, time.monotonic() - began)
    sheet_path = out / "contact-sheet.jpg"
    sheet.save(sheet_path)
    return PropagationReport(
        out=out,
        frames=done,
        objects=[int(number) for number in np.unique(ids) if number],
        width=first.width,
        height=first.height,
        failed=failed,
        contact_sheet=sheet_path,
        overlay=overlay.path,
        seconds=time.monotonic() - began,
    )


def read_first_ids(path: Path) -> NDArray[np.uint8]:
    """The mask of a first frame: object ids, (height, width) uint8, 0 where there is no object.

    The file is read by `read_ids`. Pixels of value 255 are void in DAVIS and belong to no object;
    but in a mask that has only black and white, white is object 1. Raises WaldoError where the mask
    shows no object.
    """
    ids = read_ids(path)
    numbers = set(np.unique(ids).tolist()) - {0}
    if not numbers:
        raise WaldoError(
            f"mask {path}: shows no object; mark the objects with the values 1, 2, ..."
        )
    return np.where(ids == 255, 1 if numbers == {255} else 0, ids).astype(np.uint8)

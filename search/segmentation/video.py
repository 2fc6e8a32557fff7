"""Objects of a video's first frame, marked in all others: frames in, pictures of their ids out."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import Photo
from indexer.protocols import Extractor
from search.segmentation.drawing import ContactSheet, read_ids, tinted, write_ids
from search.segmentation.frames import Video, open_video
from search.segmentation.overlay_video import OverlayVideo
from search.segmentation.propagate import carry_labels

# Frames a model evaluation.
_BATCH = 2

# A mask is no better than its cells: frames are shown to the model so large that its maps have this
# many cells a side, at least. Small objects gain most; time grows with the square of it, or more.
_CELLS = 64

# Longer side of the frames that are drawn to be looked at, pixels.
_DRAWN = 640


@dataclass(frozen=True)
class PropagationReport:
    """What a run did.

    frames: how many there are, the first among them. objects: their ids. width, height: of a frame,
    pixels. failed: names of frames that could not be used, and why; they have the labels of those
    before. contact_sheet: a picture of frames all along the video. overlay: the video with its
    objects in colour, None where neither PyAV nor OpenCV is installed. seconds: without loading the
    model.
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


def load_video_extractor(name: str, device: str = "auto") -> FeatureExtractor:
    """A model by name (as `FeatureExtractor.load`), with its input as large as masks need it."""
    loaded = FeatureExtractor.load(name, device, _BATCH)
    cell = loaded.image_size // loaded.grid
    settings = replace(loaded.settings, image_size=max(_CELLS * cell, loaded.image_size))
    return FeatureExtractor(loaded.model, settings, _BATCH)


@dataclass(frozen=True)
class LabelledVideo:
    """A video, and the objects of its first frame.

    first: that frame, upright. ids: (height, width) uint8 of its size, 0 where there is no object.
    """

    source: Path
    video: Video
    first: Photo
    ids: NDArray[np.uint8]


def open_labelled(source: Path, mask: Path) -> LabelledVideo:
    """A folder of frames or a video file (`open_video`), and its mask (`read_first_ids`).

    Raises WaldoError where one of them cannot be read, and where the mask is not of the first
    frame's size.
    """
    video, ids = open_video(source), read_first_ids(mask)
    first = next(video.frames(), None)
    if first is None:
        raise WaldoError(f"{source}: holds no frame")
    if first.photo is None:
        raise WaldoError(f"{first.problem}; it is the first frame, which the mask is of")
    photo = first.photo
    if ids.shape != (photo.height, photo.width):
        raise WaldoError(
            f"--mask {mask}: is {ids.shape[1]} x {ids.shape[0]} pixels, the first frame "
            f"{photo.width} x {photo.height} (upright); make it from that very frame"
        )
    return LabelledVideo(source, video, photo, ids)


def propagate_video(
    labelled: LabelledVideo,
    out: Path,
    extractor: Extractor,
    on_frame: Callable[[int, int | None, float], None] | None = None,
) -> PropagationReport:
    """Write the object ids of every frame of a video as a palette PNG in the folder `out`.

    Files are called as their frames and have the frames' size; beside them lie a contact sheet and,
    where it can be made, a video to look at. A frame that cannot be used gets the labels of the
    frame before. on_frame is told how many frames are done, how many there are (None while
    unknown), and after how many seconds. Raises WaldoError where `out` holds the frames.
    """
    began = time.monotonic()
    if out.resolve() == labelled.source.resolve():
        raise WaldoError(f"--out {out}: holds the frames; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    first, ids, video = labelled.first, labelled.ids, labelled.video
    frames = video.frames()
    start = (next(frames), ids)
    picture = first.image
    scale = min(1.0, _DRAWN / max(picture.size))
    size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    sheet, failed, done = ContactSheet(), [], 0
    with OverlayVideo(out / "overlay.mp4", size, video.rate) as overlay:
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
    """The mask of a first frame, (height, width) uint8 object ids, 0 where there is no object.

    As `read_ids`, but void (255) is no object; and of a picture in black and white alone, white is
    object 1. Raises WaldoError where no object is shown.
    """
    ids = read_ids(path)
    numbers = set(np.unique(ids).tolist()) - {0}
    if not numbers:
        raise WaldoError(f"--mask {path}: shows no object; its objects must be 1, 2, ... in it")
    return np.where(ids == 255, 1 if numbers == {255} else 0, ids).astype(np.uint8)

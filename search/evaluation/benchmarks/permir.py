"""PerMIR and PerMIS (PDM, NeurIPS 2024): how the folder of both is laid out and read.

`search.evaluation.benchmarks.burst` makes such a folder.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import WaldoError
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, read_json
from search.evaluation.benchmarks.labelled_objects import (
    MaskedPhoto,
    SegmentationObject,
    box_of_mask,
    check_sizes,
    read_mask,
)
from search.query import Query

# The file of a folder that lists its videos.
LISTING = "permir.json"

FRAMES_PER_VIDEO = 3


@dataclass(frozen=True)
class ChosenFrame:
    """A frame of a video.

    image: SPLIT/SOURCE/SEQUENCE/FILE, as below BURST's frames. index: its place among the video's
    annotated frames. classes: those of all objects annotated in it, sorted. rle: the mask of the
    chosen object, for `run_lengths.decode_rle`.
    """

    image: str
    index: int
    classes: list[str]
    rle: str


@dataclass(frozen=True)
class ChosenVideo:
    """An object in three frames of a video, each with another object of its class.

    name: SPLIT/SOURCE/SEQUENCE. track: the object's id in the video. class_name: what it is, in
    words. width, height: of the frames, pixels. frames: in the order of choice; the first shows the
    object's largest box. query: the place in `frames` of the largest mask.
    """

    name: str
    track: int
    class_name: str
    width: int
    height: int
    frames: list[ChosenFrame]
    query: int


def read_permir(root: Path) -> Benchmark:
    """Read PerMIR: retrieval among objects of the same class.

    The query of a video is its frame with the largest mask, with the mask and the class name. The
    gallery holds the other frames of all videos; the two of the query's own video are relevant. A
    gallery photo shows the classes annotated in it; BURST does not claim to annotate all. Raises
    WaldoError where the folder is incomplete.
    """
    gallery: list[Path] = []
    classes: list[set[str]] = []
    shown: list[int] = []
    boxes: list[tuple[Box, ...]] = []
    videos = _read_videos(root)
    for number, video in enumerate(videos):
        for place, frame in enumerate(video.frames):
            if place != video.query:
                pair = masked_photo(root, frame)
                gallery.append(pair.photo)
                boxes.append(box_of_mask(read_mask(pair.mask)))
                classes.append(set(frame.classes))
                shown.append(number)
    queries = []
    for number, video in enumerate(videos):
        asked = masked_photo(root, video.frames[video.query])
        relevant = np.array(shown) == number
        named = np.array([video.class_name in names for names in classes])
        queries.append(
            BenchmarkQuery(
                Query(asked.photo, video.class_name, mask=asked.mask),
                np.flatnonzero(relevant),
                ignored=np.empty(0, dtype=np.int64),
                confusable=bool((named & ~relevant).any()),
                boxes={place: boxes[place] for place in np.flatnonzero(relevant).tolist()},
            )
        )
    convention = f"{len(videos)} videos"
    return Benchmark("permir", gallery, classes, queries, [], convention=convention)


def read_permis(root: Path) -> list[SegmentationObject]:
    """Read PerMIS-image: segmentation among objects of the same class.

    The first chosen frame of a video is the reference, the other two are the targets. Raises
    WaldoError where the folder is incomplete.
    """
    objects = []
    for video in _read_videos(root):
        first, *others = (masked_photo(root, frame) for frame in video.frames)
        objects.append(SegmentationObject(video.name, video.class_name, first, others))
    return objects


def masked_photo(root: Path, frame: ChosenFrame) -> MaskedPhoto:
    """The files of a frame and of its object's mask in the benchmark's folder."""
    photo = root / "photos" / frame.image
    return MaskedPhoto(photo, (root / "masks" / frame.image).with_suffix(".png"))


def _read_videos(root: Path) -> list[ChosenVideo]:
    """The videos of the folder; all their files are there."""
    path = root / LISTING
    if not path.is_file():
        raise WaldoError(
            f"{root}: holds no {LISTING}; `waldo prepare permir` makes such a folder from BURST"
        )
    content = read_json(path)
    try:
        videos = [
            ChosenVideo(**{**entry, "frames": [ChosenFrame(**frame) for frame in entry["frames"]]})
            for entry in content["videos"]
        ]
        pairs = [masked_photo(root, frame) for video in videos for frame in video.frames]
    except (KeyError, TypeError, ValueError) as error:
        raise WaldoError(
            f"{path}: not laid out as `waldo prepare permir` writes it ({error!r})"
        ) from None
    n = FRAMES_PER_VIDEO
    if not videos or any(len(v.frames) != n or v.query not in range(n) for v in videos):
        raise WaldoError(f"{path}: must hold videos of {n} frames each, the query among them")
    missing = [file for pair in pairs for file in (pair.photo, pair.mask) if not file.is_file()]
    if missing:
        raise WaldoError(
            f"{missing[0]}: no such file; {len(missing)} of the {2 * len(pairs)} that {LISTING} "
            "needs are missing"
        )
    for pair in pairs:
        check_sizes(pair.photo, pair.mask)
    return videos

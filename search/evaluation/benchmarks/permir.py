"""PerMIR and PerMIS (PDM, NeurIPS 2024): how the folder of both is laid out and read.

`search.evaluation.benchmarks.burst` makes such a folder. `permir_folders` reads the other layout,
that of the code published with PDM.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import WaldoError
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, read_json
from search.evaluation.benchmarks.labelled_objects import (
    MaskedPhoto,
    SegmentationBenchmark,
    SegmentationObject,
    box_of_mask,
    check_sizes,
    read_mask,
)
from search.evaluation.benchmarks.permir_folders import read_video_folders
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


@dataclass(frozen=True)
class _Video:
    """A video of either layout.

    class_name: what the object is, None where nobody says. classes: those that each frame shows,
    None where nobody says. query: the place in `frames` of the largest mask.
    """

    name: str
    class_name: str | None
    frames: list[MaskedPhoto]
    classes: list[set[str]] | None
    query: int


def read_permir(root: Path) -> Benchmark:
    """Read PerMIR: retrieval among objects of the same class.

    The query of a video is its frame with the largest mask, with the mask and the class name. The
    gallery holds the other frames of all videos; the two of the query's own video are relevant. A
    gallery photo shows the classes annotated in it; BURST does not claim to annotate all.

    root: as `waldo prepare permir` makes it, or with a folder for each video, as `permir_folders`
    reads them, which tell no class; the convention says which. Raises WaldoError where the folder
    is incomplete.
    """
    gallery: list[Path] = []
    classes: list[set[str]] = []
    shown: list[int] = []
    boxes: list[tuple[Box, ...]] = []
    videos, convention = _read_either(root)
    for number, video in enumerate(videos):
        for place, pair in enumerate(video.frames):
            if place != video.query:
                gallery.append(pair.photo)
                boxes.append(box_of_mask(read_mask(pair.mask)))
                shown.append(number)
                if video.classes is not None:
                    classes.append(video.classes[place])
    queries = []
    for number, video in enumerate(videos):
        asked = video.frames[video.query]
        relevant = np.array(shown) == number
        named = np.array([video.class_name in names for names in classes])
        queries.append(
            BenchmarkQuery(
                Query(asked.photo, video.class_name, mask=asked.mask),
                np.flatnonzero(relevant),
                ignored=np.empty(0, dtype=np.int64),
                confusable=bool(len(named)) and bool((named & ~relevant).any()),
                boxes={
                    place: boxes[place]
                    for place in np.flatnonzero(relevant).tolist()
                    if boxes[place]
                },
            )
        )
    return Benchmark("permir", gallery, classes or None, queries, [], convention=convention)


def read_permis(root: Path) -> SegmentationBenchmark:
    """Read PerMIS-image: segmentation among objects of the same class.

    The first frame of a video is the reference, the other two are the targets. root: as of
    `read_permir`, with the same convention. Raises WaldoError where the folder is incomplete.
    """
    objects = []
    videos, convention = _read_either(root)
    for video in videos:
        first, *others = video.frames
        objects.append(SegmentationObject(video.name, video.class_name, first, others))
    return SegmentationBenchmark(objects, convention)


def masked_photo(root: Path, frame: ChosenFrame) -> MaskedPhoto:
    """The files of a frame and of its object's mask in the benchmark's folder."""
    photo = root / "photos" / frame.image
    return MaskedPhoto(photo, (root / "masks" / frame.image).with_suffix(".png"))


def _read_either(root: Path) -> tuple[list[_Video], str]:
    """The videos of a folder of either layout, and its convention."""
    if not (root / LISTING).is_file() and (folders := read_video_folders(root)):
        videos = [
            _Video(name, None, frames, None, _largest(frames)) for name, frames in folders.items()
        ]
        return videos, f"{len(videos)} folders"
    chosen = _read_videos(root)
    videos = [
        _Video(
            *(video.name, video.class_name),
            [masked_photo(root, frame) for frame in video.frames],
            [set(frame.classes) for frame in video.frames],
            video.query,
        )
        for video in chosen
    ]
    return videos, f"{len(videos)} videos"


def _largest(frames: list[MaskedPhoto]) -> int:
    """The place of the first frame with the largest mask, in pixels."""
    sizes = [int(read_mask(frame.mask).sum()) for frame in frames]
    if not max(sizes):
        raise WaldoError(f"{frames[0].mask.parent}: shows the object in no frame; all masks are 0")
    return sizes.index(max(sizes))


def _read_videos(root: Path) -> list[ChosenVideo]:
    """The videos of the folder; all their files are there."""
    path = root / LISTING
    if not path.is_file():
        raise WaldoError(
            f"{root}: holds no {LISTING}, and no folders of videos; `waldo prepare permir` makes "
            "such a folder from BURST"
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

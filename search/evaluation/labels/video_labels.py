"""Labels carried through videos, measured on DAVIS-2017: J, F and J&F of each object."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.photo import load_photo
from indexer.protocols import Extractor
from search.evaluation.benchmarks.labelled_objects import AnnotatedVideo, read_annotation
from search.evaluation.by_object import (
    Results,
    choose_methods,
    measure_items,
    objects_folder,
    objects_json,
)
from search.evaluation.methods.baselines import PatchExtractor
from search.evaluation.metrics.masks import (
    FrameStatistics,
    boundary_f_measure,
    frame_statistics,
    j_and_f,
    mask_iou,
)
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.run_store import RunResults
from search.evaluation.steps import OnStep
from search.segmentation.frames import VideoFrame
from search.segmentation.propagate import carry_labels

Ids = NDArray[np.uint8]
# Gives the object ids of a video's frames after the first, from those of the first.
VideoMethod = Callable[[AnnotatedVideo, Ids, Extractor], Iterator[Ids]]


def _propagated(video: AnnotatedVideo, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(video, ids, extractor, sharpen=True)


def _propagated_cells(video: AnnotatedVideo, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(video, ids, extractor, sharpen=False)


def _rgb_patches(video: AnnotatedVideo, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(video, ids, PatchExtractor(extractor.grid), sharpen=True)


def _first_mask(video: AnnotatedVideo, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return (ids for _ in video.frames[1:])


VIDEO_METHODS: dict[str, VideoMethod] = {
    "propagate": _propagated,  # the method of `waldo propagate`
    "propagate-unsharpened": _propagated_cells,  # the same without the guided filter
    "rgb-patches": _rgb_patches,  # the same by the colours of as many cells
    "first-mask": _first_mask,  # nothing moves
}


def _carried(video: AnnotatedVideo, ids: Ids, extractor: Extractor, sharpen: bool) -> Iterator[Ids]:
    # A broken frame ends an evaluation, because the result without it would be another number.
    photos = map(load_photo, video.frames)
    first = next(photos)
    frames = (VideoFrame(photo.path.stem, photo) for photo in photos)
    for _, found in carry_labels(first, ids, frames, extractor, sharpen=sharpen):
        yield found


@dataclass(frozen=True)
class VideoResult:
    """How well a method followed one object: J and F over the frames that count."""

    sequence: str
    object_id: int
    j: FrameStatistics
    f: FrameStatistics


def select_video_methods(names: list[str]) -> dict[str, VideoMethod]:
    """Methods by name; all where no name is given. Raises WaldoError for an unknown name."""
    return choose_methods(names, VIDEO_METHODS)


def videos_folder(
    work: Path, protocol: str, videos: list[AnnotatedVideo], extractor: Extractor
) -> Path:
    """The folder for the results of an unfinished `evaluate_videos`.

    Raises WaldoError for a missing file.
    """
    files = [path for video in videos for path in (*video.frames, *video.annotations)]
    asked = [[video.name, video.objects, len(video.frames)] for video in videos]
    return objects_folder(work, protocol, files, extractor, asked)


def evaluate_videos(
    protocol: str,
    videos: list[AnnotatedVideo],
    extractor: Extractor,
    methods: dict[str, VideoMethod],
    stored: RunResults,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Run methods on the videos of a benchmark; the report is JSON-ready, see `objects_json`.

    A method's summary holds J&F with its 95 % bootstrap interval over objects, and the mean, recall
    and decay of J and F.

    stored: gets the results of each video by each method; those that it has already are not
    measured again. Raises PhotoError for a frame that cannot be read.
    """

    def measure(video: AnnotatedVideo, names: list[str]) -> Iterator[tuple[str, Results]]:
        for name in names:
            found = measure_video(video, methods[name], extractor)
            yield name, [asdict(result) for result in found]

    items = {video.name: video for video in videos}
    results = measure_items(items, list(methods), measure, stored, on_step)
    n_objects = sum(len(video.objects) for video in videos)
    n_frames = sum(len(video.frames) for video in videos)
    return objects_json(protocol, extractor, results, _summary, n_objects, n_frames)


def measure_video(
    video: AnnotatedVideo, method: VideoMethod, extractor: Extractor
) -> list[VideoResult]:
    """The result of a method on each object of a video; the first and the last frame do not
    count.
    """
    first = read_annotation(video.annotations[0])
    counted = video.annotations[1:-1]
    j: dict[int, list[float]] = {number: [] for number in video.objects}
    f: dict[int, list[float]] = {number: [] for number in video.objects}
    for path, ids in zip(counted, method(video, first, extractor), strict=False):
        truth = read_annotation(path)
        for number in video.objects:
            j[number].append(mask_iou(ids == number, truth == number))
            f[number].append(boundary_f_measure(ids == number, truth == number))
    return [
        VideoResult(video.name, number, frame_statistics(j[number]), frame_statistics(f[number]))
        for number in video.objects
    ]


def _summary(results: Results) -> dict[str, Any]:
    j = [FrameStatistics(**result["j"]) for result in results]
    f = [FrameStatistics(**result["f"]) for result in results]
    both = [j_and_f(*pair) for pair in zip(j, f, strict=True)]
    values: dict[str, Any] = {
        "J&F": float(np.mean(both)),
        "J&F_interval": list(bootstrap_interval(both)),
    }
    for name, statistics in (("J", j), ("F", f)):
        values[name] = float(np.mean([found.mean for found in statistics]))
        values[f"{name}_recall"] = float(np.mean([found.recall for found in statistics]))
        values[f"{name}_decay"] = float(np.mean([found.decay for found in statistics]))
    return values

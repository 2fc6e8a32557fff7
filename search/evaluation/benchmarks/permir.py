"""PerMIR and PerMIS (PDM, NeurIPS 2024), built from the videos of BURST (Athar et al., WACV 2023).

`prepare_permir` chooses the frames once and writes them to a folder of its own, from which runs
read both benchmarks.
"""

import json
import shutil
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.perseg import MaskedPhoto, SegmentationObject, check_sizes
from search.query import Query

# Sources of BURST's videos that the build leaves out.
_DROPPED_SOURCES = frozenset({"HACS", "AVA", "LaSOT"})

_FRAMES_PER_VIDEO = 3

# Other frames are further than this from the first, in annotated frames.
_APART = 15

# Every chosen mask covers at least this share of its image.
_SMALLEST = 0.005


@dataclass(frozen=True)
class ChosenFrame:
    """image: SPLIT/SOURCE/SEQUENCE/FILE, as below BURST's frames. index: its place among the
    video's annotated frames. classes: of all objects annotated in it, sorted. rle: the chosen
    object's mask, for `decode_rle`.
    """

    image: str
    index: int
    classes: list[str]
    rle: str


@dataclass(frozen=True)
class ChosenVideo:
    """An object in three frames of a video, others of its class beside it.

    name: SPLIT/SOURCE/SEQUENCE. track: the object's id in the video. class_name: what it is, in
    words. width, height: of the frames, in pixels. frames: in the order of choice; the first shows
    the object's largest box. query: the place in `frames` of the largest mask.
    """

    name: str
    track: int
    class_name: str
    width: int
    height: int
    frames: list[ChosenFrame]
    query: int


def choose_frames(annotations: Path, seed: int = 0) -> list[ChosenVideo]:
    """The build rule of PerMIR and PerMIS, on one of BURST's `all_classes.json`.

    Videos come in the file's order. Those from HACS, AVA and LaSOT are dropped. A frame counts for
    a track where another track of its category is annotated too; the track that has most such
    frames is chosen. Of these frames the first is the one with the largest box around the mask
    (width x height as a share of the image), then come the next two largest of those more than 15
    annotated frames from the first, however near to each other. A video is skipped where that
    gives fewer than three frames, or where one of the three masks covers less than 0.5 % of
    its image (the published code measures that after cropping around the true box).

    Left open by the rule and settled here: where tracks or boxes tie, a random generator of the
    seed and the video's name decides, so a video's choice does not depend on the other videos. Of
    equally large masks, the query is the earlier in order of choice. A track whose mask is empty in
    a frame is not a candidate there, though the frame counts. Class names are BURST's, without
    what stands in brackets: "car_(automobile)" is "car".

    Raises WaldoError where the file is not laid out as BURST's.
    """
    content = _read_json(annotations)
    try:
        categories = {
            category["id"]: category["name"].split("_(")[0].replace("_", " ")
            for category in content["categories"]
        }
        chosen = [
            _choose(annotations, content["split"], video, categories, seed)
            for video in content["sequences"]
            if video["dataset"] not in _DROPPED_SOURCES
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WaldoError(
            f"{annotations}: not laid out as BURST's all_classes.json ({error!r})"
        ) from None
    return [video for video in chosen if video is not None]


def prepare_permir(burst: Path, out: Path, seed: int = 0) -> list[ChosenVideo]:
    """Choose the frames of every split in a BURST folder, and write the benchmark's folder.

    burst: holds `annotations/SPLIT/all_classes.json` and the pictures of TAO as
    `frames/SPLIT/SOURCE/SEQUENCE/FILE`. The paper does not say which splits it took: leave out
    those that are not to be. out: gets `permir.json` (the choice; whole by itself with its masks as
    RLE), `photos/` (copies of the chosen frames) and `masks/` (the same masks as PNG, under the
    frames' names), and is all that a run needs.

    Returns what was chosen. Raises WaldoError where a choice is there already, where the BURST
    folder is not laid out so or lacks a chosen frame, where no video qualifies, and where the
    folder cannot be written.
    """
    listing = out / "permir.json"
    if listing.exists():
        raise WaldoError(
            f"{listing}: is there already; frames are chosen once, and runs reuse them"
        )
    files = sorted((burst / "annotations").glob("*/all_classes.json"))
    if not files:
        raise WaldoError(
            f"{burst}: holds no annotations/SPLIT/all_classes.json; unpack BURST's annotations.zip "
            "to annotations, and TAO's pictures to frames"
        )
    videos = [video for file in files for video in choose_frames(file, seed)]
    if not videos:
        raise WaldoError(
            f"{burst}: no video qualifies: three frames are needed, far apart, in which an object "
            "has another of its class beside it"
        )
    images = [frame.image for video in videos for frame in video.frames]
    missing = [image for image in images if not (burst / "frames" / image).is_file()]
    if missing:
        raise WaldoError(
            f"{burst / 'frames' / missing[0]}: no such frame; {len(missing)} of the "
            f"{len(images)} chosen are missing"
        )
    try:
        for video in videos:
            for frame in video.frames:
                pair = _pair(out, frame)
                for path in (pair.photo, pair.mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(burst / "frames" / frame.image, pair.photo)
                Image.fromarray(decode_rle(frame.rle, video.height, video.width)).save(pair.mask)
        # Last and at once, so that a folder with a choice is whole.
        partial = out / "permir.json.partial"
        choice = {"seed": seed, "videos": [asdict(video) for video in videos]}
        partial.write_text(json.dumps(choice), encoding="utf-8")
        partial.replace(listing)
    except OSError as error:
        raise WaldoError(f"{out}: cannot be written ({error})") from None
    return videos


def read_permir(root: Path) -> Benchmark:
    """PerMIR, from a folder that `prepare_permir` made: retrieval among look-alikes.

    A video's query is its frame with the largest mask, by mask and class name; the gallery holds
    the other frames of every video, of which the two of the same video are relevant. A gallery
    photo shows the classes annotated in it, which BURST does not claim to be all. Raises
    WaldoError where the folder is not whole.
    """
    gallery: list[Path] = []
    classes: list[set[str]] = []
    shown: list[int] = []
    videos = _read_choice(root)
    for number, video in enumerate(videos):
        for place, frame in enumerate(video.frames):
            if place != video.query:
                gallery.append(_pair(root, frame).photo)
                classes.append(set(frame.classes))
                shown.append(number)
    queries = []
    for number, video in enumerate(videos):
        asked = _pair(root, video.frames[video.query])
        relevant = np.array(shown) == number
        named = np.array([video.class_name in names for names in classes])
        queries.append(
            BenchmarkQuery(
                Query(asked.photo, video.class_name, mask=asked.mask),
                relevant,
                ignored=np.zeros(len(gallery), dtype=bool),
                confusable=bool((named & ~relevant).any()),
            )
        )
    return Benchmark("permir", gallery, classes, queries, [])


def read_permis(root: Path) -> list[SegmentationObject]:
    """PerMIS-image, from a folder that `prepare_permir` made: segmentation among look-alikes.

    A video's reference is its first chosen frame; the other two are its targets. Raises WaldoError
    where the folder is not whole.
    """
    objects = []
    for video in _read_choice(root):
        first, *others = (_pair(root, frame) for frame in video.frames)
        objects.append(SegmentationObject(video.name, video.class_name, first, others))
    return objects


def decode_rle(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """A mask from COCO's compressed run lengths, (height, width) bool.

    counts: run lengths down the columns, background first. A number is written as by LEB128, but in
    digits of 5 bits, the lowest first, each as the character 48 + digit, plus 32 where more
    follow; the last one's bit 16 is the sign. From the fourth run on, what is written is the
    difference from the run two before. Raises ValueError for a text that is no such code, or not of
    a mask of this size.

    >>> decode_rle("114", height=2, width=3).astype(int)
    array([[0, 0, 0],
           [1, 0, 0]])
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{character!r} is no character of a run-length code")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        if not 0 <= number <= height * width:
            raise ValueError(f"a run of {number} pixels in a mask of {width} x {height}")
        runs.append(number)
        number = shift = 0
    if shift:
        raise ValueError("ends within a number")
    if sum(runs) != height * width:
        raise ValueError(f"ends after {sum(runs)} pixels of {width} x {height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _choose(
    annotations: Path, split: str, video: dict[str, Any], categories: dict[int, str], seed: int
) -> ChosenVideo | None:
    """The choice from one video of BURST, or None where it is skipped."""
    name = f"{split}/{video['dataset']}/{video['seq_name']}"
    height, width = video["height"], video["width"]
    category_of = {int(key): value for key, value in video["track_category_ids"].items()}
    shown = [{int(key): value for key, value in frame.items()} for frame in video["segmentations"]]
    frames_of: dict[int, list[int]] = {}
    for index, tracks in enumerate(shown):
        frequency = Counter(category_of[track] for track in tracks)
        for track in tracks:
            if frequency[category_of[track]] > 1:
                frames_of.setdefault(track, []).append(index)
    if not frames_of:
        return None
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    tracks_by_id = sorted(frames_of)
    lots = dict(zip(tracks_by_id, random.permutation(len(tracks_by_id)), strict=True))
    chosen = max(tracks_by_id, key=lambda track: (len(frames_of[track]), lots[track]))

    boxes, areas = {}, {}
    for index in frames_of[chosen]:
        try:
            mask = decode_rle(shown[index][chosen]["rle"], height, width)
        except ValueError as error:
            raise WaldoError(
                f"{annotations}: {name}, annotated frame {index}, track {chosen}: {error}"
            ) from None
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes[index] = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
            areas[index] = int(mask.sum())
    lots = dict(zip(boxes, random.permutation(len(boxes)), strict=True))
    by_size = sorted(boxes, key=lambda index: (-boxes[index], lots[index]))
    apart = [index for index in by_size if abs(index - by_size[0]) > _APART]
    indices = [*by_size[:1], *apart[: _FRAMES_PER_VIDEO - 1]]
    if len(indices) < _FRAMES_PER_VIDEO:
        return None
    if any(areas[index] < _SMALLEST * height * width for index in indices):
        return None
    return ChosenVideo(
        name=name,
        track=chosen,
        class_name=categories[category_of[chosen]],
        width=width,
        height=height,
        frames=[
            ChosenFrame(
                image=_safe_path(f"{name}/{video['annotated_image_paths'][index]}"),
                index=index,
                classes=sorted({categories[category_of[track]] for track in shown[index]}),
                rle=shown[index][chosen]["rle"],
            )
            for index in indices
        ],
        query=max(range(len(indices)), key=lambda place: areas[indices[place]]),
    )


def _safe_path(image: str) -> str:
    """The path itself, which must not lead out of the folder that it is put in."""
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{image} leads out of its folder")
    return image


def _pair(root: Path, frame: ChosenFrame) -> MaskedPhoto:
    """Where a chosen frame and its mask lie in a folder that `prepare_permir` made."""
    photo = root / "photos" / frame.image
    return MaskedPhoto(photo, (root / "masks" / frame.image).with_suffix(".png"))


def _read_choice(root: Path) -> list[ChosenVideo]:
    """The videos in a folder that `prepare_permir` made, every file in its place."""
    path = root / "permir.json"
    if not path.is_file():
        raise WaldoError(
            f"--root {root}: holds no permir.json; `waldo prepare permir` makes such a folder "
            "from BURST"
        )
    content = _read_json(path)
    try:
        videos = [
            ChosenVideo(**{**entry, "frames": [ChosenFrame(**frame) for frame in entry["frames"]]})
            for entry in content["videos"]
        ]
        pairs = [_pair(root, frame) for video in videos for frame in video.frames]
    except (KeyError, TypeError, ValueError) as error:
        raise WaldoError(
            f"{path}: not laid out as `waldo prepare permir` writes it ({error!r})"
        ) from None
    n = _FRAMES_PER_VIDEO
    if not videos or any(len(v.frames) != n or v.query not in range(n) for v in videos):
        raise WaldoError(f"{path}: must hold videos of {n} frames each, the query among them")
    missing = [file for pair in pairs for file in (pair.photo, pair.mask) if not file.is_file()]
    if missing:
        raise WaldoError(
            f"{missing[0]}: no such file; {len(missing)} of the {2 * len(pairs)} that permir.json "
            "needs are missing"
        )
    for pair in pairs:
        check_sizes(pair.photo, pair.mask)
    return videos


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WaldoError(f"{path}: not JSON ({error})") from None

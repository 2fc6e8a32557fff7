"""The folder of PerMIR and PerMIS, made from the videos of BURST (Athar et al., WACV 2023).

The frames are chosen once and written to a folder of their own, from which every evaluation reads
both benchmarks.
"""

import json
import shutil
import zlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import read_json
from search.evaluation.benchmarks.permir import (
    FRAMES_PER_VIDEO,
    LISTING,
    ChosenFrame,
    ChosenVideo,
    masked_photo,
)
from search.evaluation.benchmarks.run_lengths import decode_rle

# Sources of BURST's videos that are left out.
_EXCLUDED_SOURCES = frozenset({"HACS", "AVA", "LaSOT"})

# The other frames are further than this from the first, in annotated frames.
_DISTANCE = 15

# Every chosen mask covers at least this share of its image.
_SMALLEST = 0.005


def prepare_permir(burst: Path, out: Path, seed: int = 0) -> list[ChosenVideo]:
    """Choose frames from every split in a BURST folder, and write the benchmarks' folder.

    burst: holds `annotations/SPLIT/all_classes.json`, and the pictures of TAO as
    `frames/SPLIT/SOURCE/SEQUENCE/FILE`. The paper does not say which splits it took; a split that
    should not be used must not be in the folder. out: gets `permir.json` (the choice, with its
    masks as RLE), `photos/` (copies of the chosen frames) and `masks/` (the same masks as PNG, with
    the frames' names). An evaluation needs nothing else.

    Returns the choice. Raises WaldoError where `out` holds a choice already, where the BURST folder
    has another layout or lacks a chosen frame, where no video qualifies, and where `out` cannot be
    written.
    """
    listing = out / LISTING
    if listing.exists():
        raise WaldoError(
            f"{listing}: is there already; frames are chosen once, and every evaluation uses them"
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
            f"{burst}: no video qualifies: it needs three frames, far apart, in which an object "
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
                pair = masked_photo(out, frame)
                for path in (pair.photo, pair.mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(burst / "frames" / frame.image, pair.photo)
                Image.fromarray(decode_rle(frame.rle, video.height, video.width)).save(pair.mask)
        # The list comes last and at once, so a folder that has it is complete.
        partial = out / f"{LISTING}.partial"
        choice = {"seed": seed, "videos": [asdict(video) for video in videos]}
        partial.write_text(json.dumps(choice), encoding="utf-8")
        partial.replace(listing)
    except OSError as error:
        raise WaldoError(f"{out}: cannot be written ({error})") from None
    return videos


def choose_frames(annotations: Path, seed: int = 0) -> list[ChosenVideo]:
    """Apply the rule by which PerMIR and PerMIS are built to one of BURST's `all_classes.json`.

    Videos come in the order of the file, without those from HACS, AVA and LaSOT. A frame counts for
    a track if another track of its category is annotated in it too; the track with the most such
    frames is chosen. Of these frames, the first is the one with the largest box around the mask
    (width x height as a share of the image). The other two are the next largest of those more than
    15 annotated frames away from the first, however near to each other. A video is skipped if this
    gives fewer than three frames, or if one of the three masks covers less than 0.5 % of its image
    (the published code measures that after cropping around the true box).

    The rule leaves some choices open. Where tracks or boxes tie, a random generator decides, seeded
    with the seed and the video's name, so the choice for a video does not depend on other videos.
    Of equally large masks, the query is the earlier in order of choice. A track whose mask is empty
    in a frame is no candidate there, though the frame counts. Class names are BURST's without the
    part in brackets: "car_(automobile)" becomes "car".

    Raises WaldoError where the file is not laid out as BURST's.
    """
    content = read_json(annotations)
    try:
        categories = {
            category["id"]: category["name"].split("_(")[0].replace("_", " ")
            for category in content["categories"]
        }
        chosen = [
            _choose(annotations, content["split"], video, categories, seed)
            for video in content["sequences"]
            if video["dataset"] not in _EXCLUDED_SOURCES
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WaldoError(
            f"{annotations}: not laid out as BURST's all_classes.json ({error!r})"
        ) from None
    return [video for video in chosen if video is not None]


def _choose(
    annotations: Path, split: str, video: dict[str, Any], categories: dict[int, str], seed: int
) -> ChosenVideo | None:
    """The choice from one video of BURST; None for a video that is skipped."""
    name = f"{split}/{video['dataset']}/{video['seq_name']}"
    height, width = video["height"], video["width"]
    category_of = {int(key): value for key, value in video["track_category_ids"].items()}
    shown = [{int(key): value for key, value in frame.items()} for frame in video["segmentations"]]
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    found = _choose_track(shown, category_of, random)
    if found is None:
        return None
    track, candidates = found
    boxes, mask_areas = {}, {}
    for index in candidates:
        try:
            mask = decode_rle(shown[index][track]["rle"], height, width)
        except ValueError as error:
            raise WaldoError(
                f"{annotations}: {name}, annotated frame {index}, track {track}: {error}"
            ) from None
        if mask.any():
            boxes[index], mask_areas[index] = _box_area(mask), int(mask.sum())
    indices = _choose_indices(boxes, random)
    areas = [mask_areas[index] for index in indices]
    if len(indices) < FRAMES_PER_VIDEO or min(areas) < _SMALLEST * height * width:
        return None
    frames = [
        ChosenFrame(
            image=_safe_path(f"{name}/{video['annotated_image_paths'][index]}"),
            index=index,
            classes=sorted({categories[category_of[other]] for other in shown[index]}),
            rle=shown[index][track]["rle"],
        )
        for index in indices
    ]
    class_name = categories[category_of[track]]
    return ChosenVideo(name, track, class_name, width, height, frames, areas.index(max(areas)))


def _choose_track(
    shown: list[dict[int, Any]], category_of: dict[int, int], random: np.random.Generator
) -> tuple[int, list[int]] | None:
    """The track with the most frames that count, and these frames; None where no frame counts.

    shown: what is annotated in each frame, by track.
    """
    frames_of: dict[int, list[int]] = {}
    for index, tracks in enumerate(shown):
        frequency = Counter(category_of[track] for track in tracks)
        for track in tracks:
            if frequency[category_of[track]] > 1:
                frames_of.setdefault(track, []).append(index)
    if not frames_of:
        return None
    tracks_by_id = sorted(frames_of)
    lots = dict(zip(tracks_by_id, random.permutation(len(tracks_by_id)), strict=True))
    chosen = max(tracks_by_id, key=lambda track: (len(frames_of[track]), lots[track]))
    return chosen, frames_of[chosen]


def _choose_indices(boxes: dict[int, int], random: np.random.Generator) -> list[int]:
    """The frame with the largest box, and the next largest that are far enough from it.

    boxes: the area of the object's box in each frame.
    """
    lots = dict(zip(boxes, random.permutation(len(boxes)), strict=True))
    by_size = sorted(boxes, key=lambda index: (-boxes[index], lots[index]))
    distant = [index for index in by_size if abs(index - by_size[0]) > _DISTANCE]
    return [*by_size[:1], *distant[: FRAMES_PER_VIDEO - 1]]


def _box_area(mask: NDArray[np.bool_]) -> int:
    """The area of the box around a mask that is not empty, pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)


def _safe_path(image: str) -> str:
    """The path itself; raises ValueError where it leads out of the folder that it is put in."""
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{image} leads out of its folder")
    return image

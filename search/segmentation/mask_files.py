"""Masks written as files: those of `waldo segment`, and those of the matches of a query."""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from features.errors import WaldoError
from features.models import MapExtractor
from features.photo import is_picture
from indexer.collection import Collection
from indexer.ingest.sources import Found, list_photos, open_sources
from indexer.store.files import digest
from search.answer import Answer
from search.reference import Reference
from search.segmentation.drawing import tinted
from search.segmentation.graph_cut import cut_object
from search.segmentation.match_masks import segment_matches
from search.segmentation.segment import (
    Draw,
    Segmentation,
    confidence_of,
    has_confidence,
    score_of,
    segment_photos,
)

if TYPE_CHECKING:
    import torch

# Longer side of an overlay, pixels, at most.
_LONGEST = 1024


@dataclass(frozen=True)
class WrittenMask:
    """The mask of a photo on disk; all paths are absolute.

    path: the photo.
    mask: a PNG of the size of the upright photo, 255 on the object, 0 elsewhere.
    overlay: a JPEG of the photo with the object tinted, at most 1,024 pixels wide or high.
    score: the similarity of the photo and the object. confidence: 0..1, how likely the photo is to
    show the object; None where that is not known.
    box: [x0, y0, x1, y1] around the mask; None where the mask is empty.
    area, share: the size of the mask, in pixels and as a share of the photo's pixels.
    """

    path: Path
    mask: Path
    overlay: Path
    score: float
    confidence: float | None
    box: tuple[int, int, int, int] | None
    area: int
    share: float


@dataclass(frozen=True)
class NotHere:
    """A photo that is taken not to show the object. path: absolute. score, confidence: as in
    WrittenMask.
    """

    path: Path
    score: float
    confidence: float


@dataclass(frozen=True)
class Failure:
    """A photo that has no mask. path: absolute. reason: one line that says why."""

    path: Path
    reason: str


def list_targets(targets: Sequence[Path], out: Path) -> tuple[list[Path], list[Failure]]:
    """The photos that the targets name, each once, and the files that cannot be read.

    targets: photos, folders, and text files that list photos. out: the folder for the masks.
    Raises WaldoError where a target is missing or holds no picture, or where a photo lies in `out`.
    """
    photos, failures = [], []
    for target in targets:
        _check_elsewhere(out, target.resolve(), target)
    for found in list_photos(open_sources(targets, out), out):
        if not isinstance(found, Found):
            failures.append(Failure(Path(found.path), f"{found.path}: {found.reason}"))
        elif is_picture(found.file):
            photos.append(found.file)
    check_out(out, photos)
    return photos, failures


def check_out(out: Path, photos: Iterable[Path]) -> None:
    """Raise WaldoError where a photo lies in `out`, so that no mask overwrites a photo."""
    for photo in photos:
        _check_elsewhere(out, photo.resolve().parent, photo)


def write_masks(
    out: Path,
    reference: Reference,
    photos: Sequence[Path],
    extractor: MapExtractor,
    draw: Draw = cut_object,
    least: float = 0.0,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[list[WrittenMask | NotHere], list[Failure]]:
    """Segment photos, and write STEM.mask.png and STEM.overlay.jpg for those that show the object.

    Photos with equal stems get -2, -3 and so on. least: 0..1, photos of less confidence are taken
    not to show the object; all show it by a model whose confidence is not known. on_done: called
    with the number of photos done. Returns what was found, in the order of the photos, and the
    photos that failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    found_in: list[WrittenMask | NotHere] = []
    failures: list[Failure] = []
    names: set[str] = set()
    known = has_confidence(extractor)
    lowest = score_of(least) if known else -math.inf
    segmented = segment_photos(reference, photos, extractor, draw, lowest)
    for done, (path, found) in enumerate(segmented, start=1):
        # A photo has the same name whether others show the object or not.
        name = _unused(path.stem, names)
        if isinstance(found, WaldoError):
            failures.append(Failure(path, str(found)))
        elif found.score < lowest:
            found_in.append(NotHere(path, found.score, confidence_of(found.score)))
        else:
            sure = confidence_of(found.score) if known else None
            found_in.append(_write(out, name, path, found, sure))
        on_done(done)
    return found_in, failures


def write_match_masks(
    out: Path, reader: Collection, device: "torch.device", answer: Answer
) -> tuple[list[WrittenMask | None], list[Failure]]:
    """Write NNN-STEM.mask.png and NNN-STEM.overlay.jpg for each match; NNN is its rank.

    Returns one entry per match, and the failures. The entry is None where the photo is gone or was
    changed since it was indexed. device: that of the model. Raises WaldoError where a match lies in
    `out`.
    """
    check_out(out, (match.path for match in answer.matches))
    out.mkdir(parents=True, exist_ok=True)
    written: list[WrittenMask | None] = []
    failures = []
    for match, found in segment_matches(reader, answer.references, device, answer.matches):
        if isinstance(found, WaldoError):
            written.append(None)
            failures.append(Failure(match.path, str(found)))
        else:
            name = f"{match.rank:03}-{match.path.stem}"
            written.append(_write(out, name, match.path, found, match.probability))
    return written, failures


def export_photos(out: Path, photos: Iterable[tuple[Path, bool]]) -> list[Failure]:
    """Copy photos into `out` as NNN-NAME; NNN is the place of each, from 1.

    photos: each with whether it was changed since it was indexed; then it is not copied. Returns
    the photos that could not be copied. Raises WaldoError where a file of that name with another
    content is already in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    failures = []
    for rank, (path, changed) in enumerate(photos, start=1):
        copy = out / f"{rank:03}-{path.name}"
        if changed:
            reason = f"{path}: was changed since it was indexed; it was not copied"
            failures.append(Failure(path, reason))
            continue
        try:
            if not copy.exists():
                _copy(path, copy)
            elif digest(path) != digest(copy):
                raise WaldoError(f"{out}: {copy.name} is there already; give a new folder")
        except OSError as error:
            reason = f"{path}: cannot be copied ({error.strerror or error})"
            failures.append(Failure(path, reason))
    return failures


def _copy(path: Path, copy: Path) -> None:
    """Copy a photo, which may lie in a bucket, with its modification time. Raises OSError."""
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    status = path.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))


def _write(
    out: Path, name: str, path: Path, found: Segmentation, sure: float | None
) -> WrittenMask:
    picture = found.picture.copy()
    picture.thumbnail((_LONGEST, _LONGEST))
    mask = Image.fromarray(found.mask.astype(np.uint8) * 255)
    small = (np.asarray(mask.resize(picture.size, Image.Resampling.BOX)) > 127).astype(np.uint8)
    stem = out.resolve() / name
    mask_path, overlay_path = Path(f"{stem}.mask.png"), Path(f"{stem}.overlay.jpg")
    mask.save(mask_path)
    tinted(picture, small).save(overlay_path, quality=90)
    area = int(found.mask.sum())
    share = area / found.mask.size
    return WrittenMask(path, mask_path, overlay_path, found.score, sure, found.box, area, share)


def _unused(stem: str, names: set[str]) -> str:
    """The stem, with a number where it is taken.

    names: the names that are taken, in lower case, because some file systems ignore case. The new
    name is added to them.
    """
    name, number = stem, 1
    while name.lower() in names:
        number += 1
        name = f"{stem}-{number}"
    names.add(name.lower())
    return name


def _check_elsewhere(out: Path, folder: Path, what: Path) -> None:
    if folder == out.resolve():
        raise WaldoError(f"{out}: {what} lies there; give the masks a folder of their own")

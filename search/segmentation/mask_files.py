"""Masks of many photos in a folder: those of `waldo segment`, and those of a query's matches."""

import filecmp
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import is_picture
from indexer.ingest.sources import Found, list_photos, open_sources
from search.index import Index
from search.query import Answer
from search.reference import Reference
from search.segmentation.drawing import tinted
from search.segmentation.match_masks import segment_match
from search.segmentation.segment import (
    Refine,
    Segmentation,
    load_picture,
    segment_photos,
    sharpen,
)


@dataclass(frozen=True)
class WrittenMask:
    """A photo's mask on disk; absolute paths.

    path: the photo. mask: a PNG of its upright size, 255 on the object, 0 elsewhere. overlay: a
    JPEG of the photo, at most 1,024 pixels wide or high, with the object tinted.
    """

    path: Path
    mask: Path
    overlay: Path
    segmentation: Segmentation


@dataclass(frozen=True)
class Failure:
    """A photo without a mask. path: absolute. reason: the line that says why."""

    path: Path
    reason: str


def list_targets(targets: Sequence[Path], out: Path) -> tuple[list[Path], list[Failure]]:
    """The photos that TARGETs name, each once, and what cannot be looked at.

    targets: photos, folders, and text files listing photos. Raises WaldoError where one is missing
    or holds no picture, or where `out`, the folder for the masks, is that of the photos.
    """
    photos, failures = [], []
    for target in targets:
        _check_elsewhere(out, target.resolve(), target)
    for found in list_photos(open_sources(targets, out), out):
        path = Path(found.path)
        if not isinstance(found, Found):
            failures.append(Failure(path, f"{path}: {found.reason}"))
        elif is_picture(path):
            photos.append(path)
    check_out(out, photos)
    return photos, failures


def check_out(out: Path, photos: Iterable[Path]) -> None:
    """Raises WaldoError where a photo lies in the folder that masks go to: none is written over."""
    for photo in photos:
        _check_elsewhere(out, photo.resolve().parent, photo)


def write_masks(
    out: Path,
    reference: Reference,
    photos: Sequence[Path],
    extractor: FeatureExtractor,
    refine: Refine = sharpen,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[list[WrittenMask], list[Failure]]:
    """Segments photos and writes STEM.mask.png and STEM.overlay.jpg of each, and what failed.

    Photos of equal stems get -2, -3 and so on. on_done: called with the number of photos done.
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[WrittenMask] = []
    failures: list[Failure] = []
    names: set[str] = set()
    found_in = segment_photos(reference, photos, extractor, refine)
    for done, (path, found) in enumerate(found_in, start=1):
        if isinstance(found, WaldoError):
            failures.append(Failure(path, str(found)))
        else:
            written.append(_write(out, _unused(path.stem, names), path, found))
        on_done(done)
    return written, failures


def write_match_masks(
    out: Path, index: Index, answer: Answer
) -> tuple[list[WrittenMask | None], list[Failure]]:
    """Writes NNN-STEM.mask.png and NNN-STEM.overlay.jpg of each match, NNN being its rank.

    Gives one of each match, None where its photo is gone or was changed since it was indexed; those
    are the failures. Raises WaldoError where matches lie in `out`.
    """
    check_out(out, (match.path for match in answer.matches))
    out.mkdir(parents=True, exist_ok=True)
    written: list[WrittenMask | None] = []
    failures = []
    segmented = segment_match(index, answer)
    for match in answer.matches:
        try:
            name = f"{match.rank:03}-{match.path.stem}"
            written.append(_write(out, name, match.path, segmented(match)))
        except WaldoError as error:
            written.append(None)
            failures.append(Failure(match.path, str(error)))
    return written, failures


def export_matches(out: Path, answer: Answer) -> list[Failure]:
    """Copies the photos of an answer as NNN-NAME, NNN being the rank; gives those that are gone.

    Raises WaldoError rather than replace a file that is no such copy.
    """
    out.mkdir(parents=True, exist_ok=True)
    failures = []
    for match in answer.matches:
        copy = out / f"{match.rank:03}-{match.path.name}"
        try:
            if not copy.exists():
                shutil.copy2(match.path, copy)
            elif not filecmp.cmp(match.path, copy, shallow=False):
                raise WaldoError(f"--export {out}: {copy.name} is there already; give a new folder")
        except OSError as error:
            reason = f"{match.path}: cannot be copied ({error.strerror or error})"
            failures.append(Failure(match.path, reason))
    return failures


def _write(out: Path, name: str, path: Path, found: Segmentation) -> WrittenMask:
    picture = load_picture(path)
    mask = Image.fromarray(found.mask.astype(np.uint8) * 255)
    small = (np.asarray(mask.resize(picture.size, Image.Resampling.BOX)) > 127).astype(np.uint8)
    stem = out.resolve() / name
    written = WrittenMask(path, Path(f"{stem}.mask.png"), Path(f"{stem}.overlay.jpg"), found)
    mask.save(written.mask)
    tinted(picture, small).save(written.overlay, quality=90)
    return written


def _unused(stem: str, names: set[str]) -> str:
    """The stem, or with the first number that makes it new; on some systems case is no difference.

    names: those that are taken, in lower case; gets the new one.
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

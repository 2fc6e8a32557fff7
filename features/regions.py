"""Which cells of the reference photo belong to the object that is looked for (PDM Eq. 3 and 4)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import RegionError
from features.frame import Frame
from features.maps import FeatureMaps
from features.picture import TooManyPixelsError, eight_bits, open_picture, upright_picture

Box = tuple[float, float, float, float]
Point = tuple[float, float]

# tau of PDM Eq. 3, the paper's value.
CLASS_THRESHOLD = 0.7

# How a point is grown into an object, chosen on validation scenes (docs/scores.md). At first the
# object reaches this many cells around the point, and its surroundings begin at this distance, as a
# share of the photo's side. A cell is compared with this many of the cells of the surroundings that
# resemble it most. Surroundings that resemble the object more than the last are a twin of the
# object, and are not compared with.
_POINT_REACH = 1.5
_SURROUNDINGS = 0.4
_COMPARED = 5
_TWIN = 0.8

# Standard deviation, in cells, of the Gaussian that smooths the evidence for a class before its
# peak is taken as a point on the object.
_SMOOTHED = 2.0

# Cells as near as this to an object are not looked at for the peak of another.
_APART = 2

# The least value of a channel in a mask's white; black is as far from 0.
_WHITE = 240


def class_cells(
    maps: FeatureMaps, class_vector: NDArray[np.float32], tau: float = CLASS_THRESHOLD
) -> NDArray[np.bool_]:
    """M_r of PDM Eq. 3: the cells that attend to the class name, (grid, grid) bool.

    class_vector: C, (d,) float32. tau: from 0 to below 1. The attention softmax(F_S C^T / sqrt(d))
    is taken over the valid cells and min-max normalised to 0..1 before the threshold, so at least
    one cell is left. Raises RegionError where the attention is the same at every cell.
    """
    valid = maps.frame.valid()
    logits = maps.semantic.astype(np.float32) @ class_vector / np.sqrt(len(class_vector))
    attention = np.exp(logits - logits[valid].max())
    low, high = attention[valid].min(), attention[valid].max()
    _check_differs(low, high)
    return valid & ((attention - low) / (high - low) > tau)


def named_cells(
    maps: FeatureMaps,
    evidence_vector: NDArray[np.float32],
    others: Sequence[NDArray[np.bool_]] = (),
) -> NDArray[np.bool_]:
    """The object under the peak of a class's evidence, (grid, grid) bool.

    evidence_vector: (d,) float32; its inner product with F_S, smoothed, is the evidence at a cell.
    others: objects, (grid, grid) bool each; the peak is not looked for in these and within two
    cells of them. Eq. 3 keeps the cells that attend almost as much as the peak, which is often a
    single cell with a small model. This takes the whole object under the peak, as for a point
    (docs/scores.md). Raises RegionError where the evidence has no peak, or no cell is left.
    """
    valid = maps.frame.valid()
    evidence = maps.semantic.astype(np.float32) @ evidence_vector
    _check_differs(evidence[valid].min(), evidence[valid].max())
    return _object_at_peak(maps, evidence, others)


def salient_cells(maps: FeatureMaps, others: Sequence[NDArray[np.bool_]] = ()) -> NDArray[np.bool_]:
    """The object that differs most from the rest of its photo, (grid, grid) bool, by appearance
    alone.

    How much a cell differs is the mean over all cells of 1 - their cosine with it (F_A centred on
    the photo's mean): what is like most of the photo is background. others: as for `named_cells`.
    Raises RegionError where no cell is left.
    """
    valid = maps.frame.valid()
    appearance = maps.appearance.astype(np.float32)
    unit = unit_vectors(appearance - appearance[valid].mean(axis=0))
    return _object_at_peak(maps, -(unit @ unit[valid].mean(axis=0)), others)


def _object_at_peak(
    maps: FeatureMaps, evidence: NDArray[np.float32], others: Sequence[NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """The object under the peak of evidence, (grid, grid) float32, that is smoothed first.

    others: as for `named_cells`. Raises RegionError where no cell is left.
    """
    from scipy import ndimage

    valid = maps.frame.valid()
    weight = ndimage.gaussian_filter(valid.astype(np.float32), _SMOOTHED)
    smooth = ndimage.gaussian_filter(np.where(valid, evidence, 0.0), _SMOOTHED)
    smooth /= np.maximum(weight, 1e-6)
    left = valid.copy()
    for other in others:
        left &= ~ndimage.binary_dilation(other, iterations=_APART)
    if not left.any():
        raise RegionError("the photo shows nothing else")
    peak = np.where(left, smooth, -np.inf).argmax()
    return _object_around(maps, (int(peak) // valid.shape[1], int(peak) % valid.shape[1]))


def mask_cells(frame: Frame, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells of which a mask covers at least half, (grid, grid) bool.

    Where no cell is covered by half, these are the cells that are covered most. mask: (height,
    width) bool in source pixels. Raises RegionError for an empty mask.
    """
    coverage = frame.coverage(mask)
    most = float(coverage.max())
    if most == 0.0:
        raise RegionError("the mask selects nothing; it must be non-zero on the object")
    return coverage >= min(0.5, most)


def check_box(frame: Frame, box: Box) -> None:
    """Raise RegionError for an empty box, and for a box that reaches beyond the photo."""
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise RegionError(
            f"box {_numbers(box)} is empty; it must be x0,y0,x1,y1, the left top corner first"
        )
    if x0 < 0 or y0 < 0 or x1 > frame.width or y1 > frame.height:
        raise RegionError(
            f"box {_numbers(box)} reaches beyond the photo, which is {frame.width} x "
            f"{frame.height} pixels (upright)"
        )


def check_point(frame: Frame, point: Point) -> None:
    """Raise RegionError for a point outside the photo."""
    x, y = point
    if not (0 <= x < frame.width and 0 <= y < frame.height):
        raise RegionError(
            f"point {_numbers(point)} is outside the photo, which is {frame.width} x "
            f"{frame.height} pixels (upright)"
        )


def box_cells(maps: FeatureMaps, box: Box) -> NDArray[np.bool_]:
    """The object in a box [x0, y0, x1, y1] of source pixels, (grid, grid) bool.

    A box holds background too: the half of its cells that resembles the photo outside the box most
    is dropped (by the cosine of appearance with the most similar cell there). A box that covers the
    whole photo keeps all its cells. Raises RegionError as `check_box`.
    """
    frame = maps.frame
    check_box(frame, box)
    x0, y0, x1, y1 = box
    mask = np.zeros((frame.height, frame.width), dtype=bool)
    mask[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))] = True
    inside = mask_cells(frame, mask)
    outside = frame.valid() & ~inside
    if not outside.any():
        return inside
    unit = unit_vectors(maps.appearance.astype(np.float32))
    likeness = (unit[inside] @ unit[outside].T).max(axis=1)
    cells = inside.copy()
    cells[inside] = likeness <= np.median(likeness)
    return cells


def point_cells(maps: FeatureMaps, point: Point) -> NDArray[np.bool_]:
    """The object under a point (x, y) of source pixels, (grid, grid) bool.

    The region grows from the cell under the point over connected cells that resemble the cells
    around the point more than the cells far from it (by the cosine of F_A centred on the photo's
    mean). It then grows once more, over cells that resemble the first region more than its
    surroundings. Raises RegionError as `check_point`.
    """
    check_point(maps.frame, point)
    return _object_around(maps, maps.frame.cell_at(*point))


def _object_around(maps: FeatureMaps, seed: tuple[int, int]) -> NDArray[np.bool_]:
    """The object at a cell (row, column), (grid, grid) bool; see `point_cells`."""
    from scipy import ndimage

    valid = maps.frame.valid()
    appearance = maps.appearance.astype(np.float32)
    unit = unit_vectors(appearance - appearance[valid].mean(axis=0))
    away = np.hypot(*(np.indices(valid.shape) - np.reshape(seed, (2, 1, 1))))
    region = valid & (away <= _POINT_REACH)
    region[seed] = True
    surroundings = valid & (away >= _SURROUNDINGS * np.sqrt(valid.sum()))
    for _ in range(2):
        # One product for all cells: numpy would make one for each row, and threads wait after each.
        like_region = np.tensordot(unit, unit[region], axes=(2, 1)).max(axis=2)
        others = surroundings & (like_region < _TWIN)
        if not others.any():
            break
        like_others = np.tensordot(unit, unit[others], axes=(2, 1))
        like_others = np.sort(like_others, axis=2)[:, :, -_COMPARED:].mean(axis=2)
        chosen = valid & (like_region > like_others)
        chosen[seed] = True
        regions, _ = ndimage.label(chosen)
        region = np.asarray(regions == regions[seed])
        surroundings = valid & ~ndimage.binary_dilation(region, iterations=2)
    return region


def load_mask(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """Read a mask file for a photo of width x height pixels, (height, width) bool.

    Where the transparency of the picture varies, its opaque part is the mask. Otherwise a palette
    image is a mask by index (any but 0), unless all its colours are black and white; any other
    image is one by brightness. Opaque and bright mean more than half of the most in the picture. A
    mask of another size is resized where its ratio of sides agrees with the photo's within 1 %.
    Raises RegionError for another shape, and for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            picture, _ = upright_picture(open_picture(file))
            values = _mask_values(picture)
    except TooManyPixelsError:
        raise RegionError(
            f"mask {path}: too many pixels; scale it down, it is resized to the photo"
        ) from None
    except Exception as error:
        # A decoder raises errors of any kind.
        reason = getattr(error, "strerror", None) or error
        raise RegionError(f"mask {path}: not a readable picture ({reason})") from None
    mask = values > values.max() / 2
    if mask.shape == (height, width):
        return mask
    if abs(mask.shape[1] / mask.shape[0] / (width / height) - 1.0) > 0.01:
        raise RegionError(
            f"mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, the photo {width} x "
            f"{height} (upright): their shapes differ; make the mask from that very photo"
        )
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized)


def _mask_values(picture: Image.Image) -> NDArray[np.uint8]:
    """What a pixel of a mask says, (height, width): much where the object is, 0 elsewhere."""
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha
    if picture.mode == "P" and not _is_black_and_white(picture):
        return (np.asarray(picture) > 0).astype(np.uint8)
    return np.asarray(eight_bits(picture).convert("RGB").convert("L"))


def _is_black_and_white(picture: Image.Image) -> bool:
    """Whether the colours that a palette image uses are black and white, and white is among them.

    JPEGs and editors leave colours that are a little off.
    """
    used = np.array([colour for _, colour in picture.convert("RGB").getcolors(256) or ()])
    white, black = (used >= _WHITE).all(axis=1), (used <= 255 - _WHITE).all(axis=1)
    return bool(white.any() and (white | black).all())


def unit_vectors(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors along the last axis scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _check_differs(low: float, high: float) -> None:
    if high <= low:
        raise RegionError(
            "the class name fits every cell of the reference photo equally; give a mask, a box or "
            "a point of the object"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)

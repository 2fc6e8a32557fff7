"""Scenes with known objects: cut-out pictures on backgrounds, with masks and correspondences.

All randomness comes from a `numpy.random.Generator`, so the same seed gives the same scene. Images
are uint8 RGB, (height, width, 3); masks are bool, (height, width); points are (x, y) in pixels, x
to the right and y down. Points of a cut-out are fractions of its width and height: (0, 0) is its
upper left corner, (1, 1) its lower right one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cutout:
    """One object cut out of its picture: an instance.

    instance: the name of this very object. class_name: its class, None where unknown.
    rgba: uint8 (height, width, 4), not premultiplied, cropped to the visible part.
    """

    instance: str
    class_name: str | None
    rgba: Pixels


@dataclass(frozen=True)
class SceneObject:
    """One object in a scene.

    mask: bool (height, width), the visible part. homography: float64 (3, 3), from fractions of the
    cut-out to scene pixels, both as homogeneous (x, y, 1) columns.
    """

    instance: str
    class_name: str | None
    mask: Mask
    homography: Floats

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; zeros for a hidden object."""
        if not self.mask.any():
            return (0, 0, 0, 0)
        columns = np.flatnonzero(self.mask.any(axis=0))
        rows = np.flatnonzero(self.mask.any(axis=1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Scene:
    """A rendered scene: image uint8 (height, width, 3), and its objects from back to front."""

    image: Pixels
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Style:
    """How much a scene may change the look of its pictures. All values are in 0..1.

    light: gain, gamma and colour cast. perspective, rotation: of each object; rotation 1 is half a
    turn either way. flip: probability that an object is mirrored. occlusion: probability that a
    strip hides part of an object. degrade: blur, noise and JPEG. shadow: darkness of drop shadows.
    """

    light: float = 0.6
    perspective: float = 0.5
    rotation: float = 0.25
    flip: float = 0.2
    occlusion: float = 0.3
    degrade: float = 0.5
    shadow: float = 0.3


def apply_homography(homography: Floats, points: Floats) -> Floats:
    """Map points (x, y), float (n, 2), through a (3, 3) homography; returns (n, 2)."""
    lifted = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    return np.asarray(lifted[:, :2] / lifted[:, 2:], dtype=np.float64)


def corners_homography(corners: Floats) -> Floats:
    """The homography from the unit square to four corners.

    corners: (4, 2), the images (x, y) of (0, 0), (1, 0), (1, 1) and (0, 1). Returns float64 (3, 3).
    """
    rows, values = [], []
    for (u, v), (x, y) in zip(((0, 0), (1, 0), (1, 1), (0, 1)), corners, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        values += [x, y]
    solution = np.linalg.solve(np.array(rows, float), np.array(values, float))
    return np.append(solution, 1.0).reshape(3, 3)


def random_homography(
    rng: np.random.Generator,
    aspect: float,
    centre: tuple[float, float],
    extent: float,
    style: Style,
) -> Floats:
    """A random pose of a cut-out in a scene.

    aspect: width / height of the cut-out. centre: (x, y) in scene pixels. extent: the square root
    of the area of the cut-out's frame, scene pixels. Returns float64 (3, 3), from fractions of the
    cut-out to scene pixels.
    """
    stretch = math.exp(rng.normal(0, 0.12 * style.perspective))
    width = extent * math.sqrt(aspect) * stretch
    height = extent / math.sqrt(aspect) / stretch
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners += rng.uniform(-0.22, 0.22, (4, 2)) * style.perspective
    if rng.random() < style.flip:
        corners[:, 0] *= -1
    corners = corners * (width, height)
    angle = float(np.clip(rng.normal(0, 0.45), -1, 1)) * math.pi * style.rotation
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return corners_homography(corners @ turn + np.array(centre))


def warp(rgba: Pixels, homography: Floats, size: tuple[int, int]) -> Pixels:
    """Draw a cut-out through a homography onto an empty canvas.

    rgba: uint8 (h, w, 4). homography: from fractions of the cut-out to canvas pixels. size: (width,
    height) of the canvas. Returns uint8 (height, width, 4). The cut-out is first shrunk to about
    its final size, because a perspective transform alone would alias.
    """
    corners = apply_homography(homography, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    picture = Image.fromarray(rgba)
    width = max(2, min(picture.width, math.ceil(1.2 * max(sides[1], sides[3]))))
    height = max(2, min(picture.height, math.ceil(1.2 * max(sides[0], sides[2]))))
    if width * 4 < picture.width * 3 or height * 4 < picture.height * 3:
        picture = picture.resize((width, height), Image.Resampling.BOX)
    to_fraction = np.linalg.inv(homography)
    to_pixel = np.diag([picture.width, picture.height, 1.0]) @ to_fraction
    to_pixel = to_pixel / to_pixel[2, 2]
    drawn = picture.transform(
        size,
        Image.Transform.PERSPECTIVE,
        tuple(to_pixel.ravel()[:8]),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(drawn)


def relight(rng: np.random.Generator, image: Floats, strength: float) -> Floats:
    """Change the light on an image: colour cast, gain, gamma, saturation and a gradient.

    image: float (height, width, 3) in 0..1. strength: 0..1. Returns the same shape, in 0..1.
    """
    gain = np.exp(rng.normal(0, 0.22 * strength) + rng.normal(0, 0.13 * strength, 3))
    gamma = math.exp(rng.normal(0, 0.3 * strength))
    saturation = math.exp(rng.normal(0, 0.3 * strength))
    height, width = image.shape[:2]
    slope = rng.normal(0, 0.25 * strength, 2)
    ramp = np.linspace(-1, 1, height)[:, None, None] * slope[0]
    ramp = ramp + np.linspace(-1, 1, width)[None, :, None] * slope[1]
    grey = image.mean(axis=2, keepdims=True)
    lit = np.clip(grey + (image - grey) * saturation, 0, 1) ** gamma
    return np.asarray(np.clip(lit * gain * np.exp(ramp), 0, 1))


def degrade(rng: np.random.Generator, image: Pixels, strength: float) -> Pixels:
    """Degrade a picture as cameras and files do: blur, noise and JPEG, each at random."""
    picture = Image.fromarray(image)
    if rng.random() < 0.5 * strength:
        radius = rng.uniform(0.2, 0.2 + 1.2 * strength) * min(image.shape[:2]) / 128
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.7 * strength:
        noise = rng.normal(0, rng.uniform(1, 1 + 14 * strength), image.shape)
        noisy = np.clip(np.asarray(picture, dtype=np.float64) + noise, 0, 255)
        picture = Image.fromarray(noisy.astype(np.uint8))
    if rng.random() < 0.8 * strength:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(35, 95)))
        picture = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    return np.asarray(picture)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Floats:
    """Smooth noise in 0..1, `cells` waves across. size: (width, height); float (height, width)."""
    width, height = size
    rows = max(2, round(cells * height / max(width, height)) + 1)
    columns = max(2, round(cells * width / max(width, height)) + 1)
    coarse = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64) / 255


def procedural_background(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """A synthetic background of two colours: a gradient, stripes, checks or noise.

    size: (width, height). Returns uint8 (height, width, 3).
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = rng.integers(0, 6)
    if kind == 0:
        weight = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    elif kind == 1:
        weight = 0.5 + 0.5 * np.sin(along * rng.uniform(15, 90) + rng.uniform(0, 6))
    elif kind == 2:
        across = -x * math.sin(angle) + y * math.cos(angle)
        waves = rng.uniform(15, 60)
        weight = (np.sin(along * waves) * np.sin(across * waves) > 0).astype(np.float64)
    elif kind == 3:
        weight = smooth_noise(rng, size, int(rng.integers(3, 10)))
    elif kind == 4:
        octaves = [smooth_noise(rng, size, 2**k + 1) / k for k in range(1, 6)]
        weight = np.clip(sum(octaves) / 1.5 - 0.25, 0, 1)
    else:
        weight = rng.uniform(0, 1, (height, width)) * rng.uniform(0.1, 0.6)
    first, second = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    colour = first + (second - first) * weight[:, :, None] * rng.uniform(0.3, 1)
    if rng.random() < 0.5:
        mottle = smooth_noise(rng, size, int(rng.integers(4, 40)))[:, :, None] - 0.5
        colour = colour + mottle * rng.uniform(0.05, 0.3)
    return np.asarray(np.clip(colour, 0, 1) * 255, dtype=np.uint8)


def photo_background(rng: np.random.Generator, photo: Pixels, size: tuple[int, int]) -> Pixels:
    """A random crop of a photo, mirrored half of the time, resized to (width, height)."""
    width, height = size
    room = min(photo.shape[1] / width, photo.shape[0] / height)
    scale = room * rng.uniform(0.35, 1)
    crop_width, crop_height = max(1, int(width * scale)), max(1, int(height * scale))
    left = int(rng.integers(0, photo.shape[1] - crop_width + 1))
    top = int(rng.integers(0, photo.shape[0] - crop_height + 1))
    crop = photo[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(crop)).resize(
        size, Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(resized)


def random_background(
    rng: np.random.Generator, size: tuple[int, int], photos: Sequence[Pixels]
) -> Pixels:
    """A crop of one of the photos in three of four cases, else a procedural background."""
    if photos and rng.random() < 0.75:
        return photo_background(rng, photos[int(rng.integers(len(photos)))], size)
    return procedural_background(rng, size)


def blob_cutout(rng: np.random.Generator, photo: Pixels, side: int, instance: str) -> Cutout:
    """An object without a class: a random blob cut from a photo, `side` pixels wide."""
    rgb = photo_background(rng, photo, (side, side))
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    waves = sum(
        rng.normal(0, 0.22 / k) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in range(1, 6)
    )
    radius = np.clip(0.36 + 0.5 * waves * 0.36, 0.12, 0.5)
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    reach = np.interp(np.arctan2(y, x) % (2 * math.pi), angle, radius, period=2 * math.pi)
    alpha = np.clip((reach - np.hypot(x, y)) * side + 0.5, 0, 1) * 255
    return Cutout(instance, None, np.dstack([rgb, alpha.astype(np.uint8)]))


def vary(rng: np.random.Generator, cutout: Cutout, photos: Sequence[Pixels], name: str) -> Cutout:
    """A look-alike: another instance with the same outline, but other colours and texture."""
    rgb = cutout.rgba[:, :, :3].astype(np.float64) / 255
    if rng.random() < 0.6:
        mixing = np.eye(3)[rng.permutation(3)] * 0.8 + rng.uniform(-0.2, 0.4, (3, 3))
        rgb = np.clip(rgb @ mixing, 0, 1)
    else:
        rgb = relight(rng, rgb, 1.5)
    if photos and rng.random() < 0.6:
        size = (rgb.shape[1], rgb.shape[0])
        texture = random_background(rng, size, photos).astype(np.float64) / 255
        share = rng.uniform(0.3, 0.7)
        rgb = rgb * (1 - share) + texture * share
    pixels = np.dstack([(rgb * 255).astype(np.uint8), cutout.rgba[:, :, 3]])
    return Cutout(name, cutout.class_name, pixels)


def _over(canvas: Floats, rgba: Pixels) -> tuple[Floats, Mask]:
    """Paint rgba, uint8 (h, w, 4), over a canvas in 0..1; returns it and where alpha > 1/2."""
    alpha = rgba[:, :, 3:].astype(np.float64) / 255
    return canvas * (1 - alpha) + rgba[:, :, :3] / 255.0 * alpha, rgba[:, :, 3] > 127


def _shadow(canvas: Floats, alpha: Pixels, offset: tuple[int, int], darkness: float) -> Floats:
    """Darken the canvas under a blurred copy of an object's alpha, moved by (dx, dy) pixels."""
    blurred = Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(alpha.shape[1] / 60))
    moved = np.roll(np.asarray(blurred), (offset[1], offset[0]), axis=(0, 1))
    return canvas * (1 - darkness * moved[:, :, None] / 255.0)


def compose(
    rng: np.random.Generator,
    background: Pixels,
    placements: Sequence[tuple[Cutout, Floats]],
    style: Style,
) -> Scene:
    """Render a scene.

    background: uint8 (height, width, 3). placements: (cut-out, homography from its fractions to
    scene pixels), from back to front. Each object is lit alone before the whole scene is lit, so
    that objects and backgrounds differ in their light.
    """
    height, width = background.shape[:2]
    canvas = relight(rng, background / 255.0, style.light)
    masks: list[Mask] = []
    for cutout, homography in placements:
        drawn = warp(cutout.rgba, homography, (width, height))
        lit = relight(rng, drawn[:, :, :3] / 255.0, 0.7 * style.light)
        drawn = np.dstack([(lit * 255).astype(np.uint8), drawn[:, :, 3]])
        if style.shadow > 0 and rng.random() < 0.6:
            step = max(1, width // 40)
            offset = int(rng.integers(-step, step + 1)), int(rng.integers(0, step + 1))
            canvas = _shadow(canvas, drawn[:, :, 3], offset, rng.uniform(0, 2) * style.shadow)
        canvas, seen = _over(canvas, drawn)
        masks = [mask & ~seen for mask in masks] + [seen]
    if masks and rng.random() < style.occlusion:
        strip = _strip(rng, masks[int(rng.integers(len(masks)))])
        colour = procedural_background(rng, (width, height)) / 255.0
        canvas = np.where(strip[:, :, None], colour, canvas)
        masks = [mask & ~strip for mask in masks]
    lit = relight(rng, canvas, 0.6 * style.light)
    image = degrade(rng, (lit * 255).astype(np.uint8), style.degrade)
    objects = tuple(
        SceneObject(cutout.instance, cutout.class_name, mask, homography)
        for (cutout, homography), mask in zip(placements, masks, strict=True)
    )
    return Scene(image, objects)


def _strip(rng: np.random.Generator, mask: Mask) -> Mask:
    """A strip at a random angle over at most about a third of an object; bool like the mask."""
    height, width = mask.shape
    if not mask.any():
        return np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    pick = int(rng.integers(len(rows)))
    angle = rng.uniform(0, math.pi)
    y, x = np.mgrid[0:height, 0:width]
    across = (x - columns[pick]) * math.cos(angle) + (y - rows[pick]) * math.sin(angle)
    half = rng.uniform(0.05, 0.17) * math.sqrt(mask.sum())
    return np.asarray(np.abs(across) < half)


def scatter(
    rng: np.random.Generator,
    cutouts: Sequence[Cutout],
    size: tuple[int, int],
    style: Style,
    extent: tuple[float, float] = (0.25, 0.6),
) -> list[tuple[Cutout, Floats]]:
    """Random poses of cut-outs. Ten tries for each keep the objects apart where there is room.

    size: (width, height) of the scene. extent: the range of an object's size as a share of the
    scene's, both square roots of areas. Returns placements for `compose`.
    """
    width, height = size
    scene_extent = math.sqrt(width * height)
    crowd = 1 / math.sqrt(max(1.0, len(cutouts) / 1.5))
    placed: list[tuple[float, float, float]] = []
    placements = []
    for cutout in cutouts:
        reach = rng.uniform(*extent) * scene_extent * crowd
        best, best_room = (width / 2, height / 2), -math.inf
        for _ in range(10):
            margin = 0.38 * reach
            x = rng.uniform(min(margin, width / 2), max(width - margin, width / 2))
            y = rng.uniform(min(margin, height / 2), max(height - margin, height / 2))
            room = min(
                (math.hypot(x - a, y - b) - 0.5 * (reach + r) for a, b, r in placed),
                default=math.inf,
            )
            if room > best_room:
                best, best_room = (x, y), room
            if room > 0:
                break
        placed.append((*best, reach))
        aspect = float(np.clip(cutout.rgba.shape[1] / cutout.rgba.shape[0], 0.2, 5))
        placements.append((cutout, random_homography(rng, aspect, best, reach, style)))
    return placements

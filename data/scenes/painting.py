"""Look-alikes: one drawing repainted, so that instances of a class differ in controlled ways.

A repainted instance keeps the outline of its drawing and its light and dark parts. Its colours lie
in the patches of a pattern of its own, and cover given shares of the object exactly.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.compositor import Cutout, Floats, smooth_noise

COLOURS = 3


@dataclass(frozen=True)
class Palette:
    """Three colours and how much each covers.

    colours: (3, 3) float RGB in 0..1, one colour per row. shares: (3,), of the object's area.
    """

    colours: Floats
    shares: Floats


def random_palette(rng: np.random.Generator) -> Palette:
    """Three colours far apart in hue or lightness, with moderate shares."""
    start = rng.uniform(0, 1)
    colours = []
    for number in range(COLOURS):
        hue = (start + number / COLOURS + rng.uniform(-0.08, 0.08)) % 1
        colours.append(colorsys.hsv_to_rgb(hue, rng.uniform(0.35, 0.95), rng.uniform(0.45, 1)))
    return Palette(np.array(colours), random_shares(rng))


def random_shares(rng: np.random.Generator) -> Floats:
    """Random shares of the colours, each between about one ninth and two thirds."""
    raw = rng.uniform(0.5, 2, COLOURS)
    return np.asarray(raw / raw.sum())


def paint(rng: np.random.Generator, drawing: Cutout, palette: Palette, instance: str) -> Cutout:
    """The drawing with a random pattern in the colours of a palette, over its own shading.

    instance: the name of the result.
    """
    rgba = drawing.rgba.astype(np.float64) / 255
    inside = rgba[:, :, 3] > 0.5
    height, width = inside.shape
    field = _pattern(rng, (width, height)) + 1e-6 * rng.uniform(size=inside.shape)
    # The order of the colours along the pattern is random; the area of each is not.
    order = rng.permutation(COLOURS)
    levels = np.quantile(field[inside], np.cumsum(palette.shares[order])[:-1])
    chosen = palette.colours[order][np.searchsorted(levels, field)]
    light = rgba[:, :, :3].mean(axis=2)
    shade = 0.45 + 0.55 * (light - light[inside].min()) / max(float(np.ptp(light[inside])), 0.1)
    painted = np.clip(chosen * np.clip(shade, 0, 1)[:, :, None], 0, 1)
    pixels = np.dstack([(painted * 255).astype(np.uint8), drawing.rgba[:, :, 3]])
    return Cutout(instance, drawing.class_name, pixels)


def _pattern(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """A field whose level sets are blotches, stripes, rings or checks, (height, width) float."""
    width, height = size
    y, x = (np.mgrid[0:height, 0:width] + 0.5) / max(width, height)
    kind = rng.integers(0, 4)
    if kind == 0:
        return smooth_noise(rng, size, int(rng.integers(2, 5)))
    angle = rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    waves = 2 * math.pi * rng.uniform(1.2, 3.2)
    phase = rng.uniform(0, 2 * math.pi, 2)
    if kind == 1:
        wobble = rng.uniform(0, 0.6) * smooth_noise(rng, size, 3)
        return np.sin(waves * along + phase[0] + 4 * wobble)
    if kind == 2:
        centre = rng.uniform(0.2, 0.8, 2)
        return np.sin(waves * np.hypot(x - centre[0], y - centre[1]) + phase[0])
    return np.sin(waves * along + phase[0]) * np.sin(waves * across + phase[1])

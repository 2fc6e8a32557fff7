"""Backdrops for the sample collection and the scenes benchmark, painted from noise and arithmetic.

Each painter takes a random generator and a size, (width, height) in pixels, and returns a picture,
(height, width, 3) uint8.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.compositor import Floats, Pixels, smooth_noise

Size = tuple[int, int]
Painter = Callable[[np.random.Generator, Size], Pixels]
Colour = tuple[float, float, float]


def _finish(canvas: Floats) -> Pixels:
    """Colours in 0..1 as pixels; others are clipped."""
    return np.asarray(np.clip(canvas, 0, 1) * 255, dtype=np.uint8)


def _ramp(size: Size, top: Colour, bottom: Colour) -> Floats:
    """A vertical gradient, (height, width, 3) float."""
    share = np.linspace(0, 1, size[1])[:, None, None]
    return np.asarray(np.array(top) * (1 - share) + np.array(bottom) * share + np.zeros(
        (size[1], size[0], 1)
    ))  # fmt: skip


def _grain(rng: np.random.Generator, size: Size) -> Floats:
    """Noise of many scales with mean near 0, (height, width, 1) float."""
    octaves = [(smooth_noise(rng, size, 2**k) - 0.5) / k for k in range(2, 8)]
    return np.asarray(sum(octaves))[:, :, None]


def _ridge(rng: np.random.Generator, size: Size, level: float, rough: float) -> NDArray[np.bool_]:
    """The pixels below a wavy line at the share `level` of the height, (height, width) bool."""
    x = np.linspace(0, 1, size[0])
    line = level + sum(
        rng.normal(0, rough / k) * np.sin(k * 3 * x + rng.uniform(0, 6)) for k in range(1, 6)
    )
    return np.asarray(np.linspace(0, 1, size[1])[:, None] > line[None, :])


def _clouds(rng: np.random.Generator, sky: Floats, size: Size) -> Floats:
    """The sky with clouds over it."""
    cover = np.clip(_grain(rng, size) * 1.6 + 0.1, 0, 0.8)
    return sky * (1 - cover) + cover


def meadow(rng: np.random.Generator, size: Size) -> Pixels:
    """A sky with clouds, hills and grass."""
    sky = _clouds(rng, _ramp(size, (0.35, 0.6, 0.95), (0.8, 0.9, 1.0)), size)
    for level, green in ((0.42, (0.5, 0.66, 0.5)), (0.5, (0.4, 0.62, 0.3))):
        tint = np.array(green) * rng.uniform(0.85, 1.1) + 0.12 * _grain(rng, size)
        sky = np.where(_ridge(rng, size, level, 0.05)[:, :, None], tint, sky)
    blades = rng.normal(0, 0.06, (size[1], size[0], 1))
    grass = _ramp(size, (0.35, 0.6, 0.2), (0.2, 0.45, 0.1)) + 0.25 * _grain(rng, size) + blades
    return _finish(np.where(_ridge(rng, size, 0.6, 0.02)[:, :, None], grass, sky))


def beach(rng: np.random.Generator, size: Size) -> Pixels:
    """Sky, sea and sand."""
    sky = _clouds(rng, _ramp(size, (0.3, 0.65, 0.95), (0.9, 0.93, 0.95)), size)
    rows = np.linspace(0, 1, size[1])[:, None]
    ripples = 0.06 * np.sin(220 * rows**1.5 + 6 * smooth_noise(rng, size, 6))
    sea = _ramp(size, (0.1, 0.45, 0.6), (0.3, 0.75, 0.78)) + ripples[:, :, None]
    place = np.where(rows[:, :, None] > 0.4, sea, sky)
    speckle = rng.normal(0, 0.03, (size[1], size[0], 1))
    sand = _ramp(size, (0.93, 0.85, 0.65), (0.85, 0.72, 0.5)) + 0.1 * _grain(rng, size) + speckle
    return _finish(np.where(_ridge(rng, size, 0.58, 0.03)[:, :, None], sand, place))


def snow(rng: np.random.Generator, size: Size) -> Pixels:
    """A pale sky, far hills, snow on the ground and in the air."""
    place = _ramp(size, (0.6, 0.7, 0.82), (0.9, 0.92, 0.96))
    hills = _ramp(size, (0.5, 0.58, 0.68), (0.7, 0.76, 0.84)) + 0.1 * _grain(rng, size)
    place = np.where(_ridge(rng, size, 0.4, 0.08)[:, :, None], hills, place)
    ground = _ramp(size, (0.85, 0.9, 0.97), (0.97, 0.98, 1.0)) + 0.07 * _grain(rng, size)
    place = np.where(_ridge(rng, size, 0.58, 0.03)[:, :, None], ground, place)
    flakes = Image.fromarray(((rng.random((size[1], size[0])) > 0.997) * 255).astype(np.uint8))
    blurred = np.asarray(flakes.filter(ImageFilter.GaussianBlur(1.1))) / 255.0
    return _finish(place + np.clip(6 * blurred[:, :, None], 0, 1))


def night(rng: np.random.Generator, size: Size) -> Pixels:
    """A dark sky with stars and a moon over dark hills."""
    place = _ramp(size, (0.03, 0.04, 0.16), (0.25, 0.2, 0.42))
    stars = (rng.random((size[1], size[0], 1)) > 0.997) * rng.uniform(0.4, 1)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    moon = np.hypot(x - size[0] * rng.uniform(0.15, 0.85), y - size[1] * 0.16)
    radius = 0.06 * max(size)
    glow = np.exp(-moon / (2.5 * radius)) * 0.35 + np.clip(radius - moon, 0, 1)
    place = place + stars + glow[:, :, None] * np.array((1, 0.95, 0.8))
    ground = _ramp(size, (0.1, 0.14, 0.2), (0.16, 0.2, 0.18)) + 0.12 * _grain(rng, size)
    return _finish(np.where(_ridge(rng, size, 0.6, 0.05)[:, :, None], ground, place))


def _planks(rng: np.random.Generator, size: Size, colour: Colour, count: int) -> Floats:
    """Wooden planks side by side, (height, width, 3) float."""
    width, height = size
    column = np.arange(width) * count // width
    tone = rng.uniform(0.8, 1.15, count)[column][None, :, None]
    fibre = smooth_noise(rng, (width, max(2, height // 12)), 90)
    stretched = Image.fromarray((fibre * 255).astype(np.uint8)).resize(size)
    grain = (np.asarray(stretched)[:, :, None] / 255.0 - 0.5) * 0.25
    gap = (np.arange(width) * count % width < count * 1.5)[None, :, None] * 0.35
    return np.asarray(np.array(colour) * tone * (1 + grain) - gap)


def table(rng: np.random.Generator, size: Size) -> Pixels:
    """A wooden table seen from above, with light from one side."""
    colour = ((0.62, 0.42, 0.25), (0.75, 0.6, 0.42), (0.4, 0.27, 0.18))[int(rng.integers(3))]
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    light = 1.2 - 0.45 * np.hypot(x - rng.uniform(0, 1), y)[:, :, None]
    return _finish(_planks(rng, size, colour, int(rng.integers(4, 8))) * light)


def room(rng: np.random.Generator, size: Size) -> Pixels:
    """A wall with wallpaper above a wooden floor."""
    width, height = size
    base = rng.uniform(0.45, 0.9, 3)
    second = np.clip(base + rng.uniform(-0.18, 0.18, 3), 0, 1)
    y, x = np.mgrid[0:height, 0:width]
    step = rng.uniform(18, 40)
    if rng.random() < 0.5:
        pattern = (x // (step / 2)) % 2
    else:
        near = np.hypot((x + step / 2 * ((y // step) % 2)) % step - step / 2, y % step - step / 2)
        pattern = near < step / 5
    wall = np.where(pattern[:, :, None] > 0, base, second) + 0.05 * _grain(rng, size)
    floor = _planks(rng, size, (0.6, 0.42, 0.28), 9)
    level = int(height * rng.uniform(0.55, 0.65))
    place = np.where(y[:, :, None] > level, floor, wall)
    skirting = (y > level - 7) & (y <= level)
    return _finish(np.where(skirting[:, :, None], 0.93, place))


def tiles(rng: np.random.Generator, size: Size) -> Pixels:
    """A tiled kitchen wall above a plain worktop."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    step = int(rng.integers(26, 44))
    shift = (y // step) % 2 * (step // 2) if rng.random() < 0.5 else np.zeros_like(y)
    tone = rng.uniform(0.88, 1.08, (height // step + 1, width // step + 2))
    tile = tone[y // step, (x + shift) // step][:, :, None]
    wall = rng.uniform(0.55, 0.95, 3) * tile
    grout = ((x + shift) % step < 2) | (y % step < 2)
    wall = np.where(grout[:, :, None], 0.8, wall)
    worktop = rng.uniform(0.3, 0.8, 3) + 0.12 * _grain(rng, size)
    worktop = worktop + rng.normal(0, 0.04, (height, width, 1))
    return _finish(np.where(y[:, :, None] > height * 0.62, worktop, wall))


def picnic(rng: np.random.Generator, size: Size) -> Pixels:
    """A chequered cloth on grass, seen from above."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(-0.3, 0.3)
    u = x * math.cos(angle) + y * math.sin(angle)
    v = -x * math.sin(angle) + y * math.cos(angle)
    step = rng.uniform(22, 36)
    share = ((u // step) % 2 + (v // step) % 2)[:, :, None] / 2
    colour = np.array(((0.85, 0.15, 0.15), (0.15, 0.35, 0.75), (0.2, 0.6, 0.3))[rng.integers(3)])
    cloth = 1 - share * (1 - colour) + 0.08 * _grain(rng, size)
    grass = np.array((0.3, 0.52, 0.18)) + 0.3 * _grain(rng, size)
    grass = grass + rng.normal(0, 0.06, (height, width, 1))
    inside = (np.abs(u - u.mean()) < width * 0.44) & (np.abs(v - v.mean()) < height * 0.42)
    return _finish(np.where(inside[:, :, None], cloth, grass))


def lights(rng: np.random.Generator, size: Size) -> Pixels:
    """Out-of-focus lights of a street in the evening."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    place = _ramp(size, (0.08, 0.07, 0.15), (0.3, 0.22, 0.24))
    for _ in range(26):
        radius = rng.uniform(0.02, 0.07) * max(size)
        away = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height * 0.75))
        disc = np.clip((radius - away) / 3, 0, 1)[:, :, None]
        colour = np.array(((1, 0.8, 0.4), (1, 0.5, 0.35), (0.5, 0.75, 1))[rng.integers(3)])
        place = place + disc * colour * rng.uniform(0.12, 0.4)
    return _finish(place)


PAINTERS: tuple[Painter, ...] = (
    meadow, beach, snow, night, table, room, tiles, picnic, lights,
)  # fmt: skip

"""Rendering pairs of scenes into chunks of arrays on disk, before training.

A pair is two scenes that hold one object, the query, in different poses, lights and surroundings.
A chunk is one `.npz` file of n pairs. The arrays of both scenes are stacked on axis 1:

- images   uint8   (n, 2, 192, 192, 3)
- mask     uint8   (n, 2, 24, 24)      how much of each map cell the query covers, 0..255
- classes  int16   (n, 2, 24, 24)      class index + 1; 0 for background, -1 for unknown
- points   float16 (n, 2, 16, 2)       the same 16 points of the query in both scenes, (x, y) as
                                       fractions of the scene; NaN where hidden in either scene
- holds    int32   (n, 2, 5)           digests of the instances in a scene, the query first
- captions int16   (n, 2, 5)           class indices that a caption may name, -1 for none
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from training import compositor, pictures
from training.compositor import Cutout, Floats, Pixels, Scene, Style
from training.names import CLASSES

SIDE = 192
CELLS = 24
POINTS = 16
MOST_OBJECTS = 5
LOOK_ALIKES = 8
CLASS_NAMES = tuple(CLASSES)

_STYLE = Style(light=0.8, perspective=0.8, rotation=0.35, flip=0.2, occlusion=0.35, degrade=0.6)
_PHOTO_STYLE = Style(light=0.9, perspective=1.0, rotation=0.25, flip=0.2, degrade=0.6, shadow=0.0)


class Split:
    """All cut-outs and backgrounds of one split, in memory.

    by_class: cut-outs by class name. unnamed: cut-outs without a class. photos: backgrounds.
    """

    def __init__(self, cutouts: list[Cutout], photos: list[Pixels]) -> None:
        self.photos = photos
        self.unnamed = [cutout for cutout in cutouts if cutout.class_name is None]
        self.by_class: dict[str, list[Cutout]] = {}
        for cutout in cutouts:
            if cutout.class_name is not None:
                self.by_class.setdefault(cutout.class_name, []).append(cutout)
        # Classes with many pictures are drawn more often, but not in proportion to their number.
        self.class_names = sorted(self.by_class)
        weights = np.array([len(self.by_class[name]) ** 0.5 for name in self.class_names])
        self.class_weights = weights / weights.sum()

    def random_class(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.class_names, p=self.class_weights))

    def of_class(self, rng: np.random.Generator, class_name: str) -> Cutout:
        """A cut-out of a class; in two of five cases a look-alike made from one."""
        members = self.by_class[class_name]
        cutout = members[int(rng.integers(len(members)))]
        if rng.random() < 0.4:
            return look_alike(rng, cutout, self.photos)
        return cutout

    def lively_crop(self, rng: np.random.Generator, side: int) -> Pixels:
        """A square crop of a photo: the one with most contrast among up to six."""
        crops = []
        for _ in range(6):
            photo = self.photos[int(rng.integers(len(self.photos)))]
            crops.append(compositor.photo_background(rng, photo, (side, side)))
            if crops[-1].std() > 30:
                break
        return max(crops, key=lambda crop: float(crop.std()))

    def classless(self, rng: np.random.Generator) -> Cutout:
        """An object without a class: a picture without a class, or a blob cut from a photo."""
        if not self.unnamed or rng.random() < 0.4:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            return compositor.blob_cutout(rng, photo, 128, f"blob-{rng.integers(1 << 40)}")
        cutout = self.unnamed[int(rng.integers(len(self.unnamed)))]
        if rng.random() < 0.3:
            return look_alike(rng, cutout, self.photos)
        return cutout


def look_alike_names(instance: str) -> list[str]:
    """The names of the look-alikes of a cut-out."""
    return [f"{instance}#{number}" for number in range(LOOK_ALIKES)]


def look_alike(rng: np.random.Generator, cutout: Cutout, photos: list[Pixels]) -> Cutout:
    """One of the look-alikes of a cut-out: there are only a few, so each occurs in many scenes."""
    name = look_alike_names(cutout.instance)[int(rng.integers(LOOK_ALIKES))]
    own = np.random.default_rng(zlib.crc32(name.encode()))
    return compositor.vary(own, cutout, photos, name)


def load_split(pictures_root: Path, backgrounds_root: Path, split: str, cache: Path) -> Split:
    """Load the pictures of one split ("train", "validation" or "test"), cached in a file."""
    file = cache / f"pictures-{split}.pickle"
    if not file.exists():
        sources = [s for s in pictures.find_cutouts(pictures_root) if s.split == split]
        loaded = [pictures.load_cutout(source, 160) for source in sources]
        photos = [
            pictures.load_background(path, 256)
            for name, path in pictures.find_backgrounds(backgrounds_root)
            if pictures.split_of(name) == split
        ]
        kept = [c for c in loaded if c is not None], [p for p in photos if p is not None]
        cache.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda out: pickle.dump(kept, out))
    # Unpickling is safe here: this function wrote the file in the trainer's working directory.
    return Split(*pickle.loads(file.read_bytes()))


def digest(instance: str) -> int:
    """A 31-bit digest of an instance's name."""
    return zlib.crc32(instance.encode()) & 0x7FFFFFFF


def _others(rng: np.random.Generator, source: Split, query: Cutout) -> list[Cutout]:
    """None to three other objects, some of them of the query's class."""
    others = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.15, 0.3, 0.3, 0.25]))):
        if query.class_name is not None and rng.random() < 0.2:
            others.append(source.of_class(rng, query.class_name))
        elif rng.random() < 0.8:
            others.append(source.of_class(rng, source.random_class(rng)))
        else:
            others.append(source.classless(rng))
    return [other for other in others if other.instance != query.instance]


def _object_scene(rng: np.random.Generator, source: Split, query: Cutout) -> tuple[Scene, int]:
    """A scene that holds the query, and the query's index among its objects."""
    others = _others(rng, source, query)
    chosen = [query, *others]
    # The query is larger where it is alone, and lies in front in half of the scenes.
    reach = (0.3, 0.95) if not others else (0.25, 0.62)
    placements = compositor.scatter(rng, chosen, (SIDE, SIDE), _STYLE, reach)
    place = 0
    if rng.random() < 0.5:
        placements, place = placements[::-1], len(placements) - 1
    background = compositor.random_background(rng, (SIDE, SIDE), source.photos)
    return compositor.compose(rng, background, placements, _STYLE), place


def _photo_scene(rng: np.random.Generator, source: Split, query: Cutout) -> tuple[Scene, int]:
    """A warped crop of a photo that fills the scene, in some cases behind an object."""
    centre = (SIDE * rng.uniform(0.35, 0.65), SIDE * rng.uniform(0.35, 0.65))
    pose = compositor.random_homography(
        rng, 1.0, centre, SIDE * rng.uniform(1.1, 1.9), _PHOTO_STYLE
    )
    placements = [(query, pose)]
    if rng.random() < 0.3:
        other = [source.of_class(rng, source.random_class(rng))]
        placements += compositor.scatter(rng, other, (SIDE, SIDE), _STYLE, (0.2, 0.4))
    background = compositor.random_background(rng, (SIDE, SIDE), source.photos)
    return compositor.compose(rng, background, placements, _PHOTO_STYLE), 0


def render_pair(rng: np.random.Generator, source: Split) -> dict[str, NDArray[np.generic]]:
    """Render one pair: the arrays of the module's docstring without their first axis."""
    kind = rng.random()
    region: Floats = np.array([0.0, 0, 1, 1])
    if kind < 0.6:
        query, draw = source.of_class(rng, source.random_class(rng)), _object_scene
    elif kind < 0.8:
        query, draw = source.classless(rng), _object_scene
    else:
        rgb = source.lively_crop(rng, 192)
        opaque = np.full((192, 192, 1), 255, np.uint8)
        query = Cutout(f"photo-{rng.integers(1 << 40)}", None, np.dstack([rgb, opaque]))
        draw = _photo_scene
        centre, half = rng.uniform(0.4, 0.6, 2), rng.uniform(0.12, 0.25, 2)
        region = np.concatenate([centre - half, centre + half])
    scenes = [draw(rng, source, query) for _ in range(2)]
    points = _common_points(rng, scenes, region)
    parts = [_describe(scene, place, region) for scene, place in scenes]
    pair = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
    return {**pair, "points": points}


def _common_points(
    rng: np.random.Generator, scenes: list[tuple[Scene, int]], region: Floats
) -> NDArray[np.float16]:
    """Points of the query visible in both scenes, float16 (2, POINTS, 2), padded with NaN."""
    tries = np.asarray(rng.uniform(region[:2], region[2:], (POINTS * 8, 2)), dtype=np.float64)
    seen = np.ones(len(tries), bool)
    mapped = []
    for scene, place in scenes:
        item = scene.objects[place]
        xy = compositor.apply_homography(item.homography, tries)
        inside = ((xy >= 0) & (xy < SIDE)).all(axis=1)
        column, row = np.clip(xy, 0, SIDE - 1).astype(int).T
        seen &= inside & item.mask[row, column]
        mapped.append(xy / SIDE)
    points = np.full((2, POINTS, 2), np.nan, np.float16)
    chosen = np.flatnonzero(seen)[:POINTS]
    points[:, : len(chosen)] = np.stack(mapped)[:, chosen]
    return points


def _cover(mask: NDArray[np.bool_]) -> Floats:
    """The fraction of each map cell that a (SIDE, SIDE) mask covers, float (CELLS, CELLS)."""
    cell = SIDE // CELLS
    blocks = mask.reshape(CELLS, cell, CELLS, cell)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float64)


def _describe(scene: Scene, place: int, region: Floats) -> dict[str, NDArray[np.generic]]:
    """The arrays of the module's docstring for one scene, without the points."""
    query = scene.objects[place]
    mask = query.mask
    if query.instance.startswith("photo-"):
        y, x = np.mgrid[0:SIDE, 0:SIDE]
        pixels = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64) + 0.5
        inverse = np.asarray(np.linalg.inv(query.homography), dtype=np.float64)
        uv = compositor.apply_homography(inverse, pixels)
        inside = ((uv >= region[:2]) & (uv <= region[2:])).all(axis=1)
        mask = mask & inside.reshape(SIDE, SIDE)
    classes = np.zeros((CELLS, CELLS), np.int16)
    holds = np.full(MOST_OBJECTS, -1, np.int32)
    captions = np.full(MOST_OBJECTS, -1, np.int16)
    rest = [item for i, item in enumerate(scene.objects) if i != place]
    for i, item in enumerate([query, *rest][:MOST_OBJECTS]):
        cover = _cover(item.mask)
        holds[i] = digest(item.instance)
        if item.class_name is None:
            classes[cover > 0.05] = -1
        else:
            captions[i] = CLASS_NAMES.index(item.class_name) if cover.sum() > 2 else -1
            classes[(cover > 0.05) & (cover < 0.5)] = -1
            classes[cover >= 0.5] = CLASS_NAMES.index(item.class_name) + 1
    return {
        "images": scene.image,
        "mask": (_cover(mask) * 255).astype(np.uint8),
        "classes": classes,
        "holds": holds,
        "captions": captions,
    }


def render_chunk(source: Split, seed: int, pairs: int, file: Path) -> None:
    """Render `pairs` pairs into a chunk. The same seed gives the same pairs."""
    rng = np.random.default_rng(seed)
    rendered: list[dict[str, NDArray[np.generic]]] = []
    while len(rendered) < pairs:
        pair = render_pair(rng, source)
        # Both scenes must show enough of the query for a comparison.
        if pair["mask"].astype(float).sum(axis=(1, 2)).min() > 2.5 * 255:
            rendered.append(pair)
    arrays = {key: np.stack([pair[key] for pair in rendered]) for key in rendered[0]}
    write_whole(file, lambda out: np.savez(out, **arrays))  # type: ignore[arg-type]


def render_chunks(source: Split, chunks: int, pairs: int, directory: Path) -> None:
    """Render the missing ones of the first `chunks` chunks, one process per core.

    The seed of a chunk is its number. Raises RuntimeError where a process fails; the chunks that
    were finished stay.
    """
    missing = [n for n in range(chunks) if not _chunk_file(directory, n).exists()]
    # Forked, so that all processes share the pictures, which take more than a gigabyte.
    context = multiprocessing.get_context("fork")
    count = min(os.cpu_count() or 1, len(missing))
    workers = [
        context.Process(target=_render_some, args=(source, missing[first::count], pairs, directory))
        for first in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(
            f"a process rendering chunks into {directory} failed; its error stands above"
        )


def _render_some(source: Split, numbers: list[int], pairs: int, directory: Path) -> None:
    for number in numbers:
        render_chunk(source, number, pairs, _chunk_file(directory, number))
        print(f"rendered chunk {number}: {pairs} pairs", flush=True)


def _chunk_file(directory: Path, number: int) -> Path:
    return directory / f"{number:04d}.npz"


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a new file, which then replaces `path` as a whole. Raises OSError."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
    part.replace(path)

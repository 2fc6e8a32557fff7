"""What the bundled model is measured by; prints the tables of `MODEL_CARD.md`.

    python -m features.tiny.report --model DIR --pictures DIR --backgrounds DIR --work DIR \\
        [--folders DIR] [--collection data/demo] [--split test] [--size 160]

Scenes: every object of held-out pictures is once a query (with its true mask) and lies in two
gallery scenes, each beside a look-alike of its class. Folders: photos in one folder an object, each
photo a query against all others, its region the central box from 20 % to 80 % of both sides.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from features.tiny import batches, compositor
from features.tiny.compositor import Pixels, Scene, Style
from features.tiny.model import (
    BACKGROUND,
    NEUTRAL_PROMPT,
    FeatureUNet,
    Parts,
    build_parts,
    encode_images,
    prompt_states,
    read_parts,
)

SCENE_SIDE = 256
_STYLE = Style(light=0.7, perspective=0.6, rotation=0.2, flip=0.15, occlusion=0.2, degrade=0.5)
Values = NDArray[np.float32]


@dataclass
class Photo:
    """A photo to search or to search with.

    region: bool, image sized, what of it the query is; instance, class_name: what is asked for;
    holds: the instances in it; scene: its objects, when it is a rendered scene.
    """

    image: Pixels
    region: NDArray[np.bool_]
    instance: str
    class_name: str
    holds: set[str]
    scene: Scene | None = None


@dataclass
class Task:
    """Queries, gallery, and which gallery photo is which query itself (-1: none)."""

    queries: list[Photo]
    gallery: list[Photo]
    itself: list[int] = field(default_factory=list)


def scene_task(source: batches.Pictures, seed: int, side: int = SCENE_SIDE) -> Task:
    """One query scene and two gallery scenes for every named cut-out of a split."""
    rng = np.random.default_rng(seed)
    task = Task([], [])
    for class_name, members in sorted(source.by_class.items()):
        for cutout in members:
            rest = [m for m in members if m.instance != cutout.instance]
            for place in range(3):
                beside = (
                    rest[int(rng.integers(len(rest)))]
                    if rest
                    else batches.look_alike(rng, cutout, source.photos)
                )
                count = int(rng.integers(0, 3))
                others = [source.of_class(rng, source.random_class(rng)) for _ in range(count)]
                chosen = [cutout, *([beside] if place else []), *others]
                kept = {c.instance: c for c in reversed(chosen)}
                chosen = [cutout, *(c for n, c in kept.items() if n != cutout.instance)]
                placed = compositor.scatter(rng, chosen, (side, side), _STYLE, (0.3, 0.6))
                background = compositor.random_background(rng, (side, side), source.photos)
                scene = compositor.compose(rng, background, placed, _STYLE)
                holds = {item.instance for item in scene.objects if item.mask.sum() > 200}
                photo = Photo(
                    scene.image, scene.objects[0].mask, cutout.instance, class_name, holds, scene
                )
                (task.gallery if place else task.queries).append(photo)
    task.itself = [-1] * len(task.queries)
    return task


def folder_task(directory: Path) -> Task:
    """The Folders protocol, the query's region the central box."""
    classes = json.loads((directory / "classes.json").read_text(encoding="utf-8"))
    photos = []
    for path in sorted(directory.glob("*/*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"))
        height, width = image.shape[:2]
        region = np.zeros((height, width), bool)
        region[height // 5 : height * 4 // 5, width // 5 : width * 4 // 5] = True
        name = path.parent.name
        photos.append(Photo(image, region, name, classes[name], {name}))
    return Task(photos, photos, list(range(len(photos))))


def collection_task(directory: Path) -> tuple[Task, Photo]:
    """The sample collection: the first labelled object of each photo, by its box, against the rest.

    Returns the task and the collection's own query photo.
    """
    labels = json.loads((directory / "labels.json").read_text(encoding="utf-8"))

    def read(name: str, items: list[dict[str, Any]]) -> Photo:
        image = np.asarray(Image.open(directory / name).convert("RGB"))
        x0, y0, x1, y1 = items[0]["box"]
        region = np.zeros(image.shape[:2], bool)
        region[y0:y1, x0:x1] = True
        holds = {item["instance"] for item in items}
        return Photo(image, region, items[0]["instance"], items[0]["class"], holds)

    photos = [read(name, items) for name, items in labels["photos"].items()]
    query = next(read(name, items) for name, items in labels["query"].items())
    return Task(photos, photos, list(range(len(photos)))), query


def letterbox(photo: Photo, size: int) -> tuple[Pixels, Values, NDArray[np.bool_]]:
    """A photo on a grey square of `size` pixels.

    Returns the square uint8 (size, size, 3), its region's cover of each cell float32 (cells,) in
    0..1, and which cells the photo covers, bool (cells,).
    """
    height, width = photo.image.shape[:2]
    shrink = size / max(height, width)
    new = max(1, round(width * shrink)), max(1, round(height * shrink))
    left, top = (size - new[0]) // 2, (size - new[1]) // 2
    square = Image.new("RGB", (size, size), (128, 128, 128))
    square.paste(Image.fromarray(photo.image).resize(new, Image.Resampling.BOX), (left, top))
    cover = Image.new("F", (size, size))
    region = Image.fromarray(photo.region.astype(np.uint8) * 255)
    cover.paste(region.resize(new, Image.Resampling.BOX).convert("F"), (left, top))
    inside = np.zeros((size, size), np.float32)
    inside[top : top + new[1], left : left + new[0]] = 1
    cells = size // 8
    blocks = (cells, 8, cells, 8)
    covered = np.asarray(cover).reshape(blocks).mean(axis=(1, 3)).ravel() / 255
    real = inside.reshape(blocks).mean(axis=(1, 3)).ravel() > 0.5
    return np.asarray(square), covered.astype(np.float32), real


@dataclass
class Maps:
    """Maps of some photos: (n, cells, d), and the cells that are not padding (n, cells)."""

    appearance: Tensor
    semantic: Tensor
    cover: Tensor
    real: Tensor


@torch.no_grad()
def model_maps(parts: Parts, photos: list[Photo], size: int, timestep: int) -> Maps:
    """The captured block's maps of the clean latent, the UNet told `timestep`."""
    net = FeatureUNet(parts.unet.eval())
    text = prompt_states(parts, [NEUTRAL_PROMPT])
    squares = [letterbox(photo, size) for photo in photos]
    appearance, semantic = [], []
    for start in range(0, len(photos), 16):
        images = torch.from_numpy(np.stack([s[0] for s in squares[start : start + 16]]))
        with torch.autocast("cpu", torch.bfloat16):
            latents = encode_images(parts, images)
            steps = torch.full((len(latents),), timestep)
            _, seen, meant = net(latents, steps, text.expand(len(latents), -1, -1))
        appearance.append(seen)
        semantic.append(meant)
    return Maps(
        torch.cat(appearance),
        torch.cat(semantic),
        torch.from_numpy(np.stack([s[1] for s in squares])),
        torch.from_numpy(np.stack([s[2] for s in squares])),
    )


def patch_maps(photos: list[Photo], size: int) -> Maps:
    """Raw 8 x 8 RGB patches in place of features: what is known without any model."""
    squares = [letterbox(photo, size) for photo in photos]
    images = torch.from_numpy(np.stack([s[0] for s in squares])).float() / 255
    count, cells = len(images), size // 8
    blocks = images.reshape(count, cells, 8, cells, 8, 3).permute(0, 1, 3, 2, 4, 5)
    flat = blocks.reshape(count, cells * cells, -1)
    cover = torch.from_numpy(np.stack([s[1] for s in squares]))
    return Maps(flat, flat, cover, torch.from_numpy(np.stack([s[2] for s in squares])))


def chosen_cells(cover: Tensor) -> Tensor:
    """The cells a query speaks of: those half covered, or the best covered one; bool (cells,)."""
    return cover >= min(0.5, float(cover.max()))


def late_interaction(queries: Maps, gallery: Maps, gates: list[Tensor] | None = None) -> Values:
    """Centred-cosine late interaction of every query with every photo: (queries, photos).

    gates: in place of the queries' regions, the cells to use of each.
    """
    mean = gallery.appearance[gallery.real].mean(dim=0)
    units = torch.nn.functional.normalize(gallery.appearance - mean, dim=-1)
    padding = (~gallery.real).float() * -10
    rows = []
    for i in range(len(queries.appearance)):
        cells = gates[i] if gates else chosen_cells(queries.cover[i])
        tokens = torch.nn.functional.normalize(queries.appearance[i][cells] - mean, dim=-1)
        similar = torch.einsum("td,gcd->gtc", tokens, units) + padding[:, None]
        rows.append(similar.amax(dim=-1).mean(dim=-1))
    return torch.stack(rows).numpy()


def pooled(queries: Maps, gallery: Maps, vectors: Tensor | None) -> Values:
    """The paper's own score, the mean of S_DF (S_A alone without class vectors)."""
    means = (gallery.appearance * gallery.real[..., None]).sum(1) / gallery.real.sum(1)[:, None]
    reference = [
        queries.appearance[i][chosen_cells(queries.cover[i])].mean(dim=0)
        for i in range(len(queries.appearance))
    ]
    scores = torch.stack(reference) @ means.T
    if vectors is not None:
        meant = (gallery.semantic * gallery.real[..., None]).sum(1)
        scores = (scores + vectors @ (meant / gallery.real.sum(1)[:, None]).T) / 2
    return scores.numpy()


def histogram_scores(task: Task) -> Values:
    """Intersection of RGB histograms (6 x 6 x 6 bins): the query's region against whole photos."""

    def bins(pixels: Pixels) -> Values:
        index = (pixels.reshape(-1, 3).astype(int) * 6 // 256) @ np.array([36, 6, 1])
        counts = np.bincount(index, minlength=216).astype(np.float32)
        return np.asarray(counts / max(1.0, float(counts.sum())), dtype=np.float32)

    whole = np.stack([bins(photo.image) for photo in task.gallery])
    parts = [bins(photo.image[photo.region]) for photo in task.queries]
    return np.stack([np.minimum(part, whole).sum(axis=1) for part in parts])


def average_precisions(task: Task, scores: Values) -> Values:
    """The average precision of each query, the query itself left out of the ranking."""
    results = []
    for i, query in enumerate(task.queries):
        relevant = np.array([query.instance in photo.holds for photo in task.gallery])
        kept = np.arange(len(task.gallery)) != task.itself[i]
        order = np.argsort(-scores[i][kept], kind="stable")
        hits = relevant[kept][order]
        if hits.any():
            precision = np.cumsum(hits) / (np.arange(len(hits)) + 1)
            results.append(precision[hits].mean())
    return np.array(results, np.float32)


def oracle_scores(task: Task) -> Values:
    """Knowing each query's class and nothing else; ties broken at random."""
    rng = np.random.default_rng(0)
    rows = []
    for query in task.queries:
        known = [
            any(o.class_name == query.class_name for o in photo.scene.objects)
            if photo.scene
            else photo.class_name == query.class_name
            for photo in task.gallery
        ]
        rows.append(np.array(known, np.float32) + 0.1 * rng.random(len(known)))
    return np.array(rows, np.float32)


def class_posteriors(parts: Parts, maps: Maps) -> Tensor:
    """Softmax over background and all class names of every cell: (n, cells, 1 + names)."""
    names = [BACKGROUND, *batches.CLASS_NAMES]
    with torch.no_grad():
        vectors = FeatureUNet(parts.unet).class_vectors(parts, names)
    return (maps.semantic @ vectors.T / math.sqrt(maps.semantic.shape[-1])).softmax(dim=-1)


def named_cells(parts: Parts, maps: Maps, names: list[str]) -> list[Tensor]:
    """The cells that a class name alone picks out of each photo: bool (cells,) each.

    A cell's evidence is the softmax of the name's F_S . C / sqrt(d) against "background"'s; cells
    with at least half of the best cell's evidence are kept. A name that the model was not taught
    leaves the photo's region in place.
    """
    with torch.no_grad():
        vectors = FeatureUNet(parts.unet).class_vectors(parts, [BACKGROUND, *names])
    scale = math.sqrt(maps.semantic.shape[-1])
    gates = []
    for i, name in enumerate(names):
        if name not in batches.CLASS_NAMES:
            gates.append(chosen_cells(maps.cover[i]))
            continue
        against = maps.semantic[i] @ (vectors[1 + i] - vectors[0]) / scale
        evidence = against.sigmoid() * maps.real[i]
        gates.append(evidence >= 0.5 * evidence.max())
    return gates


def area_under_curve(positive: Values, negative: Values) -> float:
    """The chance that a positive value exceeds a negative one."""
    values = np.concatenate([positive, negative])
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    above = ranks[: len(positive)].sum() - len(positive) * (len(positive) - 1) / 2
    return float(above / (len(positive) * len(negative)))


def naming(parts: Parts, task: Task, maps: Maps, size: int) -> Iterator[tuple[str, float]]:
    """How well cells are named: top-1 and top-5 of the objects, AUC of their class's map."""
    posterior = class_posteriors(parts, maps)
    top1, top5, others, ground = [], [], [], []
    for i, photo in enumerate(task.gallery):
        assert photo.scene is not None
        covers = [letterbox(Photo(photo.image, o.mask, "", "", set()), size)[1]
                  for o in photo.scene.objects]  # fmt: skip
        covered = np.stack(covers)
        for place, item in enumerate(photo.scene.objects):
            own = covered[place] >= 0.5
            if item.class_name is None or own.sum() < 3:
                continue
            number = batches.CLASS_NAMES.index(item.class_name) + 1
            mean = posterior[i][torch.from_numpy(own)][:, 1:].log().mean(dim=0)
            best = mean.topk(5).indices + 1
            top1.append(float(best[0] == number))
            top5.append(float((best == number).any()))
            values = posterior[i, :, number].numpy()
            foreign = np.zeros_like(own)
            for k, other in enumerate(photo.scene.objects):
                if other.class_name != item.class_name:
                    foreign |= covered[k] >= 0.5
            empty = covered.max(axis=0) < 0.05
            if foreign.any():
                others.append(area_under_curve(values[own], values[foreign]))
            if empty.any():
                ground.append(area_under_curve(values[own], values[empty]))
    yield "naming top-1", float(np.mean(top1))
    yield "naming top-5", float(np.mean(top5))
    yield "class map AUC against other objects", float(np.mean(others))
    yield "class map AUC against background", float(np.mean(ground))


def tell(name: str, task: Task, scores: Values) -> None:
    """Prints one line: mAP and Recall@1 in percent."""
    precisions = average_precisions(task, scores)
    first = []
    for i, query in enumerate(task.queries):
        row = scores[i].copy()
        if task.itself[i] >= 0:
            row[task.itself[i]] = -np.inf
        first.append(query.instance in task.gallery[int(row.argmax())].holds)
    print(f"  {name:<58} {100 * precisions.mean():5.1f}  {100 * np.mean(first):5.1f}", flush=True)


def report(parts: Parts, task: Task, size: int, timestep: int, baselines: bool) -> None:
    """Prints the lines of one task."""
    queries = model_maps(parts, task.queries, size, timestep)
    same = task.queries is task.gallery
    gallery = queries if same else model_maps(parts, task.gallery, size, timestep)
    if baselines:
        rng = np.random.default_rng(0)
        random = rng.random((len(task.queries), len(task.gallery))).astype(np.float32)
        tell("random ranking", task, random)
        tell("knowing the class exactly", task, oracle_scores(task))
        tell("RGB histogram", task, histogram_scores(task))
        patches = patch_maps(task.queries, 128), patch_maps(task.gallery, 128)
        tell("RGB patches, late interaction, centred cosine", task, late_interaction(*patches))
        blank = build_parts()
        blank.vae = parts.vae
        asked = model_maps(blank, task.queries, size, timestep)
        kept = asked if same else model_maps(blank, task.gallery, size, timestep)
        tell("random UNet, late interaction, centred cosine", task, late_interaction(asked, kept))
    names = [query.class_name for query in task.queries]
    with torch.no_grad():
        vectors = FeatureUNet(parts.unet).class_vectors(parts, names)
    tell("tiny, PDM as written (mean of S_DF)", task, pooled(queries, gallery, vectors))
    tell("tiny, late interaction, centred cosine", task, late_interaction(queries, gallery))
    gated = late_interaction(queries, gallery, named_cells(parts, queries, names))
    tell("tiny, by class name alone, late interaction", task, gated)
    if task.gallery[0].scene is not None:
        for name, value in naming(parts, task, gallery, size):
            print(f"  {name:<58} {100 * value:5.1f}", flush=True)


def tell_query(parts: Parts, task: Task, query: Photo, size: int, timestep: int) -> None:
    """Prints at which ranks (from 1) a query photo's object is found, by box and by class name."""
    gallery = model_maps(parts, task.gallery, size, timestep)
    asked = model_maps(parts, [query], size, timestep)
    gates = named_cells(parts, asked, [query.class_name])
    for name, cells in (("its box", None), ("class name alone", gates)):
        scores = late_interaction(asked, gallery, cells)[0]
        order = np.argsort(-scores, kind="stable")
        ranks = [r for r, i in enumerate(order, 1) if query.instance in task.gallery[i].holds]
        print(f"  query {query.instance}, by {name}: its photos are at ranks {ranks}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the bundled model tiny.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--work", type=Path, help="where pictures are cached")
    parser.add_argument("--folders", type=Path, help="labelled photos, one folder an object")
    parser.add_argument("--collection", type=Path, help="the sample collection, data/demo")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--size", type=int, default=160, help="pixels fed to the model")
    parser.add_argument("--timestep", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-baselines", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    parts = read_parts(given.model)
    print(f"{'':<60} {'mAP':>5}  {'R@1':>5}")
    if given.pictures:
        source = batches.load_split(given.pictures, given.backgrounds, given.split, given.work)
        task = scene_task(source, given.seed)
        print(f"{given.split} scenes: {len(task.queries)} queries, {len(task.gallery)} photos")
        report(parts, task, given.size, given.timestep, not given.no_baselines)
    if given.folders:
        task = folder_task(given.folders)
        print(f"{given.folders.name}: {len(task.queries)} photos")
        report(parts, task, given.size, given.timestep, not given.no_baselines)

    if given.collection:
        task, query = collection_task(given.collection)
        print(f"{given.collection.name}: {len(task.queries)} photos")
        report(parts, task, given.size, given.timestep, not given.no_baselines)
        tell_query(parts, task, query, given.size, given.timestep)
        if not given.no_baselines:
            blank = build_parts()
            blank.vae = parts.vae
            print("  with a random UNet:")
            tell_query(blank, task, query, given.size, given.timestep)


if __name__ == "__main__":
    main()

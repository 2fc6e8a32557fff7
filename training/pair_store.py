"""Reading rendered pairs for training: encoding, sampling, captions and close-ups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.chunks import CLASS_NAMES, write_whole
from training.names import SYNONYMS
from training.teacher import Lesson, views_of_scenes
from training.tiny_model import NEUTRAL_PROMPT, Parts, encode_images


class PairStore:
    """Encoded pairs in memory, read chunk by chunk from `directory`.

    arrays: those of `chunks`, with `latents` float16 (n, 2, 16, 24, 24) instead of `images`; `row`
    int32 (n,), the row of the query in the teacher's lesson, -1 for none; and `views` float16
    (n, 2, 8, 8, dim), the teacher's features of the scenes.
    """

    def __init__(self, directory: Path, parts: Parts, lesson: Lesson, device: torch.device) -> None:
        self.directory, self.parts, self.device = directory, parts, device
        self.lesson, self.rows = lesson, lesson.rows()
        self.taken = 0
        self.arrays: dict[str, NDArray[Any]] = {}
        self.of_class: dict[int, NDArray[np.int64]] = {}

    def hold(self, chunks: int) -> None:
        """Read more chunks, until `sample` draws from the first `chunks` of them, or from all."""
        fresh = sorted(self.directory.glob("*.npz"))[self.taken : chunks]
        if not fresh:
            return
        self.taken += len(fresh)
        taken = [*([self.arrays] if self.arrays else []), *map(self._encode, fresh)]
        self.arrays = {key: np.concatenate([chunk[key] for chunk in taken]) for key in taken[0]}
        named = self.arrays["captions"][:, 0, 0]
        self.of_class = {int(c): np.flatnonzero(named == c) for c in np.unique(named) if c >= 0}

    def _encode(self, file: Path) -> dict[str, NDArray[Any]]:
        """The arrays of a chunk as this class holds them."""
        with np.load(file) as kept:
            chunk = {key: kept[key] for key in kept.files}
        images = chunk.pop("images")
        flat = torch.from_numpy(images.reshape(-1, *images.shape[2:]))
        latents = []
        with torch.no_grad():
            for some in flat.split(50):
                latents.append(encode_images(self.parts, some.to(self.device)).half().cpu())
        packed = torch.cat(latents)
        chunk["views"] = self._views(file, images)
        queries = chunk["holds"][:, 0, 0].tolist()
        chunk["row"] = np.array([self.rows.get(query, -1) for query in queries], np.int32)
        chunk["latents"] = packed.reshape(-1, 2, *packed.shape[1:]).numpy()
        return chunk

    def _views(self, chunk: Path, images: NDArray[np.uint8]) -> NDArray[np.float16]:
        """The teacher's features of the scenes of a chunk, cached in a file beside it."""
        file = chunk.with_suffix(".views.npy")
        if not file.exists():
            flat = images.reshape(-1, *images.shape[2:])
            views = views_of_scenes(flat, self.lesson, self.device)
            views = views.reshape(*images.shape[:2], *views.shape[1:])
            write_whole(file, lambda out: np.save(out, views))
            print(f"teacher: features of the scenes of {chunk.name}", flush=True)
        found: NDArray[np.float16] = np.load(file)
        return found

    def sample(self, rng: np.random.Generator, pairs: int) -> dict[str, Tensor]:
        """Pairs for one step. Over half of them are of a few classes, so that look-alikes meet."""
        chosen: list[int] = []
        names = list(self.of_class)
        while len(chosen) < pairs * 5 // 8:
            members = self.of_class[names[int(rng.integers(len(names)))]]
            chosen += [int(i) for i in rng.choice(members, min(3, len(members)), replace=False)]
        total = len(self.arrays["mask"])
        chosen += [int(i) for i in rng.integers(0, total, max(0, pairs - len(chosen)))]
        rows = np.array(chosen[:pairs])
        return {key: torch.from_numpy(array[rows]) for key, array in self.arrays.items()}


def captions_of(rng: np.random.Generator, rows: NDArray[np.int16]) -> list[str]:
    """Random captions of n scenes. rows: (n, 5) class indices, -1 for none."""
    captions = []
    for row in rows:
        chance = rng.random()
        names = [CLASS_NAMES[i] for i in row if i >= 0]
        rng.shuffle(names)
        names = [SYNONYMS[n] if n in SYNONYMS and rng.random() < 0.3 else n for n in names]
        phrase = " and ".join(("an " if n[0] in "aeiou" else "a ") + n for n in names)
        if chance < 0.1:
            captions.append("")
        elif chance < 0.25 or not names:
            captions.append(NEUTRAL_PROMPT)
        else:
            captions.append(f"a photo of {phrase}" if chance < 0.8 else phrase)
    return captions


def close_ups(rng: np.random.Generator, pairs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Windows of half the side around the query, in one scene of each pair.

    They are cheap to run, and mostly object. A window is aligned with the teacher's coarser map.
    For maps of 24 x 24 cells and teacher's maps of 8 x 8, returns latents (n, 16, 12, 12), mask and
    classes (n, 12, 12), views (n, 4, 4, dim) and row (n,).
    """
    found: dict[str, list[Tensor]] = {"latents": [], "mask": [], "classes": [], "views": []}
    half, views = pairs["mask"].shape[-1] // 2, pairs["views"].shape[2] // 2
    cells = half // views
    for number, mask in enumerate(pairs["mask"]):
        view = int(rng.integers(2))
        places = torch.nonzero(mask[view] > 60).float()
        centre = places.mean(dim=0) if len(places) else torch.full((2,), float(half))
        corner = (centre - half / 2 + torch.from_numpy(rng.uniform(-cells, cells, 2))) / cells
        top, left = (int(value) for value in corner.round().int().clamp(0, views))
        rows = slice(cells * top, cells * top + half)
        columns = slice(cells * left, cells * left + half)
        for name in ("latents", "mask", "classes"):
            found[name].append(pairs[name][number, view][..., rows, columns])
        seen = pairs["views"][number, view]
        found["views"].append(seen[top : top + views, left : left + views])
    return {**{name: torch.stack(windows) for name, windows in found.items()}, "row": pairs["row"]}

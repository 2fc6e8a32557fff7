"""Frames a second and peak memory of `waldo propagate`, by the length of the video.

    python benchmarks/propagate.py [--frames 50 --frames 100 --frames 200]

Frames of 854 x 480 pixels, made on the spot: two textured discs that move over a textured
background. Each length is a process of its own, so that its peak is its own; reading the frames and
writing masks, contact sheet and (where PyAV or OpenCV is installed) overlay video count, loading
the model does not.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.segmentation.drawing import write_ids
from search.segmentation.video import load_video_extractor, open_labelled, propagate_video

WIDTH, HEIGHT, RADIUS = 854, 480, 60


def texture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Colours in patches of some 20 pixels, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save_video(folder: Path, frames: int) -> Path:
    """Writes the frames into a folder, and the first one's mask, whose path is returned."""
    background, skins = texture(0, WIDTH, HEIGHT), [texture(n, 120, 120) for n in (1, 2)]
    rows, columns = np.mgrid[0:120, 0:120]
    disc = np.hypot(rows - RADIUS + 0.5, columns - RADIUS + 0.5) < RADIUS
    mask = folder.parent / "first.png"
    folder.mkdir()
    for number in range(frames):
        pixels, ids = background.copy(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for place, skin in enumerate(skins, start=1):
            angle = 0.05 * number + 3 * place
            left = int(WIDTH / 2 + 300 * np.cos(angle)) - RADIUS
            top = int(HEIGHT / 2 + 150 * np.sin(angle)) - RADIUS
            pixels[top : top + 120, left : left + 120][disc] = skin[disc]
            ids[top : top + 120, left : left + 120][disc] = place
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)
        if number == 0:
            write_ids(mask, ids)
    return mask


def measure(frames: int, model: str, device: str) -> None:
    """Prints one length's line."""
    extractor = load_video_extractor(model, device)
    with tempfile.TemporaryDirectory() as made:
        mask = save_video(Path(made) / "frames", frames)
        labelled = open_labelled(Path(made) / "frames", mask)
        loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        report = propagate_video(labelled, Path(made) / "out", extractor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rate = frames / report.seconds
    print(
        f"{frames} frames: {rate:.2f} frames/s, peak {peak:.0f} MiB, of which {loaded:.0f} MiB "
        f"before the first (model and libraries)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second, and peak memory.")
    parser.add_argument("--frames", type=int, action="append")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    lengths = given.frames or [50, 100, 200]
    if len(lengths) == 1:
        measure(lengths[0], given.model, given.device)
        return
    for frames in lengths:
        options = ["--frames", str(frames), "--model", given.model, "--device", given.device]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()

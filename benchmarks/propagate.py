"""Frames per second and peak memory of `waldo propagate`, by the length of the video.

    python benchmarks/propagate.py [--frames 50 --frames 100 --frames 200]

Prints the numbers at the end of "Through videos" in docs/segmentation.md. The frames have 854 x 480
pixels and are made by the script: two textured discs move over a textured background. Each length
is a process of its own, so that its peak is its own. The time includes reading the frames and
writing the masks, the contact sheet and (where PyAV or OpenCV is installed) the overlay video, but
not loading the model. Needs Linux.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser, peak_memory
from numpy.typing import NDArray
from PIL import Image

from search.segmentation.drawing import write_ids
from search.segmentation.video import load_video_extractor, open_labelled, propagate_video

WIDTH, HEIGHT, RADIUS = 854, 480, 60


def texture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Patches of colour, about 20 pixels wide, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save_video(folder: Path, frames: int) -> Path:
    """Write the frames into a folder, and the mask of the first beside it; returns its path."""
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
    """Print the line of one length."""
    extractor = load_video_extractor(model, device)
    extractor.get_ready()
    with tempfile.TemporaryDirectory() as made:
        mask = save_video(Path(made) / "frames", frames)
        labelled = open_labelled(Path(made) / "frames", mask)
        loaded = peak_memory()
        report = propagate_video(labelled, Path(made) / "out", extractor)
    rate = frames / report.seconds
    print(
        f"{frames} frames: {rate:.2f} frames/s, peak {peak_memory():.0f} MiB, {loaded:.0f} of them "
        f"before the first (model and libraries)",
        flush=True,
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--frames", type=int, action="append")
    add_model_options(parser)
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

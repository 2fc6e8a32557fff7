"""Everything that Waldo does on a GPU, checked and measured on the one that is there.

    make gpu-check        (or: python benchmarks/gpu_check.py)

Runs the tests of `tests/gpu` on the GPU. Then measures extraction at the shapes of Stable Diffusion
and SDXL-Turbo, with random weights, beside a bare loop over the same modules; an evaluation of the
UNet as it is, with channels last, and compiled; indexing by a worker per GPU; re-ranking of 400
candidates whose maps are on the GPU, beside its floor; and exhaustive scoring. Prints one table for
docs/gpu.md, and says what it skipped. Nothing is downloaded. Where there is no GPU, it ends with
exit code 2.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import make_parser, median_seconds
from rerank import PHOTOS, Work, floor_seconds, make_index

from features.diffusion.architecture import Architecture, Block
from features.diffusion.capture import capture, transformer_block, transformer_blocks
from features.diffusion.inversion import inversion_timesteps
from features.diffusion.model import Conditioning, Parts
from features.diffusion.presets import PRESETS, FeatureSettings
from features.diffusion.unet_model import UNetModel
from features.diffusion.words import Vocabulary
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.models import find_extractor
from features.photo import ModelInput
from features.pretrained.checkpoints import quiet_libraries
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.workers.extractor_pool import ExtractorPool
from search.clock import Clock
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES

ROOT = Path(__file__).parent.parent
BATCHES = (8, 32, None)  # None: as many photos as the free memory allows
SCENES = ROOT / "data" / "scenes" / "photos"
TOKENS = 200
# So many times 400 maps are scored as a collection of 100,000 photos.
TIMES = 250

SD_UNET = {"sample_size": 64, "cross_attention_dim": 768}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
MODELS = {"sd15": SD_UNET, "sdxl-turbo": SDXL_UNET}


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, by Waldo, and by what it is compared with."""

    what: str
    ours: str
    other: str = ""
    share: str = ""


class ShapedModel(UNetModel):
    """A model with the shape of a known one, random weights, and no text encoder."""

    def condition(self, prompt: str | list[str]) -> Conditioning:
        config = self.unet.config
        states = torch.randn(1, 77, config.cross_attention_dim, device=self.device)
        if config.addition_embed_type is None:
            return Conditioning(states.to(self.dtype), None, None)
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        pooled = torch.randn(1, width, device=self.device).to(self.dtype)
        sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]], dtype=self.dtype)
        return Conditioning(states.to(self.dtype), pooled, sizes.to(self.device))


def shaped_model(name: str, unet: dict[str, Any], vae: dict[str, Any], device: str) -> ShapedModel:
    """A model of given configurations, whose weights are made on the device when they are used."""
    import diffusers

    with torch.device("meta"):
        found = transformer_blocks(diffusers.UNet2DConditionModel(**unet))
    blocks = tuple(Block(path, int(path.split(".")[1]), dim) for path, dim in found.items())
    stages = len(unet.get("block_out_channels", range(4)))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    size = unet["sample_size"] * factor
    architecture = Architecture({}, "epsilon", blocks, stages, factor, size)

    def read(place: torch.device, precision: str) -> Parts:
        torch.manual_seed(0)
        with quiet_libraries(), torch.device(place):
            modules = [diffusers.UNet2DConditionModel(**unet), diffusers.AutoencoderKL(**vae)]
            modules[0].to(getattr(torch, precision) if place.type == "cuda" else torch.float32)
        for module in modules:
            module.requires_grad_(False).eval()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        return Parts(modules[0], modules[1], (), (), (1 - betas).cumprod(0))

    return ShapedModel(name, "random", architecture, device, Vocabulary(Path()), read)


def bare_loop(extractor: FeatureExtractor, pixels: torch.Tensor) -> None:
    """The VAE and as many evaluations of the UNet as an extraction needs, and no more."""
    model, settings = extractor.model, extractor.settings
    given = model.condition("")
    batch = len(pixels)
    block = transformer_block(model.unet, settings.block)
    with torch.inference_mode():
        encoded = [model.vae.encode(some).latent_dist.mode() for some in pixels.split(8)]
        latents = torch.cat(encoded).to(model.dtype)
        times = torch.tensor(inversion_timesteps(settings), device=model.device)
        options: dict[str, Any] = {"encoder_hidden_states": given.states.expand(batch, -1, -1)}
        if given.pooled is not None and given.sizes is not None:
            added = {"text_embeds": given.pooled, "time_ids": given.sizes}
            options["added_cond_kwargs"] = {k: v.expand(batch, -1) for k, v in added.items()}
        iterations = settings.iterations if settings.inversion == "fixed-point" else 1
        for time in times:
            for _ in range(iterations):
                model.unet(latents, time, return_dict=False, **options)
        kept = capture(block, lambda: model.unet(latents, times[-1], **options))
        torch.stack(kept).cpu()


def measure_extraction(model: ShapedModel, settings: FeatureSettings, size: int | None) -> Row:
    """Photos per second of the extractor, and of the bare loop. Raises OutOfMemoryError.

    size: photos per batch; None for what the extractor chooses.
    """
    extractor = FeatureExtractor(model, settings, size)
    batch = extractor.batch_size
    side, device = settings.image_size, model.device
    rng = np.random.default_rng(0)
    frame = Frame(side, side, side, extractor.grid)
    photos = [
        ModelInput(rng.integers(0, 256, (side, side, 3), np.uint8), frame, f"{n:064x}", None)
        for n in range(batch)
    ]
    pixels = torch.randn(batch, 3, side, side, device=device)
    bare = batch / median_seconds(lambda: bare_loop(extractor, pixels), 3, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ours = batch / median_seconds(lambda: extractor.extract(photos), 3, device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    chosen = " (chosen)" if size is None else ""
    what = f"extraction, {model.name}, {batch} per batch{chosen}, {peak:.1f} GiB"
    share = f"{100 * ours / bare:.0f} %"
    return Row(what, f"{ours:.2f} photos/s", f"{bare:.2f} photos/s (bare loop)", share)


def measure_variants(model: ShapedModel, settings: FeatureSettings, batch: int) -> list[Row]:
    """An evaluation of the UNet beside two that Waldo does not use. They change the model."""
    given, unet = model.condition(""), model.unet
    side = settings.image_size // model.architecture.latent_factor
    latents = torch.randn(batch, 4, side, side, device=model.device)

    def milliseconds() -> float:
        work = partial(model.predict_noise, latents, settings.timestep, given)
        return 1000 * median_seconds(work, 3, model.device)

    usual = milliseconds()
    unet.to(memory_format=torch.channels_last)
    last = milliseconds()
    unet.to(memory_format=torch.contiguous_format)
    unet.compile()
    compiled = milliseconds()
    what = f"an evaluation of the UNet, {model.name}, {batch} photos"
    return [
        Row(what, f"{usual:.1f} ms", f"{ms:.1f} ms ({how})", f"{100 * ms / usual:.0f} %")
        for how, ms in (("channels last", last), ("compiled", compiled))
    ]


def measure_workers(folder: Path, device: torch.device, workers: int) -> Row:
    """Indexing by several workers, and by one."""
    found = []
    for count in (1, workers):
        extractor = find_extractor("tiny", str(device), None)
        with ExtractorPool(extractor, count) as pool:
            pool.get_ready()
            report = index_photos([SCENES], folder / str(count), pool)
        found.append(report.new / report.seconds)
    what = f"indexing {report.new} photos, tiny, {workers} workers"
    share = f"{100 * found[1] / found[0]:.0f} %"
    return Row(what, f"{found[1]:.1f} photos/s", f"{found[0]:.1f} photos/s (one)", share)


def measure_scoring(folder: Path, device: torch.device, times: int) -> list[Row]:
    """Re-ranking of 400 candidates, and of as many photos as `times` collections of these."""
    rows = []
    with IndexReader.open(make_index(folder)) as reader, IndexReader.open(reader.index_dir) as held:
        held.hold_maps(device)
        work = Work.of(reader, held, TOKENS, device)
        with torch.inference_mode():
            kept = reader.tokens(work.maps, device)[0].levels.shape[2]
            floor = 1000 * sum(floor_seconds(reader.photo_bytes, kept, TOKENS, device)[0])
            for name in ("late", "consistent"):
                ours = 1000 * work.seconds(name, held)
                what = f"{PHOTOS} candidates of {reader.photo_bytes} bytes, {TOKENS} tokens, {name}"
                other = f"{floor:.2f} ms (floor)" if name == "late" else ""
                share = f"{100 * floor / ours:.0f} %" if name == "late" else ""
                rows.append(Row(what, f"{ours:.1f} ms", other, share))
            ids = np.tile(held.ids, times)
            score = partial(score_references, held, ids, [work.reference], [SCORES["late"]])
            seconds = median_seconds(lambda: score(Clock()), 1, device)
    what = f"{len(ids)} photos exhaustively (the maps of {PHOTOS}, {times} times), late"
    return [*rows, Row(what, f"{seconds:.2f} s", f"{floor * times / 1000:.2f} s (floor)")]


def run_tests() -> Row:
    """The tests of the GPU, on the real one."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-8000:], file=sys.stderr)
    return Row("tests/gpu", (done.stdout.strip().splitlines() or ["nothing"])[-1])


def attempted(what: str, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a measurement; a row that says why where it cannot be made."""
    print(f"{what} ...", file=sys.stderr)
    try:
        return work()
    except Exception as error:
        # The other measurements go on.
        torch.cuda.empty_cache()
        return [Row(what, f"skipped ({type(error).__name__}: {str(error).splitlines()[0]})")]


def measure(device: torch.device) -> list[Row]:
    rows = attempted("tests", lambda: [run_tests()])
    for name, unet in MODELS.items():
        model, settings = shaped_model(name, unet, VAE, str(device)), PRESETS[name].settings
        for batch in BATCHES:
            rows += attempted(
                f"extraction, {name}, {batch or 'chosen'} per batch",
                lambda m=model, s=settings, b=batch: [measure_extraction(m, s, b)],  # type: ignore[misc]
            )
        rows += attempted(
            f"variants of the UNet, {name}",
            lambda m=model, s=settings: measure_variants(m, s, BATCHES[0] or 8),  # type: ignore[misc]
        )
        del model
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        count = max(2, torch.cuda.device_count())
        rows += attempted("workers", lambda: [measure_workers(Path(folder), device, count)])
    with tempfile.TemporaryDirectory() as folder:
        rows += attempted("scoring", lambda: measure_scoring(Path(folder), device, TIMES))
    return rows


def print_table(card: str, rows: list[Row]) -> None:
    print(f"| {card} | Waldo | beside | share |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.ours} | {row.other} | {row.share} |")


def main() -> None:
    make_parser(__doc__).parse_args()
    if not torch.cuda.is_available():
        print("gpu-check: torch finds no NVIDIA GPU here; nothing was measured", file=sys.stderr)
        sys.exit(2)
    card = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    print_table(card, measure(torch.device("cuda")))


if __name__ == "__main__":
    main()

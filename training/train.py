"""Trains the bundled model from random weights: first its autoencoder, then the rest jointly.

    python -m training.train --pictures DIR --backgrounds DIR --work DIR --export DIR

The joint loss is the co-training of `features/tiny/MODEL_CARD.md`. Its terms are denoising with
captions (v-prediction) and, on the maps of the captured block, the losses of `losses.py`: naming
cells and objects, the teacher's view, correspondence between two scenes of one object, and
retrieval. The learning rate falls to zero at `--steps`. A run resumes from the last checkpoint in
its work directory; with more `--steps` than before, it continues.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.chunks import CLASS_NAMES, load_split, render_chunks, write_whole
from training.losses import (
    class_loss,
    dense_loss,
    finding_loss,
    lesson_loss,
    object_loss,
    retrieval_loss,
    view_loss,
)
from training.muon import Muon
from training.names import BACKGROUND
from training.pair_store import PairStore, captions_of, close_ups
from training.teacher import teach
from training.tiny_model import (
    BLOCK,
    NEUTRAL_PROMPT,
    FeatureUNet,
    Parts,
    build_parts,
    class_vectors,
    encode_images,
    export,
    fast_precision,
    prompt_states,
    read_parts,
    set_class_vectors,
)

WEIGHTS = {
    "noise": 0.4,
    "class": 0.5,
    "object": 0.5,
    "finding": 0.8,
    "lesson": 0.5,
    "view": 4.0,
    "early view": 2.0,
    "dense": 0.35,
    "retrieval": 0.6,
}
LOW_NOISE = 200
# AdamW's learning rate as a share of Muon's.
_ADAM_SHARE = 0.03
# One of the 128 dimensions of the semantic map belongs to the background.
TEACHER_WIDTH = 127


@dataclass
class Trainer:
    """The state of joint training, which a checkpoint saves."""

    parts: Parts
    net: FeatureUNet
    averaged: dict[str, Tensor]
    # One for the matrices and kernels of hidden layers, one for all other weights.
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    # From the channels of the middle block to the teacher's view; used in training only.
    early: nn.Linear
    views: Tensor
    device: torch.device
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def fresh(cls, parts: Parts, views: Tensor, device: torch.device) -> Trainer:
        parts.unet.to(device, memory_format=torch.channels_last).train()
        # Words keep the states that `set_class_vectors` gave them.
        parts.text_encoder.to(device).eval().requires_grad_(False)
        parts.unet.get_submodule(BLOCK).get_submodule("attn2.to_k").requires_grad_(False)
        early = nn.Linear(parts.unet.config.block_out_channels[-1], views.shape[1]).to(device)
        hidden: list[Tensor] = []
        others: list[Tensor] = [*early.parameters()]
        for name, weight in parts.unet.named_parameters():
            outer = re.match(r"conv_in|conv_out|time_emb", name) or weight.ndim < 2
            if weight.requires_grad:
                (others if outer else hidden).append(weight)
        adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=0.01)
        net = FeatureUNet(parts.unet)
        both = (Muon(hidden, lr=0.0), adam)
        trainer = cls(parts, net, {}, both, early, views.to(device), device)
        trainer.averaged = {k: v.detach().clone() for k, v in trainer.weights().items()}
        return trainer

    def weights(self) -> dict[str, Tensor]:
        named = {f"unet.{k}": v for k, v in self.parts.unet.state_dict().items()}
        return named | {f"text.{k}": v for k, v in self.parts.text_encoder.state_dict().items()}

    def average(self) -> None:
        """Move the averaged weights towards the current ones."""
        keep = min(0.998, (1 + self.step) / (10 + self.step))
        for key, value in self.weights().items():
            if value.is_floating_point():
                self.averaged[key].lerp_(value.detach(), 1 - keep)

    def averaged_parts(self) -> Parts:
        """A copy of the parts with the averaged weights."""
        parts = Parts(
            copy.deepcopy(self.parts.unet),
            self.parts.vae,
            copy.deepcopy(self.parts.text_encoder),
            self.parts.tokenizer,
            self.parts.scheduler,
        )
        for module, prefix in ((parts.unet, "unet."), (parts.text_encoder, "text.")):
            own = {k[len(prefix) :]: v for k, v in self.averaged.items() if k.startswith(prefix)}
            module.load_state_dict(own)
        return parts

    def save(self, file: Path) -> None:
        state = {
            "weights": self.weights(),
            "averaged": self.averaged,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "early": self.early.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        write_whole(file, lambda out: torch.save(state, out))

    def load(self, file: Path) -> None:
        state = torch.load(file, map_location=self.device, weights_only=True)
        for module, prefix in ((self.parts.unet, "unet."), (self.parts.text_encoder, "text.")):
            weights = state["weights"]
            own = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
            module.load_state_dict(own)
        self.averaged = state["averaged"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.early.load_state_dict(state["early"])
        self.step, self.seconds = state["step"], state["seconds"]

    def set_rate(self, rate: float) -> None:
        """Set Muon's learning rate, and AdamW's in proportion."""
        for optimizer, share in zip(self.optimizers, (1.0, _ADAM_SHARE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * rate

    def descend(self, loss: Tensor) -> None:
        """One step of both optimizers."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()

    def naming_losses(self, close: dict[str, Tensor]) -> dict[str, Tensor]:
        """The naming losses on close-ups of objects, from `close_ups`."""
        device = self.device
        latents = close["latents"].float().to(device)
        clean = torch.zeros(len(latents), dtype=torch.long, device=device)
        neutral = prompt_states(self.parts, [NEUTRAL_PROMPT])
        _, _, semantic = self._run(latents, clean, neutral.expand(len(latents), -1, -1))
        mask = close["mask"].float().to(device) / 255
        return self._naming(semantic, mask, close["classes"], close["row"], close["views"])

    def scene_losses(
        self, rng: np.random.Generator, batch: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """All losses on whole scenes.

        batch: pairs to match. extra: pairs whose first scenes are denoised.
        """
        device, scheduler = self.device, self.parts.scheduler
        views = torch.cat([batch["latents"][:, 0], batch["latents"][:, 1]]).float()
        denoised = extra["latents"][:, 0].float()
        latents = torch.cat([views, denoised]).to(device)
        count, total = len(views), len(latents)
        low = rng.integers(1, LOW_NOISE, count) * (rng.random(count) < 0.35)
        anywhere = rng.integers(1, 1000, total - count)
        steps = torch.from_numpy(np.concatenate([low, anywhere])).to(device)
        noise = torch.randn_like(latents)
        noisy = scheduler.add_noise(latents, noise, steps)
        # t = 0 stands for the clean latent.
        noisy = torch.where((steps == 0)[:, None, None, None], latents, noisy)
        texts = captions_of(rng, extra["captions"][:, 0].numpy())
        states = prompt_states(self.parts, [NEUTRAL_PROMPT, *texts])
        states = torch.cat([states[:1].expand(count, -1, -1), states[1:]])
        predicted, appearance, semantic = self._run(noisy, steps, states)
        target = scheduler.get_velocity(latents, noise, steps)
        error = (predicted - target).pow(2).mean(dim=(1, 2, 3))
        half = count // 2
        mask = torch.cat([batch["mask"][:, 0], batch["mask"][:, 1]]).float().to(device) / 255
        holds = torch.cat([batch["holds"][:, 0], batch["holds"][:, 1]]).to(device)
        classes = torch.cat([batch["classes"][:, 0], batch["classes"][:, 1]])
        rows = torch.cat([batch["row"], batch["row"]])
        seen = torch.cat([batch["views"][:, 0], batch["views"][:, 1]])
        return {
            "noise": error[count:].mean() + 0.3 * (error[:count] * (steps[:count] > 0)).mean(),
            **self._naming(semantic[:count], mask, classes, rows, seen),
            "dense": dense_loss(
                appearance[:half], appearance[half:count], batch["points"].float().to(device)
            ),
            "retrieval": retrieval_loss(appearance[:count], mask.flatten(1), holds),
        }

    def _run(self, latents: Tensor, steps: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = fast_precision(self.device)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            noisy = latents.contiguous(memory_format=torch.channels_last)
            result: tuple[Tensor, Tensor, Tensor] = self.net(noisy, steps, states)
        return result

    def _naming(
        self, semantic: Tensor, mask: Tensor, classes: Tensor, rows: Tensor, views: Tensor
    ) -> dict[str, Tensor]:
        """The naming losses of the first n scenes of the last run.

        semantic: (n, h * w, d). mask: (n, h, w) in 0..1. classes: (n, h, w). rows: (n,). views:
        (n, h / 3, w / 3, dim).
        """
        vectors = class_vectors(self.parts, [BACKGROUND, *CLASS_NAMES])
        early = self.early(self.net.middle()[: len(semantic)].float().flatten(2).transpose(1, 2))
        known = classes.flatten(1).long().to(self.device)
        rows = rows.long().to(self.device)
        views = views.float().to(self.device)
        shared = semantic[..., : self.views.shape[1]]
        return {
            "class": class_loss(semantic, vectors, known),
            "object": object_loss(semantic, vectors, known),
            "finding": finding_loss(semantic, vectors, known),
            "lesson": lesson_loss(shared, mask.flatten(1), rows, self.views),
            "view": view_loss(shared, views),
            "early view": view_loss(early, views),
        }


def train_autoencoder(
    parts: Parts, chunks: list[Path], minutes: float, device: torch.device
) -> None:
    """Train the autoencoder on crops; its latents get mean 0 and variance 1 per channel."""
    rng = np.random.default_rng(1)
    images = np.concatenate([np.load(f)["images"][:, 0] for f in chunks])
    vae = parts.vae.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4)
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        rate = 2e-3 * min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        top, left = rng.integers(0, 65, 2)
        rows = np.sort(rng.integers(0, len(images), 24))
        crop = torch.from_numpy(images[rows, top : top + 64, left : left + 64]).to(device)
        # In float32: with so few channels, bfloat16 is many times slower on a CPU.
        latents = encode_images(parts, crop)
        back = vae.decode(latents + 0.05 * torch.randn_like(latents)).sample
        target = crop.permute(0, 3, 1, 2).float() / 127.5 - 1
        squared = functional.mse_loss(back, target)
        mean, spread = latents.mean(dim=(0, 2, 3)), latents.var(dim=(0, 2, 3))
        level = mean.pow(2).mean() + (spread + 1e-4).log().pow(2).mean()
        loss = squared + 0.3 * functional.l1_loss(back, target) + 0.02 * level
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            quality = -10 * math.log10(max(squared.item() / 4, 1e-9))
            print(f"autoencoder {step}: {quality:.1f} dB, level {level.item():.3f}", flush=True)
        step += 1
    vae.eval().requires_grad_(False)


def take_over(parts: Parts, older: Parts) -> None:
    """Start from the autoencoder and the UNet of an older model.

    Its text encoder is taken too where both models have the same class vectors. Otherwise the
    layers that depend on words keep their random weights.
    """
    parts.vae.load_state_dict(older.vae.state_dict())
    weights = older.unet.state_dict()
    if _class_likeness(parts, older) > 0.98:
        parts.text_encoder.load_state_dict(older.text_encoder.state_dict())
        parts.unet.load_state_dict(weights)
        return
    weights = {k: v for k, v in weights.items() if not re.search(r"attn2\.to_[kv]\.", k)}
    # The semantic map starts near zero, because it pointed at the older class vectors.
    del weights[f"{BLOCK}.attn2.to_q.weight"]
    parts.unet.load_state_dict(weights, strict=False)
    nn.init.normal_(parts.unet.get_submodule(BLOCK).get_submodule("attn2.to_q").weight, std=0.02)


@torch.no_grad()
def _class_likeness(parts: Parts, older: Parts) -> float:
    """The mean cosine of the class vectors of two models; -1 where their vocabularies differ."""
    if parts.tokenizer.get_vocab() != older.tokenizer.get_vocab():
        return -1.0
    names = list(CLASS_NAMES)
    own, theirs = (class_vectors(each, names) for each in (parts, older))
    return float(functional.cosine_similarity(own, theirs, dim=1).mean())


def weighted(losses: dict[str, Tensor]) -> Tensor:
    """The weighted sum of losses that a step minimises."""
    return torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()


def train(trainer: Trainer, store: PairStore, given: argparse.Namespace, checkpoint: Path) -> None:
    """Train jointly until all steps are done, with an export every few minutes."""
    last_export = time.monotonic()
    running: dict[str, float] = {}
    while trainer.step < given.steps:
        began = time.monotonic()
        # A run starts with few chunks and reads more as it goes on; a resumed run holds as many as
        # it would have held without the interruption.
        store.hold(12 + 5 * (trainer.step // 100))
        rng = np.random.default_rng([given.seed, trainer.step])
        torch.manual_seed(given.seed * 1_000_003 + trainer.step)
        share = trainer.step / given.steps
        rate = given.rate * min(1.0, (trainer.step + 1) / 100)
        trainer.set_rate(rate * 0.5 * (1 + math.cos(math.pi * share)))
        close = trainer.naming_losses(close_ups(rng, store.sample(rng, given.close_ups)))
        losses = {f"close {name}": value for name, value in close.items()}
        total = weighted(close)
        # Names take far more steps to learn than matching, and close-ups are cheap.
        if trainer.step % given.scenes_every == 0:
            batch, extra = store.sample(rng, given.pairs), store.sample(rng, given.denoised)
            scenes = trainer.scene_losses(rng, batch, extra)
            losses |= scenes
            total = total + weighted(scenes)
        trainer.descend(total)
        trainer.step += 1
        trainer.average()
        trainer.seconds += time.monotonic() - began
        for name, value in losses.items():
            running[name] = 0.98 * running.get(name, value.item()) + 0.02 * value.item()
        if trainer.step % 50 == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in running.items())
            print(f"step {trainer.step} {trainer.seconds / 60:.1f} min: {told}", flush=True)
        if trainer.step % 250 == 0:
            trainer.save(checkpoint)
        if time.monotonic() - last_export > 60 * given.export_every:
            export(trainer.averaged_parts(), given.export)
            last_export = time.monotonic()
            print(f"exported at step {trainer.step}", flush=True)
    trainer.save(checkpoint)
    export(trainer.averaged_parts(), given.export)
    print(f"finished: {trainer.step} steps, {trainer.seconds / 60:.1f} minutes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the bundled model tiny.")
    parser.add_argument(
        "--pictures", type=Path, required=True, help="cut-outs, as prepare.sh fetches them"
    )
    parser.add_argument("--backgrounds", type=Path, required=True, help="wallpapers, textures")
    parser.add_argument("--work", type=Path, required=True, help="chunks, caches, checkpoints")
    parser.add_argument("--export", type=Path, required=True, help="where the model is written")
    parser.add_argument("--initial", type=Path, help="a trained model to begin with")
    parser.add_argument("--steps", type=int, default=6000, help="of joint training")
    parser.add_argument("--autoencoder-minutes", type=float, default=5)
    parser.add_argument("--chunks", type=int, default=60, help="of 500 pairs, rendered if missing")
    parser.add_argument("--pairs", type=int, default=16, help="pairs to match at once")
    parser.add_argument("--denoised", type=int, default=4, help="scenes to denoise at once")
    parser.add_argument("--close-ups", type=int, default=48, help="objects to name in a step")
    parser.add_argument(
        "--scenes-every", type=int, default=3, help="steps from one with scenes to the next"
    )
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-every", type=float, default=10, help="minutes between exports")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for torch's default")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given.work.mkdir(parents=True, exist_ok=True)
    directory = given.work / "chunks-train"
    directory.mkdir(exist_ok=True)
    source = load_split(given.pictures, given.backgrounds, "train", given.work)
    # Before torch starts its threads, which forked processes would not have.
    render_chunks(source, given.chunks, 500, directory)
    drawings = [*source.unnamed, *(c for some in source.by_class.values() for c in some)]
    lesson = teach(drawings, TEACHER_WIDTH, given.work / "teacher.npz")
    torch.manual_seed(given.seed)
    parts = build_parts()
    prototypes = torch.zeros(len(CLASS_NAMES), TEACHER_WIDTH)
    for name, prototype in zip(lesson.class_names, lesson.prototypes, strict=True):
        prototypes[CLASS_NAMES.index(name)] = torch.from_numpy(prototype)
    reached = set_class_vectors(parts, list(CLASS_NAMES), prototypes)
    print(f"class vectors: cosine {reached:.3f} with the prototypes", flush=True)
    autoencoder = given.work / "autoencoder.pt"
    if given.initial is not None:
        take_over(parts, read_parts(given.initial))
        write_whole(autoencoder, lambda out: torch.save(parts.vae.state_dict(), out))
    if not autoencoder.exists():
        first = sorted(directory.glob("*.npz"))[:6]
        train_autoencoder(parts, first, given.autoencoder_minutes, device)
        write_whole(autoencoder, lambda out: torch.save(parts.vae.state_dict(), out))
    parts.vae.load_state_dict(torch.load(autoencoder, weights_only=True))
    parts.vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    trainer = Trainer.fresh(parts, torch.from_numpy(lesson.views), device)
    checkpoint = given.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    store = PairStore(directory, parts, lesson, device)
    train(trainer, store, given, checkpoint)


if __name__ == "__main__":
    main()

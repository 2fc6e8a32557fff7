"""The bundled weights: they are small, can be loaded, and the tokenizer knows its words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WEIGHTS = Path(__file__).parents[2] / "features" / "tiny" / "weights"
MIB = 1024 * 1024

# Classes in the benchmarks of photos and videos.
BENCHMARK_NOUNS = (
    "backpack", "stuffed animal", "bowl", "can", "candle", "cat", "clock", "dog", "sneaker",
    "shoe", "boot", "toy", "teapot", "vase", "sunglasses", "glasses", "cartoon", "person",
    "car", "bird", "horse", "cow", "sheep", "boat", "bicycle", "bear", "elephant", "giraffe",
    "truck", "bus", "train", "airplane", "bottle", "cup", "chair", "book", "phone",
)  # fmt: skip


def test_files_are_small_enough() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sizes
    assert max(sizes) < 16 * MIB
    assert sum(sizes) < 32 * MIB


def test_layout_is_that_of_a_stable_diffusion_pipeline() -> None:
    index = json.loads((WEIGHTS / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusionPipeline"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert (WEIGHTS / part).is_dir()
    assert not list(WEIGHTS.rglob("*.bin"))


def test_tokenizer_knows_the_benchmarks_nouns() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    special = set(tokenizer.all_special_ids)
    for noun in BENCHMARK_NOUNS:
        ids = tokenizer(noun)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert not special & set(ids[1:-1]), noun
    assert tokenizer("zyzzyva")["input_ids"][1] == tokenizer.unk_token_id
    assert tokenizer("DOG")["input_ids"] == tokenizer("dog")["input_ids"]


def test_the_captured_block_has_the_layers_waldo_reads() -> None:
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DConditionModel.from_pretrained(WEIGHTS / "unet")
    block = unet.get_submodule("up_blocks.2.attentions.1.transformer_blocks.0")
    assert block.attn1.to_q.out_features == block.attn1.to_k.out_features == 128
    assert block.attn2.to_q.out_features == block.attn2.to_k.out_features == 128

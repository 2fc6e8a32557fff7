"""Captured features against an independent reading of the unmodified pipeline."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.diffusion.loading import load_model
from features.diffusion.presets import PRESETS
from features.errors import ModelError, RegionError
from features.extractor import FeatureExtractor
from features.photo import ModelInput, load_model_input
from tests.helpers.models.pipelines import FAMILIES
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]


class RecordingAttention:
    """Attention written out, independent of diffusers' own; keeps its query and key projections."""

    def __init__(self) -> None:
        self.query = self.key = torch.empty(0)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        self.query = hidden_states @ attn.to_q.weight.T
        self.key = context @ attn.to_k.weight.T
        value = context @ attn.to_v.weight.T

        def split(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        scores = split(self.query) @ split(self.key).transpose(-1, -2)
        width = self.query.shape[-1] // attn.heads
        mixed = (scores / width**0.5).softmax(dim=-1) @ split(value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(-2)) / attn.rescale_output_factor


def photos(tmp_path: Path, extractor: FeatureExtractor, count: int) -> list[ModelInput]:
    shapes = [(96, 64), (64, 96), (80, 80), (120, 40), (33, 77)]
    return [
        load_model_input(
            save_photo(tmp_path / f"{i}.png", *shapes[i % len(shapes)], seed=i),
            extractor.image_size,
            extractor.grid,
        )
        for i in range(count)
    ]


def read_from_pipeline(
    pipeline: Any, extractor: FeatureExtractor, latents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """F_A and F_S of noisy latents, and the key of "dog", by the methods of the pipeline."""
    block = pipeline.unet.get_submodule(extractor.settings.block)
    own, cross = RecordingAttention(), RecordingAttention()
    block.attn1.set_processor(own)
    block.attn2.set_processor(cross)

    def run(prompt: str) -> None:
        with torch.no_grad():
            encoded = pipeline.encode_prompt(
                prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            added = None
            if pipeline.unet.config.addition_embed_type == "text_time":  # SDXL
                size = (pipeline.unet.config.sample_size * pipeline.vae_scale_factor,) * 2
                time_ids = pipeline._get_add_time_ids(
                    size, (0, 0), size, torch.float32, encoded[2].shape[-1]
                )
                added = {"text_embeds": encoded[2], "time_ids": time_ids}
            pipeline.unet(
                latents,
                extractor.settings.timestep,
                encoder_hidden_states=encoded[0],
                added_cond_kwargs=added,
            )

    run(extractor.settings.prompt)
    features = (own.query + own.key) / 2, cross.query
    run("dog")
    # Begin token, then "dog" in one token: its key is at place 1.
    return *features, cross.key[0, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_parity_with_the_unmodified_pipeline(
    family: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    import diffusers

    folder = pipeline_folder(family)
    extractor = FeatureExtractor.load(str(folder), device="cpu", batch_size=1)
    [photo] = photos(tmp_path, extractor, 1)
    [maps] = extractor.extract([photo])

    # The same noisy latent, from the pipeline's own VAE and the documented noise.
    xl = family == "sdxl"
    kind = diffusers.StableDiffusionXLPipeline if xl else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, **({} if xl else {"safety_checker": None}))
    image = torch.from_numpy(photo.pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    with torch.no_grad():
        clean = pipeline.vae.encode(image).latent_dist.mode()
        clean = clean * pipeline.vae.config.scaling_factor
    noisy = noised_by_hand(clean, photo.content_hash, extractor)
    appearance, semantic, key = read_from_pipeline(pipeline, extractor, noisy)

    shape = (extractor.grid, extractor.grid, extractor.dim)
    # The maps are stored in float16: half a unit in the last place of 11 bits.
    options: dict[str, float] = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(maps.appearance, appearance.reshape(shape), **options)
    np.testing.assert_allclose(maps.semantic, semantic.reshape(shape), **options)
    class_vector = extractor.model.class_vector("dog", extractor.settings.block)
    torch.testing.assert_close(class_vector, key, rtol=1e-5, atol=1e-6)


def noised_by_hand(
    clean: torch.Tensor, content_hash: str, extractor: FeatureExtractor
) -> torch.Tensor:
    """One-step noising, from the schedule's definition rather than a scheduler's tables."""
    seed = int.from_bytes(hashlib.sha256(content_hash.encode()).digest()[:8], "big") // 2
    noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = float(np.prod(1 - betas[: extractor.settings.timestep + 1]))
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_single_photos(family: str, pipeline_folder: Folder, tmp_path: Path) -> None:
    single = FeatureExtractor.load(str(pipeline_folder(family)), device="cpu", batch_size=1)
    batched = FeatureExtractor(single.model, single.settings, batch_size=4)
    inputs = photos(tmp_path, single, 5)
    for one, many in zip(single.extract(inputs), batched.extract(inputs), strict=True):
        assert one.content_hash == many.content_hash
        # In float32, batches of different size differ by rounding; then float16 storage.
        np.testing.assert_allclose(one.appearance, many.appearance, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(one.semantic, many.semantic, rtol=2e-3, atol=2e-3)


def test_company_in_a_batch_changes_nothing(pipeline_folder: Folder, tmp_path: Path) -> None:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd1")), device="cpu", batch_size=3)
    first, second, third = photos(tmp_path, extractor, 3)
    alone = extractor.extract([first])[0]
    accompanied = extractor.extract([first, second, third])[0]
    np.testing.assert_array_equal(alone.appearance, accompanied.appearance)
    np.testing.assert_array_equal(alone.semantic, accompanied.semantic)


def test_nothing_after_the_captured_block_runs(pipeline_folder: Folder, tmp_path: Path) -> None:
    extractor = FeatureExtractor.load(str(pipeline_folder("sdxl")), device="cpu", batch_size=1)
    ran: list[str] = []
    for name, module in extractor.model.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    extractor.extract(photos(tmp_path, extractor, 1))
    block = extractor.settings.block
    assert f"{block}.attn1.to_out.0" in ran
    assert f"{block}.attn2.to_q" in ran
    assert not [name for name in ran if name.startswith((f"{block}.attn2.to_k", f"{block}.ff"))]
    assert not [name for name in ran if name.startswith(("up_blocks.2", "conv_out"))]


def test_pooled_vector_leaves_padding_out(pipeline_folder: Folder, tmp_path: Path) -> None:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd1")), device="cpu", batch_size=1)
    path = save_photo(tmp_path / "wide.png", 120, 40)
    [maps] = extractor.extract([load_model_input(path, extractor.image_size, extractor.grid)])
    valid = maps.frame.valid()
    assert 0 < valid.sum() < valid.size
    expected = np.concatenate(
        [
            maps.appearance[valid].astype(np.float64).mean(axis=0),
            maps.semantic[valid].astype(np.float64).mean(axis=0),
        ]
    )
    np.testing.assert_allclose(maps.pooled(), expected, rtol=1e-5, atol=1e-6)


def test_class_name_of_several_tokens_is_their_mean(pipeline_folder: Folder) -> None:
    model = load_model(str(pipeline_folder("sd1")), device="cpu")
    settings = model.architecture.inspected_settings()
    states = model.class_states("dog cat")
    # "dog" has a merge of its own; "cat" falls into three letters.
    assert len(states) == 4
    layer = model.unet.get_submodule(settings.block).attn2.to_k
    expected = (states @ layer.weight.T).mean(dim=0)
    torch.testing.assert_close(model.class_vector("dog cat", settings.block), expected)


def test_inspection_takes_the_last_block_of_the_up_path(pipeline_folder: Folder) -> None:
    expected = {
        "sd1": ("up_blocks.3.attentions.2.transformer_blocks.0", 8, 8),
        "sd2": ("up_blocks.3.attentions.2.transformer_blocks.0", 8, 8),
        "sdxl": ("up_blocks.1.attentions.2.transformer_blocks.1", 4, 16),
    }
    for family, (block, grid, dim) in expected.items():
        model = load_model(str(pipeline_folder(family)), device="cpu")
        settings = model.architecture.inspected_settings()
        assert settings.block == block
        assert model.architecture.map_shape(settings) == (grid, dim)
        assert model.vae.decoder is None


def test_changed_weights_change_the_fingerprint(pipeline_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pipeline_folder("sd1"), folder)
    before = FeatureExtractor.load(str(folder), device="cpu").fingerprint()
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="another version"):
        FeatureExtractor.from_fingerprint(before, device="cpu")


def test_the_revision_of_a_folder_is_held(pipeline_folder: Folder) -> None:
    """Indexes keep it, so releases must not change it: all files, in this order of their parts."""
    folder = pipeline_folder("sdxl")
    texts = [f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2")]
    digest = hashlib.sha256()
    for part in ("unet", "vae", *texts, "scheduler"):
        for path in sorted((folder / part).iterdir()):
            if path.suffix in (".json", ".safetensors", ".txt"):
                digest.update(f"{part}/{path.name}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    assert load_model(str(folder), device="cpu").revision == f"sha256:{digest.hexdigest()}"


def test_models_that_cannot_be_had_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf download someone/some-model"):
        load_model("someone/some-model", device="cpu")
    with pytest.raises(ModelError, match="no such model; known names: tiny"):
        load_model("tinny", device="cpu")
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load_model(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="device nonsense"):
        load_model("tiny", device="nonsense").load()


def test_pickled_weights_are_not_loaded(pipeline_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pipeline_folder("sd1"), folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"conv_in.weight": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match="unet are pickle files, which can run code"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("harm", ["cut", "lacking"])
def test_damaged_weights_are_one_clear_line(
    pipeline_folder: Folder, tmp_path: Path, part: str, harm: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pipeline_folder("sd1"), folder)
    [weights] = (folder / part).glob("*.safetensors")
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        tensors = load_file(weights)
        tensors.pop(min(tensors))
        save_file(tensors, weights, {"format": "pt"})
    why = "is cut short" if harm == "cut" else "cannot be loaded"
    with pytest.raises(ModelError, match=why) as raised:
        load_model(str(folder), device="cpu").load()
    assert "\n" not in str(raised.value)


def test_tiny_refuses_words_it_does_not_know(tiny: FeatureExtractor) -> None:
    with pytest.raises(RegionError, match="'qwzx': the model tiny knows none of its words"):
        tiny.model.class_vector("qwzx", tiny.settings.block)
    assert tiny.model.class_vector("Dog", tiny.settings.block).shape == (tiny.dim,)


def test_the_listed_shape_of_tiny_is_its_shape(tiny: FeatureExtractor) -> None:
    assert (PRESETS["tiny"].grid, PRESETS["tiny"].dim) == (tiny.grid, tiny.dim)

"""What is known of a model before its weights are read, against the model itself."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.diffusion.architecture import Architecture
from features.diffusion.capture import transformer_block
from features.diffusion.loading import load_model
from features.diffusion.presets import PRESETS
from features.diffusion.vocabulary import nouns
from features.errors import ModelError, RegionError
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from tests.helpers.models.pipelines import FAMILIES
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]

# Where the published models differ in what decides the shape of their maps.
_SD = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
}
_XL = {
    "addition_embed_type": "text_time",
    "block_out_channels": [320, 640, 1280],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "sd14": _SD,
    "sd15": _SD,
    "sd21-base": {**_SD, "attention_head_dim": [5, 10, 20, 20]},
    "cleandift-sd15": _SD,
    "cleandift-sd21": {**_SD, "sample_size": 96, "attention_head_dim": [5, 10, 20, 20]},
    "sdxl": {**_XL, "sample_size": 128},
    "sdxl-turbo": {**_XL, "sample_size": 64},
}

# UNets that other families do not have: blocks of different depth, in one up block too.
UNUSUAL: dict[str, dict[str, Any]] = {
    "layers": {"layers_per_block": [1, 2]},
    "depths": {"transformer_layers_per_block": [2, 1]},
    "nested": {
        "transformer_layers_per_block": [[1, 1], [1, 1]],
        "reverse_transformer_layers_per_block": [[1, 2, 1], [3, 1, 1]],
        "layers_per_block": 2,
    },
    "dual": {"dual_cross_attention": True},
    "simple": {"up_block_types": ("SimpleCrossAttnUpBlock2D", "CrossAttnUpBlock2D")},
}


def naive_blocks(unet: Any) -> list[tuple[str, int]]:
    """The transformer blocks on the up path and their channels, by walking through the modules."""
    found = []
    for i, up in enumerate(unet.up_blocks):
        for j, attention in enumerate(getattr(up, "attentions", ())):
            for k, block in enumerate(getattr(attention, "transformer_blocks", ())):
                path = f"up_blocks.{i}.attentions.{j}.transformer_blocks.{k}"
                found.append((path, block.attn1.to_q.weight.shape[0]))
    return found


def pipeline_configs(folder: Path, unet: dict[str, Any]) -> Path:
    """The configuration files of a pipeline, without weights. unet: settings of its UNet."""
    files = {
        "model_index.json": {
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": [None, None],
        },
        "unet/config.json": unet,
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "scheduler/scheduler_config.json": {},
    }
    for name, values in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("family", [*FAMILIES, "tiny"])
def test_configurations_tell_what_the_loaded_model_is(
    family: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    name = family if family == "tiny" else str(pipeline_folder(family))
    extractor = FeatureExtractor.load(name, device="cpu", batch_size=1)
    known = extractor.grid, extractor.dim, extractor.fingerprint()
    architecture = extractor.model.architecture
    path = save_photo(tmp_path / "photo.png", 96, 64)

    [maps] = extractor.extract([load_model_input(path, extractor.image_size, extractor.grid)])
    assert maps.appearance.shape == maps.semantic.shape == (known[0], known[0], known[1])
    assert (extractor.grid, extractor.dim, extractor.fingerprint()) == known
    unet, vae = extractor.model.unet, extractor.model.vae
    blocks = [(block.path, block.dim) for block in architecture.blocks]
    assert blocks == naive_blocks(unet)
    side = extractor.image_size
    latents = extractor.model.encode_photos(np.zeros((1, side, side, 3), np.uint8))
    assert architecture.latent_factor == side // latents.shape[-1]
    assert architecture.native_size == unet.config.sample_size * architecture.latent_factor
    assert vae.decoder is None


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_blocks_of_unusual_unets(unusual: str, tmp_path: Path) -> None:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "norm_num_groups": 4,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": 2,
            "cross_attention_dim": 8,
            **UNUSUAL[unusual],
        }
    )
    expected = naive_blocks(unet)
    folder = pipeline_configs(tmp_path, json.loads(unet.to_json_string()))
    if not expected:
        with pytest.raises(ValueError, match="no transformer block on its up path"):
            Architecture.read(folder)
        return
    found = Architecture.read(folder)
    assert [(block.path, block.dim) for block in found.blocks] == expected
    for block in found.blocks:
        assert transformer_block(unet, block.path).attn2.to_k.out_features == block.dim


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_list_the_shapes_of_the_published_models(name: str, tmp_path: Path) -> None:
    architecture = Architecture.read(pipeline_configs(tmp_path, PUBLISHED[name]))
    preset = PRESETS[name]
    assert architecture.map_shape(preset.settings) == (preset.grid, preset.dim)


def test_a_fingerprint_needs_no_torch(pipeline_folder: Folder) -> None:
    code = """
import sys
from features.extractor import FeatureExtractor
for name in sys.argv[1:]:
    extractor = FeatureExtractor.load(name, "cpu")
    assert FeatureExtractor.from_fingerprint(extractor.fingerprint()).grid == extractor.grid
heavy = {"torch", "diffusers", "transformers", "tokenizers"} & set(sys.modules)
print(sorted(heavy), extractor.fingerprint()["revision"])
"""
    folder = str(pipeline_folder("sdxl"))
    command = [sys.executable, "-c", code, "tiny", str(pipeline_folder("sd35")), folder]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = FeatureExtractor.load(folder, "cpu").fingerprint()["revision"]
    assert run.stdout == f"[] {expected}\n"


def test_a_model_that_is_not_what_its_configuration_says(pipeline_folder: Folder) -> None:
    model = load_model(str(pipeline_folder("sd1")), device="cpu")
    first, *others = model.architecture.blocks
    model.architecture = replace(
        model.architecture, blocks=(replace(first, dim=first.dim + 1), *others)
    )
    with pytest.raises(ModelError, match=r"other transformer blocks than its config\.json says"):
        model.load()


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        ("model_index.json", {"unet": ["diffusers", "UNet3D"]}, "its unet is UNet3D, not UNet2D"),
        ("model_index.json", {"text_encoder": None}, "its text_encoder is missing"),
        ("model_index.json", {"vae": ["AutoencoderKL"]}, "cannot be loaded"),
        ("unet/config.json", {"addition_embed_type": "image"}, "conditioning by image"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D"] * 4}, "no transformer block"),
        ("unet/config.json", {"sample_size": None}, "cannot be loaded"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "it predicts sample"),
        ("vae/config.json", None, "cannot be loaded"),
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_are_read(
    file: str, changes: dict[str, Any] | None, why: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(
        pipeline_folder("sd1"), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")
    )
    if changes is None:
        (folder / file).write_text("{")
    else:
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **changes}))
    with pytest.raises(ModelError, match=why) as raised:
        FeatureExtractor.load(str(folder))
    assert "\n" not in str(raised.value)


def test_settings_that_do_not_fit() -> None:
    extractor = FeatureExtractor.load("tiny")
    for changes, why in (
        ({"block": "up_blocks.9"}, "no block up_blocks.9"),
        ({"image_size": 100}, "the image size 100 is no multiple of"),
    ):
        settings = replace(extractor.settings, **changes)
        with pytest.raises(ModelError, match=why):
            FeatureExtractor(extractor.model, settings, batch_size=1)


NAMES = [
    "dog",
    "Dog",
    "qwzx",
    "qwzx dog",
    "",
    " ",
    "3",
    "<unk>",
    "<pad>",
    "dog" * 9,
    "a " * 40 + "dog",
]


@pytest.mark.parametrize("family", ["sd1", "tiny"])
def test_the_tokenizers_files_know_the_words_that_the_model_knows(
    family: str, pipeline_folder: Folder
) -> None:
    """For the bundled model, exactly; a tokenizer that only the library can build decides less."""
    extractor = FeatureExtractor.load(family if family == "tiny" else str(pipeline_folder(family)))
    tokenizer = extractor.model._parts.tokenizers[0]
    special = set(tokenizer.all_special_ids)
    unknown = 0
    for name in [*nouns(), *NAMES]:
        read = extractor.model.vocabulary.in_singular(name)
        ids = tokenizer(read, max_length=tokenizer.model_max_length, truncation=True).input_ids
        known = bool(set(ids) - special)
        try:
            extractor.check_class_name(name)
            assert known or family != "tiny", name
        except RegionError:
            assert not known, name
            unknown += 1
    assert (unknown > 100) == (family == "tiny")


def test_a_broken_tokenizer_is_for_the_model_to_report(
    pipeline_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(pipeline_folder("sd1"), tmp_path / "model")
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 16})
    )
    extractor = FeatureExtractor.load(str(folder), device="cpu")
    extractor.check_class_name("dog")
    with pytest.raises(ModelError, match="cannot be loaded"):
        extractor.class_vector("dog")

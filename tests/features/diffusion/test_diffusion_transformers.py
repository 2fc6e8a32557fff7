"""Features of diffusion transformers against an independent reading of the unmodified pipeline."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.diffusion.dit.dit_architecture import DiTArchitecture
from features.diffusion.dit.dit_model import DiTModel
from features.diffusion.loading import load_model
from features.diffusion.presets import PRESETS
from features.errors import ModelError, RegionError
from features.extractor import FeatureExtractor
from features.photo import ModelInput, load_model_input
from tests.helpers.models.naive_dit import (
    block_input,
    joint_maps,
    joint_text_keys,
    linear,
    noised_by_hand,
    open_pipeline,
    pixart_maps,
    run_pipeline,
    scaled_by_hand,
)
from tests.helpers.models.pipelines import TRANSFORMERS
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]

SHAPES = [(96, 64), (64, 96), (80, 80), (120, 40), (33, 77)]
# An early and a late block of each family: with a second attention, the last, a single-stream one.
BLOCKS = [
    ("pixart", "transformer_blocks.0"),
    ("pixart", "transformer_blocks.2"),
    ("sd3", "transformer_blocks.1"),
    ("sd3", "transformer_blocks.3"),
    ("sd35", "transformer_blocks.1"),
    ("sd35", "transformer_blocks.3"),
    ("flux", "transformer_blocks.1"),
    ("flux", "single_transformer_blocks.2"),
    ("flux2", "transformer_blocks.1"),
    ("flux2", "single_transformer_blocks.2"),
]
# The prompt's and the name's tokens in the pipelines: CLIP's, then T5's, or Qwen3's.
CLIP = 77
TOKENS = {"sd3": CLIP + 256, "sd35": CLIP + 256, "flux": 512, "flux2": 512}


def load(place: Path, batch_size: int = 1, **changes: int | str) -> FeatureExtractor:
    extractor = FeatureExtractor.load(str(place), device="cpu", batch_size=batch_size)
    # Flux has no size of its own in its configuration.
    return extractor.changed(image_size=128, **changes)


def dit(extractor: FeatureExtractor) -> DiTModel:
    assert isinstance(extractor.model, DiTModel)
    return extractor.model


def photos(tmp_path: Path, extractor: FeatureExtractor, count: int) -> list[ModelInput]:
    return [
        load_model_input(
            save_photo(tmp_path / f"{i}.png", *SHAPES[i % len(SHAPES)], seed=i),
            extractor.image_size,
            extractor.grid,
        )
        for i in range(count)
    ]


def noise_of(shape: torch.Size, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore")  # the pipelines advise on what they lack
@pytest.mark.parametrize(("family", "block"), BLOCKS)
def test_parity_with_attention_by_hand(
    family: str, block: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    """The block's input comes from a whole pass of the pipeline: stopping early changes nothing."""
    extractor = load(pipeline_folder(family), block=block)
    [photo] = photos(tmp_path, extractor, 1)
    [maps] = extractor.extract([photo])

    pipeline = open_pipeline(pipeline_folder(family))
    # 128 x 85 pixels of photo are seen as 8 x 5 cells, without what fills the square.
    assert (extractor.grid, photo.frame.content) == (8, (128, 85))
    shown = photo.pixels[:80, :128]
    image = torch.from_numpy(shown.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    vae, timestep = pipeline.vae, extractor.settings.timestep
    with torch.no_grad():
        clean = vae.encode(image).latent_dist.mode()
    clean = scaled_by_hand(pipeline, clean)
    seed = int.from_bytes(hashlib.sha256(photo.content_hash.encode()).digest()[:8], "big") // 2
    noisy = noised_by_hand(family, clean, noise_of(clean.shape[1:], seed)[None], timestep)
    module = pipeline.transformer.get_submodule(block)

    given = block_input(pipeline, block, lambda: run_pipeline(pipeline, noisy, timestep, "a photo"))
    appearance, semantic = (pixart_maps if family == "pixart" else joint_maps)(module, given)
    map_shape = (5, 8, extractor.dim)
    # The maps are stored in float16: half a unit in the last place of 11 bits.
    options: dict[str, float] = {"rtol": 1e-3, "atol": 2e-3}
    for found, expected in ((maps.appearance, appearance), (maps.semantic, semantic)):
        np.testing.assert_allclose(found[:5], expected.detach().reshape(map_shape), **options)
        np.testing.assert_array_equal(found[5:], np.broadcast_to(found[4], (3, *found[4].shape)))

    # C of "dog", which all read as one token: the first of T5's, the second of CLIP's, and Qwen3's
    # after the start of a message, the letters of "user", and the end of the line.
    shape = torch.Size((1, clean.shape[1], *((32, 32) if family == "flux" else (16, 16))))
    neutral = noised_by_hand(family, torch.zeros(shape), noise_of(shape, 0), timestep)
    if family == "pixart":
        states = pipeline.encode_prompt("dog", False, device="cpu")[0]
        keys = linear(module.attn2.to_k, pipeline.transformer.caption_projection(states).double())
        expected = keys[0, 0]
    else:
        given = block_input(
            pipeline, block, lambda: run_pipeline(pipeline, neutral, timestep, "dog")
        )
        keys = joint_text_keys(module, given)[0]
        own = {"flux": [0], "sd3": [1], "sd35": [1, CLIP], "flux2": [6]}[family]
        assert len(keys) == TOKENS[family]
        expected = keys[own].mean(dim=0)
    np.testing.assert_allclose(
        extractor.class_vector("dog"), expected.detach(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_batch_equals_single_photos(family: str, pipeline_folder: Folder, tmp_path: Path) -> None:
    single, batched = (load(pipeline_folder(family), size) for size in (1, 4))
    inputs = photos(tmp_path, single, 5)
    many = batched.extract(inputs)
    for one, other in zip(single.extract(inputs), many, strict=True):
        assert one.content_hash == other.content_hash
        # In float32, batches of different size differ by rounding; then float16 storage.
        np.testing.assert_allclose(one.appearance, other.appearance, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(one.semantic, other.semantic, rtol=2e-3, atol=2e-3)
    # Neither the company nor a second reading of the weights changes anything.
    again = load(pipeline_folder(family), 4)
    [alone] = again.extract(inputs[:1])
    np.testing.assert_array_equal(alone.appearance, many[0].appearance)
    np.testing.assert_array_equal(alone.semantic, many[0].semantic)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_class_vectors_depend_on_no_photo(
    family: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    extractor = load(pipeline_folder(family))
    before = extractor.class_vector("dog")
    extractor.extract(photos(tmp_path, extractor, 2))
    np.testing.assert_array_equal(extractor.class_vector("dog"), before)
    settings = extractor.settings
    names = ["cat", "dog", "", *["big dog"] * 16]
    several = extractor.model.class_vectors(names, settings.block, settings.timestep)
    # The empty name has no token of its own.
    assert several.shape == (len(names) - 1, extractor.dim)
    np.testing.assert_allclose(several[1], before, rtol=1e-4, atol=1e-5)
    assert np.abs(several[0] - before).max() > 0.1
    np.testing.assert_allclose(several[-1], extractor.class_vector("big dog"), rtol=1e-4, atol=1e-5)
    with pytest.raises(RegionError, match="knows none of its words"):
        extractor.class_vector("")
    # Where text attends to the image, the timestep matters to its keys.
    at_another = extractor.changed(timestep=500).class_vector("dog")
    assert np.array_equal(at_another, before) == (family == "pixart")


@pytest.mark.parametrize(("family", "block"), BLOCKS)
def test_nothing_after_the_captured_block_runs(
    family: str, block: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    extractor = load(pipeline_folder(family), block=block)
    extractor.get_ready()
    transformer = dit(extractor).denoiser
    ran: list[str] = []
    for name, module in transformer.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    extractor.extract(photos(tmp_path, extractor, 1))
    blocks = extractor.blocks
    later = tuple(f"{each}." for each in blocks[blocks.index(block) + 1 :])
    assert any(name.startswith(f"{block}.") for name in ran)
    assert not [name for name in ran if name.startswith((*later, "norm_out", "proj_out"))]
    assert not [name for name in ran if name.startswith((f"{block}.ff", f"{block}.attn.to_out"))]


def with_massive_channel(folder: Path, place: Path, channel: int) -> Path:
    """A copy of a pipeline in which one channel of the residual is large for all image tokens."""
    shutil.copytree(folder, place)
    [weights] = (place / "transformer").glob("*.safetensors")
    tensors = load_file(weights)
    biases = {"x_embedder.bias", "pos_embed.proj.bias"} & set(tensors)
    for name in biases:
        tensors[name][channel] += 3000
    if not biases:  # Flux.2: the first block adds the same to the channel of all cells
        dim = len(tensors["x_embedder.weight"])
        tensors["double_stream_modulation_img.linear.weight"][3 * dim : 4 * dim] *= 10_000
        added = tensors["transformer_blocks.0.ff.linear_out.weight"]
        added[torch.arange(dim) != channel] = 0
    save_file(tensors, weights, {"format": "pt"})
    return place


def scene(path: Path, place: tuple[int, int] | None) -> Path:
    """A grey photo, with one object of 3 x 3 cells at a row and a column."""
    from PIL import Image

    pixels = np.full((128, 128, 3), 128, np.uint8)
    if place is not None:
        row, column = 16 * place[0], 16 * place[1]
        thing = np.random.default_rng(7).integers(0, 256, (48, 48, 3), np.uint8)
        pixels[row : row + 48, column : column + 48] = thing
    Image.fromarray(pixels).save(path)
    return path


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("family", ["pixart", "sd35", "flux", "flux2"])
def test_a_massive_channel_hides_an_object_unless_it_is_discarded(
    family: str, pipeline_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = with_massive_channel(pipeline_folder(family), tmp_path / "model", 5)
    block = "transformer_blocks.1"
    extractor = load(place, block=block, inversion="none")
    assert dit(extractor).massive_channels(block, extractor.settings.timestep) == [5]
    clean = load(pipeline_folder(family), block=block)
    assert dit(clean).massive_channels(block, clean.settings.timestep) == []

    places = {"first": (0, 1), "second": (4, 3), "empty": None}
    inputs = [
        load_model_input(scene(tmp_path / f"{name}.png", place), 128, 8)
        for name, place in places.items()
    ]

    def maps_of(extractor: FeatureExtractor) -> list[np.ndarray]:
        return [maps.appearance.astype(np.float64) for maps in extractor.extract(inputs)]

    first, second, empty = maps_of(extractor)
    # What cells say of their position, the empty photo says too.
    found = int(np.argmax(unit(second - empty) @ unit(first - empty)[1, 2]))
    assert (found // 8, found % 8) == (5, 4)  # the middle of the object

    def all_kept(self: DiTModel, block: str, timestep: int) -> torch.Tensor:
        return torch.ones(self.architecture.dim)

    monkeypatch.setattr(DiTModel, "_kept_channels", all_kept)
    for maps in maps_of(extractor):
        cosines = unit(maps.reshape(64, -1)) @ unit(maps.reshape(64, -1)).T
        assert cosines.min() > 0.999


def test_semantic_maps_of_pixart_are_normalised(pipeline_folder: Folder, tmp_path: Path) -> None:
    """Its cross-attention takes the residual as it is: a massive channel would rule F_S alone."""
    place = with_massive_channel(pipeline_folder("pixart"), tmp_path / "model", 5)
    extractor = load(place, inversion="none")
    maps = extractor.extract([load_model_input(scene(tmp_path / "a.png", (0, 1)), 128, 8)])[0]
    assert np.abs(maps.semantic).max() < 100


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_random_weights_and_fingerprints(
    family: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    extractor = load(pipeline_folder(family))
    fingerprint = json.loads(json.dumps(extractor.fingerprint()))
    assert fingerprint["discarded"] == "channels beyond 50 times the median"
    assert fingerprint["padding"] == "left out"
    assert ("class_beside" in fingerprint) == (family != "pixart")
    assert FeatureExtractor.from_fingerprint(fingerprint, "cpu").fingerprint() == fingerprint
    [photo] = photos(tmp_path, extractor, 1)
    one, two = (extractor.with_random_weights().extract([photo])[0] for _ in range(2))
    np.testing.assert_array_equal(one.appearance, two.appearance)
    assert np.abs(one.appearance - extractor.extract([photo])[0].appearance).max() > 0.05


def config(family: str, **transformer: Any) -> dict[str, dict[str, Any]]:
    """The published configuration files of a pipeline, as far as they matter here."""
    classes: dict[str, list[str]] = {
        "pixart": ["Transformer2DModel", "T5EncoderModel"],
        "sd3": ["SD3Transformer2DModel", *["CLIPTextModelWithProjection"] * 2, "T5EncoderModel"],
        "flux": ["FluxTransformer2DModel", "CLIPTextModel", "T5EncoderModel"],
        "flux2": ["Flux2Transformer2DModel", "Qwen3ForCausalLM"],
    }[family]
    parts = ["transformer", "text_encoder", "text_encoder_2", "text_encoder_3"]
    index = {part: ["library", name] for part, name in zip(parts, classes, strict=False)}
    vae = "AutoencoderKLFlux2" if family == "flux2" else "AutoencoderKL"
    return {
        "model_index.json": {**index, "vae": ["diffusers", vae]},
        "transformer/config.json": transformer,
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "text_encoder/config.json": {"num_hidden_layers": 36, "hidden_size": 2560},  # of Flux.2
    }


PUBLISHED = {
    "pixart-sigma": config(
        "pixart",
        norm_type="ada_norm_single",
        num_layers=28,
        num_attention_heads=16,
        attention_head_dim=72,
        patch_size=2,
        sample_size=128,
    ),
    "sd35-medium": config(
        "sd3",
        num_layers=24,
        num_attention_heads=24,
        attention_head_dim=64,
        patch_size=2,
        sample_size=128,
        pos_embed_max_size=384,
    ),
    "flux-dev": config(
        "flux",
        num_layers=19,
        num_single_layers=38,
        num_attention_heads=24,
        attention_head_dim=128,
        patch_size=1,
    ),
    "flux2": config(
        "flux2",
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        attention_head_dim=128,
        joint_attention_dim=7680,
        patch_size=1,
    ),
}


def write(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    for name, values in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_list_the_shapes_of_the_published_models(name: str, tmp_path: Path) -> None:
    architecture = DiTArchitecture.read(write(tmp_path, PUBLISHED[name]))
    preset = PRESETS[name]
    assert architecture.map_shape(preset.settings) == (preset.grid, preset.dim)
    assert architecture.inspected_settings() == preset.settings
    assert architecture.native_size == 1024


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        (
            "model_index.json",
            {"transformer": ["diffusers", "LuminaNextDiT2DModel"]},
            "its transformer is LuminaNextDiT2DModel, and Waldo knows the blocks of PixArt",
        ),
        ("model_index.json", {"text_encoder_2": ["t", "Llama"]}, "its text_encoder_2 is Llama"),
        ("model_index.json", {"text_encoder": None}, "its text_encoder is missing"),
        ("transformer/config.json", {"num_layers": None}, "cannot be loaded"),
        ("vae/config.json", None, "cannot be loaded"),
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_are_read(
    file: str, changes: dict[str, Any] | None, why: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, PUBLISHED["flux-dev"])
    values = json.loads((folder / file).read_text())
    (folder / file).write_text("{" if changes is None else json.dumps({**values, **changes}))
    with pytest.raises(ModelError, match=why) as raised:
        load_model(str(folder))
    assert "\n" not in str(raised.value)


def test_an_older_transformer_of_another_family_is_refused(tmp_path: Path) -> None:
    files = PUBLISHED["pixart-sigma"]
    dit_xl = {**files["transformer/config.json"], "norm_type": "ada_norm_zero"}
    folder = write(tmp_path, {**files, "transformer/config.json": dit_xl})
    with pytest.raises(ModelError, match="its transformer is Transformer2DModel"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"block": "transformer_blocks.4"}, "the model's transformer has no block"),
        ({"inversion": "ddim"}, "the inversion ddim is for UNets; a transformer takes none or"),
        ({"image_size": 120}, "the image size 120 is no multiple of 16"),
        ({"image_size": 208}, "the image size 208 is beyond 192"),
    ],
)
def test_settings_that_do_not_fit(
    changes: dict[str, Any], why: str, pipeline_folder: Folder
) -> None:
    extractor = load(pipeline_folder("sd35"))
    with pytest.raises(ModelError, match=why):
        extractor.changed(**changes)

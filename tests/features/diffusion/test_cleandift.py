"""Presets whose UNet comes from a file of its own, found in the cache of the hub's client."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from features.diffusion.loading import load_model
from features.diffusion.presets import PRESETS
from features.errors import ModelError
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from tests.helpers.models.pipelines import build_pipeline
from tests.helpers.pictures import save_photo

NAMES = ("cleandift-sd15", "cleandift-sd21")
BASE, UNET = "a" * 40, "c" * 40


def snapshot(cache: Path, repository: str, commit: str) -> Path:
    """An empty snapshot of a repository in a cache of the hub."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub's client, on a machine without a network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def fill(cache: Path, name: str) -> Path:
    """The base pipeline without its UNet's weights, and other weights; returns their file."""
    preset = PRESETS[name]
    assert preset.unet is not None
    repository, file = preset.unet
    family = "sd1" if name.endswith("15") else "sd2"
    base = snapshot(cache, preset.source, BASE)
    build_pipeline(family).save_pretrained(base, variant=preset.variant)
    for weights in (base / "unet").glob("*.safetensors"):
        weights.unlink()
    path = snapshot(cache, repository, UNET) / file
    save_file(build_pipeline(family, seed=1).unet.state_dict(), path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_parity_with_a_pipeline_whose_unet_was_replaced(
    name: str, cache: Path, tmp_path: Path
) -> None:
    fill(cache, name)
    extractor = FeatureExtractor.load(name, "cpu", batch_size=1)
    extractor = extractor.changed(image_size=128)
    path = save_photo(tmp_path / "photo.png", 96, 96)
    photo = load_model_input(path, extractor.image_size, extractor.grid)
    [maps] = extractor.extract([photo])

    family = "sd1" if name.endswith("15") else "sd2"
    pipeline, other = build_pipeline(family), build_pipeline(family, seed=1)
    pipeline.unet.load_state_dict(other.unet.state_dict(), strict=True)
    found: dict[str, torch.Tensor] = {}
    block = pipeline.unet.get_submodule(extractor.settings.block)
    for part in ("attn1.to_q", "attn1.to_k", "attn2.to_q"):
        layer = block.get_submodule(part)
        layer.register_forward_hook(lambda _, __, out, part=part: found.update({part: out[0]}))
    with torch.no_grad():
        pixels = torch.tensor(photo.pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        clean = pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
        states, _ = pipeline.encode_prompt("A photo", "cpu", 1, do_classifier_free_guidance=False)
        pipeline.unet(clean, 261, encoder_hidden_states=states)
    appearance = (found["attn1.to_q"] + found["attn1.to_k"]).numpy() / 2
    shape = maps.appearance.shape
    assert appearance.std() > 0.05  # far more than the tolerance, which is float16's rounding
    np.testing.assert_allclose(maps.appearance, appearance.reshape(shape), rtol=1e-3, atol=1e-3)
    semantic = found["attn2.to_q"].numpy().reshape(shape)
    np.testing.assert_allclose(maps.semantic, semantic, rtol=1e-3, atol=1e-3)

    fingerprint = extractor.fingerprint()
    assert fingerprint["revision"] == f"{BASE}+{UNET}"
    assert fingerprint["inversion"] == "none"
    assert FeatureExtractor.from_fingerprint(fingerprint, "cpu").fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("missing", r"run `hf download CompVis/cleandift`"),
        ("cut", "cannot be loaded"),
        ("pickle", r"the weights of CompVis/cleandift are pickle files"),
        ("lacking", r"cannot be loaded .*conv_in\.weight"),
    ],
)
def test_a_unet_that_cannot_be_had_is_one_line(harm: str, why: str, cache: Path) -> None:
    path = fill(cache, "cleandift-sd15")
    values = build_pipeline("sd1", seed=1).unet.state_dict()
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "lacking":
        del values["conv_in.weight"]
        save_file(values, path)
    else:
        path.unlink()
        if harm == "pickle":
            torch.save(values, path.with_suffix(".bin"))
    with pytest.raises(ModelError, match=why) as raised:
        load_model("cleandift-sd15", device="cpu").load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_both_repositories_are_named_where_both_are_missing(name: str, cache: Path) -> None:
    source, unet = PRESETS[name].source, PRESETS[name].unet
    assert unet is not None
    with pytest.raises(ModelError) as raised:
        load_model(name, device="cpu")
    message = str(raised.value)
    assert "\n" not in message
    assert f"`hf download {source}`" in message
    assert message.endswith(f"; its UNet is missing too: `hf download {unet[0]} {unet[1]}`")
    save_file({}, snapshot(cache, unet[0], UNET) / unet[1])
    with pytest.raises(ModelError) as raised:
        load_model(name, device="cpu")
    assert "cleandift/" not in str(raised.value).replace(f"model {name}", "")
    assert "UNet is missing" not in str(raised.value)

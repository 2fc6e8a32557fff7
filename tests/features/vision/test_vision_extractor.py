"""Patch tokens of vision transformers against the output of the transformers library."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.errors import ModelError
from features.extractor import FeatureExtractor
from features.models import extractor_of, find_extractor
from features.photo import ModelInput, load_model_input
from features.vision.vision_extractor import VisionExtractor
from features.vision.vision_presets import VISION_PRESETS
from tests.helpers.models.descriptor_models import PREPROCESSORS
from tests.helpers.models.vision_models import (
    DIM,
    PATCH,
    SIZE,
    VISION_KINDS,
    build_vision_model,
    save_vision_model,
)
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]

SHAPES = [(96, 64), (64, 96), (80, 80), (120, 40), (33, 77)]
# The tokens of a photo that stand before those of its patches.
BEFORE = {"dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 4}


def load(place: Path, batch_size: int = 2) -> VisionExtractor:
    extractor = find_extractor(str(place), "cpu", batch_size)
    assert isinstance(extractor, VisionExtractor)
    return extractor


def photos(tmp_path: Path, extractor: VisionExtractor, count: int) -> list[ModelInput]:
    return [
        load_model_input(
            save_photo(tmp_path / f"{i}.png", *SHAPES[i % len(SHAPES)], seed=i),
            extractor.image_size,
            extractor.grid,
        )
        for i in range(count)
    ]


def vision_part(kind: str) -> Any:
    model = build_vision_model(kind)
    return model.vision_model if kind == "siglip" else model


def normalised(kind: str, photo: ModelInput) -> torch.Tensor:
    config = PREPROCESSORS["siglip" if kind.startswith("siglip") else "dinov2"]
    pixels = photo.pixels.astype(np.float64) / 255
    values = (pixels - config["image_mean"]) / config["image_std"]
    return torch.from_numpy(values.transpose(2, 0, 1)[None]).float()


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def seen(kind: str, photo: ModelInput) -> ModelInput:
    """What the model sees: models of any shape only the cells that the photo fills by half."""
    if kind.startswith("siglip"):
        return photo
    width, height = photo.frame.content
    columns, rows = (max(1, round(side / PATCH)) for side in (width, height))
    return replace(photo, pixels=photo.pixels[: rows * PATCH, : columns * PATCH])


@pytest.mark.parametrize("kind", VISION_KINDS)
def test_maps_are_the_tokens_of_the_library(
    kind: str, vision_folder: Folder, tmp_path: Path
) -> None:
    extractor = load(vision_folder(kind))
    assert (extractor.grid, extractor.dim) == (SIZE // PATCH, DIM)
    inputs = photos(tmp_path, extractor, 5)
    for photo, maps in zip(inputs, extractor.extract(inputs), strict=True):
        shown = seen(kind, photo).pixels
        with torch.no_grad():
            found = vision_part(kind)(normalised(kind, seen(kind, photo))).last_hidden_state
        tokens = found[0, BEFORE.get(kind, 0) :].double().numpy()
        rows, columns = shown.shape[0] // PATCH, shown.shape[1] // PATCH
        expected = unit(tokens).reshape(rows, columns, DIM)
        # Half a unit in the last place of a float16 below 1, and rounding of the model in float32.
        np.testing.assert_allclose(maps.appearance[:rows, :columns], expected, atol=5e-4)
        assert maps.content_hash == photo.content_hash
        if not kind.startswith("siglip"):
            assert (rows, columns) == (maps.frame.rows, maps.frame.cols)
            np.testing.assert_array_equal(
                maps.appearance[-1, -1], maps.appearance[rows - 1, columns - 1]
            )


@pytest.mark.parametrize("kind", BEFORE)
def test_padding_is_not_seen(kind: str, vision_folder: Folder, tmp_path: Path) -> None:
    """Other colours in the padding change nothing, and fewer tokens are computed."""
    extractor = load(vision_folder(kind))
    [photo] = photos(tmp_path, extractor, 1)  # of 8 x 5 cells
    assert (photo.frame.rows, photo.frame.cols) == (5, 8)
    pixels = photo.pixels.copy()
    pixels[5 * PATCH :] = 0
    one, other = extractor.extract([photo, replace(photo, pixels=pixels)])
    np.testing.assert_array_equal(one.appearance, other.appearance)
    assert extractor.features([photo.without_padding()])[0].shape == (1, 40, DIM)
    assert "padding" in extractor.fingerprint()


@pytest.mark.parametrize("kind", VISION_KINDS)
def test_maps_do_not_depend_on_the_batch(kind: str, vision_folder: Folder, tmp_path: Path) -> None:
    single, batched = load(vision_folder(kind), 1), load(vision_folder(kind), 4)
    inputs = photos(tmp_path, single, 5)
    for one, many in zip(single.extract(inputs), batched.extract(inputs), strict=True):
        # In float32, batches of different size differ by rounding; then float16 storage.
        np.testing.assert_allclose(one.appearance, many.appearance, atol=1e-3)
        np.testing.assert_allclose(one.semantic, many.semantic, atol=1e-3)
    alone = batched.extract(inputs[:1])[0]
    np.testing.assert_array_equal(alone.appearance, batched.extract(inputs)[0].appearance)
    np.testing.assert_array_equal(alone.semantic, batched.extract(inputs)[0].semantic)


@pytest.mark.parametrize("kind", [kind for kind in VISION_KINDS if kind != "siglip"])
def test_a_model_without_a_text_encoder_knows_no_words(
    kind: str, vision_folder: Folder, tmp_path: Path
) -> None:
    extractor = load(vision_folder(kind))
    assert not extractor.knows_words
    assert extractor.class_vector("dog") is None
    assert extractor.rival_vectors.shape == extractor.vocabulary_vectors().shape == (0, DIM)
    [maps] = extractor.extract(photos(tmp_path, extractor, 1))
    assert not maps.semantic.any()


def test_semantic_maps_of_siglip_by_hand(vision_folder: Folder, tmp_path: Path) -> None:
    """F_S of a cell, from the weights of the pooling head, in float64."""
    extractor = load(vision_folder("siglip"))
    [photo] = photos(tmp_path, extractor, 1)
    [maps] = extractor.extract([photo])
    model = build_vision_model("siglip").vision_model.double()
    head = model.head
    with torch.no_grad():
        tokens = model(normalised("siglip", photo).double()).last_hidden_state[0]
        # Attention to one token alone is its value.
        weight = head.attention.in_proj_weight[2 * DIM :]
        value = tokens @ weight.T + head.attention.in_proj_bias[2 * DIM :]
        mixed = value @ head.attention.out_proj.weight.T + head.attention.out_proj.bias
        pooled = mixed + head.mlp(head.layernorm(mixed))
    expected = unit(pooled.numpy()).reshape(SIZE // PATCH, SIZE // PATCH, DIM)
    np.testing.assert_allclose(maps.semantic, expected, atol=5e-4)


def test_class_vectors_of_siglip_are_those_of_its_texts(vision_folder: Folder) -> None:
    from transformers import AutoTokenizer

    extractor = load(vision_folder("siglip"))
    assert extractor.knows_words
    model, tokenizer = (
        build_vision_model("siglip"),
        AutoTokenizer.from_pretrained(vision_folder("siglip")),
    )
    text = tokenizer("this is a photo of cat.", padding="max_length", max_length=64)
    with torch.no_grad():
        output = model.text_model(torch.tensor([text["input_ids"]])).pooler_output[0]
    expected = unit(output.double().numpy())
    np.testing.assert_allclose(extractor.class_vector("cat"), expected, atol=1e-6)
    # It was trained on lower case.
    np.testing.assert_array_equal(extractor.class_vector("Cat"), extractor.class_vector("cat"))
    several = extractor.model.class_vectors(["dog", "cat"] * 40)
    assert several.shape == (80, DIM)
    np.testing.assert_allclose(several[79], expected, atol=1e-5)


def test_pictures_of_any_size_and_of_one_size(vision_folder: Folder, tmp_path: Path) -> None:
    own = load(vision_folder("dinov2"))
    larger = own.with_cells(11)
    assert (larger.image_size, larger.grid) == (88, 11)
    assert own.with_cells(3).grid == own.grid  # never fewer than its own
    [maps] = larger.extract(photos(tmp_path, larger, 1))
    assert maps.appearance.shape == (11, 11, DIM)
    assert np.isfinite(maps.appearance.astype(np.float32)).all()
    with pytest.raises(ModelError, match="the image size 60 is no multiple of the patch, 8"):
        VisionExtractor(own.model, 60, 1)
    fixed = load(vision_folder("siglip"))
    assert fixed.with_cells(11).grid == fixed.grid
    with pytest.raises(ModelError, match="takes pictures of 64 pixels, not of 72"):
        VisionExtractor(fixed.model, 72, 1)


def test_a_fingerprint_finds_its_extractor(tmp_path: Path) -> None:
    place = save_vision_model("dinov2", tmp_path / "model")
    extractor = load(place)
    fingerprint = extractor.fingerprint()
    assert fingerprint["model"] == str(place)
    again = extractor_of(fingerprint, "cpu")
    assert isinstance(again, VisionExtractor)
    assert again.fingerprint() == fingerprint
    larger = extractor.with_cells(11).fingerprint()
    assert extractor_of(larger, "cpu").grid == 11
    config = place / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.485", "0.5"))
    with pytest.raises(ModelError, match="made with another version of the model"):
        extractor_of(fingerprint, "cpu")


def test_random_weights_are_a_baseline(vision_folder: Folder, tmp_path: Path) -> None:
    own = load(vision_folder("siglip"))
    first, second = own.with_random_weights(), own.with_random_weights()
    [photo] = photos(tmp_path, own, 1)
    [known], [one], [two] = (each.extract([photo]) for each in (own, first, second))
    np.testing.assert_array_equal(one.appearance, two.appearance)
    assert np.abs(one.appearance - known.appearance).max() > 0.05
    assert first.fingerprint()["revision"] == "random:0"


def test_names_tell_kinds_of_models_apart(pipeline_folder: Folder) -> None:
    assert isinstance(find_extractor("tiny", "cpu"), FeatureExtractor)
    assert isinstance(find_extractor(str(pipeline_folder("sd1")), "cpu"), FeatureExtractor)
    with pytest.raises(ModelError, match=r"no such model; known names: tiny, .*dinov2-small"):
        find_extractor("dinov2-tiny")


@pytest.mark.parametrize("name", VISION_PRESETS)
def test_presets_are_of_the_published_shapes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The presets' maps, from the configurations as they are published."""
    preset = VISION_PRESETS[name]
    kind = name.partition("-")[0]
    config: dict[str, Any] = {
        "dinov2": {"model_type": "dinov2", "patch_size": 14, "image_size": 518},
        "dinov3": {"model_type": "dinov3_vit", "patch_size": 16, "num_register_tokens": 4},
        "siglip2": {
            "model_type": "siglip",
            "vision_config": {"image_size": 512, "patch_size": 16, "hidden_size": preset.dim},
        },
    }[kind]
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": preset.dim, **config}))
    shown = PREPROCESSORS["siglip" if kind == "siglip2" else "dinov2"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(shown))
    place = lambda *_: (tmp_path, "0" * 40)  # noqa: E731
    monkeypatch.setattr("features.vision.vision_model.locate", place)
    extractor = find_extractor(name, "cpu")
    assert (extractor.grid, extractor.dim) == (preset.grid, preset.dim)
    assert extractor.fingerprint()["model"] == name
    assert extractor.fingerprint()["revision"] == "0" * 40


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda place: (place / "config.json").write_text("{"), "cannot be loaded from"),
        (
            lambda place: (place / "config.json").write_text('{"model_type": "vit"}'),
            "model_type is vit, not one of dinov2",
        ),
        (lambda place: (place / "model.safetensors").unlink(), "has no safetensors weights"),
        (lambda place: (place / "model.safetensors").write_bytes(b"\0" * 99), "is cut short"),
        (lambda place: (place / "preprocessor_config.json").unlink(), "not a preprocessing"),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(
    change: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    place = save_vision_model("dinov2", tmp_path / "model")
    change(place)
    with pytest.raises(ModelError) as error:
        load(place).get_ready()
    assert says in str(error.value)
    assert "\n" not in str(error.value)

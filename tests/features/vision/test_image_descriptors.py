"""Global descriptors against the published preprocessing and the models of transformers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from features.errors import ModelError
from features.photo import load_photo
from features.vision.descriptors import DESCRIPTORS, ImageDescriptor, descriptor_name
from features.vision.image_processor import ImageProcessor
from tests.helpers.models.descriptor_models import PREPROCESSORS, build_descriptor
from tests.helpers.pictures import save_photo, smooth_pixels

KINDS = ["dinov2", "clip", "siglip", "siglip_vision_model"]
SHAPES = [(96, 64), (64, 96), (50, 50), (33, 400), (20, 31)]

Folder = Callable[[str], Path]


def processor(kind: str, tmp_path: Path, **changed: object) -> ImageProcessor:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**PREPROCESSORS[kind], **changed}))
    return ImageProcessor.load(path, square=kind == "siglip")


def naive_resize(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Antialiased bicubic (a = -0.5) in float64, one axis after the other, each rounded."""

    def kernel(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    def weights(old: int, new: int) -> np.ndarray:
        scale = old / new
        stretch = max(scale, 1.0)
        centres = (np.arange(new)[:, None] + 0.5) * scale
        found = kernel((np.arange(old)[None] + 0.5 - centres) / stretch)
        return found / found.sum(axis=1, keepdims=True)

    pixels = np.asarray(image).astype(np.float64)
    pixels = np.clip(
        np.round(np.einsum("xw,hwc->hxc", weights(image.width, width), pixels)), 0, 255
    )
    return np.clip(
        np.round(np.einsum("yh,hxc->yxc", weights(image.height, height), pixels)), 0, 255
    )


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_preprocessing_is_the_published_one(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    """Resize, crop and normalise, step by step and in float64."""
    image = Image.fromarray(smooth_pixels(*shape, seed=sum(shape)))
    config = PREPROCESSORS[kind]
    if kind == "siglip":
        shown = naive_resize(image, 28, 28)
    else:
        edge = 32 if kind == "dinov2" else 28
        width, height = (int(edge * n / min(shape)) for n in shape)
        left, top = (width - 28) // 2, (height - 28) // 2
        shown = naive_resize(image, width, height)[top : top + 28, left : left + 28]
    expected = (shown / 255 - config["image_mean"]) / config["image_std"]
    ours = processor(kind, tmp_path)
    pixels = ours.pixels(image)
    # Pillow rounds between the axes, and takes them in the order that is quicker.
    assert np.abs(pixels - shown).max() <= 2
    assert np.abs(pixels - shown).mean() < 0.2
    found = ours.normalise(pixels[None])[0].transpose(1, 2, 0)
    assert np.abs(found - expected).max() < 0.04


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_preprocessing_is_that_of_the_library(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0")
    name = {"dinov2": "Bit", "clip": "CLIP", "siglip": "Siglip"}[kind]
    theirs = getattr(transformers, f"{name}ImageProcessorPil")(**PREPROCESSORS[kind])
    image = Image.fromarray(smooth_pixels(*shape, seed=sum(shape)))
    expected = theirs(image, return_tensors="np")["pixel_values"]
    ours = processor(kind, tmp_path)
    found = ours.normalise(ours.pixels(image)[None])
    assert found.shape == expected.shape == (1, 3, 28, 28)
    # One grey level is about 0.017.
    assert np.abs(found - expected).max() < 0.02
    assert np.abs(found - expected).mean() < 0.004


def test_a_narrow_photo_is_not_scaled_up_whole(tmp_path: Path) -> None:
    image = Image.fromarray(smooth_pixels(60_000, 1))  # would have 32 x 1,920,000 pixels
    assert processor("dinov2", tmp_path).pixels(image).shape == (28, 28, 3)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"do_resize": False}, "do_resize is off"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"do_center_crop": False}, "differ in shape"),
        ({"crop_size": {"height": 64, "width": 64}}, "larger than"),
        ({"size": None}, "shortest_edge|NoneType"),
        ({"image_mean": [0.5]}, "unpack"),
    ],
)
def test_other_preprocessing_is_refused(
    changed: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=why) as raised:
        processor("dinov2", tmp_path, **changed)
    assert "\n" not in str(raised.value)


def naive_vector(kind: str, folder: Path, photo: Path) -> np.ndarray:
    """The vector by the whole published model, with the preprocessing tested above."""
    model = build_descriptor(kind).eval()
    square = kind.startswith("siglip")
    shown = ImageProcessor.load(folder / "preprocessor_config.json", square=square)
    pixels = torch.from_numpy(shown.normalise(shown.pixels(load_photo(photo).image)[None]))
    with torch.inference_mode():
        if kind == "dinov2":
            found = model(pixel_values=pixels).last_hidden_state[0, 0]
        elif kind == "clip":
            found = model.visual_projection(model.vision_model(pixels).pooler_output)[0]
        else:
            vision = model.vision_model if kind == "siglip" else model
            found = vision(pixel_values=pixels).pooler_output[0]
    vector = found.double().numpy()
    return vector / np.sqrt((vector**2).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_whole_model(
    kind: str, descriptor_folder: Folder, tmp_path: Path
) -> None:
    folder = descriptor_folder(kind)
    descriptor = ImageDescriptor.load(str(folder), "cpu", batch_size=2)
    assert descriptor.dim == (12 if kind == "clip" else 16)
    photos = [save_photo(tmp_path / f"{i}.png", *SHAPES[i], seed=i) for i in range(5)]
    vectors = descriptor.describe([descriptor.prepare(load_photo(photo)) for photo in photos])
    assert vectors.shape == (5, descriptor.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for photo, vector in zip(photos, vectors, strict=True):
        np.testing.assert_allclose(vector, naive_vector(kind, folder, photo), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip"])
def test_a_vector_does_not_depend_on_its_batch(
    kind: str, descriptor_folder: Folder, tmp_path: Path
) -> None:
    descriptor = ImageDescriptor.load(str(descriptor_folder(kind)), "cpu", batch_size=4)
    photos = [save_photo(tmp_path / f"{i}.png", *SHAPES[i % 5], seed=i) for i in range(6)]
    inputs = [descriptor.prepare(load_photo(photo)) for photo in photos]
    together = descriptor.describe(inputs)
    alone = np.concatenate([descriptor.describe([one]) for one in inputs])
    assert np.array_equal(together, alone)


def test_a_photo_decoded_too_small_is_decoded_again(
    descriptor_folder: Folder, tmp_path: Path
) -> None:
    descriptor = ImageDescriptor.load(str(descriptor_folder("dinov2")), "cpu")
    photo = save_photo(tmp_path / "large.jpg", 300, 200)
    small = load_photo(photo, at_least=5)
    assert min(small.image.size) < 32
    expected = descriptor.prepare(load_photo(photo, at_least=32))
    assert np.array_equal(descriptor.prepare(small), expected)


def test_the_fingerprint_depends_on_the_files(descriptor_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(descriptor_folder("dinov2"), tmp_path / "model")
    descriptor = ImageDescriptor.load(str(folder), "cpu")
    fingerprint = descriptor.fingerprint()
    assert fingerprint["model"] == descriptor.name == str(folder)
    (folder / "README.md").write_text("of no account")
    again = ImageDescriptor.from_fingerprint(fingerprint, "cpu")
    assert again.fingerprint() == fingerprint
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "resample": 2}))
    assert ImageDescriptor.load(str(folder), "cpu").fingerprint() != fingerprint
    with pytest.raises(ModelError, match="another version of the descriptor"):
        ImageDescriptor.from_fingerprint(fingerprint, "cpu")


def test_a_fingerprint_needs_no_torch(descriptor_folder: Folder) -> None:
    code = """
import sys
from features.vision.descriptors import ImageDescriptor
for folder in sys.argv[1:]:
    stored = ImageDescriptor.load(folder, "cpu").fingerprint()
    found = ImageDescriptor.from_fingerprint(stored)
    print(found.dim, sorted({"torch", "transformers"} & set(sys.modules)))
"""
    folders = [str(descriptor_folder(kind)) for kind in KINDS]
    command = [sys.executable, "-c", code, *folders]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{12 if kind == 'clip' else 16} []" for kind in KINDS]


def test_names(descriptor_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = descriptor_folder("clip")
    monkeypatch.chdir(folder.parent)
    assert descriptor_name(folder.name) == str(folder)
    assert [descriptor_name(name) for name in DESCRIPTORS] == ["dinov2", "openclip", "siglip"]
    assert descriptor_name("someone/some-model") == "someone/some-model"


def broken(what: str, folder: Path) -> Path:
    """Make a model's folder unusable."""
    if what == "weights":
        (folder / "model.safetensors").unlink()
        # A pickle file can contain any program, so it must not be opened.
        torch.save(build_descriptor("dinov2").state_dict(), folder / "pytorch_model.bin")
    elif what == "damaged":
        (folder / "model.safetensors").write_bytes(b"0" * 100)
    elif what == "kind":
        (folder / "config.json").write_text('{"model_type": "vit"}')
    elif what == "code":
        config = {"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "mine.py").write_text("raise SystemExit('ran code that lies with the model')")
    elif what == "config":
        (folder / "config.json").unlink()
    elif what == "preprocessor":
        (folder / "preprocessor_config.json").unlink()
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        del tensors["layernorm.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("weights", "safetensors"),
        ("damaged", "is cut short"),
        ("kind", "model_type is vit"),
        ("code", "model_type is mine"),
        ("config", "not a model in transformers' layout"),
        ("preprocessor", "preprocessor_config.json"),
        ("tensor", "its weights lack layernorm.weight"),
    ],
)
def test_an_unusable_model_is_one_clear_line(
    what: str, why: str, descriptor_folder: Folder, tmp_path: Path
) -> None:
    folder = broken(what, shutil.copytree(descriptor_folder("dinov2"), tmp_path / "model"))
    with pytest.raises(ModelError, match=why) as raised:
        ImageDescriptor.load(str(folder), "cpu").get_ready()
    assert "\n" not in str(raised.value)


def test_a_size_that_the_model_does_not_take(descriptor_folder: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(descriptor_folder("siglip"), tmp_path / "model")
    size = {"height": 42, "width": 42}
    config = json.dumps({**PREPROCESSORS["siglip"], "size": size})
    (folder / "preprocessor_config.json").write_text(config)
    with pytest.raises(ModelError, match="not for pictures of 28 pixels"):
        ImageDescriptor.load(str(folder), "cpu")


@pytest.mark.parametrize("name", ["dinov3", "no/such/folder", "/no/folder"])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(ModelError, match="no such model; known names: dinov2, openclip, sig"):
        ImageDescriptor.load(name, "cpu")

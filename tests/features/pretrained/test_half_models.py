"""What people are told of a folder that has only a part of a model: one line with the mend."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from features.diffusion.loading import load_model
from features.errors import ModelError
from features.models import find_extractor
from features.pretrained.checkpoints import Layout, locate
from features.vision.descriptors import ImageDescriptor
from search.segmentation.sam import Sam
from tests.helpers.models.mask_models import save_sam

Folder = Callable[[str], Path]

# Of each layout: the kind of pipeline or model, and the parts that have weights.
PIPELINES = {
    "sd1": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "pixart": ("transformer", "vae", "text_encoder"),
    "sd35": ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    "flux": ("transformer", "vae", "text_encoder", "text_encoder_2"),
    "flux2": ("transformer", "vae", "text_encoder"),
}
PARTS = [(family, part) for family, parts in PIPELINES.items() for part in parts]
AGAIN = "; copy the whole folder of the model again"


def told(load: Callable[[], object]) -> str:
    """The one line of the error that a call raises."""
    with pytest.raises(ModelError) as raised:
        load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def in_shards(place: Path) -> list[Path]:
    """The weights of a part in two files with an index, instead of one."""
    [whole] = place.glob("*.safetensors")
    tensors = load_file(whole)
    names = sorted(tensors)
    where = {}
    files = []
    for number, some in enumerate((names[::2], names[1::2]), start=1):
        files.append(place / f"{whole.stem}-{number:05}-of-00002.safetensors")
        save_file({name: tensors[name] for name in some}, files[-1], {"format": "pt"})
        where |= dict.fromkeys(some, files[-1].name)
    index = {"metadata": {}, "weight_map": where}
    (place / f"{whole.name}.index.json").write_text(json.dumps(index))
    whole.unlink()
    return files


@pytest.fixture(params=PARTS, ids=lambda each: "-".join(each))
def place(request: pytest.FixtureRequest, pipeline_folder: Folder, tmp_path: Path) -> Path:
    """The folder of a part in a copy of a pipeline."""
    family, part = request.param
    return shutil.copytree(pipeline_folder(family), tmp_path / "model") / part


def refused(place: Path) -> str:
    """What is told of a pipeline before anything of its weights is read."""
    return told(lambda: find_extractor(str(place.parent), "cpu"))


def test_a_part_that_is_missing(place: Path) -> None:
    shutil.rmtree(place)
    assert refused(place).endswith(f"{place / 'config.json'} is missing{AGAIN}")


def test_a_part_without_weights(place: Path) -> None:
    [weights] = place.glob("*.safetensors")
    weights.unlink()
    assert refused(place).endswith(f"{place} has no safetensors weights{AGAIN}")


def test_a_part_with_pickles_only(place: Path) -> None:
    [weights] = place.glob("*.safetensors")
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    said = refused(place)
    assert f"the weights of {place} are pickle files, which can run code and are not read" in said
    assert said.endswith("take a repository or a folder with safetensors weights")


def test_a_file_that_is_cut_short(place: Path) -> None:
    [weights] = place.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert refused(place).endswith(f"{weights} is cut short or damaged{AGAIN}")
    weights.write_bytes(b"")
    assert refused(place).endswith(f"{weights} is cut short or damaged{AGAIN}")


def test_a_shard_that_is_missing(place: Path) -> None:
    first, second = in_shards(place)
    load_model(str(place.parent), "cpu").load()
    kept = second.read_bytes()
    second.unlink()
    assert refused(place).endswith(f"{second} is missing{AGAIN}")
    second.write_bytes(kept[:-1])
    assert refused(place).endswith(f"{second} is cut short or damaged{AGAIN}")
    second.write_bytes(kept)
    [index] = place.glob("*.index.json")
    index.write_text("{")
    assert refused(place).endswith(f"{index} is cut short or damaged{AGAIN}")
    index.unlink()
    assert refused(place).endswith(f"{place / '*.safetensors.index.json'} is missing{AGAIN}")
    assert first.is_file()


@pytest.mark.parametrize("family", PIPELINES)
def test_a_tokenizer_that_is_missing(family: str, pipeline_folder: Folder, tmp_path: Path) -> None:
    model = shutil.copytree(pipeline_folder(family), tmp_path / "model")
    last = sorted(model.glob("tokenizer*"))[-1]
    shutil.rmtree(last)
    assert refused(last).endswith(f"{last} is missing{AGAIN}")


def test_weights_of_one_variant_in_one_part_alone(pipeline_folder: Folder, tmp_path: Path) -> None:
    model = shutil.copytree(pipeline_folder("sd1"), tmp_path / "model")
    for part in ("unet", "vae"):
        [weights] = (model / part).glob("*.safetensors")
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    text_encoder = model / "text_encoder"
    assert refused(text_encoder).endswith(f"{text_encoder} has no *.fp16.safetensors{AGAIN}")
    (text_encoder / "model.safetensors").rename(text_encoder / "model.fp16.safetensors")
    load_model(str(model), "cpu").load()


@pytest.mark.parametrize("kind", ["vision", "descriptor", "sam"])
def test_models_of_one_part(
    kind: str, vision_folder: Folder, descriptor_folder: Folder, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    if kind == "sam":
        save_sam("sam", model)
    else:
        source = vision_folder("siglip") if kind == "vision" else descriptor_folder("dinov2")
        shutil.copytree(source, model)
    load: Callable[[], object] = {
        "vision": lambda: find_extractor(str(model), "cpu"),
        "descriptor": lambda: ImageDescriptor.load(str(model), "cpu"),
        "sam": lambda: Sam.load(str(model), "cpu"),
    }[kind]
    load()
    _, second = in_shards(model)
    load()
    kept = second.read_bytes()
    second.write_bytes(kept[:-1])
    assert told(load).endswith(f"{second} is cut short or damaged{AGAIN}")
    second.unlink()
    assert told(load).endswith(f"{second} is missing{AGAIN}")
    for file in model.glob("*.safetensors"):
        file.unlink()
    assert told(load).endswith(f"{model} has no safetensors weights{AGAIN}")
    torch.save({}, model / "pytorch_model.bin")
    assert f"the weights of {model} are pickle files" in told(load)


def test_another_folder_of_the_same_model(pipeline_folder: Folder, tmp_path: Path) -> None:
    model = shutil.copytree(pipeline_folder("sd1"), tmp_path / "above" / "model")
    why = "not a model in diffusers' or transformers' layout (no model_index.json in it)"
    for given in (model.parent, model / "unet", model / "scheduler"):
        assert told(lambda given=given: find_extractor(str(given), "cpu")).endswith(
            f"{why}; give {model}"
        )
    said = told(lambda: find_extractor(str(model / "model_index.json"), "cpu"))
    assert "this is one file; give a folder in diffusers' or transformers' layout" in said
    (tmp_path / "empty").mkdir()
    assert told(lambda: find_extractor(str(tmp_path / "empty"), "cpu")).endswith(
        f"{why}; give the folder that holds it"
    )
    # A repository as the hub's cache has it.
    snapshot = tmp_path / "models--someone--sd" / "snapshots" / ("d" * 40)
    shutil.copytree(model, snapshot)
    assert told(lambda: load_model(str(snapshot.parents[1]))).endswith(f"; give {snapshot}")


def test_the_mend_of_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a snapshot of the hub, where not a copy helps but `hf download`."""
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(8)}, tmp_path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {name: f"model-0000{name}-of-00002.safetensors" for name in "12"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    layout = Layout("transformers", "config.json", ("*",), ("model*.safetensors",))
    load = lambda: locate("model", "small", {"small": "a/b"}, layout)  # noqa: E731
    assert told(load).endswith("is missing; run `hf download a/b` where there is a network")
    whole = tmp_path / "model-00002-of-00002.safetensors"
    whole.write_bytes(b"{")
    assert told(load).endswith("is cut short or damaged; run `hf download a/b --force-download`")

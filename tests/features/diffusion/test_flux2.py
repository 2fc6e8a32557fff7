"""What is particular to Flux.2 [klein]: its text encoder, its latents, and what else is refused.

`test_diffusion_transformers.py` has what it shares with other transformers.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.diffusion.loading import load_model
from features.errors import ModelError
from tests.helpers.models.naive_dit import open_pipeline, scaled_by_hand

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(pipeline_folder: Folder) -> Any:
    return load_model(str(pipeline_folder("flux2")), "cpu")


# A name of one token, of two words, with letters of several bytes, and of words of the template.
@pytest.mark.parametrize("name", ["dog", "big dog", "Čapek's 狗", "user", "a <think> assistant"])
def test_a_names_own_tokens_are_told_from_the_words_around_it(name: str, model: Any) -> None:
    _, own = model._read_texts([name, "", "x" * 600])
    [tokenizer] = model._parts.tokenizers
    message = [{"role": "user", "content": name}]
    text = tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    ids = torch.tensor(tokenizer(text, padding="max_length", max_length=512).input_ids)
    assert tokenizer.decode(ids[own[0]]) == name
    assert own.shape == (3, 512)
    assert own[1].sum() == 0
    # What is beyond 512 tokens is cut off: before it stand 6 of the template.
    assert own[2].sum() == 512 - 6


def test_class_vectors_leave_the_words_of_the_template_out(model: Any) -> None:
    block = "single_transformer_blocks.1"
    conditioning, _ = model._read_texts(["big dog"])
    with torch.inference_mode():
        [keys] = model._text_keys(model.denoiser.get_submodule(block), 260, conditioning)
    # "<|im_start|>", the letters of "user" and the end of the line; then those of "big dog".
    expected = keys[6 : 6 + len("big ") + 1].mean(dim=0)
    found = model.class_vector("big dog", block, 260)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (keys.mean(dim=0) - found).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore")  # the pipelines advise on what they lack
def test_texts_and_latents_are_those_of_the_pipeline(pipeline_folder: Folder, model: Any) -> None:
    pipeline = open_pipeline(pipeline_folder("flux2"))
    texts = ["a photo", "", "a big dog beside a cup, " * 60]
    expected, _ = pipeline.encode_prompt(texts, device="cpu")
    assert expected.shape == (3, 512, 24)
    torch.testing.assert_close(model.condition(texts).states, expected, rtol=1e-4, atol=1e-4)

    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.no_grad():
        clean = scaled_by_hand(pipeline, pipeline.vae.encode(image).latent_dist.mode())
    found = model.encode_photos(pixels)
    assert found.shape == (2, 16, 3, 5)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)


def test_later_layers_of_the_text_encoder_do_not_run(model: Any) -> None:
    [encoder] = model._parts.text_encoders
    ran: list[str] = []
    for name, module in encoder.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model.condition("a photo")
    assert "model.layers.26" in ran
    assert not [name for name in ran if name.startswith(("model.layers.27", "lm_head"))]


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        (
            "model_index.json",
            {"text_encoder": ["transformers", "Mistral3ForConditionalGeneration"]},
            "its text_encoder is Mistral3ForConditionalGeneration, not Qwen3ForCausalLM; of "
            "Flux.2, Waldo takes [klein], which reads its prompt with Qwen3, and not [dev]",
        ),
        (
            "model_index.json",
            {"vae": ["diffusers", "AutoencoderKL"]},
            "its vae is AutoencoderKL, not AutoencoderKLFlux2",
        ),
        (
            "text_encoder/config.json",
            {"num_hidden_layers": 24},
            "its text_encoder has 24 layers, and no layer 27",
        ),
        (
            "text_encoder/config.json",
            {"hidden_size": 16},
            "its text_encoder gives 48 numbers per token, and its transformer takes 24",
        ),
    ],
)
def test_parts_of_other_models_are_refused_before_weights_are_read(
    file: str, changes: dict[str, Any], why: str, pipeline_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(pipeline_folder("flux2"), tmp_path / "model")
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | changes))
    with pytest.raises(ModelError) as raised:
        load_model(str(folder))
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)

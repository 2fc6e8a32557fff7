"""Models are loaded without the rest of the libraries, which work as ever afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

# Imported by diffusers and transformers as usual, and not used by Waldo.
UNUSED = (
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.tensor",
    "sympy",
    "scipy.stats",
    "scipy.optimize",
    "diffusers.pipelines",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.unets.unet_3d_condition",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
)

# The maps and the class vector of a photo by the bundled model, printed as a digest.
FEATURES = """
import hashlib, json, sys
from pathlib import Path
from features.extractor import FeatureExtractor
from features.photo import load_model_input
extractor = FeatureExtractor.load("tiny", "cpu", batch_size=1)
photo = load_model_input(Path("data/demo/query/cat.jpg"), extractor.image_size, extractor.grid)
[maps] = extractor.extract([photo])
arrays = (maps.appearance, maps.semantic, extractor.class_vector("cat"))
digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
"""
LOADED = "loaded = sorted(sys.modules)\n"
PRINT = "print(json.dumps([digest, loaded]))\n"
AS_USUAL = """
import diffusers, transformers, torch._dynamo, scipy.stats
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextModel
"""
ARE_WHOLE = """
import types, torch, scipy
import diffusers, transformers
assert diffusers.utils.is_transformers_available()
from diffusers import AutoencoderKL, FluxTransformer2DModel, StableDiffusionPipeline, UNet2DModel
from diffusers import UNet2DConditionModel
from diffusers.models.unets import UNet3DConditionModel
from diffusers.hooks import apply_group_offloading
from transformers import AutoModel, BertModel, CLIPTextModel
import transformers.models.clip.modeling_clip as clip
model = extractor.model
assert type(model.unet) is UNet2DConditionModel
assert type(model._parts.text_encoders[0]) is CLIPTextModel is clip.CLIPTextModel
assert AutoModel.from_config(transformers.CLIPTextConfig(num_hidden_layers=1)).config
assert transformers.__version__ and diffusers.__version__
import torch._dynamo, torch.distributed.tensor, torch.fx.experimental.symbolic_shapes
for module in (torch._dynamo, torch.distributed.tensor, scipy.stats, scipy.optimize):
    assert type(module) is types.ModuleType, module
assert scipy.stats.norm.cdf(0.0) == 0.5
compiled = torch.compile(model.vae.encoder, backend="eager")
pixels = torch.zeros(1, 3, 64, 64)
assert torch.equal(compiled(pixels), model.vae.encoder(pixels))
"""


def run(program: str) -> Any:
    """What a program prints last, as JSON, in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def test_a_model_is_loaded_and_run_without_what_it_does_not_use() -> None:
    """And its features are those by ordinary imports, and the libraries are whole afterwards."""
    lean, loaded = run(FEATURES + LOADED + ARE_WHOLE + PRINT)
    assert "diffusers.models.unets.unet_2d_condition" in loaded
    assert {*UNUSED} & {*loaded} == set()
    usual, loaded = run(AS_USUAL + FEATURES + LOADED + PRINT)
    assert "torch._dynamo" in loaded
    assert lean == usual


def test_a_postponed_name_resolves_when_it_is_used() -> None:
    program = """
import json, sys
from features.pretrained.library_parts import only_what_is_used
with only_what_is_used():
    from fractions import Fraction
    from scipy.optimize import OptimizeResult, linear_sum_assignment
    import scipy.stats
    assert not isinstance(Fraction(1), OptimizeResult)
assert "scipy.optimize" not in sys.modules and "scipy.stats" not in sys.modules
rows, columns = linear_sum_assignment([[4, 1], [2, 3]])
assert columns.tolist() == [1, 0]
class Own(OptimizeResult): pass
assert isinstance(Own(), OptimizeResult) and isinstance(Own(), scipy.optimize.OptimizeResult)
print(json.dumps(True))
"""
    assert run(program)


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "CLIPTextModel"])
def test_a_class_of_another_layout_is_imported_as_usual(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import transformers

    from features.pretrained import library_parts

    library = diffusers if name.startswith("UNet") else transformers
    moved = f"{library.__name__}.models.of_another_release"
    monkeypatch.setitem(library_parts._MODULES, name, moved)
    assert library_parts.library_class(name) is getattr(library, name)


def test_a_class_that_the_installed_release_lacks() -> None:
    from features.pretrained.library_parts import library_class

    with pytest.raises(
        ImportError, match=r"^diffusers \d.* has no Flux9; install a newer release$"
    ):
        library_class("Flux9", "diffusers")


def test_tokenizers_of_other_kinds_are_left_to_the_library(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from features.pretrained.library_parts import tokenizer_class

    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert tokenizer_class(tmp_path) is AutoTokenizer

"""The FLOPs that `waldo models` lists, against a count by hand and the published architectures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.model_costs import count, count_preset, extractor_on_meta, preset_on_meta
from features.diffusion.dit.pixart import PixArtModel
from features.diffusion.model import DiffusionModel
from features.diffusion.presets import PRESETS
from features.diffusion.unet_model import UNetModel
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from features.vision.vision_presets import VISION_PRESETS
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]


class Multiplications:
    """Counts, by hooks on the layers that run, the FLOPs of products, convolutions and attention.

    Of an attention layer, they count once its output layer ran: an early stop leaves them out.
    """

    def __init__(self, *modules: Any) -> None:
        self.flops = 0
        self._shapes: dict[Any, torch.Size] = {}
        for module in modules:
            for layer in module.modules():
                if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                    layer.register_forward_hook(self._layer)
                if hasattr(layer, "to_q") and hasattr(layer, "to_out"):
                    layer.to_q.register_forward_hook(self._keep)
                    layer.to_k.register_forward_hook(self._keep)
                    layer.to_out[0].register_forward_hook(
                        lambda *_, of=layer: self._attention(of.to_q, of.to_k)
                    )

    def _layer(self, layer: Any, _: object, output: torch.Tensor) -> None:
        # Every number of the output is a sum over one row of the weights.
        self.flops += 2 * output.numel() * layer.weight[0].numel()

    def _keep(self, layer: Any, _: object, output: torch.Tensor) -> None:
        self._shapes[layer] = output.shape

    def _attention(self, query: Any, key: Any) -> None:
        batch, queries, width = self._shapes[query]
        # Queries with keys, then weights with values.
        self.flops += 2 * 2 * batch * queries * self._shapes[key][1] * width


@pytest.mark.parametrize(
    ("family", "kind", "changes"),
    [
        ("sd1", UNetModel, {"image_size": 64}),
        ("sd1", UNetModel, {"image_size": 64, "inversion": "ddim", "steps": 3}),
        ("sdxl", UNetModel, {"image_size": 64}),
        ("pixart", PixArtModel, {"image_size": 128}),
    ],
)
def test_the_count_is_that_of_the_layers_that_run(
    family: str,
    kind: type[DiffusionModel],
    changes: dict[str, Any],
    pipeline_folder: Folder,
    tmp_path: Path,
) -> None:
    folder = pipeline_folder(family)
    extractor = FeatureExtractor.load(str(folder), "cpu", batch_size=1).changed(**changes)
    path = save_photo(tmp_path / "photo.png", 96, 96)  # square, as the count takes it
    photo = load_model_input(path, extractor.image_size, extractor.grid)
    extractor.extract([photo])  # what is done once for all photos
    prompt = extractor._conditioning.states.shape[1:]
    by_hand = Multiplications(extractor.model.denoiser, extractor.model.vae)
    extractor.extract([photo])
    assert by_hand.flops > 1e6
    assert count(extractor_on_meta(folder, kind, extractor.settings, *prompt)) == by_hand.flops


# Those of each architecture whose count takes a second or two.
@pytest.mark.parametrize(
    "name",
    ["tiny", "cleandift-sd15", "pixart-sigma", "sd35-medium", "flux-dev", "flux2", "siglip2-base"],
)
def test_listed_flops_are_those_of_the_published_architecture(name: str) -> None:
    listed = (PRESETS | VISION_PRESETS)[name].flops
    flops, _ = count_preset(name)
    assert flops == pytest.approx(listed, rel=0.005)


# As the models' authors round them: 860 million (SD 1.x), 0.6, 2.5, 12 and 4 billion parameters.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sd15", 0.86e9),
        ("pixart-sigma", 0.6e9),
        ("sd35-medium", 2.5e9),
        ("flux-dev", 12e9),
        ("flux2", 4e9),
    ],
)
def test_the_published_architecture_has_the_published_size(
    name: str, parameters: float, tmp_path: Path
) -> None:
    denoiser = preset_on_meta(name, tmp_path).model.denoiser
    found = sum(weight.numel() for weight in denoiser.state_dict().values())
    assert found == pytest.approx(parameters, rel=0.035)

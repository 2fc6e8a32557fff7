"""The models that Waldo knows by name, and the settings of their features."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

InversionMethod = Literal["none", "noise", "ddim", "fixed-point"]


@dataclass(frozen=True)
class FeatureSettings:
    """How a photo becomes feature maps. With the weights, this decides all numbers.

    image_size: side of the square input, pixels.
    block: the transformer block whose projections are captured, as a module path in the UNet or the
        transformer.
    timestep: the timestep of the feature step, 0..999; an inversion ends there. Of a rectified
        flow, 1000 times the share of noise.
    inversion: "none" (the clean latent), "noise" (one-step noising, as DIFT does), "ddim", or
        "fixed-point" (AIDI, Pan et al., ICCV 2023).
    steps: inversion steps, evenly spaced up to `timestep` ("ddim" and "fixed-point").
    iterations: fixed-point iterations in each step.
    prompt: the prompt of the inversion and of the feature step. The class of a query is unknown
        when the gallery is indexed, so queries and gallery share a neutral prompt.
    """

    image_size: int
    block: str
    timestep: int
    inversion: InversionMethod
    steps: int = 1
    iterations: int = 1
    prompt: str = "a photo"

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureSettings":
        """The settings among `values`, e.g. of a store's fingerprint. Raises KeyError."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Preset:
    """A model known by name.

    source: a hub id, or "bundled:NAME" for weights in this package. licence: as the model's page on
    the hub names it. download: size of the files that are needed, as people read it. flops: FLOPs
    of the features of one photo, as `benchmarks/model_costs.py` counts them. grid, dim: the feature
    map is grid x grid cells of dim numbers. variant: the weight files' variant on the hub. unet:
    the hub id and the file of a UNet that takes the place of the source's own. background: the word
    that the model was taught for cells without an object, if any.
    """

    name: str
    source: str
    licence: str
    download: str
    flops: float
    grid: int
    dim: int
    settings: FeatureSettings
    variant: str | None = None
    unet: tuple[str, str] | None = None
    background: str | None = None


_SD_BLOCK = "up_blocks.3.attentions.2.transformer_blocks.0"
_SDXL_BLOCK = "up_blocks.1.attentions.2.transformer_blocks.0"


def _stable_diffusion(name: str, source: str, licence: str, download: str, flops: float) -> Preset:
    # PDM's published code: 50 DDIM inversion steps under "A photo".
    settings = FeatureSettings(512, _SD_BLOCK, 981, "ddim", steps=50, prompt="A photo")
    return Preset(name, source, licence, download, flops, 64, 320, settings, variant="fp16")


def _cleandift(name: str, source: str, licence: str, download: str) -> Preset:
    # Stracke et al., CVPR 2025: a UNet fine-tuned to give features of the clean latent, in one
    # evaluation without noise. Its training learns one timestep, which the file of the UNet does
    # not hold; 261 is what others who build on it name or pass. The authors' example was not read.
    settings = FeatureSettings(512, _SD_BLOCK, 261, "none", prompt="A photo")
    unet = "CompVis/cleandift", f"{name.replace('-', '_')}_unet.safetensors"
    return Preset(
        *(name, source, licence, download, 1.91e12, 64, 320, settings), variant="fp16", unet=unet
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            source="bundled:tiny",
            licence="Apache-2.0",
            download="bundled",
            flops=7.55e9,
            grid=28,
            dim=128,
            settings=FeatureSettings(
                224, "up_blocks.2.attentions.1.transformer_blocks.0", 0, "none"
            ),
            background="background",
        ),
        _stable_diffusion(
            "sd14", "CompVis/stable-diffusion-v1-4", "CreativeML Open RAIL-M", "2.1 GB", 4.21e13
        ),
        _stable_diffusion(
            "sd15",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "CreativeML Open RAIL-M",
            "2.1 GB",
            4.21e13,
        ),
        _stable_diffusion(
            "sd21-base", "stabilityai/stable-diffusion-2-1-base", "Open RAIL++-M", "2.6 GB", 4.21e13
        ),
        _cleandift(
            "cleandift-sd15",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "MIT; base: CreativeML Open RAIL-M",
            "up to 3.9 GB",
        ),
        _cleandift(
            "cleandift-sd21",
            "stabilityai/stable-diffusion-2-1",
            "MIT; base: Open RAIL++-M",
            "up to 4.4 GB",
        ),
        Preset(
            name="sdxl",
            source="stabilityai/stable-diffusion-xl-base-1.0",
            licence="Open RAIL++-M",
            download="6.9 GB",
            flops=8.20e13,
            grid=32,
            dim=640,
            settings=FeatureSettings(512, _SDXL_BLOCK, 981, "ddim", steps=50, prompt="A photo"),
            variant="fp16",
        ),
        Preset(
            name="sdxl-turbo",
            source="stabilityai/sdxl-turbo",
            licence="sai-nc-community",
            download="6.9 GB",
            flops=3.43e13,
            grid=32,
            dim=640,
            # PDM's own setting: 4 inversion steps, features at the noisiest of them.
            settings=FeatureSettings(
                512, _SDXL_BLOCK, 999, "fixed-point", steps=4, iterations=5, prompt="A photo"
            ),
            variant="fp16",
        ),
        # Blocks and timesteps as for other models of their families; for Flux.2 those of Flux.1
        # (`DiTArchitecture.inspected_settings`).
        Preset(
            name="pixart-sigma",
            source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            licence="Open RAIL++-M",
            download="21.8 GB",
            flops=1.74e12,
            grid=32,
            dim=1152,
            settings=FeatureSettings(512, "transformer_blocks.14", 261, "noise"),
        ),
        Preset(
            name="sd35-medium",
            source="stabilityai/stable-diffusion-3.5-medium",
            licence="Stability AI Community Licence",
            download="16.3 GB",
            flops=2.16e12,
            grid=32,
            dim=1536,
            settings=FeatureSettings(512, "transformer_blocks.9", 260, "noise"),
        ),
        Preset(
            name="flux-dev",
            source="black-forest-labs/FLUX.1-dev",
            licence="FLUX.1 [dev] Non-Commercial License",
            download="33.7 GB",
            flops=1.19e13,
            grid=32,
            dim=3072,
            settings=FeatureSettings(512, "single_transformer_blocks.9", 260, "noise"),
        ),
        Preset(
            name="flux2",
            source="black-forest-labs/FLUX.2-klein-4B",
            licence="Apache-2.0",
            download="16 GB",
            flops=7.09e12,
            grid=32,
            dim=3072,
            settings=FeatureSettings(512, "single_transformer_blocks.9", 260, "noise"),
        ),
    )
}


def bundled_path(source: str) -> Path:
    """The folder of a "bundled:NAME" model."""
    return Path(__file__).parents[1] / source.removeprefix("bundled:") / "weights"

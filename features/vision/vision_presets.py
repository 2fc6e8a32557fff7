"""The vision transformers that Waldo knows by name, and what their configuration files say."""

from dataclasses import asdict, dataclass
from pathlib import Path

from features.errors import ModelError
from features.pretrained.checkpoints import read_config


@dataclass(frozen=True)
class VisionSettings:
    """How a photo becomes feature maps. image_size: side of the square input, pixels."""

    image_size: int

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(frozen=True)
class VisionPreset:
    """A vision transformer known by name.

    source: a hub id. grid, dim: the feature map is grid x grid cells of dim numbers. download: size
    of the files that are needed, as people read it. flops, licence: as in `Preset`.
    """

    name: str
    source: str
    licence: str
    download: str
    flops: float
    grid: int
    dim: int
    settings: VisionSettings


def _dinov2(size: str, dim: int, download: str, flops: float) -> VisionPreset:
    # The size that the models were trained on at last.
    name, source = f"dinov2-{size}", f"facebook/dinov2-{size}"
    return VisionPreset(name, source, "Apache-2.0", download, flops, 37, dim, VisionSettings(518))


def _dinov3(size: str, letter: str, dim: int, download: str, flops: float) -> VisionPreset:
    source = f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m"
    return VisionPreset(
        f"dinov3-{size}", source, "DINOv3 License", download, flops, 32, dim, VisionSettings(512)
    )


def _siglip2(size: str, dim: int, download: str, flops: float) -> VisionPreset:
    name, source = f"siglip2-{size}", f"google/siglip2-{size}-patch16-512"
    return VisionPreset(name, source, "Apache-2.0", download, flops, 32, dim, VisionSettings(512))


VISION_PRESETS: dict[str, VisionPreset] = {
    preset.name: preset
    for preset in (
        _dinov2("small", 384, "88 MB", 9.34e10),
        _dinov2("base", 768, "346 MB", 3.03e11),
        _dinov2("large", 1024, "1.2 GB", 1.01e12),
        _dinov3("small", "s", 384, "86 MB", 6.38e10),
        _dinov3("base", "b", 768, "343 MB", 2.15e11),
        _dinov3("large", "l", 1024, "1.2 GB", 7.27e11),
        _siglip2("base", 768, "1.5 GB", 2.31e11),
        _siglip2("large", 1024, "3.5 GB", 7.53e11),
    )
}


@dataclass(frozen=True)
class VisionFamily:
    """A kind of vision transformer.

    model, config: names of classes of transformers. class_tokens: tokens before the registers.
    any_size: whether it takes pictures of any size that is a multiple of its patches. dim, patch,
    registers: what transformers takes where a config.json does not say how many numbers a token
    has, pixels the side of a patch, and registers there are.
    """

    model: str
    config: str
    class_tokens: int
    any_size: bool
    dim: int
    patch: int
    registers: int


_DINOV2 = VisionFamily("Dinov2Model", "Dinov2Config", 1, True, 768, 14, 0)
_DINOV2_REGISTERS = VisionFamily(
    "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", 1, True, 768, 16, 4
)
_DINOV3 = VisionFamily("DINOv3ViTModel", "DINOv3ViTConfig", 1, True, 384, 16, 0)
_SIGLIP = VisionFamily("SiglipVisionModel", "SiglipVisionConfig", 0, False, 768, 16, 0)
# By config.json's model_type.
_FAMILIES = {
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2_REGISTERS,
    "dinov3_vit": _DINOV3,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}
# Side of the pictures, pixels, where a config.json does not say it.
_DEFAULT_SIZE = 224


@dataclass(frozen=True)
class VisionArchitecture:
    """What the config.json of a vision transformer says.

    dim: numbers per token. patch: side of a patch, pixels. image_size: side of the square input
    that the configuration names, without a rest that is no whole patch, pixels. first: tokens
    before those of the patches. has_text: whether a text encoder comes with it.
    """

    family: VisionFamily
    dim: int
    patch: int
    image_size: int
    first: int
    has_text: bool

    @classmethod
    def read(cls, folder: Path) -> "VisionArchitecture":
        """Of a folder in transformers' layout, without its weights and without torch.

        Raises ValueError for a model that is none of the families, and OSError, KeyError or
        TypeError where the file is missing or broken.
        """
        config, family = read_config(folder, _FAMILIES)
        own = config.get("vision_config", config)
        dim = int(own.get("hidden_size", family.dim))
        patch = int(own.get("patch_size", family.patch))
        size = int(own.get("image_size", _DEFAULT_SIZE))
        registers = int(own.get("num_register_tokens", family.registers))
        if not 0 < patch <= size:
            raise ValueError(f"patches of {patch} pixels in pictures of {size}")
        has_text = config["model_type"] == "siglip"
        first = family.class_tokens + registers
        return cls(family, dim, patch, size - size % patch, first, has_text)

    def check_input(self, size: int) -> None:
        """Raise ModelError for the side of a square input that the model cannot take, pixels."""
        if size != self.image_size and not self.family.any_size:
            raise ModelError(f"the model takes pictures of {self.image_size} pixels, not of {size}")
        if size < self.patch or size % self.patch:
            raise ModelError(f"the image size {size} is no multiple of the patch, {self.patch}")

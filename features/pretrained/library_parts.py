"""Classes of diffusers and transformers, imported without the rest of these libraries.

Imported as usual, a UNet and a text encoder take longer than a whole search: packages import every
model that they know, and modules import the compiler, distributed tensors and statistics for
functions that Waldo never calls. `library_class` imports the module of a class, and meanwhile
postpones three things:

- `__init__` of packages that import all their modules. It runs when a name of the package is first
  asked for that is not a module of it.
- modules that are imported only for functions which are not called (`_POSTPONED`). Their names
  resolve on first use. No object is an instance of a class whose module is not loaded.
- garbage collection, which finds next to nothing while modules are made.

A later `import diffusers` or `import torch._dynamo` gives the whole library, with the same classes.
What stays: functions that were imported meanwhile lack the mark `allow_in_graph`, so torch.compile
looks into them, as it does wherever diffusers is used without torch._dynamo.

Where a library is built in another way, such that the class cannot be imported like this, it is
imported as usual.
"""

import functools
import gc
import json
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

# The modules of classes that are used. Other classes are taken from the library's own package.
_MODULES = {
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
    "AutoencoderKLFlux2": "diffusers.models.autoencoders.autoencoder_kl_flux2",
    "AutoencoderTiny": "diffusers.models.autoencoders.autoencoder_tiny",
    "DDIMScheduler": "diffusers.schedulers.scheduling_ddim",
    "Flux2Transformer2DModel": "diffusers.models.transformers.transformer_flux2",
    "FluxTransformer2DModel": "diffusers.models.transformers.transformer_flux",
    "PixArtTransformer2DModel": "diffusers.models.transformers.pixart_transformer_2d",
    "SD3Transformer2DModel": "diffusers.models.transformers.transformer_sd3",
    "UNet2DConditionModel": "diffusers.models.unets.unet_2d_condition",
    "CLIPTextModel": "transformers.models.clip.modeling_clip",
    "CLIPTextModelWithProjection": "transformers.models.clip.modeling_clip",
    "CLIPVisionConfig": "transformers.models.clip.configuration_clip",
    "CLIPVisionModelWithProjection": "transformers.models.clip.modeling_clip",
    "Dinov2Config": "transformers.models.dinov2.configuration_dinov2",
    "Dinov2Model": "transformers.models.dinov2.modeling_dinov2",
    "Qwen3ForCausalLM": "transformers.models.qwen3.modeling_qwen3",
    "SiglipVisionConfig": "transformers.models.siglip.configuration_siglip",
    "SiglipVisionModel": "transformers.models.siglip.modeling_siglip",
    "T5EncoderModel": "transformers.models.t5.modeling_t5",
}
# By the class that tokenizer_config.json names: where newer and older releases have the fast one.
_TOKENIZERS = {
    "CLIPTokenizer": (
        ("transformers.models.clip.tokenization_clip_fast", "CLIPTokenizerFast"),
        ("transformers.models.clip.tokenization_clip", "CLIPTokenizer"),
    ),
    "PreTrainedTokenizerFast": (
        ("transformers.tokenization_utils_tokenizers", "TokenizersBackend"),
        ("transformers.tokenization_utils_fast", "PreTrainedTokenizerFast"),
    ),
    "Qwen2Tokenizer": (
        ("transformers.models.qwen2.tokenization_qwen2_fast", "Qwen2TokenizerFast"),
        ("transformers.models.qwen2.tokenization_qwen2", "Qwen2Tokenizer"),
    ),
    "T5Tokenizer": (
        ("transformers.models.t5.tokenization_t5_fast", "T5TokenizerFast"),
        ("transformers.models.t5.tokenization_t5", "T5Tokenizer"),
    ),
}

# Packages whose `__init__` imports all their modules, or lists all models of the library.
_PACKAGES = (
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
    "transformers",
    "transformers.models",
)
# Modules of which nothing is called in loading or running a model.
_POSTPONED = (
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "transformers.distributed.expert_parallel",
    "transformers.distributed.tensor_parallel",
)

_lock = RLock()


def library_class(name: str, library: str = "transformers") -> Any:
    """A class of diffusers or transformers by its name.

    library: where a class is that has no line in `_MODULES`. Raises ImportError where the library
    has no such class.
    """
    module = _MODULES.get(name, library)
    found = _imported([(module, name)])
    if found is not None:
        return found
    whole = import_module(module.partition(".")[0])
    try:
        return getattr(whole, name)
    except AttributeError:
        raise ImportError(
            f"{whole.__name__} {whole.__version__} has no {name}; install a newer release"
        ) from None


def tokenizer_class(folder: Path) -> Any:
    """The class that reads the tokenizer of a folder. Raises OSError, or ValueError for no JSON."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    kind = str(config.get("tokenizer_class")).removesuffix("Fast")
    known = {name.removesuffix("Fast"): places for name, places in _TOKENIZERS.items()}
    return _imported(known.get(kind, ())) or library_class("AutoTokenizer")


def _imported(places: Sequence[tuple[str, str]]) -> Any:
    """The first (module, name) of some that can be imported by itself; None for none of them."""
    with only_what_is_used():
        for module, name in places:
            try:
                return getattr(import_module(module), name)
            except Exception:
                # Of another release, whose modules are others, or need what is postponed.
                continue
    return None


@contextmanager
def only_what_is_used() -> Iterator[None]:
    """While this is open, imports leave out what the module's docstring says."""
    with _lock:
        collecting = gc.isenabled()
        gc.disable()
        sys.meta_path.insert(0, _finder)
        try:
            yield
        finally:
            _forget_postponed()
            if collecting:
                gc.enable()


def _forget_postponed() -> None:
    """From now on the postponed modules are imported as usual."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name, module in list(sys.modules.items()):
        if isinstance(module, _PostponedModule):
            del sys.modules[name]
            package, _, child = name.rpartition(".")
            if vars(sys.modules.get(package, module)).get(child) is module:
                delattr(sys.modules[package], child)


class _Finder(MetaPathFinder):
    """Finds what is postponed before the usual finders do."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _PACKAGES:
            usual = PathFinder.find_spec(name, path)
            return None if usual is None else _PackageLoader(usual).spec
        if any(name == each or name.startswith(f"{each}.") for each in _POSTPONED):
            return ModuleSpec(name, _ModuleLoader(), is_package=True)
        return None


_finder = _Finder()


class _PostponedPackage(ModuleType):
    """A package whose `__init__` runs when a name is asked for that is no module of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        module = f"{self.__name__}.{name}"
        if PathFinder.find_spec(module, self.__path__) is not None:
            return import_module(module)
        with _lock:
            if type(self) is _PostponedPackage:
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        # Such an `__init__` may have put another object in the package's place.
        return getattr(sys.modules[self.__name__], name)


class _PackageLoader(Loader):
    """Makes a package without running its `__init__`. usual: how it would be loaded."""

    def __init__(self, usual: ModuleSpec) -> None:
        self._usual = usual
        self.spec = ModuleSpec(usual.name, self, origin=usual.origin, is_package=True)
        self.spec.submodule_search_locations = usual.submodule_search_locations

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PostponedPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__, module.__loader__ = self._usual, self._usual.loader
        module.__file__ = self._usual.origin
        if "." not in module.__name__:
            module.__dict__["__version__"] = metadata.version(module.__name__)


class _PostponedModule(ModuleType):
    """Stands for a module, or for a package with all its modules."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _PostponedName(self.__name__, name)


class _ModuleLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PostponedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_FUNCTIONS.get(module.__name__, {}))


class _PostponedName:
    """A name of a postponed module: a class or a function that is imported when it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _resolve(self) -> Any:
        _forget_postponed()
        return getattr(import_module(self._module), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._resolve()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._resolve(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._resolve(),)

    def __instancecheck__(self, instance: object) -> bool:
        loaded = sys.modules.get(self._module)
        if loaded is None or isinstance(loaded, _PostponedModule):
            return False
        return isinstance(instance, getattr(loaded, self._name))

    # In annotations.
    def __or__(self, other: object) -> Any:
        return Any

    __ror__ = __or__


def _disable(function: Callable[..., Any] | None = None, *settings: Any, **named: Any) -> Any:
    """`torch._dynamo.disable`. Without torch._dynamo nothing is compiled, so there is nothing to
    be done; once it is loaded, the function is kept from it.
    """
    if function is None:
        return functools.partial(_disable, **named)
    kept: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any, **others: Any) -> Any:
        dynamo = sys.modules.get("torch._dynamo")
        if dynamo is None or isinstance(dynamo, _PostponedModule):
            return function(*arguments, **others)
        if not kept:
            kept.append(dynamo.disable(function, *settings, **named))
        return kept[0](*arguments, **others)

    return call


def _unchanged(function: Any) -> Any:
    """`torch._dynamo.allow_in_graph`, as diffusers itself does without torch._dynamo."""
    return function


def _constant(function: Any) -> Any:
    """`torch._dynamo.assume_constant_result`."""
    function._dynamo_marked_constant = True
    return function


# What is called of postponed modules while others are imported or weights are read.
_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "torch._dynamo": {
        "disable": _disable,
        "allow_in_graph": _unchanged,
        "assume_constant_result": _constant,
    },
    # torch's own checks; there are no symbols before this module is loaded.
    "torch.fx.experimental.symbolic_shapes": {
        **dict.fromkeys(("expect_true", "guard_or_false", "guard_or_true"), bool),
        "is_nested_int": lambda _: False,
        "sym_and": lambda *conditions: all(conditions),
        "sym_or": lambda *conditions: any(conditions),
        "sym_eq": operator.eq,
    },
}

"""Pre-trained checkpoints: where they lie, and how their weights are read.

A checkpoint is a local folder, or a repository of the Hugging Face hub. Weights are read from
safetensors files only, and no code that comes with a model is run.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from features.errors import ModelError, is_full_memory
from features.pretrained.library_parts import only_what_is_used

if TYPE_CHECKING:
    import torch

_Known = TypeVar("_Known")
# Endings of weights that Python would unpickle.
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint.

    library: whose layout it is, as messages name it. marker: the file that every such folder has.
    files, ignored: patterns of the files that are needed, and of those among them that are not.
    weights: patterns of files of which at least one must be there. parts: the folders beneath it
    whose weights `locate` looks at, "." for itself; a pipeline's are known by its configuration.
    """

    library: str
    marker: str
    files: tuple[str, ...]
    weights: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    parts: tuple[str, ...] = (".",)


def locate(
    kind: str,
    name: str,
    known: Mapping[str, str],
    layout: Layout,
    revision: str | None = None,
) -> tuple[Path, str | None]:
    """The local folder of a checkpoint and its commit; a hub repository may be downloaded for it.

    kind: what messages call it, e.g. "model". name: a key of `known`, a local folder, or a hub id.
    known: hub ids by name. revision: a hub commit. The commit is None for a local folder. Raises
    ModelError where the files cannot be had.
    """
    source = known.get(name, name)
    local = Path(source)
    if local.is_dir():
        if not (local / layout.marker).is_file():
            raise ModelError(f"{kind} {name}: {_another_folder(local, layout)}")
        folder, repository = local.resolve(), None
    elif local.is_file():
        raise ModelError(
            f"{kind} {name}: this is one file; give a folder in {layout.library}' layout"
        )
    elif source.count("/") != 1 or local.is_absolute():
        names = f"known names: {', '.join(known)}; or give" if known else "give"
        raise ModelError(
            f"{kind} {name}: no such model; {names} a local folder in {layout.library}' layout, or "
            "a hub id"
        )
    else:
        folder, repository = hub_snapshot(f"{kind} {name}", source, revision, layout), source
    check_weights(f"{kind} {name}", folder, repository, layout.parts)
    return folder, folder.name if repository else None


def _another_folder(folder: Path, layout: Layout) -> str:
    """Why a local folder is no model, and the mend."""
    marker = layout.marker
    lacks = f"not a model in {layout.library}' layout (no {marker} in it)"
    near = [folder.parent / marker]  # a part of a pipeline was given
    # The folder above a model was given, or a repository in the hub's cache.
    near += [*sorted(folder.glob(f"*/{marker}")), *sorted(folder.glob(f"snapshots/*/{marker}"))]
    meant = next((path.parent for path in near if path.is_file()), None)
    return f"{lacks}; give {meant or 'the folder that holds it'}"


def hub_snapshot(model: str, repository: str, revision: str | None, layout: Layout) -> Path:
    """The snapshot folder of a hub repository, from the local cache or else downloaded.

    model: what messages call it. Raises ModelError where neither gives the weights.
    """
    from huggingface_hub import snapshot_download

    for local_only in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(layout.files),
                    ignore_patterns=list(layout.ignored) or None,
                    local_files_only=local_only,
                )
            )
        except Exception as error:
            # Besides its own errors the hub's client raises those of its HTTP library, which is
            # another in other releases.
            if local_only:
                continue
            raise ModelError(f"{model}: {_hub_failure(repository, revision, error)}") from error
        if any(any(folder.glob(pattern)) for pattern in layout.weights):
            return folder
    raise ModelError(f"{model}: {_without_weights(repository, folder, layout)}")


def _hub_failure(repository: str, revision: str | None, error: Exception) -> str:
    """What kept a repository from being downloaded, and the mend."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # which is a RepositoryNotFoundError too
        return (
            f"{repository} is gated; accept its licence at https://huggingface.co/{repository}, "
            "and run `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{repository} has no revision {revision or 'main'} on the hub; if an index was made "
            "with it, index its photos again"
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return (
            f"the hub has no repository {repository}, or it is private; check the name, or run "
            "`hf auth login`"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        if hasattr(error, "snapshot_path"):  # releases that keep the list of a repository's files
            return _half(repository)
        is_offline = isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        why = "HF_HUB_OFFLINE is set" if is_offline else "the hub cannot be reached"
        return (
            f"{repository} is not on this machine, and {why}; run `hf download {repository}` where "
            "there is a network, or give a local folder"
        )
    reason = " ".join(str(error).split())[:300]
    return (
        f"the download of {repository} failed ({reason}); run the command again, which goes on "
        "where it stopped"
    )


def _without_weights(repository: str, folder: Path, layout: Layout) -> str:
    """Why the snapshot of a repository has no weights that can be read, and the mend."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(repository, revision=folder.name).siblings or []
        names = [file.rfilename for file in files]
        is_whole = True
    except Exception:  # as in `hub_snapshot`; mostly there is no network
        names = [path.name for path in folder.rglob("*")]
        is_whole = False
    if any(Path(name).suffix in _PICKLES for name in names):
        return _pickled(repository)
    if not is_whole:
        return _half(repository)
    lacks = "safetensors weights" if layout.marker in names else layout.marker
    return (
        f"{repository} is not a model in {layout.library}' layout (no {lacks} in it); take "
        "another repository or a local folder"
    )


def _pickled(place: str) -> str:
    return (
        f"the weights of {place} are pickle files, which can run code and are not read; take a "
        "repository or a folder with safetensors weights"
    )


def _half(repository: str) -> str:
    return (
        f"only a part of {repository} is on this machine; run `hf download {repository}` where "
        "there is a network, which goes on where it stopped"
    )


def check_weights(
    model: str,
    folder: Path,
    repository: str | None,
    parts: Iterable[str],
    variant: str | None = None,
    needed: Iterable[str] = (),
) -> None:
    """Raise ModelError, with the mend, where the weights in a folder are not all there.

    Only names, sizes and headers of files are looked at. model: what messages call it. repository:
    the hub id that the folder is a snapshot of; None for a local folder. parts: the folders beneath
    it that have weights, "." for itself. variant: of their files. needed: further folders.
    """
    for part in needed:
        if not any((folder / part).glob("*")):
            raise missing(model, folder / part, repository)
    for part in parts:
        place = folder / part
        if not (place / "config.json").is_file():
            raise missing(model, place / "config.json", repository)
        _check_files(model, place, repository, variant)


def _check_files(model: str, place: Path, repository: str | None, variant: str | None) -> None:
    """Raise ModelError where the weights of one part are not all there."""
    from safetensors import SafetensorError, safe_open

    suffix = f".{variant}" if variant else ""
    names = {f"{name}{suffix}" for name in ("model", "diffusion_pytorch_model")}
    # Large weights are several files, MODEL-00001-of-00002, and an index names them.
    files = [
        file
        for file in place.glob("*.safetensors")
        if re.sub(r"-\d+-of-\d+", "", file.stem) in names
    ]
    if not files:
        if any(file.suffix in _PICKLES for file in place.glob("*")):
            raise ModelError(f"{model}: {_pickled(str(place))}")
        kind = f"*{suffix}.safetensors" if variant else "safetensors weights"
        raise ModelError(f"{model}: {place} has no {kind}; {_mend(repository)}")
    if not names & {file.stem for file in files}:
        index = _index(place, variant)
        if index is None:
            raise missing(model, place / "*.safetensors.index.json", repository)
        try:
            weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
            files = [place / name for name in sorted(set(weight_map.values()))]
        except (ValueError, KeyError, TypeError, AttributeError):
            files = [index]  # which is found to be damaged
    for file in files:
        if not file.is_file():
            raise missing(model, file, repository)
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{model}: {file} is cut short or damaged; {_mend(repository, True)}"
            ) from error


def _index(place: Path, variant: str | None) -> Path | None:
    """The file that names the files among which the weights of a part are divided."""
    for path in sorted(place.glob("*.safetensors*.index*.json")):
        if (f".{variant}." in path.name) if variant else path.name.count(".") == 3:
            return path
    return None


def missing(model: str, path: Path, repository: str | None) -> ModelError:
    """The error that a file of a model is missing. Parameters as in `check_weights`."""
    return ModelError(f"{model}: {path} is missing; {_mend(repository)}")


def _mend(repository: str | None, is_damaged: bool = False) -> str:
    """What to do where files of a model are missing or damaged."""
    if repository is None:
        return "copy the whole folder of the model again"
    if is_damaged:
        return f"run `hf download {repository} --force-download`"
    return f"run `hf download {repository}` where there is a network"


def files_digest(folder: Path, files: Iterable[Path]) -> str:
    """ "sha256:..." over the names and contents of files beneath a folder, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def load_pretrained(
    model_class: Any, folder: Path, dtype: "torch.dtype | None" = None, **settings: Any
) -> Any:
    """Load a model of the diffusers or the transformers library on the CPU, from safetensors only.

    dtype: None for float32. settings: for `from_pretrained`. Raises ValueError where weights in the
    folder are damaged or missing, and whatever the library raises.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with only_what_is_used(), quiet_libraries(), _embeddings_unfilled():
            model, loaded = model_class.from_pretrained(
                folder,
                torch_dtype=dtype or torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **settings,
            )
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if loaded["missing_keys"]:
        raise ValueError(f"its weights lack {min(loaded['missing_keys'])}")
    return model


def load_weights(model_class: Any, folder: Path, weights: Path) -> Any:
    """A model of the diffusers library by the configuration in a folder, on the CPU.

    weights: a safetensors file, which has exactly its parameters. Raises ValueError where the file
    is damaged, and RuntimeError where it is of another model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = load_file(weights)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    with only_what_is_used(), quiet_libraries(), torch.device("meta"):
        model = model_class.from_config(model_class.load_config(folder, local_files_only=True))
    model.load_state_dict(values, strict=True, assign=True)
    return model


@contextmanager
def _embeddings_unfilled() -> Iterator[None]:
    """Make embeddings without random numbers, because their weights are read afterwards.

    transformers makes them without memory; torch would import its compiler to fill such ones.
    """
    from torch import nn

    fill = nn.Embedding.reset_parameters
    nn.Embedding.reset_parameters = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Embedding.reset_parameters = fill  # type: ignore[method-assign]


def read_config(folder: Path, known: Mapping[str, _Known]) -> tuple[dict[str, Any], _Known]:
    """The config.json of a model in transformers' layout, and the entry of `known` for its kind.

    known: by model_type, the setting that names the kind. Raises ValueError for another kind, and
    OSError where the file cannot be read.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = known.get(config.get("model_type"))
    if kind is None:
        raise ValueError(f"model_type is {config.get('model_type')}, not one of {', '.join(known)}")
    return config, kind


@contextmanager
def explained_errors(model: str, folder: Path, needed: str) -> Iterator[None]:
    """Raise what goes wrong in loading as a ModelError of one line.

    model: the model as messages name it. needed: what Waldo can load.
    """
    try:
        yield
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
        ImportError,  # some files need libraries that are no dependency
    ) as error:
        if is_full_memory(error):
            raise ModelError(
                f"{model}: the device's memory does not suffice for it; use another device, such "
                "as cpu"
            ) from None
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{model}: cannot be loaded from {folder} ({reason}); Waldo needs {needed}"
        ) from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' progress bars and advice, which mean nothing to users of Waldo."""
    loaded = (sys.modules.get(f"{name}.utils.logging") for name in ("diffusers", "transformers"))
    libraries: list[Any] = [library for library in loaded if library is not None]
    before = [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, had_bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if had_bars:
                library.enable_progress_bar()

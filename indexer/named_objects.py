"""Objects that an index knows by name: the features of their photos, which may be gone by then."""

import difflib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.errors import IndexDamagedError, UnknownNameError
from indexer.store.files import write_bytes_atomically

# What helps where such a file is lost: nothing can make it again.
NAME_AGAIN = "forget this name (`waldo forget`), and name the object again"


@dataclass(frozen=True)
class NamedView:
    """One photo of a named object, or of what it is not.

    photo: the file, as of when the object was named. maps: the photo's features. cells: (grid,
    grid) bool, the object's cells. class_name: what it was said to be, or None. class_vector: C of
    the class name, (d,) float32, or None.
    """

    photo: Path
    maps: FeatureMaps
    cells: NDArray[np.bool_]
    class_name: str | None
    class_vector: NDArray[np.float32] | None


@dataclass(frozen=True)
class NamedObject:
    """An object with a name. views: its photos, at least one. unlike: photos of other objects that
    it is not.
    """

    name: str
    views: tuple[NamedView, ...]
    unlike: tuple[NamedView, ...] = ()


def unknown_name(index_dir: Path, names: Sequence[str], name: str) -> UnknownNameError:
    """The error for a name that an index does not know. names: those that it knows."""
    near = difflib.get_close_matches(name, names, 1)
    shown = name if name.isprintable() else repr(name)
    if near:
        hint = f"did you mean {near[0]}?"
    elif names:
        hint = f"it knows {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
    else:
        hint = f"it knows none; `waldo name {shlex.quote(shown)} PHOTO` adds one"
    return UnknownNameError(f"@{shown}: {index_dir} knows no object of this name; {hint}")


def write_named_object(path: Path, named: NamedObject) -> None:
    """Write a named object as a safetensors file, whole or not at all. Raises OSError."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[np.generic]] = {}
    told = []
    for number, view in enumerate((*named.views, *named.unlike)):
        tensors[f"{number}.appearance"] = np.ascontiguousarray(view.maps.appearance)
        tensors[f"{number}.semantic"] = np.ascontiguousarray(view.maps.semantic)
        tensors[f"{number}.cells"] = np.ascontiguousarray(view.cells)
        if view.class_vector is not None:
            tensors[f"{number}.class_vector"] = np.ascontiguousarray(view.class_vector)
        frame = view.maps.frame
        told.append(
            {
                # Paths need not be valid Unicode; JSON escapes what is not.
                "photo": str(view.photo),
                "content_hash": view.maps.content_hash,
                "class": view.class_name,
                "frame": [frame.width, frame.height, frame.size, frame.grid],
            }
        )
    described = {"name": named.name, "views": told, "of_object": len(named.views)}
    write_bytes_atomically(path, save(tensors, {"named": json.dumps(described)}))


def read_named_object(path: Path) -> NamedObject:
    """Read a named object. Raises IndexDamagedError where the file is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            described = json.loads(file.metadata()["named"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        views = [_view(number, told, tensors) for number, told in enumerate(described["views"])]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IndexDamagedError(f"{path}: cannot be read ({error}); {NAME_AGAIN}") from error
    count = described["of_object"]
    return NamedObject(described["name"], tuple(views[:count]), tuple(views[count:]))


def _view(
    number: int, told: dict[str, object], tensors: dict[str, NDArray[np.generic]]
) -> NamedView:
    frame: Sequence[int] = told["frame"]  # type: ignore[assignment]
    return NamedView(
        Path(str(told["photo"])),
        FeatureMaps(
            tensors[f"{number}.appearance"].astype(np.float16),
            tensors[f"{number}.semantic"].astype(np.float16),
            Frame(*frame),
            str(told["content_hash"]),
        ),
        tensors[f"{number}.cells"].astype(bool),
        None if told["class"] is None else str(told["class"]),
        None
        if f"{number}.class_vector" not in tensors
        else tensors[f"{number}.class_vector"].astype(np.float32),
    )

"""Objects that an index knows by name: the features of their photos, which may be gone by then, and
what people said of other photos.
"""

import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.bucket.object_path import path_of
from indexer.errors import NAME_AGAIN, IndexDamagedError, UnknownNameError
from indexer.store.files import write_bytes_atomically

Box = tuple[int, int, int, int]


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
class Verdict:
    """What a person said of a photo: that it shows the object, or that it does not.

    photo: the file, as of then. content_hash: as in FeatureMaps; the photo is known by it wherever
    it lies. view: the place in it that was meant, which the object is compared by from then on;
    None where enough photos are known already. box: that place, as it is told; None in names that
    were kept before there were boxes.
    """

    photo: Path
    content_hash: str
    shows: bool
    view: NamedView | None
    box: Box | None = None


@dataclass(frozen=True)
class NamedObject:
    """An object with a name. views: the photos that it was named by, at least one. unlike: photos
    of other objects that it is not. verdicts: what people said of further photos, one of each.
    """

    name: str
    views: tuple[NamedView, ...]
    unlike: tuple[NamedView, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def references(self) -> tuple[NamedView, ...]:
        """The photos that the object is looked for by: those of the name, and confirmed ones."""
        return (*self.views, *self._said(True))

    @property
    def others(self) -> tuple[NamedView, ...]:
        """What it is told apart from: `unlike`, and refused photos."""
        return (*self.unlike, *self._said(False))

    def _said(self, shows: bool) -> list[NamedView]:
        return [one.view for one in self.verdicts if one.view is not None and one.shows == shows]


@dataclass(frozen=True)
class NameSummary:
    """What the file of a named object says without its features.

    named_by: the content hashes of the photos that it was named by. said: by content hash, what
    people said of further ones, whether they show it. boxes: by content hash, the place that was
    meant in any of these, [x0, y0, x1, y1] in pixels of the upright photo.
    """

    named_by: frozenset[str]
    said: Mapping[str, bool]
    boxes: Mapping[str, Box]


def unknown_name(place: Path | str, names: Sequence[str], name: str) -> UnknownNameError:
    """The error for a name that an index does not know. place: its folder or its address. names:
    those that it knows.
    """
    near = difflib.get_close_matches(name, names, 1)
    shown = name if name.isprintable() else repr(name)
    if near:
        hint = f"did you mean {near[0]}?"
    elif names:
        hint = f"it knows {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
    else:
        hint = f"it knows none; `waldo name {shlex.quote(shown)} PHOTO` adds one"
    return UnknownNameError(f"@{shown}: {place} knows no object of this name; {hint}")


def write_named_object(path: Path, named: NamedObject) -> None:
    """Write a named object as a safetensors file, whole or not at all. Raises OSError."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[np.generic]] = {}
    described = {
        "name": named.name,
        "views": [
            _write_view(str(number), view, tensors)
            for number, view in enumerate((*named.views, *named.unlike))
        ],
        "of_object": len(named.views),
        "verdicts": [
            {
                "photo": str(one.photo),
                "content_hash": one.content_hash,
                "shows": one.shows,
                "box": one.box,
                "view": one.view and _write_view(f"verdict-{number}", one.view, tensors),
            }
            for number, one in enumerate(named.verdicts)
        ],
    }
    write_bytes_atomically(path, save(tensors, {"named": json.dumps(described)}))


def read_named_object(path: Path) -> NamedObject:
    """Read a named object. Raises IndexDamagedError where the file is not what was written."""
    described, tensors = _read(path, with_tensors=True)
    try:
        views = [_view(str(at), told, tensors) for at, told in enumerate(described["views"])]
        verdicts = tuple(
            Verdict(
                path_of(told["photo"]),
                told["content_hash"],
                told["shows"],
                told["view"] and _view(f"verdict-{number}", told["view"], tensors),
                _box(told),
            )
            for number, told in enumerate(described.get("verdicts", ()))
        )
        count = described["of_object"]
    except (KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    return NamedObject(described["name"], tuple(views[:count]), tuple(views[count:]), verdicts)


def read_name_summary(path: Path) -> NameSummary:
    """Read a named object without its features. Raises as `read_named_object`."""
    described, _ = _read(path, with_tensors=False)
    try:
        views = described["views"][: described["of_object"]]
        verdicts = described.get("verdicts", ())
        boxes = {one["content_hash"]: _box(one) for one in (*verdicts, *views)}
        return NameSummary(
            frozenset(view["content_hash"] for view in views),
            {one["content_hash"]: one["shows"] for one in verdicts},
            {content: box for content, box in boxes.items() if box is not None},
        )
    except (KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
            described: dict[str, Any] = json.loads(file.metadata()["named"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    return described, tensors


def _box(told: dict[str, Any]) -> Box | None:
    """The box of a view or of a verdict, as it is stored."""
    box = told.get("box") or (told.get("view") or {}).get("box")
    return None if box is None else tuple(box)


def _unreadable(path: Path, error: Exception) -> IndexDamagedError:
    return IndexDamagedError(f"{path}: cannot be read ({error}); {NAME_AGAIN}")


def _write_view(
    key: str, view: NamedView, tensors: dict[str, NDArray[np.generic]]
) -> dict[str, object]:
    """Add the features of a view to `tensors`; returns the rest of it as JSON."""
    tensors[f"{key}.appearance"] = np.ascontiguousarray(view.maps.appearance)
    tensors[f"{key}.semantic"] = np.ascontiguousarray(view.maps.semantic)
    tensors[f"{key}.cells"] = np.ascontiguousarray(view.cells)
    if view.class_vector is not None:
        tensors[f"{key}.class_vector"] = np.ascontiguousarray(view.class_vector)
    frame = view.maps.frame
    return {
        # Paths need not be valid Unicode; JSON escapes what is not.
        "photo": str(view.photo),
        "content_hash": view.maps.content_hash,
        "class": view.class_name,
        "frame": [frame.width, frame.height, frame.size, frame.grid],
        "box": frame.box_of(view.cells),
    }


def _view(key: str, told: dict[str, Any], tensors: dict[str, NDArray[np.generic]]) -> NamedView:
    vector = tensors.get(f"{key}.class_vector")
    return NamedView(
        path_of(told["photo"]),
        FeatureMaps(
            tensors[f"{key}.appearance"].astype(np.float16),
            tensors[f"{key}.semantic"].astype(np.float16),
            Frame(*told["frame"]),
            told["content_hash"],
        ),
        tensors[f"{key}.cells"].astype(bool),
        told["class"],
        None if vector is None else vector.astype(np.float32),
    )

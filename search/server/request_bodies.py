"""What the page and scripts ask for: JSON bodies and parameters, checked field by field."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.errors import WaldoError
from features.regions import Box, Point
from search.query import NAME_MARK, digits

# Matches per search, photos per page of the listing, and photos per object that may be asked for.
MOST_MATCHES = 200
MOST_LISTED = 500
MOST_VIEWS = 32
MOST_AREAS = 64
# Photos that are confirmed or refused at once, of each kind.
MOST_VERDICTS = 500


class RequestError(WaldoError):
    """A request that is not answered. status: the HTTP status code that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ObjectRequest:
    """One object in one photo, as asked for.

    photo: the number of a photo of the index, the key of an upload, or @ and the name of an object
    that the index knows. class_name, box, point: as
    in Query. add, remove: boxes that belong to the object beside what was taken, and that do not.
    """

    photo: int | str
    class_name: str | None = None
    box: Box | None = None
    point: Point | None = None
    add: tuple[Box, ...] = ()
    remove: tuple[Box, ...] = ()


@dataclass(frozen=True)
class SearchRequest:
    """A search, as asked for.

    also, unlike: as in Query. top: the number of matches. folder: only photos beneath it. since,
    until: dates, YYYY, YYYY-MM or YYYY-MM-DD.
    """

    object: ObjectRequest
    also: tuple[ObjectRequest, ...] = ()
    unlike: tuple[ObjectRequest, ...] = ()
    top: int = 40
    folder: str | None = None
    since: str | None = None
    until: str | None = None


def read_object(body: Any, where: str = "object") -> ObjectRequest:
    """An object from JSON. where: what the errors call it. Raises RequestError."""
    fields = _fields(body, where, {"photo", "class", "box", "point", "add", "remove"})
    return ObjectRequest(
        _photo(fields.get("photo"), f"{where}.photo"),
        text_of(fields.get("class"), f"{where}.class"),
        _box(fields.get("box"), f"{where}.box"),
        _point(fields.get("point"), f"{where}.point"),
        _areas(fields.get("add"), f"{where}.add"),
        _areas(fields.get("remove"), f"{where}.remove"),
    )


def read_named(body: Any) -> tuple[str, SearchRequest]:
    """A name, and the object that is to have it, from JSON. Raises RequestError."""
    fields = _fields(body, "the request", {"name", "object", "also", "not"})
    name = text_of(fields.get("name"), "name")
    if name is None:
        raise RequestError("name: must be text")
    return name, read_search({key: value for key, value in fields.items() if key != "name"})


def read_object_name(body: Any) -> tuple[str, int]:
    """A name for a recurring object, and the id of the photo that is its cover, from JSON.

    Raises RequestError.
    """
    fields = _fields(body, "the request", {"name", "cover"})
    name, cover = text_of(fields.get("name"), "name"), fields.get("cover")
    if name is None:
        raise RequestError("name: must be text")
    if not isinstance(cover, int) or not _is_id(cover):
        raise RequestError("cover: must be the id of a photo")
    return name, cover


def read_verdicts(body: Any) -> list[tuple[bool, int, Box | None]]:
    """What somebody says of photos, from JSON: whether each shows the object, its id, and where.

    Raises RequestError.
    """
    fields = _fields(body, "the request", {"yes", "no"})
    said: list[tuple[bool, int, Box | None]] = []
    for name in ("yes", "no"):
        for place, one in enumerate(_list(fields.get(name), name, MOST_VERDICTS)):
            where = f"{name}[{place}]"
            asked = _fields(one, where, {"photo", "box"})
            photo = _photo(asked.get("photo"), f"{where}.photo")
            if not isinstance(photo, int):
                raise RequestError(f'{where}.photo: must be {{"id": NUMBER}}')
            said.append((name == "yes", photo, _box(asked.get("box"), f"{where}.box")))
    if not said:
        raise RequestError("yes, no: say something of at least one photo")
    return said


def read_search(body: Any) -> SearchRequest:
    """A search from JSON. Raises RequestError."""
    names = {"object", "also", "not", "top", "folder", "since", "until"}
    fields = _fields(body, "the search", names)
    return SearchRequest(
        read_object(fields.get("object")),
        _objects(fields.get("also"), "also"),
        _objects(fields.get("not"), "not"),
        _top(fields.get("top")),
        text_of(fields.get("folder"), "folder"),
        text_of(fields.get("since"), "since"),
        text_of(fields.get("until"), "until"),
    )


def whole_number(
    parameters: Mapping[str, str], name: str, usual: int, most: int, least: int = 1
) -> int:
    """A parameter of an address, from `least` to `most`. Raises RequestError."""
    text = parameters.get(name)
    if not text:
        return usual
    number = digits(text)
    if number is None or not least <= number <= most:
        raise RequestError(f"{name}: must be a whole number from {least} to {most}")
    return number


def text_of(value: Any, where: str) -> str | None:
    """A text; None where there is none. where: what the errors call it. Raises RequestError."""
    if value is None or value == "":
        return None
    if not _is_text(value):
        raise RequestError(f"{where}: must be text")
    return str(value)


def _fields(body: Any, where: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RequestError(f"{where}: must be a JSON object")
    if unknown := sorted(set(body) - names):
        raise RequestError(
            f"{where}: {unknown[0]!r} is not one of its fields, which are "
            f"{', '.join(sorted(names))}"
        )
    return body


def _photo(value: Any, where: str) -> int | str:
    match value:
        case {"id": int(number), **rest} if not rest and _is_id(number):
            return number
        case {"upload": str(key), **rest} if (
            not rest and _is_text(key) and not key.startswith(NAME_MARK)
        ):
            return key
        case {"name": str(name), **rest} if not rest and _is_text(name):
            return f"{NAME_MARK}{name}"
    raise RequestError(f'{where}: must be {{"id": NUMBER}}, {{"upload": KEY}} or {{"name": NAME}}')


def _is_id(number: int) -> bool:
    return not isinstance(number, bool) and abs(number) < 2**63


def _is_text(value: Any) -> bool:
    """Whether a value is text that any file, option or reply can hold."""
    return isinstance(value, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


def _top(value: Any) -> int:
    if value is None:
        return SearchRequest.top
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_MATCHES:
        raise RequestError(f"top: must be a whole number from 1 to {MOST_MATCHES}")
    return value


def _objects(value: Any, where: str) -> tuple[ObjectRequest, ...]:
    given = _list(value, where, MOST_VIEWS)
    return tuple(read_object(one, f"{where}[{place}]") for place, one in enumerate(given))


def _areas(value: Any, where: str) -> tuple[Box, ...]:
    given = _list(value, where, MOST_AREAS)
    boxes = (_box(one, f"{where}[{place}]") for place, one in enumerate(given))
    return tuple(box for box in boxes if box is not None)


def _list(value: Any, where: str, most: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise RequestError(f"{where}: must be a list of at most {most}")
    return value


def _box(value: Any, where: str) -> Box | None:
    if value is None:
        return None
    x0, y0, x1, y1 = _numbers(value, where, 4)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _point(value: Any, where: str) -> Point | None:
    if value is None:
        return None
    x, y = _numbers(value, where, 2)
    return x, y


def _numbers(value: Any, where: str, count: int) -> list[float]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)
        or not all(abs(n) < 1e9 and math.isfinite(n) for n in value)
    ):
        raise RequestError(f"{where}: must be a list of {count} numbers, in pixels")
    return [float(number) for number in value]

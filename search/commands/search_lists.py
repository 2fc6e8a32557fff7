"""Searches as they are written down: several photos, list files, views of one object."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.errors import WaldoError
from search.query import Query


def read_queries(photos: Iterable[str], pattern: Query) -> Iterator[Query | WaldoError]:
    """The searches meant by PHOTO arguments, each as soon as it can be had.

    photos: photos' paths; text files (`.txt`) with a search a line; "-", which reads such lines
    from standard input as they come. A line is a photo's path, or a JSON object with "photo" and
    "class", "mask", "box" or "point" as they are given to `waldo query`; relative paths are from
    the working directory. pattern: what holds for all that do not say otherwise. A line that cannot
    be understood gives the WaldoError that says why. Raises WaldoError for a list that cannot be
    read.
    """
    for photo in photos:
        if photo == "-":
            yield from _of_lines(sys.stdin, "standard input", pattern)
        elif Path(photo).suffix == ".txt":
            try:
                with Path(photo).open(encoding="utf-8") as file:
                    yield from _of_lines(file, photo, pattern)
            except (OSError, UnicodeDecodeError) as error:
                raise WaldoError(f"{photo}: cannot be read as a list of photos ({error})") from None
        else:
            yield replace(pattern, photo=Path(photo))


def view_of(text: str, class_name: str | None) -> Query:
    """PHOTO[@REGION]: a photo and where in it the object is.

    REGION: X0,Y0,X1,Y1, X,Y, or a mask's file. A path that exists as a whole has no region. Raises
    WaldoError for a region that is none of these.
    """
    photo, at, region = text.rpartition("@")
    if not at or Path(text).exists():
        return Query(Path(text), class_name)
    try:
        numbers = tuple(float(part) for part in region.split(","))
    except ValueError:
        if not Path(region).is_file():
            raise WaldoError(
                f"{text}: {region} is neither X0,Y0,X1,Y1 nor X,Y nor the file of a mask"
            ) from None
        return Query(Path(photo), class_name, mask=Path(region))
    return _with_region(Query(Path(photo), class_name), list(numbers), text)


def _of_lines(lines: Iterable[str], source: str, pattern: Query) -> Iterator[Query | WaldoError]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _of_line(line.strip(), pattern)
        except WaldoError as error:
            yield WaldoError(f"{source}, line {number}: {error}")


def _of_line(line: str, pattern: Query) -> Query:
    if not line.startswith("{"):
        return replace(pattern, photo=Path(line))
    try:
        given: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise WaldoError(f"not JSON ({error})") from None
    unknown = set(given) - {"photo", "class", "mask", "box", "point"}
    if unknown or not isinstance(given.get("photo"), str):
        raise WaldoError('must hold "photo", and may hold "class", "mask", "box" and "point"')
    query = replace(pattern, photo=Path(given["photo"]))
    for field in ("class", "mask"):
        if not isinstance(given.get(field), str | None):
            raise WaldoError(f'"{field}" must be text')
    if given.get("class") is not None:
        query = replace(query, class_name=given["class"])
    own = [field for field in ("mask", "box", "point") if given.get(field) is not None]
    if own:
        query = replace(query, mask=None, box=None, point=None)
    if "mask" in own:
        query = replace(query, mask=Path(given["mask"]))
    for field, count in (("box", 4), ("point", 2)):
        if field in own:
            numbers = given[field]
            if not isinstance(numbers, list) or len(numbers) != count:
                raise WaldoError(f'"{field}" must be a list of {count} numbers')
            query = _with_region(query, numbers, f'"{field}"')
    return query


def _with_region(query: Query, numbers: list[Any], what: str) -> Query:
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise WaldoError(f"{what}: must be numbers")
    match [float(number) for number in numbers]:
        case [x0, y0, x1, y1]:
            return replace(query, box=(x0, y0, x1, y1))
        case [x, y]:
            return replace(query, point=(x, y))
    raise WaldoError(f"{what}: must be X0,Y0,X1,Y1 or X,Y, in pixels")

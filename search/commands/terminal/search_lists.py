"""Searches as people and programs write them down: paths, list files, PHOTO@REGION."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from features.errors import WaldoError
from indexer.photo_lists import STANDARD_INPUT, ListLine, is_list, read_lines
from search.commands.terminal.option_values import box_of
from search.query import Query, photo_of


def is_one_search(photos: Sequence[str]) -> bool:
    """Whether PHOTO arguments are a single photo."""
    return len(photos) == 1 and not _is_list(photos[0])


def read_queries(photos: Iterable[str], pattern: Query) -> Iterator[Query | WaldoError]:
    """The searches that PHOTO arguments mean, each as soon as it is known.

    photos: paths of photos; lists of searches, one per line (`indexer.photo_lists`); pipes and "-",
    standard input, whose lines are read as they arrive. A line in JSON has "photo" and any of
    "class", "mask", "box" and "point", as `waldo query` takes them. Relative paths start at the
    working directory. pattern: what holds for searches that say nothing else. A list or line that
    cannot be read yields the WaldoError that says why.
    """
    for photo in photos:
        if not _is_list(photo):
            yield replace(pattern, photo=photo_of(photo))
        elif Path(photo) == STANDARD_INPUT:
            yield from _of_lines(sys.stdin.buffer, "standard input", pattern)
        else:
            with Path(photo).open("rb") as file:
                yield from _of_lines(file, photo, pattern)


def with_others(query: Query, also: Iterable[str] | None, unlike: Iterable[str] | None) -> Query:
    """A query with the photos of `--also` and `--not`. Raises WaldoError as `view_of`."""
    return replace(
        query,
        also=tuple(view_of(text, query.class_name) for text in also or ()),
        unlike=tuple(view_of(text, query.class_name) for text in unlike or ()),
    )


def view_of(text: str, class_name: str | None) -> Query:
    """The photo and the region that PHOTO[@REGION] means; @NAME is a named object.

    REGION is X0,Y0,X1,Y1, or X,Y, or the file of a mask. Where the whole text is a path that
    exists, it has no region. Raises WaldoError for a region of another form.
    """
    photo, _, region = text.rpartition("@")
    if not photo or Path(text).exists():
        return Query(photo_of(text), class_name)
    try:
        numbers = tuple(float(part) for part in region.split(","))
    except ValueError:
        if not Path(region).is_file():
            raise WaldoError(
                f"{text}: {region} is neither X0,Y0,X1,Y1 nor X,Y nor the file of a mask"
            ) from None
        return Query(photo_of(photo), class_name, mask=Path(region))
    return _with_region(Query(photo_of(photo), class_name), list(numbers), text)


def _is_list(photo: str) -> bool:
    try:
        return is_list(Path(photo))
    except OSError:
        return False  # told as a photo that cannot be read


def _of_lines(file: BinaryIO, source: str, pattern: Query) -> Iterator[Query | WaldoError]:
    lines = read_lines(file)
    while True:
        try:
            line = next(lines, None)
        except WaldoError as error:
            yield WaldoError(f"{source}: cannot be read as a list of photos: {error}")
            return
        if line is None:
            return
        try:
            yield _of_line(line, pattern)
        except WaldoError as error:
            yield WaldoError(f"{source}, line {line.number}: {error}")


def _of_line(line: ListLine, pattern: Query) -> Query:
    given = line.fields()
    unknown = set(given) - {"photo", "class", "mask", "box", "point"}
    if unknown:
        raise WaldoError('must hold "photo", and may hold "class", "mask", "box" and "point"')
    photo = Path(given["photo"])
    if line.note and not photo.exists():
        raise WaldoError(f"{photo}: no such file{line.note}")
    query = replace(pattern, photo=photo_of(photo))
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
            return replace(query, box=box_of(x0, y0, x1, y1))
        case [x, y]:
            return replace(query, point=(x, y))
    raise WaldoError(f"{what}: must be X0,Y0,X1,Y1 or X,Y, in pixels")

"""Answers as the page and scripts get them: JSON, in pixels of the upright photos."""

import shlex
from collections.abc import Iterator
from typing import Any

from indexer.collection import Collection
from search.answer import Answer
from search.presentation.answer_json import answer_json
from search.presentation.sureness import sureness
from search.query import NAME_MARK
from search.reference import Reference
from search.server.listing import shown
from search.server.objects import cell_boxes
from search.server.request_bodies import ObjectRequest, SearchRequest
from search.server.uploads import Uploads


def reference_json(reference: Reference) -> dict[str, Any]:
    """What was taken as the object in a photo."""
    frame = reference.maps.frame
    return {
        "cells": cell_boxes(reference.cells, frame),
        "box": reference.box,
        "width": frame.width,
        "height": frame.height,
    }


def search_json(
    key: str,
    asked: SearchRequest,
    answer: Answer,
    reader: Collection,
    uploads: Uploads,
    notes: list[str],
) -> dict[str, Any]:
    """The answer to a search. key: names the search in later requests. notes: lines for people."""
    told = answer_json(answer)
    told["query"] |= {"photo": None, "mask": None}  # files of the server's own, if uploaded
    for view in (*told["query"].get("also", []), *told["query"].get("not", [])):
        view.pop("photo")
        view.pop("mask", None)
    for match, row in zip(answer.matches, told["matches"], strict=True):
        ids = reader.copies_of(match.id)
        row["path"] = shown(match.path)
        row["word"] = sureness(match)
        row["reference"] = match.reference
        row["width"], row["height"] = match.frame.width, match.frame.height
        row["copies"] = [
            {"id": record.id, "path": shown(record.path)} for record in reader.photos(ids)
        ]
    return {
        "search": key,
        **told,
        "references": [
            {**reference_json(reference), "photo": _photo_of(reference, reader, uploads)}
            for reference in answer.references
        ],
        "n_photos": answer.n_photos,
        "notes": [*notes, *answer.damaged],
        "command": query_command(asked, reader),
    }


def _photo_of(
    reference: Reference, reader: Collection, uploads: Uploads
) -> dict[str, int | str] | None:
    """How requests name the photo of a reference; None where it is not here any more."""
    content = reference.maps.content_hash
    number = reader.find(content)
    if number is not None:
        return {"id": number}
    key = uploads.key_of(content)
    return None if key is None else {"upload": key}


def pairs_json(answer: Answer, rank: int) -> dict[str, Any]:
    """The cell pairs behind the score of a match."""
    return {
        "pairs": [
            {"query": pair.query, "match": pair.match, "similarity": pair.similarity}
            for pair in answer.matches[rank - 1].pairs
        ]
    }


def query_command(asked: SearchRequest, reader: Collection) -> str | None:
    """The command that asks for the same; None where areas were edited, which it cannot say.

    A photo that was sent is called PHOTO.jpg.
    """
    views = (asked.object, *asked.also, *asked.unlike)
    if any(view.add or view.remove for view in views):
        return None
    return shlex.join(_arguments(asked, reader))


def _arguments(asked: SearchRequest, reader: Collection) -> Iterator[str]:
    yield from ("waldo", "query", _file(asked.object, reader))
    if asked.object.class_name is not None:
        yield from ("--class", asked.object.class_name)
    for option, numbers in (("--box", asked.object.box), ("--point", asked.object.point)):
        if numbers is not None:
            yield from (option, _numbers(numbers))
    for option, views in (("--also", asked.also), ("--not", asked.unlike)):
        for view in views:
            region = view.box or view.point
            place = "" if region is None else f"@{_numbers(region)}"
            yield from (option, f"{_file(view, reader)}{place}")
    for option, text in (
        ("--path", asked.folder),
        ("--since", asked.since),
        ("--until", asked.until),
    ):
        if text is not None:
            yield from (option, text)
    yield from ("--top", str(asked.top), "--index", shown(reader.index_dir.absolute()))


def _file(view: ObjectRequest, reader: Collection) -> str:
    if isinstance(view.photo, int):
        [record] = reader.photos([view.photo])
        return shown(record.path)
    return view.photo if view.photo.startswith(NAME_MARK) else "PHOTO.jpg"


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.10g}" for value in values)

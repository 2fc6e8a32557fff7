"""Results as tables and lines for people; and as JSON, but for answers (`search.presentation`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.diffusion.presets import PRESETS, Preset
from features.vision.vision_presets import VISION_PRESETS, VisionPreset
from indexer.codec.quality import DEFAULT_QUALITY, bytes_per_photo
from search.presentation.sureness import CHANCE, likelihood, sureness

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from indexer.codec.machine import Machine
    from search.answer import Answer, Match
    from search.query import Query
    from search.segmentation.mask_files import Failure, NotHere, WrittenMask

# What is said of a photo whose boxes are those of an earlier content.
CHANGED = "changed since it was indexed"


def answer_table(answer: "Answer") -> "Table":
    """The matches, one per row: ranks, scores, boxes and paths. For files and pipes."""
    table = _table("rank", "score", "probability", "confidence", "recall")
    table.add_column("box", no_wrap=True)
    table.add_column("photo", overflow="fold")
    for match in answer.matches:
        table.add_row(
            str(match.rank),
            f"{match.score:.4f}",
            "" if match.probability is None else f"{match.probability:.2f}",
            "" if match.confidence is None else f"{match.confidence:.2f}",
            f"{match.recall_score:.4g}",
            _box(match.box),
            _with_note(match, in_one_line(str(match.path))),
        )
    return table


def terminal_table(answer: "Answer", everything: bool) -> "Table":
    """The matches for people: how sure each is in words, and paths as seen from here.

    everything: also those that may be chance, below a line. `folded_line` counts them otherwise.
    """
    table = _table("rank")
    table.add_column("how sure", no_wrap=True)
    table.add_column("box", no_wrap=True)
    table.add_column("photo", overflow="fold")
    told = [(match, sureness(match)) for match in answer.matches]
    chance = [(match, word) for match, word in told if word == CHANCE]
    _add_rows(table, [(match, word) for match, word in told if word != CHANCE])
    if chance and everything:
        table.add_row("", "\u2500" * len(CHANCE), "", "what follows may be chance")
        _add_rows(table, chance)
    return table


def _add_rows(table: "Table", told: "list[tuple[Match, str]]") -> None:
    for match, word in told:
        likely = likelihood(match)
        table.add_row(
            str(match.rank),
            f"{word:<{len(CHANCE)}} {'' if likely is None else f'{likely:.2f}'}",
            _box(match.box),
            _with_note(match, shown_path(match.path)),
        )


def folded_line(answer: "Answer") -> str | None:
    """A line that counts the matches that may be chance; None where there are none."""
    count = sum(sureness(match) == CHANCE for match in answer.matches)
    if count == 0:
        return None
    if count < sum(not match.is_query for match in answer.matches):
        return f"and {count} more that may be chance: --all"
    return f"nothing found that is more than chance; the best {count} all the same: --all"


def taken_line(answer: "Answer") -> str:
    """What was taken as the object: the box around it, in each of its photos."""
    places = (
        f"{_box(reference.box)} of {in_one_line(view.photo.name)}"
        for view, reference in zip(answer.query.views, answer.references, strict=True)
    )
    query = answer.query
    what = query.of_name or f"the {query.class_name or 'object'}"
    return f"taken as {what}: {'; '.join(places)}"


def shown_path(path: Path) -> str:
    """A path as seen from the working directory, where it lies below it; in one line."""
    here = Path.cwd()
    return in_one_line(str(path.relative_to(here) if path.is_relative_to(here) else path))


def in_one_line(name: str) -> str:
    """A file name; one with line breaks and the like is quoted, as shells and `ls` do."""
    if name.isprintable():
        return name
    return f"$'{''.join(map(_escaped, name))}'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    # A byte that is no Unicode stands in names as a lone surrogate.
    is_byte = 0xDC80 <= ord(letter) <= 0xDCFF
    return f"\\x{ord(letter) - 0xDC00:02x}" if is_byte else ascii(letter)[1:-1]


def _table(*numbers: str) -> "Table":
    """A table without lines, which begins with columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _with_note(match: "Match", path: str) -> "Text":
    """A path, and what else there is to know of the photo."""
    from rich.text import Text

    copies = len(match.copies)
    notes = (
        (copies > 0, f"and {copies} {'copy' if copies == 1 else 'copies'}"),
        (len(match.boxes) > 1, f"{len(match.boxes)} places"),
        (match.is_query, "the query photo"),
        (match.changed, CHANGED),
    )
    note = "".join(f"  ({text})" for applies, text in notes if applies)
    # As Text, because brackets in a file name are not markup.
    return Text(f"{path}{note}")


def _box(box: "tuple[int, int, int, int] | None") -> str:
    return ",".join(map(str, box or ()))


def describe_object(query: "Query") -> str:
    """The object of a query in words, e.g. 'the dog in a.jpg', 'the object in a.jpg' or 'Rex'."""
    if (name := query.of_name or query.asked_name) is not None:
        return name
    return f"the {query.class_name or 'object'} in {query.photo.name}"


def not_found_line(answer: "Answer") -> str:
    """A line that says that no photo reaches the confidence that was asked for."""
    best = answer.best_confidence
    return (
        f"not found: none of {answer.n_photos} photos, other than the query photo itself, reaches "
        f"confidence {answer.options.min_confidence:g}"
        + ("" if best is None else f"; the best has {best:.2f}")
    )


def segment_json(
    query: "Query", found: "Sequence[WrittenMask | NotHere]", failures: "Sequence[Failure]"
) -> dict[str, Any]:
    """Masks as JSON-ready values; boxes and areas are in pixels of the upright photo."""
    from search.presentation.answer_json import view_json
    from search.segmentation.mask_files import NotHere

    return {
        "reference": {**view_json(query), "class": query.class_name},
        "masks": [
            {
                "path": str(one.path),
                "mask": str(one.mask),
                "overlay": str(one.overlay),
                "box": one.box,
                "area": one.area,
                "score": one.score,
                "confidence": one.confidence,
            }
            for one in found
            if not isinstance(one, NotHere)
        ],
        "not_here": [
            {"path": str(one.path), "score": one.score, "confidence": one.confidence}
            for one in found
            if isinstance(one, NotHere)
        ],
        "failed": [{"path": str(one.path), "reason": one.reason} for one in failures],
    }


def segment_table(found: "Sequence[WrittenMask | NotHere]") -> "Table":
    """The photos, one per row: scores, how likely each shows the object, areas in percent of the
    photo, boxes, and paths as seen from here. A photo without the object has no mask.
    """
    from rich.text import Text

    from search.segmentation.mask_files import NotHere

    table = _table("score", "confidence", "area")
    table.add_column("box", no_wrap=True)
    table.add_column("photo", overflow="fold")
    table.add_column("mask", overflow="fold")
    for one in found:
        where = ("", "not here", "")
        if not isinstance(one, NotHere):
            where = (f"{100 * one.share:.1f} %", _box(one.box), shown_path(one.mask))
        area, box, mask = where
        table.add_row(
            f"{one.score:.4f}",
            "" if one.confidence is None else f"{one.confidence:.2f}",
            *(area, box, Text(shown_path(one.path)), Text(mask)),
        )
    return table


def bundled_words() -> list[str]:
    """The nouns whose words the bundled model all knows, sorted."""
    from features.diffusion.presets import bundled_path
    from features.diffusion.vocabulary import nouns
    from features.diffusion.words import Vocabulary

    known = Vocabulary(bundled_path(PRESETS["tiny"].source) / "tokenizer").words
    assert known is not None  # its tokenizer has a list of words
    return [noun for noun in nouns() if known.issuperset(noun.split())]


def info_lines(described: dict[str, Any]) -> list[str]:
    """What an index holds, line by line, in words; the JSON has every number."""
    from rich.filesize import decimal

    size, per_photo = decimal(described["bytes_on_disk"]), decimal(described["bytes_per_photo"])
    parts = f", a fleet of {described['parts']} parts" if "parts" in described else ""
    lines = [
        f"{described['index']}: {described['photos']:,} photos, {size}{parts}",
        f"model {described['model']}, stored in the quality {described['codec']}: "
        f"{per_photo} per photo",
        *(f"photos from {in_one_line(source)}" for source in described["sources"]),
        *(
            f"descriptor {column['name']}: of {column['photos']:,} photos"
            for column in described["descriptors"]
        ),
    ]
    if "weights" in described:
        lines.append("the weights of the score fused were fitted to these photos")
    if failed := described["failures"]:
        where = Path(described["index"], "failures.jsonl")
        files = "1 file" if failed == 1 else f"{failed:,} files"
        lines.append(f"{files} could not be read; which and why: {where}")
    if described["compact_has_work"]:
        lines.append("`waldo compact` frees space, or merges small files")
    return lines


def models_json() -> list[dict[str, Any]]:
    """The presets as JSON-ready values."""
    return [
        {
            "name": preset.name,
            "source": preset.source,
            "licence": preset.licence,
            "download": preset.download,
            "map": [preset.grid, preset.grid, preset.dim],
            "bytes_per_photo": bytes_per_photo(DEFAULT_QUALITY, preset.grid, preset.dim),
            "flops_per_photo": preset.flops,
            "settings": preset.settings.as_dict(),
        }
        for preset in _models()
    ]


def _models() -> list[Preset | VisionPreset]:
    return [*PRESETS.values(), *VISION_PRESETS.values()]


def models_table() -> "Table":
    """The presets as a table."""
    from rich.filesize import decimal
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "map", "per photo", "TFLOP", "size", "licence", "source"):
        table.add_column(column, no_wrap=column != "source", overflow="fold")
    for preset in _models():
        shape = f"{preset.grid} x {preset.grid} x {preset.dim}"
        stored = decimal(bytes_per_photo(DEFAULT_QUALITY, preset.grid, preset.dim))
        cost = f"{preset.flops / 1e12:.2g}"
        about = preset.download, preset.licence, preset.source
        table.add_row(preset.name, shape, stored, cost, *about)
    return table


def machine_lines(machine: "Machine") -> list[str]:
    """What a machine is, line by line."""
    has = [name for name, present in machine.features.items() if present]
    return [
        f"CPU: {machine.cpu}, {machine.cores} cores",
        f"instructions: {', '.join(has) or 'not known'}",
        f"torch uses: {machine.capability}, {machine.threads} threads",
        f"GPU: {machine.gpu or 'none'}",
        f"kernels: {', '.join(machine.kernels)}",
    ]


def machine_table(machine: "Machine") -> "Table":
    """The kernel that is chosen for each shape, and each kernel's milliseconds for 1,000 cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("levels", "vectors", "numbers", "chosen"):
        table.add_column(column, no_wrap=True)
    for name in machine.kernels:
        table.add_column(f"{name} ms", justify="right", no_wrap=True)
    for one in machine.choices:
        times = (one.milliseconds.get(name) for name in machine.kernels)
        table.add_row(
            one.levels,
            str(one.vectors),
            str(one.numbers),
            one.kernel,
            *("" if time is None else f"{time:.2f}" for time in times),
        )
    return table

"""Sweeps: a method with every combination of some settings, shown as a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from features.errors import WaldoError
from features.models import MapExtractor

if TYPE_CHECKING:
    from rich.table import Table

# The timesteps of a sweep that names none: all over the noise, but the pure noise.
_TIMESTEPS = (0, 101, 201, 301, 401, 501, 601, 701, 801, 901)
_MOST_AXES = 2
# Background and text of a heatmap's cell, from the lowest to the highest value: one hue that gets
# darker, so that it can be read without colours too.
_SHADES = (
    *("black on #eff3ff", "black on #c6dbef", "black on #9ecae1"),
    *("black on #6baed6", "white on #3182bd", "white on #08519c"),
)


@dataclass(frozen=True)
class Axis:
    """A setting that is swept over. values: as they stand in a method's name."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """One method with every combination of values. axes: one or two. names: of the methods, by the
    values of all axes.
    """

    method: str
    axes: tuple[Axis, ...]
    names: dict[tuple[str, ...], str]


def find_sweeps(
    methods: Sequence[str], asked: Sequence[str], extractor: MapExtractor
) -> list[Sweep]:
    """The sweep of each method.

    asked: KEY=VALUE,VALUE... (values without commas), or KEY alone for all blocks or usual
    timesteps, once or twice. Raises WaldoError for anything else.
    """
    axes = tuple(_axis(text, extractor) for text in asked)
    keys = [axis.key for axis in axes]
    if len(axes) > _MOST_AXES or len(set(keys)) < len(keys):
        raise WaldoError(f"sweep {', '.join(asked)}: one or two different settings can be swept")
    if not methods:
        raise WaldoError(f"sweep {', '.join(asked)}: name the method that it is for")
    return [
        Sweep(
            method,
            axes,
            {
                values: "@".join([method, *map("=".join, zip(keys, values, strict=True))])
                for values in product(*(axis.values for axis in axes))
            },
        )
        for method in methods
    ]


def sweep_json(sweep: Sweep, report: dict[str, Any]) -> dict[str, Any]:
    """A sweep as JSON: its axes, and mAP by their values, as a list per value of the first axis."""
    found = {values: report["methods"][name]["mAP"] for values, name in sweep.names.items()}
    best = max(found, key=lambda values: found[values])
    first, *rest = sweep.axes
    rows = [
        [found[value, *others] for others in product(*(axis.values for axis in rest))]
        for value in first.values
    ]
    return {
        "method": sweep.method,
        "axes": [{"key": axis.key, "values": list(axis.values)} for axis in sweep.axes],
        "mAP": rows,
        "best": sweep.names[best],
    }


def sweep_title(sweep: dict[str, Any]) -> str:
    """What the grid of a sweep shows, in a line. sweep: as `sweep_json` gives it."""
    keys = " by ".join(axis["key"] for axis in sweep["axes"])
    return f"{sweep['method']}: mAP of each {keys}; best: {sweep['best']}"


def sweep_table(sweep: dict[str, Any]) -> "Table":
    """The grid of a sweep for rich's console: mAP in percent, darker where it is higher."""
    from rich.table import Table

    first, *others = sweep["axes"]
    columns = others[0]["values"] if others else ["mAP"]
    table = Table(box=None, pad_edge=False)
    table.add_column(first["key"], overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    every = [value for row in sweep["mAP"] for value in row]
    for value, row in zip(first["values"], sweep["mAP"], strict=True):
        table.add_row(value, *(_shaded(cell, min(every), max(every)) for cell in row))
    return table


def _axis(text: str, extractor: MapExtractor) -> Axis:
    key, equals, given = text.partition("=")
    if equals:
        values = tuple(dict.fromkeys(v.strip() for v in given.split(",") if v.strip()))
    else:
        values = _all_values(text, key, extractor)
    if not values:
        raise WaldoError(f"sweep {text}: names no value; write KEY=VALUE,VALUE")
    return Axis(key, values)


def _all_values(text: str, key: str, extractor: MapExtractor) -> tuple[str, ...]:
    if key == "block":
        if not extractor.blocks:
            raise WaldoError(f"sweep {text}: {extractor.model.name} has no block to choose")
        return extractor.blocks
    if key == "timestep":
        return tuple(map(str, _TIMESTEPS))
    raise WaldoError(f"sweep {text}: name its values, as in {key}=VALUE,VALUE")


def _shaded(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 1.0
    shade = _SHADES[min(int(share * len(_SHADES)), len(_SHADES) - 1)]
    return f"[{shade}] {100 * value:.1f} [/]"

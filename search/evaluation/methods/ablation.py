"""Ablations: methods whose features are extracted with other settings, or by another model."""

from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from features.diffusion.presets import FeatureSettings
from features.errors import ModelError, WaldoError
from features.models import MapExtractor, find_extractor

_TYPES = get_type_hints(FeatureSettings)
_KEYS = (*(field.name for field in fields(FeatureSettings)), "model", "tau")

# The largest value of a setting, if there is one, and the smallest if that is not 1.
_LARGEST = {"timestep": 999, "steps": 999}
_SMALLEST = {"timestep": 0}


@dataclass(frozen=True)
class Changes:
    """What an ablation changes.

    settings: fields of `FeatureSettings` and their values, sorted by name. tau: the threshold of
    PDM Eq. 3, which then selects the object by its class name; None for the model's own rule.
    model: the model, as `find_extractor` takes it; None for the one that is evaluated.
    """

    settings: tuple[tuple[str, int | str], ...] = ()
    tau: float | None = None
    model: str | None = None


def parse_changes(method: str, changes: list[str], by_class: bool) -> Changes:
    """Read the KEY=VALUE parts of a method's name.

    by_class: whether the method selects the object by its class name alone. Raises WaldoError for
    an unknown key, an invalid value, and tau where the method does not use it.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if key not in _KEYS or not equals:
            raise WaldoError(
                f"method {method}: {change!r} is no change of features; write @KEY=VALUE, with "
                f"KEY one of {', '.join(_KEYS)}"
            )
        if key in values:
            raise WaldoError(f"method {method}: gives {key} twice")
        values[key] = _value(method, key, text)
    tau = values.pop("tau", None)
    if tau is not None and not by_class:
        raise WaldoError(
            f"method {method}: tau selects the object by its class name, which only methods by "
            f"class do, such as late-by-class@tau={tau:g}"
        )
    model = values.pop("model", None)
    return Changes(tuple(sorted(values.items())), tau, model)


def changed_extractor(method: str, changes: Changes, extractor: MapExtractor) -> MapExtractor:
    """The extractor with the changes of a method; itself where they change nothing.

    Raises WaldoError where another model cannot be found or used, where the model cannot extract
    features so, and where a change has no effect.
    """
    try:
        if changes.model is not None:
            extractor = find_extractor(
                changes.model, str(extractor.device), batch_size=extractor.batch_size
            )
        return extractor.changed(**dict(changes.settings))
    except ModelError as error:
        raise WaldoError(f"method {method}: {error}") from None


def _value(method: str, key: str, text: str) -> int | float | str:
    if key == "tau":
        return _tau(method, text)
    if key == "model":
        return text
    if _TYPES[key] is int:
        return _whole_number(method, key, text)
    allowed = get_args(_TYPES[key])
    if allowed and text not in allowed:
        raise WaldoError(f"method {method}: {key} must be one of {', '.join(allowed)}")
    return text


def _tau(method: str, text: str) -> float:
    try:
        tau = float(text)
    except ValueError:
        tau = -1.0
    if not 0.0 <= tau < 1.0:
        raise WaldoError(f"method {method}: tau must be a number from 0 to 1, less than 1")
    return tau


def _whole_number(method: str, key: str, text: str) -> int:
    least, most = _SMALLEST.get(key, 1), _LARGEST.get(key)
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise WaldoError(f"method {method}: {key} must be a whole number {span}")
    return number

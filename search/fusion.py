"""How much each kind of evidence counts in the scores that fuse them."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from indexer.errors import IndexDamagedError
from search.scores import NO_CLASS, FusionWeights

# Chosen on the validation scenes (docs/scores.md); other models were not measured.
_CHOSEN = {"tiny": FusionWeights(class_evidence=0.00025)}


def default_weights(model: str) -> FusionWeights:
    """A model's weights, by its name, where nothing was fitted to a collection."""
    return _CHOSEN.get(model, NO_CLASS)


def stored_weights(stored: Mapping[str, float] | None, index_dir: Path) -> FusionWeights | None:
    """The weights that an index keeps, or None where nothing was fitted to it.

    Raises IndexDamagedError where they are not just what `FusionWeights` has, each a number from 0.
    """
    if stored is None:
        return None
    names = {field.name for field in fields(FusionWeights)}
    if (
        not isinstance(stored, Mapping)
        or stored.keys() != names
        or not all(isinstance(value, int | float) for value in stored.values())
        or not all(math.isfinite(value) and value >= 0 for value in stored.values())
    ):
        raise IndexDamagedError(
            f"{index_dir}: {stored!r} are no fusion weights that this waldo knows; run `waldo "
            f"fit-weights` again for this index, or update waldo"
        )
    return FusionWeights(**stored)

"""How scores that fuse several kinds of evidence weigh each of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.collection import Collection
from indexer.errors import IndexDamagedError

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", "torch.Tensor", NDArray[np.float32])


@dataclass(frozen=True)
class FusionWeights:
    """Weights of evidence beside likeness in appearance, which has weight 1 (docs/scores.md).

    agreement: how far the object's parts agree on its place, see `scores.agreement`.
    class_evidence: how clearly the photo shows the class, see `scores.class_evidence`.
    """

    agreement: float = 0.3
    class_evidence: float = 0.0


DEFAULT_WEIGHTS = FusionWeights()

# By the model's name, chosen on the validation scenes (docs/scores.md).
_MODEL_WEIGHTS = {"tiny": FusionWeights(class_evidence=0.00025)}


def default_weights(model: str) -> FusionWeights:
    """A model's weights, by its name, for a collection that none were fitted to."""
    return _MODEL_WEIGHTS.get(model, DEFAULT_WEIGHTS)


def weights_of(reader: Collection) -> FusionWeights:
    """The weights that searches of an index use. Raises as `stored_weights`."""
    stored = stored_weights(reader.weights, reader.index_dir)
    return stored or default_weights(str(reader.fingerprint["model"]))


def stored_weights(stored: Mapping[str, float] | None, index_dir: Path) -> FusionWeights | None:
    """The weights that were fitted to an index, or None where none were.

    Raises IndexDamagedError unless they have exactly the fields of `FusionWeights`, each a finite
    number from 0.
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


def fuse(
    weights: FusionWeights, likeness: Values, agreement: Values, class_evidence: Values | float
) -> Values:
    """One score of three kinds of evidence, of any shape."""
    consistent = (likeness + weights.agreement * agreement) / (1 + weights.agreement)
    return consistent + weights.class_evidence * class_evidence

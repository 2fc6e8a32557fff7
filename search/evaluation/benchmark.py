"""What a benchmark is, whatever its folder looks like."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps


@dataclass(frozen=True)
class BenchmarkQuery:
    """One question with its true answer.

    photo: the reference photo's file. region: gives the object's cells (grid, grid) bool from the
    reference's maps, by one rule for every method. class_name: of the object, or None.
    relevant, ignored: (n_gallery,) bool; ignored photos are left out of the ranking.
    confusable: the gallery holds other instances of the class.
    """

    photo: Path
    region: Callable[[FeatureMaps], NDArray[np.bool_]]
    class_name: str | None
    relevant: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    confusable: bool


@dataclass(frozen=True)
class Benchmark:
    """A labelled gallery with its questions.

    protocol: its name. gallery: photo files. gallery_classes: the class of each, or None where
    not every photo has one; methods that need class names cannot run then. queries: at least one.
    """

    protocol: str
    gallery: list[Path]
    gallery_classes: list[str] | None
    queries: list[BenchmarkQuery]

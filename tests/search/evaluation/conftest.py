"""What an evaluation counts does not depend on the size of the maps."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def evaluations_of_small_maps(small_maps: None) -> None:
    """`waldo evaluate` extracts small maps."""

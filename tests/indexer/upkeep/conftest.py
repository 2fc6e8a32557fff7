"""A fresh copy, for each test, of the photos and the index that its module has `made`."""

from pathlib import Path

import pytest

from tests.helpers.stores import restored


@pytest.fixture
def work(made: Path) -> Path:
    return restored(made)


@pytest.fixture
def photos(work: Path) -> Path:
    return work / "photos"


@pytest.fixture
def index(work: Path) -> Path:
    return work / "index"

"""One server of the sample collection for all tests that only ask it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.servers.server import Client, running_server


@pytest.fixture(scope="session")
def server(sample_index: Path) -> Iterator[Client]:
    with running_server(sample_index) as client:
        yield client

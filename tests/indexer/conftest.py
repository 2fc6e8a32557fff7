"""Indexes of a few photos are made by the hundred here, so what only costs time is left out."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_faiss_thread() -> Iterator[None]:
    """Starting threads would take longer than all the work."""
    import faiss

    count = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(count)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has written stays when it is killed; only a power cut needs fsync."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

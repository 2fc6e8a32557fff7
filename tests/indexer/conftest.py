"""Indexes of a few photos are made by the hundred here."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_faiss_thread() -> Iterator[None]:
    """For so few vectors, starting threads takes longer than all the work."""
    import faiss

    count = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(count)

"""Indexes and searches are as on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.codec.quality import QUALITIES
from indexer.reader import IndexReader
from search.index import Index
from search.query import Query, SearchOptions
from search.scoring.scores import SCORES
from tests.helpers.models.twins import CAT, CAT_BOX, PHOTOS, Twins, index, opened


@pytest.mark.parametrize("quality", QUALITIES)
def test_an_index_holds_what_it_holds_by_the_cpu(
    cuda: None,
    tiny_twins: Twins,
    indexes: Callable[[str], Path],
    tmp_path: Path,
    quality: str,
) -> None:
    with (
        IndexReader.open(index(tiny_twins.gpu, tmp_path / "index", quality)) as there,
        IndexReader.open(indexes(quality)) as here,
    ):
        assert there.fingerprint == here.fingerprint
        maps = [reader.decode(reader.read_maps(reader.ids)) for reader in (there, here)]
        for mine, theirs in zip(*maps, strict=True):
            assert float((mine - theirs).abs().mean()) < 0.02 * float(theirs.abs().mean())


def scores_by_path(
    index: Index, query: Query, options: SearchOptions
) -> dict[Path, tuple[float, NDArray[np.float32]]]:
    answer = index.search(query, options)
    return {match.path: (match.score, match.heatmap) for match in answer.matches}


@pytest.mark.parametrize("quality", QUALITIES)
def test_searches_answer_as_on_the_cpu(
    cuda: None, tiny_twins: Twins, indexes: Callable[[str], Path], quality: str
) -> None:
    """With the maps read from the disk, and with those that the GPU's memory holds."""
    query = Query(CAT, "cat", box=CAT_BOX)
    more = replace(
        query,
        class_name=None,
        also=(Query(PHOTOS[0], box=(20, 20, 150, 150)),),
        unlike=(Query(PHOTOS[1], point=(60, 60)),),
    )
    # A score sees decoded maps, whatever their quality was and wherever they come from.
    names = SCORES if quality == "standard" else ("consistent",)
    with (
        opened(indexes(quality), tiny_twins.cpu) as here,
        opened(indexes(quality), tiny_twins.gpu) as by_disk,
        opened(indexes(quality), tiny_twins.gpu, "gpu") as by_memory,
    ):
        for asked, name in [*((query, name) for name in names), (more, "consistent")]:
            options = SearchOptions(score=name)
            expected = scores_by_path(here, asked, options)
            scale = max(abs(value) for value, _ in expected.values())
            for there in (by_disk, by_memory) if name == "consistent" else (by_disk,):
                found = scores_by_path(there, asked, options)
                assert found.keys() == expected.keys()
                for path, (score, heat) in expected.items():
                    # A GPU compares cells in half precision, so some tokens choose another cell.
                    near = pytest.approx(score, abs=0.05 * scale)
                    assert found[path][0] == near, (name, path)
                    np.testing.assert_allclose(found[path][1], heat, atol=0.01 * np.abs(heat).max())

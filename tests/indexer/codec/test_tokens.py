"""The best cells, chosen in int8 and in floats, against float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec import tokens
from indexer.codec.codec import Codec
from indexer.codec.tokens import TokenMap

SIDE, DIM = 12, 300
CELLS = SIDE**2


@pytest.fixture(params=["int8", "float"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tokens, "_has_int8", lambda: request.param == "int8")
    return str(request.param)


def shapes() -> torch.Tensor:
    """Landscape, portrait and square photos in turn, and one with scattered valid cells."""
    valid = torch.zeros(7, SIDE, SIDE, dtype=torch.bool)
    sizes = [(12, 7), (5, 12), (12, 12), (12, 3), (9, 12), (1, 12)]
    for photo, (rows, columns) in zip(valid, sizes, strict=False):
        photo[:rows, :columns] = True
    valid[6] = torch.from_numpy(np.random.default_rng(0).random((SIDE, SIDE)) < 0.3)
    return valid.flatten(1)


def encoded_map(quality: str, seed: int) -> tuple[TokenMap, torch.Tensor]:
    """Encoded maps of 7 photos, and vectors that resemble some of their cells."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(DIM) + 3) ** -0.5
    frame = Frame(SIDE, SIDE, SIDE, SIDE)
    maps = [
        FeatureMaps(*(rng.normal(size=(2, SIDE, SIDE, DIM)) * spread + spread).astype(np.float16),
                    frame, str(n))
        for n in range(7)
    ]  # fmt: skip
    codec = Codec.fit(quality, maps, np.empty((0, DIM), np.float32))
    stacked = (np.stack([getattr(m, name) for m in maps]) for name in ("appearance", "semantic"))
    appearance, _ = codec.tokens(torch.from_numpy(codec.encode(*stacked)))
    cells = appearance.decode().flatten(0, 1)[torch.from_numpy(rng.integers(0, 7 * CELLS, 20))]
    noise = rng.normal(size=cells.shape) * spread
    return appearance, (cells + torch.from_numpy(noise)).float()


def exact_cosines(appearance: TokenMap, vectors: torch.Tensor) -> torch.Tensor:
    """(n, m, cells) float64."""
    mean = appearance.mean.double()
    cells, wanted = appearance.decode().double() - mean, vectors.double() - mean
    if appearance.basis is not None:  # a token has a part that no cell can have
        wanted = wanted / wanted.norm(dim=1, keepdim=True)
        return torch.einsum("md,ncd->nmc", wanted, cells / cells.norm(dim=2, keepdim=True))
    return torch.cosine_similarity(wanted[None, :, None], cells[:, None], dim=3)


@pytest.mark.parametrize("quality", ["none", "high", "standard", "small"])
def test_the_best_cells_of_photos_of_many_shapes(
    engine: str, quality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = shapes()
    appearance, vectors = encoded_map(quality, 3)
    cosines, cells = appearance.best(vectors, valid)
    assert (cosines.shape, cells.shape) == ((7, 20), (7, 20))
    assert valid.gather(1, cells).all()
    expected = exact_cosines(appearance, vectors)
    chosen = expected.gather(2, cells[:, :, None]).squeeze(2)
    assert (cosines - chosen).abs().max() < 1e-4
    most = expected.masked_fill(~valid[:, None], -2.0).amax(dim=2)
    assert (most - chosen).max() < (0.015 if engine == "int8" and quality != "none" else 1e-5)
    assert (most - chosen).mean() < 0.0005
    # The choice does not depend on which photos are compared together.
    monkeypatch.setattr(tokens, "_BLOCK_NUMBERS", 1)
    alone = appearance.best(vectors, valid)
    assert torch.equal(alone[1], cells)
    assert torch.allclose(alone[0], cosines, atol=1e-6)


def as_if_encoded(cells: torch.Tensor) -> TokenMap:
    k = cells.shape[2]
    return replace(TokenMap.plain(cells, torch.zeros(k)), basis=torch.eye(k))


def test_padding_never_wins_where_all_cosines_are_negative(engine: str) -> None:
    rng = np.random.default_rng(5)
    cells = torch.from_numpy(rng.normal(size=(7, CELLS, 16)) * 0.1 - 1).float()
    valid = shapes()
    cells[~valid] = 1.0
    vectors = torch.ones(3, 16)
    cosines, chosen = as_if_encoded(cells).best(vectors, valid)
    assert valid.gather(1, chosen).all()
    assert (cosines < 0).all()


def test_of_equal_cells_the_first_wins(engine: str) -> None:
    valid = shapes()
    cells = torch.ones(7, CELLS, 8)
    _, chosen = as_if_encoded(cells).best(torch.ones(2, 8), valid)
    assert torch.equal(chosen, valid.int().argmax(dim=1)[:, None].expand(7, 2))


@pytest.mark.parametrize("k", [1, 8, 80])
def test_int8_products_of_large_maps_do_not_overflow(k: int) -> None:
    cells = 128 * 128
    levels = torch.zeros(1, cells, k)
    levels[:, :, 0] = -1.0
    levels[0, -2, 0] = 1.0
    wanted = torch.zeros(2, k)
    wanted[0, 0], wanted[1, :] = 1.0, k**-0.5
    product = tokens._Int8Product(wanted, 1, cells)
    valid = torch.ones(1, cells, dtype=torch.bool)
    assert product.best(levels, valid).tolist() == [[cells - 2, cells - 2]]
    valid[0, -2] = False  # padding that would win by far
    assert product.best(levels, valid).tolist() == [[0, 0]]

"""The best cells, chosen by every kernel, against float64."""

import numpy as np
import pytest
import torch

from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec import tokens
from indexer.codec.codec import Codec
from indexer.codec.kernels import KERNELS, LARGEST_LOSS
from indexer.codec.tokens import TokenMap

SIDE, DIM = 12, 300
CELLS = SIDE**2


@pytest.fixture(params=[name for name, kernel in KERNELS.items() if kernel.is_offered()])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WALDO_KERNEL", request.param)
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
    kernel: str, quality: str, monkeypatch: pytest.MonkeyPatch
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
    exact = kernel == "float32" or quality == "none"
    assert (most - chosen).max() < (1e-4 if exact else LARGEST_LOSS)
    assert (most - chosen).mean() < 0.0005
    # The choice does not depend on which photos are compared together.
    monkeypatch.setattr(tokens, "_BLOCK_NUMBERS", 1)
    alone = appearance.best(vectors, valid)
    assert torch.equal(alone[1], cells)
    assert torch.allclose(alone[0], cosines, atol=1e-6)


def encoded_cells(levels: np.ndarray, dtype: torch.dtype) -> TokenMap:
    """Tokens that are their own levels, of a type that kernels take."""
    k = levels.shape[2]
    coded = torch.from_numpy(levels).to(dtype)
    ones = torch.ones(coded.shape[:2])
    return TokenMap(coded, lambda some: some, lambda: ones, torch.zeros(k), torch.eye(k))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
def test_padding_never_wins_where_all_cosines_are_negative(kernel: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    cells = rng.integers(-15, 0, size=(7, CELLS, 16))
    valid = shapes()
    cells[~valid] = 15
    cosines, chosen = encoded_cells(cells, dtype).best(torch.ones(3, 16), valid)
    assert valid.gather(1, chosen).all()
    assert (cosines < 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
def test_of_equal_cells_the_first_wins(kernel: str, dtype: torch.dtype) -> None:
    valid = shapes()
    cells = np.ones((7, CELLS, 8))
    _, chosen = encoded_cells(cells, dtype).best(torch.ones(2, 8), valid)
    assert torch.equal(chosen, valid.int().argmax(dim=1)[:, None].expand(7, 2))


def naive_losses(levels: np.ndarray, wanted: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """How much worse than the best each chosen cell is, in cosine, one by one, (n, m) float64.

    levels: (n, cells, k). wanted: (m, k). A zero vector has cosine 0 with all.
    """
    losses = np.zeros(chosen.shape)
    for photo, token in np.ndindex(chosen.shape):
        vector = wanted[token].astype(np.float64)
        cosines = [
            float(cell @ vector) / max(np.sqrt(float(cell @ cell) * float(vector @ vector)), 1e-12)
            for cell in levels[photo].astype(np.float64)
        ]
        losses[photo, token] = max(cosines) - cosines[chosen[photo, token]]
    return losses


def largest_levels(dtype: torch.dtype) -> int:
    return {torch.int8: 63, torch.int16: 255, torch.float32: 1000}[dtype]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
@pytest.mark.parametrize("k", [16, 63, 96, 1280])
@pytest.mark.parametrize("kind", ["any", "extreme", "zero", "opposite"])
def test_a_chosen_cell_is_worse_than_the_best_by_the_stated_bound(
    kernel: str, dtype: torch.dtype, k: int, kind: str
) -> None:
    rng = np.random.default_rng(k)
    most = largest_levels(dtype)
    levels = rng.integers(-most, most + 1, size=(2, 50, k))
    wanted = rng.normal(size=(6, k)).astype(np.float32)
    wanted[4] = np.eye(k)[3] + 0.004 * rng.random(k)  # too coarse for 8 bits
    if kind == "extreme":  # all products of a pair are as large as they can be
        levels = np.where(rng.random(levels.shape) < 0.5, -most, most)
        levels[0, :10] = most * np.sign(wanted[np.arange(10) % 6])
        levels[1, :20] = most
        wanted[5] = 1
    if kind == "zero":
        levels[:, ::2] = 0
        wanted[2] = 0
    if kind == "opposite":
        levels, wanted = -np.abs(levels) - (dtype == torch.float32), np.abs(wanted)
        levels = np.maximum(levels, -most)
    valid = torch.ones(2, 50, dtype=torch.bool)
    cosines, chosen = encoded_cells(levels, dtype).best(torch.from_numpy(wanted), valid)
    losses = naive_losses(levels, wanted, chosen.numpy())
    assert losses.max() < (2e-4 if kernel == "float32" else LARGEST_LOSS)
    assert cosines.isfinite().all()


@pytest.mark.parametrize("k", [1, 8, 80])
def test_products_of_large_maps_do_not_overflow(kernel: str, k: int) -> None:
    cells = 128 * 128
    levels = np.zeros((1, cells, k))
    levels[:, :, 0] = -1
    levels[0, -2, 0] = 1
    wanted = torch.zeros(2, k)
    wanted[0, 0], wanted[1, :] = 1.0, 1.0
    maps = encoded_cells(levels, torch.int8)
    valid = torch.ones(1, cells, dtype=torch.bool)
    assert maps.best(wanted, valid)[1].tolist() == [[cells - 2, cells - 2]]
    valid[0, -2] = False  # padding that would win by far
    assert maps.best(wanted, valid)[1].tolist() == [[0, 0]]

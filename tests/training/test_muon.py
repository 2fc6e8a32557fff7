"""Muon against a singular value decomposition."""

import numpy as np
import pytest
import torch

from training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_orthogonal_keeps_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=shape)).float()
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.35
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    likeness = (orthogonal(matrix).float() * nearest).sum() / (
        orthogonal(matrix).float().norm() * nearest.norm()
    )
    assert likeness > 0.95


def test_a_step_of_a_kernel_is_that_of_its_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 3, 3, generator=generator).requires_grad_()
    matrix = kernel.detach().clone().flatten(1).requires_grad_()
    gradient = torch.randn(4, 3, 3, 3, generator=generator)
    for weight, own in ((kernel, gradient), (matrix, gradient.flatten(1))):
        optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
        for _ in range(2):
            weight.grad = own.clone()
            optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_muon_finds_a_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(64, 6, generator=generator), torch.randn(6, 3, generator=generator)
    weight = torch.zeros(6, 3, requires_grad=True)
    optimizer = Muon([weight], lr=0.0, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (inputs @ (weight - wanted)).pow(2).mean().backward()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), wanted, atol=0.02, rtol=0)

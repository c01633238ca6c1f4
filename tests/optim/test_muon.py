"""Muon as numbers, and beside torch's own, which takes one matrix at a time."""

import pytest
import torch
from torch import nn

from lora_studio.optim.muon import Muon, orthogonal


def test_a_diagonal_becomes_nearly_orthogonal():
    """Each singular value s of M / ‖M‖ goes through five times 3.4445 s − 4.775 s³ + 2.0315 s⁵. A matrix of zeros, as
    the first gradients of A's are, stays one.
    """
    matrices = torch.stack([torch.diag(torch.tensor([3.0, 4.0])), torch.zeros(2, 2)])
    expected = torch.tensor([0.6, 0.8])
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    assert torch.allclose(orthogonal(matrices)[0].diagonal(), expected, atol=1e-5)
    assert ((expected > 0.68) & (expected < 1.2)).all() and not orthogonal(matrices)[1].any()


@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (6, 6)])
def test_ten_steps_are_torchs(shape):
    """Two matrices of a shape together; torch iterates in bfloat16, to about a hundredth."""
    source = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(2, *shape, generator=source), torch.randn(10, 2, *shape, generator=source)
    ours, theirs = ([nn.Parameter(one.clone()) for one in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.1, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for gradient in gradients:
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, one in zip(parameters, gradient, strict=True):
                parameter.grad = one.clone()
            optimizer.step()
    moved = [(torch.stack(list(found)) - start).detach() for found in (ours, theirs)]
    assert (moved[0] - moved[1]).norm() / moved[1].norm() < 0.02


def test_vectors_go_by_adamw_and_convolutions_as_matrices():
    """A magnitude of DoRA, and rank 1, have one direction only: orthogonalized, each step would be as long as any."""
    shapes = {"magnitude": (5,), "of a convolution": (1, 5, 1, 1), "rank 1": (1, 7), "factor": (2, 3, 3, 3)}
    source = torch.Generator().manual_seed(0)
    parameters = {name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in shapes.items()}
    copies = {name: nn.Parameter(each.detach().clone()) for name, each in parameters.items() if name != "factor"}
    optimizer, adamw = Muon(parameters.values(), lr=0.1), torch.optim.AdamW(copies.values(), lr=0.1, weight_decay=0)
    for _ in range(3):
        for name, each in parameters.items():
            each.grad = torch.randn(each.shape, generator=source)
            if name in copies:
                copies[name].grad = each.grad.clone()
        before = parameters["factor"].detach().clone()
        optimizer.step()
        adamw.step()
    assert all(torch.allclose(parameters[name], copies[name], atol=1e-6) for name in copies)
    step = (parameters["factor"] - before).detach().flatten(1) / (0.1 * 0.2 * 27**0.5)
    assert all(0.68 < float(value) < 1.2 for value in torch.linalg.svdvals(step))

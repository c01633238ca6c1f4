"""Main directions of inputs and gradients, found by products alone: literal small matrices, and a convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_studio.models.sketch import Sketch, watching


def sketched(layer, batches, gradients=False, wanted=2):
    """What is found of ``batches`` of inputs, or of pairs with the loss's gradients by the outputs."""
    sketch = Sketch(layer, gradients, wanted, torch.Generator().manual_seed(0))
    for batch in batches:
        sketch.look(*batch)
    sketch.turn()
    for batch in batches:
        sketch.look(*batch)
    return sketch.directions()


def same_lines(found, expected):
    """Whether two rows or columns of unit length are one direction each, up to their signs."""
    return torch.allclose((found * expected).sum(-1).abs(), torch.ones(len(expected)), atol=1e-4)


def test_inputs_along_one_line_have_one_direction():
    """(3, 4) and its multiples, in two batches: 0.6, 0.8; the sum of squares is 25 · (1 + 4 + 9)."""
    found = sketched(nn.Linear(2, 5), [(torch.tensor([[3.0, 4.0], [6.0, 8.0]]),), (torch.tensor([[[-9.0, -12.0]]]),)])
    assert found.strengths.tolist() == pytest.approx([350.0]) and found.right.shape == (1, 2)
    assert same_lines(found.right, torch.tensor([[0.6, 0.8]]))


def test_directions_come_by_their_strength():
    found = sketched(nn.Linear(3, 1), [(torch.diag(torch.tensor([1.0, 3.0, 2.0])),)])
    assert found.strengths.tolist() == pytest.approx([9.0, 4.0, 1.0], rel=1e-4)
    assert same_lines(found.right, torch.eye(3)[[1, 2, 0]])


def test_a_gradient_is_the_sum_of_its_batches():
    """DᵀX = [[8, 0], [0, 3]] of two batches: directions (1, 0) and (0, 1) on both sides."""
    x, d = torch.eye(2), torch.tensor([[4.0, 0.0], [0.0, 1.5]])
    found = sketched(nn.Linear(2, 2), [(x, d), (x, d)], gradients=True)
    assert found.strengths.tolist() == pytest.approx([8.0, 3.0], rel=1e-4)
    assert same_lines(found.right, torch.eye(2)) and same_lines(found.left.T, torch.eye(2))


@pytest.mark.parametrize("more", [{}, {"stride": 2}, {"dilation": 2}], ids=str)
def test_a_convolution_sees_patches(more):
    """As if its input were unfolded into rows, at any stride, dilation and padding."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1, **more)
    x = torch.randn(2, 2, 6, 5)
    rows = F.unfold(x, 3, padding=1, **more).mT.flatten(0, 1)
    found = sketched(layer, [(x,)], wanted=4)
    _, S, Vt = torch.linalg.svd(rows, full_matrices=False)
    assert torch.allclose(found.strengths, S**2, rtol=1e-3) and same_lines(found.right[:4], Vt[:4])
    layer(x).square().sum().backward()
    d = 2 * layer(x).detach()
    found = sketched(layer, [(x, d)], gradients=True)
    expected = torch.linalg.svd(layer.weight.grad.flatten(1), full_matrices=False)
    assert torch.allclose(found.strengths, expected.S, rtol=1e-3) and same_lines(found.left.T, expected.U.T)


def test_a_layer_is_watched_forward_and_backward_and_not_changed_by_it():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    x, plain = torch.randn(4, 3), layer(torch.ones(1, 3))
    sketch = Sketch(layer, True, 2, torch.Generator().manual_seed(0))
    for turn in range(2):
        with watching({"layer": layer}, {"layer": sketch}):
            layer(x).square().sum().backward()
        if not turn:
            sketch.turn()
    found, expected = sketch.directions(), layer.weight.grad / 2
    assert torch.allclose(found.left * found.strengths @ found.right, expected, atol=1e-4)
    assert torch.equal(layer(torch.ones(1, 3)), plain) and not layer._forward_hooks


def test_a_layer_that_is_never_called_has_no_directions():
    found = sketched(nn.Linear(3, 2), [], gradients=True)
    assert found.left.shape == (2, 0) and found.right.shape == (0, 3) and not len(found.strengths)
    found = sketched(nn.Linear(3, 2), [(torch.zeros(1, 3),)])
    assert not len(found.strengths)

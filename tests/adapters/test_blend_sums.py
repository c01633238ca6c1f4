"""Model Stock, the geometric median and slerp: small vectors with the result worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lora_studio.adapters import Adapter, Factors, blend, combine_sums, recipe
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, Q, factors

KEY = f"{BLOCK}.attn1.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"


def one(*row: float, path: str = Q) -> Adapter:
    """An adapter whose ΔW at ``path`` is that row."""
    M = torch.tensor([row])
    return Adapter({path: Factors(torch.eye(M.shape[1]), M, float(M.shape[1]))})


def made(adapters, method, weights=None, blocks=None, **more) -> Adapter:
    weights = weights or [1.0] * len(adapters)
    blocks = blocks or [{}] * len(adapters)
    ingredients = [
        {"name": f"A{index}", "weight": weight, "blocks": block}
        for index, (weight, block) in enumerate(zip(weights, blocks, strict=True))
    ]
    return blend.blend(recipe.blend(method=method, ingredients=ingredients, **more), adapters).adapter


def close(adapter: Adapter, *row: float, path: str = Q) -> bool:
    return torch.allclose(adapter.factors[path].delta(), torch.tensor([row]), atol=1e-6)


def test_model_stock_of_two_at_sixty_degrees():
    """cos θ = 1/2, so t = 2 · 1/2 / (1 + 1/2) = 2/3 of the average (3, √3)/2 · 2."""
    pair = [one(2.0, 0.0), one(1.0, math.sqrt(3))]
    assert close(made(pair, "stock"), 1.0, math.sqrt(3) / 3)
    assert close(made(pair, "stock", [2.0, 2.0]), 2.0, 2 * math.sqrt(3) / 3), "twice the strength gives twice the blend"


def test_model_stock_is_the_foot_of_the_perpendicular_from_the_middle_of_many():
    """What the paper derives it from: the base weight at 0, N points on a shell around a centre far away in other
    dimensions. The blend is the point of the line from 0 through the average that is nearest to the centre.
    """
    N, centre = 4, np.array([1.0, 0, 0, 0, 0])
    points = np.stack([centre + 3 * np.eye(5)[index + 1] for index in range(N)])
    mean = points.mean(0)
    t = combine_sums.model_stock(points @ points.T)[0] * N
    assert t == pytest.approx(float(centre @ mean / (mean @ mean)))


def test_model_stock_of_opposites_leaves_the_base_model():
    pair = [one(1.0, 0.0), one(-1.0, 0.5)]
    with pytest.raises(AdapterError, match="Model Stock leaves nothing"):
        made(pair, "stock")
    for adapter in pair:
        adapter.factors[KEY] = one(1.0, 0.0).factors[Q]
    kept = made(pair, "stock")
    assert set(kept.factors) == {KEY} and close(kept, 1.0, 0.0, path=KEY)


def test_the_median_of_a_triangle_is_its_fermat_point():
    """All angles below 120°: the point that sees each side at 120°. Here (0, 1/√3) of an equilateral triangle."""
    corners = [one(-1.0, 0.0), one(1.0, 0.0), one(0.0, math.sqrt(3))]
    assert close(made(corners, "median"), 0.0, 1 / math.sqrt(3))


def test_the_median_may_be_one_of_the_points():
    """An angle of 120° or more: its corner. Weiszfeld's own step divides by zero there."""
    assert close(made([one(-1.0, 0.0), one(0.0, 0.1), one(1.0, 0.0)], "median"), 0.0, 0.1)
    assert close(made([one(0.0, 1.0), one(1.0, 1.0), one(9.0, 1.0)], "median"), 1.0, 1.0)
    line = np.array([3.0, 1, 1, -5])
    assert combine_sums.geometric_median(np.outer(line, line)) @ line == pytest.approx(1)


def test_a_step_off_a_point_that_is_not_the_median():
    """The mean is the first point, where the iteration begins; the median is to its right."""
    points = np.array([[0.0, 0], [4, 1], [4, -1], [-8, 0], [6, 0], [-6, 0]])
    c = combine_sums.geometric_median(points @ points.T)
    best = min(np.linalg.norm(points - (x, 0), axis=1).sum() for x in np.linspace(-2, 5, 7001))
    assert np.linalg.norm(points - c @ points, axis=1).sum() == pytest.approx(best, abs=1e-6)


def test_one_bad_adapter_hardly_moves_the_median():
    good, bad = [one(1.0, 0.0), one(1.0, 0.1), one(1.0, -0.1)], one(-50.0, 70.0)
    found = made([*good, bad], "median").factors[Q].delta()[0]
    assert torch.dist(found, torch.tensor([1.0, 0.0])) < 0.15


def test_slerp_turns_at_the_length():
    """A quarter turn from (2, 0) to (0, 2): at one third it stands at 30° and is still 2 long."""
    pair = [one(2.0, 0.0), one(0.0, 2.0)]
    assert close(made(pair, "slerp", share=1 / 3), math.sqrt(3), 1.0)
    assert close(made(pair, "slerp", share=0.0), 2.0, 0.0) and close(made(pair, "slerp", share=1.0), 0.0, 2.0)
    assert close(made([one(1.0, 0.0), one(0.0, 3.0)], "slerp"), math.sqrt(2), math.sqrt(2)), "lengths 1 and 3 give 2"


@pytest.mark.parametrize("second", [(2.0, 0.0), (-1.0, 0.0)])
def test_slerp_without_an_arc_is_a_straight_line(second):
    """Of parallels, and of opposites, which every arc joins."""
    assert close(made([one(1.0, 0.0), one(*second)], "slerp", share=0.25), 0.75 + 0.25 * second[0], 0.0)


def test_slerp_takes_two():
    with pytest.raises(AdapterError, match="Slerp takes 2 adapters; 3 of this blend"):
        made([one(1.0)] * 3, "slerp")
    with pytest.raises(AdapterError, match="Slerp takes 2 adapters; 1 of this blend"):
        made([one(1.0)] * 2, "slerp", [1.0, 0.0])


def test_a_module_that_an_adapter_leaves_alone_counts_as_no_change():
    """A slerp gives it in full, or from the wrong side; a median forgets that most adapters leave it alone."""
    first, second = one(1.0, 0.0), one(0.0, 1.0)
    second.factors[KEY] = one(4.0, 0.0).factors[Q]
    assert close(made([first, second], "slerp", share=0.25), 1.0, 0.0, path=KEY)
    assert close(made([second, first], "slerp", share=0.25), 3.0, 0.0, path=KEY)
    assert KEY not in made([first, first, second], "median").factors
    blocks = [{}, {"down_blocks.0": 0.0}]
    assert KEY not in made([first, second], "slerp", blocks=blocks).factors


def test_convolutions_and_mixed_ranks_come_out_exact():
    pair = [Adapter({CONV: factors(name, 8, 6, rank, alpha=1.5, kernel=3)}) for name, rank in (("a", 2), ("b", 3))]
    a, b = (adapter.factors[CONV].delta() for adapter in pair)
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    angle = math.acos(cosine)
    turn, length = math.sin(angle / 2) / math.sin(angle), (a.norm() + b.norm()) / 2
    expected = turn * length * (a / a.norm() + b / b.norm())
    assert torch.allclose(made(pair, "slerp").factors[CONV].delta(), expected, atol=1e-5)

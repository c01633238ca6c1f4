"""Blends against peft's ``add_weighted_adapter`` on the same two files."""

import math
import warnings
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils
from torch import nn

from lora_studio import adapters
from lora_studio.adapters import blend, combine, recipe
from tests.adapters.adapter_samples import drawn

LAYER, WIDTH, RANK = "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q", 320, 4


class Pair:
    """Two adapters of rank 4 and scales 1 and 2: in a peft model, and as the studio reads the folders that peft
    saved.
    """

    def __init__(self, folder):
        root, *_ = modules = [nn.Module() for _ in LAYER.split(".")]
        *inner, last = LAYER.split(".")
        for above, name, below in zip(modules, inner, modules[1:], strict=False):
            above.add_module(name, below)
        modules[-1].add_module(last, nn.Linear(WIDTH, WIDTH, bias=False))
        config = partial(LoraConfig, r=RANK, target_modules=[last], init_lora_weights=False)
        self.model = get_peft_model(root, config(lora_alpha=RANK), adapter_name="a")
        self.model.add_adapter("b", config(lora_alpha=2 * RANK))
        self.layer = self.model.base_model.model.get_submodule(LAYER)
        for name in "ab":
            self.layer.lora_A[name].weight.data = drawn(f"{name} down", (RANK, WIDTH))
            self.layer.lora_B[name].weight.data = drawn(f"{name} up", (WIDTH, RANK))
        self.model.save_pretrained(folder, selected_adapters=["a", "b"])
        self.read = [adapters.read(folder / name) for name in "ab"]

    def theirs(self, kind, weights, rank=None, density=None, seed=0):
        torch.manual_seed(seed)
        if "mixed" in self.model.peft_config:
            self.model.delete_adapter("mixed")
        self.model.add_weighted_adapter(
            ["a", "b"], list(weights), "mixed", combination_type=kind, svd_rank=rank, density=density
        )
        return self.layer.get_delta_weight("mixed").detach()

    def ours(self, method, weights, rank=0, **more):
        parts = [{"name": name, "weight": weight} for name, weight in zip("ab", weights, strict=True)]
        made = blend.blend(recipe.blend(method=method, ingredients=parts, rank=rank, **more), self.read)
        return made.adapter.factors[f"unet.{LAYER}"].delta()

    def plain(self, weights):
        return sum(
            weight * self.layer.get_delta_weight(name).detach() for name, weight in zip("ab", weights, strict=True)
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a base model without a name
        return Pair(tmp_path_factory.mktemp("pair"))


def off(one, other) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("weights", [(1, 1), (0.7, -0.4)])
@pytest.mark.parametrize(
    ("method", "kind", "rank", "more"),
    [
        ("exact", "cat", 0, {}),
        ("svd", "svd", 6, {}),
        ("dare", "dare_linear_svd", 6, {"density": 1.0}),
        ("prune", "magnitude_prune_svd", 6, {"density": 1.0}),
    ],
)
@pytest.mark.filterwarnings("ignore:The density 1.0")
def test_sums_and_the_nearest_of_a_rank_are_the_same(pair, method, kind, rank, more, weights):
    assert off(pair.ours(method, weights, rank, **more), pair.theirs(kind, weights, rank or None, **more)) < 1e-5


@pytest.mark.parametrize("density", [0.25, 0.5, 0.75])
def test_the_rules_for_entries_are_the_same_on_the_same_entries(density):
    changes = [drawn(name, (8, 64)) for name in ("one", "two", "three")]
    ones = torch.ones(3)
    assert off(combine.ties(changes, density), merge_utils.ties(changes, ones, density)) < 1e-6
    assert off(combine.prune(changes, density), merge_utils.magnitude_prune(changes, ones, density)) < 1e-6
    mean = sum(combine.dare(changes, density, torch.Generator().manual_seed(seed)) for seed in range(400)) / 400
    theirs = sum(merge_utils.dare_linear(changes, ones, density) for _ in range(400)) / 400
    error = math.sqrt((1 / density - 1) / 400)
    assert (
        off(mean, sum(changes))
        == pytest.approx(off(theirs, sum(changes)), rel=0.15)
        == pytest.approx(
            error * math.sqrt(sum(float(C.square().sum()) for C in changes) / float(sum(changes).square().sum())),
            rel=0.15,
        )
    )


@pytest.mark.parametrize(
    ("method", "kind", "tolerance"), [("prune", "magnitude_prune_svd", 0.15), ("ties", "ties_svd", 0.5)]
)
def test_entries_of_the_shared_basis_are_others_than_those_of_the_weight(pair, method, kind, tolerance):
    """Stated: how far the results at rank 6 may be from each other. From the sum both are equally far, to a tenth."""
    ours, theirs = (pair.ours(method, (1, 1), 6, density=0.7), pair.theirs(kind, (1, 1), 6, density=0.7))
    assert off(ours, theirs) < tolerance
    assert off(ours, pair.plain((1, 1))) == pytest.approx(off(theirs, pair.plain((1, 1))), abs=0.1)


def test_dare_moves_as_far_from_the_sum_as_pefts_until_that_is_trimmed(pair):
    """Dropped entries of the whole ΔW are noise of full rank, which trimming to a rank takes away again. In the shared
    basis it has the rank of the sum, and stays: what DARE does to the adapters is not undone.
    """
    plain = pair.plain((1, 1))

    def mean(make):
        return sum(off(make(seed), plain) for seed in range(3)) / 3

    size = math.sqrt(sum(float(pair.layer.get_delta_weight(name).detach().square().sum()) for name in "ab")) / float(
        plain.norm()
    )
    whole = mean(lambda seed: pair.theirs("dare_linear_svd", (1, 1), WIDTH, 0.5, seed))
    assert mean(lambda seed: pair.ours("dare", (1, 1), density=0.5, seed=seed)) == pytest.approx(size, rel=0.05)
    assert whole == pytest.approx(size, rel=0.05)
    assert mean(lambda seed: pair.ours("dare", (1, 1), 8, density=0.5, seed=seed)) == pytest.approx(size, rel=0.05)
    assert mean(lambda seed: pair.theirs("dare_linear_svd", (1, 1), 8, 0.5, seed)) < 0.4 * size

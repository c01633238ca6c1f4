"""Blends: literal matrices with the result worked out by hand, exactness for any mixture, recipes that repeat."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_studio.adapters import Adapter, Factors, blend, block_names, combine, read, recipe, write
from lora_studio.errors import AdapterError, SettingsError
from tests.adapters.adapter_samples import BLOCK, TE, Q, assert_same, drawn, factors, small

KEY = f"{BLOCK}.attn1.to_k"
SDXL = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"


def mixed(adapters, weights, method="exact", blocks=None, **more) -> blend.Blended:
    ingredients = [
        {"name": f"A{index}", "weight": weight, "blocks": blocks or {}} for index, weight in enumerate(weights)
    ]
    return blend.blend(recipe.blend(method=method, ingredients=ingredients, **more), adapters)


def one(matrix: list[list[float]], path: str = Q) -> Adapter:
    """An adapter whose ΔW at ``path`` is ``matrix``."""
    M = torch.tensor(matrix)
    return Adapter({path: Factors(torch.eye(M.shape[1]), M, float(M.shape[1]))})


def test_literal_sum():
    """0.5 · [1 2; 3 4] − 2 · [1 0; 0 1]: no cross terms, no squared weights, signs kept."""
    result = mixed([one([[1, 2], [3, 4]]), one([[1, 0], [0, 1]])], [0.5, -2.0])
    assert torch.allclose(result.adapter.factors[Q].delta(), torch.tensor([[-1.5, 1.0], [1.5, 0.0]]), atol=1e-6)


def test_literal_subtraction():
    result = mixed([one([[1, 2], [3, 4]]), one([[1, 2], [0, 0]])], [1.0, 0.5], "subtract")
    assert torch.allclose(result.adapter.factors[Q].delta(), torch.tensor([[0.5, 1.0], [3.0, 4.0]]), atol=1e-6)
    assert result.adapter.metadata["modelspec.title"].split(" ")[1].startswith("-0.5·"), "as it counts"


ranks = st.integers(1, 6)
weights = st.floats(-10, 10, width=32)


@pytest.mark.fault(31, 32)
@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(
        st.tuples(ranks, weights, st.floats(0.125, 64, width=32), st.sampled_from([Q, KEY, None])),
        min_size=1,
        max_size=4,
    )
)
def test_a_blend_is_exact_for_any_ranks_alphas_signs_and_missing_modules(parts):
    """Mixed ranks and alphas, modules that only some have."""
    adapters = []
    for index, (rank, _, alpha, left_out) in enumerate(parts):
        adapters.append(
            Adapter(
                {
                    path: factors(f"{path}{index}", 12, 12, rank, alpha)
                    for path in (Q, KEY, f"{BLOCK}.attn2.to_q")
                    if path != left_out
                }
            )
        )
    given_weights = [weight for _, weight, _, _ in parts]
    if not any(given_weights):
        return
    result = mixed(adapters, given_weights).adapter
    for path in {path for adapter in adapters for path in adapter.factors}:
        present = [
            (adapter.factors[path], weight)
            for adapter, weight in zip(adapters, given_weights, strict=True)
            if path in adapter.factors and weight
        ]
        expected = sum(
            (weight * factors.delta(torch.float64) for factors, weight in present),
            torch.zeros(12, 12, dtype=torch.float64),
        )
        found = (
            result.factors[path].delta(torch.float64)
            if path in result.factors
            else torch.zeros(12, 12, dtype=torch.float64)
        )
        bound = sum(abs(weight) * float(factors.delta().norm()) for factors, weight in present) + 1e-9
        assert float((found - expected).norm()) <= 1e-6 * bound


def test_one_adapter_at_weight_one_is_itself():
    adapter = small()
    for method in ("exact", "svd"):
        assert_same(mixed([adapter], [1.0], method).adapter, adapter)


def test_svd_is_the_nearest_of_its_rank():
    left, right = Adapter({Q: factors("l", 20, 16, 6)}), Adapter({Q: factors("r", 20, 16, 5)})
    result = mixed([left, right], [1.0, -0.5], "svd", rank=4)
    true = left.factors[Q].delta() - 0.5 * right.factors[Q].delta()
    σ = torch.linalg.svdvals(true.double())
    assert result.adapter.factors[Q].rank == 4
    assert result.residual == pytest.approx(float(σ[4:].norm() / σ.norm()), rel=1e-5)
    assert float((result.adapter.factors[Q].delta() - true).norm() / true.norm()) == pytest.approx(
        result.residual, rel=1e-4
    )
    assert mixed([left, right], [1.0, 1.0], "svd").adapter.rank == 6


def test_block_weights():
    adapter = Adapter({Q: factors(Q, 8, 8), KEY: factors(KEY, 8, 8), TE: factors(TE, 8, 8)})
    result = mixed([adapter], [2.0], blocks={"down_blocks.0": 0.5, "text_encoder": 0.0, "down_blocks": 0.25})
    assert set(result.adapter.factors) == {Q, KEY}
    assert torch.allclose(result.adapter.factors[KEY].delta(), adapter.factors[KEY].delta(), atol=1e-5)
    assert torch.allclose(result.adapter.factors[Q].delta(), 0.5 * adapter.factors[Q].delta(), atol=1e-5)


@pytest.mark.parametrize(
    ("path", "block", "kind"),
    [
        (Q, "down_blocks.1", "attn1.to_q"),
        (TE, "text_encoder", "self_attn.q_proj"),
        ("unet.conv_in", "ends", "conv_in"),
        ("unet.mid_block.attentions.0.proj_in", "mid_block", "proj_in"),
        ("unet.up_blocks.2.resnets.0.conv1", "up_blocks.2", "conv1"),
        ("unet.up_blocks.0.upsamplers.0.conv", "up_blocks.0", "up_blocks.0.upsamplers.0.conv"),
    ],
)
def test_blocks_and_kinds(path, block, kind):
    assert block_names.block_of(path) == block and block_names.kind_of(path) == kind


def test_literal_trim():
    """The largest half of the entries stays."""
    assert torch.equal(
        combine.trimmed(torch.tensor([[1.0, -4.0], [3.0, 2.0]]), 0.5), torch.tensor([[0.0, -4.0], [3.0, 0.0]])
    )
    assert torch.equal(combine.trimmed(torch.tensor([[1.0, -4.0]]), 1.0), torch.tensor([[1.0, -4.0]]))


def test_literal_ties():
    """The paper's figure by hand: trim at 1, elect signs by the sum, mean of those that agree."""
    changes = [
        torch.tensor([[2.0, -1.0, 4.0, 0.0]]),
        torch.tensor([[4.0, 3.0, -1.0, 0.0]]),
        torch.tensor([[-1.0, 1.0, -1.0, 5.0]]),
    ]
    assert torch.equal(combine.ties(changes, 1.0), torch.tensor([[3.0, 2.0, 4.0, 5.0]]))


def test_dare_keeps_its_share_enlarged_and_repeats_by_seed():
    C = torch.ones(100, 100)
    first, same, other = (combine.dare([C], 0.25, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0.0, 4.0} and first.mean() == pytest.approx(1.0, abs=0.1)


def test_coordinates_hold_the_whole_change():
    """The thin matrices that TIES and DARE work on are the changes themselves, in another basis."""
    parts = [(factors("a", 20, 15, 3, alpha=1.5), 0.7), (factors("b", 20, 15, 4), -1.2)]
    U, changes = combine.coordinates(parts)
    assert U.shape == (20, 7) and torch.allclose(U.T @ U, torch.eye(7), atol=1e-6)
    for (factor, weight), C in zip(parts, changes, strict=True):
        assert torch.allclose(U @ C, weight * factor.delta(), atol=1e-5)


@pytest.mark.parametrize("method", ["ties", "dare", "prune"])
def test_keeping_every_entry_is_the_sum_or_for_ties_the_mean_of_those_that_agree(method):
    """At density 1 nothing is trimmed or dropped; two copies of one adapter agree everywhere."""
    adapter = Adapter({Q: factors(Q, 16, 12), "unet.down_blocks.0.resnets.0.conv1": factors("c", 8, 8, kernel=3)})
    result = mixed([adapter, adapter], [1.0, 1.0], method, density=1.0).adapter
    for path, one_of_them in adapter.factors.items():
        assert torch.allclose(
            result.factors[path].delta(), (1 if method == "ties" else 2) * one_of_them.delta(), atol=1e-4
        )
        assert result.factors[path].shape == one_of_them.shape


def test_dare_repeats_from_its_recipe(tmp_path):
    """Open recipe, run again: the same bytes."""
    adapters = [Adapter({Q: factors("a", 16, 12)}), Adapter({Q: factors("b", 16, 12)})]
    path = write(mixed(adapters, [1.0, 0.5], "dare", seed=7, density=0.3, rank=3).adapter, tmp_path / "a.safetensors")
    again = blend.blend(recipe.read(read(path).metadata), adapters)
    assert write(again.adapter, tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert not torch.equal(
        mixed(adapters, [1.0, 0.5], "dare", seed=8, density=0.3, rank=3).adapter.factors[Q].down,
        read(path).factors[Q].down,
    )


def test_the_result_tells_its_recipe_and_all_trigger_words():
    ink, wash = (
        Adapter({Q: factors(name, 8, 8)}, {key: name, "sshs_model_hash": "ab" * 32})
        for name, key in (("ink", "modelspec.trigger_phrase"), ("wash", "ss_trigger_words"))
    )
    made = recipe.blend(
        ingredients=[blend.ingredient("Ink", 0.7, ink), blend.ingredient("Wash", -0.3, wash, {"mid_block": 0.0})]
    )
    texts = blend.blend(made, [ink, wash]).adapter.metadata
    assert recipe.read(texts) == made and made.ingredients[0].sha256 == "ab" * 32
    assert texts["modelspec.trigger_phrase"] == "ink, wash" and texts["modelspec.merged_from"] == "Ink, Wash"
    assert texts["modelspec.title"] == "+0.7·Ink -0.3·Wash"


@pytest.mark.parametrize(
    ("path", "stated", "weights", "written", "said"),
    [
        (Q, ("2", "2"), (0.7, 0.3), "2", ""),
        (Q, ("1", "1"), (0.7, 0.3), "1", ""),
        (Q, ("2", "1"), (0.7, 0.0), "2", ""),
        (Q, ("None", "None"), (0.7, 0.3), None, ""),
        (Q, ("2", "1"), (0.7, 0.3), None, "(A0 2, A1 1)"),
        (Q, ("2", "None"), (0.7, 0.3), None, "(A0 2, A1 none)"),
        (SDXL, ("2", "1"), (0.7, 0.3), None, ""),
    ],
)
def test_a_clip_skip_that_all_adapters_state_is_carried(path, stated, weights, written, said):
    """A blend of adapters for an anime model is drawn after the text encoder's last layer."""
    side = 1280 if path == SDXL else 640
    pair = [Adapter({path: factors(path, side, side)}, {"ss_clip_skip": value}) for value in stated]
    made = mixed(pair, list(weights))
    assert made.adapter.metadata.get("ss_clip_skip") == written
    told = f"The adapters do not state the same clip skip {said}, so the blend states none."
    assert [notice.what for notice in made.notices] == ([told] if said else [])


@pytest.mark.fault(29, 32)
def test_what_cannot_be_blended_is_refused_with_names():
    """Weights are bounded; families are named."""
    sd, dora = Adapter({Q: factors(Q, 640, 640)}), Adapter({Q: factors(Q, 8, 8, dora=True)})
    with pytest.raises(AdapterError, match="A0 was made for Stable Diffusion 1.5 and A1 for the built-in starter"):
        mixed([sd, Adapter({Q: factors(Q, 8, 8)})], [1, 1])
    with pytest.raises(AdapterError, match="different shapes at"):
        mixed([Adapter({Q: factors(Q, 8, 8)}), Adapter({Q: factors(Q, 8, 9)})], [1, 1])
    with pytest.raises(AdapterError, match="A0 is a DoRA"):
        mixed([dora, dora], [1, 1])
    with pytest.raises(AdapterError, match="Every weight"):
        mixed([sd, sd], [0, 0])
    with pytest.raises(AdapterError, match="2 adapters and 1 were given"):
        mixed([sd], [1, 1])
    for bad in ({"weight": float("nan")}, {"weight": 11}, {"weight": float("inf")}, {"blocks": {"mid_block": -99}}):
        with pytest.raises(SettingsError):
            recipe.blend(ingredients=[{"name": "A", **bad}])
    for bad in ({"rank": -1}, {"density": 0}, {"method": "linear"}, {"ingredients": []}, {"extra": 1}):
        with pytest.raises(SettingsError):
            recipe.blend(**{"ingredients": [{"name": "A"}], **bad})


def test_an_unmixed_dora_stays_one():
    dora = Adapter({Q: factors(Q, 8, 8, dora=True)})
    assert mixed([dora], [1.0]).adapter.factors[Q].magnitude is not None


@pytest.mark.fault(32)
def test_large_weights_stay_within_half_precision(tmp_path):
    """The scale is shared between both factors: a blend at weight 10 still fits fp16."""
    up = drawn("u", (8, 4))
    adapter = Adapter({Q: Factors(drawn("d", (4, 8)) * 1e-3, up * (10_000 / up.abs().max()), 4.0)})
    result = mixed([adapter, adapter], [10.0, 10.0]).adapter  # the second factor alone would reach 100,000
    assert read(write(result, tmp_path / "a.safetensors", dtype=torch.float16)).rank == 8

"""The adapter under training: where it sits, how it starts, what it is read as."""

from collections import Counter

import pytest
import torch

from lora_studio import models
from lora_studio.adapters import Adapter, block_names, dora
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.models import inject, modules

METHODS = [
    {},
    {"rslora": True, "targets": "qv", "init": "kaiming"},
    {"dropout": 0.5, "targets": "attention+ff+conv"},
    {"method": "dora", "targets": "attention+ff+conv"},
    {"method": "pissa", "targets": "attention+ff+conv", "rank": 40},
    {"method": "full", "targets": "attention+ff+conv"},
    {"method": "adapter-layers", "targets": "attention+ff"},
]
COUNTS = {"qv": 64, "attention": 128, "attention+ff": 128 + 2 * 16 + 2 * 16, "attention+ff+conv": 192 + 44 + 13 + 3 + 3}
"""Modules of the tiny UNet: 16 transformers; 22 resnets, 13 of them with a shortcut; three ways down and up."""


@pytest.fixture
def ask(base):
    """What the model answers to a fixed question."""
    torch.manual_seed(1)
    noisy, when, text = torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), base.encode_text(["a cat", "a dog"])
    return lambda: base.predict(noisy, when, text)


def settings(**more) -> Settings:
    return Settings(**({"rank": 4, "alpha": 3} | more))


@torch.no_grad()
def learn(base) -> None:
    """Stands for some training: every parameter moves."""
    torch.manual_seed(2)
    for parameter in inject.trainable(base).values():
        parameter += 0.05 * torch.randn_like(parameter)


@pytest.mark.parametrize("targets", COUNTS)
def test_targets(base, targets):
    inject.add_adapter(base, settings(targets=targets).adapter, seed=0)
    assert len(inject.trainable(base)) == 2 * COUNTS[targets]
    assert len(inject.read_adapter(base).factors) == COUNTS[targets]


@pytest.mark.parametrize(
    ("blocks", "counted"),
    [
        ([], {"down_blocks.0": 16, "mid_block": 8, "up_blocks.3": 24, "text_encoder": 48}),
        (["mid_block", "up_blocks.3.attentions.0"], {"mid_block": 8, "up_blocks.3": 8, "text_encoder": 48}),
        (["OUT09", "up_blocks.3.attentions.0", "BASE"], {"up_blocks.3": 8, "text_encoder": 48}),
        (["*.attn2", "text_encoder.layers.10-11"], {"down_blocks.0": 8, "mid_block": 4, "text_encoder": 8}),
    ],
    ids=str,
)
def test_only_the_chosen_blocks_are_changed(base, blocks, counted):
    """Four layers each in an attention and a text encoder's layer; what names no block of a part leaves it whole."""
    inject.add_adapter(base, settings(blocks=blocks, train_text=True).adapter, seed=0)
    found = Counter(map(block_names.block_of, inject.read_adapter(base).factors))
    assert {block: found[block] for block in counted} == counted
    assert blocks == [] or "*" in blocks[0] or found.keys() == counted.keys()


BY_BLOCK = ["up_blocks.1 rank=6 alpha=9", "up_blocks.1.attentions.0 rank=2", "mid_block alpha=1 rate=0.5"]


@pytest.mark.parametrize("method", [{}, {"rslora": True}, {"method": "dora"}, {"method": "pissa"}], ids=str)
def test_blocks_have_ranks_and_alphas_of_their_own(base, ask, method):
    """Of two lines that hold a layer the smaller block's counts, value by value. What is read is what was trained."""
    before = ask()
    inject.add_adapter(base, settings(by_block=BY_BLOCK, **method).adapter, seed=0)
    assert torch.allclose(ask(), before, atol=1e-5)
    places = {
        "unet.down_blocks.0.attentions.0": (4, 3),
        "unet.up_blocks.1.attentions.0": (2, 9),
        "unet.up_blocks.1.attentions.1": (6, 9),
        "unet.mid_block.attentions.0": (4, 1),
    }
    layers = inject.layers(base)
    for place, (rank, alpha) in places.items():
        module = layers[f"{place}.transformer_blocks.0.attn1.to_q"].module
        assert (module.r["style"], module.lora_alpha["style"]) == (rank, alpha)
        assert module.scaling["style"] == pytest.approx(alpha / (rank**0.5 if method.get("rslora") else rank))
    learn(base)
    trained, adapter = ask(), inject.read_adapter(base)
    weights = {path: inject.weight(base, path) for path in adapter.factors}
    inject.remove(base)
    plain = dora.as_lora(adapter, weights, 64).adapter
    inject.load_adapters(base, [(plain, 1.0)])
    assert (trained - before).abs().max() > 1e-3 and torch.allclose(ask(), trained, atol=1e-3)


def test_blocks_have_rates_of_their_own(base):
    inject.add_adapter(base, settings(by_block=BY_BLOCK).adapter, seed=0)
    rates = inject.rates(base, settings(by_block=BY_BLOCK).adapter)
    assert set(rates.values()) == {0.5} and len(rates) == 2 * 8
    assert all(name.startswith("unet.mid_block.") and name in inject.trainable(base) for name in rates)


@pytest.mark.parametrize(
    ("change", "said", "do"),
    [
        ({"blocks": ["up_block.1"]}, "no block named up_block.1", "Did you mean up_blocks.1, up_blocks.3, up_blocks.2"),
        ({"blocks": ["sky"]}, "no block named sky", "There are down_blocks.0, down_blocks.1, "),
        ({"blocks": ["up_blocks.0"]}, "include none in up_blocks.0", "Choose more layers"),
        ({"blocks": ["text_encoder.layers.3"]}, "in a text encoder, and none is trained", "Set train_text to on"),
        ({"blocks": ["mid_block"], "by_block": ["up_blocks.1 rank=8"]}, "include none in up_blocks.1", "Choose more"),
        ({"blocks": ["style"]}, "Which blocks carry the style in", "Name blocks yourself"),
    ],
)
def test_a_block_that_cannot_be_changed_is_refused(base, change, said, do):
    with pytest.raises(SettingsError, match=said) as caught:
        inject.add_adapter(base, settings(**change).adapter, seed=0)
    assert caught.value.where == list(change)[-1] and caught.value.do.startswith(do)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_step_zero_is_the_base_model(base, ask, method):
    """A LoRA must not change the model by a bit before it has learned; DoRA and PiSSA not by more than rounding."""
    before = ask()
    inject.add_adapter(base, settings(**method).adapter, seed=0)
    exact = method.get("method") is None
    assert torch.equal(ask(), before) if exact else torch.allclose(ask(), before, atol=1e-5)
    assert all(parameter.dtype == torch.float32 for parameter in inject.trainable(base).values())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_read_is_what_was_trained(base, ask, method):
    """Loaded again on the plain model, the adapter answers as the trained model did; weight 0 is the plain model."""
    before = ask().detach()
    inject.add_adapter(base, settings(**method).adapter, seed=0)
    learn(base)
    base.unet.eval()
    trained = ask().detach()
    assert (trained - before).abs().max() > 1e-2
    with inject.without_adapter(base):
        assert torch.equal(ask(), before)
    assert torch.equal(ask(), trained), "and on again"
    assert all(parameter.requires_grad for parameter in inject.trainable(base).values())
    adapter = inject.read_adapter(base)
    inject.remove(base)
    assert torch.equal(ask(), before) and not inject.trainable(base)
    inject.load_adapters(base, [(adapter, 1.0)])
    assert torch.allclose(ask(), trained, atol=2e-5)
    inject.set_weights(base, [0.0])
    assert torch.equal(ask(), before)


@pytest.mark.parametrize(("more", "alpha"), [({}, 3.0), ({"rslora": True}, 3 * 4**0.5), ({"method": "pissa"}, 6.0)])
def test_alpha_is_right(base, more, alpha):
    """rsLoRA divides by √r, so alpha·√r is read; PiSSA's two halves have twice the rank, so twice alpha: the scale
    stays alpha / r.
    """
    inject.add_adapter(base, settings(**more).adapter, seed=0)
    factors = next(iter(inject.read_adapter(base).factors.values()))
    assert factors.alpha == pytest.approx(alpha)
    assert factors.rank == (8 if more.get("method") == "pissa" else 4)


def test_the_start_depends_on_the_seed_alone(base):
    """Not on what drew random numbers before; and drawing it leaves the global numbers as they were."""
    starts = []
    for noise, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(noise)
        expected = torch.Generator().manual_seed(noise)
        inject.add_adapter(base, settings(method="pissa" if seed == 8 else "lora").adapter, seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=expected))
        starts.append(torch.cat([parameter.detach().flatten() for parameter in inject.trainable(base).values()]))
        inject.remove(base)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize(("init", "deviation"), [("gaussian", 1 / 16), ("kaiming", (1 / 64 / 3) ** 0.5)])
def test_the_first_factor_starts_as_published(base, init, deviation):
    """Gaussian: standard deviation 1 / r. Kaiming with a = √5: uniform on ±1/√in, here in = 64."""
    inject.add_adapter(base, settings(rank=16, init=init).adapter, seed=0)
    found = {
        name: parameter
        for name, parameter in inject.trainable(base).items()
        if "mid_block" in name and "attn1.to_q" in name
    }
    first, second = (
        next(parameter for name, parameter in found.items() if which in name) for which in ("lora_A", "lora_B")
    )
    assert first.std().item() == pytest.approx(deviation, rel=0.1) and not second.any()


def test_pissa_starts_from_the_main_directions(base):
    """(alpha/r) B₀A₀ is the best rank-4 approximation of W: what is left are the other singular values."""
    inject.add_adapter(base, settings(method="pissa").adapter, seed=0)
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    start, weight = base.start.adapters[0].factors[path], inject.weight(base, path)
    rest = torch.linalg.svdvals(weight - start.delta())
    assert torch.allclose(rest[:-4], torch.linalg.svdvals(weight)[4:], rtol=1e-2)
    assert rest[-4:].max() < 1e-4
    learned = inject.read_adapter(base).factors[path]
    assert torch.allclose(learned.delta(), torch.zeros_like(weight), atol=1e-6), "nothing learned, nothing changed"


def test_a_doras_true_change_can_be_had(base):
    """W + ΔW must be the weight that the trained layer works with: norm m, direction W + V."""
    inject.add_adapter(base, settings(method="dora").adapter, seed=0)
    learn(base)
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = base.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    factors = inject.read_adapter(base).factors[path]
    weight = inject.weight(base, path)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), x @ (weight + dora.change(factors, weight)).T, atol=1e-5)
    with pytest.raises(KeyError):
        inject.weight(base, "unet.nowhere")


def test_adapters_stay_exact_on_a_short_base(tiny_folder):
    """A DoRA's magnitude must not start from the rounded norms of a bf16 base: its export would hold that rounding as
    if it were learned.
    """
    base = models.load(str(tiny_folder("sd1")), dtype=torch.bfloat16)
    inject.add_adapter(base, settings(method="dora").adapter, seed=0)
    for path, factors in inject.read_adapter(base).factors.items():
        assert factors.magnitude.dtype == torch.float32
        assert dora.change(factors, inject.weight(base, path)).abs().max() < 1e-6


def test_gradients_reach_the_adapter_and_nothing_else(base, ask):
    inject.add_adapter(base, settings().adapter, seed=0)
    ask().square().mean().backward()
    touched = {name for name, parameter in base.unet.named_parameters() if parameter.grad is not None}
    assert {f"unet.{name}" for name in touched} == set(inject.trainable(base))


def test_text_encoders_take_adapters_too(base):
    """Files of other trainers change the text encoder as well; transformers 5 has dropped ``text_model.`` from its
    paths, files have not.
    """
    from lora_studio.adapters import Factors

    path = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert modules.adaptable(base.models)[path] is modules.find(base.models, path)
    before = base.encode_text(["a cat"])["hidden"]
    inject.load_adapters(base, [(Adapter({path: Factors(torch.randn(2, 32), torch.randn(32, 2), 2.0)}), 1.0)])
    assert not torch.allclose(base.encode_text(["a cat"])["hidden"], before)
    inject.unload_adapters(base)
    assert torch.equal(base.encode_text(["a cat"])["hidden"], before)


@pytest.mark.fault(30)
def test_an_adapter_for_another_model_is_refused_whole(base, tiny_folder):
    other = models.load(str(tiny_folder("sdxl")))
    inject.add_adapter(other, settings().adapter, seed=0)
    with pytest.raises(AdapterError, match="30 of its 560 modules match"):
        inject.load_adapters(base, [(inject.read_adapter(other), 1.0)])
    assert base.loaded is None


def test_an_orthogonal_start_has_rows_that_share_no_direction(base, ask):
    """A Aᵀ = 1, of convolutions too, and B = 0: the model answers as before, to the bit."""
    before = ask()
    inject.add_adapter(base, settings(init="orthogonal", targets="attention+ff+conv").adapter, seed=0)
    assert torch.equal(ask(), before)
    for one in inject.read_adapter(base).factors.values():
        rows = one.down.flatten(1)
        assert torch.allclose(rows @ rows.T, torch.eye(4), atol=1e-5) and not one.up.any()

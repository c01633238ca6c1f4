"""What each training method says: small matrices with their start, their change and what is read back."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lora_studio.adapters import Adapter, Factors, dora
from lora_studio.errors import SettingsError
from lora_studio.methods import own_layer, registry
from lora_studio.methods.method import NAME, Directions, Layer, LayerInput, LayerShape
from lora_studio.methods.own_layer import OwnLayer


def options(**changes):
    """The settings that methods go by."""
    usual = {"rank": 1, "alpha": 1.0, "rslora": False, "dropout": 0.0, "init": "gaussian"}
    return SimpleNamespace(**(usual | {"lokr_factor": 8, "oft_block_size": 32} | changes))


def wrapped(method: str, module: nn.Linear | nn.Conv2d, **changes) -> Layer:
    """The module with a fresh adapter."""
    model = nn.Sequential(module.requires_grad_(False))
    registry.get(method).inject(model, ["0"], options(**changes))
    return Layer(model[0], lambda: module.weight)


def started(method: str, weight: list[list[float]], seed: int = 0, **changes) -> tuple[Layer, Factors | None]:
    """A linear layer with that weight and a fresh adapter, and what is subtracted from it."""
    module = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight))
        layer, source = wrapped(method, module, **changes), torch.Generator().manual_seed(seed)
        subtracted = registry.get(method).start({"layer": layer}, options(**changes), source)
    return layer, None if subtracted is None else subtracted["layer"]


def learn(layer: Layer, down: list[list[float]], up: list[list[float]], magnitude: list[float] | None = None) -> None:
    """Gives the adapter these factors."""
    with torch.no_grad():
        layer.module.lora_A[NAME].weight.copy_(torch.tensor(down))
        layer.module.lora_B[NAME].weight.copy_(torch.tensor(up))
        if magnitude is not None:
            layer.module.lora_magnitude_vector[NAME].weight.copy_(torch.tensor(magnitude))


def test_a_lora_starts_at_nothing_and_is_read_as_it_is():
    """A = [1, 2], B = [0, 3]ᵀ, alpha / r = 4: ΔW = [[0, 0], [12, 24]]."""
    layer, subtracted = started("lora", [[1.0, 0.0], [0.0, 1.0]], alpha=4.0)
    assert subtracted is None and not registry.get("lora").read(layer, None).delta().any()
    learn(layer, [[1.0, 2.0]], [[0.0], [3.0]])
    found = registry.get("lora").read(layer, None)
    assert (found.alpha, found.magnitude) == (4.0, None) and found.delta().tolist() == [[0, 0], [12, 24]]
    assert (layer.module(torch.eye(2)).T - torch.eye(2)).tolist() == found.delta().tolist()


def test_rslora_divides_alpha_by_the_root_of_the_rank():
    layer, _ = started("lora", [[1.0] * 4] * 4, rank=4, alpha=6.0, rslora=True)
    found = registry.get("lora").read(layer, None)
    assert found.scale == 3.0 and found.alpha == 12.0


def test_a_start_is_drawn_from_its_source_alone():
    first, again, other = (
        started("lora", [[1.0, 0.0]], seed)[0].module.lora_A[NAME].weight.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_dora_starts_at_the_length_of_each_output():
    """W + V = [[3, 4], [0, 2]] with lengths 5 and 2; magnitudes 10 and 2: W' = [[6, 8], [0, 2]]."""
    layer, subtracted = started("dora", [[3.0, 0.0], [0.0, 2.0]])
    begun = registry.get("dora").read(layer, subtracted)
    assert subtracted is None and begun.magnitude.tolist() == [3, 2]
    assert not dora.change(begun, layer.weight()).any()
    learn(layer, [[0.0, 4.0]], [[1.0], [0.0]], [10.0, 2.0])
    found = dora.change(registry.get("dora").read(layer, subtracted), layer.weight())
    assert torch.allclose(found, torch.tensor([[3.0, 8.0], [0.0, 0.0]]))
    assert torch.allclose(layer.module(torch.eye(2)).T, torch.tensor([[6.0, 8.0], [0.0, 2.0]]))


def test_a_dora_is_exported_as_the_lora_of_twice_its_rank():
    """ΔW = [[3, 8], [0, 0]] has rank 1, so that rank 2 loses nothing. A LoRA goes as it is."""
    weight = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    factors = Factors(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0], [0.0]]), 1.0, torch.tensor([10.0, 2.0]))
    plain = registry.get("dora").plain(Adapter({"layer": factors}), {"layer": weight}, options())
    assert plain.adapter.rank == 2 and plain.residual < 1e-6
    assert torch.allclose(plain.adapter.factors["layer"].delta(), torch.tensor([[3.0, 8.0], [0.0, 0.0]]), atol=1e-5)
    same = Adapter({"layer": Factors(factors.down, factors.up, 1.0)})
    assert registry.get("lora").plain(same, {}, options()) == (same, {}, 0.0)


def test_a_pissa_starts_at_the_main_direction_and_is_read_relative_to_the_weight():
    """W = diag(9, 1): alpha / r · B₀A₀ = diag(9, 0). With B doubled ΔW = diag(9, 0), at twice rank and alpha."""
    layer, subtracted = started("pissa", [[9.0, 0.0], [0.0, 1.0]], alpha=2.0)
    method = registry.get("pissa")
    assert torch.allclose(subtracted.delta(), torch.tensor([[9.0, 0.0], [0.0, 0.0]]), atol=1e-4)
    assert torch.allclose(layer.module.lora_A[NAME].weight.norm(), layer.module.lora_B[NAME].weight.norm())
    assert torch.allclose(method.read(layer, subtracted).delta(), torch.zeros(2, 2), atol=1e-6)
    with torch.no_grad():
        layer.module.lora_B[NAME].weight.mul_(2)
    found = method.read(layer, subtracted)
    assert (found.rank, found.alpha) == (2, 4.0)
    assert torch.allclose(found.delta(), torch.tensor([[9.0, 0.0], [0.0, 0.0]]), atol=1e-4)


def test_a_pissa_of_a_higher_rank_than_the_weight_starts_the_rest_as_a_lora():
    layer, subtracted = started("pissa", [[9.0, 0.0], [0.0, 1.0]], rank=3, alpha=3.0)
    assert torch.allclose(subtracted.delta(), torch.tensor([[9.0, 0.0], [0.0, 1.0]]), atol=1e-4)
    assert not layer.module.lora_B[NAME].weight[:, 2].any() and layer.module.lora_A[NAME].weight[2].any()


def test_full_fine_tuning_starts_at_the_weight_and_is_read_as_the_whole_difference():
    """W' = [[1, 2], [3, 4]] of W = [[1, 0], [0, 1]]: ΔW = [[0, 2], [3, 3]]."""
    layer, subtracted = started("full", [[1.0, 0.0], [0.0, 1.0]])
    assert subtracted is None and not registry.get("full").read(layer, None).delta().any()
    with torch.no_grad():
        layer.module.own_weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    found = registry.get("full").read(layer, None)
    assert found.delta().tolist() == [[0, 2], [3, 3]]
    assert layer.module(torch.eye(2)).T.tolist() == [[1, 2], [3, 4]]
    layer.module.enable_adapters(False)
    assert layer.module(torch.eye(2)).tolist() == [[1, 0], [0, 1]]


def test_adapter_layers_start_at_nothing_and_bend_the_output():
    """y = x, then y + [0, 2 GELU(y₁) + 1]; GELU(1) = 0.8413 and GELU(−1) = −0.1587."""
    layer, subtracted = started("adapter-layers", [[1.0, 0.0], [0.0, 1.0]])
    assert subtracted is None and torch.equal(layer.module(torch.eye(2)), torch.eye(2)) and layer.module.down.any()
    with torch.no_grad():
        values = {"down": [[1.0, 0.0]], "down_bias": [0.0], "up": [[0.0], [2.0]], "up_bias": [0.0, 1.0]}
        for name, value in values.items():
            getattr(layer.module, name).copy_(torch.tensor(value))
    found = layer.module(torch.tensor([[1.0, 5.0], [-1.0, 5.0]]))
    assert torch.allclose(found, torch.tensor([[1.0, 7.6827], [-1.0, 5.6827]]), atol=1e-4)
    read = registry.get("adapter-layers").read(layer, None)
    counted = registry.get("adapter-layers").parameters(options(), LayerShape(2, 2))
    assert read.up.tolist() == [[0], [2]] and read.up_bias.tolist() == [0, 1] and read.parameters == counted == 7


def test_adapter_layers_are_where_attention_and_feed_forward_end():
    taken = [
        name
        for name in ("attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_out")
        if registry.get("adapter-layers").takes(f"unet.mid_block.attentions.0.transformer_blocks.0.{name}")
    ]
    assert taken == ["attn2.to_out.0", "ff.net.2"]


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_a_layer_begins_with_a_given_change(method):
    """ΔW = [[0, 0], [12, 24]] over W = [[3, 0], [0, 2]]; a negative scale too."""
    for sign in (1.0, -1.0):
        layer, _ = started(method, [[3.0, 0.0], [0.0, 2.0]], rank=2, alpha=1.0)
        with torch.no_grad():
            given = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0], [3.0]]), 4.0 * sign)
            registry.get(method).begin(layer, given)
        found = dora.change(registry.get(method).read(layer, None), layer.weight())
        assert torch.allclose(found, given.delta(), atol=1e-5)


@pytest.mark.parametrize(
    "method", [name for name, method in registry.METHODS.items() if method.takes("0") and method.changes_layers]
)
@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_parameters_are_counted_as_they_are(method, kernel):
    module = nn.Conv2d(6, 4, kernel) if kernel else nn.Linear(6, 4)
    layer = wrapped(method, module, rank=2)
    counted = registry.get(method).parameters(options(rank=2), LayerShape(6, 4, kernel or 1))
    assert counted == sum(one.numel() for one in layer.module.parameters() if one.requires_grad)


def seen(left, strengths, right):
    return Directions(*(torch.tensor(one) for one in (left, strengths, right)))


def test_eva_takes_the_inputs_directions_and_keeps_what_they_do_not_fill():
    """Inputs along (0, 1): the first row of A; the second stays as drawn, of the same length. B is zero."""
    layer, _ = started("lora", [[1.0, 0.0], [0.0, 1.0]], rank=2, init="eva")
    method, drawn = registry.get("lora"), layer.module.lora_A[NAME].weight.clone()
    assert method.looks_at(options(init="eva")) == "inputs" and not method.looks_at(options())
    with torch.no_grad():
        directions = seen([[0.0], [1.0]], [4.0], [[0.0, 1.0]])
        assert method.start_along({"layer": layer}, options(init="eva"), {"layer": directions}) is None
    down = layer.module.lora_A[NAME].weight
    assert down[0].tolist() == [0, 1] and torch.equal(down[1], drawn[1]) and drawn[1].norm().item() == pytest.approx(1)
    assert not layer.module.lora_B[NAME].weight.any()


def test_lora_ga_takes_the_first_directions_in_and_the_second_out():
    """G = diag(5, 2, 0…) of 16 outputs: A₀ = [½, 0], B₀ = [0, ½, …]ᵀ, since 16^¼ / √16 = ½. Of rank 2 B has none."""
    weight = [[0.0, 0.0]] * 16
    directions = seen(torch.eye(16)[:, :2].tolist(), [5.0, 2.0], [[1.0, 0.0], [0.0, 1.0]])
    method = registry.get("lora-ga")
    for rank in (1, 2):
        layer, subtracted = started("lora-ga", weight, rank=rank, alpha=float(rank))
        assert subtracted is None and not method.read(layer, None).delta().any(), "as a LoRA until it has looked"
        with torch.no_grad():
            subtracted = method.start_along({"layer": layer}, options(rank=rank), {"layer": directions})["layer"]
        assert layer.module.lora_A[NAME].weight.tolist() == [[0.5, 0.0], [0.0, 0.5]][:rank]
        assert layer.module.lora_B[NAME].weight[1].tolist() == [0.5 * (rank == 1), 0.0][:rank]
        assert not method.read(layer, subtracted).delta().any() and method.read(layer, subtracted).rank == 2 * rank


def test_only_a_pissa_and_lora_ga_hold_more_than_they_train():
    """Its first factors, to subtract them."""
    shape, frozen = LayerShape(6, 4), {}
    for name, method in registry.METHODS.items():
        frozen[name] = method.frozen(options(rank=2), shape)
    assert {name: held for name, held in frozen.items() if held} == {"pissa": 2 * (6 + 4), "lora-ga": 2 * (6 + 4)}


@pytest.mark.parametrize(
    ("method", "more", "elements"),
    [
        ("lora", {}, 6 + 2),
        ("lora", {"shared": True}, 2),
        ("dora", {}, 6 + 2 + 2 * 4),
        ("pissa", {}, 6 + 2),
        ("full", {}, 6),
        ("full", {"shared": True}, 0),
        ("lokr", {}, 6 + 2 * 2),
        ("lokr", {"shared": True}, 2 * 2),
        ("ia3", {}, 4),
        ("adapter-layers", {}, 4 + 2 * 2),
    ],
    ids=str,
)
def test_each_method_keeps_its_input_its_thin_product_and_what_it_does_besides(method, more, elements):
    """Ten tokens in two bytes, in = 6, out = 4, r = 2; a DoRA keeps both of its outputs."""
    given = LayerInput(**({"tokens": 10, "element": 2, "autocast": False, "shared": False} | more))
    assert registry.get(method).kept(options(rank=2), LayerShape(6, 4), given) == 10 * 2 * elements


def test_a_layer_of_its_own_is_around_the_base_models_and_answers_as_that_while_disabled():
    """x + 1 instead of 2 x."""

    class PlusOne(OwnLayer):
        def changed(self, x):
            return x + 1

    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, 2.0)
    own_layer.wrap(model, ["0"], PlusOne)
    assert model(torch.tensor([3.0])).tolist() == [4] and model[0].get_base_layer().weight.tolist() == [[2]]
    model[0].enable_adapters(False)
    assert model(torch.tensor([3.0])).tolist() == [6] and model[0].disable_adapters


def test_a_loha_keeps_its_factors_of_rank_r_squared_or_the_whole_product():
    """r² (in + out + tokens) and r out besides the input; at rank 8 three matrices of in · out."""
    given = LayerInput(tokens=10, element=2, autocast=False, shared=True)
    assert registry.get("loha").kept(options(rank=1), LayerShape(6, 4), given) == 2 * (6 + 4 + 10 + 4)
    assert registry.get("loha").kept(options(rank=8), LayerShape(6, 4), given) == 2 * 3 * 6 * 4


def test_an_oft_keeps_its_answer_and_what_made_its_blocks():
    given = LayerInput(tokens=10, element=2, autocast=False, shared=True)
    assert registry.get("oft").kept(options(oft_block_size=2), LayerShape(6, 4), given) == 10 * 4 * 2 + 4 * 2 * (12 + 2)


def test_dropout_keeps_its_input_and_a_mask():
    given = LayerInput(tokens=10, element=2, autocast=False, shared=True)
    kept = registry.get("lora").kept(options(rank=2, dropout=0.1), LayerShape(6, 4), given)
    assert kept == 10 * (2 * (6 + 2) + 6)


def test_what_a_pissa_subtracts_is_cast_under_autocast_and_a_convolution_keeps_its_input():
    shape, given = LayerShape(6, 4, 3), LayerInput(tokens=10, element=2, autocast=True, shared=False)
    more = registry.get("pissa").kept(options(rank=2), shape, given)
    assert more - registry.get("lora").kept(options(rank=2), shape, given) == 2 * 2 * (6 * 9 + 4) + 10 * (6 + 2) * 2


def test_refusals_and_what_may_round():
    assert "set quantize to nf4 or none" in registry.get("dora").refusal(options(), "int8")
    assert "must not be packed: set quantize to none" in registry.get("full").refusal(options(), "nf4")
    assert "no dropout" in registry.get("full").refusal(options(dropout=0.1), "none")
    refused = {name for name, method in registry.METHODS.items() if method.refusal(options(), "int8")}
    assert refused == {"dora", "full"}
    alone = {name for name, method in registry.METHODS.items() if method.own_start and not method.own_kind}
    assert alone == {"pissa", "lora-ga"}
    rounded = {name for name, method in registry.METHODS.items() if method.low_precision}
    assert registry.METHODS.keys() - rounded == {"dora", "pissa", "lora-ga"}


def test_a_name_that_is_none_lists_those_that_are():
    with pytest.raises(SettingsError, match="no training method named 'loka'") as caught:
        registry.get("loka")
    assert caught.value.do == f"Choose one of: {', '.join(registry.METHODS)}."

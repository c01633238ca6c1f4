"""What each training method says: small matrices with their start, their change and what is read back."""

from types import SimpleNamespace

import pytest
import torch
from peft import inject_adapter_in_model
from torch import nn

from lora_studio.adapters import Adapter, Factors, dora
from lora_studio.errors import SettingsError
from lora_studio.methods import registry
from lora_studio.methods.method import NAME, Layer, LayerInput, LayerShape


def options(**changes):
    """The settings that methods go by."""
    return SimpleNamespace(**({"rank": 1, "alpha": 1.0, "rslora": False, "dropout": 0.0, "init": "gaussian"} | changes))


def wrapped(method: str, module: nn.Linear | nn.Conv2d, **changes) -> Layer:
    """The module with a fresh adapter."""
    model = nn.Sequential(module.requires_grad_(False))
    inject_adapter_in_model(registry.get(method).config(options(**changes), ["0"]), model, NAME)
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


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_layer_begins_with_a_given_change(method):
    """ΔW = [[0, 0], [12, 24]] over W = [[3, 0], [0, 2]]; a negative scale too."""
    for sign in (1.0, -1.0):
        layer, _ = started(method, [[3.0, 0.0], [0.0, 2.0]], rank=2, alpha=1.0)
        with torch.no_grad():
            given = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0], [3.0]]), 4.0 * sign)
            registry.get(method).begin(layer, given)
        found = dora.change(registry.get(method).read(layer, None), layer.weight())
        assert torch.allclose(found, given.delta(), atol=1e-5)


@pytest.mark.parametrize("method", registry.METHODS)
@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_parameters_are_counted_as_they_are(method, kernel):
    module = nn.Conv2d(6, 4, kernel) if kernel else nn.Linear(6, 4)
    layer = wrapped(method, module, rank=2)
    counted = registry.get(method).parameters(options(rank=2), LayerShape(6, 4, kernel or 1))
    assert counted == sum(one.numel() for one in layer.module.parameters() if one.requires_grad)


def test_only_a_pissa_holds_more_than_it_trains():
    """Its first factors, to subtract them."""
    shape, frozen = LayerShape(6, 4), {}
    for name, method in registry.METHODS.items():
        frozen[name] = method.frozen(options(rank=2), shape)
    assert frozen == {"lora": 0, "dora": 0, "pissa": 2 * (6 + 4)}


@pytest.mark.parametrize(
    ("method", "more", "elements"),
    [
        ("lora", {}, 6 + 2),
        ("lora", {"shared": True}, 2),
        ("dora", {}, 6 + 2 + 2 * 4),
        ("pissa", {}, 6 + 2),
    ],
    ids=str,
)
def test_each_method_keeps_its_input_its_thin_product_and_what_it_does_besides(method, more, elements):
    """Ten tokens in two bytes, in = 6, out = 4, r = 2; a DoRA keeps both of its outputs."""
    given = LayerInput(**({"tokens": 10, "element": 2, "autocast": False, "shared": False} | more))
    assert registry.get(method).kept(options(rank=2), LayerShape(6, 4), given) == 10 * 2 * elements


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
    assert {name for name, method in registry.METHODS.items() if method.refusal(options(), "int8")} == {"dora"}
    assert {name for name, method in registry.METHODS.items() if method.own_start} == {"pissa"}
    assert {name for name, method in registry.METHODS.items() if method.low_precision} == {"lora"}


def test_a_name_that_is_none_lists_those_that_are():
    with pytest.raises(SettingsError, match="no training method named 'loka'") as caught:
        registry.get("loka")
    assert caught.value.do == "Choose one of: lora, dora, pissa."

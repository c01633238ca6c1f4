"""LoHa, LoKr, OFT and (IA)³: small layers against their formulas, and against peft where that says the same."""

import peft
import pytest
import torch
from torch import nn

from lora_studio.adapters import Adapter, dora, stored
from lora_studio.adapters.ia3 import Ia3Change
from lora_studio.adapters.oft import OftChange
from lora_studio.methods import lokr, oft, registry
from lora_studio.methods.method import Layer
from tests.methods.test_methods import options

OWN = ("loha", "lokr", "oft", "ia3")
LAYERS = {
    "linear": lambda: nn.Linear(12, 8),
    "convolution": lambda: nn.Conv2d(12, 8, 3, stride=2, padding=1),
    "point": lambda: nn.Conv2d(12, 8, 1, bias=False),
}


def started(method: str, module, path: str = "layer.to_k", **changes):
    """A layer with a fresh adapter that then learned something."""
    chosen = options(**({"rank": 2, "alpha": 1.0, "lokr_factor": 2, "oft_block_size": 4} | changes))
    model = module.requires_grad_(False)
    for name in reversed(path.split(".")):
        model = nn.ModuleDict({name: model})
    registry.get(method).inject(model, [path], chosen)
    layer = Layer(model.get_submodule(path), lambda: module.weight)
    with torch.no_grad():
        registry.get(method).start({path: layer}, chosen, torch.Generator().manual_seed(1))
    return layer


def learn(layer) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(p for p in layer.module.parameters() if p.requires_grad):
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))


def given(module) -> torch.Tensor:
    shape = (3, 5, 12) if isinstance(module, nn.Linear) else (3, 12, 5, 5)
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("rank", [2, 5], ids=["thin", "whole"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("method", OWN)
def test_a_layer_starts_at_the_base_models_answer_and_computes_what_is_read(method, kind, rank):
    """Of rank 5 a LoHa multiplies ΔW out, and a LoKr's larger factor is whole."""
    module = LAYERS[kind]()
    path = "layer.ff.net.2" if kind == "linear" and rank == 5 else "layer.to_k"
    layer, x = started(method, module, path, **({"rank": 5} if rank == 5 else {})), given(module)
    assert torch.allclose(layer.module(x), module(x), atol=1e-6)
    learn(layer)
    found = registry.get(method).read(layer, None)
    with torch.no_grad():
        changed = LAYERS[kind]()
        changed.load_state_dict(module.state_dict())
        delta = dora.change(found, module.weight if dora.depends(found) else None)
        changed.weight.add_(delta.reshape(module.weight.shape))
    assert torch.allclose(layer.module(x), changed(x), atol=1e-4) and delta.abs().max() > 1e-2
    layer.module.enable_adapters(False)
    assert torch.equal(layer.module(x), module(x))


def test_sizes_divide_what_they_split():
    assert (lokr.split(320, 8), lokr.split(320, -1), lokr.split(250, 8), lokr.split(7, 4)) == (
        (8, 40),
        (16, 20),
        (5, 50),
        (1, 7),
    )
    assert (oft.block(320, 32), oft.block(1280, 48), oft.block(4, 32)) == (32, 40, 4)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("loha", peft.LoHaConfig(r=2, alpha=1, target_modules=["0"])),
        ("lokr", peft.LoKrConfig(r=2, alpha=1, decompose_factor=2, target_modules=["0"])),
    ],
)
def test_pefts_layers_say_the_same(method, config, kind):
    module = LAYERS[kind]().requires_grad_(False)
    layer, x = started(method, module), given(module)
    learn(layer)
    theirs = peft.inject_adapter_in_model(config, nn.Sequential(module), "style")
    with torch.no_grad():
        for role in stored_roles(layer):
            parameter = getattr(theirs[0], role)["style"]
            parameter.copy_(getattr(layer.module, role).reshape(parameter.shape))
    assert torch.allclose(layer.module(x), theirs(x), atol=1e-4)


def stored_roles(layer) -> list[str]:
    return [name for name, _ in layer.module.named_parameters() if name.startswith(("hada", "lokr"))]


def test_literal_values():
    """LoHa: [1 2]ᵀ[1 1] ∘ [1 1]ᵀ[1 3] at alpha / r = 2. LoKr: [[0, 1]] ⊗ [[1], [2]]. OFT: Q = ½ of a turn's tangent."""
    loha = started("loha", nn.Linear(2, 2), rank=1)
    with torch.no_grad():
        for role, value in {
            "w1_a": [[1.0], [2.0]],
            "w1_b": [[1.0, 1.0]],
            "w2_a": [[1.0], [1.0]],
            "w2_b": [[1.0, 3.0]],
        }.items():
            getattr(loha.module, f"hada_{role}").copy_(torch.tensor(value))
    assert registry.get("loha").read(loha, None).delta().tolist() == [[1, 3], [2, 6]]
    module = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(2))
    turned = started("oft", module)
    with torch.no_grad():
        turned.module.oft_skew.fill_(-1.0)
    assert torch.allclose(turned.module(torch.tensor([[2.0, 3.0]])), torch.tensor([[3.0, -2.0]]), atol=1e-6)
    scaled = started("ia3", module)
    with torch.no_grad():
        scaled.module.ia3_l.copy_(torch.tensor([0.5, -1.0]))
    assert scaled.module(torch.tensor([[2.0, 3.0]])).tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize("method", OWN)
def test_a_layer_takes_its_own_kind_exactly_and_nothing_else(method):
    """At another alpha too: the difference of scales goes into a part."""
    first, other = started(method, LAYERS["linear"]()), started(method, LAYERS["linear"](), alpha=3.0)
    learn(first)
    chosen, plain = registry.get(method), stored.factors({"down": torch.ones(1, 12), "up": torch.ones(8, 1)}, "")
    with torch.no_grad():
        before = [one.clone() for one in other.module.parameters()]
        assert not chosen.fits(other, plain) and chosen.fits(other, chosen.read(first, None))
        assert all(torch.equal(one, two) for one, two in zip(before, other.module.parameters(), strict=True))
        chosen.take(other, chosen.read(first, None))
    W = torch.randn(8, 12)
    one, two = (chosen.read(layer, None) for layer in (first, other))
    assert torch.allclose(dora.change(one, W), dora.change(two, W), atol=1e-5)
    adapter = Adapter({"p": one}) if method in ("loha", "lokr") else Adapter({}, outputs={"p": one})
    assert chosen.own_kind == adapter.kind.name


def test_what_is_read_is_of_the_kind_that_files_hold():
    assert set(registry.get("loha").read(started("loha", nn.Linear(12, 8)), None).parts.tensors) == {
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha")
    }
    assert isinstance(registry.get("oft").read(started("oft", nn.Linear(12, 8)), None), OftChange)
    on_input = registry.get("ia3").read(started("ia3", nn.Linear(12, 8), "layer.mlp.fc2"), None)
    assert isinstance(on_input, Ia3Change) and on_input.on_input and len(on_input.vector) == 12


def test_ia3_takes_keys_values_and_hidden_values_alone():
    takes = registry.get("ia3").takes
    block = "unet.mid_block.attentions.0.transformer_blocks.0"
    assert [takes(f"{block}.{name}") for name in ("attn1.to_k", "attn2.to_v", "ff.net.2")] == [True] * 3
    assert not any(takes(f"{block}.{name}") for name in ("attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "proj_in"))
    encoder = "text_encoder.text_model.encoder.layers.0"
    assert takes(f"{encoder}.mlp.fc2") and takes(f"{encoder}.self_attn.k_proj") and not takes(f"{encoder}.mlp.fc1")


@pytest.mark.parametrize("method", OWN)
def test_dropout_acts_in_training_alone(method):
    module = LAYERS["linear"]()
    layer, x = started(method, module, dropout=0.5), given(module)
    learn(layer)
    layer.module.train()
    torch.manual_seed(0)
    first = layer.module(x)
    assert any(not torch.equal(layer.module(x), first) for _ in range(20))
    layer.module.eval()
    assert torch.equal(layer.module(x), layer.module(x))

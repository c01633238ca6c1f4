"""Blending adapters on a model: small matrices with their expected result."""

import pytest
import torch
from torch import nn

from lora_studio.adapters import Adapter, Factors
from lora_studio.adapters.ia3 import Ia3Change
from lora_studio.adapters.oft import OftChange
from lora_studio.errors import AdapterError
from lora_studio.models import overlay
from lora_studio.models.overlay import AdapterOverlay, require_fit

PATH = "unet.mid_block.attentions.0.proj_in"


class Model(nn.Module):
    """A model whose only layer lies at ``PATH``."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.mid_block = nn.Module()
        self.mid_block.attentions = nn.ModuleList([nn.Module()])
        self.mid_block.attentions[0].proj_in = layer

    def forward(self, x):
        return self.mid_block.attentions[0].proj_in(x)


def linear(weight, bias=None) -> Model:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return Model(layer).requires_grad_(False)


def one(down, up, alpha, magnitude=None) -> Adapter:
    return Adapter(
        {
            PATH: Factors(
                torch.tensor(down), torch.tensor(up), alpha, None if magnitude is None else torch.tensor(magnitude)
            )
        }
    )


def test_two_adapters_add_up_by_weight():
    """W = I; ΔW₁ = 2·[[0,1],[0,0]] (alpha 2, rank 1), ΔW₂ = [[0,0],[3,0]] at half weight: W' = [[1,2],[1.5,1]]."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    stack = AdapterOverlay(
        {"unet": model},
        [(one([[0.0, 1.0]], [[1.0], [0.0]], 2.0), 1.0), (one([[1.0, 0.0]], [[0.0], [3.0]], 1.0), 0.5)],
        "sd1",
        torch.float32,
    )
    assert model(torch.eye(2)).T.tolist() == [[1, 2], [1.5, 1]]
    stack.set_weights([-1, 0])
    assert model(torch.eye(2)).T.tolist() == [[1, -2], [0, 1]]
    stack.enabled = False
    assert model(torch.eye(2)).tolist() == [[1, 0], [0, 1]]
    stack.enabled = True
    stack.remove()
    assert model(torch.eye(2)).tolist() == [[1, 0], [0, 1]]


def test_a_dora_turns_the_weight_itself():
    """W = [[3,0]], V = [[0,4]]: the norm of W + V is 5, m = 10, so W' = 2·[[3,4]] and ΔW = [[3,8]]; at half weight W +
    ΔW/2; the bias stays.
    """
    model = linear([[3.0, 0.0]], bias=[7.0])
    stack = AdapterOverlay({"unet": model}, [(one([[0.0, 1.0]], [[4.0]], 1.0, [10.0]), 1.0)], "sd1", torch.float32)
    assert (model(torch.eye(2)) - 7).T.tolist() == [[6, 8]]
    stack.set_weights([0.5])
    assert (model(torch.eye(2)) - 7).T.tolist() == [[4.5, 4]]
    stack.set_weights([0])
    assert (model(torch.eye(2)) - 7).T.tolist() == [[3, 0]]


def test_a_dora_beside_a_plain_one():
    model = linear([[3.0, 0.0]])
    AdapterOverlay(
        {"unet": model},
        [(one([[1.0, 0.0]], [[100.0]], 1.0), 1.0), (one([[0.0, 1.0]], [[4.0]], 1.0, [10.0]), 1.0)],
        "sd1",
        torch.float32,
    )
    assert model(torch.eye(2)).T.tolist() == [[106, 8]]


def test_every_sample_has_weights_of_its_own():
    """W = I, ΔW₁ = [[0,1],[0,0]], ΔW₂ = [[0,0],[3,0]]: the samples (1, 1) under three rows of weights, twice over as
    guidance batches them.
    """
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    stack = AdapterOverlay(
        {"unet": model},
        [(one([[0.0, 1.0]], [[1.0], [0.0]], 1.0), 1.0), (one([[1.0, 0.0]], [[0.0], [3.0]], 1.0), 1.0)],
        "sd1",
        torch.float32,
    )
    stack.set_weights([[0, 0], [1, 0], [-2, 0.5]])
    expected = [[1, 1], [2, 1], [-1, 2.5]]
    assert model(torch.ones(3, 2)).tolist() == expected
    assert model(torch.ones(6, 2)).tolist() == expected * 2, "not each row twice, but all rows twice"
    assert model(torch.ones(3, 4, 2)).tolist() == [[sample] * 4 for sample in expected], "four tokens each"
    stack.set_weights([1, 1])
    assert model(torch.ones(2, 2)).tolist() == [[2, 4]] * 2, "one weight for all samples again"


@pytest.mark.parametrize("samples", [1, 4])
def test_a_batch_that_the_rows_do_not_go_into_is_a_fault(samples):
    """Broadcasting would give one sample all rows, or none."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    stack = AdapterOverlay({"unet": model}, [(one([[0.0, 1.0]], [[1.0], [0.0]], 1.0), 1.0)], "sd1", torch.float32)
    stack.set_weights([[0], [1], [2]])
    with pytest.raises(ValueError, match="3 rows"):
        model(torch.ones(samples, 2))


def test_a_dora_turns_each_sample_by_its_own_weight():
    """ΔW = [[3,8]] of W = [[3,0]] as above, beside a plain ΔW = [[100,0]]; the bias stays."""
    model = linear([[3.0, 0.0]], bias=[7.0])
    adapters = [(one([[1.0, 0.0]], [[100.0]], 1.0), 1.0), (one([[0.0, 1.0]], [[4.0]], 1.0, [10.0]), 1.0)]
    AdapterOverlay({"unet": model}, adapters, "sd1", torch.float32).set_weights([[0, 0], [0, 1], [1, 0.5]])
    assert (model(torch.ones(3, 2)) - 7).tolist() == [[3], [14], [108.5]]


@pytest.mark.parametrize("magnitude", [None, torch.tensor([1.0, 2, 3, 4, 5])])
def test_a_convolution_takes_weights_by_sample(magnitude):
    torch.manual_seed(0)
    model = Model(nn.Conv2d(3, 5, 3, stride=2, padding=1)).requires_grad_(False)
    adapter = Adapter({PATH: Factors(torch.randn(2, 3, 3, 3), torch.randn(5, 2, 1, 1), 3.0, magnitude)})
    stack = AdapterOverlay({"unet": model}, [(adapter, 1.0)], "sd1", torch.float32)
    x, apart = torch.randn(3, 3, 8, 8), []
    for sample, weight in zip(x, (0.0, 0.5, -1.5), strict=True):
        stack.set_weights([weight])
        apart.append(model(sample[None]))
    stack.set_weights([[0.0], [0.5], [-1.5]])
    assert torch.allclose(model(x), torch.cat(apart), atol=1e-5)
    assert not torch.allclose(apart[1], apart[2], atol=1e-1)


def test_convolutions_keep_stride_and_padding():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    down, up = torch.randn(2, 3, 3, 3), torch.randn(5, 2, 1, 1)
    x, model = torch.randn(1, 3, 8, 8), Model(layer).requires_grad_(False)
    whole = layer.weight + 0.5 * 1.5 * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    expected = nn.functional.conv2d(x, whole, layer.bias, stride=2, padding=1)
    AdapterOverlay({"unet": model}, [(Adapter({PATH: Factors(down, up, 3.0)}), 0.5)], "sd1", torch.float32)
    assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("flat", [True, False])
def test_a_linear_layer_and_a_1x1_convolution_take_each_others_factors(flat):
    """SD 1's proj_in is a 1×1 convolution, and files hold its factors in either shape."""
    layer = nn.Linear(2, 2, bias=False) if not flat else nn.Conv2d(2, 2, 1, bias=False)
    shape = (2, 2) if flat else (2, 2, 1, 1)
    model = Model(layer).requires_grad_(False)
    AdapterOverlay(
        {"unet": model},
        [(Adapter({PATH: Factors(torch.eye(2).reshape(shape), 5 * torch.eye(2).reshape(shape), 2.0)}), 1.0)],
        "sd1",
        torch.float32,
    )
    x = torch.ones(1, 2) if not flat else torch.ones(1, 2, 1, 1)
    weight = layer.weight.reshape(2, 2) + 5 * torch.eye(2)
    assert torch.allclose(model(x).flatten(), weight.sum(1))


@pytest.mark.fault(29, 30)
def test_misfits_are_counted_and_named():
    """One adapter for a UNet of another width must not be added in part, or silently not at all."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    wide = Adapter({PATH: Factors(torch.zeros(1, 768), torch.zeros(320, 1), 1.0)})
    with pytest.raises(AdapterError, match="0 of its 1 modules match"):
        AdapterOverlay({"unet": model}, [(wide, 1.0)], "sd1", torch.float32)
    factors = Factors(torch.zeros(1, 2048), torch.zeros(1280, 1), 1.0)
    deep = Adapter({f"unet.down_blocks.2.attentions.0.transformer_blocks.{n}.attn2.to_k": factors for n in range(3)})
    with pytest.raises(
        AdapterError, match="made for Stable Diffusion XL; the base model loaded is Stable Diffusion 1.5: 0 of its 3"
    ):
        require_fit(deep, {}, "sd1")
    with pytest.raises(AdapterError, match="0 of its 0"):
        require_fit(Adapter({}), {}, "sd1")


@pytest.mark.fault(29)
def test_an_adapter_of_the_first_starter_is_refused_although_its_shapes_fit():
    """It would change the present starter's weights to no purpose, and nothing would show why the pictures are odd."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    factors = {PATH: Factors(torch.zeros(1, 2), torch.zeros(2, 1), 1.0)}
    old, new = (
        Adapter(factors, {"ss_base_model_version": version})
        for version in ("lora_studio_starter", "lora_studio_starter_2")
    )
    AdapterOverlay({"unet": model}, [(new, 1.0)], "starter", torch.float32)
    with pytest.raises(
        AdapterError, match="made for the studio's first starter; the base model is the built-in"
    ) as told:
        AdapterOverlay({"unet": model}, [(old, 1.0)], "starter", torch.float32)
    assert "Train the style again on the built-in starter" in told.value.do
    with pytest.raises(AdapterError, match="made for the built-in starter; the base model is the studio's first"):
        AdapterOverlay({"unet": model}, [(new, 1.0)], "starter1", torch.float32)


@pytest.mark.fault(32)
def test_weights_that_make_no_sense_are_refused():
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    stack = AdapterOverlay({"unet": model}, [(one([[0.0, 1.0]], [[1.0], [0.0]], 1.0), 1.0)], "sd1", torch.float32)
    for weights, message in (
        ([float("nan")], "finite"),
        ([1.0, 2.0], "1 adapters and 2 weights"),
        ([[1.0], [2.0, 3.0]], "1 adapters and 2"),
        ([[1.0], [float("inf")]], "finite"),
    ):
        with pytest.raises(AdapterError, match=message):
            stack.set_weights(weights)
    assert model(torch.eye(2)).T.tolist() == [[1, 1], [0, 1]], "a refused weight changes nothing"


@pytest.mark.parametrize("magnitude", [None, [10.0]])
def test_folded_adapters_answer_alike_and_leave_the_weights_to_the_bit(magnitude):
    """Weights that were added and subtracted again drift with every picture."""
    model = linear([[3.1, 0.7]], bias=[7.0])
    layer = model.mid_block.attentions[0].proj_in
    before, x = layer.weight.clone(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    stack = AdapterOverlay({"unet": model}, [(one([[0.3, 1.0]], [[4.0]], 1.0, magnitude), 0.6)], "sd1", torch.float32)
    expected = model(x)
    with stack.folded(model):
        assert not layer._forward_hooks and not torch.equal(layer.weight, before)
        assert torch.allclose(model(x), expected, atol=1e-5)
    assert torch.equal(layer.weight, before) and torch.equal(model(x), expected)
    with pytest.raises(ZeroDivisionError), stack.folded(model):
        raise ZeroDivisionError
    assert torch.equal(layer.weight, before) and torch.equal(model(x), expected)
    stack.remove()
    assert not layer._forward_hooks


def test_nothing_is_folded_that_would_not_be_the_same(monkeypatch):
    """Samples with weights of their own get one sample's; or a bf16 weight swallows a small change."""

    def hooked(rows, dtype=torch.float32, enabled=True, other=False):
        model = linear([[1.0, 0.0]]).to(dtype)
        stack = AdapterOverlay({"unet": model}, [(one([[0.0, 1.0]], [[1.0]], 1.0), 1.0)], "sd1", dtype)
        stack.set_weights(rows)
        stack.enabled = enabled
        with stack.folded(linear([[1.0, 0.0]]) if other else model):
            return bool(model.mid_block.attentions[0].proj_in._forward_hooks)

    assert not hooked([0.5])
    assert hooked([[0.5], [1.0]]) and hooked([0.5], torch.bfloat16) and hooked([0.5], enabled=False)
    assert hooked([0.5], other=True), "a text encoder's layer is not the denoiser's"
    monkeypatch.setattr(overlay, "MOST_FOLDED", 4)
    assert hooked([0.5])


def only(change) -> Adapter:
    return Adapter({}, outputs={PATH: change})


def test_an_output_change_follows_factors_at_its_own_weight():
    """W = diag(2, 3), b = [1, 1]; l = [.5, −1] scales W x, not b; ΔW = [[0, 0], [1, 0]] is not scaled."""
    model = linear([[2.0, 0.0], [0.0, 3.0]], [1.0, 1.0])
    scale, other = only(Ia3Change(torch.tensor([0.5, -1.0]), False)), one([[1.0, 0.0]], [[0.0], [1.0]], 1.0)
    stack = AdapterOverlay({"unet": model}, [(scale, 1.0), (other, 1.0)], "sd1", torch.float32)
    assert model(torch.eye(2)).T.tolist() == [[4, 1], [2, 1]]
    stack.set_weights([[2.0, 0.0], [0.0, 1.0]])
    assert model(torch.ones(2, 2)).tolist() == [[5, -2], [3, 5]]
    stack.remove()
    assert model(torch.eye(2)).T.tolist() == [[3, 1], [1, 4]]


def test_a_change_on_inputs_asks_the_module_again():
    model = linear([[2.0, 1.0], [0.0, 3.0]], [1.0, 1.0])
    AdapterOverlay({"unet": model}, [(only(Ia3Change(torch.tensor([0.5, -1.0]), True)), 2.0)], "sd1", torch.float32)
    assert model(torch.eye(2)).T.tolist() == [[5, 0], [1, -2]]


@pytest.mark.parametrize(
    "change", [OftChange(torch.randn(2, 3, 3)), Ia3Change(torch.randn(6), False), Ia3Change(torch.randn(4), True)]
)
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(4, 6), lambda: nn.Conv2d(4, 6, 3, 2, 1), lambda: nn.Conv2d(4, 6, 1)]
)
def test_hooks_and_folding_compute_w_plus_its_change(change, make):
    """At .5 an OFT is a quarter as strong: ComfyUI multiplies by the strength twice."""
    model = Model(make()).requires_grad_(False)
    layer, x = (
        model.mid_block.attentions[0].proj_in,
        torch.randn(2, *((4,) if isinstance(make(), nn.Linear) else (4, 5, 5))),
    )
    weight, bare = layer.weight.clone(), model(x)
    stack = AdapterOverlay({"unet": model}, [(only(change), 1.0)], "sd1", torch.float32)
    whole = model(x) - bare
    stack.set_weights([0.5])
    assert torch.allclose(model(x) - bare, whole * (0.25 if isinstance(change, OftChange) else 0.5), atol=1e-5)
    stack.set_weights([1.0])
    with stack.folded(model):
        assert torch.allclose(layer.weight, weight + change.change(weight), atol=1e-6)
        assert torch.allclose(model(x), bare + whole, atol=1e-5)
    assert torch.equal(layer.weight, weight)


def test_an_output_change_of_another_size_does_not_fit():
    with pytest.raises(AdapterError, match="0 of its 1 modules match"):
        AdapterOverlay(
            {"unet": linear([[1.0, 0.0], [0.0, 1.0]])},
            [(only(Ia3Change(torch.ones(3), False)), 1.0)],
            "sd1",
            torch.float32,
        )

"""A packed base model: what is packed, that adapters train and answer on it, and that none of its rounding comes into
an adapter.
"""

import pytest
import torch

from lora_studio import libraries, models
from lora_studio.adapters import dora
from lora_studio.config.settings import check
from lora_studio.errors import MachineError, SettingsError
from lora_studio.models import inject, modules, quantize
from tests.models.test_inject import learn, settings

layers = libraries.bitsandbytes().nn
CLASSES = {"nf4": layers.Linear4bit, "int8": layers.Linear8bitLt}
COARSE = {"nf4": 0.12, "int8": 0.01}
"""‖W − W packed‖ / ‖W‖ of normal weights: NF4 keeps four bits, int8 eight."""
ROUNDING = {"nf4": 5e-5, "int8": 5e-3}
"""What two ways of the same sum may differ by: int8 rounds the inputs too, so a last digit may become a whole step."""
NEAR = {"nf4": 1e-4, "int8": 0.015}
"""What they may differ by as a share of the answer; processors round otherwise."""
PATH = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def apart(one, other) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module", params=["nf4", "int8"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(tiny_folder):
    return models.load(str(tiny_folder("sd1")))


@pytest.fixture(scope="module")
def shared(tiny_folder, kind):
    return models.load(str(tiny_folder("sd1")), quantize=kind)


@pytest.fixture
def ask(whole):
    """What a model answers to a fixed question."""
    torch.manual_seed(1)
    noisy, when, text = torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), whole.encode_text(["a cat", "a dog"])
    return lambda base: base.predict(noisy, when, text)


def test_the_transformers_are_packed_and_nothing_else(base, whole, kind):
    found = {name for name, module in base.unet.named_modules() if isinstance(module, tuple(CLASSES.values()))}
    assert found == set(quantize.packed(whole.unet)) and all(
        isinstance(base.unet.get_submodule(name), CLASSES[kind]) for name in found
    )
    assert len(found) == 16 * 10, "each transformer: two attentions of four, and a feed-forward of two"
    rest = {
        name: tensor
        for name, tensor in base.unet.state_dict().items()
        if not any(name.startswith(f"{one}.") for one in found)
    }
    assert all(torch.equal(tensor, whole.unet.state_dict()[name]) for name, tensor in rest.items())
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


def test_a_packed_model_has_a_checksum_of_its_own_that_stays(base, whole, ask):
    """Also when it has been asked, as int8 layers move their weights about then, and with an adapter in it."""
    before = base.checksum
    inject.add_adapter(base, settings().adapter, seed=0)
    ask(base)
    del base.__dict__["checksum"]
    assert base.checksum == before != whole.checksum


def test_nf4_takes_four_bits_and_little_more(tiny_folder):
    """Without the second quantization it would be 4.5 bits a weight; here the small layers' own tables weigh more than
    real ones' do.
    """
    base = models.load(str(tiny_folder("sd1")), quantize="nf4")
    layer = modules.find(base.models, PATH)
    assert layer.weight.numel() == 64 * 64 // 2 and layer.weight.dtype == torch.uint8
    assert layer.weight.quant_state.nested and layer.weight.quant_state.absmax.dtype == torch.uint8


@pytest.mark.parametrize(("layout", "family", "kind"), [("tiny_file", "sd2", "nf4"), ("tiny_folder", "sdxl", "int8")])
def test_every_layout_and_family_is_packed_alike(request, family, layout, kind):
    """One path for folders and single files; the answer stays near the unpacked model's. SD 2's single file is asked
    what it predicts, once it is packed.
    """
    path = str(request.getfixturevalue(layout)(family))
    plain, packed = models.load(path), models.load(path, quantize=kind)
    assert (
        packed.process.name == plain.process.name
        and packed.fingerprint == plain.fingerprint
        and packed.sha256() == plain.sha256()
    )
    torch.manual_seed(1)
    noisy, text = torch.randn(1, 4, 16, 16), plain.encode_text(["a cat"])
    expected, found = (base.predict(noisy, torch.tensor([500]), text) for base in (plain, packed))
    distance = ((found - expected).norm() / expected.norm()).item()
    assert 0 < distance < COARSE[kind]


def test_a_packed_weight_unpacks_near_its_original_and_in_its_shape(base, whole, kind):
    """And reading it must not harm the layer: an int8 layer was left without its scales."""
    before = modules.find(base.models, PATH)(torch.ones(1, 64))
    found, expected = inject.weight(base, PATH), inject.weight(whole, PATH)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert 0 < ((found - expected).norm() / expected.norm()).item() < COARSE[kind]
    assert torch.equal(modules.find(base.models, PATH)(torch.ones(1, 64)), before)
    assert torch.allclose(before, found.sum(1), atol=1e-2), "to_q has no bias"


@pytest.mark.parametrize("method", [{"targets": "attention+ff+conv"}, {"method": "dora"}, {"method": "pissa"}], ids=str)
def test_what_was_trained_on_a_packed_model_is_read_from_factors_alone(base, ask, kind, method):
    """Step 0 is the packed model; loaded again on it the adapter answers as trained, with factors and gradients in
    float32.
    """
    if kind == "int8" and method.get("method") == "dora":
        pytest.skip("refused: see below")
    before = ask(base).detach()
    inject.add_adapter(base, settings(quantize=kind, **method).adapter, seed=0)
    assert torch.allclose(ask(base), before, atol=ROUNDING[kind])
    learn(base)
    ask(base).square().mean().backward()
    assert all(
        parameter.dtype == parameter.grad.dtype == torch.float32 and parameter.grad.any()
        for parameter in inject.trainable(base).values()
    )
    base.unet.eval()
    trained = ask(base).detach()
    with inject.without_adapter(base):
        assert torch.allclose(ask(base), before, atol=1e-6)
    adapter = inject.read_adapter(base)
    inject.remove(base)
    inject.load_adapters(base, [(adapter, 1.0)])
    assert apart(ask(base), trained) < NEAR[kind] < apart(before, trained) / 4
    inject.unload_adapters(base)
    assert torch.allclose(ask(base), before, atol=1e-6)


@pytest.mark.parametrize("method", [{}, {"method": "pissa"}, {"method": "dora"}], ids=str)
def test_an_adapter_that_learned_nothing_changes_nothing_though_the_base_was_rounded(base, kind, method):
    """Merged into the whole model it must give back that model, not its packed and unpacked weights."""
    if kind == "int8" and method.get("method") == "dora":
        pytest.skip("refused: see below")
    inject.add_adapter(base, settings(quantize=kind, **method).adapter, seed=0)
    plain = dora.as_lora(inject.read_adapter(base), lambda path: inject.weight(base, path), 8).adapter
    error = (inject.weight(base, PATH) * COARSE[kind]).norm().item()
    assert all(factors.delta().norm().item() < 1e-4 * error for factors in plain.factors.values())


def test_the_gradient_is_that_of_the_weights_the_model_answers_with(base, ask, whole, kind):
    """Against the whole model with the same rounded weights in it: the adapter learns for the model that it sees."""
    inject.add_adapter(base, settings(quantize=kind).adapter, seed=0)
    learn(base)
    rounded = {name: inject.weight(base, modules.path_of("unet", name)) for name in quantize.packed(whole.unet)}
    kept = {name: whole.unet.get_submodule(name).weight.data for name in rounded}
    try:
        for name, weight in rounded.items():
            whole.unet.get_submodule(name).weight.data = weight
        inject.add_adapter(whole, settings().adapter, seed=0)
        learn(whole)
        for one in (base, whole):
            one.unet.train()
            ask(one).square().mean().backward()
        pairs = zip(inject.trainable(base).values(), inject.trainable(whole).values(), strict=True)
        assert all(
            torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4 * b.grad.abs().max().item() + 1e-9) for a, b in pairs
        )
    finally:
        inject.remove(whole)
        for name, weight in kept.items():
            whole.unet.get_submodule(name).weight.data = weight


def test_a_preview_between_steps_leaves_the_gradient_as_it_was(base, ask, kind):
    """In eval mode bitsandbytes may repack NF4 weights for the CPU's own inference kernel, whose answer has no
    gradient.
    """
    inject.add_adapter(base, settings(quantize=kind).adapter, seed=0)
    base.unet.train()
    ask(base).mean().backward()
    before = [parameter.grad.clone() for parameter in inject.trainable(base).values()]
    base.unet.eval()
    with torch.no_grad():
        ask(base)
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in base.unet.modules())
    base.unet.train()
    for parameter in inject.trainable(base).values():
        parameter.grad = None
    ask(base).mean().backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(before, inject.trainable(base).values(), strict=True))


def test_a_dora_over_int8_is_refused_with_its_reason():
    with pytest.raises(SettingsError, match="set quantize to nf4"):
        check({"method": "dora", "quantize": "int8"})


def test_without_bitsandbytes_the_setting_is_named(tiny_folder, monkeypatch):
    def absent():
        raise ImportError("No module named 'bitsandbytes'")

    monkeypatch.setattr(libraries, "bitsandbytes", absent)
    with pytest.raises(MachineError, match="quantize"):
        models.load(str(tiny_folder("sd1")), quantize="nf4")

"""A method is one file: here is one more, with modules, parameters and a change of its own. Nothing else knows of it,
and everything works with it: settings, form, memory, training, resuming, reading, export and its proof.
"""

import math
import re

import gradio as gr
import pytest
import torch
from torch import nn

from lora_studio import adapters, models
from lora_studio.adapters import Factors, proof, stored
from lora_studio.config.settings import Settings, check
from lora_studio.config.specs import SPECS, from_text
from lora_studio.errors import SettingsError
from lora_studio.events import Started, StepDone
from lora_studio.methods.lora import Lora, copied
from lora_studio.methods.method import NAME, Method
from lora_studio.methods.registry import METHODS
from lora_studio.models import inject, shapes
from lora_studio.runs import branching
from lora_studio.training import memory, unet_activations
from lora_studio.training.activations import Step
from lora_studio.training.loop import train
from lora_studio.ui.fields import read
from lora_studio.ui.form import Form
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors


class Kronecker(Method):
    """ΔW = (alpha / r) w₁ ⊗ (a b), w₁ whole (Yeh et al. 2024, section 3)."""

    name, title, help = "kronecker", "Kronecker", "Kronecker products make small files"
    own_start = "It begins from nothing, since few adapters are Kronecker products."

    def refusal(self, options, quantize):
        if quantize != "none":
            return "a Kronecker product does not train on a packed base model: set quantize to none"
        return (
            "a Kronecker product has no dropout and no rank-stabilized scale"
            if options.dropout or options.rslora
            else ""
        )

    def config(self, options, modules):
        from peft import LoKrConfig

        return LoKrConfig(r=options.rank, alpha=options.alpha, target_modules=list(modules))

    def start(self, layers, options, source):
        for layer in layers.values():
            for part in ("w1", "w2_a", "w2_b"):
                parameter = getattr(layer.module, f"lokr_{part}")[NAME]
                drawn = nn.init.kaiming_uniform_(torch.empty(parameter.shape), a=math.sqrt(5), generator=source)
                parameter.copy_(drawn * (part != "w2_b"))

    def read(self, layer, subtracted):
        parts = {role: copied(getattr(layer.module, role)[NAME]) for role in ("lokr_w1", "lokr_w2_a", "lokr_w2_b")}
        factors, kernel = stored.factors(parts, ""), layer.weight().shape[2:]
        down, up = (
            factors.down.reshape(factors.rank, -1, *kernel),
            factors.up.reshape(-1, factors.rank, *(1 for _ in kernel)),
        )
        return Factors(down, up, layer.module.scaling[NAME] * factors.rank)

    def begin(self, layer, given):
        raise NotImplementedError("own_start says why")

    def parameters(self, options, shape):
        (l, k), (m, n) = self._sides(shape)
        return l * m + options.rank * (k + n * shape.kernel**2)

    def kept(self, options, shape, given):
        """Its input, ΔW, and a b."""
        (_, k), (_, n) = self._sides(shape)
        numbers = (shape.inputs * shape.outputs + k * n) * shape.kernel**2
        return given.element * (given.tokens * shape.inputs * (not given.shared) + numbers)

    @staticmethod
    def _sides(shape):
        from peft.tuners.lokr.layer import factorization

        return factorization(shape.outputs), factorization(shape.inputs)


class FrozenA(Lora):
    """LoRA-FA (Zhang et al. 2023): A stays as it was drawn."""

    name, title, help = "lora-fa", "LoRA-FA", "LoRA-FA trains the second factor only"
    low_precision = False
    own_start = "LoRA-FA keeps the first factor that it drew."

    def start(self, layers, options, source):
        super().start(layers, options, source)
        for layer in layers.values():
            layer.module.lora_A[NAME].weight.requires_grad = False

    def parameters(self, options, shape):
        return options.rank * shape.outputs

    def frozen(self, options, shape):
        return options.rank * shape.inputs * shape.kernel**2


@pytest.fixture(autouse=True)
def added(monkeypatch):
    """Both are methods like any other within a test."""
    for method in (Kronecker(), FrozenA()):
        monkeypatch.setitem(METHODS, method.name, method)


@pytest.fixture
def lokr(settings) -> Settings:
    return settings.changed(method="kronecker", preview_every=0, validate_every=0)


def test_settings_and_form_offer_it():
    assert check({"method": from_text("method", "kronecker")}).adapter.method == "kronecker"
    assert "Kronecker products" in next(one.help for one in SPECS["method"].options if one.name == "kronecker")
    with gr.Blocks():
        form = Form({})
        form.field("method")
    assert ("Kronecker", "kronecker") in form.fields["method"].choices
    raw = {key: spec.default for key, spec in SPECS.items() if spec.kind != "lines"}
    assert read({**raw, "method": "kronecker"}).settings.adapter.method == "kronecker"
    assert "set quantize to none" in read({**raw, "method": "kronecker", "quantize": "nf4"}).wrong[""]
    with pytest.raises(SettingsError, match="no dropout"):
        Settings().changed(method="kronecker", dropout=0.1)


def test_a_resumed_run_is_the_run_that_was_never_stopped_and_its_export_is_proved(new_run, lokr, tmp_path):
    """Bit for bit on the CPU."""
    whole, torn = new_run(lokr), new_run(lokr)
    collect(whole)
    for event in train(torn, lokr):
        if isinstance(event, StepDone) and event.step == 3:
            break
    seen = collect(torn)
    assert of(Started, seen)[0].first_step == 2
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))
    learned = adapters.read(whole.adapter_file)
    still = {path for path, factors in learned.factors.items() if not factors.delta().any()}
    # the middle block sees a single place, over which a softmax is 1 whatever queries and keys are
    assert still <= {path for path in learned.factors if re.search(r"mid_block.*attn1\.to_[qk]$", path)}
    done = proof.export(learned, tmp_path / "proved.safetensors")
    assert done.proof.passed and done.residual == 0


def test_it_does_not_begin_from_another_adapter(new_run, lokr, tmp_path):
    parent = new_run(lokr.changed(method="lora", steps=2))
    collect(parent)
    with pytest.raises(SettingsError, match="few adapters are Kronecker products") as caught:
        branching.branch(parent, 2, lokr, tmp_path / "outputs")
    able = [name for name, method in METHODS.items() if not method.own_start]
    assert caught.value.do == f"Set method to one of: {', '.join(able)}." and {"lora", "dora"} <= set(able)


def test_memory_is_estimated_from_what_it_says(lokr, monkeypatch):
    """A real forward pass on the CPU, to a tenth; the parameters exactly."""
    monkeypatch.setattr("lora_studio.models.fused.triton_support.kernels", lambda: None)
    base, shape = models.load(lokr.run.base), shapes.read(lokr.run.base)
    lokr = lokr.changed(targets="attention+ff+conv", resolution=256)
    inject.add_adapter(base, lokr.adapter, seed=0)
    own = {parameter.untyped_storage()._cdata for parameter in base.unet.parameters()}
    held = {}

    def hold(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        text = base.encode_text(["a cat", "a dog"])
        base.unet.train()
        base.predict(torch.randn(2, 4, 32, 32), torch.tensor([500, 20]), text)
        estimated = unet_activations.walk(shape, Step.of(lokr, shape, 4))
        assert estimated.saved() == pytest.approx(sum(one.nbytes() for one in held.values()), rel=0.1)
    trained = sum(parameter.numel() for parameter in inject.trainable(base).values())
    assert estimated.trained == trained and memory.estimate(lokr, shape, "fp32").adapter == 4 * trained


def test_the_model_answers_with_it_and_without_it(settings):
    """Also where a part of an adapter is frozen: it stays so."""
    base = models.load(settings.run.base)
    noisy, when, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), base.encode_text(["a cat"])
    before = base.predict(noisy, when, text)
    for method in ("kronecker", "lora-fa"):
        inject.add_adapter(base, settings.changed(method=method, targets="attention+ff+conv").adapter, seed=0)
        names = set(inject.trainable(base))
        assert torch.allclose(base.predict(noisy, when, text), before, atol=1e-6)
        with torch.no_grad():
            for parameter in inject.trainable(base).values():
                parameter += 0.05 * torch.randn_like(parameter)
        trained = base.predict(noisy, when, text).detach()
        assert (trained - before).abs().max() > 1e-3
        with inject.without_adapter(base):
            assert torch.equal(base.predict(noisy, when, text), before)
        assert set(inject.trainable(base)) == names
        adapter = inject.read_adapter(base)
        inject.remove(base)
        inject.load_adapters(base, [(adapter, 1.0)])
        assert torch.allclose(base.predict(noisy, when, text), trained, atol=1e-4)
        inject.remove(base)


def test_a_frozen_factor_is_counted_apart(settings):
    base = models.load(settings.run.base)
    changed = settings.changed(method="lora-fa")
    inject.add_adapter(base, changed.adapter, seed=0)
    layers, shape = inject.layers(base).values(), shapes.read(settings.run.base)
    estimated = unet_activations.walk(shape, Step.of(changed, shape, 4))
    assert estimated.trained == sum(layer.module.lora_B[NAME].weight.numel() for layer in layers)
    assert estimated.frozen == sum(layer.module.lora_A[NAME].weight.numel() for layer in layers)

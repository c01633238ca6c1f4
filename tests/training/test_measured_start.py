"""Starts along what the layers see: what they are, that runs with them repeat and resume."""

import pytest
import torch

from lora_studio import adapters
from lora_studio.errors import RunError, SettingsError
from lora_studio.events import Finished, LayersSeen, Started, StepDone, Warned
from lora_studio.methods.lora import factors_of
from lora_studio.models import inject
from lora_studio.training import devices, measured_start, prepare
from lora_studio.training.distributed import World
from lora_studio.training.loop import train
from tests.methods.test_resuming import told
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors

QUIET = {"preview_every": 0, "validate_every": 0}
EVA, LORA_GA = {"init": "eva"}, {"method": "lora-ga"}
FIRST = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(measured_start, "SAMPLES", 4)


@pytest.fixture
def session(new_run, settings):
    """Makes the session of a new run with changes to its settings, before it takes anything up."""

    def make(**changes):
        chosen = settings.changed(**QUIET, **changes)
        run, world, machine = new_run(chosen), World(), devices.choose(chosen.machine)
        dataset = told(prepare.look(run, chosen, world))
        base = told(prepare.load(chosen, machine, dataset))
        return told(prepare.assemble(run, chosen, machine, world, dataset, base))

    return make


def first_layer(session):
    return factors_of(inject.layers(session.base)[FIRST].module)


def test_eva_starts_at_the_main_directions_of_the_inputs(session):
    """The rows of A are orthonormal, and hold as much of the inputs as any two directions can; B is zero."""
    made, seen = session(**EVA), []
    layer = inject.layers(made.base)[FIRST].module
    made.step, events = 0, list(measured_start.take(made))
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        for number in range(2):
            made.stepper.show(made.data.batches.draw(number))
    handle.remove()
    down, up = first_layer(made)
    assert torch.allclose(down @ down.T, torch.eye(2), atol=1e-5) and not up.any()
    x = torch.cat(seen)
    best = torch.linalg.svdvals(x)[:2].square().sum()
    assert (x @ down.T).square().sum() > 0.999 * best
    (said,) = of(LayersSeen, events)
    assert (said.what, said.layers, said.of, said.samples) == ("inputs", 80, 80, 4) and said.memory > 0
    assert said.sentence.startswith("Looked at the inputs of 80 layers over 4 samples, in ")


def test_lora_ga_starts_along_the_gradient_and_at_the_base_model(session):
    """A₀ is in the gradient's first two directions, B₀ in its third and fourth, both of length out^¼ / 4; their product
    is subtracted.
    """
    made = session(**LORA_GA)
    layer = inject.layers(made.base)[FIRST].module
    weight = layer.get_base_layer().weight.requires_grad_()
    for number in range(2):
        made.stepper.show(made.data.batches.draw(number))
    gradient = weight.grad
    weight.requires_grad_(False)
    U, _, Vt = torch.linalg.svd(gradient, full_matrices=False)
    batch = made.data.batches.draw(0)
    with torch.no_grad():
        before = made.base.predict(batch.x0, batch.timesteps, made.text(batch), batch.sizes)
        events = list(measured_start.take(made))
        after = made.base.predict(batch.x0, batch.timesteps, made.text(batch), batch.sizes)
    assert torch.allclose(before, after, atol=1e-4)
    down, up = first_layer(made)
    length = len(up) ** 0.25 / 4
    assert torch.allclose((down @ Vt[:2].T).norm(dim=1), torch.full((2,), length), rtol=1e-2)
    assert torch.allclose((up.T @ U[:, 2:4]).norm(dim=1), torch.full((2,), length), rtol=1e-2)
    assert not made.stepper.flat.gradients.any() and of(LayersSeen, events)[0].what == "gradients"
    assert inject.read_adapter(made.base).factors[FIRST].delta().abs().max() < 1e-5
    (group,) = {one.rank for one in inject.read_adapter(made.base).factors.values()}
    assert group == 4, "an ordinary LoRA of twice the rank"


@pytest.mark.parametrize(
    "start",
    [
        EVA | {"method": "dora", "train_text": True, "targets": "attention+ff+conv"},
        LORA_GA | {"targets": "attention+ff+conv", "checkpointing": "all"},
        LORA_GA | {"train_text": True, "accumulate": 2, "ema": 0.9, "dropout": 0.3, "by_block": ["mid_block rank=3"]},
    ],
    ids=str,
)
def test_a_run_repeats_and_resumes_to_the_bit_and_looks_once(new_run, settings, start):
    settings = settings.changed(**QUIET, steps=3, **start)
    whole, torn = new_run(settings), new_run(settings)
    seen = collect(whole)
    assert len(of(LayersSeen, seen)) == 1 and seen.index(of(LayersSeen, seen)[0]) < seen.index(of(Started, seen)[0])
    assert isinstance(seen[-1], Finished)
    for event in train(torn, settings):
        if isinstance(event, StepDone) and event.step == 3:
            break  # the worker dies here, one step after its checkpoint
    assert not of(LayersSeen, collect(torn))
    assert_same(state_tensors(whole), state_tensors(torn))
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_lora_ga_learns_on_packed_weights_and_leaves_a_plain_lora(new_run, settings, quantize):
    run = new_run(settings.changed(**QUIET, **LORA_GA, steps=2, quantize=quantize))
    seen = collect(run)
    assert isinstance(seen[-1], Finished) and not [one for one in of(Warned, seen) if "gradient" in one.what]
    made = adapters.read(run.adapter_file)
    assert {one.rank for one in made.factors.values()} == {4}
    assert max(one.delta().abs().max() for one in made.factors.values()) > 0


def test_a_start_changes_nothing_but_the_first_factors(session):
    """Random numbers, moments, gradients and the step are those of a run without it."""
    plain, along = session(), session(**EVA)
    list(measured_start.take(along))
    for name, parameter in along.parameters.items():
        assert torch.equal(parameter, plain.parameters[name]) == ("lora_B" in name), name
    assert along.step == 0 and not along.stepper.optimizer.state and not along.stepper.flat.gradients.any()


def test_copies_in_the_base_models_format_follow_the_start(session):
    """In bf16 the model computes with rounded copies; the float32 factors are what was found."""
    made = session(**EVA, precision="bf16")
    list(measured_start.take(made))
    copied = first_layer(made)[0]
    with made.stepper.flat.full_precision():
        own = first_layer(made)[0].detach().clone()
    assert copied.dtype == torch.bfloat16 and torch.equal(copied, own.bfloat16())
    assert torch.allclose(own @ own.T, torch.eye(2), atol=1e-5)


def test_what_is_not_finite_is_an_error_before_the_first_step(session, monkeypatch):
    """In fp16 at lower scales of the loss first: 2¹⁴, 2¹⁰, 2⁶, 4, 1."""
    made, scales = session(**LORA_GA), []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    made.stepper.scaler = scaler
    monkeypatch.setattr(made.stepper, "show", lambda batch: None)
    monkeypatch.setattr(measured_start.Sketch, "finite", lambda sketch: scales.append(scaler.get_scale()))
    scaler.scale(torch.zeros(()))  # it makes its scale when it is first needed
    with pytest.raises(RunError, match="NaN or infinite before anything was learned"):
        list(measured_start.take(made))
    assert scales == [2.0**14, 2.0**10, 2.0**6, 4.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "pissa", **EVA}, "PiSSA has a start of its own"),
        ({"method": "lora-ga", **EVA}, "LoRA-GA has a start of its own"),
        ({"method": "loha", **EVA}, "A LoHa starts from gaussian or kaiming"),
        ({"method": "lora-ga", "max_norm": 1.0}, "cannot scale what LoRA-GA learns"),
    ],
)
def test_starts_that_exclude_each_other_are_refused(settings, changes, said):
    with pytest.raises(SettingsError, match=said):
        settings.changed(**changes)


def test_a_method_that_has_no_first_factor_says_that_eva_has_no_effect(settings):
    assert [one.key for one in settings.changed(method="oft", **EVA).ignored()][-1:] == ["init"]

"""Steps in a smaller format, and recorded ones: what they compute is what single steps in float32 would, but for
rounding.
"""

import pytest
import torch
from PIL import Image

from lora_studio import adapters
from lora_studio.config.settings import Settings
from lora_studio.events import Started, StepDone, Warned
from lora_studio.models import fused
from lora_studio.training import devices, stepper
from lora_studio.training.loop import train
from lora_studio.training.prepare import prepare
from tests.dataset import made
from tests.models import tiny

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def changes(run) -> torch.Tensor:
    """The exported ΔW of all modules, end to end."""
    return torch.cat([one.delta().flatten() for one in adapters.read(run.adapter_file).factors.values()])


def trained(new_run, settings: Settings) -> tuple[torch.Tensor, list]:
    run = new_run(settings)
    events = list(train(run, run.settings()))
    return changes(run), events


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def quiet(settings: Settings, **more) -> Settings:
    return settings.changed(preview_every=0, validate_every=0, checkpoint_every=0, **more)


def prepared(run):
    """The session that a run begins with."""
    preparing = prepare(run, run.settings())
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            return end.value


def test_a_model_in_bf16_has_copies_of_float32_weights(new_run, settings):
    session = prepared(new_run(quiet(settings, precision="bf16")))
    assert {parameter.dtype for parameter in session.parameters.values()} == {torch.float32}
    assert {parameter.dtype for parameter in session.base.unet.parameters() if parameter.requires_grad} == {
        torch.bfloat16
    }
    down = next(iter(session.adapter().factors.values())).down
    assert not torch.equal(down, down.bfloat16().float()), "an export would have bf16's few digits"


def gradients(new_run, settings: Settings) -> torch.Tensor:
    """Of the first batch, with an adapter that has learned something already. Fused products round otherwise, and a
    tiny model's norms over single pixels make much of that.
    """
    session = prepared(new_run(settings))
    fused.disable(session.base.unet)
    flat = session.stepper.flat
    flat.values.add_(0.05 * torch.randn(len(flat.values), generator=torch.Generator().manual_seed(1)))
    flat.sync_copies()
    session.stepper.backward(session.data.batches.draw(0))
    return flat.gradients


def test_gradients_of_copies_are_those_of_float32_weights_under_autocast(new_run, settings, monkeypatch):
    settings = quiet(settings, precision="bf16")
    copies = gradients(new_run, settings)
    monkeypatch.setattr(devices.Machine, "copies", lambda *_: None)
    cast = gradients(new_run, settings)
    assert copies.dtype == torch.float32 and copies.any()
    assert apart(cast, copies) < 0.05


def test_the_same_batch_in_parts_gives_the_same_change(new_run, settings):
    """Accumulated gradients are those of the mean over all parts, and batches are drawn by number, so two of one
    picture are another two: only the scale is compared.
    """
    session = prepared(new_run(quiet(settings, accumulate=2)))
    batch = session.data.batches.draw(0)
    session.stepper.backward(batch)
    once = session.stepper.flat.gradients.clone()
    session.stepper.backward(batch)
    assert torch.allclose(session.stepper.flat.gradients, 2 * once, rtol=1e-4, atol=1e-5 * float(once.abs().max()))
    loss, norm = session.stepper.update()
    assert norm == pytest.approx(float((2 * once).norm()), rel=1e-4) and not session.stepper.flat.gradients.any()
    session.stepper.backward(batch)
    assert session.stepper.loss.item() < loss, "the loss is that of one step, and the step went downhill"


def test_a_look_at_the_adapter_leaves_it_as_it_was_to_the_bit(new_run, settings):
    """Schedule-free AdamW goes to another point for it and back, which rounds: each preview or saved state made it
    another run.
    """
    session = prepared(new_run(quiet(settings, optimizer="schedulefree", ema=0.9)))
    for number in range(3):
        session.stepper.backward(session.data.batches.draw(number))
        session.stepper.update()
        session.average.update()
    before = session.stepper.flat.values.clone()
    session.adapter()
    assert torch.equal(session.stepper.flat.values, before)


def test_after_a_loss_that_is_nan_a_scaled_step_continues(new_run, settings):
    """In fp16 the scaler counts the gradients that it has seen: not told of the step that was left out, it refused the
    next, and a run that went back ended with a traceback.
    """
    session = prepared(new_run(quiet(settings, precision="fp16")))
    batch, flat = session.data.batches.draw(0), session.stepper.flat
    before = flat.values.clone()
    session.stepper.backward(batch._replace(noise=batch.noise * float("nan")))
    outcome = session.stepper.update()
    assert outcome.loss != outcome.loss and torch.equal(flat.values, before) and not flat.gradients.any()
    session.stepper.backward(batch)
    assert session.stepper.update().loss > 0 and not torch.equal(flat.values, before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train_text": True}, "text encoders"),
        ({"quantize": "int8"}, "int8"),
        ({"cuda_graph": False}, "switched off"),
        ({"checkpointing": "all", "dropout": 0.1}, "dropout"),
        ({"checkpointing": "all"}, ""),
        ({"quantize": "nf4"}, ""),
    ],
)
def test_what_keeps_a_step_from_being_captured_is_said(change, reason):
    found = obstacle(Settings(**change), "cuda")
    assert reason in found and bool(found) == bool(reason)
    assert obstacle(Settings(), "cpu") == "there is no CUDA GPU"


def obstacle(settings: Settings, device: str) -> str:
    return stepper.obstacle(settings.adapter, settings.machine, torch.device(device))


def test_each_length_of_text_is_captured_for_itself(new_run, settings, monkeypatch):
    """As each bucket is: a graph reads what it was captured with, and no further."""
    session = prepared(new_run(quiet(settings)))
    captured: list[tuple] = []
    graphs = object.__new__(stepper.CudaGraphStepper)
    graphs.__dict__ |= session.stepper.__dict__ | {"_captured": {}, "_seen_shapes": set()}

    class Graph:
        def replay(self):
            pass

    def capture(shape, batch):
        captured.append(tuple(batch.text["hidden"].shape))
        graphs._captured[shape] = stepper.CapturedStep(Graph(), batch)

    monkeypatch.setattr(graphs, "_capture_step", capture)
    batch = session.data.batches.draw(0)
    for tokens in (77, 154, 77, 154, 231, 77, 154):
        text = {"hidden": batch.text["hidden"][:, :1].repeat(1, tokens, 1)}
        graphs.backward(batch._replace(text=text))
    assert captured == [(2, 77, 32), (2, 154, 32)]


def captured_like_single(new_run, settings: Settings) -> None:
    """Compares twelve captured steps with twelve single ones, and these with themselves."""
    recorded, events = trained(new_run, settings)
    single, again = (trained(new_run, settings.changed(cuda_graph=False))[0] for _ in range(2))
    assert next(event for event in events if isinstance(event, Started)).engine == "CUDA graph, fused kernels"
    assert (
        not [event.what for event in events if isinstance(event, Warned) and "captured" in event.what]
        and sum(isinstance(event, StepDone) for event in events) == 12
    )
    assert apart(single, recorded) < max(0.01, 2 * apart(single, again))


@GPU
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"accumulate": 2},
        {"optimizer": "adamw8bit"},
        {"optimizer": "prodigy", "learning_rate": 1.0},
        {"precision": "fp16"},
        {"method": "dora"},
        {"checkpointing": "all"},
        {"quantize": "nf4"},
        {"dropout": 0.2},
        {"ema": 0.9},
        {"precision": "fp32", "deterministic": True},
    ],
    ids=str,
)
def test_captured_steps_give_the_weights_of_single_ones(new_run, settings, more):
    """Twelve steps over pictures of two shapes: within 1 % of the change, or no further than two runs of single steps
    are from each other.
    """
    captured_like_single(new_run, quiet(settings, device="cuda", precision="bf16", steps=12).changed(**more))


@GPU
def test_captured_steps_resume_as_captured_after_a_stop(new_run, settings):
    settings = quiet(settings, device="cuda", steps=12, deterministic=False)
    whole, _ = trained(new_run, settings)
    run = new_run(settings.changed(checkpoint_every=6))
    events = train(run, run.settings())
    next(event for event in events if isinstance(event, StepDone) and event.step == 7)
    events.close()
    list(train(run, run.settings()))
    assert apart(whole, changes(run)) < 0.01


@GPU
def test_graphs_free_their_memory_and_are_captured_again(new_run, settings):
    session = prepared(new_run(quiet(settings, device="cuda")))
    batch = session.data.batches.draw(0)
    for _ in range(3):
        session.stepper.backward(batch)
        session.stepper.update()
    held = devices.free(session.machine.device)
    session.stepper.make_room(2**20)
    assert session.stepper._captured, "there was room"
    session.stepper.make_room(2**50)
    assert not session.stepper._captured and devices.free(session.machine.device) > held
    session.stepper.backward(batch)
    assert session.stepper.update().loss > 0 and not session.stepper.failed


@GPU
def test_a_captured_step_that_is_not_finite_changes_nothing(new_run, settings):
    """The processor learns of it only after the next step has begun: both are forgotten."""
    session = prepared(new_run(quiet(settings, device="cuda")))
    batch, flat = session.data.batches.draw(0), session.stepper.flat
    for _ in range(3):
        session.stepper.backward(batch)
        session.stepper.update()
    session.stepper.backward(batch._replace(noise=batch.noise * float("nan")))
    before, steps = flat.values.clone(), [state["step"].clone() for state in session.stepper.optimizer.state.values()]
    outcome = session.stepper.update(following=batch)
    assert (
        outcome.loss != outcome.loss
        and torch.equal(flat.values, before)
        and not session.stepper.next_started
        and not flat.gradients.any()
    )
    assert [state["step"] for state in session.stepper.optimizer.state.values()] == steps
    session.stepper.backward(batch)
    assert (
        session.stepper.update(following=batch).loss > 0
        and session.stepper.next_started
        and not torch.equal(flat.values, before)
    )


@GPU
@pytest.mark.parametrize("masks", [True, False])
def test_captured_steps_of_an_inpainting_model_give_the_weights_of_single_ones(
    new_run, settings, tiny_base, tmp_path, masks
):
    """Pictures of one shape, half of them with a mask."""
    folder = made.style_folder(tmp_path / "style", 6)
    for name in "024":
        Image.linear_gradient("L").resize((64, 64)).save(folder / f"{name}-masklabel.png")
    wide = tiny.inpainting(tmp_path / "inpainting", tiny_base)
    settings = quiet(settings, device="cuda", precision="bf16", steps=12, data=str(folder), base=str(wide))
    captured_like_single(new_run, settings.changed(masks=masks))

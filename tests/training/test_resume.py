"""Going on: again and again, from any state, under other settings, and after anything that may happen in between."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import adapters, files, models
from lora_studio.adapters import Adapter, Factors, recipe
from lora_studio.errors import AdapterError, RunError
from lora_studio.events import Finished, PreviewReady, Started, StepDone, Validated, Warned
from lora_studio.jobs import environment
from lora_studio.models import modules
from lora_studio.optim import build
from lora_studio.runs import branching, checkpoints
from lora_studio.training import checkpoint
from lora_studio.training.loop import train
from lora_studio.training.prepare import prepare
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors

_ADAPTER = "adapter.safetensors"
QUIET = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 1}
RANDOM = {
    "dropout": 0.3,
    "ema": 0.9,
    "accumulate": 2,
    "flip": True,
    "augment_copies": 2,
    "augment_rotation": 5,
    "augment_hue": 20,
    "shuffle_tags": True,
    "tag_dropout": 0.3,
    "word_dropout": 0.2,
    "caption_prefix": "an {old|new} print,",
    "caption_dropout": 0.5,
    "noise_offset": 0.1,
    "preserve_weight": 0.5,
    "preserve_every": 3,
    "preserve_class": "thing",
}


def stopped_after(run, step):
    """The run, its worker dead one event after a step."""
    for event in train(run, run.settings()):
        if isinstance(event, StepDone) and event.step == step:
            return


@pytest.mark.fault(44, 45)
def test_a_run_resumed_twice_ends_where_and_as_it_would_have(new_run, settings):
    """A step count that starts anew, or a schedule that does, would show in the second resume at the latest. Moments
    and averages too.
    """
    settings = settings.changed(**QUIET, **RANDOM)
    whole, torn = new_run(settings), new_run(settings)
    collect(whole)
    stopped_after(torn, 2)
    stopped_after(torn, 3)
    seen = collect(torn)
    assert of(Started, seen)[0].first_step == 2 and [event.step for event in of(StepDone, seen)] == [3, 4]
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))


def test_a_run_told_what_to_learn_from_at_every_control_resumes_bit_for_bit(new_run, settings):
    """And each layer keeps to the cap."""
    told = {
        "timestep_from": 0.2,
        "timestep_bias": "lognormal",
        "multires_discount": 0.4,
        "input_perturbation": 0.1,
        "loss": "logcosh",
        "huber_schedule": "snr",
        "weighting": "debiased",
        "max_norm": 0.01,
    }
    settings = settings.changed(**QUIET, **told)
    whole, torn = new_run(settings), new_run(settings)
    seen = collect(whole)
    assert all("has no effect" not in event.what for event in of(Warned, seen))
    stopped_after(torn, 2)
    collect(torn)
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))
    norms = [one.delta().norm().item() for one in adapters.read(whole.adapter_file).factors.values()]
    assert max(norms) == pytest.approx(0.01, rel=2e-3)


@pytest.mark.fault(90, 91)
def test_a_damaged_state_and_one_that_does_not_fit_are_named(new_run, settings, tmp_path):
    """Whatever was asked before: the log says from where the run resumed, and why not from the newest state. A VAE that
    moved fits.
    """
    vae = shutil.copy(Path(settings.run.base) / "vae" / "diffusion_pytorch_model.safetensors", tmp_path)
    run = new_run(settings.changed(**QUIET, vae=str(vae)))
    stopped_after(run, 3)
    (run.checkpoint(2) / "state.json").unlink()
    seen = []
    for event in train(run, run.settings().changed(vae=str(Path(vae).rename(tmp_path / "moved.safetensors")))):
        seen.append(event)
        if isinstance(event, Started):
            break
    assert of(Started, seen)[0].first_step == 1
    assert [event.what for event in of(Warned, seen) if "damaged" in event.what] == [
        "The saved state of step 2 is damaged: state.json is missing. The run goes back to step 1."
    ]
    with pytest.raises(RunError, match="step-1 does not fit the run's settings, which were changed since: rank"):
        list(train(run, run.settings().changed(rank=3, vae=str(tmp_path / "moved.safetensors"))))


@pytest.mark.fault(29)
def test_a_state_of_the_first_starter_is_not_resumed_on_the_present_one(new_run, settings):
    run = new_run(settings.changed(**QUIET))
    stopped_after(run, 2)
    state = run.checkpoint(1)
    save_file(load_file(state / _ADAPTER), state / _ADAPTER, {"ss_base_model_version": "lora_studio_starter"})
    manifest = state / checkpoints.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {_ADAPTER: files.sha256(state / _ADAPTER)}))
    with pytest.raises(
        AdapterError, match="made for the studio's first starter; the base model is the built-in starter"
    ):
        list(train(run, run.settings()))


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy", "schedulefree"])
def test_a_branch_trains_at_its_own_learning_rate(new_run, settings, optimizer, tmp_path):
    """The optimizer's state is taken over; the rate and weight decay in it are the parent's."""
    still = {"optimizer": optimizer, "learning_rate": 0.5, "schedule": "constant", "warmup": 0, "steps": 2}
    parent = new_run(settings.changed(**QUIET, **still))
    collect(parent)
    changed = parent.settings().changed(learning_rate=0.25, weight_decay=0.5, steps=4, name="slower")
    child = branching.branch(parent, 2, changed, tmp_path / "outputs")
    seen = of(StepDone, collect(child))
    assert [(event.step, event.learning_rate) for event in seen] == [(3, 0.25), (4, 0.25)]
    groups = checkpoint.load(checkpoints.latest(child))["optimizer"]["param_groups"]
    assert {(group["base_lr"], group["weight_decay"]) for group in groups} == {(0.25, 0.5)}


@pytest.mark.fault(44)
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_state_that_another_version_laid_out_otherwise_gives_its_weights_and_no_moments(
    new_run, settings, monkeypatch, optimizer
):
    """Moments know no names: those of one weight would move another, and nothing would say so."""
    run, real = new_run(settings.changed(**QUIET, optimizer=optimizer)), build.flat_optimizer
    with monkeypatch.context() as earlier:
        earlier.setattr(build, "flat_optimizer", lambda named, *more: real(reversed(list(named)), *more))
        stopped_after(run, 3)
    saved = checkpoint.load(checkpoints.latest(run), torch.device("cpu"))
    preparing, told = prepare(run, run.settings()), []
    with pytest.raises(StopIteration) as end:
        while True:
            told.append(next(preparing))
    session = end.value.value
    assert (
        session.step == 2
        and not session.stepper.optimizer.state
        and any("earlier version" in event.what for event in of(Warned, told))
    )
    assert all(torch.equal(parameter, saved["parameters"][name]) for name, parameter in session.parameters.items())
    assert isinstance(collect(run)[-1], Finished)


@pytest.mark.fault(44)
def test_a_branch_under_the_same_settings_is_the_rest_of_its_parent(new_run, settings):
    """From a state in the middle, which has newer ones behind it: they stay, and the branch comes to the same end, bit
    for bit.
    """
    parent = new_run(settings.changed(**QUIET, **RANDOM))
    collect(parent)
    run = branching.branch(parent, 1, parent.settings(), parent.folder.parent)
    seen = collect(run)
    assert of(Started, seen)[0].first_step == 1 and [saved.step for saved in checkpoints.listed(parent)] == [1, 2, 3, 4]
    assert {event.step for event in of(PreviewReady, seen) if event.base} == {1}, (
        "the film needs the base model's picture"
    )
    assert_same(tensors(parent.adapter_file), tensors(run.adapter_file))
    assert recipe.read(adapters.read(run.adapter_file).metadata).parent == "discs, step 1"
    assert recipe.read(adapters.read(parent.adapter_file).metadata).parent == ""


def test_a_branch_under_other_settings_begins_from_the_adapter(new_run, settings):
    """Rank 3 from rank 2: step 0 answers as the parent did, which the first validation shows."""
    parent = new_run(settings.changed(**QUIET | {"validate_every": 4}))
    before = collect(parent)
    run = branching.branch(
        parent, 4, parent.settings().changed(rank=3, optimizer="lion", steps=2), parent.folder.parent
    )
    seen = collect(run)
    assert of(Started, seen)[0].first_step == 0 and isinstance(seen[-1], Finished)
    assert (
        of(Validated, seen)[0].loss
        == pytest.approx(of(Validated, before)[-1].loss, rel=1e-4)
        != of(Validated, before)[0].loss
    )
    assert {one.rank for one in adapters.read(run.adapter_file).factors.values()} == {3}


def test_a_run_starts_from_a_file_and_names_it_in_its_recipe(new_run, settings, tmp_path):
    """Of rank 3 where the run trains rank 2, and with a text encoder's layer that it does not train."""
    query = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    base = models.load(settings.run.base)
    wide = {path: modules.weight_shape(modules.find(base.models, path)) for path in (query, text)}
    source = torch.Generator().manual_seed(0)
    factors = {
        path: Factors(torch.randn(3, into, generator=source), torch.randn(out, 3, generator=source), 3.0)
        for path, (out, into) in wide.items()
    }
    file = adapters.write(Adapter(factors), tmp_path / "ink.safetensors", metadata={"ss_clip_skip": "2"})
    digest = files.sha256(file)
    run = branching.create(settings.changed(**QUIET, steps=1, start_from=str(file)), tmp_path / "outputs")
    file.unlink()
    seen = collect(run)
    said = [event.what for event in of(Warned, seen)]
    S = torch.linalg.svdvals(factors[query].delta())
    kept = 1 - float(S[2] ** 2 / (S**2).sum())
    assert any(f"leaves out 1 of text_encoder, such as {text}" in one for one in said)
    assert any(f"is of rank 3. Rank 2 holds {kept:.1%} of its change" in one for one in said)
    assert any(one.endswith("was trained with clip skip 2. This run trains with 1.") for one in said)
    learned = adapters.read(run.adapter_file)
    assert recipe.read(learned.metadata).parent == f"ink.safetensors, sha256 {digest}"
    assert recipe.read(learned.metadata).settings["start_from"] == "ink.safetensors"
    off = (learned.factors[query].delta() - factors[query].delta()).norm() / factors[query].delta().norm()
    assert float(off) == pytest.approx((1 - kept) ** 0.5, abs=0.02), "one step moves it little"


def test_a_state_tells_what_it_came_from(new_run, settings):
    run = new_run(settings.changed(**QUIET, steps=1))
    collect(run)
    about = checkpoints.about(run.checkpoint(1))
    assert about["settings"] == run.settings().flat() and len(about["pictures"]) == 6
    assert branching.changes(run) == []


@pytest.mark.fault(35)
def test_a_resume_keeps_the_lower_rate_of_a_rollback(new_run, settings, monkeypatch):
    """Otherwise the resumed run would blow up at the same step again."""
    from lora_studio.training.batches import Batches

    real, broken = Batches.draw, {1}

    def draw(batches, number):
        batch = real(batches, number)
        return (
            batch._replace(noise=batch.noise * torch.nan) if number in broken and not broken.discard(number) else batch
        )

    monkeypatch.setattr(Batches, "draw", draw)
    run = new_run(settings.changed(**QUIET, schedule="constant", warmup=0))
    stopped_after(run, 3)
    rates = [event.learning_rate for event in of(StepDone, collect(run))]
    assert rates == pytest.approx([5e-3, 5e-3])


@pytest.fixture
def as_before():
    """Switches off again what a repeatable run switches on for its whole process."""
    kept = (
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
    )
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = kept[0]
    torch.backends.cuda.enable_mem_efficient_sdp(kept[1])
    torch.backends.cuda.enable_cudnn_sdp(kept[2])


@pytest.mark.fault(44)
def test_a_run_that_is_to_repeat_to_the_bit_trains_and_draws(new_run, settings, as_before, monkeypatch):
    """The switch makes torch refuse every operation that has no repeatable form: none of ours may be among them. A CPU
    shows it as well as a GPU.
    """
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", environment.CARD["CUBLAS_WORKSPACE_CONFIG"])
    assert isinstance(
        collect(new_run(settings.changed(deterministic=True, targets="attention+ff+conv", steps=1)))[-1], Finished
    )
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"

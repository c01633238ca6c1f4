"""Training the text encoders as well: what is changed, at which rate, that it resumes, and that the file holds it under
the names that others read.
"""

import pytest
import torch
from safetensors import safe_open

from lora_studio import adapters, models
from lora_studio.adapters import keys
from lora_studio.config.settings import Settings
from lora_studio.events import Finished, PreviewReady, Started, StepDone, Validated
from lora_studio.models import inject
from lora_studio.optim import build
from lora_studio.training.loop import train
from tests.models import tiny

LAYERS = {"sd1": {"text_encoder": 12}, "sd2": {"text_encoder": 23}, "sdxl": {"text_encoder": 12, "text_encoder_2": 32}}


@pytest.fixture(scope="session")
def sdxl_base(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp("base") / "tinyxl", "sdxl")


def of(kind, events_):
    return [event for event in events_ if isinstance(event, kind)]


def factors(path):
    return adapters.read(path).factors


@pytest.mark.parametrize(("targets", "each"), [("qv", 2), ("attention", 4), ("attention+ff+conv", 6)])
def test_every_layer_of_the_encoder_is_changed(tiny_base, targets, each):
    base = models.load(str(tiny_base))
    inject.add_adapter(base, Settings(rank=2, alpha=2, train_text=True, targets=targets).adapter, seed=0)
    text = [
        path for path in inject.read_adapter(base).factors if path.startswith("text_encoder.text_model.encoder.layers.")
    ]
    assert len(text) == each * 2
    plain = models.load(str(tiny_base))
    assert all(
        torch.equal(a, b)
        for a, b in zip(base.encode_text(["a cat"]).values(), plain.encode_text(["a cat"]).values(), strict=True)
    ), "step 0 reads as before"


@pytest.mark.parametrize(
    "changes", [{}, {"method": "dora"}, {"quantize": "nf4", "checkpointing": "all", "optimizer": "adamw8bit"}], ids=str
)
def test_a_run_trains_reads_back_and_previews_with_it(new_run, settings, changes):
    run = new_run(settings.changed(train_text=True, text_learning_rate=1e-2, dropout=0.1, **changes))
    seen = list(train(run, run.settings()))
    assert (
        isinstance(seen[-1], Finished) and of(Started, seen)[0].modules == 80 + 8 and len(of(PreviewReady, seen)) == 3
    )
    assert of(Validated, seen)[-1].loss != of(Validated, seen)[0].loss
    made = factors(run.adapter_file)
    text = {path: one for path, one in made.items() if path.startswith("text_encoder.")}
    assert len(text) == 8 and all(one.up.any() for one in text.values())
    with safe_open(run.adapter_file, "pt") as file:
        assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in file.keys()


def test_both_encoders_of_sdxl_learn_and_leave_under_their_own_names(new_run, settings, sdxl_base):
    """The first one's last layer is not heard by SDXL, which reads the layer before, so it alone learns nothing."""
    run = new_run(
        settings.changed(
            base=str(sdxl_base),
            train_text=True,
            text_learning_rate=1e-2,
            steps=2,
            preview_every=0,
            validate_every=0,
            checkpoint_every=0,
            weight_decay=0,
        )
    )
    seen = list(train(run, run.settings()))
    made = factors(run.adapter_file)
    for component, layers in LAYERS["sdxl"].items():
        learned = {path for path, one in made.items() if path.startswith(f"{component}.") and one.up.any()}
        heard = layers - (component == "text_encoder")
        assert len(learned) == 4 * heard, component
    assert isinstance(seen[-1], Finished)
    with safe_open(run.adapter_file, "pt") as file:
        assert any(key.startswith("lora_te2_text_model_encoder_layers_31_") for key in file.keys())
    assert (
        keys.to_kohya("text_encoder.text_model.encoder.layers.3.self_attn.q_proj", "sdxl")
        == "lora_te1_text_model_encoder_layers_3_self_attn_q_proj"
    )
    base = models.load(str(sdxl_base))
    plain = base.encode_text(["disc"])
    inject.load_adapters(base, [(adapters.read(run.adapter_file), 1.0)])
    changed = base.encode_text(["disc"])
    assert not torch.equal(plain["hidden"], changed["hidden"]) and not torch.equal(plain["pooled"], changed["pooled"])


def test_a_resumed_run_is_the_run_that_was_never_stopped(new_run, settings):
    """Bit for bit, with dropout in the text encoders, averages and accumulation; previews and validations between steps
    leave no trace.
    """
    settings = settings.changed(
        train_text=True, dropout=0.3, ema=0.9, accumulate=2, shuffle_tags=True, caption_dropout=0.5, checkpoint_every=2
    )
    whole, torn = new_run(settings.changed(preview_every=0, validate_every=0)), new_run(settings)
    list(train(whole, whole.settings()))
    for event in train(torn, torn.settings()):
        if isinstance(event, StepDone) and event.step == 3:
            break
    seen = list(train(torn, torn.settings()))
    assert of(Started, seen)[0].first_step == 2
    left, right = factors(whole.adapter_file), factors(torn.adapter_file)
    assert left.keys() == right.keys() and all(
        torch.equal(left[path].up, right[path].up) and torch.equal(left[path].down, right[path].down) for path in left
    )


def test_the_encoders_have_a_rate_of_their_own_and_loraplus_goes_for_them_too():
    named = [
        (name, torch.nn.Parameter(torch.ones(2, 2)))
        for name in (
            "unet.q.lora_A.style.weight",
            "unet.q.lora_B.style.weight",
            "text_encoder.q.lora_A.style.weight",
            "text_encoder_2.q.lora_B.style.weight",
        )
    ]
    found = build.groups(named, Settings(learning_rate=1e-3, text_learning_rate=1e-5, lora_plus=4).optimizer)
    assert [group["lr"] for group in found] == pytest.approx([1e-3, 4e-3, 1e-5, 4e-5])
    (one,) = build.groups(named, Settings(optimizer="prodigy", learning_rate=1.0).optimizer)
    assert len(one["params"]) == 4, "Prodigy takes one rate"


def test_an_encoder_under_training_stays_on_the_device_and_the_others_take_turns(tiny_base):
    """Moving it would tear its parameters out of the optimizer's buffer."""
    base = models.load(str(tiny_base))
    base.in_turn = True
    base.encoders_to("meta")
    assert base.vae.device.type == "meta"
    base = models.load(str(tiny_base))
    inject.add_adapter(base, Settings(rank=2, alpha=2, train_text=True).adapter, seed=0)
    base.encoders_to("meta")
    assert base.vae.device.type == "meta" and base.text_encoders["text_encoder"].device.type == "cpu"
    base.encode_text(["a cat"])
    assert base.vae.device.type == "meta"
    with inject.without_adapter(base):  # as for the base model's previews, in which nothing has gradients
        base.encoders_to("meta")
    assert base.text_encoders["text_encoder"].device.type == "cpu"

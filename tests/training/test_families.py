"""docs/families.md says that a family is one file: here two are added in this one, and whole runs go through.

The first is as unlike Stable Diffusion as a family can be: a transformer in the UNet's place, trained as a rectified
flow. The second is a UNet of another topology with one condition more.
"""

import json
import re
import shutil
from functools import cached_property
from pathlib import Path

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import nn

from lora_studio import adapters, models
from lora_studio.adapters import proof
from lora_studio.cli import dry_run
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.errors import ModelError, SettingsError
from lora_studio.events import Finished, PreviewReady, Validated
from lora_studio.families import registry
from lora_studio.families.family import Family
from lora_studio.families.latent_diffusion import LatentDiffusion
from lora_studio.families.shapes import Shapes
from lora_studio.methods.method import LayerShape
from lora_studio.models import gradient_checkpointing, inject, shapes
from lora_studio.training import memory
from lora_studio.training.activations import Activations, Step
from lora_studio.training.loop import train
from tests.models import tiny

WIDTH, CONTEXT, DEPTH = 32, 32, 2


class Block(nn.Module):
    """Attention to the picture and the text together, and a feed-forward layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.Linear(WIDTH, WIDTH)
        self.ff_up, self.ff_down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, text):
        both = torch.cat([self.norm(x), text], dim=1)
        x = x + self.to_out(F.scaled_dot_product_attention(self.to_q(x), self.to_k(both), self.to_v(both)))
        return x + self.ff_down(F.gelu(self.ff_up(x)))


class TinyTransformer(ModelMixin, ConfigMixin):
    """A diffusion transformer (Peebles & Xie 2023) in its smallest form: patches, time and text in, patches out."""

    @register_to_config
    def __init__(self, in_channels=4, sample_size=8):
        super().__init__()
        self.patch_in, self.patch_out = nn.Conv2d(in_channels, WIDTH, 2, 2), nn.Linear(WIDTH, 4 * in_channels)
        self.time_in, self.text_in = nn.Linear(WIDTH, WIDTH), nn.Linear(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, latents, text, timesteps):
        patches, waves = self.patch_in(latents), torch.arange(1, WIDTH // 2 + 1, device=latents.device)
        angles = timesteps.expand(len(latents))[:, None] / 1000 * waves
        time = self.time_in(torch.cat([angles.sin(), angles.cos()], dim=1).to(latents.dtype))
        x, text = patches.flatten(2).transpose(1, 2) + time[:, None], self.text_in(text)
        for block in self.blocks:
            x = block(x, text)
        return F.pixel_shuffle(self.patch_out(x).transpose(1, 2).unflatten(2, patches.shape[2:]), 2)


class TransformerFamily(Family):
    """All that the studio has to be told about it."""

    name, title = "tiny-dit", "a tiny transformer"
    denoiser = "transformer"
    classes = {
        "transformer": f"{__name__}.TinyTransformer",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
    }
    targets = {
        "qv": r"to_[qv]$",
        "attention": r"to_(?:q|k|v|out)$",
        "attention+ff": r"to_(?:q|k|v|out)$|ff_(?:up|down)$",
        "attention+ff+conv": r"to_(?:q|k|v|out)$|ff_(?:up|down)$|patch_in$",
    }
    text_targets = LatentDiffusion.text_targets
    roots = ("blocks", "patch_in", "patch_out", "time_in", "text_in")
    words = r"(?:patch|time|text)_(?:in|out)|to_(?:q|k|v|out)|ff_(?:up|down)"

    def owns_folder(self, denoiser):
        return denoiser["_class_name"] == "TinyTransformer"

    @cached_property
    def modules(self):
        square, found = (WIDTH, WIDTH), {"transformer.patch_in": (WIDTH, 4, 2, 2)}
        for index in range(DEPTH):
            found |= {f"transformer.blocks.{index}.to_{name}": square for name in ("q", "k", "v", "out")}
            found[f"transformer.blocks.{index}.ff_up"] = (4 * WIDTH, WIDTH)
            found[f"transformer.blocks.{index}.ff_down"] = (WIDTH, 4 * WIDTH)
        return found

    def encode_text(self, encoders, tokens, captions, clip_skip):
        return {"hidden": encoders["text_encoder"](tokens[0]).last_hidden_state}

    def predict(self, denoiser, noisy, timesteps, text, sizes):
        return denoiser(noisy, text["hidden"], timesteps)


def walk(found_shapes: Shapes, step: Step) -> Activations:
    """What a step keeps of the transformer, roughly: enough to see that a family's own estimate is asked."""
    found = Activations(step)
    tokens = step.batch * (step.side // found_shapes.scale // 2) ** 2
    square, up, down = LayerShape(WIDTH, WIDTH), LayerShape(WIDTH, 4 * WIDTH), LayerShape(4 * WIDTH, WIDTH)
    for index in range(DEPTH):
        path = f"transformer.blocks.{index}"
        kept = sum(found.changed(f"{path}.to_{name}", square, tokens) for name in ("q", "k", "v", "out"))
        kept += found.changed(f"{path}.ff_up", up, tokens) + found.changed(f"{path}.ff_down", down, tokens)
        found.add(0, kept + 12 * tokens * WIDTH * step.element)
    return found


class EstimatedTransformer(TransformerFamily):
    """With an estimate of its memory, in the same file too."""

    memory = f"{__name__}.walk"


class TwoLevels(LatentDiffusion):
    """A UNet with two levels that is given the mean of the text as well."""

    name, title = "two", "Two Levels"
    modules = {}

    def owns_folder(self, denoiser):
        return len(denoiser["block_out_channels"]) == 2

    def encode_text(self, encoders, tokens, captions, clip_skip):
        hidden = encoders["text_encoder"](tokens[0]).last_hidden_state
        return {"hidden": hidden, "mean": hidden.mean(dim=1, keepdim=True)}

    def conditions(self, text, sizes):
        return {"encoder_hidden_states": torch.cat([text["hidden"], text["mean"]], dim=1)}


def transformer_folder(path: Path) -> Path:
    """A diffusers folder of the transformer, with a tiny SD 1's text encoder and VAE."""
    made = tiny.folder(path, "sd1")
    shutil.rmtree(made / "unet")
    torch.manual_seed(0)
    TinyTransformer().save_pretrained(made / "transformer")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(made / "scheduler")
    return _called(made, "TinyTransformerPipeline")


def two_levels_folder(path: Path) -> Path:
    """A tiny SD 1 with another UNet."""
    made = tiny.folder(path, "sd1")
    config = tiny.config("sd1", "unet") | {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config).save_pretrained(made / "unet")
    return _called(made, "TwoLevelsPipeline")


def _called(made: Path, pipeline: str) -> Path:
    index = json.loads((made / "model_index.json").read_text())
    (made / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline}))
    return made


@pytest.fixture
def register(monkeypatch):
    """Adds a family to the registry for one test."""
    return lambda family: monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, family))


def trained(run) -> list:
    """The run's events, once it has validated, previewed and finished."""
    seen = list(train(run, run.settings()))
    assert isinstance(seen[-1], Finished)
    assert all(event.loss > 0 for event in seen if isinstance(event, Validated))
    assert [event for event in seen if isinstance(event, Validated)]
    assert [event for event in seen if isinstance(event, PreviewReady) and not event.base]
    return seen


def changed_by(base, adapter) -> float:
    """How much ``adapter`` changes what ``base`` predicts."""
    given = torch.randn(1, 4, 8, 8), base.process.evenly(1), base.encode_text(["a disc"])
    before = base.predict(*given)
    inject.load_adapters(base, [(adapter, 1.0)])
    after = base.predict(*given)
    inject.unload_adapters(base)
    assert torch.equal(base.predict(*given), before) and after.isfinite().all()
    return (after - before).abs().max().item()


@pytest.mark.parametrize("targets", ["attention+ff+conv"])
def test_a_transformer_that_flows_trains_validates_previews_exports_and_reloads(
    targets, tmp_path, new_run, settings, register
):
    register(TransformerFamily())
    folder = transformer_folder(tmp_path / "dit")
    run = new_run(settings.changed(base=str(folder), steps=2, preview_every=0, targets=targets, sampler="euler"))
    trained(run)
    base, adapter = models.load(str(folder)), adapters.read(run.adapter_file)
    assert base.family.name == adapter.family == "tiny-dit" and isinstance(base.process, RectifiedFlow)
    layers = {path for path in TransformerFamily().modules if re.search(TransformerFamily.targets[targets], path)}
    assert set(adapter.factors) == layers and "transformer.patch_in" in layers
    assert changed_by(base, adapter) > 0
    for dialect in ("kohya", "diffusers", "peft"):
        made = proof.export(adapter, tmp_path / f"{dialect}.safetensors", dialect)
        assert made.proof.passed and set(adapters.read(made.path).factors) == set(adapter.factors)


def test_its_text_encoder_trains_with_it(tmp_path, new_run, settings, register):
    register(TransformerFamily())
    folder = transformer_folder(tmp_path / "dit")
    run = new_run(settings.changed(base=str(folder), steps=1, preview_every=0, sampler="dpm++", train_text=True))
    trained(run)
    components = {path.partition(".")[0] for path in adapters.read(run.adapter_file).factors}
    assert components == {"transformer", "text_encoder"}


def test_its_shapes_are_read_without_weights(tmp_path, register):
    register(TransformerFamily())
    found = shapes.read(str(transformer_folder(tmp_path / "dit")))
    count = sum(weight.numel() for weight in TinyTransformer().parameters())
    assert (found.family, found.resolution, found.parameters["transformer"]) == ("tiny-dit", 64, count)


def test_memory_is_estimated_where_the_family_says_what_a_step_keeps(tmp_path, register, settings):
    register(EstimatedTransformer())
    folder = transformer_folder(tmp_path / "dit")
    changed = settings.changed(targets="attention+ff", base=str(folder))
    found = memory.estimate(changed, shapes.read(str(folder)), "fp32")
    trained = sum(2 * sum(shape) for shape in TransformerFamily().modules.values() if len(shape) == 2)  # rank 2
    assert found.adapter == 4 * trained and found.activations > 0


def test_memory_that_cannot_be_estimated_is_measured(tmp_path, register, settings, capsys):
    register(TransformerFamily())
    folder = transformer_folder(tmp_path / "dit")
    with pytest.raises(ModelError, match="cannot be estimated"):
        memory.estimate(settings, shapes.read(str(folder)), "fp32")
    changed = settings.changed(base=str(folder), sampler="euler")
    assert memory.suggest(changed, "fp32", 2**30) == {}
    dry_run.tell(changed, tmp_path / "outputs", as_json=False)
    told = capsys.readouterr().out
    assert "cannot be estimated. It is measured instead." in told and "Measured: " in told and "It fits." in told


def test_what_it_cannot_do_is_said(tmp_path, register):
    register(TransformerFamily())
    base = models.load(str(transformer_folder(tmp_path / "dit")))
    gradient_checkpointing.enable(base.unet, "off")
    with pytest.raises(SettingsError, match="does not support gradient checkpointing"):
        gradient_checkpointing.enable(base.unet, "all")


def test_a_unet_of_another_topology_trains_too(tmp_path, new_run, settings, register):
    register(TwoLevels())
    folder = two_levels_folder(tmp_path / "two")
    run = new_run(settings.changed(base=str(folder), steps=2, preview_every=0))
    trained(run)
    loaded = models.load(str(folder))
    assert loaded.family.name == "two" and changed_by(loaded, adapters.read(run.adapter_file)) > 0

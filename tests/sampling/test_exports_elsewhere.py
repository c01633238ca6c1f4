"""An exported adapter, loaded by diffusers' own ``load_lora_weights``, must draw what the trained model drew."""

import diffusers
import pytest
import torch

from lora_studio import adapters, models
from lora_studio.config.settings import Settings
from lora_studio.models import inject
from lora_studio.sampling.denoise import Sampling, denoise
from lora_studio.sampling.guided import PromptFeatures

CLASSES = {
    "sd1": diffusers.StableDiffusionPipeline,
    "sd2": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
}


@torch.no_grad()
def _trained(folder, **settings):
    base = models.load(str(folder))
    inject.add_adapter(base, Settings(**({"rank": 4, "alpha": 2} | settings)).adapter, seed=0)
    torch.manual_seed(0)
    for parameter in inject.trainable(base).values():
        parameter += 0.1 * torch.randn_like(parameter)
    base.unet.eval()
    return base


def _draw(base):
    shown = PromptFeatures(base.encode_text(["a cat"]), base.encode_text(["bad"]))
    return denoise(base, shown, [5], Sampling("ddim", 2, 4.0, 64, 64))


def _pipeline(folder, family):
    pipeline = CLASSES[family].from_pretrained(str(folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def _draw_there(pipeline):
    return pipeline(
        ["a cat"],
        negative_prompt=["bad"],
        num_inference_steps=2,
        guidance_scale=4.0,
        width=64,
        height=64,
        output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images


@pytest.mark.parametrize(
    ("family", "dialect", "settings"),
    [
        ("sd1", "kohya", {"targets": "attention+ff+conv"}),
        ("sd1", "diffusers", {"targets": "attention+ff+conv"}),
        ("sd1", "kohya", {"method": "pissa", "rslora": True}),
        ("sd2", "kohya", {"targets": "attention+ff"}),
        ("sdxl", "kohya", {"targets": "attention+ff+conv"}),
    ],
    ids=str,
)
def test_diffusers_draws_the_same(family, dialect, settings, tiny_folder, tmp_path):
    """alpha ≠ rank, so a reader or writer that drops alpha fails."""
    base = _trained(tiny_folder(family), **settings)
    trained = _draw(base)
    with inject.without_adapter(base):
        assert (_draw(base) - trained).abs().max() > 1e-2, "the adapter changes the picture"
    path = adapters.write(inject.read_adapter(base), tmp_path / "style.safetensors", dialect=dialect)
    pipeline = _pipeline(tiny_folder(family), family)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert torch.allclose(_draw_there(pipeline), trained, atol=2e-3)


def test_reading_it_back_draws_the_same(tiny_folder, tmp_path):
    base = _trained(tiny_folder("sd1"), targets="attention+ff+conv")
    trained = _draw(base)
    path = adapters.write(inject.read_adapter(base), tmp_path / "style.safetensors")
    inject.remove(base)
    inject.load_adapters(base, [(adapters.read(path), 1.0)])
    # it is folded into the weights, whose other rounding an untrained model enlarges; the values are up to 4
    assert torch.allclose(_draw(base), trained, atol=2e-3)

"""Inpainting models as the text-to-image models that they also are, against diffusers' inpainting pipeline."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file, save_file

from lora_studio import models
from lora_studio.models import modules, shapes

CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"


def _wide(weight, extra):
    """A first convolution for nine channels: the four of ``weight``, and five more."""
    torch.manual_seed(0)
    more = torch.randn(weight.shape[0], 5, 3, 3) if extra else torch.zeros(weight.shape[0], 5, 3, 3)
    return torch.cat([weight, more], dim=1)


def _file(path, source, extra=True):
    tensors = load_file(source)
    save_file(tensors | {CONV_IN: _wide(tensors[CONV_IN], extra)}, path, {"modelspec.prediction_type": "epsilon"})
    return path


@pytest.fixture
def inpainting(tmp_path, tiny_folder):
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "inpaint")
    weights, config = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "unet" / "config.json"
    tensors = load_file(weights)
    save_file(tensors | {"conv_in.weight": _wide(tensors["conv_in.weight"], True)}, weights)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionInpaintPipeline"}))
    return models.load(str(folder))


def _seen(base, noisy):
    """What the UNet is given."""
    seen = []
    hook = base.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    base.predict(noisy, torch.tensor(500), base.encode_text(["a cat"] * len(noisy)))
    hook.remove()
    return seen[0]


def test_the_unet_sees_what_the_reference_shows_for_a_mask_of_everything(inpainting, monkeypatch):
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    reference = StableDiffusionInpaintPipeline(
        inpainting.vae, None, None, inpainting.unet, None, None, None, requires_safety_checker=False
    )
    picture = torch.rand(1, 3, 64, 128) * 2 - 1
    mask = torch.ones(1, 1, 64, 128)
    mask, masked = reference.prepare_mask_latents(
        mask, picture * (mask < 0.5), 2, 64, 128, torch.float32, torch.device("cpu"), None, False
    )
    noisy = torch.randn(2, 4, 8, 16)
    assert torch.allclose(_seen(inpainting, noisy), torch.cat([noisy, mask, masked], dim=1), atol=1e-6)
    assert (_seen(inpainting, noisy)[:, 4] == 1).all()


def test_it_is_of_the_family_of_the_plain_model(inpainting):
    assert (inpainting.family.name, inpainting.channels, inpainting.resolution) == ("starter", 4, 128)
    assert "inpainting model" in inpainting.notices[-1].what


def test_a_file_that_ignores_its_mask_answers_as_the_plain_model(tmp_path, tiny_file):
    """Its first convolution has zeros for the five channels more, as when such a training begins."""
    path = _file(tmp_path / "inpaint.safetensors", tiny_file("sd1"), extra=False)
    wide, plain = models.load(str(path)), models.load(str(tiny_file("sd1")))
    assert wide.unet.config.in_channels == 9
    noisy, text = torch.randn(2, 4, 16, 16), plain.encode_text(["a cat", "a dog"])
    when = torch.tensor([10, 900])
    assert torch.allclose(wide.predict(noisy, when, text), plain.predict(noisy, when, text), atol=1e-5)
    assert shapes.read(str(path)).unet["in_channels"] == 9


def test_no_layer_to_train_takes_the_mask(inpainting):
    """So adapters fit the model with inpainting and without."""
    for pattern in inpainting.family.targets.values():
        assert not any("conv_in" in name for name in modules.targets(inpainting.unet, pattern))

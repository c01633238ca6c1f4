"""Inpainting models as the text-to-image models that they also are, against diffusers' inpainting pipeline."""

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file, save_file

from lora_studio import models
from lora_studio.models import modules, shapes
from tests.models import tiny

CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"


def _file(path, source, extra=True):
    tensors = load_file(source)
    save_file(tensors | {CONV_IN: tiny.wide(tensors[CONV_IN], extra)}, path, {"modelspec.prediction_type": "epsilon"})
    return path


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory, tiny_folder):
    return models.load(str(tiny.inpainting(tmp_path_factory.mktemp("wide") / "inpaint", tiny_folder("sd1"))))


@pytest.fixture
def reference(inpainting, monkeypatch):
    """diffusers' pipeline, with the mean in place of random latents around it."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    return StableDiffusionInpaintPipeline(
        inpainting.vae, None, None, inpainting.unet, None, None, None, requires_safety_checker=False
    )


def _shown(reference, picture, mask):
    """What the pipeline shows of ``picture``, (B, 5, h, w)."""
    mask = reference.mask_processor.preprocess(mask.clone())
    size = picture.shape[-2:]
    return torch.cat(
        reference.prepare_mask_latents(
            mask, picture * (mask < 0.5), len(picture), *size, torch.float32, torch.device("cpu"), None, False
        ),
        dim=1,
    )


def _seen(base, noisy, *more):
    """What the UNet is given."""
    seen = []
    hook = base.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    base.predict(noisy, torch.tensor(500), base.encode_text(["a cat"] * len(noisy)), None, *more)
    hook.remove()
    return seen[0]


def test_the_unet_sees_what_the_reference_shows_for_a_mask_of_everything(inpainting, reference):
    picture, noisy = torch.rand(2, 3, 64, 128) * 2 - 1, torch.randn(2, 4, 8, 16)
    expected = torch.cat([noisy, _shown(reference, picture, torch.ones(2, 1, 64, 128))], dim=1)
    assert torch.allclose(_seen(inpainting, noisy), expected, atol=1e-6)
    assert (_seen(inpainting, noisy)[:, 4] == 1).all()


def test_the_unet_sees_what_the_reference_shows_for_a_mask_of_a_part(inpainting, reference):
    """White, light and dark grey, black; 37 is no seam between latents."""
    picture, noisy = torch.rand(2, 3, 64, 128) * 2 - 1, torch.randn(2, 4, 8, 16)
    mask = torch.zeros(2, 1, 64, 128)
    mask[:, :, :, :37], mask[1, :, :, 37:80], mask[1, :, :, 80:96] = 1, 0.5, 0.49
    seen = _seen(inpainting, noisy, inpainting.encode_masked(picture, mask))
    assert torch.allclose(seen, torch.cat([noisy, _shown(reference, picture, mask)], dim=1), atol=1e-6)
    assert seen[:, 4, 3].tolist() == [[1] * 5 + [0] * 11, [1] * 10 + [0] * 6]


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

"""Drawing over a picture, the second pass and the picture as it forms, against diffusers' own pipeline and the VAE."""

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lora_studio import files, models
from lora_studio.diffusion.gaussian import Velocity
from lora_studio.diffusion.samplers import DECLARED, SAMPLERS
from lora_studio.errors import SettingsError
from lora_studio.sampling import forming
from lora_studio.sampling.denoise import Start, Watch, denoise
from lora_studio.sampling.generate import generate, sampling
from lora_studio.sampling.guided import PromptFeatures
from lora_studio.sampling.image_settings import FromImage, Hires, ImageSettings
from lora_studio.sampling.passes import latents_of
from lora_studio.sampling.start import from_image, opened
from tests.models import tiny

PROMPTS, NEGATIVE, SEEDS = ["a cat, flat style", "a dog"], "blurry", [3, 11]
SMALL = ImageSettings(negative=NEGATIVE, steps=5, width=128, height=64)


@pytest.fixture(scope="module")
def base(tiny_folder):
    return models.load(str(tiny_folder(tiny.SHALLOW)))


@pytest.fixture(scope="module")
def pipeline(tiny_folder):
    made = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        str(tiny_folder(tiny.SHALLOW)), local_files_only=True
    )
    made.set_progress_bar_config(disable=True)
    return made


def theirs(pipeline, sampler, image, strength, steps=5, prediction="v_prediction"):
    """Latents of diffusers' image-to-image pipeline, over a picture or over latents."""
    given, how = pipeline.scheduler, {"prediction_type": prediction, **DECLARED[sampler].options}
    pipeline.scheduler = getattr(diffusers, SAMPLERS[sampler]).from_config(given.config, **how)
    try:
        return pipeline(
            PROMPTS,
            image=image,
            strength=strength,
            negative_prompt=[NEGATIVE] * 2,
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            eta=0.3 if sampler == "tcd" else 0.0,
            output_type="latent",
        ).images
    finally:
        pipeline.scheduler = given


@pytest.fixture
def shown(base, monkeypatch):
    """The prompts, for a model that predicts v: an untrained one that predicts noise makes much of its rounding."""
    monkeypatch.setattr(base, "process", Velocity(base.process.schedule))
    return PromptFeatures(base.encode_text(PROMPTS), base.encode_text([NEGATIVE]))


def noise_picture(width=128, height=64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_drawn_over_as_diffusers_does(sampler, strength, base, pipeline, shown):
    """Other steps for a strength, noise of another level, or latents that are drawn in another order."""
    how = sampling(base, SMALL.changed(sampler=sampler))
    ours = denoise(base, shown, SEEDS, how, from_image(base, noise_picture(), how, strength))
    expected = theirs(pipeline, sampler, [noise_picture()] * 2, strength)
    assert torch.allclose(ours, expected, atol=2e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_second_pass_refines_enlarged_latents_as_diffusers_does(sampler, base, pipeline, shown):
    settings = SMALL.changed(sampler=sampler, hires=Hires(scale=1.5, strength=0.6, steps=5))
    ours = latents_of(base, shown, SEEDS, sampling(base, settings))
    first = denoise(base, shown, SEEDS, sampling(base, SMALL.changed(sampler=sampler)))
    assert ours.shape == (2, 4, 12, 24)
    expected = theirs(pipeline, sampler, F.interpolate(first, (12, 24), mode="bilinear"), 0.6)
    assert torch.allclose(ours, expected, atol=2e-4)


def test_the_second_pass_takes_the_pictures_steps_unless_it_has_its_own(base):
    first, own = (sampling(base, SMALL.changed(hires=Hires(steps=steps))) for steps in (0, 9))
    assert (first.last.steps, own.last.steps, own.steps) == (5, 9, 5)
    assert (first.last.width, first.last.height) == (256, 128)
    odd = sampling(base, ImageSettings(width=64, height=64, hires=Hires(scale=1.3)))
    assert odd.last.width == 80, "83.2, of which the latents have a tenth of a pixel too much"


def test_no_strength_leaves_the_picture(base, shown):
    how = sampling(base, SMALL)
    start = Start(torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(0)), 0.0)
    assert torch.equal(denoise(base, shown, SEEDS, how, start), start.latents.expand(2, -1, -1, -1))
    enlarged = latents_of(base, shown, SEEDS, sampling(base, SMALL.changed(hires=Hires(scale=2, strength=0))))
    assert torch.equal(enlarged, F.interpolate(denoise(base, shown, SEEDS, how), (16, 32), mode="bilinear"))


def test_all_pictures_start_from_the_same_one_with_noise_of_their_own(base):
    settings = ImageSettings(steps=4, width=64, height=64, guidance=1)
    start = from_image(base, noise_picture(), sampling(base, settings), 0.5)
    one, other = generate(base, ["a cat"] * 2, [1, 2], settings, start=start)
    assert one.tobytes() != other.tobytes()
    [alone] = generate(base, ["a cat"], [2], settings, start=start)
    assert np.abs(np.asarray(alone, int) - np.asarray(other, int)).max() <= 1


def test_a_picture_of_another_shape_gives_its_middle(base):
    how = sampling(base, ImageSettings(width=64, height=64))
    wide = Image.new("RGB", (256, 64), "red")
    wide.paste(Image.new("RGB", (64, 64), "teal"), (96, 0))
    same = from_image(base, Image.new("RGB", (64, 64), "teal"), how, 0.5)
    assert torch.equal(from_image(base, wide, how, 0.5).latents, same.latents)


def test_a_file_that_changed_or_is_no_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    noise_picture().save(path)
    start = FromImage(path=str(path), sha256=files.sha256(path))
    assert opened(start).size == (128, 64)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(SettingsError, match="a.png has changed since it was chosen"):
        opened(start)
    path.write_text("no picture")
    with pytest.raises(SettingsError, match="a.png cannot be read as a picture"):
        opened(FromImage(path=str(path), sha256=files.sha256(path)))


# While it forms


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_clean_latents_of_the_last_step_are_those_that_are_drawn(sampler, base, shown):
    """What forms ends as the picture; and each step is told with its number."""
    told = []
    how = sampling(base, SMALL.changed(sampler=sampler, steps=12))
    drawn = denoise(base, shown, SEEDS, how, watch=Watch(seen=lambda step: told.append((step[:2], step.clean()))))
    assert [number for number, _ in told] == [(number, 12) for number in range(1, 13)]
    apart = [float((clean - drawn).norm() / drawn.norm()) for _, clean in told]
    assert apart[-1] < 0.05 and apart[-1] < apart[0]


def test_the_linear_map_undoes_an_encoder_that_is_linear(base, monkeypatch):
    weight, bias = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([1.0, -2.0, 0.5, 0.0])

    def encode(self, pixels):
        small = F.avg_pool2d(pixels, 8)
        return torch.einsum("bdhw,cd->bchw", small, weight) + bias[:, None, None], None

    monkeypatch.setattr(models.Base, "encode_images", encode)
    pixels = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    drawn = forming.colours(encode(base, pixels * 2 - 1)[0], forming.linear_map(base))
    assert torch.allclose(drawn, F.avg_pool2d(pixels, 8), atol=1e-4)


def test_a_rough_picture_of_the_starter_is_close_to_the_decoded_one():
    """The page shows a blur of wrong colours. The best map for a picture by itself reaches about 22 dB."""
    starter, kept = models.load("starter"), []
    settings = ImageSettings(steps=8, guidance=4)
    [whole] = generate(starter, ["a red apple"], [1], settings, seen=lambda step: kept.append(step.clean()))
    [rough] = forming.rough(starter, kept[-1])
    assert rough.size == (16, 16)
    small = np.asarray(whole.resize((16, 16), Image.Resampling.BOX), float)
    error = np.square(np.asarray(rough, float) - small).mean()
    assert 10 * np.log10(255**2 / error) > 18

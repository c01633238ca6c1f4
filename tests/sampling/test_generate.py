"""The denoising loop, against diffusers' own pipelines."""

import itertools
from dataclasses import replace

import diffusers
import pytest
import torch

from lora_studio import models
from lora_studio.adapters import Adapter, Factors
from lora_studio.config.specs import SPECS
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Velocity
from lora_studio.diffusion.samplers import DECLARED, SAMPLERS
from lora_studio.errors import AdapterError, MachineError, ModelError, SettingsError
from lora_studio.models import inject
from lora_studio.sampling import generate as generating
from lora_studio.sampling import overflow
from lora_studio.sampling.denoise import Sampling, denoise
from lora_studio.sampling.generate import generate, sampling, to_images
from lora_studio.sampling.guided import PromptFeatures, rescaled
from lora_studio.sampling.image_settings import ImageSettings
from tests.models import tiny

PROMPTS, NEGATIVE, SEEDS = ["a cat, flat style", "a dog"], "blurry", [3, 11]


@pytest.fixture(scope="module")
def base(tiny_folder):
    return models.load(str(tiny_folder(tiny.SHALLOW)))


@pytest.fixture(scope="module")
def pipeline(tiny_folder):
    return _pipeline(tiny_folder(tiny.SHALLOW), diffusers.StableDiffusionPipeline)


def _pipeline(folder, kind):
    made = kind.from_pretrained(str(folder), local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def _theirs(pipeline, sampler, prediction, negative=NEGATIVE, **more):
    given, how = pipeline.scheduler, {"prediction_type": prediction, **DECLARED[sampler].options}
    pipeline.scheduler = getattr(diffusers, SAMPLERS[sampler]).from_config(given.config, **how)
    try:
        return pipeline(
            PROMPTS,
            negative_prompt=negative and [negative] * 2,
            **{"num_inference_steps": 3, "output_type": "latent", **more},
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            eta=0.3 if sampler == "tcd" else 0.0,
        ).images
    finally:
        pipeline.scheduler = given


def _ours(base, sampler, negative=NEGATIVE, guidance=5.0, width=128, height=64):
    avoid = base.encode_text([negative]) if guidance > 1 else None
    shown = PromptFeatures(base.encode_text(PROMPTS), avoid)
    return denoise(base, shown, SEEDS, Sampling(sampler, 3, guidance, width, height))


def test_a_sampler_of_another_noise_process_is_refused(base, monkeypatch):
    monkeypatch.setattr(base, "process", RectifiedFlow({}))
    with pytest.raises(SettingsError, match="another noise process.*'euler_a'"):
        generate(base, ["a cat"], [0], ImageSettings(sampler="euler_a"))


def test_samplers_are_those_of_the_settings():
    assert set(SAMPLERS) == set(SPECS["sampler"].choices)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sd_latents_are_those_of_diffusers(sampler, base, pipeline, monkeypatch):
    """Same prompts, seeds and steps, predicting v, in a size that is not square."""
    monkeypatch.setattr(base, "process", Velocity(base.process.schedule))
    expected = _theirs(pipeline, sampler, "v_prediction", guidance_scale=5.0, width=128, height=64)
    assert torch.allclose(_ours(base, sampler), expected, atol=1e-4)


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_guidance_is_rescaled_as_in_diffusers(share):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    source = torch.Generator().manual_seed(0)
    away, towards = torch.randn(2, 3, 4, 8, 8, generator=source)
    guided = away + 5 * (towards - away)
    ours = rescaled(guided, towards, share)
    assert torch.allclose(ours, rescale_noise_cfg(guided, towards, share), atol=1e-6)
    spread = (1 - share) * guided.std(dim=(1, 2, 3)) + share * towards.std(dim=(1, 2, 3))
    assert torch.allclose(ours.std(dim=(1, 2, 3)), spread, atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_zero_terminal_snr_is_drawn_as_diffusers_does(sampler, base, pipeline, monkeypatch):
    """Velocity, from pure noise on, with rescaled guidance: the pipeline's own ``guidance_rescale``."""
    schedule = base.process.schedule | {"rescale_betas_zero_snr": True}
    monkeypatch.setattr(base, "process", Velocity(schedule))
    theirs = base.process.configuration("") | {"timestep_spacing": "trailing"}
    monkeypatch.setattr(pipeline, "scheduler", getattr(diffusers, SAMPLERS[sampler]).from_config(theirs))
    expected = _theirs(
        pipeline, sampler, "v_prediction", guidance_scale=5.0, guidance_rescale=0.7, width=128, height=64
    )
    shown = PromptFeatures(base.encode_text(PROMPTS), base.encode_text([NEGATIVE]))
    settings = ImageSettings(sampler=sampler, steps=3, width=128, height=64)
    how = sampling(base, settings)
    ours = denoise(base, shown, SEEDS, how)
    assert how.rescale == 0.7 and torch.allclose(ours, expected, atol=1e-4)
    plain = denoise(base, shown, SEEDS, sampling(base, settings.changed(guidance_rescale=0.0)))
    assert not torch.allclose(ours, plain, atol=1e-2)


def test_guidance_of_a_model_that_predicts_noise_is_not_rescaled(base):
    assert sampling(base, ImageSettings()).rescale == 0
    assert sampling(base, ImageSettings(guidance_rescale=0.3)).rescale == 0.3


def test_sdxl_latents_are_those_of_diffusers(tiny_folder):
    """Two text encoders, pooled features and sizes; and no negative prompt is no features at all."""
    folder = tiny_folder("sdxl")
    base, pipeline = models.load(str(folder)), _pipeline(folder, diffusers.StableDiffusionXLPipeline)
    for sampler, negative in (("euler", NEGATIVE), ("dpm++", "")):
        expected = _theirs(pipeline, sampler, "epsilon", negative or None, guidance_scale=5.0, width=128, height=64)
        assert torch.allclose(_ours(base, sampler, negative), expected, atol=1e-4), sampler


def test_a_rectified_flow_of_sdxl_is_drawn_by_eulers_steps(tiny_folder):
    """Straight from noise to data: x ← x + (s′ − s) v, where the UNet is given 1000 s."""
    base = models.load(str(tiny_folder("sdxl")), prediction="flow", flow_shift=2.5)
    how = sampling(base, ImageSettings(sampler="euler", steps=3, guidance=1.0, width=64, height=64))
    text, expected = base.encode_text(PROMPTS[:1]), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    shares = [1, 0.7153035, 0.0062174, 0]  # 2.5 s / (1 + 1.5 s) of s = 1, 0.5012481, 0.0024963, as diffusers spaces it
    with torch.no_grad():
        for share, following in itertools.pairwise(shares):
            given = base.family.conditions(text, base.whole(expected))
            answer = base.unet(expected, torch.tensor(1000.0 * share), **given).sample
            expected = expected + (following - share) * answer
    ours = denoise(base, PromptFeatures(text, None), SEEDS[:1], how)
    assert torch.allclose(ours, expected, atol=1e-4)


def test_without_guidance(base, pipeline):
    expected = _theirs(pipeline, "ddim", "epsilon", guidance_scale=1.0, width=128, height=64)
    assert torch.allclose(_ours(base, "ddim", guidance=1.0), expected, atol=1e-4)


@pytest.mark.parametrize("sampler", ["dpm++", "euler_a"])
def test_a_picture_does_not_depend_on_its_batch(base, sampler):
    """Also where the sampler draws noise at every step: each picture has a source of its own."""
    together = _ours(base, sampler)
    shown = PromptFeatures(base.encode_text(PROMPTS[1:]), base.encode_text([NEGATIVE]))
    alone = denoise(base, shown, SEEDS[1:], Sampling(sampler, 3, 5.0, 128, 64))
    assert torch.allclose(together[1:], alone, atol=1e-3)
    assert not torch.allclose(together[:1], alone, atol=1e-1)


def test_pictures_are_those_of_the_latents(base):
    settings = ImageSettings(negative=NEGATIVE, steps=3, sampler="ddim", width=128, height=64)
    pictures = generate(base, PROMPTS, SEEDS, settings)
    assert [picture.size for picture in pictures] == [(128, 64)] * 2 and pictures[0].mode == "RGB"
    for picture, latent in zip(pictures, _ours(base, "ddim"), strict=True):
        assert picture.tobytes() == to_images(base.decode(latent[None]))[0].tobytes()
    assert generate(base, ["a cat"], [1], ImageSettings(steps=1))[0].size == (128, 128), "the model's own resolution"


LONG = "ink " * 76
SMALL = ImageSettings(steps=1, width=64, height=64)


def drawn(base, *prompts, **how):
    pictures = generate(base, prompts, [3] * len(prompts), SMALL.changed(**how))
    return [picture.tobytes() for picture in pictures]


def test_words_after_the_first_chunk_draw_another_picture(base):
    one, other, same = drawn(base, f"{LONG} cat", f"{LONG} dog", f"{LONG} cat")
    assert one == same != other
    assert drawn(base, "a cat", negative=f"{LONG} cat") != drawn(base, "a cat", negative=f"{LONG} dog")


def test_a_short_prompt_beside_a_long_one_draws_what_it_draws_alone(base):
    assert drawn(base, "a cat", f"{LONG} cat")[0] == drawn(base, "a cat")[0]


def test_a_prompt_of_two_chunks_is_drawn_as_diffusers_draws_its_features(base, pipeline):
    """Their pipeline takes features of any length; the negative prompt's are filled up with an empty chunk."""
    long, words = f"{LONG} cat", base.read(f"{LONG} cat").chunks[0]
    own = torch.tensor([chunk.tokens for chunk in [*words, *base.read(NEGATIVE).chunks[0], *base.read("").chunks[0]]])
    with torch.no_grad():
        towards, away = base.text_encoders["text_encoder"](own).last_hidden_state.reshape(2, 1, 154, -1)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="epsilon")
    how = {"guidance_scale": 5.0, "num_inference_steps": 2, "output_type": "pil", "width": 64, "height": 64}
    given = {"prompt_embeds": towards, "negative_prompt_embeds": away, "generator": torch.Generator().manual_seed(3)}
    [theirs] = pipeline(**given, **how).images
    [ours] = generate(base, [long], [3], SMALL.changed(negative=NEGATIVE, steps=2, sampler="ddim"))
    apart = torch.frombuffer(bytearray(theirs.tobytes()), dtype=torch.uint8).int() - torch.frombuffer(
        bytearray(ours.tobytes()), dtype=torch.uint8
    )
    assert apart.abs().max() <= 1


def test_weights_change_a_picture_unless_they_are_read_as_they_are_written(base):
    plain, weighed = drawn(base, "a cat, ink"), drawn(base, "a (cat:1.8), ink")
    assert plain != weighed
    assert drawn(base, "a (cat:1.8), ink", prompt_weights=False) not in (plain, weighed)
    assert drawn(base, "a cat, ink", prompt_weights=False) == plain


def test_pixels_are_rounded_not_cut():
    assert to_images(torch.tensor([0.0, 0.498, 1.0]).view(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 127, 255)


def test_a_large_order_is_split_and_stays_in_order(base, monkeypatch):
    seen = []
    monkeypatch.setattr(generating, "PIXELS_AT_ONCE", 2 * 64 * 64)
    monkeypatch.setattr(
        generating, "latents_of", lambda base, shown, seeds, *_: seen.append(seeds) or torch.zeros(len(seeds), 4, 8, 8)
    )
    assert len(generate(base, ["a"] * 5, range(5), SMALL)) == 5
    assert seen == [[0, 1], [2, 3], [4]]


def test_short_memory_halves_the_batch_until_one_does_not_fit(base, monkeypatch):
    sizes = []

    def short(base, shown, seeds, *_):
        sizes.append(len(seeds))
        if len(seeds) > limit:
            raise torch.OutOfMemoryError("no memory")
        return torch.zeros(len(seeds), 4, 8, 8)

    monkeypatch.setattr(generating, "latents_of", short)
    limit = 2
    assert len(generate(base, ["a"] * 4, range(4), SMALL)) == 4
    assert sizes == [4, 2, 2]
    limit = 0
    with pytest.raises(MachineError, match="64 × 64"):
        generate(base, ["a"], [1], SMALL)


def test_cancelling_ends_at_the_next_step(base):
    asked = []
    long = SMALL.changed(steps=20)
    assert generate(base, ["a cat"], [1], long, cancelled=lambda: asked.append(1) or len(asked) == 3) == []
    assert len(asked) == 3


def test_the_unets_mode_is_given_back(base):
    """A preview in the middle of training must not leave dropout off, nor draw with it on."""
    base.unet.train()
    try:
        _ours(base, "ddim")
        assert base.unet.training
    finally:
        base.unet.eval()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"width": 100}, "width 100 is not a multiple of 8. .*96"),
        ({"height": -8}, "height"),
        ({"sampler": "dpm+"}, r"Did you mean dpm\+\+"),
    ],
)
def test_nonsense_is_explained(base, named, message):
    with pytest.raises(SettingsError, match=message):
        generate(base, ["a cat"], [1], ImageSettings(**named))


@pytest.mark.fault(86)
@pytest.mark.parametrize("where", ["denoiser", "decoder"])
def test_a_picture_that_overflowed_is_an_error_and_not_black(base, where, monkeypatch):
    infinite = torch.full((1, 3, 64, 64), torch.inf)
    if where == "denoiser":
        monkeypatch.setattr(models.Base, "predict", lambda self, noisy, *rest: noisy * torch.nan)
    else:
        monkeypatch.setattr(models.Base, "decode", lambda self, latents: infinite)
    with pytest.raises(ModelError, match="holds NaN or infinity after denoising shallow in float32") as raised:
        generate(base, ["a cat"], [0], SMALL)
    assert raised.value.do == "Choose another copy of the base model."  # nothing is wider than float32
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    width = inject.weight(base, path).shape[0]
    one = Factors(torch.ones(1, width), torch.ones(width, 1), 1.0)
    ink = Adapter({path: one}, {"modelspec.title": "Ink"})
    inject.load_adapters(base, [(ink, 0.7)])
    try:
        with pytest.raises(AdapterError, match="in float32 with Ink at 0.7") as raised:
            generate(base, ["a cat"], [0], SMALL)
        assert raised.value.do == "Lower the weights."
        base.loaded.adapters = [replace(ink, file="ink-300.safetensors")]
        with pytest.raises(AdapterError, match="with ink-300.safetensors at 0.7"):
            overflow.require_finite(base, infinite)
        monkeypatch.setattr(base, "dtype", torch.float16)
        with pytest.raises(AdapterError) as raised:
            overflow.require_finite(base, infinite)
        assert raised.value.do == "Lower the weights, or compute in float32 or bfloat16."
    finally:
        inject.unload_adapters(base)

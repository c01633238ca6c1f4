"""Distilled base models, by their names and by what their files say; and how they are drawn."""

import json

import pytest
import torch

from lora_studio import models
from lora_studio.config.slices import PreviewSettings
from lora_studio.models import distilled
from lora_studio.models.load import distillation
from tests.models import tiny


@pytest.mark.parametrize(
    ("name", "title", "steps"),
    [
        ("sd_xl_turbo_1.0_fp16", "Turbo", 6),
        ("sdxl-turbo", "Turbo", 6),
        ("sdxlturbo", "Turbo", 6),
        ("SDXLTurbo", "Turbo", 6),
        ("DreamShaperXL_Turbo_v2", "Turbo", 6),
        ("dreamshaperXL_v21TurboDPMSDE", "Turbo", 6),
        ("sdxl_lightning_4step", "Lightning", 4),
        ("sdxl_lightning_1step_x0", "Lightning", 6),
        ("juggernautXL_v9Rdphoto2Lightning", "Lightning", 6),
        ("RealVisXL_V5.0_Lightning_fp16", "Lightning", 6),
        ("realvisxlV50_v50LightningBakedvae", "Lightning", 6),
        ("Hyper-SDXL-8steps-CFG", "Hyper-SD", 8),
        ("Hyper-SD15-4step", "Hyper-SD", 4),
        ("realisticVisionV60B1_v51HyperVAE", "Hyper-SD", 8),
        ("JuggernautXL_X_Hyper", "Hyper-SD", 8),
        ("LCM_Dreamshaper_v7", "LCM", 6),
        ("dreamshaper_8LCM", "LCM", 6),
        ("dmd2_sdxl_4step_unet_fp16", "DMD2", 4),
        ("bigLust_v16DMD2", "DMD2", 6),
    ],
)
def test_names_of_distilled_models(name, title, steps):
    found = distilled.by_name(name)
    assert (found.title, found.steps) == (title, steps)


@pytest.mark.parametrize(
    "name",
    [
        "sd_xl_base_1.0",
        "v1-5-pruned-emaonly",
        "turbovisionxl",
        "turbochargedXL_v2",
        "nonTurbo_sdxl",
        "myModel_not-lightning",
        "enlightningment",
        "hyperrealism_v3",
        "HyperRealistic_XL",
        "hyper_realism_1.2",
        "epicHyperDetail",
        "lcmyk-posters",
        "DMD_style",
        "dmd1",
        "epicrealism_4steps",
        "",
    ],
)
def test_names_of_other_models(name):
    assert distilled.by_name(name) is None


@pytest.mark.parametrize(
    ("keys", "metadata", "title"),
    [
        ((), {"modelspec.title": "Example XL Lightning"}, "Lightning"),
        ((), {"modelspec.tags": "photo, turbo"}, "Turbo"),
        (("model.diffusion_model.time_embed.cond_proj.weight",), {}, "LCM"),
        ((), {"modelspec.description": "Not as fast as a Turbo model."}, None),
    ],
)
def test_what_a_file_says(keys, metadata, title):
    found = distilled.in_file("model", keys, metadata)
    assert (found and found.kind.title) == title


def test_what_a_folder_says(tmp_path):
    made = tiny.folder(tmp_path / "fast", "sd1")
    assert distillation(str(made)) is None
    scheduler = made / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"_class_name": "LCMScheduler"}))
    assert distillation(str(made)).reason == "its scheduler is LCMScheduler"
    base = models.load(str(made))
    assert base.distilled.kind.title == "LCM" and "timestep_spacing" not in base.process.schedule
    assert [notice.where for notice in base.notices] == ["base"] and "distilled from" in base.notices[0].do


def test_few_steps_of_a_single_file_begin_in_pure_noise(tmp_path):
    path = tiny.checkpoint(tmp_path / "ink_lightning_4step.safetensors", "sdxl")
    base, plain = models.load(str(path)), models.load(str(path.rename(tmp_path / "ink.safetensors")))
    assert base.process.scheduler("euler", 4, "cpu").timesteps.tolist() == [999, 749, 499, 249]
    assert plain.process.scheduler("euler", 4, "cpu").timesteps.tolist() == [751, 501, 251, 1]
    assert torch.equal(base.process.alpha_bar(torch.arange(1000)), plain.process.alpha_bar(torch.arange(1000)))
    assert plain.distilled is None and plain.notices == []


FAST = distilled.Distilled(distilled.by_name("sdxl_lightning_4step"), "its name says so")


@pytest.mark.parametrize(
    ("steps", "guidance", "expected", "said"),
    [
        (20, 5.0, (4, 1.0), "are drawn with 4 steps and guidance 1 instead of 20 steps and guidance 5."),
        (8, 5.0, (8, 1.0), "are drawn with guidance 1 instead of guidance 5."),
        (20, 2.0, (4, 2.0), "are drawn with 4 steps instead of 20 steps."),
        (8, 2.0, (8, 2.0), ""),
        (30, 2.0, (30, 2.0), "are drawn with 30 steps and guidance 2, as set."),
        (6, 4.0, (6, 4.0), "are drawn with 6 steps and guidance 4, as set."),
        (1, 4.0, (1, 4.0), "are drawn with 1 step and guidance 4, as set."),
    ],
)
def test_it_is_drawn_in_few_steps_unless_set_by_hand(steps, guidance, expected, said):
    settings = PreviewSettings(preview_steps=steps, guidance=guidance)
    suited, notice = FAST.suited(settings), FAST.overruling(settings)
    assert (suited.preview_steps, suited.guidance) == expected
    assert (notice.what if notice else "").endswith(said) and bool(notice) == bool(said)

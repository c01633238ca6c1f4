"""Puts the trained parts together as a diffusers folder in half precision.

    python -m lora_studio.starter.make.export PARTS MODEL

`PARTS` is what the autoencoder and the denoiser wrote; `MODEL` holds `tokenizer/` already.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTokenizer

from lora_studio.families.stable_diffusion import Starter

from .denoiser import build_text, build_unet, read_parts
from .flat import FlatModel

SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def export(parts: Path, model: Path) -> None:
    """Writes every folder of the pipeline but the tokenizer's."""
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    unet, text = build_unet(), build_text(tokenizer)
    flat = FlatModel([unet, text], torch.device("cpu"), torch.float32, lr=0, average=0)
    flat.load(read_parts(parts, "average"))
    unet.half().save_pretrained(model / "unet")
    _change(model / "unet" / "config.json", _name_or_path=Starter.version)
    text.half().save_pretrained(model / "text_encoder")
    # transformers then loads the weights in float32 by default, as diffusers does
    _change(model / "text_encoder" / "config.json", dtype="float32", torch_dtype=None)
    shutil.copytree(parts / "vae", model / "vae", dirs_exist_ok=True)
    DDIMScheduler(
        **SCHEDULER,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(model / "scheduler")
    nothing = [None, None]
    index = {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0", "requires_safety_checker": False,
        "feature_extractor": nothing, "image_encoder": nothing, "safety_checker": nothing,
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (model / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _change(config: Path, **entries: str | None) -> None:
    """Sets entries of a model's configuration; None removes one."""
    values = json.loads(config.read_text()) | entries
    kept = {key: value for key, value in values.items() if key not in entries or value is not None}
    config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))

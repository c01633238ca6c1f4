"""The parts of a model, empty: from a configuration to modules without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.initialization import no_init_weights

from lora_studio.errors import ModelError

TITLES = {
    "unet": "the UNet",
    "vae": "the VAE",
    "text_encoder": "the text encoder",
    "text_encoder_2": "the second text encoder",
}
"""A part's folder -> its name in messages."""
AGAIN = "Download it again, or choose another base model."

_DIFFUSERS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
_TRANSFORMERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def build(part: str, config: dict[str, Any], where: Path) -> nn.Module:
    """The part that ``config`` describes; its weights take no memory yet.

    Raises:
        ModelError: the configuration makes no sense.
    """
    try:
        with init_empty_weights(), no_init_weights():
            return (
                _DIFFUSERS[part].from_config(config)
                if part in _DIFFUSERS
                else _TRANSFORMERS[part](CLIPTextConfig.from_dict(config))
            )
    except Exception as error:  # the libraries raise nearly every kind
        raise ModelError(
            f"The configuration of {TITLES[part]} cannot be used: {error}.", where=where, do=AGAIN
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file.

    Raises:
        ModelError: it is missing, or holds no table.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(
            f"{path.parent.parent.name} lacks {path.parent.name}/{path.name}.", where=path, do=AGAIN
        ) from None
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError(f"{path.name} is damaged: it is not a JSON table.", where=path, do=AGAIN)
    return table

"""Tiny random models with each family's exact topology, hence the exact names, in narrow widths: as a folder and as a
single file.

The weights are random, so nothing here draws a picture; every module, key and shape rule of the real thing is
exercised.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_studio.families import ldm_keys
from lora_studio.families.family import CONFIGS
from lora_studio.models.parts import read_json
from lora_studio.texts import tokenizer

FAMILIES = ("sd1", "sd2", "sdxl")
"""What ``folder`` and ``checkpoint`` build. The studio takes a narrow ``sd1`` for a starter, which is just that."""
SHALLOW = "shallow"
"""``sd1`` with one layer in each of the UNet's blocks and two in its text encoder: a run takes two thirds of the time.
For tests of what happens around the model.
"""
_CONFIGS = {"sd1": "sd1", "sd2": "sd2", "sdxl": "sdxl", SHALLOW: "sd1"}
_CONTEXT = {"sd1": 32, "sd2": 32, "sdxl": 96, SHALLOW: 32}


@cache
def parts(family: str, seed: int = 0) -> dict[str, nn.Module]:
    """The models of ``family`` by part, float32, in eval mode; shared, so not to be changed."""
    torch.manual_seed(seed)
    made: dict[str, nn.Module] = {
        "unet": UNet2DConditionModel.from_config(config(family, "unet")),
        "vae": AutoencoderKL.from_config(config(family, "vae")),
    }
    made["text_encoder"] = CLIPTextModel(CLIPTextConfig.from_dict(config(family, "text_encoder")))
    if family == "sdxl":
        made["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config(family, "text_encoder_2")))
    for model in made.values():
        model.eval()
    return made


def config(family: str, part: str) -> dict[str, Any]:
    """The shipped configuration in narrow widths."""
    made = read_json(CONFIGS / _CONFIGS[family] / f"{part}.json")
    if part == "unet":
        widths = [32, 32, 64, 64][: len(made["block_out_channels"])]
        made |= {"block_out_channels": widths, "cross_attention_dim": _CONTEXT[family], "sample_size": 16}
        if isinstance(made["attention_head_dim"], list):
            made["attention_head_dim"] = [1] * len(widths)
        if family == "sdxl":
            made["projection_class_embeddings_input_dim"] = 64 + 6 * made["addition_time_embed_dim"]
        if family == SHALLOW:
            made["layers_per_block"] = 1
    elif part == "vae":
        made |= {"block_out_channels": [32] * 4, "sample_size": 128}
    else:
        width = 64 if part == "text_encoder_2" else 32
        made |= {"hidden_size": width, "intermediate_size": 64, "num_attention_heads": 1, "projection_dim": width}
        if family == SHALLOW:
            made["num_hidden_layers"] = 2
    return made


def folder(path: Path, family: str, seed: int = 0, prediction: str = "") -> Path:
    """Writes a model in diffusers' layout to ``path``."""
    return write(path, family, parts(family, seed), prediction)


def write(path: Path, family: str, models: dict[str, nn.Module], prediction: str = "") -> Path:
    """Writes ``models`` with the tokenizers and schedule of ``family`` in diffusers' layout to ``path``."""
    for part, model in models.items():
        model.save_pretrained(path / part)
    for name, pad in {"tokenizer": "<|endoftext|>", **({"tokenizer_2": "!"} if family == "sdxl" else {})}.items():
        shutil.copytree(tokenizer.SHIPPED, path / name)
        settings = read_json(path / name / "tokenizer_config.json") | {"pad_token": pad}
        (path / name / "tokenizer_config.json").write_text(json.dumps(settings))
    schedule = read_json(CONFIGS / _CONFIGS[family] / "scheduler.json")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(schedule | ({"prediction_type": prediction} if prediction else {}))
    )
    (path / "model_index.json").write_text(json.dumps(_index(family, schedule)))
    return path


def inpainting(path: Path, plain: Path) -> Path:
    """Writes the model in the folder ``plain`` to ``path``, with nine channels for a mask and a masked picture."""
    shutil.copytree(plain, path)
    weights, config = path / "unet" / "diffusion_pytorch_model.safetensors", path / "unet" / "config.json"
    tensors = load_file(weights)
    save_file(tensors | {"conv_in.weight": wide(tensors["conv_in.weight"])}, weights)
    config.write_text(json.dumps(read_json(config) | {"in_channels": 9}))
    index = read_json(path / "model_index.json") | {"_class_name": "StableDiffusionInpaintPipeline"}
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def wide(weight: Tensor, extra: bool = True) -> Tensor:
    """A first convolution for nine channels: the four of ``weight``, and five more, zeros without ``extra``."""
    torch.manual_seed(0)
    more = torch.randn(weight.shape[0], 5, 3, 3) if extra else torch.zeros(weight.shape[0], 5, 3, 3)
    return torch.cat([weight, more], dim=1)


def _index(family: str, schedule: dict[str, Any]) -> dict[str, Any]:
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", schedule["_class_name"]],
    }
    if family == "sdxl":
        return index | {
            "_class_name": "StableDiffusionXLPipeline",
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    return index | {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}


def checkpoint(
    path: Path,
    family: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    ema: bool = False,
    drop: str = "",
    metadata: dict[str, str] | None = None,
    extra: dict[str, Tensor] | None = None,
) -> Path:
    """Writes the same model as one file in the original trainers' layout to ``path``.

    Args:
        ema: add the averaged weights, of other values, as the first full checkpoints had them.
        drop: leave out keys that start with this.
        metadata: the file's; None says what the family's published models predict, since random weights cannot answer.
    """
    if metadata is None and family != "sd2":
        metadata = {"modelspec.prediction_type": "epsilon"}
    made = parts(family, seed)
    tensors = _unet(made["unet"]) | _vae(made["vae"])
    if family == "sd2":
        tensors |= _openclip(made["text_encoder"], "cond_stage_model.model.")
    else:
        tensors |= _clip(
            made["text_encoder"],
            "conditioner.embedders.0.transformer." if family == "sdxl" else "cond_stage_model.transformer.",
        )
    if family == "sdxl":
        tensors |= _openclip(made["text_encoder_2"], "conditioner.embedders.1.model.")
    if ema:
        tensors |= {
            "model_ema." + key.removeprefix("model.").replace(".", ""): tensor + 1
            for key, tensor in tensors.items()
            if key.startswith("model.diff")
        }
    tensors |= {"alphas_cumprod": torch.ones(1000), "model_ema.num_updates": torch.tensor(7)}
    kept = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in tensors.items()
        if not drop or not key.startswith(drop)
    }
    save_file({key: tensor.contiguous().clone() for key, tensor in (kept | (extra or {})).items()}, path, metadata)
    return path


def _unet(model: nn.Module) -> dict[str, Tensor]:
    with_attention = ["Attn" in kind for kind in model.config.up_block_types]
    return {
        "model.diffusion_model." + ldm_keys.unet_source(name, 2, with_attention).key: tensor
        for name, tensor in model.state_dict().items()
    }


def _vae(model: nn.Module) -> dict[str, Tensor]:
    """The attention's projections are 1×1 convolutions in the original."""
    tensors = {ldm_keys.vae_source(name, 4).key: tensor for name, tensor in model.state_dict().items()}
    return {
        "first_stage_model." + key: tensor[:, :, None, None] if "attn_1" in key and tensor.ndim == 2 else tensor
        for key, tensor in tensors.items()
    }


def _clip(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    tensors = {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in model.state_dict().items()
    }
    return tensors | {f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def _openclip(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """q, k and v stacked; the projection turned; and one layer more than SD 2 makes use of."""
    state = {
        name if name.startswith("text_") else f"text_model.{name}": tensor
        for name, tensor in model.state_dict().items()
    }
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = ldm_keys.openclip_source(name, model.config.hidden_size).key
        if "in_proj" in key and key not in tensors:
            tensors[key] = torch.cat(
                [state[name.replace(f".{name.split('.')[-2][0]}_proj", f".{letter}_proj")] for letter in "qkv"]
            )
        elif "in_proj" not in key:
            tensors[key] = tensor.T if name == "text_projection.weight" else tensor
    tensors.setdefault("text_projection", torch.zeros(model.config.hidden_size, model.config.projection_dim))
    last = model.config.num_hidden_layers
    if "text_projection.weight" not in state:
        tensors |= {
            key.replace(f"resblocks.{last - 1}.", f"resblocks.{last}."): tensor
            for key, tensor in tensors.items()
            if f"resblocks.{last - 1}." in key
        }
    return {prefix + key: tensor for key, tensor in (tensors | {"logit_scale": torch.tensor(4.6)}).items()}

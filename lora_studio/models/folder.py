"""A base model from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lora_studio.errors import ModelError
from lora_studio.families.registry import of_folder
from lora_studio.models.base import Base
from lora_studio.models.parts import AGAIN, TITLES, build, read_json
from lora_studio.models.tokenizer import Tokenizer
from lora_studio.models.weights import Source, Weights, fill

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""The attention's projections as diffusers named them until 0.12; SD 1.5's own VAE still has those names."""


def read(
    path: Path, name: str, device: torch.device, dtype: torch.dtype, wanted: str, encoders_on: torch.device
) -> Base:
    """As ``lora_studio.models.load``; ``wanted`` is the setting ``prediction``.

    Raises:
        ModelError: a part is missing or damaged, or the family is not supported.
    """
    index = read_json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    family = of_folder(index, read_json(path / "unet" / "config.json") if (path / "unet").is_dir() else None, path)
    for part in family.parts:
        if not (path / part).is_dir():
            raise ModelError(f"{path.name} lacks its {part} folder.", where=path / part, do=AGAIN)
    schedule = read_json(path / "scheduler" / "scheduler_config.json")
    process = family.process(schedule, wanted)
    tokenizers = [_tokenizer(path / folder) for folder in family.encoders.values()]
    unet, vae, *encoders = (
        _part(path, part, device if part == "unet" else encoders_on, dtype)
        for part in ("unet", "vae", *family.encoders)
    )
    return Base(
        family,
        name,
        path,
        unet,
        vae,
        dict(zip(family.encoders, encoders, strict=True)),
        tokenizers,
        process,
        device,
        dtype,
    )


def _part(path: Path, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    model = build(part, read_json(path / part / "config.json"), path / part)
    with Weights(weight_files(path / part)) as weights:
        fill(model, weights, _sources(part), torch.float32 if part == "vae" else dtype, device, TITLES[part])
    return model


def weight_files(folder: Path) -> list[Path]:
    """The safetensors file of the part in ``folder``, or its shards; in full precision where there is a choice.

    Raises:
        ModelError: there is none, or only a pickle.
    """
    stem = "diffusion_pytorch_model" if folder.name in ("unet", "vae") else "model"
    for variant in ("", ".fp16"):
        if (whole := folder / f"{stem}{variant}.safetensors").exists():
            return [whole]
        if (index := folder / f"{stem}.safetensors.index{variant}.json").exists():
            return _shards(index)
    if pickled := [file.name for file in folder.iterdir() if file.suffix in _PICKLES]:
        raise ModelError(
            f"{folder.parent.name} holds its {folder.name} only as a pickle ({pickled[0]}), which can run code when it is loaded.",
            where=folder,
            do="Download the .safetensors version.",
        )
    raise ModelError(f"{folder.parent.name} lacks {folder.name}/{stem}.safetensors.", where=folder, do=AGAIN)


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index.name} is damaged: it names no files.", where=index, do=AGAIN)
    return [
        index.with_name(Path(name).name) for name in sorted(set(names.values()))
    ]  # beside it, whatever folder they claim


def _sources(part: str) -> Callable[[str], list[Source]]:
    """A weight's own name and the other names it has had."""
    if part == "unet":
        return lambda name: [Source(name)]
    if part == "vae":
        return _vae_sources
    return lambda name: [
        Source(name),
        Source(f"text_model.{name}"),
        Source(name.removeprefix("text_model.")),
    ]  # transformers 5 dropped the prefix


def _vae_sources(name: str) -> list[Source]:
    old = name
    for new, former in _OLD_VAE.items():
        old = old.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
    return [Source(name), Source(old)]


def _tokenizer(folder: Path) -> Tokenizer:
    if (
        not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file())
        and not (folder / "tokenizer.json").is_file()
    ):
        raise ModelError(f"{folder.parent.name} lacks {folder.name}/vocab.json or merges.txt.", where=folder, do=AGAIN)
    try:
        return Tokenizer.of_folder(folder)
    except Exception as error:  # the library raises plain ones
        raise ModelError(
            f"{folder.parent.name}: its {folder.name} cannot be used: {error}.", where=folder, do=AGAIN
        ) from None

"""A base model from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lora_studio.errors import ModelError
from lora_studio.events import Warned
from lora_studio.families.family import Family, part_title
from lora_studio.families.layout import Source
from lora_studio.families.registry import denoiser_folders, of_folder
from lora_studio.language import tr
from lora_studio.models import distilled, pieces, prediction, single
from lora_studio.models.base import Base
from lora_studio.models.parts import AGAIN, build, read_json
from lora_studio.models.pieces import Given, Piece
from lora_studio.models.prediction import NoiseMarks
from lora_studio.models.weights import Weights, fill
from lora_studio.texts.tokenizer import Tokenizer

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""The attention's projections as diffusers named them until 0.12; SD 1.5's own VAE still has those names."""


def read(
    path: Path, name: str, device: torch.device, dtype: torch.dtype, encoders_on: torch.device, given: Given = Given()
) -> tuple[Base, NoiseMarks]:
    """As ``lora_studio.models.load``, with what the folder says of its noise process, which is yet to be settled.

    Raises:
        ModelError: a part is missing or damaged, or the family is not supported.
    """
    family = family_of(path)
    for part in family.parts:
        if not (path / part).is_dir():
            raise ModelError(
                tr("{name} lacks its {part} folder.", name=path.name, part=part), where=path / part, do=AGAIN
            )
    schedule = read_json(path / "scheduler" / "scheduler_config.json")
    marks = prediction.of_folder(family, schedule, path)
    more, found = pieces.complete(family, given), []
    denoiser, vae, *encoders = (
        _given(family, path, part, more[part], encoders_on, dtype)
        if part in more
        else _part(family, path, part, device if part == family.denoiser else encoders_on, dtype, found)
        for part in (family.denoiser, "vae", *family.encoders)
    )
    base = Base(
        family,
        name,
        path,
        denoiser,
        vae,
        dict(zip(family.encoders, encoders, strict=True)),
        tokenizers(path, family),
        family.process(schedule),
        device,
        dtype,
        distilled=distilled.in_folder(name, path),
        given=given,
    )
    base.notices += [*found, *pieces.notices(family, more)]
    return base, marks


def autoencoder(path: Path, device: torch.device, given: Given) -> nn.Module:
    """The VAE of the model in the folder ``path`` alone, frozen.

    Raises:
        ModelError: it is missing or damaged, or the model's family is not supported.
    """
    family = family_of(path)
    if "vae" in (more := pieces.complete(family, given)):
        return _given(family, path, "vae", more["vae"], device, torch.float32)
    return _part(family, path, "vae", device, torch.float32, [])


def family_of(path: Path) -> Family:
    """The family of the model in the folder ``path``.

    Raises:
        ModelError: it is not supported, or a configuration is damaged.
    """
    index = read_json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    found = {part: read_json(path / part / "config.json") for part in denoiser_folders() if (path / part).is_dir()}
    return of_folder(index, found, path)


def _part(
    family: Family, path: Path, part: str, device: torch.device, dtype: torch.dtype, found: list[Warned]
) -> nn.Module:
    """The part in its folder; what is noticed about its file is added to ``found``."""
    model = build(family, part, read_json(path / part / "config.json"), path / part)
    with Weights(weight_files(path / part)) as weights:
        fill(model, weights, sources(part), torch.float32 if part == "vae" else dtype, device, part_title(part))
    found += pieces.unread(weights)
    return model


def _given(family: Family, path: Path, part: str, piece: Piece, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A part from a file of its own. The scale of the latents is the folder's, with which its denoiser was trained."""
    own = read_json(path / part / "config.json")
    kept = {key: own[key] for key in ("scaling_factor", "shift_factor") if key in own}
    return single.part(family, part, piece, device, dtype, kept)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors file of the part in ``folder``, or its shards; in full precision where there is a choice.

    Raises:
        ModelError: there is none, or only a pickle.
    """
    stem = "model" if folder.name.startswith("text_encoder") else "diffusion_pytorch_model"
    for variant in ("", ".fp16"):
        if (whole := folder / f"{stem}{variant}.safetensors").exists():
            return [whole]
        if (index := folder / f"{stem}.safetensors.index{variant}.json").exists():
            return _shards(index)
    if pickled := [file.name for file in folder.iterdir() if file.suffix in _PICKLES]:
        raise ModelError(
            tr(
                "{name} holds its {part} only as a pickle ({file}), which can run code when it is loaded.",
                name=folder.parent.name,
                part=folder.name,
                file=pickled[0],
            ),
            where=folder,
            do=tr("Download the .safetensors version."),
        )
    raise ModelError(
        tr("{name} lacks {file}.", name=folder.parent.name, file=f"{folder.name}/{stem}.safetensors"),
        where=folder,
        do=AGAIN,
    )


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(tr("{name} is damaged: it names no files.", name=index.name), where=index, do=AGAIN)
    return [
        index.with_name(Path(name).name) for name in sorted(set(names.values()))
    ]  # beside it, whatever folder they claim


def sources(part: str) -> Callable[[str], list[Source]]:
    """A weight's own name and the other names it has had."""
    if part == "vae":
        return _vae_sources
    if part.startswith("text_encoder"):
        return _text_sources
    return lambda name: [Source(name)]


def _text_sources(name: str) -> list[Source]:
    """transformers 5 dropped a prefix that files have."""
    return [Source(name), Source(f"text_model.{name}"), Source(name.removeprefix("text_model."))]


def _vae_sources(name: str) -> list[Source]:
    old = name
    for new, former in _OLD_VAE.items():
        old = old.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
    return [Source(name), Source(old)]


def tokenizers(path: Path, family: Family) -> list[Tokenizer]:
    """The tokenizers of the text encoders of a ``family`` in the folder ``path``, in the encoders' order.

    Raises:
        ModelError: one is missing or damaged.
    """
    return [_tokenizer(path / folder) for folder in family.encoders.values()]


def _tokenizer(folder: Path) -> Tokenizer:
    if (
        not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file())
        and not (folder / "tokenizer.json").is_file()
    ):
        raise ModelError(
            tr("{name} lacks {part}/vocab.json or merges.txt.", name=folder.parent.name, part=folder.name),
            where=folder,
            do=AGAIN,
        )
    try:
        return Tokenizer.of_folder(folder)
    except Exception as error:  # the library raises plain ones
        raise ModelError(
            tr(
                "{name}: its {part} cannot be used: {error}.",
                name=folder.parent.name,
                part=folder.name,
                error=error,
            ),
            where=folder,
            do=AGAIN,
        ) from None

"""What a base model is, told as soon as it is chosen: from its configurations and the headers of its files. No weight
is read, and torch is not imported.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_studio import starter
from lora_studio.diffusion import registry as processes
from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.errors import ModelError, SettingsError
from lora_studio.families import contents, layout, marks, weights
from lora_studio.families.family import Family
from lora_studio.families.layout import Shape
from lora_studio.language import both, current, declared, tr
from lora_studio.runs import base_model
from lora_studio.ui import words

_MISSING = {
    "unet": tr("Its UNet is missing."),
    "vae": tr("Its VAE is missing."),
    "text_encoder": tr("Its text encoder is missing."),
    "text_encoder_2": tr("Its second text encoder is missing."),
    "tokenizer": tr("Its tokenizer is missing."),
    "tokenizer_2": tr("Its second tokenizer is missing."),
    "scheduler": tr("Its scheduler is missing."),
}


@dataclass(frozen=True)
class BaseLook:
    """What is known of a base model.

    Attributes:
        predicts: what it predicts, for people; empty where its files do not say.
        resolution: the side in pixels that it was trained at.
        size: bytes of its files.
        denoiser: how many weights its denoiser has.
        modules: the layers that an adapter can change, by canonical path, with the shapes of their weights.
        text_widths: of each text encoder's states.
        odd: what to know of it before a run, a sentence each.
    """

    family: Family
    predicts: str
    resolution: int
    size: int
    denoiser: int
    modules: Mapping[str, Shape]
    text_widths: tuple[int, ...]
    odd: tuple[str, ...]

    @property
    def line(self) -> str:
        """All of it in a line."""
        predicts = (
            tr("predicts {what}", what=words.within(declared(self.predicts)))
            if self.predicts
            else tr("what it predicts is found out at the start")
        )
        facts = [
            words.begun(declared(self.family.title)),
            predicts,
            tr("{resolution} px", resolution=self.resolution),
            words.size(self.size),
        ]
        return " · ".join(facts) + ("." if self.odd else "") + "".join(f" {one}" for one in self.odd)


def look(base: str, vae: str = "", text_encoders: Sequence[str] = ()) -> BaseLook:
    """What the model that ``base`` names is, completed by the files that are given, as the settings of these names.

    Raises:
        ModelError: there is no such model, or the studio cannot train it.
        SettingsError: the studio cannot train what it predicts.
    """
    path = starter.MODEL if base == "starter" else weights.located(base)
    if path.is_file():
        stat = path.stat()
        return _of_file(path, (stat.st_mtime_ns, stat.st_size), bool(vae), len(text_encoders), current())
    index = path / "model_index.json"
    changed = index.stat().st_mtime_ns if index.is_file() else 0
    return _of_folder(path, (changed, path.stat().st_mtime_ns), bool(vae), len(text_encoders), current())


@lru_cache(maxsize=64)
def _of_file(path: Path, version: tuple[int, ...], vae: bool, texts: int, spoken: str) -> BaseLook:
    """``version`` tells a file from the one that it replaced, ``spoken`` the language of what is said of it."""
    header, parts, unet, family = base_model.of_file(path)
    shapes = header.shapes
    config = _fitted(family, unet.shapes)
    said = list(marks.claims(shapes, header.metadata))
    edm = marks.EDM_MARKS["sigma_max"] in shapes
    name = ContinuousVelocity.name if edm else said[0][0] if said else ""
    side = family.native_size(name, family.latent_side(config))
    odd = [*_lacking(family, parts, vae, texts), *_doubts(said), *_inpaints(family, config)]
    encoders = {component: family.config(component) for component in family.encoders}
    return BaseLook(
        family,
        _title(name),
        side * family.latent_scale(family.config("vae")),
        path.stat().st_size,
        sum(map(math.prod, unet.shapes.values())),
        _modules(family, config, encoders),
        _widths(encoders),
        tuple(odd),
    )


@lru_cache(maxsize=64)
def _of_folder(path: Path, version: tuple[int, ...], vae: bool, texts: int, spoken: str) -> BaseLook:
    family, config = base_model.of_folder(path)
    odd = [
        _MISSING.get(part) or tr("Its {part} is missing.", part=part)
        for part in family.parts
        if not (path / part).is_dir() and not (part == "vae" and vae) and not (part in family.encoders and texts)
    ]
    schedule = path / "scheduler" / "scheduler_config.json"
    predicts = family.process(base_model.read_json(schedule)).title if schedule.is_file() else ""
    files = {part: path / part / "config.json" for part in family.encoders}
    encoders = {part: base_model.read_json(file) for part, file in files.items() if file.is_file()}
    autoencoder = path / "vae" / "config.json"
    return BaseLook(
        family,
        predicts,
        family.latent_side(config) * family.latent_scale(base_model.read_json(autoencoder))
        if autoencoder.is_file()
        else 0,
        sum(file.stat().st_size for file in path.glob("*/*.safetensors")),
        _counted(path / family.denoiser),
        _modules(family, config, encoders),
        _widths(encoders),
        (*odd, *_inpaints(family, config)),
    )


def _counted(folder: Path) -> int:
    """The weights in a folder's files; of several copies in other formats, those of the first."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: ("." in file.stem, file.name))
    shards = [file for file in files if "-of-" in file.name] or files[:1]
    return sum(math.prod(shape) for file in shards for shape in base_model.header_of(file).shapes.values())


def _fitted(family: Family, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    try:
        return family.fit(family.denoiser, shapes)
    except (KeyError, IndexError, StopIteration):
        return family.config(family.denoiser)


def _modules(family: Family, unet: Mapping[str, Any], encoders: Mapping[str, Mapping[str, Any]]) -> dict[str, Shape]:
    try:
        found = dict(layout.unet_modules(unet))
        for component, config in encoders.items():
            found |= layout.clip_modules(component, config)
        return found
    except (KeyError, TypeError, IndexError):
        return dict(family.modules)


def _widths(encoders: Mapping[str, Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(config.get("hidden_size", 0) for config in encoders.values())


def _title(name: str) -> str:
    return processes.named(name).title if name and processes.known(name) else ""


def _lacking(family: Family, parts: Sequence[contents.FilePart], vae: bool, texts: int) -> list[str]:
    """Parts that neither the file has nor other files give."""
    held = [part.kind for part in parts]
    lacks = [] if vae or "vae" in held else [tr("no VAE")]
    if held.count("text") + texts < len(family.encoders):
        lacks.append(tr("not all of its text encoders") if held.count("text") + texts else tr("no text encoder"))
    return (
        [tr("The file has {listed}: name their files in All settings, under Run.", listed=both(lacks))] if lacks else []
    )


def _doubts(said: Sequence[tuple[str, str]]) -> list[str]:
    others = [where for name, where in said if name != said[0][0]]
    return (
        [tr("Its marks disagree on what it predicts: {said}, and {others}.", said=said[0][1], others=others[0])]
        if others
        else []
    )


def _inpaints(family: Family, config: Mapping[str, Any]) -> list[str]:
    paints = tr("It paints into masks; what is trained also fits the model without.")
    return [paints] if family.inpaints(config) else []


def refusal(base: str) -> str:
    """Why ``base`` is no model that can be trained, as a sentence; empty if it is one."""
    try:
        look(base)
    except (ModelError, SettingsError) as error:
        return str(error)
    except OSError as error:
        return tr("{name} cannot be read: {reason}.", name=os.path.basename(base), reason=error.strerror or error)
    return ""

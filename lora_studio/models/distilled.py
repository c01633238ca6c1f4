"""Base models that were distilled to draw in a few steps, recognized by their names and by what their files say. No
torch.

An adapter is better trained on the model that one was distilled from, and then used on the fast one: plain training
undoes what distillation has taught.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_studio.config.slices import PreviewSettings
from lora_studio.config.specs import SPECS
from lora_studio.events import Warned
from lora_studio.language import both, ntr, tr


@dataclass(frozen=True)
class Distillation:
    """A way to distil, and how such a model draws."""

    title: str
    words: tuple[str, ...]
    """What tells it in a name: whole words in lower case, several with a space between them."""
    steps: int
    guidance: float
    only_before: frozenset[str] | None = None
    """The words that may follow, where its own word has other meanings as well; a number, or the end, always may."""


_SUFFIXES = frozenset(("sd", "sdxl", "xl", "vae", "fp", "bf", "cfg", "step", "steps", "unet", "lora"))
DISTILLATIONS = (
    Distillation("Turbo", ("turbo",), 6, 1.0),  # Sauer et al. 2023, Adversarial Diffusion Distillation
    Distillation("Lightning", ("lightning",), 6, 1.0),  # Lin et al. 2024, SDXL-Lightning
    Distillation("Hyper-SD", ("hyper",), 8, 1.0, _SUFFIXES),  # Ren et al. 2024, Hyper-SD
    Distillation("LCM", ("lcm",), 6, 1.5),  # Luo et al. 2023, Latent Consistency Models
    Distillation("DMD2", ("dmd 2",), 6, 1.0),  # Yin et al. 2024, Improved Distribution Matching Distillation
)
_MOST_STEPS, _MOST_GUIDANCE = 12, 2.5
"""Above these, a distilled model draws worse, not better."""
_SCHEDULERS = {"LCMScheduler": "LCM", "TCDScheduler": "Hyper-SD"}
_LCM_KEYS = ("time_embed.cond_proj.weight", "time_embedding.cond_proj.weight")
"""Guidance as an input of the denoiser, which only latent consistency models have."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STEPS = re.compile(r"(?<![\d.])([2-8])[ _-]?steps?(?![a-z])", re.IGNORECASE)
_FAMILY = re.compile(r"^(?:sdxl|sd|xl)(?=[a-z])")
_DENIALS = ("no", "non", "not", "without", "de")
_NAMING = ("modelspec.title", "modelspec.tags", "ss_output_name", "_name_or_path")


@dataclass(frozen=True)
class Distilled:
    """What is known of a distilled base model."""

    kind: Distillation
    reason: str
    """How that is known, for people."""

    @property
    def notice(self) -> Warned:
        """What is said when it is loaded."""
        return Warned(
            what=tr(
                "The base model seems to be distilled ({kind}: {reason}).", kind=self.kind.title, reason=self.reason
            ),
            where="base",
            do=tr(
                "Train on the model that it was distilled from, and use the adapter on this one. An adapter that is "
                "trained on this one undoes what makes it fast."
            ),
        )

    def suited(self, settings: PreviewSettings) -> PreviewSettings:
        """``settings`` with its own number of steps and guidance, each where the default was left."""
        wanted = {"preview_steps": self.kind.steps, "guidance": self.kind.guidance}
        changes = {key: value for key, value in wanted.items() if getattr(settings, key) == SPECS[key].default}
        return settings.model_copy(update=changes)

    def overruling(self, settings: PreviewSettings) -> Warned | None:
        """What ``suited`` changes, for people; or that what was set by hand does not suit it."""
        suited = self.suited(settings)
        if suited != settings:
            changed = [key for key in ("preview_steps", "guidance") if getattr(suited, key) != getattr(settings, key)]
            return Warned(
                what=tr(
                    "Images of this distilled model are drawn with {suited} instead of {usual}.",
                    suited=_drawn(suited, changed),
                    usual=_drawn(settings, changed),
                ),
                where=", ".join(changed),
                do=tr("Set another value to choose it yourself."),
            )
        if settings.preview_steps <= _MOST_STEPS and settings.guidance <= _MOST_GUIDANCE:
            return None
        return Warned(
            what=tr("Images of this distilled model are drawn with {chosen}, as set.", chosen=_drawn(settings)),
            where="preview_steps, guidance",
            do=tr(
                "{steps} steps and guidance {guidance:g} suit it better.",
                steps=self.kind.steps,
                guidance=self.kind.guidance,
            ),
        )


def _drawn(settings: PreviewSettings, keys: Collection[str] = ("preview_steps", "guidance")) -> str:
    """Those of ``keys`` with their values, in words."""
    steps, guidance = settings.preview_steps, settings.guidance
    words = {
        "preview_steps": ntr(steps, "{count:,} step", "{count:,} steps"),
        "guidance": tr("guidance {guidance:g}", guidance=guidance),
    }
    return both(words[key] for key in keys)


def in_file(name: str, keys: Collection[str], metadata: Mapping[str, str]) -> Distilled | None:
    """What tells that the single file ``name`` is a distilled model; None where nothing does."""
    if any(key.endswith(_LCM_KEYS) for key in keys):
        return Distilled(_called("LCM"), tr("its denoiser takes guidance as an input"))
    return _by_names({"name": name, **{key: metadata.get(key, "") for key in _NAMING}})


def in_folder(name: str, path: Path) -> Distilled | None:
    """The same of a model in diffusers' layout."""
    scheduler, index = _json(path / "scheduler" / "scheduler_config.json"), _json(path / "model_index.json")
    if kind := _SCHEDULERS.get(str(scheduler.get("_class_name"))):
        return Distilled(_called(kind), tr("its scheduler is {scheduler}", scheduler=scheduler["_class_name"]))
    if _json(path / "unet" / "config.json").get("time_cond_proj_dim"):
        return Distilled(_called("LCM"), tr("its denoiser takes guidance as an input"))
    return _by_names({"name": name, "_name_or_path": str(index.get("_name_or_path", ""))})


def by_name(name: str) -> Distillation | None:
    """The way to distil that a model's name tells, with the number of steps where it says that too."""
    words = [_FAMILY.sub("", word.lower()) for word in _WORD.findall(name)]
    for kind in DISTILLATIONS:
        if any(_tells(kind, words, phrase.split()) for phrase in kind.words):
            steps = _STEPS.search(name)
            return replace(kind, steps=int(steps[1])) if steps else kind
    return None


def _tells(kind: Distillation, words: list[str], phrase: list[str]) -> bool:
    for start in range(len(words) - len(phrase) + 1):
        if words[start : start + len(phrase)] != phrase or (start and words[start - 1] in _DENIALS):
            continue
        after = next(iter(words[start + len(phrase) :]), "")
        if kind.only_before is None or not after or after.isdigit() or after in kind.only_before:
            return True
    return False


def _by_names(names: Mapping[str, str]) -> Distilled | None:
    for where, name in names.items():
        if kind := by_name(name):
            said = tr("its name says so") if where == "name" else tr("its {entry} says so", entry=where)
            return Distilled(kind, said)
    return None


def _called(title: str) -> Distillation:
    return next(kind for kind in DISTILLATIONS if kind.title == title)


def _json(path: Path) -> dict[str, Any]:
    """The table in a file that the loader checks; empty where it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

"""The noise processes that the studio can train: a new one is one file beside this, and one line here. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.diffusion.process import Process
from lora_studio.errors import SettingsError
from lora_studio.language import tr

PROCESSES: tuple[type[Process], ...] = (Epsilon, Velocity, RectifiedFlow, ContinuousVelocity)
NAMES = tuple(process.name for process in PROCESSES)
"""What the setting ``prediction`` can be, apart from ``auto``."""


def named(name: str) -> type[Process]:
    """The process that a setting, a scheduler's configuration or a file's header names.

    Raises:
        SettingsError: the studio cannot train it (such as ``sample``).
    """
    for process in PROCESSES:
        if name in (process.name, *process.aliases):
            return process
    raise SettingsError(
        tr("The studio cannot train a model that predicts {name!r}.", name=name),
        where="prediction",
        do=tr("It can train models that predict one of: {names}.", names=", ".join(NAMES)),
    )


def known(name: str) -> bool:
    """Whether ``named`` knows ``name``."""
    return any(name in (process.name, *process.aliases) for process in PROCESSES)


def refusal(prediction: str, sampler: str) -> str:
    """Why ``sampler`` cannot draw with a model that predicts ``prediction``, one of ``NAMES``; empty where it can, and
    for ``auto``.
    """
    able = next((process.samplers for process in PROCESSES if process.name == prediction), {sampler: ""})
    if sampler in able:
        return ""
    return tr(
        "sampler is {sampler}, which cannot remove the noise of prediction {prediction}: set it to one of {able}",
        sampler=sampler,
        prediction=prediction,
        able=", ".join(able),
    )


def process_of(schedule: Mapping[str, Any], prediction: str = "auto") -> Process:
    """The process of a model with this scheduler configuration.

    Args:
        prediction: a name of ``named`` that overrules the configuration, or ``auto``.

    Raises:
        SettingsError: the studio cannot train it.
    """
    if prediction != "auto":
        return named(prediction)(schedule)
    for process in PROCESSES:
        if process.owns(schedule):
            return process(schedule)
    return named(str(schedule.get("prediction_type")))(schedule)

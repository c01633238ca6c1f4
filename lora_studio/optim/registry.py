"""Optimizers by name, with LoRA+'s and the text encoders' rates, over one flat buffer. The optimizers themselves are
torch's and other libraries'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import nn

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, SettingsError
from lora_studio.optim import schedules
from lora_studio.optim.flat import Flat

Named = Iterable[tuple[str, nn.Parameter]]


def _adamw(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=settings.optimizer.learning_rate, weight_decay=settings.optimizer.weight_decay, fused=True
    )


def _adamw8bit(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    return _bitsandbytes().AdamW8bit(
        groups, lr=settings.optimizer.learning_rate, weight_decay=settings.optimizer.weight_decay
    )


def _lion(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    return _bitsandbytes().Lion(
        groups, lr=settings.optimizer.learning_rate, weight_decay=settings.optimizer.weight_decay
    )


def _bitsandbytes():
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise MachineError(
            f"bitsandbytes does not work on this machine: {error}.",
            where="optimizer",
            do="Choose adamw, prodigy, schedulefree or adafactor.",
        ) from error
    return bitsandbytes.optim


def _prodigy(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer.lora_plus != 1:
        raise SettingsError(
            "Prodigy finds one rate for all and cannot give the second factor another.",
            where="lora_plus",
            do="Set lora_plus to 1, or choose another optimizer.",
        )
    from prodigyopt import Prodigy

    return Prodigy(
        groups,
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
        safeguard_warmup=True,
        use_bias_correction=True,
    )


def _schedulefree(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(
        groups,
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
        warmup_steps=round(settings.run.steps * settings.optimizer.warmup),
    )


def _adafactor(groups: list[dict], settings: Settings) -> torch.optim.Optimizer:
    """Steps there are scaled by max(ε₂, RMS of the weight): with the usual ε₂ of 1e-3 a B that starts at zero would
    hardly move.
    """
    return torch.optim.Adafactor(
        groups, lr=settings.optimizer.learning_rate, weight_decay=settings.optimizer.weight_decay, eps=(None, 1.0)
    )


_BUILDERS: dict[str, Callable[[list[dict], Settings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "lion": _lion,
    "prodigy": _prodigy,
    "schedulefree": _schedulefree,
    "adafactor": _adafactor,
}


def groups(named: Named, settings: Settings) -> list[dict]:
    """Parameter groups: B's learn ``lora_plus`` times faster than the rest (LoRA+, Hayou et al. 2024, §4), text
    encoders at a rate of their own. Empty ones are left out.
    """
    gathered: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named:
        text = name.startswith("text_encoder") and settings.optimizer.optimizer != "prodigy"
        rate = (settings.optimizer.text_learning_rate if text else settings.optimizer.learning_rate) * (
            settings.optimizer.lora_plus if ".lora_B." in name else 1
        )
        gathered.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in gathered.items()]


class Built(NamedTuple):
    """An optimizer; the buffer that it works on; and what lies there by name, in shape and float32."""

    optimizer: torch.optim.Optimizer
    flat: Flat
    parameters: dict[str, nn.Parameter]


def build(named: Named, settings: Settings, low: torch.dtype | None = None) -> Built:
    """The optimizer that the settings name, over the named parameters, which are laid out in one buffer. Adafactor
    alone sees them one by one: it goes by their shapes.

    Args:
        low: a smaller format for the model to compute in (``Flat``); the optimizer sees float32 always.

    Raises:
        SettingsError: Prodigy together with LoRA+.
        MachineError: bitsandbytes is needed and does not work here.
    """
    named = sorted(
        named, key=lambda item: ".lora_A." not in item[0]
    )  # the A's of one input end to end: models.lean takes them as one matrix, and their gradients
    names = {id(parameter): name for name, parameter in named}
    made = groups(named, settings)
    flat = Flat([group["params"] for group in made], low)
    parameters = {
        names[id(own)]: precise
        for group, parts in zip(made, flat.parts, strict=True)
        for own, precise in zip(group["params"], parts, strict=True)
    }
    seen = flat.parts if settings.optimizer.optimizer == "adafactor" else [[whole] for whole in flat.groups]
    made = [{**group, "params": parts} for group, parts in zip(made, seen, strict=True)]
    return Built(
        _BUILDERS[settings.optimizer.optimizer](made, settings), flat, {name: parameters[name] for name, _ in named}
    )


def set_rate(optimizer: torch.optim.Optimizer, step: int, settings: Settings, factor: float = 1.0) -> float:
    """Sets every group's rate for ``step``, times ``factor``, and returns the first one's. Schedule-free keeps its own
    warm-up and never falls.
    """
    scheduled = (
        1.0
        if settings.optimizer.optimizer == "schedulefree"
        else schedules.factor(step, settings.run.steps, settings.optimizer.schedule, settings.optimizer.warmup)
    )
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scheduled * factor
    return optimizer.param_groups[0]["lr"]


def mode(optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Schedule-free AdamW looks from one point and steps from another (Defazio et al. 2024, §2): switches between them;
    others do nothing.
    """
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch:
        switch()

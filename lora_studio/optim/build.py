"""Builds an optimizer from its row, over one flat buffer, with LoRA+'s and the text encoders' rates."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from lora_studio import libraries
from lora_studio.errors import MachineError
from lora_studio.language import either, tr
from lora_studio.optim import registry, schedules
from lora_studio.optim.flat import FlatParameters
from lora_studio.optim.registry import Hyperparameters, OptimizerSpec

Named = Iterable[tuple[str, nn.Parameter]]


class FlatOptimizer(NamedTuple):
    """An optimizer and the buffer that it works on."""

    optimizer: torch.optim.Optimizer
    flat: FlatParameters
    parameters: dict[str, nn.Parameter]
    """What is in the buffer, by name, in shape and float32."""


def flat_optimizer(
    named: Named,
    values: Hyperparameters,
    steps: int,
    copy_dtype: torch.dtype | None = None,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> FlatOptimizer:
    """The optimizer that the settings name, over the named parameters, which are moved into one buffer.

    Args:
        steps: optimizer steps of the whole run.
        copy_dtype: a smaller format for the model to compute in (``FlatParameters``); the optimizer always works in
            float32.
        factors: what the rate of some parameters is multiplied by, by name.

    Raises:
        SettingsError: LoRA+ or such factors together with an optimizer that has one rate for all parameters.
        MachineError: the optimizer's library does not work here.
    """
    spec = registry.get(values.optimizer)
    # the A's of one input end to end: models.fused takes them as one matrix, and their gradients
    named = sorted(named, key=lambda item: ".lora_A." not in item[0])
    names = {id(parameter): name for name, parameter in named}
    made = groups(named, values, factors)
    flat = FlatParameters([group["params"] for group in made], copy_dtype)
    parameters = {
        names[id(own)]: precise
        for group, parts in zip(made, flat.parameters, strict=True)
        for own, precise in zip(group["params"], parts, strict=True)
    }
    seen = [[whole] for whole in flat.groups] if spec.flat else flat.parameters
    made = [{**group, "params": parts} for group, parts in zip(made, seen, strict=True)]
    return FlatOptimizer(optimizer(made, values, steps), flat, {name: parameters[name] for name, _ in named})


def groups(named: Named, values: Hyperparameters, factors: Mapping[str, float] = MappingProxyType({})) -> list[dict]:
    """Parameter groups: B's learn ``lora_plus`` times faster than the rest (LoRA+, Hayou et al. 2024, §4), text
    encoders and learned tokens at rates of their own where the optimizer knows more than one, and the parameters in
    ``factors`` at that multiple of theirs, after the others. Empty ones are left out.

    Raises:
        SettingsError: the optimizer has one rate for all, and ``factors`` are given.
    """
    spec = registry.get(values.optimizer)
    registry.require_one_rate(spec.name, by_block=bool(factors))
    gathered: dict[tuple[str, float], dict[str, Any]] = {}
    # by where a rate comes from: two that happen to be equal must not share a moment, or a state would fit no other
    for name, parameter in sorted(named, key=lambda item: item[0] in factors):
        key = _rate_key(name, spec)
        times = factors.get(name, 1) * (values.lora_plus if ".lora_B." in name else 1)
        rate = getattr(values, key) * times
        group = {"params": [], "lr": rate, "base_lr": rate, "rate_key": key, "times": times}
        gathered.setdefault((key, times), group)["params"].append(parameter)
    return list(gathered.values())


def _rate_key(name: str, spec: OptimizerSpec) -> str:
    """The setting that has the learning rate of the parameter ``name``."""
    if spec.one_rate or not name.startswith("text_encoder"):
        return "learning_rate"
    return "token_learning_rate" if ".learned_words." in name else "text_learning_rate"


def change_rates(optimizer: torch.optim.Optimizer, values: Hyperparameters) -> None:
    """Gives the groups the rates that they would have had with the learning rates of ``values``, to the bit."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] = getattr(values, group["rate_key"]) * group["times"]


def optimizer(groups: list[dict], values: Hyperparameters, steps: int) -> torch.optim.Optimizer:
    """The optimizer alone, over parameter groups as ``groups`` gives them. Raises as ``flat_optimizer``."""
    spec = registry.get(values.optimizer)
    registry.require_one_rate(spec.name, values.lora_plus)
    said = io.StringIO()
    with redirect_stdout(said):  # Prodigy prints how it decays weights, and standard output is for results
        made = _import(spec)(groups, lr=values.learning_rate, **spec.options(values, steps))
    if text := said.getvalue().strip():
        logging.getLogger(__name__).info("%s: %s", spec.title, text)
    return made


def _import(spec: OptimizerSpec) -> Callable[..., torch.optim.Optimizer]:
    module, _, name = spec.path.rpartition(".")
    try:
        if spec.package == "bitsandbytes":
            libraries.bitsandbytes()
        return getattr(import_module(module), name)
    except (ImportError, OSError, RuntimeError) as error:
        others = [other.name for other in registry.OPTIMIZERS.values() if other.package != spec.package]
        raise MachineError(
            tr("{package} does not work on this machine: {error}.", package=spec.package, error=error),
            where="optimizer",
            do=tr("Choose {optimizers}.", optimizers=either(others)),
        ) from error


def set_rate(
    optimizer: torch.optim.Optimizer, values: Hyperparameters, step: int, steps: int, factor: float = 1.0
) -> float:
    """Sets every group's rate for ``step`` of ``steps``, times ``factor``, and returns the first one's. An optimizer
    with a schedule of its own keeps its full rate.
    """
    own_schedule = registry.get(values.optimizer).own_schedule
    scheduled = 1.0 if own_schedule else schedules.factor(step, steps, values)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scheduled * factor
    return optimizer.param_groups[0]["lr"]


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to ``factor`` times its full one, whatever the schedule says."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


SET_BY_SETTINGS = ("base_lr", "rate_key", "times", "weight_decay")
"""What a parameter group has from the settings, which a resumed run or a branch may change."""


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads a saved optimizer's ``state_dict``: its moments and counts, while learning rates and weight decay stay as
    the present settings have them.
    """
    present = [{key: group[key] for key in SET_BY_SETTINGS if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, present, strict=True):
        group.update(values)
    _keep_formats(optimizer, state)


def _keep_formats(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """torch gives loaded moments the format of their parameters: puts those that were saved in a smaller one back."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, saved in state["state"].items():
        own = optimizer.state[parameters[index]]
        for name, value in saved.items():
            if isinstance(value, torch.Tensor) and value.dtype != own[name].dtype:
                own[name] = value.to(own[name].device, copy=True)


def mode(optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Schedule-free AdamW takes gradients at one point and reports another (Defazio et al. 2024, §2): switches between
    them; others do nothing.
    """
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch:
        switch()

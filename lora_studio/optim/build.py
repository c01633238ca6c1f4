"""Builds an optimizer from its row, over one flat buffer, with LoRA+'s and the text encoders' rates."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import nn

from lora_studio.errors import MachineError, SettingsError
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
    named: Named, values: Hyperparameters, steps: int, copy_dtype: torch.dtype | None = None
) -> FlatOptimizer:
    """The optimizer that the settings name, over the named parameters, which are moved into one buffer.

    Args:
        steps: optimizer steps of the whole run.
        copy_dtype: a smaller format for the model to compute in (``FlatParameters``); the optimizer always works in
            float32.

    Raises:
        SettingsError: LoRA+ together with an optimizer that has one rate for all parameters.
        MachineError: the optimizer's library does not work here.
    """
    spec = registry.get(values.optimizer)
    # the A's of one input end to end: models.fused takes them as one matrix, and their gradients
    named = sorted(named, key=lambda item: ".lora_A." not in item[0])
    names = {id(parameter): name for name, parameter in named}
    made = groups(named, values)
    flat = FlatParameters([group["params"] for group in made], copy_dtype)
    parameters = {
        names[id(own)]: precise
        for group, parts in zip(made, flat.parameters, strict=True)
        for own, precise in zip(group["params"], parts, strict=True)
    }
    seen = [[whole] for whole in flat.groups] if spec.flat else flat.parameters
    made = [{**group, "params": parts} for group, parts in zip(made, seen, strict=True)]
    return FlatOptimizer(optimizer(made, values, steps), flat, {name: parameters[name] for name, _ in named})


def groups(named: Named, values: Hyperparameters) -> list[dict]:
    """Parameter groups: B's learn ``lora_plus`` times faster than the rest (LoRA+, Hayou et al. 2024, §4), text
    encoders at a rate of their own where the optimizer knows more than one. Empty ones are left out.
    """
    one_rate = registry.get(values.optimizer).one_rate
    gathered: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named:
        text = name.startswith("text_encoder") and not one_rate
        rate = values.text_learning_rate if text else values.learning_rate
        gathered.setdefault(rate * (values.lora_plus if ".lora_B." in name else 1), []).append(parameter)
    return [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in gathered.items()]


def optimizer(groups: list[dict], values: Hyperparameters, steps: int) -> torch.optim.Optimizer:
    """The optimizer alone, over parameter groups as ``groups`` gives them. Raises as ``flat_optimizer``."""
    spec = registry.get(values.optimizer)
    if spec.one_rate and values.lora_plus != 1:
        raise SettingsError(
            f"{spec.title} has one learning rate for all parameters, so LoRA+ cannot give the second factor another.",
            where="lora_plus",
            do="Set lora_plus to 1, or choose another optimizer.",
        )
    said = io.StringIO()
    with redirect_stdout(said):  # Prodigy prints how it decays weights, and standard output is for results
        made = _import(spec)(groups, lr=values.learning_rate, **spec.options(values, steps))
    if text := said.getvalue().strip():
        logging.getLogger(__name__).info("%s: %s", spec.title, text)
    return made


def _import(spec: OptimizerSpec) -> Callable[..., torch.optim.Optimizer]:
    module, _, name = spec.path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, OSError, RuntimeError) as error:
        others = [other.name for other in registry.OPTIMIZERS.values() if other.package != spec.package]
        raise MachineError(
            f"{spec.package} does not work on this machine: {error}.",
            where="optimizer",
            do=f"Choose {', '.join(others[:-1])} or {others[-1]}.",
        ) from error


def set_rate(
    optimizer: torch.optim.Optimizer, values: Hyperparameters, step: int, steps: int, factor: float = 1.0
) -> float:
    """Sets every group's rate for ``step`` of ``steps``, times ``factor``, and returns the first one's. An optimizer
    with a schedule of its own keeps its full rate.
    """
    own_schedule = registry.get(values.optimizer).own_schedule
    scheduled = 1.0 if own_schedule else schedules.factor(step, steps, values.schedule, values.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scheduled * factor
    return optimizer.param_groups[0]["lr"]


SET_BY_SETTINGS = ("base_lr", "weight_decay")
"""What a parameter group has from the settings, which a resumed run or a branch may change."""


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads a saved optimizer's ``state_dict``: its moments and counts, while learning rates and weight decay stay as
    the present settings have them.
    """
    present = [{key: group[key] for key in SET_BY_SETTINGS if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, present, strict=True):
        group.update(values)


def mode(optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Schedule-free AdamW takes gradients at one point and reports another (Defazio et al. 2024, §2): switches between
    them; others do nothing.
    """
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch:
        switch()

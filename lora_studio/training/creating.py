"""New runs: what can be known of why one would fail before its first step is checked before its folder is made."""

from __future__ import annotations

from pathlib import Path

from lora_studio.config import by_block
from lora_studio.config.settings import Settings
from lora_studio.optim import registry as optimizers
from lora_studio.runs import Run, branching
from lora_studio.runs.branching import BranchPoint, Check


def require_possible(settings: Settings, adapter: Path | None) -> None:
    """Raises what a run would raise once its base model is in memory, as far as file headers tell it.

    Args:
        adapter: the one that it begins with, if any.

    Raises:
        MachineError: the device that the settings name is not here.
        SettingsError: the base model has not the layers or blocks that are named, or the optimizer has one rate for all
            where others are asked for.
        AdapterError: the run cannot begin with ``adapter``: it is of another family, or of another kind or size.
    """
    machine, own, optimizer = settings.machine, settings.adapter, settings.optimizer
    rates = [line.rate for line in map(by_block.read, own.by_block) if line.rate not in (None, 1)]
    optimizers.require_one_rate(optimizer.optimizer, optimizer.lora_plus, bool(rates))
    if machine.device not in ("auto", "cpu") or machine.gpus > 1:
        from lora_studio.training import devices, distributed  # takes seconds, as below

        devices.available(machine.device)
        distributed.require(machine)
    if adapter or own.blocks or own.by_block:
        _require_layers(settings, adapter)


def create(
    settings: Settings, outputs: Path, origin: BranchPoint | None = None, check: Check = require_possible
) -> Run:
    """A new run, or a branch from ``origin``.

    Args:
        check: ``require_possible``, or what asks another process for it.

    Raises:
        StudioError: as ``branching.create``, ``branching.branch`` and ``check``; nothing is left behind.
    """
    if origin:
        return branching.branch(origin.run, origin.step, settings, outputs, check)
    return branching.create(settings, outputs, check)


def _require_layers(settings: Settings, file: Path | None) -> None:
    from lora_studio import adapters
    from lora_studio.methods import registry as methods
    from lora_studio.models import inject, modules, outline, warm_start

    run, method = settings.run, methods.get(settings.adapter.method)
    base = outline.read(run.base, run.vae, run.text_encoders)
    own = settings.adapter.of_family(base.family)
    names = inject.wanted(base.family, base.models, own)
    if file is None:
        return
    given = adapters.read(file)
    paths = [modules.path_of(part, name) for part, some in names.items() for name in some]
    if method.own_start:  # the sizes of its layers matter too
        for part, some in names.items():
            inject.put_layers(base.models[part], part, some, own)
    layers = inject.layers_in(base.models)
    word = run.trigger.strip() if own.tokens else ""
    warm_start.require_held(given, base.family, base.models, method, paths, layers, word)

"""What the process that draws keeps in memory: a base model, adapters, and which of them are on the model."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_studio.config.settings import Settings
from lora_studio.config.specs import OF_BASE
from lora_studio.errors import AdapterError
from lora_studio.events import Warned
from lora_studio.jobs.image_spec import Blending, ImageSpec, Placed
from lora_studio.language import tr

if TYPE_CHECKING:
    from lora_studio.adapters import Adapter
    from lora_studio.models import Base

KEPT = 12
"""Adapters in memory."""
_LOADED = tuple(key for key in OF_BASE if key != "clip_skip")
"""What decides which base model is in memory; another clip skip needs no other one."""


class ModelsInMemory:
    """The base model and the adapters in memory, and which adapters are on the model.

    Attributes:
        alone: whether nothing else needs the device. Otherwise the base model keeps nothing that costs memory and can
            be done without (``sampling.shortcuts``).
    """

    def __init__(self) -> None:
        self.alone = True
        self._base: tuple[tuple[Any, ...], Base] | None = None
        self._adapters: OrderedDict[tuple, Adapter] = OrderedDict()
        self._loaded: tuple[Any, dict[str, Any]] = None, {}
        """Which adapters are on the model, and what was answered about them; they stay while only weights change."""

    def load(self, spec: ImageSpec) -> dict[str, Any]:
        """Puts the adapters on the base model; returns what is to be answered about a blend."""
        from lora_studio.models import inject

        base = self.base(spec)
        wanted = (
            spec.blending,
            [(_state(one.path), one.blocks, spec.blending and one.weight) for one in spec.adapters],
        )
        if wanted != self._loaded[0]:
            self._loaded, told = (None, {}), {}
            if spec.blending:
                adapter, told = self._blended(spec, spec.blending)
                inject.load_adapters(base, [(adapter, 1.0)])
            else:
                inject.load_adapters(base, [(self.adapter(one), one.weight) for one in spec.adapters])
            self._loaded = wanted, told
        elif not spec.blending:
            inject.set_weights(base, [one.weight for one in spec.adapters])
        return self._loaded[1]

    def read_as_trained(self, base: Base, spec: ImageSpec) -> list[Warned]:
        """Gives the base model the clip skip that is wanted, or that of the adapters; returns what is to be said."""
        from lora_studio.models import clip_skip

        return clip_skip.settle(base, spec.clip_skip, [(one.name, self._read(one.path)) for one in spec.adapters])

    def _blended(self, spec: ImageSpec, how: Blending) -> tuple[Adapter, dict[str, Any]]:
        from lora_studio.adapters import blend, formats, recipe

        adapters = [self._read(one.path) for one in spec.adapters]
        ingredients = [
            blend.ingredient(one.name, one.weight, adapter, one.blocks)
            for one, adapter in zip(spec.adapters, adapters, strict=True)
        ]
        chosen = recipe.blend(method=how.method, ingredients=ingredients, rank=how.rank, **how.parameters)
        made = blend.blend(chosen, adapters)
        dtype = next(iter(adapters[0].factors.values())).down.dtype
        return made.adapter, {
            "rank": made.adapter.rank,
            "size": formats.size(made.adapter, dtype),
            "residual": made.residual,
        }

    def base(self, spec: ImageSpec) -> Base:
        """The base model; it is loaded only where another one was in memory, or one with other parts or another
        noise process.
        """
        wanted = base_of(spec)
        if self._base is None or self._base[0] != wanted:
            import torch

            from lora_studio import models
            from lora_studio.training import devices, threads

            self._drop()  # first free the old one: two may not fit
            machine = devices.choose(Settings().machine)
            how = {key: getattr(spec, key) for key in _LOADED}
            loaded = models.load(how.pop("base"), machine.device, machine.dtype, **how)
            if machine.device.type == "cpu":
                threads.fastest(lambda: _probe(loaded), torch.get_num_threads())
            self._base = wanted, loaded
            self.share(self.alone)
        return self._base[1]

    def share(self, alone: bool) -> None:
        """Takes or gives up what costs memory: ``alone`` says whether nothing else needs the device."""
        from lora_studio.sampling import shortcuts

        self.alone = alone
        if self._base is not None:
            (shortcuts.take if alone else shortcuts.save_memory)(self._base[1])

    def _drop(self) -> None:
        if self._base is not None:
            from lora_studio.models import inject
            from lora_studio.sampling import shortcuts

            shortcuts.save_memory(self._base[1])
            inject.unload_adapters(self._base[1])  # their hooks would keep it
        self._base, self._loaded = None, (None, {})

    def holds(self, spec: ImageSpec) -> bool:
        """Whether the base model of ``spec`` is in memory."""
        return self._base is not None and self._base[0] == base_of(spec)

    def forget_loaded(self) -> None:
        """To be called where others change the adapters on the base model."""
        self._loaded = None, {}

    def adapter(self, placed: Placed) -> Adapter:
        """The adapter as it is drawn: each block's update multiplied by its factor."""
        from lora_studio.adapters import block_names

        adapter, blocks = (
            self._read(placed.path),
            {block: factor for block, factor in placed.blocks.items() if factor != 1},
        )
        if not blocks:
            return adapter
        adapter.require_factors("weighted by block")
        if adapter.kind.needs_base:
            raise AdapterError(
                tr("{name} is a DoRA, whose blocks cannot be weighted separately.", name=placed.name),
                do=tr("Set its blocks back to 1."),
            )
        weighted = {
            path: replace(one, alpha=one.alpha * block_names.block_factor(blocks, path))
            for path, one in adapter.factors.items()
        }
        return replace(adapter, factors=weighted)

    def _read(self, path: str) -> Adapter:
        from lora_studio import adapters

        key = _state(path)
        if key not in self._adapters:
            self._adapters[key] = adapters.read(Path(path))
        self._adapters.move_to_end(key)
        while len(self._adapters) > KEPT:
            self._adapters.popitem(last=False)
        return self._adapters[key]


def base_of(spec: ImageSpec) -> tuple[Any, ...]:
    """What tells whether the base model in memory is the one of ``spec``."""
    return tuple(getattr(spec, key) for key in _LOADED)


def _state(path: str) -> tuple:
    """A file's path, time of change and size: an adapter that has changed is read again."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise AdapterError(
            tr("{name} is gone.", name=Path(path).name),
            where=path,
            do=tr("Remove it from the mix, or put the file back."),
        ) from error
    return path, stat.st_mtime_ns, stat.st_size


def _probe(base: Base) -> None:
    """About one denoising step, to be timed."""
    import torch

    side = base.resolution // base.scale
    with torch.no_grad():
        base.predict(
            torch.zeros(2, base.channels, side, side),
            base.process.evenly(2),
            base.encode_text(["", ""]),
        )

"""Adapters in a base model: one to train, and finished ones on top.

The one that is trained is in peft's layers, as its method says; the finished ones are an ``AdapterOverlay``. Neither
touches the base model's weights.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lora_studio.adapters.adapter import Adapter
from lora_studio.config.slices import AdapterSettings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.methods import registry
from lora_studio.methods.method import NAME, Layer
from lora_studio.models import modules
from lora_studio.models.base import Base
from lora_studio.models.overlay import AdapterOverlay, Weights
from lora_studio.models.unpacked import weight_of


def add_adapter(base: Base, settings: AdapterSettings, seed: int) -> None:
    """Puts a fresh adapter into the denoiser, and into the text encoders if they are trained. Its parameters are
    float32 and depend on ``seed`` alone; the model answers as before until it is trained.

    Raises:
        SettingsError: the base model has none of the layers that ``targets`` asks for.
    """
    method = registry.get(settings.method)
    for component, wanted in _wanted(base, settings).items():
        with torch.random.fork_rng([base.device] if base.device.type == "cuda" else []):
            inject_adapter_in_model(method.config(settings, wanted), base.models[component], NAME)
    base.method = method
    with torch.no_grad():
        for parameter in trainable(base).values():
            parameter.data = parameter.data.float()
        subtracted = method.start(layers(base), settings, torch.Generator().manual_seed(seed))
        if subtracted is not None:
            base.start = AdapterOverlay(base.models, [(Adapter(subtracted), -1.0)], base.family.name, torch.float32)


def _wanted(base: Base, settings: AdapterSettings) -> dict[str, list[str]]:
    """Names of the layers that ``targets`` asks for, by component."""
    family = base.family
    names = {family.denoiser: modules.targets(base.unet, family.targets[settings.targets])}
    if not names[family.denoiser]:
        raise SettingsError(
            f"The base model has no layers for {settings.targets!r}.", where="targets", do="Choose other layers."
        )
    if settings.train_text:
        for component, encoder in base.text_encoders.items():
            names[component] = modules.targets(encoder.to(base.device), family.text_targets[settings.targets])
    return names


def trainable(base: Base) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name; a first factor's name holds ``lora_A``, a second's ``lora_B``, a magnitude's
    ``lora_magnitude``.
    """
    return {
        f"{component}.{name}": parameter
        for component, model in base.models.items()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def read_adapter(base: Base) -> Adapter:
    """The adapter under training as it is now: float32 copies on the CPU, relative to the base model's own weights.

    ``adapters.dora.change`` gives its true change, from ``weight``.
    """
    if base.method is None:
        return Adapter({})
    subtracted = {} if base.start is None else base.start.adapters[0].factors
    return Adapter({path: base.method.read(layer, subtracted.get(path)) for path, layer in layers(base).items()})


def weight(base: Base, path: str) -> Tensor:
    """The base model's own weight at a canonical path: float32 on the CPU, (out, in) or (out, in, kh, kw); of a
    quantized model, unpacked.

    Raises:
        KeyError: there is no such module.
    """
    module = modules.find(base.models, path)
    return weight_of(module).to("cpu", torch.float32).reshape(modules.weight_shape(module))


def load_adapters(base: Base, adapters: Sequence[tuple[Adapter, float]]) -> None:
    """Puts finished adapters, each with its weight, on top of the base model, in place of those loaded before.

    Raises:
        AdapterError: one does not fit the base model, or a weight is not finite.
    """
    unload_adapters(base)
    if adapters:
        base.loaded = AdapterOverlay(base.models, adapters, base.family.name, base.dtype)


def set_weights(base: Base, weights: Weights) -> None:
    """Gives the loaded adapters other weights, in their order: one each, or a row of them for each sample of the
    batches that follow.

    A batch of twice or three times as many samples repeats the rows, as guidance puts the same pictures into a batch
    twice.

    Raises:
        AdapterError: a weight is not finite, or there is not one for each adapter.
    """
    if base.loaded is not None:
        base.loaded.set_weights(weights)
    elif any(weights):
        raise AdapterError(
            f"There are 0 adapters and {len(weights)} weights.", where="weight", do="Load adapters first."
        )


def unload_adapters(base: Base) -> None:
    """Removes what ``load_adapters`` put on."""
    if base.loaded is not None:
        base.loaded.remove()
        base.loaded = None


@contextmanager
def without_adapter(base: Base) -> Generator[None]:
    """Within it the base model answers as if there were no adapter at all, trained or loaded."""
    overlays = [overlay for overlay in (base.start, base.loaded) if overlay is not None and overlay.enabled]
    active = [layer.module for layer in layers(base).values() if not layer.module.disable_adapters]
    frozen = [parameter for module in active for parameter in module.parameters() if not parameter.requires_grad]
    for overlay in overlays:
        overlay.enabled = False
    for module in active:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for overlay in overlays:
            overlay.enabled = True
        for module in active:
            module.enable_adapters(True)
        for parameter in frozen:
            parameter.requires_grad = False  # peft has every parameter of its layers train again


def remove(base: Base) -> None:
    """Takes every adapter out, trained and loaded: the base model is as it was loaded."""
    unload_adapters(base)
    if base.start is not None:
        base.start.remove()
    base.method = base.start = None
    for model in base.models.values():
        for name, layer in [
            (name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)
        ]:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config


def layers(base: Base) -> dict[str, Layer]:
    """The layers under training by canonical path."""
    return {
        modules.path_of(component, name): Layer(module, partial(_weight, module))
        for component, model in base.models.items()
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def _weight(module: Any) -> Tensor:
    return weight_of(module.get_base_layer())

"""Adapters in a base model: one to train, and finished ones on top.

The one that is trained lives in peft's layers; the finished ones in a ``Stack``. Neither touches the base model's
weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.models import modules
from lora_studio.models.base import Base
from lora_studio.models.overlay import Stack, Weights
from lora_studio.models.quantize import weight_of

NAME = "style"
"""peft's name for the adapter under training."""


def add_adapter(base: Base, settings: Settings, seed: int) -> None:
    """Puts a fresh adapter into the UNet, and into the text encoders if they are trained. Its weights are float32 and
    depend on ``seed`` alone; the model answers as before until it is trained.

    LoRA: Hu et al. 2021; rsLoRA: Kalajdzievski 2023; DoRA: Liu et al. 2024; PiSSA: Meng et al. 2024.

    Raises:
        SettingsError: the base model has none of the layers that ``targets`` asks for.
    """
    names = {"unet": modules.targets(base.unet, settings.adapter.targets)}
    if not names["unet"]:
        raise SettingsError(
            f"The base model has no layers for {settings.adapter.targets!r}.",
            where="targets",
            do="Choose other layers.",
        )
    if settings.adapter.train_text:
        names |= {
            component: modules.targets(encoder.to(base.device), settings.adapter.targets, text=True)
            for component, encoder in base.text_encoders.items()
        }
    for component, wanted in names.items():
        config = LoraConfig(
            r=settings.adapter.rank,
            lora_alpha=settings.adapter.alpha,
            lora_dropout=settings.adapter.dropout,
            use_rslora=settings.adapter.rslora,
            use_dora=settings.adapter.method == "dora",
            target_modules=wanted,
        )
        with torch.random.fork_rng([base.device] if base.device.type == "cuda" else []):
            inject_adapter_in_model(config, base.models[component], NAME)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(base).values():
            parameter.data = parameter.data.float()
        for layer in layers(base).values():
            _start(layer, settings.adapter.init, source)
        if settings.adapter.method == "pissa":
            base.start = Stack(base.models, [(_principal(base, source), -1.0)], base.family.name, torch.float32)


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


def read_adapter(base: Base) -> Adapter:
    """The adapter under training as it is now: float32 copies on the CPU, relative to the base model's own weights.

    A DoRA keeps its magnitude (``adapters.dora.change`` gives its true change, from ``weight``).
    A PiSSA becomes an ordinary LoRA of twice the rank, ΔW = BA − B₀A₀.
    """
    factors = {path: _factors(layer) for path, layer in layers(base).items()}
    if base.start is not None:
        factors = {path: _minus(one, base.start.adapters[0].factors[path]) for path, one in factors.items()}
    return Adapter(factors)


def weight(base: Base, path: str) -> Tensor:
    """The base model's own weight at a canonical path: float32 on the CPU, (out, in) or (out, in, kh, kw); of a
    quantised model, unpacked.

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
        base.loaded = Stack(base.models, adapters, base.family.name, base.dtype)


def set_weights(base: Base, weights: Weights) -> None:
    """Gives the loaded adapters other weights, in their order: one each, or a row of them for each sample of the
    batches that follow.

    A batch of twice or three times as many samples takes the rows over and over, as guidance puts the same pictures
    into a batch twice.

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
    """Takes off what ``load_adapters`` put on."""
    if base.loaded is not None:
        base.loaded.remove()
        base.loaded = None


@contextmanager
def without_adapter(base: Base) -> Iterator[None]:
    """Within it the base model answers as if there were no adapter at all, trained or loaded."""
    stacks = [stack for stack in (base.start, base.loaded) if stack is not None and stack.enabled]
    trained = [layer for layer in layers(base).values() if not layer.disable_adapters]
    for stack in stacks:
        stack.enabled = False
    for layer in trained:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for stack in stacks:
            stack.enabled = True
        for layer in trained:
            layer.enable_adapters(True)


def remove(base: Base) -> None:
    """Takes every adapter out, trained and loaded: the base model is as it was loaded."""
    unload_adapters(base)
    if base.start is not None:
        base.start.remove()
        base.start = None
    for model in base.models.values():
        for name, layer in [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config


def layers(base: Base) -> dict[str, LoraLayer]:
    """The layers under training by canonical path."""
    return {
        modules.path_of(component, name): layer
        for component, model in base.models.items()
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def _start(layer: LoraLayer, kind: str, source: torch.Generator) -> None:
    """A from ``source``, B zero: as peft has them (gaussian: standard deviation 1 / r; kaiming: uniform), but drawn on
    the CPU for every device.

    A DoRA's magnitude is the norm of W, which peft has left in the base model's format: too few digits to start from.
    """
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    fresh = torch.empty(down.shape)
    if kind == "gaussian":
        fresh.normal_(std=1 / layer.r[NAME], generator=source)
    else:
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=source)
    down.copy_(fresh)
    up.zero_()
    if NAME in layer.lora_magnitude_vector:
        magnitude = layer.lora_magnitude_vector[NAME].weight
        magnitude.copy_(weight_of(layer.get_base_layer()).float().flatten(1).norm(dim=1).reshape(magnitude.shape))


def _principal(base: Base, source: torch.Generator) -> Adapter:
    """Starts PiSSA (Meng et al. 2024, §3) and returns where it starts: A₀, B₀ from the first r singular directions of
    each W, (alpha/r) B₀A₀ ≈ W.

    The paper trains BA over W − B₀A₀. So that W itself need not be changed, B₀A₀ is subtracted by an adapter of weight
    −1 instead.
    """
    factors = {}
    for path, layer in layers(base).items():
        down, up, scale = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight, layer.scaling[NAME]
        weight = weight_of(layer.get_base_layer()).float().flatten(1)
        left, strength, right = _leading(weight, layer.r[NAME], source)
        count, root = len(strength), (strength / scale).sqrt()
        down[:count] = (root[:, None] * right).reshape(count, *down.shape[1:])
        up[:, :count] = (left * root).reshape(-1, count, *up.shape[2:])
        factors[path] = _factors(layer)
    return Adapter(factors)


def _leading(weight: Tensor, rank: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k), S (k,), Vᵀ (k, in) of the k = min(rank, out, in) largest singular values (Halko et al. 2011,
    algorithms 4.4 and 5.1).
    """
    count = min(rank, *weight.shape)
    span = torch.randn(weight.shape[1], min(count + 8, *weight.shape), generator=source).to(weight.device)
    for _ in range(4):
        span = weight.T @ torch.linalg.qr(weight @ span).Q
    basis = torch.linalg.qr(weight @ span).Q
    left, strength, right = torch.linalg.svd(basis.T @ weight, full_matrices=False)
    return (basis @ left)[:, :count], strength[:count], right[:count]


def _factors(layer: LoraLayer) -> Factors:
    magnitude = layer.lora_magnitude_vector[NAME].weight if NAME in layer.lora_magnitude_vector else None
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    return Factors(
        _kept(down),
        _kept(up),
        layer.scaling[NAME] * layer.r[NAME],
        None if magnitude is None else _kept(magnitude).flatten(),
    )


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _minus(now: Factors, start: Factors) -> Factors:
    """BA − B₀A₀ as one pair of factors."""
    return Factors(torch.cat([now.down, start.down]), torch.cat([now.up, -start.up], dim=1), 2 * now.alpha)

"""Adapters in a base model: one to train, and finished ones on top.

The one that is trained is in layers that its method puts around the base model's; the finished ones are an
``AdapterOverlay``. Neither touches the base model's weights.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lora_studio.adapters import block_names, embedding
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.config import by_block
from lora_studio.config.slices import AdapterSettings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.families.family import Family
from lora_studio.language import declared, tr
from lora_studio.methods import registry
from lora_studio.methods.method import NAME, Directions, Layer
from lora_studio.models import modules
from lora_studio.models.base import Base
from lora_studio.models.learned_words import start_from
from lora_studio.models.overlay import AdapterOverlay, Weights
from lora_studio.models.unpacked import weight_of
from lora_studio.optim.norm_cap import FactorPair


def add_adapter(base: Base, settings: AdapterSettings, seed: int, word: str = "") -> None:
    """Puts a fresh adapter into the denoiser, and into the text encoders if they are trained. Its parameters are
    float32 and depend on ``seed`` alone; the model answers as before until it is trained, but for the word that it
    learns.

    Args:
        word: what the learned tokens stand for, if there are any.

    Raises:
        SettingsError: the base model has none of the layers that ``targets`` and ``blocks`` ask for.
    """
    settings = settings.of_family(base.family)
    method = registry.get(settings.method)
    if settings.train_text:
        for encoder in base.text_encoders.values():
            encoder.to(base.device)
    for component, names in wanted(base.family, base.models, settings).items():
        with torch.random.fork_rng([base.device] if base.device.type == "cuda" else []):
            put_layers(base.models[component], component, names, settings)
    base.method = method
    if settings.tokens:
        _add_word(base, settings, word)
    with torch.no_grad():
        for parameter in trainable(base).values():
            parameter.data = parameter.data.float()
        subtracted = method.start(layers(base), settings, torch.Generator().manual_seed(seed))
        if subtracted is not None:
            subtract(base, subtracted)


def subtract(base: Base, factors: Mapping[str, Factors]) -> None:
    """Subtracts ``factors``, by canonical path, from the base model as long as the adapter trains."""
    base.start = AdapterOverlay(base.models, [(Adapter(dict(factors)), -1.0)], base.family.name, torch.float32)


@torch.no_grad()
def start_along(base: Base, settings: AdapterSettings, seen: Mapping[str, Directions]) -> None:
    """Has a fresh adapter start along what was ``seen`` of its layers; see ``Method.start_along``."""
    assert base.method is not None
    subtracted = base.method.start_along(layers(base), settings, seen)
    if subtracted is not None:
        subtract(base, subtracted)


def _add_word(base: Base, settings: AdapterSettings, word: str) -> None:
    """Has the text encoders learn ``word``, which starts as ``init_word`` or its own letters."""
    embedding.require_usable(word)
    starts = {
        component: start_from(encoder.to(base.device), tokenizer, settings.init_word or word, settings.tokens)
        for (component, encoder), tokenizer in zip(base.text_encoders.items(), base.tokenizers, strict=True)
    }
    in_front = registry.get(settings.method).in_front
    base.words.train(word, starts, settings.keep_norm, in_front)


def put_layers(model: nn.Module, component: str, names: Sequence[str], settings: AdapterSettings) -> None:
    """Puts the method's layers around the modules ``names`` of ``model``, each of the rank and alpha of its block."""
    alike: dict[tuple[int, float], list[str]] = {}
    for name in names:
        own = settings.at(modules.path_of(component, name))
        alike.setdefault((own.rank, own.alpha), []).append(name)
    for (rank, alpha), some in alike.items():
        registry.get(settings.method).inject(model, some, settings.model_copy(update={"rank": rank, "alpha": alpha}))
        if hasattr(model, "peft_config"):
            del model.peft_config  # peft would warn of a second adapter, and needs it no more


def rates(base: Base, settings: AdapterSettings) -> dict[str, float]:
    """What the learning rate of each of the adapter's parameters is multiplied by, where it is not 1."""
    settings = settings.of_family(base.family)
    found = {}
    for component, model in base.models.items():
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer) and (rate := settings.rate(modules.path_of(component, name))) != 1:
                inside = (inner for inner, parameter in module.named_parameters() if parameter.requires_grad)
                found |= {f"{component}.{name}.{inner}": rate for inner in inside}
    return found


def wanted(family: Family, models: Mapping[str, nn.Module], settings: AdapterSettings) -> dict[str, list[str]]:
    """Names of the layers that ``targets`` and ``blocks`` ask for and the method takes, by component of the ``models``.

    Raises:
        SettingsError: as ``add_adapter``.
    """
    method = registry.get(settings.method)
    if not method.changes_layers:
        return {}
    names = {family.denoiser: modules.targets(models[family.denoiser], family.targets[settings.targets])}
    if not names[family.denoiser]:
        raise SettingsError(
            tr("The base model has no layers for {targets!r}.", targets=settings.targets),
            where="targets",
            do=tr("Choose other layers."),
        )
    if settings.train_text:
        for component in models.keys() - {family.denoiser}:
            names[component] = modules.targets(models[component], family.text_targets[settings.targets])
    paths = {(part, name): modules.path_of(part, name) for part, found in names.items() for name in found}
    paths = {place: path for place, path in paths.items() if method.takes(path)}
    if not paths:
        raise SettingsError(
            tr(
                "{method} changes none of the layers of {targets!r}.",
                method=declared(method.title),
                targets=settings.targets,
            ),
            where="targets",
            do=tr("Choose more layers, such as attention."),
        )
    chosen = {place: path for place, path in paths.items() if block_names.within(settings.blocks, path)}
    for block in settings.blocks:
        _require_block("blocks", block, models, paths.values())
    for line in settings.by_block:
        _require_block("by_block", by_block.read(line).block, models, chosen.values())
    return {part: [name for name in found if (part, name) in chosen] for part, found in names.items()}


def _require_block(setting: str, block: str, models: Mapping[str, nn.Module], chosen: Collection[str]) -> None:
    """Raises SettingsError where there is no block of that name, or none of the ``chosen`` layers is in it.

    Args:
        setting: that names it.
    """
    if any(block_names.contains(block, path) for path in chosen):
        return
    there = modules.adaptable(models)
    held = [path for path in there if block_names.contains(block, path)]
    if not held:
        what, do = tr("The base model has no block named {block}.", block=block), block_names.suggestion(block, there)
    elif all(path.startswith("text_encoder") for path in held):
        what = tr("{block} is in a text encoder, and none is trained.", block=block)
        do = tr("Set train_text to on, or remove {block}.", block=block)
    else:
        what = tr("The layers to be changed include none in {block}.", block=block)
        do = tr("Choose more layers (targets and blocks), or another block.")
    raise SettingsError(what, where=setting, do=do)


def trainable(base: Base) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name; of peft's LoRA layers a first factor's name holds ``lora_A``, a second's
    ``lora_B``, a magnitude's ``lora_magnitude``.
    """
    return {
        f"{component}.{name}": parameter
        for component, model in base.models.items()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def factor_pairs(base: Base, parameters: Mapping[str, nn.Parameter]) -> list[FactorPair]:
    """The factors of every layer under training that has a first and a second one.

    Args:
        parameters: where they are in float32, by the names of ``trainable``.
    """
    found = []
    for component, model in base.models.items():
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                down, up = (parameters.get(f"{component}.{name}.lora_{which}.{NAME}.weight") for which in "AB")
                if down is not None and up is not None:
                    found.append(FactorPair(down.data, up.data, module.scaling[NAME]))
    return found


@torch.no_grad()
def read_adapter(base: Base) -> Adapter:
    """The adapter under training as it is now: float32 copies on the CPU, relative to the base model's own weights.

    ``adapters.dora.change`` gives its true change, from ``weight``.
    """
    if base.method is None:
        return Adapter({})
    subtracted = {} if base.start is None else base.start.adapters[0].factors
    read = {path: base.method.read(layer, subtracted.get(path)) for path, layer in layers(base).items()}
    factors = {path: one for path, one in read.items() if isinstance(one, Factors)}
    outputs = {path: one for path, one in read.items() if not isinstance(one, Factors)}
    return Adapter(factors, outputs=outputs, embeddings=base.words.read())


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
        AdapterError: one does not fit the base model, a weight is not finite, or two have learned the same word.
    """
    unload_adapters(base)
    if not adapters:
        return
    try:
        base.words.load([adapter for adapter, _ in adapters])
        base.words.require_distinct([weight for _, weight in adapters])
        base.loaded = AdapterOverlay(base.models, adapters, base.family.name, base.dtype)
    except AdapterError:
        base.words.unload()
        raise


def set_weights(base: Base, weights: Weights) -> None:
    """Gives the loaded adapters other weights, in their order: one each, or a row of them for each sample of the
    batches that follow.

    A batch of twice or three times as many samples repeats the rows, as guidance puts the same pictures into a batch
    twice.

    Raises:
        AdapterError: a weight is not finite, there is not one for each adapter, or two that a sample has have learned
            the same word.
    """
    if base.loaded is not None:
        base.loaded.set_weights(weights)
        for row in base.loaded.weights:
            base.words.require_distinct(row)
    elif any(weights):
        raise AdapterError(
            tr("There are 0 adapters and {weights} weights.", weights=len(weights)),
            where="weight",
            do=tr("Load adapters first."),
        )


def unload_adapters(base: Base) -> None:
    """Removes what ``load_adapters`` put on."""
    if base.loaded is not None:
        base.loaded.remove()
        base.loaded = None
        base.words.unload()


def folded(base: Base) -> AbstractContextManager[None]:
    """Within it the denoiser has the loaded adapters in its weights, if that is faster and the same up to rounding; see
    ``AdapterOverlay.folded``. Their weights must not be changed meanwhile.
    """
    return nullcontext() if base.loaded is None else base.loaded.folded(base.unet)


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
        with base.words.without():
            yield
    finally:
        for overlay in overlays:
            overlay.enabled = True
        for module in active:
            module.enable_adapters(True)
        for parameter in frozen:
            parameter.requires_grad = False  # peft has every parameter of its layers train again


@contextmanager
def scaled(base: Base, factor: float) -> Generator[None]:
    """Within it the adapter under training changes layers ``factor`` times as much; with −1 the other way. For methods
    that are ``cappable``, whose change that scales.
    """
    modules = [layer.module for layer in layers(base).values()] if factor != 1 else []
    scales = [module.scaling[NAME] for module in modules]
    for module, scale in zip(modules, scales, strict=True):
        module.scaling[NAME] = factor * scale
    try:
        yield
    finally:
        for module, scale in zip(modules, scales, strict=True):
            module.scaling[NAME] = scale


def remove(base: Base) -> None:
    """Takes every adapter out, trained and loaded: the base model is as it was loaded."""
    unload_adapters(base)
    if base.start is not None:
        base.start.remove()
    base.words.remove()
    base.method = base.start = None
    for model in base.models.values():
        for name, layer in [
            (name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)
        ]:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())


def layers(base: Base) -> dict[str, Layer]:
    """The layers under training by canonical path."""
    return layers_in(base.models)


def layers_in(models: Mapping[str, nn.Module]) -> dict[str, Layer]:
    """As ``layers``, of models by the first word of a canonical path."""
    return {
        modules.path_of(component, name): Layer(module, partial(_weight, module))
        for component, model in models.items()
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def _weight(module: Any) -> Tensor:
    return weight_of(module.get_base_layer())

"""What an adapter can change in a model: the modules, by canonical path, and the shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from lora_studio.adapters import keys


def targets(model: nn.Module, pattern: str) -> list[str]:
    """Names within ``model`` of the linear layers and convolutions that ``pattern`` finds, as a family's ``targets``
    has it.
    """
    wanted = re.compile(pattern)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and wanted.search(name)
    ]


def adaptable(models: Mapping[str, nn.Module]) -> dict[str, nn.Linear | nn.Conv2d]:
    """Every linear layer and convolution of ``models`` by canonical path; of a layer under training, the layer below
    its adapter.
    """
    found = {}
    for component, model in models.items():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name:
                found[path_of(component, name)] = module
    return found


def find(models: Mapping[str, nn.Module], path: str) -> nn.Linear | nn.Conv2d:
    """The module at a canonical path; of a layer under training, the layer below its adapter.

    Raises:
        KeyError: there is none.
    """
    component, _, name = path.partition(".")
    for spelling in (name, name.removeprefix("text_model.")):
        try:
            module = models[component].get_submodule(spelling)
        except AttributeError:
            continue
        module = getattr(module, "base_layer", module)
        if isinstance(module, nn.Linear | nn.Conv2d):
            return module
    raise KeyError(path)


def path_of(component: str, name: str) -> str:
    """The canonical path of the module ``name`` in ``component``."""
    return keys.canonical(f"{component}.{name.removesuffix('.base_layer')}")


def weight_shape(module: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    """(out, in) or (out, in, kh, kw), also where a quantized weight is stored in another shape."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels // module.groups, *module.kernel_size

"""diffusers' dialect: ``unet.<path>.lora_A.weight``, alphas in the header under ``lora_adapter_metadata``.

diffusers packs each component's LoraConfig into that JSON table, its keys prefixed by the component's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lora_studio.adapters import keys, peft, stored
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.kohya import Kernels, Modules
from lora_studio.errors import AdapterError
from lora_studio.language import tr

CONFIG = "lora_adapter_metadata"


def decode(modules: Modules, metadata: Mapping[str, str], kernels: Kernels) -> dict[str, Factors]:
    """Factors from a file's tensors by path and role; alphas from tensors, else from the header, else the scale is 1.

    Raises:
        AdapterError: the header's LoraConfig is not a valid table, or a module's tensors do not fit.
    """
    scales = {component: peft.Scales(config) for component, config in unpack(metadata).items()}
    none = peft.Scales({})
    decoded = {}
    for path, module in modules.items():
        component, _, rest = path.partition(".")
        alpha = scales.get(component, none).alpha(rest, module)
        decoded[path] = stored.factors(module, path, alpha, kernels.get(path))
    return decoded


def unpack(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Each component's LoraConfig from the header, by component; empty if the header has none."""
    if CONFIG not in metadata:
        return {}
    try:
        table = json.loads(metadata[CONFIG])
        configs: dict[str, dict[str, Any]] = {}
        for key, value in table.items():
            component, _, name = key.partition(".")
            configs.setdefault(component, {})[name] = value
        return configs
    except (ValueError, AttributeError, RecursionError):
        raise AdapterError(
            tr("The header's lora_adapter_metadata is not a table."),
            where=CONFIG,
            do=tr("Without it the alphas are unknown: download or copy the file again."),
        ) from None


def encode(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The file's tensors, and the header's entries that are needed to read them."""
    tensors: dict[str, Tensor] = {}
    table: dict[str, Any] = {}
    for component, part in peft.components(adapter.factors).items():
        for path, factors in part.items():
            stem = keys.to_diffusers(f"{component}.{path}")
            tensors.update(peft.tensors(stem, factors))
        table.update({f"{component}.{key}": value for key, value in peft.config(part).items()})
    return tensors, {CONFIG: json.dumps(table, sort_keys=True)}

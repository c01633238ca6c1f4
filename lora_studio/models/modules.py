"""What an adapter can change in a model: which modules there are, by canonical path, and the shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from lora_studio.adapters import keys

_ATTENTION = r"attn[12]\.to_(?:q|k|v|out\.0)$"
_FEED_FORWARD = r"ff\.net\.(?:0\.proj|2)$|attentions\.\d+\.proj_(?:in|out)$"
_CONVOLUTIONS = r"resnets\.\d+\.(?:conv1|conv2|conv_shortcut)$|(?:down|up)samplers\.0\.conv$"
TARGETS = {
    "qv": re.compile(r"attn[12]\.to_[qv]$"),
    "attention": re.compile(_ATTENTION),
    "attention+ff": re.compile(f"{_ATTENTION}|{_FEED_FORWARD}"),
    "attention+ff+conv": re.compile(f"{_ATTENTION}|{_FEED_FORWARD}|{_CONVOLUTIONS}"),
}
"""The setting ``targets`` -> the ends of the UNet's module paths. "ff" brings the transformers' own projections too, as
the reference trainer does.
"""

_TEXT_ATTENTION, _TEXT_ALL = (
    re.compile(r"self_attn\.(?:q|k|v|out)_proj$"),
    re.compile(r"self_attn\.(?:q|k|v|out)_proj$|mlp\.fc[12]$"),
)
TEXT_TARGETS = {
    "qv": re.compile(r"self_attn\.[qv]_proj$"),
    "attention": _TEXT_ATTENTION,
    "attention+ff": _TEXT_ALL,
    "attention+ff+conv": _TEXT_ALL,
}
"""The same for a text encoder, which has no convolutions."""


def targets(model: nn.Module, which: str, text: bool = False) -> list[str]:
    """Names within ``model``, a UNet or with ``text`` a text encoder, of the modules that the setting ``targets``
    means.
    """
    wanted = (TEXT_TARGETS if text else TARGETS)[which]
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
    """(out, in) or (out, in, kh, kw), also where a quantised weight is stored in another shape."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels // module.groups, *module.kernel_size

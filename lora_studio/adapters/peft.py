"""peft's dialect: a folder of ``adapter_config.json`` and ``adapter_model.safetensors`` for each component.

An adapter of the UNet alone is the folder itself; with text encoders each component has a subfolder of its name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_studio.adapters import keys, stored
from lora_studio.adapters.adapter import Factors
from lora_studio.adapters.container import PEFT_MODEL
from lora_studio.adapters.kohya import Kernels, Modules
from lora_studio.adapters.patterns import Patterns
from lora_studio.errors import AdapterError
from lora_studio.language import tr

CONFIG, MODEL = "adapter_config.json", PEFT_MODEL
_KINDS = ("LORA", "LOHA", "LOKR")
"""Values of ``peft_type`` that are read."""
_BASE_CHANGING = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""How those values of ``init_lora_weights`` begin with which peft subtracts the start from the base model."""


def require_readable(config: Mapping[str, Any], where: Path) -> None:
    """Refuses a folder whose tensors alone do not tell its change.

    Raises:
        AdapterError: its method is not read, or its training began by changing the base model's weights, so that
            ΔW = BA − B₀A₀ and B₀A₀ is not in the folder.
    """
    kind, start = str(config.get("peft_type", "LORA")), config.get("init_lora_weights", True)
    if kind not in _KINDS:
        raise AdapterError(
            tr("This peft adapter is of the kind {kind}, which the studio does not read.", kind=kind[:40]),
            where=where,
            do=tr("Train or convert it as LoRA."),
        )
    if isinstance(start, str) and start.lower().startswith(_BASE_CHANGING):
        raise AdapterError(
            tr(
                "This peft adapter began from {start}, which changed the base model by what the folder lacks.",
                start=start[:40],
            ),
            where=where,
            do=tr("Save it in peft with path_initial_model_for_weight_conversion, which makes it a plain LoRA."),
        )


def decode(modules: Modules, config: Mapping[str, Any], kernels: Kernels) -> dict[str, Factors]:
    """Factors of one folder's tensors by path and role.

    Raises:
        AdapterError: a module's tensors do not fit, or the config has an alpha or rank that is not a number.
    """
    product = config.get("peft_type") in ("LOHA", "LOKR")
    scales = Scales(config)
    decoded = {}
    for path, module in modules.items():
        name = path.partition(".")[2]
        one = stored.factors(module, path, scales.alpha(name, module), kernels.get(path))
        decoded[path] = replace(one, alpha=scales.of_product(name) * one.rank) if product else one
    return decoded


class Scales:
    """What a LoraConfig, LoHaConfig or LoKrConfig says of its modules' scales.

    Raises:
        AdapterError: an entry of the config is not a number or a table, here or when it is asked for.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        with _numbers():
            self.alphas, self.ranks = (Patterns(config.get(f"{name}_pattern") or {}) for name in ("alpha", "rank"))

    def alpha(self, path: str, module: Mapping[str, Tensor]) -> float | None:
        """A LoRA's alpha at ``path``, rsLoRA's √r multiplied in; None for other modules, and without a config."""
        if not self.config or "down" not in module:
            return None
        with _numbers():
            rank = module["down"].shape[0]
            value = float(self.alphas.get(path, self.config.get("lora_alpha", rank)))
            return value * math.sqrt(rank) if self.config.get("use_rslora") else value

    def of_product(self, path: str) -> float:
        """alpha / r of a LoHa or LoKr, by the config alone: a LoKr with two whole parts has it too."""
        with _numbers():
            rank = self.ranks.get(path, self.config.get("r", 8))
            return float(self.alphas.get(path, self.config.get("alpha", 8))) / float(rank)


@contextmanager
def _numbers() -> Generator[None]:
    """Makes what a stranger's config can raise an AdapterError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error):
        raise AdapterError(
            tr("The adapter's config has an alpha that is not a number."),
            where=CONFIG,
            do=tr("Correct the config, or download it again."),
        ) from None


def components(factors: Mapping[str, Factors]) -> dict[str, dict[str, Factors]]:
    """{component: {path below it: factors}}."""
    parts: dict[str, dict[str, Factors]] = {}
    for path, value in factors.items():
        component, _, rest = path.partition(".")
        parts.setdefault(component, {})[rest] = value
    return parts


def tensors(stem: str, factors: Factors) -> dict[str, Tensor]:
    """One module's tensors under peft's names. DoRA's magnitude is (out,), (1, out, 1, 1) for a convolution.

    It is written with ``.weight``, which peft itself leaves off: peft reads both, transformers' loader only this.
    """
    named = {f"{stem}.lora_A.weight": factors.down, f"{stem}.lora_B.weight": factors.up}
    if factors.magnitude is not None:
        named[f"{stem}.lora_magnitude_vector.weight"] = (
            factors.magnitude.reshape(1, -1, 1, 1) if factors.down.dim() == 4 else factors.magnitude
        )
    return named


def encode(component: str, part: Mapping[str, Factors]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One component's tensors and config, from {path below the component: factors}."""
    named: dict[str, Tensor] = {}
    for path, factors in part.items():
        named.update(tensors(keys.to_peft(f"{component}.{path}"), factors))
    return named, config(part)


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def config(part: Mapping[str, Factors]) -> dict[str, Any]:
    """The LoraConfig of one component, as JSON values.

    Module names go without ``text_model.``: peft matches the ends of paths, so that they fit transformers 4 and 5.
    """
    part = {path.removeprefix("text_model."): factors for path, factors in part.items()}
    rank = Counter(factors.rank for factors in part.values()).most_common(1)[0][0]
    usual = Counter(factors.alpha for factors in part.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _number(usual),
        "rank_pattern": {path: factors.rank for path, factors in part.items() if factors.rank != rank},
        "alpha_pattern": {path: _number(factors.alpha) for path, factors in part.items() if factors.alpha != usual},
        "target_modules": sorted(part),
        "use_dora": any(factors.magnitude is not None for factors in part.values()),
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }

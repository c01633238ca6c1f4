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
from lora_studio.errors import AdapterError

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
            f"This peft adapter is of the kind {kind[:40]}, which the studio does not read.",
            where=where,
            do="Train or convert it as LoRA.",
        )
    if isinstance(start, str) and start.lower().startswith(_BASE_CHANGING):
        raise AdapterError(
            f"This peft adapter began from {start[:40]}, which changed the base model by what the folder lacks.",
            where=where,
            do="Save it in peft with path_initial_model_for_weight_conversion, which makes it a plain LoRA.",
        )


def decode(modules: Modules, config: Mapping[str, Any], kernels: Kernels) -> dict[str, Factors]:
    """Factors of one folder's tensors by path and role.

    Raises:
        AdapterError: a module's tensors do not fit, or the config has an alpha or rank that is not a number.
    """
    product = config.get("peft_type") in ("LOHA", "LOKR")
    decoded = {}
    for path, module in modules.items():
        name = path.partition(".")[2]
        one = stored.factors(module, path, alpha(config, name, module), kernels.get(path))
        decoded[path] = replace(one, alpha=_product_scale(config, name) * one.rank) if product else one
    return decoded


def _product_scale(config: Mapping[str, Any], path: str) -> float:
    """alpha / r of a LoHa or LoKr, by the config alone: a LoKr with two whole parts has it too."""
    with _numbers():
        rank = _pattern(config.get("rank_pattern") or {}, path, config.get("r", 8))
        return float(_pattern(config.get("alpha_pattern") or {}, path, config.get("alpha", 8))) / float(rank)


def alpha(config: Mapping[str, Any] | None, path: str, module: Mapping[str, Tensor]) -> float | None:
    """The alpha that a LoraConfig gives the module at ``path``, rsLoRA's √r multiplied in; None without a config.

    Patterns match as in peft: a key of ``alpha_pattern`` is a regular expression for the end of the path. Keys are
    compared with the path both with and without ``text_model.``, since transformers 5 writes them without.

    Raises:
        AdapterError: the config's entry is not a number.
    """
    if not config or "down" not in module:
        return None
    with _numbers():
        rank = module["down"].shape[0]
        value = float(_pattern(config.get("alpha_pattern") or {}, path, config.get("lora_alpha", rank)))
        return value * math.sqrt(rank) if config.get("use_rslora") else value


@contextmanager
def _numbers() -> Generator[None]:
    """Makes what a stranger's config can raise an AdapterError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error):
        raise AdapterError(
            "The adapter's config has an alpha that is not a number.",
            where=CONFIG,
            do="Correct the config, or download it again.",
        ) from None


def _pattern(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    """The first entry whose key matches ``path``.

    Raises:
        ValueError: a key from this file of unknown origin could take forever to match.
    """
    paths = {path, path.removeprefix("text_model.")}
    for key, value in patterns.items():
        if not _quick(key):
            raise ValueError(key)
        if any(re.fullmatch(rf"(?:.*\.)?(?:{key})", candidate) for candidate in paths):
            return value
    return default


def _quick(pattern: str) -> bool:
    """Whether matching is bounded: no repeated group, lookaround or back reference, and few ways to divide a path among
    the repeats and alternatives.
    """
    plain = pattern.replace("(?:", "(")
    repeats, groups = sum(map(plain.count, "*+?{")), plain.count("(")
    ways = 100**repeats * (1 + plain.count("|")) ** max(1, groups)
    return not re.search(r"\)[*+?{]|\(\?|\\[1-9]", plain) and ways <= 10**7


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

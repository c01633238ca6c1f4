"""Adapters whose numbers are finite as they are stored, and infinite where they are used.

Programs compute in fp16, whose largest number is 65,504. A real change of a weight is below 10.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_studio.adapters.adapter import Factors
from lora_studio.errors import AdapterError
from lora_studio.language import tr

LARGEST = torch.finfo(torch.float16).max


def require_usable(factors: Mapping[str, Factors], where: object) -> None:
    """Refuses factors, magnitudes and changes ΔW that fp16 cannot hold.

    Raises:
        AdapterError: there is one; the message has the module, what of it is too large, and its value.
    """
    for path, one in factors.items():
        parts = one.parts.tensors if one.parts else {"up": one.up, "down": one.down}
        for name, tensor in {**parts, "magnitude": one.magnitude}.items():
            if tensor is not None and name != "alpha" and not (largest := _largest(tensor)) <= LARGEST:
                raise _refusal(f"the {name} factor of {path} holds {largest:.3g}", where)
        if not _bound(one) <= LARGEST and not (largest := _largest(one.delta(torch.float64))) <= LARGEST:
            cause = f" with its alpha of {one.alpha:.3g}" if abs(one.scale) > LARGEST else ""
            raise _refusal(f"the change of {path}{cause} reaches {largest:.3g}", where)


def require_merged(name: str, weight: Tensor, dtype: torch.dtype) -> None:
    """Refuses a base model's ``weight`` into which adapters were folded, where fp16, or the ``dtype`` in which it
    is saved, cannot hold it.

    Raises:
        AdapterError: it is too large, or not finite.
    """
    limit = min(LARGEST, torch.finfo(dtype).max)
    if not (largest := _largest(weight)) <= limit:
        kind = "fp16" if limit == LARGEST else str(dtype).removeprefix("torch.")
        raise AdapterError(
            tr(
                "The merged model overflows: {name} reaches {largest:.3g}, and {kind} holds at most "
                "{limit:,.0f}. Images would be black.",
                name=name,
                largest=largest,
                kind=kind,
                limit=limit,
            ),
            where=name,
            do=tr("Give the adapters lower weights."),
        )


def _refusal(what: str, where: object) -> AdapterError:
    return AdapterError(
        tr(
            "The adapter overflows: {what}, and fp16 holds at most {largest:,.0f}. Images would be black.",
            what=what,
            largest=LARGEST,
        ),
        where=where,
        do=tr("Use an earlier save of it: its training diverged, or it was damaged when it was converted."),
    )


def _largest(tensor: Tensor) -> float:
    """The largest absolute value; NaN where there is one."""
    values = tensor if tensor.dtype == torch.float64 else tensor.float()
    return float(values.abs().max()) if tensor.numel() else 0.0


def _bound(one: Factors) -> float:
    """No entry of ΔW is larger: |scale| · max ‖row of B‖ · max ‖column of A‖ (Cauchy and Schwarz), or the largest."""
    if one.parts:
        return _largest(one.delta())
    rows = one.up.flatten(1).float().norm(dim=1).max()
    columns = one.down.flatten(1).float().norm(dim=0).max()
    return abs(one.scale) * float(rows) * float(columns)

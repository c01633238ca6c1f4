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
                held = tr("the {factor} factor of {path} holds {largest:.3g}", factor=name, path=path, largest=largest)
                raise _refusal(held, where)
        if not _bound(one) <= LARGEST and not (largest := _largest(one.delta(torch.float64))) <= LARGEST:
            reached = tr("the change of {path} reaches {largest:.3g}", path=path, largest=largest)
            if abs(one.scale) > LARGEST:
                reached = tr(
                    "the change of {path} with its alpha of {alpha:.3g} reaches {largest:.3g}",
                    path=path,
                    alpha=one.alpha,
                    largest=largest,
                )
            raise _refusal(reached, where)


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
                "The merged model overflows: {name} reaches {largest:.3g}, and {precision} holds at most "
                "{limit:,.0f}. Images would be black.",
                name=name,
                largest=largest,
                precision=kind,
                limit=limit,
            ),
            where=name,
            do=tr("Give the adapters lower weights."),
        )


def _refusal(what: str, where: object) -> AdapterError:
    return AdapterError(
        tr(
            "The adapter overflows: {what}, and fp16 holds at most {limit:,.0f}. Images would be black.",
            what=what,
            limit=LARGEST,
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

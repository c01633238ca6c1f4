"""One module's stored tensors -> factors, for every kind whose change is a product: exact, with no SVD.

LoHa and LoKr (LyCORIS; Yeh et al. 2024, section 3) are products of low-rank parts, so they are LoRAs of a larger rank:
a Hadamard product of ranks r₁ and r₂ has rank r₁·r₂ with factors made of the parts' rows and columns multiplied
pairwise; a Kronecker product's factors are the Kronecker products of the parts' factors. A full difference is its own
product with the identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_studio.adapters.adapter import Factors
from lora_studio.errors import AdapterError

Module = Mapping[str, Tensor]


def factors(module: Module, path: str, alpha: float | None = None, kernel: tuple[int, ...] | None = None) -> Factors:
    """Factors of one module.

    Args:
        module: its tensors by role, see ``keys``.
        path: its canonical path, for messages.
        alpha: for dialects that keep it elsewhere; the file's own tensor comes first. With neither the scale is 1.
        kernel: of the layer, () for a linear one; None where that is not known. Files may store a convolution's change
            as a linear layer's.

    Raises:
        AdapterError: a part is missing or the shapes do not fit.
    """
    make = next(
        (make for mark, make in _MAKERS.items() if any(role.startswith(mark) and role != "diff_b" for role in module)),
        _lora,
    )
    try:
        _require_no_bias(module)
        down, up, rank = make(module)
        down, up = _laid_out(down, up, kernel)
        scale = 1.0 if (given := _alpha(module, alpha)) is None or not rank else given / rank
        return Factors(down, up, scale * down.shape[0], _magnitude(module))
    except KeyError as missing:
        raise AdapterError(
            f"{path} lacks its part {missing.args[0]!r}.", where=path, do="The file is incomplete: get it again."
        ) from None
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(
            f"The parts of {path} do not fit each other: {reason}.", where=path, do="The file is damaged: get it again."
        ) from None
    except AdapterError as error:
        raise AdapterError(error.what, where=path, do=error.do) from None


def _alpha(module: Module, alpha: float | None) -> float | None:
    return float(module["alpha"].reshape(())) if "alpha" in module else alpha


def _magnitude(module: Module) -> Tensor | None:
    """DoRA's m, one number for each output; LyCORIS can also write one for each input, which peft's formula has no
    place for.
    """
    if "dora_scale" not in module:
        return module["magnitude"].reshape(-1) if "magnitude" in module else None
    scale = module["dora_scale"]
    if scale.dim() > 1 and scale.shape[0] == 1 < scale.numel():
        raise AdapterError(
            "This DoRA normalizes by inputs instead of outputs, which the studio does not apply.",
            do="Convert it to LoRA where it was made.",
        )
    return scale.reshape(-1)


def _lora(module: Module) -> tuple[Tensor, Tensor, int]:
    """``up`` and ``down``, with LoCon's Tucker core ``mid`` folded into ``down``."""
    down, up = module["down"], module["up"]
    if "mid" in module:
        down = torch.einsum("mnkl,ni->mikl", module["mid"].float(), down.flatten(1).float()).to(down.dtype)
    if down.dim() == 4 and up.dim() == 2:
        up = up[:, :, None, None]
    if down.dim() == 2 and up.dim() == 4:
        down = down[:, :, None, None]
    return down, up, down.shape[0]


def _laid_out(down: Tensor, up: Tensor, kernel: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """``down`` and ``up`` with the dimensions of the layer's kind."""
    if kernel and down.dim() == 2:
        return _folded(down, up, kernel)
    if kernel == () and down.shape[2:] == (1, 1):
        return down.flatten(1), up.flatten(1)
    return down, up


def _folded(down: Tensor, up: Tensor, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A (r, in·kh·kw) and B (out, r) as a convolution's or a linear layer's factors."""
    if not kernel:
        return down, up
    return down.reshape(down.shape[0], -1, *kernel), up[:, :, None, None]


def _require_no_bias(module: Module) -> None:
    """Refuses a change of the layer's bias (``diff_b``), which factors cannot hold. One of zeros changes nothing."""
    if "diff_b" in module and module["diff_b"].count_nonzero():
        raise AdapterError(
            "This adapter also changes biases (diff_b), which the studio does not apply.",
            do="Merge it into its base model in ComfyUI, and use that model as the base.",
        )


def _full(module: Module) -> tuple[Tensor, Tensor, int]:
    """ΔW itself (LyCORIS' "full" and ComfyUI's ``diff``), as a product with the identity: exact, and of full rank."""
    if more := module.keys() - {"diff", "diff_b", "alpha"}:
        raise AdapterError(f"It holds a full difference and {sorted(more)[0]} as well.", do="Get the file again.")
    whole = module["diff"]
    flat = whole.flatten(1)
    small = torch.eye(min(flat.shape), dtype=flat.dtype)
    down, up = (small, flat) if flat.shape[0] >= flat.shape[1] else (flat, small)
    return *_folded(down, up, tuple(whole.shape[2:])), 0


def _loha(module: Module) -> tuple[Tensor, Tensor, int]:
    """ΔW = (w1_a·w1_b) ∘ (w2_a·w2_b); with Tucker cores each side's ``b`` is t·w_b and its ``a`` is transposed."""
    parts = {role: tensor.float() for role, tensor in module.items()}
    kernel: tuple[int, ...] = ()
    sides = []
    for side in "12":
        a, b, core = parts[f"hada_w{side}_a"], parts[f"hada_w{side}_b"], parts.get(f"hada_t{side}")
        if core is not None:
            kernel = tuple(core.shape[2:])
            a, b = a.T, torch.einsum("ijkl,jr->irkl", core, b).flatten(1)
        sides.append((a, b))
    (a1, b1), (a2, b2) = sides
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    down = (b1[:, None, :] * b2[None, :, :]).flatten(0, 1)
    return *_folded(down, up, kernel), module["hada_w1_b"].shape[0]


def _lokr(module: Module) -> tuple[Tensor, Tensor, int]:
    """ΔW = w1 ⊗ w2, either part whole or factored; the scale's rank is that of a factored part, 0 if none is."""
    parts = {role: tensor.float() for role, tensor in module.items()}
    a1, b1, rank1 = _side(parts, "1")
    a2, b2, rank2 = _side(parts, "2")
    core = parts.get("lokr_t2", parts.get("lokr_w2"))
    kernel = tuple(core.shape[2:]) if core is not None else ()
    down, up = torch.kron(b1.contiguous(), b2.contiguous()), torch.kron(a1.contiguous(), a2.contiguous())
    return *_folded(down, up, kernel), rank2 or rank1


def _side(parts: Module, side: str) -> tuple[Tensor, Tensor, int]:
    """One Kronecker part as a (out, r) and b (r, in·kh·kw), r being the smaller side of a whole part, and its stored
    rank.
    """
    whole = parts.get(f"lokr_w{side}")
    if whole is None:
        a, b = parts[f"lokr_w{side}_a"], parts[f"lokr_w{side}_b"]
        if side == "2" and "lokr_t2" in parts:
            return a.T, torch.einsum("ijkl,jr->irkl", parts["lokr_t2"], b).flatten(1), b.shape[0]
        return a, b, b.shape[0]
    flat = whole.flatten(1)
    if flat.shape[0] <= flat.shape[1]:
        return torch.eye(flat.shape[0]), flat, 0
    return flat, torch.eye(flat.shape[1]), 0


_MAKERS = {"lokr": _lokr, "hada": _loha, "diff": _full}
"""How a role begins -> what makes factors of a module that has it."""

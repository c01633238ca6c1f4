"""One module's stored tensors -> factors, for every kind whose change is a product: exact, with no SVD.

LoHa and LoKr (LyCORIS; Yeh et al. 2024, section 3) are products of low-rank parts, so they are LoRAs of a larger rank:
a Hadamard product of ranks r₁ and r₂ has rank r₁·r₂ with factors made of the parts' rows and columns multiplied
pairwise; a Kronecker product's factors are the Kronecker products of the parts' factors. A full difference is its own
product with the identity. As these are larger than what the file holds, the factors keep that as their ``parts``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters.adapter import Factors
from lora_studio.errors import AdapterError
from lora_studio.language import tr

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
    kind = next((kind for kind in _KINDS if any(kind.owns(role) for role in module)), None)
    try:
        _require_no_bias(module)
        given = _alpha(module, alpha)
        if kind is None:
            down, up = _laid_out(*_lora(module), kernel)
            return Factors(down, up, down.shape[0] if given is None else given, _magnitude(module))
        held = dict(module) if given is None else {**module, "alpha": torch.tensor(given)}
        parts = StoredParts(kind, held, path, kernel)
        scale = 1.0 if given is None or not parts.rank else given / parts.rank
        return Factors.of(parts, scale * parts.factors[0][0], _magnitude(module))
    except KeyError as missing:
        raise AdapterError(
            tr("{path} lacks its part {part!r}.", path=path, part=missing.args[0]),
            where=path,
            do=tr("The file is incomplete: get it again."),
        ) from None
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(
            tr("The parts of {path} do not fit each other: {reason}.", path=path, reason=reason),
            where=path,
            do=tr("The file is damaged: get it again."),
        ) from None
    except AdapterError as error:
        raise AdapterError(error.what, where=path, do=error.do) from None


class Multiplied(NamedTuple):
    """What a module's tensors multiply to."""

    down: Tensor
    up: Tensor
    rank: int
    """By which alpha is divided; 0 where it does not count."""


class StoredKind(NamedTuple):
    """A kind of module that is stored otherwise than as two factors."""

    mark: str
    """How a role of it begins."""
    multiply: Callable[[Module], Multiplied]
    """Its tensors -> its factors, those of a linear layer or with the kernel that the tensors tell."""
    product: Callable[[Module], Tensor]
    """Its tensors -> up · down."""

    def owns(self, role: str) -> bool:
        return role.startswith(self.mark) and role != "diff_b"


class StoredParts:
    """The tensors of one module of ``kind``; see ``adapter.Parts``. What its factors would be is found out without
    multiplying them.

    Raises:
        KeyError, RuntimeError, IndexError, ValueError, AdapterError: a part is missing, or they do not fit each other.
    """

    def __init__(self, kind: StoredKind, tensors: Module, path: str, kernel: tuple[int, ...] | None):
        self.kind, self.tensors, self.path, self.kernel = kind, tensors, path, kernel
        shadow = kind.multiply({role: tensor.to("meta") for role, tensor in tensors.items()})
        down, up = _laid_out(shadow.down, shadow.up, kernel)
        self.rank, self.factors = shadow.rank, (tuple(down.shape), tuple(up.shape))

    def multiplied(self) -> tuple[Tensor, Tensor]:
        made = self.kind.multiply(self.tensors)
        return _laid_out(made.down, made.up, self.kernel)

    def product(self, dtype: torch.dtype) -> Tensor:
        return self.kind.product({role: tensor.to(dtype) for role, tensor in self.tensors.items() if tensor.dim()})

    def map(self, change: Callable[[Tensor], Tensor], but: str = "") -> Factors:
        held = self.tensors.items()
        changed = {role: change(one) if one.dim() and role != but else one for role, one in held}
        return factors(changed, self.path, kernel=self.kernel)


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
            tr("This DoRA normalizes by inputs instead of outputs, which the studio does not apply."),
            do=tr("Convert it to LoRA where it was made."),
        )
    return scale.reshape(-1)


def _lora(module: Module) -> tuple[Tensor, Tensor]:
    """``up`` and ``down``, with LoCon's Tucker core ``mid`` folded into ``down``."""
    down, up = module["down"], module["up"]
    if "mid" in module:
        down = torch.einsum("mnkl,ni->mikl", module["mid"].float(), down.flatten(1).float()).to(down.dtype)
    if down.dim() == 4 and up.dim() == 2:
        up = up[:, :, None, None]
    if down.dim() == 2 and up.dim() == 4:
        down = down[:, :, None, None]
    return down, up


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
            tr("This adapter also changes biases (diff_b), which the studio does not apply."),
            do=tr("Merge it into its base model in ComfyUI, and use that model as the base."),
        )


def _full(module: Module) -> Multiplied:
    """ΔW itself (LyCORIS' "full" and ComfyUI's ``diff``), as a product with the identity: exact, and of full rank."""
    if more := module.keys() - {"diff", "diff_b", "alpha"}:
        raise AdapterError(
            tr("It holds a full difference and {other} as well.", other=sorted(more)[0]), do=tr("Get the file again.")
        )
    whole = module["diff"]
    flat = whole.flatten(1)
    small = torch.eye(min(flat.shape), dtype=flat.dtype, device=flat.device)
    down, up = (small, flat) if flat.shape[0] >= flat.shape[1] else (flat, small)
    return Multiplied(*_folded(down, up, tuple(whole.shape[2:])), 0)


def _loha(module: Module) -> Multiplied:
    """ΔW = (w1_a·w1_b) ∘ (w2_a·w2_b); with Tucker cores each side's ``b`` is t·w_b and its ``a`` is transposed."""
    (a1, b1, kernel), (a2, b2, _) = _loha_sides(module)
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    down = (b1[:, None, :] * b2[None, :, :]).flatten(0, 1)
    return Multiplied(*_folded(down, up, kernel), module["hada_w1_b"].shape[0])


def _loha_product(module: Module) -> Tensor:
    (a1, b1, _), (a2, b2, _) = _loha_sides(module)
    return (a1 @ b1) * (a2 @ b2)


def _loha_sides(module: Module) -> list[tuple[Tensor, Tensor, tuple[int, ...]]]:
    """Each side's a (out, r), b (r, in·kh·kw), and kernel where the file tells it; float32, or float64."""
    sides = []
    for side in "12":
        a, b, core = (
            _wide(module.get(f"hada_{name}{side}{part}")) for name, part in (("w", "_a"), ("w", "_b"), ("t", ""))
        )
        if a is None or b is None:
            raise KeyError(f"hada_w{side}_{'a' if a is None else 'b'}")
        if core is not None:
            a, b = a.T, torch.einsum("ijkl,jr->irkl", core, b).flatten(1)
        sides.append((a, b, () if core is None else tuple(core.shape[2:])))
    return sides


def _lokr(module: Module) -> Multiplied:
    """ΔW = w1 ⊗ w2, either part whole or factored; the scale's rank is that of a factored part, 0 if none is."""
    a1, b1, rank1 = _side(module, "1")
    a2, b2, rank2 = _side(module, "2")
    core = module.get("lokr_t2", module.get("lokr_w2"))
    kernel = tuple(core.shape[2:]) if core is not None else ()
    down, up = torch.kron(b1.contiguous(), b2.contiguous()), torch.kron(a1.contiguous(), a2.contiguous())
    return Multiplied(*_folded(down, up, kernel), rank2 or rank1)


def _lokr_product(module: Module) -> Tensor:
    (a1, b1, _), (a2, b2, _) = (_side(module, side) for side in "12")
    return torch.kron(a1 @ b1, a2 @ b2)


def _side(module: Module, side: str) -> tuple[Tensor, Tensor, int]:
    """One Kronecker part as a (out, r) and b (r, in·kh·kw), r being the smaller side of a whole part, and its stored
    rank.
    """
    whole = _wide(module.get(f"lokr_w{side}"))
    if whole is None:
        a, b = module[f"lokr_w{side}_a"], module[f"lokr_w{side}_b"]
        a, b = a.to(_width(a)), b.to(_width(b))
        core = _wide(module.get("lokr_t2"))
        if side == "2" and core is not None:
            return a.T, torch.einsum("ijkl,jr->irkl", core, b).flatten(1), b.shape[0]
        return a, b, b.shape[0]
    flat = whole.flatten(1)
    eye = torch.eye(min(flat.shape), dtype=flat.dtype, device=flat.device)
    return (eye, flat, 0) if flat.shape[0] <= flat.shape[1] else (flat, eye, 0)


def _wide(tensor: Tensor | None) -> Tensor | None:
    """At least float32."""
    return None if tensor is None else tensor.to(_width(tensor))


def _width(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype == torch.float64 else torch.float32


_KINDS = (
    StoredKind("lokr", _lokr, _lokr_product),
    StoredKind("hada", _loha, _loha_product),
    StoredKind("diff", _full, lambda module: module["diff"].flatten(1)),
)

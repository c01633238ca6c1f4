"""An adapter: for each module it changes, two thin factors of that change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from lora_studio.adapters import detect
from lora_studio.adapters.kinds import DORA, LORA, Kind
from lora_studio.errors import AdapterError


@dataclass(frozen=True, eq=False)
class Factors:
    """One module's change ΔW = (alpha / r) · up · down (Hu et al. 2021, section 4.1), r being the rank.

    Args:
        down: (r, in), or (r, in, kh, kw) for a convolution.
        up: (out, r), or (out, r, 1, 1) for a convolution.
        alpha: the scale's numerator. An rsLoRA is held as alpha·√r, so that alpha / r is right for every method.
        magnitude: (out,), DoRA's m (Liu et al. 2024, section 4.1); the change then depends on W, see ``dora``.

    Raises:
        AdapterError: the shapes do not fit each other, or alpha is not finite.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    def __post_init__(self) -> None:
        down, up = tuple(self.down.shape), tuple(self.up.shape)
        fits = len(down) in (2, 4) and len(up) == len(down) and up[1] == down[0] > 0 and up[2:] in ((), (1, 1))
        if not fits or (self.magnitude is not None and tuple(self.magnitude.shape) != up[:1]):
            raise AdapterError(
                f"The factors' shapes {down} and {up} do not fit each other.",
                do="The file is incomplete or was not made for this.",
            )
        if not abs(self.alpha) < float("inf"):
            raise AdapterError(
                f"Alpha is {self.alpha}, not a finite number.", do="Use an earlier save of this adapter."
            )

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight it changes: (out, in) or (out, in, kh, kw)."""
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def parameters(self) -> int:
        return self.down.numel() + self.up.numel() + (0 if self.magnitude is None else self.magnitude.numel())

    def matrices(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """B (out, r), scaled by alpha / r, and A (r, in·kh·kw), with ΔW = B·A once folded to the weight's shape."""
        return self.up.flatten(1).to(dtype) * self.scale, self.down.flatten(1).to(dtype)

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(alpha / r) · up · down in the weight's shape. For a DoRA this is the change of direction only."""
        up, down = self.matrices(dtype)
        return (up @ down).reshape(self.shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> Factors:
        """The factors with every tensor changed, as by ``lambda t: t.half()``."""
        return replace(
            self,
            down=change(self.down),
            up=change(self.up),
            magnitude=None if self.magnitude is None else change(self.magnitude),
        )


@dataclass(frozen=True, eq=False)
class Adapter:
    """Factors by canonical module path (see ``keys``), and the texts of the file's header."""

    factors: Mapping[str, Factors]
    metadata: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    """The name of the file or folder that it was read from, for messages; empty where it was made."""

    @cached_property
    def family(self) -> str:
        """The base family it was made for: ``starter``, ``sd1``, ``sd2``, ``sdxl`` or ``unknown``."""
        return detect.family({path: factors.shape for path, factors in self.factors.items()}, self.metadata)

    @property
    def kind(self) -> Kind:
        """DoRA or LoRA: as factors, all other kinds are LoRAs."""
        return DORA if any(factors.magnitude is not None for factors in self.factors.values()) else LORA

    @property
    def rank(self) -> int:
        """The largest rank of any module; 0 for an empty adapter."""
        return max((factors.rank for factors in self.factors.values()), default=0)

    @property
    def parameters(self) -> int:
        return sum(factors.parameters for factors in self.factors.values())

    def map(self, change: Callable[[Tensor], Tensor]) -> Adapter:
        """The adapter with every tensor changed."""
        return replace(self, factors={path: factors.map(change) for path, factors in self.factors.items()})

    def to(self, dtype: torch.dtype) -> Adapter:
        """The adapter in another number format. A DoRA's magnitudes stay as they are: they are as large as the weights
        themselves, so that rounding them would change the base model.

        Raises:
            AdapterError: a value is too large for it.
        """
        changed = replace(
            self,
            factors={
                path: replace(one, down=one.down.to(dtype), up=one.up.to(dtype)) for path, one in self.factors.items()
            },
        )
        for path, factors in changed.factors.items():
            if not (torch.isfinite(factors.down).all() and torch.isfinite(factors.up).all()):
                name = str(dtype).removeprefix("torch.")
                raise AdapterError(
                    f"{path} has values that are too large for {name}, or not finite.", do="Save it as fp32 or bf16."
                )
        return changed

    def with_one_alpha(self) -> Adapter:
        """The same change with the most frequent alpha everywhere, the rest of each module's scale moved into ``up``.

        diffusers gives every attention module of a kohya file the most frequent alpha, whatever its own is.
        """
        alphas = Counter(factors.alpha for factors in self.factors.values())
        if len(alphas) < 2:
            return self
        usual = alphas.most_common(1)[0][0] or 1.0
        evened = {
            path: one
            if one.alpha == usual
            else replace(one, up=(one.up.float() * (one.alpha / usual)).to(one.up.dtype), alpha=usual)
            for path, one in self.factors.items()
        }
        return replace(self, factors=evened)

"""An adapter: for each module it changes, two thin factors of that change, or what is done to its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lora_studio.adapters import detect, kinds
from lora_studio.adapters import embedding as words
from lora_studio.adapters.embedding import Embedding
from lora_studio.adapters.kinds import DORA, EMBEDDING, LORA, Kind
from lora_studio.adapters.output_change import OutputChange
from lora_studio.errors import AdapterError
from lora_studio.language import both, tr


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
    parts: Parts | None = field(default=None, init=False, repr=False)
    """What a file holds of it, where that is not two factors; see ``stored``. A changed copy (``replace``) has none."""

    @classmethod
    def of(cls, parts: Parts, alpha: float, magnitude: Tensor | None = None) -> Factors:
        """Factors that are multiplied from ``parts`` when they are first asked for: they can be far larger."""
        made = cls(*(torch.empty(shape, device="meta") for shape in parts.factors), alpha, magnitude)
        made.__dict__.update(parts=parts)
        del made.__dict__["down"], made.__dict__["up"]
        return made

    def __getattr__(self, name: str) -> Tensor:
        """``down`` and ``up`` of parts."""
        parts = self.__dict__.get("parts")
        if parts is None or name not in ("down", "up"):
            raise AttributeError(f"Factors have no {name}")
        self.__dict__.update(zip(("down", "up"), parts.multiplied(), strict=True))
        return self.__dict__[name]

    def __post_init__(self) -> None:
        down, up = tuple(self.down.shape), tuple(self.up.shape)
        fits = len(down) in (2, 4) and len(up) == len(down) and up[1] == down[0] > 0 and up[2:] in ((), (1, 1))
        if not fits or (self.magnitude is not None and tuple(self.magnitude.shape) != up[:1]):
            raise AdapterError(
                tr("The factors' shapes {down} and {up} do not fit each other.", down=str(down), up=str(up)),
                do=tr("The file is incomplete or was not made for this."),
            )
        if not abs(self.alpha) < float("inf"):
            raise AdapterError(
                tr("Alpha is {alpha}, not a finite number.", alpha=self.alpha),
                do=tr("Use an earlier save of this adapter."),
            )

    @property
    def rank(self) -> int:
        return (self.parts.factors[0] if self.parts else self.down.shape)[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight it changes: (out, in) or (out, in, kh, kw)."""
        down, up = self.parts.factors if self.parts else (tuple(self.down.shape), tuple(self.up.shape))
        return (up[0], *down[1:])

    @property
    def parameters(self) -> int:
        held = self.parts.tensors.values() if self.parts else (self.down, self.up, self.magnitude)
        return sum(tensor.numel() for tensor in held if tensor is not None and tensor.dim())

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        if self.parts or self.magnitude is not None:
            return self.magnitude is not None or bool(self.delta().any())
        return bool(self.alpha and self.up.any() and self.down.any())

    def matrices(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """B (out, r), scaled by alpha / r, and A (r, in·kh·kw), with ΔW = B·A once folded to the weight's shape."""
        return self.up.flatten(1).to(dtype) * self.scale, self.down.flatten(1).to(dtype)

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(alpha / r) · up · down in the weight's shape. For a DoRA this is the change of direction only."""
        if self.parts:
            return self.parts.product(dtype).reshape(self.shape) * self.scale
        up, down = self.matrices(dtype)
        return (up @ down).reshape(self.shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> Factors:
        """The factors with every tensor changed, as by ``lambda t: t.half()``; their parts, where they have some."""
        if self.parts:
            return self.parts.map(change)
        return replace(
            self,
            down=change(self.down),
            up=change(self.up),
            magnitude=None if self.magnitude is None else change(self.magnitude),
        )

    def to(self, dtype: torch.dtype) -> Factors:
        """In another number format. A DoRA's magnitude stays as it is: it is as large as the weights themselves, so
        that rounding it would change the base model.
        """
        if self.parts:
            return self.parts.map(lambda tensor: tensor.to(dtype), but="dora_scale")
        return replace(self, down=self.down.to(dtype), up=self.up.to(dtype))


class Parts(Protocol):
    """The tensors that a file holds of a module's factors: those of a LoHa, a LoKr or a full difference."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By role (see ``keys``)."""
        ...

    @property
    def factors(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of ``down`` and ``up``."""
        ...

    def multiplied(self) -> tuple[Tensor, Tensor]:
        """``down`` and ``up``."""
        ...

    def product(self, dtype: torch.dtype) -> Tensor:
        """up · down, without the factors' detour, (out, in) or (out, in·kh·kw) or in the weight's shape."""
        ...

    def map(self, change: Callable[[Tensor], Tensor], but: str = "") -> Factors:
        """Factors of the parts with every tensor changed that has a dimension, but for the role ``but``."""
        ...


@dataclass(frozen=True, eq=False)
class Adapter:
    """Changes by canonical module path (see ``keys``), and the texts of the file's header. A module has factors or an
    output change, not both.
    """

    factors: Mapping[str, Factors]
    metadata: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    """The name of the file or folder that it was read from, for messages; empty where it was made."""
    outputs: Mapping[str, OutputChange] = field(default_factory=dict)
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    """Learned words."""

    @cached_property
    def family(self) -> str:
        """The base family it was made for: ``starter``, ``sd1``, ``sd2``, ``sdxl`` or ``unknown``."""
        shapes = {path: change.shape for path, change in self.changes.items()}
        read = words.shapes({word: one.widths for word, one in self.embeddings.items()})
        return detect.family(shapes, self.metadata) if shapes else detect.family_of_words(read, self.metadata)

    @cached_property
    def changes(self) -> Mapping[str, Factors | OutputChange]:
        """All changes by path."""
        return {**self.factors, **self.outputs}

    @property
    def kind(self) -> Kind:
        """The first in the order of ``KINDS`` that it has some of; LoRA of two factors, convolutions' as well. An
        embedding where it changes nothing.
        """
        if self.embeddings and not self.changes:
            return EMBEDDING
        if any(factors.magnitude is not None for factors in self.factors.values()):
            return DORA
        held = {kinds.of({"": one.parts.tensors}) for one in self.factors.values() if one.parts}
        held |= {change.kind for change in self.outputs.values()}
        return next((kind for kind in kinds.KINDS.values() if kind in held), LORA)

    @property
    def rank(self) -> int:
        """The largest rank of any module; 0 for an empty adapter."""
        return max((factors.rank for factors in self.factors.values()), default=0)

    @property
    def parameters(self) -> int:
        return sum(one.parameters for one in (*self.changes.values(), *self.embeddings.values()))

    def map(self, change: Callable[[Tensor], Tensor]) -> Adapter:
        """The adapter with every tensor changed."""
        return replace(
            self,
            factors={path: one.map(change) for path, one in self.factors.items()},
            outputs={path: one.map(change) for path, one in self.outputs.items()},
            embeddings={word: one.map(change) for word, one in self.embeddings.items()},
        )

    def require_factors(self, purpose: str) -> None:
        """Raises AdapterError unless factors are all it has, besides learned words.

        Args:
            purpose: what cannot be done otherwise, as in "blended".
        """
        self._require(self.outputs, purpose)
        if self.kind is EMBEDDING:
            words = both(self.embeddings)
            what = tr(
                "{adapter} holds the learned word {words} alone, which cannot be {purpose}.",
                adapter=self.file or tr("The adapter"),
                words=words,
                purpose=purpose,
            )
            do = tr("Draw with it as it is. A1111, ComfyUI and diffusers read the file that --to kohya writes.")
            raise AdapterError(what, where=words, do=do)

    @property
    def shares_batch(self) -> bool:
        """Whether samples without it may share a batch with samples that have it."""
        return all(one.shares_batch for one in self.outputs.values())

    def require_weight_changes(self, purpose: str) -> None:
        """Raises AdapterError unless all its changes are changes of weights; ``purpose`` as for ``require_factors``."""
        self._require({path: one for path, one in self.outputs.items() if not one.changes_weight}, purpose)

    def require_no_words(self, purpose: str) -> None:
        """Raises AdapterError if it has learned words; ``purpose`` as for ``require_factors``."""
        for word in self.embeddings:
            without = tr("Save it without its words first (python3 app.py convert --words none), and use that.")
            raise AdapterError(
                tr(
                    "{adapter} has learned the word {word!r}, which cannot be {purpose}.",
                    adapter=self.file or tr("The adapter"),
                    word=word,
                    purpose=purpose,
                ),
                where=word,
                do=tr("Draw with it as it is.") if self.kind is EMBEDDING else without,
            )

    def _require(self, refused: Mapping[str, OutputChange], purpose: str) -> None:
        for path, one in refused.items():
            whole = all(each.changes_weight for each in self.outputs.values())
            plain = tr("Export it as plain LoRA first, and use that.")
            do = plain if whole else tr("It is no change of weights: use it as it is, in the studio.")
            name = self.file or tr("The adapter")
            raise AdapterError(
                tr(
                    "{name} is {a_title}, which cannot be {purpose}.",
                    name=name,
                    a_title=one.kind.a_title,
                    purpose=purpose,
                ),
                where=path,
                do=do,
            )

    def to(self, dtype: torch.dtype) -> Adapter:
        """The adapter in another number format, but for a DoRA's magnitudes (see ``Factors.to``).

        Raises:
            AdapterError: a value is too large for it.
        """
        changed = replace(
            self,
            factors={path: one.to(dtype) for path, one in self.factors.items()},
            outputs={path: one.map(lambda tensor: tensor.to(dtype)) for path, one in self.outputs.items()},
            embeddings={word: one.map(lambda tensor: tensor.to(dtype)) for word, one in self.embeddings.items()},
        )
        tensors = {
            path: list(one.parts.tensors.values()) if one.parts else [one.down, one.up]
            for path, one in changed.factors.items()
        }
        tensors |= {path: list(one.tensors().values()) for path, one in changed.outputs.items()}
        for path, held in tensors.items():
            if not all(torch.isfinite(tensor).all() for tensor in held):
                name = str(dtype).removeprefix("torch.")
                raise AdapterError(
                    tr(
                        "{path} has values that are too large for {precision}, or not finite.",
                        path=path,
                        precision=name,
                    ),
                    do=tr("Save it as fp32 or bf16."),
                )
        return changed

    def in_factors(self) -> Adapter:
        """The same change without parts: every module of factors is written as two."""
        return replace(self, factors={path: replace(one) if one.parts else one for path, one in self.factors.items()})

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

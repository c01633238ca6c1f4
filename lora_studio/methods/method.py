"""What a training method must say of itself. Everything else in the studio asks it and compares no names.

A method decides how a layer is changed while it trains. What it has learned leaves the room as ``Factors``, or as an
``OutputChange`` where factors cannot hold it; ``adapters.dora.change`` is its change of the weight. How files store an
adapter is not a method's business.

Symbols: r rank, W the base model's weight, A and B the factors of ΔW = (alpha / r) B A (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from torch import nn

    from lora_studio.adapters.adapter import Adapter, Factors
    from lora_studio.adapters.dora import Plain, Weights
    from lora_studio.adapters.output_change import OutputChange

NAME = "style"
"""peft's name for the adapter under training."""


class AdapterOptions(Protocol):
    """The settings that a method goes by; the group Adapter of a run's settings has them."""

    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def rslora(self) -> bool: ...
    @property
    def dropout(self) -> float: ...
    @property
    def init(self) -> str: ...
    @property
    def learned_tokens(self) -> int: ...
    @property
    def lokr_factor(self) -> int: ...
    @property
    def oft_block_size(self) -> int: ...


class Layer(NamedTuple):
    """One layer under training."""

    module: Any
    """The method's layer (peft's ``BaseTunerLayer``) around the base model's."""
    weight: Callable[[], torch.Tensor]
    """W, unpacked where it is quantized: (out, in) or (out, in, kh, kw), in its own format on its own device."""


@dataclass(frozen=True)
class LayerShape:
    """A linear layer, or a convolution with a square kernel."""

    inputs: int
    outputs: int
    kernel: int = 1
    """Side of the kernel."""
    path: str = ""
    """The layer's canonical path, for methods that change layers in different ways."""


@dataclass(frozen=True)
class LayerInput:
    """What goes through one layer in a forward pass, as far as memory is concerned."""

    tokens: float
    """Of the whole batch: pixels or words."""
    element: int
    """Bytes of a number in the base model's format."""
    autocast: bool
    """Whether float32 parameters meet a base model in a smaller format."""
    shared: bool
    """Whether the layer's input is kept for the backward pass anyway, in the form in which an adapter reads it."""


class Directions(NamedTuple):
    """The main directions of what was seen of a layer in a few batches, those of rounding left out: singular triples of
    its inputs' second moments, or of the loss's gradient by its weight.
    """

    left: torch.Tensor
    """(out, k) float32, orthonormal columns; of inputs (in·kh·kw, k), the same as ``right``."""
    strengths: torch.Tensor
    """(k,) singular values, falling."""
    right: torch.Tensor
    """(k, in·kh·kw) float32, orthonormal rows."""


class Method(ABC):
    """A training method."""

    name: ClassVar[str]
    """The value of the setting ``method``."""
    title: ClassVar[str]
    """Its name for people."""
    help: ClassVar[str]
    """What it is good for: a clause that begins with its title, without a full stop."""
    low_precision: ClassVar[bool] = False
    """Whether it may compute with copies of its parameters in the base model's smaller format. If not, float32
    parameters compute under autocast.
    """
    trains_magnitudes: ClassVar[bool] = False
    """Whether ``begin`` takes a DoRA's magnitudes as they are."""
    changes_layers: ClassVar[bool] = True
    """Whether it changes layers at all. If not, all that is learned is the trigger word."""
    default_tokens: ClassVar[int] = 0
    """How many vectors the trigger word learns where the setting ``learned_tokens`` is 0."""
    in_front: ClassVar[bool] = False
    """Whether the learned word goes before every prompt, without being written."""
    relative_rate: ClassVar[float] = 1.0
    """Its usual learning rate as a multiple of a LoRA's under the same settings otherwise."""
    usual: ClassVar[Mapping[str, Any]] = {}
    """Other settings that it is usually trained with, where they differ from a LoRA's."""
    ignores: ClassVar[tuple[str, ...]] = ()
    """Settings that have no effect on it."""
    cappable: ClassVar[bool] = False
    """Whether its change of a layer is (alpha / r) B A and nothing else, so that ``max_norm`` can scale it."""
    own_start: ClassVar[str] = ""
    """Why it cannot begin from any adapter, but at most from those that it can ``take``: a sentence for people. Empty
    if it can.
    """
    own_kind: ClassVar[str] = ""
    """The kind of adapters (``adapters.kinds``) of which it can ``take`` some; empty if of none."""

    keeps_rank: ClassVar[bool] = False
    """Whether those that it can ``take`` must have its rank."""

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        """Why it cannot train with these settings, and what to set instead: a sentence without its full stop. Empty
        if it can.

        Args:
            quantize: the setting of that name.
        """
        return ""

    def takes(self, path: str) -> bool:
        """Whether it changes the layer at a canonical path, if the settings choose that layer."""
        return True

    def tokens(self, options: AdapterOptions) -> int:
        """How many vectors the trigger word learns in each text encoder; 0 where it stays plain text."""
        return options.learned_tokens or self.default_tokens

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        """Puts the method's layers around the modules ``names`` of ``model``: peft's, as ``config`` says. A method with
        layers of its own overrides this (``own_layer.wrap``) and has no ``config``. What is learned is set by
        ``start``.
        """
        from peft import inject_adapter_in_model

        inject_adapter_in_model(self.config(options, names), model, NAME)

    def config(self, options: AdapterOptions, modules: Sequence[str]) -> PeftConfig:
        """What peft injects into ``modules``, names within the model."""
        raise NotImplementedError(f"{self.title} must have either a config or an inject of its own.")

    @abstractmethod
    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """Initializes the layers' parameters, which are float32, in place.

        Args:
            layers: by canonical path.
            source: the only source of random numbers, on the CPU: the same seed gives the same start on every device.

        Returns:
            What to subtract from the base model as long as the adapter trains, so that step 0 is the base model
            itself; None where nothing is.
        """

    def looks_at(self, options: AdapterOptions) -> Literal["", "inputs", "gradients"]:
        """What of its layers a new run looks at in a few batches before its first step, for ``start_along``."""
        return ""

    def start_along(
        self, layers: Mapping[str, Layer], options: AdapterOptions, seen: Mapping[str, Directions]
    ) -> Mapping[str, Factors] | None:
        """Puts the layers, fresh from ``start``, along what was ``seen`` of them, by canonical path. Not called where
        it ``looks_at`` nothing.

        Returns:
            As ``start``.
        """
        raise NotImplementedError(f"{self.title} looks at nothing.")

    @abstractmethod
    def read(self, layer: Layer, subtracted: Factors | None) -> Factors | OutputChange:
        """The layer's change relative to W: float32 copies on the CPU.

        Args:
            subtracted: what ``start`` returned for this layer.
        """

    @abstractmethod
    def begin(self, layer: Layer, given: Factors) -> None:
        """Gives a layer fresh from ``start`` the change of ``given``: exactly if the rank allows it, else the nearest.
        Not called where ``own_start`` says why.

        Raises:
            AdapterError: ``given`` is a DoRA, unless the method ``trains_magnitudes`` and the rank holds all of it.
        """

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """Whether a layer can ``take`` the change of ``given``: that is of the method's own kind and of the layer's
        size. Asks for no values, so that the layer may be without any (on torch's meta device).
        """
        return False

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        """Gives a layer fresh from ``start`` the change of ``given`` exactly, where that ``fits``."""
        raise NotImplementedError(f"{self.title} takes nothing.")

    def holds(self, options: AdapterOptions) -> int:
        """The highest rank of which ``begin`` takes a change exactly."""
        return options.rank

    def plain(self, adapter: Adapter, weights: Weights, options: AdapterOptions) -> Plain:
        """The adapter, as ``read`` gives it, as a LoRA that every program reads.

        Args:
            weights: the base model's, by canonical path.
        """
        from lora_studio.adapters.dora import Plain

        return Plain(adapter, {}, 0.0)

    @abstractmethod
    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        """How many parameters of a layer it trains."""

    def frozen(self, options: AdapterOptions, shape: LayerShape) -> int:
        """How many float32 numbers it holds for a layer without training them."""
        return 0

    @abstractmethod
    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """Bytes that it keeps of a layer from the forward pass to the backward pass, on top of what the layer keeps
        without it. Casts of its trained parameters are not counted here.
        """

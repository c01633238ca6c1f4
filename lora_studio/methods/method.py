"""What a training method must say of itself. Everything else in the studio asks it and compares no names.

A method decides how a layer is changed while it trains. What it has learned leaves the room as ``Factors``, whose
change of the weight is ``adapters.dora.change``; how files store an adapter is not a method's business.

Symbols: r rank, W the base model's weight, A and B the factors of ΔW = (alpha / r) B A (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

    from lora_studio.adapters.adapter import Adapter, Factors
    from lora_studio.adapters.dora import Plain, Weights

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


class Layer(NamedTuple):
    """One layer under training."""

    module: Any
    """peft's layer (a ``BaseTunerLayer``) around the base model's."""
    weight: Callable[[], torch.Tensor]
    """W, unpacked where it is quantized: (out, in) or (out, in, kh, kw), in its own format on its own device."""


@dataclass(frozen=True)
class LayerShape:
    """A linear layer, or a convolution with a square kernel."""

    inputs: int
    outputs: int
    kernel: int = 1
    """Side of the kernel."""


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
    own_start: ClassVar[str] = ""
    """Why it cannot begin from another adapter: a sentence for people. Empty if it can."""

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        """Why it cannot train with these settings, and what to set instead: a sentence without its full stop. Empty
        if it can.

        Args:
            quantize: the setting of that name.
        """
        return ""

    @abstractmethod
    def config(self, options: AdapterOptions, modules: Sequence[str]) -> PeftConfig:
        """What peft injects into ``modules``, names within the model."""

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

    @abstractmethod
    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
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

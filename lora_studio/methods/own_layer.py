"""A layer of a method that has none in peft. Imports torch: methods import it where they need it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


class OwnLayer(nn.Module, BaseTunerLayer):
    """Around a layer of the base model, as one of peft's: all that handles those handles it. What it learns must be
    ``nn.Parameter``, not modules: linear layers within it would be taken for the base model's.

    Args:
        base_layer: stays as it is, and frozen.
    """

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer: Any = base_layer

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's answer while adapters are disabled, else ``changed``."""
        return self.base_layer(x, *args, **kwargs) if self.disable_adapters else self.changed(x)

    @abstractmethod
    def changed(self, x: Tensor) -> Tensor:
        """The layer's answer with what it has learned."""

    def enable_adapters(self, enabled: bool) -> None:
        """Parameters keep their ``requires_grad``."""
        self._disable_adapters = not enabled


def wrap(model: nn.Module, names: Sequence[str], make: Callable[[Any], OwnLayer]) -> None:
    """Puts what ``make`` makes of each of the modules ``names`` of ``model`` in its place."""
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(model.get_submodule(name)))

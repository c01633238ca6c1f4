"""A running average of the adapter (Polyak & Juditsky 1992): smoother than its last step."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of ``parameters`` with ``decay``; 0 keeps none and costs nothing.

    The decay grows as (1 + n)/(10 + n) up to its full value, so that a short run is not held at its start.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.parameters, self.decay, self.updates = parameters, decay, 0
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the parameters' present values."""
        if not self.shadow:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in self.parameters.values()], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """Within it the parameters hold the average; afterwards their own values again."""
        if not self.shadow:
            yield
            return
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._fill(self.shadow)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict:
        return {"updates": self.updates, "shadow": dict(self.shadow)}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)

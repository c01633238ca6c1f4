"""The denoiser's answers recorded as CUDA graphs, one for each shape of batch, and replayed at every further step.

The processor then starts a forward pass with one call instead of thousands, which a fast card would otherwise wait for;
see ``training.stepper`` for the same in training. Off until ``enable`` is called for a base model; without a CUDA GPU,
and wherever recording fails, every answer is computed as it comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lora_studio.models import Base
from lora_studio.models.overlay import AdapterOverlay
from lora_studio.sampling import guided
from lora_studio.sampling.guided import Inputs

MOST = 4
"""Recordings that a base model keeps: each holds the memory of a forward pass."""


class Recording(NamedTuple):
    """Recorded work: ``replay`` does it again, reading and writing the same tensors; ``output`` is what it writes."""

    replay: Callable[[], None]
    output: Tensor


Record = Callable[[Callable[[], Tensor]], Recording]


def on_cuda(work: Callable[[], Tensor]) -> Recording:
    """``work`` as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()
    return Recording(graph.replay, output)


class Replays:
    """The recordings of one base model with the adapters that are on it. They read the adapters' weights where
    ``AdapterOverlay.set_weights`` puts them, so other weights need no new recording.

    The first answer of each shape is not recorded: libraries choose their kernels then.

    Attributes:
        failed: why recording failed, if it did; from then on nothing is recorded.
    """

    def __init__(self, record: Record = on_cuda):
        self.failed = ""
        self._record = record
        self._kept: OrderedDict[Any, tuple[Recording, Inputs]] = OrderedDict()
        self._seen: set[Any] = set()
        self._overlay: AdapterOverlay | None = None

    def answer(self, base: Base, given: Inputs, rescale: float) -> Tensor:
        """As ``guided.answer``."""
        if self.failed or base.method is not None:  # a run's adapter may change places
            return guided.answer(base, given, rescale)
        if base.loaded is not self._overlay:
            self.release()
            self._overlay = base.loaded
        state = base.loaded and base.loaded.form
        shapes = tuple((name, tuple(one.shape), one.dtype) for name, one in given.items())
        key = shapes, rescale, state
        if key in self._seen and key not in self._kept:
            self._keep(key, base, given, rescale)
        if key not in self._kept:
            self._seen.add(key)
            return guided.answer(base, given, rescale)
        recording, inputs = self._kept[key]
        self._kept.move_to_end(key)
        for name, tensor in inputs.items():
            tensor.copy_(given[name], non_blocking=True)
        recording.replay()
        return recording.output.clone()  # the next replay overwrites it, and some samplers remember answers

    def release(self) -> None:
        """Frees all recordings."""
        self._kept.clear()
        self._seen.clear()

    def _keep(self, key: Any, base: Base, given: Inputs, rescale: float) -> None:
        while len(self._kept) >= MOST:
            self._kept.popitem(last=False)
        inputs = {name: tensor.clone() for name, tensor in given.items()}
        try:
            self._kept[key] = self._record(lambda: guided.answer(base, inputs, rescale)), inputs
        except torch.OutOfMemoryError:
            self.release()
            raise  # a smaller batch may fit
        except RuntimeError as error:
            self.failed = str(error).partition("\n")[0]
            self.release()


_OF: WeakKeyDictionary[Base, Replays] = WeakKeyDictionary()


def enable(base: Base, record: Record = on_cuda) -> Replays | None:
    """Has the answers of ``base`` recorded from now on; None without a CUDA GPU."""
    if base.device.type != "cuda" and record is on_cuda:
        return None
    _OF[base] = Replays(record)
    return _OF[base]


def disable(base: Base) -> None:
    """Ends what ``enable`` began."""
    _OF.pop(base, None)


def answers(base: Base) -> Callable[[Base, Inputs, float], Tensor]:
    """``guided.answer``, or what replays it."""
    found = _OF.get(base)
    return guided.answer if found is None else found.answer

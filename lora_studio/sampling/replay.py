"""The denoiser's answers recorded as CUDA graphs, one for each shape of batch, and replayed at every further step.

The processor then starts a forward pass with one call instead of thousands, which a fast card would otherwise wait for;
see ``training.stepper`` for the same in training. Off until ``enable`` is called for a base model; without a CUDA GPU,
and wherever recording fails, every answer is computed as it comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from lora_studio.language import tr
from lora_studio.models import Base
from lora_studio.models.autoencode import nothing_to_free
from lora_studio.models.overlay import AdapterOverlay
from lora_studio.sampling import guided
from lora_studio.sampling.guided import Inputs

MOST = 4
"""Recordings that a base model keeps. Together they hold the memory of the largest one's forward pass."""
MOST_SEEN = 64
"""Shapes that are remembered as seen once."""
NO_MEMORY = tr("there was not enough memory for it")


class Recording(NamedTuple):
    """Recorded work: ``replay`` does it again, reading and writing the same tensors; ``output`` is what it writes."""

    replay: Callable[[], None]
    output: Tensor


Record = Callable[[Callable[[], Tensor]], Recording]


class CudaGraphs:
    """Records work as CUDA graphs. They are replayed one after the other and their outputs read before the next, so
    that all of them compute in the same memory.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[[], Tensor]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = work()
        self._pool = graph.pool()
        return Recording(graph.replay, output)


class Replays:
    """The recordings of one base model with the adapters that are on it. They read the adapters' weights where
    ``AdapterOverlay.set_weights`` puts them, so other weights need no new recording.

    The first answer of each shape is not recorded: libraries choose their kernels then.

    Args:
        recorder: makes what records; asked again once all recordings were freed.

    Attributes:
        failed: why recording failed, as the end of a sentence, if it did; from then on nothing is recorded.
    """

    def __init__(self, recorder: Callable[[], Record] = CudaGraphs):
        self.failed, self._told = "", False
        self._recorder, self._record = recorder, recorder()
        self._kept: OrderedDict[Any, tuple[Recording, Inputs]] = OrderedDict()
        self._seen: set[Any] = set()
        self._overlay: ref[AdapterOverlay] | None = None
        """That which the recordings read, which may be gone; None where they read none."""

    def answer(self, base: Base, given: Inputs, rescale: float) -> Tensor:
        """As ``guided.answer``."""
        if self.failed or base.method is not None:  # a run's adapter may change places
            return guided.answer(base, given, rescale)
        if not self._reads(base.loaded):
            self.release()
            self._overlay = None if base.loaded is None else ref(base.loaded)
        state = base.loaded and base.loaded.form
        shapes = tuple((name, tuple(one.shape), one.dtype) for name, one in given.items())
        key = shapes, rescale, state
        if key in self._seen and key not in self._kept:
            self._keep(key, base, given, rescale)
        if key not in self._kept:
            self._see(key)
            return guided.answer(base, given, rescale)
        recording, inputs = self._kept[key]
        self._kept.move_to_end(key)
        for name, tensor in inputs.items():
            tensor.copy_(given[name], non_blocking=True)
        recording.replay()
        return recording.output.clone()  # the next replay overwrites it, and some samplers remember answers

    def release(self) -> bool:
        """Frees all recordings; returns whether there were any."""
        held = bool(self._kept)
        self._kept.clear()
        self._seen.clear()
        self._record = self._recorder()  # the memory of the others is gone
        if held and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return held

    def make_room(self) -> bool:
        """Frees all recordings, because memory is short, and makes no others; returns whether there were any."""
        if not self._kept:
            return False
        self._fail(NO_MEMORY)
        return True

    def take_failure(self) -> str:
        """``failed``, once; empty where it was asked for before."""
        told, self._told = self._told, bool(self.failed)
        return "" if told else self.failed

    def _reads(self, overlay: AdapterOverlay | None) -> bool:
        if overlay is None or self._overlay is None:
            return overlay is self._overlay
        return overlay is self._overlay()

    def _see(self, key: Any) -> None:
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(key)

    def _keep(self, key: Any, base: Base, given: Inputs, rescale: float) -> None:
        while len(self._kept) >= MOST:
            self._kept.popitem(last=False)
        inputs = {name: tensor.clone() for name, tensor in given.items()}
        try:
            self._kept[key] = self._record(lambda: guided.answer(base, inputs, rescale)), inputs
        except torch.OutOfMemoryError:
            self._fail(NO_MEMORY)
        except RuntimeError as error:
            self._fail(str(error).partition("\n")[0])

    def _fail(self, why: str) -> None:
        self.failed = why
        self.release()


_OF: WeakKeyDictionary[Base, Replays] = WeakKeyDictionary()


def enable(base: Base, recorder: Callable[[], Record] = CudaGraphs) -> Replays | None:
    """Has the answers of ``base`` recorded from now on, unless they are already; None without a CUDA GPU."""
    if base.device.type != "cuda" and recorder is CudaGraphs:
        return None
    if base not in _OF:
        _OF[base] = Replays(recorder)
        base.make_room = _OF[base].make_room
    return _OF[base]


def disable(base: Base) -> None:
    """Ends what ``enable`` began, and frees its memory."""
    if (found := _OF.pop(base, None)) is not None:
        base.make_room = nothing_to_free
        found.release()


def release(base: Base) -> None:
    """Frees the recordings of ``base``, if there are any; they are made again."""
    if (found := _OF.get(base)) is not None:
        found.release()


def take_failure(base: Base) -> str:
    """Why recording failed for ``base``, once, as the end of a sentence; empty where it did not."""
    found = _OF.get(base)
    return "" if found is None else found.take_failure()


def answers(base: Base) -> Callable[[Base, Inputs, float], Tensor]:
    """``guided.answer``, or what replays it."""
    found = _OF.get(base)
    return guided.answer if found is None else found.answer

"""A step's arithmetic: forth and back through the model, and the optimizer. One operation at a time, or recorded once
and replayed.

A CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) holds every kernel of a batch's way
forth and back, which the processor then
starts with one call instead of thousands: on a fast card the processor would be what a run waits for. There is one for
each shape of batch, and one for the optimizer. Batches are copied to where a graph reads them, so it computes what the
single operations would.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.models import Base
from lora_studio.optim import flat, registry
from lora_studio.optim.build import FlatOptimizer
from lora_studio.training import devices
from lora_studio.training.batches import Batch
from lora_studio.training.devices import Machine
from lora_studio.training.loss import losses


class Outcome(NamedTuple):
    """Of one optimizer step: mean loss, and length of the gradient before clipping. Where either is not finite, the
    weights are as before.
    """

    loss: float
    norm: float


def choose(base: Base, settings: Settings, machine: Machine, built: FlatOptimizer) -> Stepper:
    """The fastest way that the settings allow: ``obstacle`` says what stands against recording."""
    return (Stepper if obstacle(settings, machine) else CudaGraphStepper)(base, settings, machine, built)


def obstacle(settings: Settings, machine: Machine) -> str:
    """Why steps cannot be recorded, in words; empty where they can."""
    if machine.device.type != "cuda":
        return "there is no CUDA GPU"
    if not settings.machine.cuda_graph:
        return "it is switched off"
    if settings.adapter.train_text:
        return "text encoders train"
    if settings.machine.quantize == "int8":
        return "int8 layers look at their inputs"
    if settings.machine.checkpointing != "off" and settings.adapter.dropout:
        return "dropout is drawn again on the way back"
    return ""


class Stepper:
    """One operation at a time."""

    how = "step by step"
    """In words."""
    failed = ""
    """Why recording failed, where it was tried; from then on it goes step by step."""
    goes_ahead = False
    """Whether ``update`` can begin with the next step."""
    ahead = False
    """Whether the next step's first batch has gone through already."""
    exchange: Callable[[Tensor], None] | None = None
    """Puts the mean of all processes' gradients and losses in place of this one's; None where there is no other."""

    def __init__(self, base: Base, settings: Settings, machine: Machine, built: FlatOptimizer):
        self.base, self.settings, self.machine = base, settings, machine
        self.optimizer, self.flat, self.scaler = built.optimizer, built.flat, machine.scaler()
        self.loss = built.flat.loss
        """Of the batches gone through since the last update, their mean."""

    def autocast(self) -> contextlib.AbstractContextManager:
        """Lets float32 parameters meet a base in a smaller format; copies in that format need no help."""
        return contextlib.nullcontext() if self.flat.has_copies else self.machine.autocast()

    def backward(self, batch: Batch) -> None:
        """Adds the gradient of a batch's share in the step's mean loss to the others'."""
        self._backward(batch.to(self.machine.device))

    def update(self, following: Batch | None = None) -> Outcome:
        """The optimizer's step with what was gathered. In fp16 an infinite gradient only means that the loss was scaled
        too far: the scaler passes that step over.

        Args:
            following: the next step's first batch, to go on with where ``goes_ahead`` says so.
        """
        norm = self._length()
        outcome = Outcome(*torch.stack([self.loss, norm]).tolist())
        if math.isfinite(outcome.loss) and (math.isfinite(outcome.norm) or self.scaler.is_enabled()):
            self._step(norm)
        else:
            self.scaler.update()  # else it would refuse the next gradients, having seen these
            self.flat.zero_grad()
        self.loss.zero_()
        return outcome

    def forget(self) -> None:
        """What was recorded or begun is no longer true, as after another state was put in place."""
        self.ahead = False
        self.flat.zero_grad()
        self.loss.zero_()

    def make_room(self, needed: int) -> None:
        """Has at least ``needed`` bytes free on a GPU for something else, as far as giving up what can be made again
        helps.
        """

    def _backward(self, batch: Batch) -> None:
        with self.autocast():
            text = batch.text or self.base.features(batch.captions)
            loss = losses(self.base, batch, text, self.settings.loss).mean() / self.settings.optimizer.accumulate
        self.scaler.scale(loss).backward()
        self.flat.accumulate_gradients()
        self.loss += loss.detach()

    def _length(self) -> Tensor:
        """() float32: of the step's gradient, all batches' and processes' together."""
        if self.exchange:
            self.exchange(self.flat.exchanged)
        self.scaler.unscale_(self.optimizer)
        return self.flat.gradients.norm()

    def _step(self, norm: Tensor) -> None:
        flat.clip(self.flat.gradients, norm, self.settings.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.flat.zero_grad()
        self.flat.sync_copies()


class CapturedStep(NamedTuple):
    """A batch's way forth and back, recorded, and where it reads the batch."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch


class CudaGraphStepper(Stepper):
    """As CUDA graphs, where the first batch of each shape and the first update go step by step: libraries choose their
    kernels then.
    """

    how = "CUDA graph"

    def __init__(self, base: Base, settings: Settings, machine: Machine, built: FlatOptimizer):
        super().__init__(base, settings, machine, built)
        self._captured: dict[tuple, CapturedStep] = {}
        self._met: set[tuple] = set()
        self._pool: tuple[int, int] | None = None
        self._update: torch.cuda.CUDAGraph | None = None
        self._updated = False
        self._norm, self._broken = torch.zeros(2, device=machine.device)
        self._told, self._read = torch.zeros(2, pin_memory=True), torch.cuda.Event()
        self._rates = [torch.zeros((), device=machine.device) for _ in self.optimizer.param_groups]

    def backward(self, batch: Batch) -> None:
        tensors = batch.tensors()
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())
        if shape not in self._captured and shape in self._met and not self.failed:
            self._capture_step(shape, batch)
        if shape not in self._captured:
            self._met.add(shape)
            return super().backward(batch)
        way = self._captured[shape]
        for name, tensor in way.inputs.tensors().items():
            tensor.copy_(tensors[name], non_blocking=True)
        way.graph.replay()

    @property
    def goes_ahead(self) -> bool:
        """From dropout's numbers a step must begin by itself."""
        return self._update is not None and not self.settings.adapter.dropout

    def update(self, following: Batch | None = None) -> Outcome:
        """The processor is told of a step only when the next one has begun: a card need not wait for it. A step that is
        not finite leaves the weights alone by itself.
        """
        self.ahead = False
        if self._update is None:
            return super().update()
        self._norm.copy_(self._length())
        self._told.copy_(torch.stack([self.loss, self._norm]), non_blocking=True)
        self._read.record()
        self._set_rates()
        self._update.replay()
        if following is not None:
            self.backward(following)
            self.ahead = True
        self._read.synchronize()
        outcome = Outcome(*self._told.tolist())
        if not all(map(math.isfinite, outcome)):
            super().forget()
        return outcome

    def forget(self) -> None:
        super().forget()
        self._update, self._updated = None, False

    def make_room(self, needed: int) -> None:
        torch.cuda.empty_cache()
        if devices.free(self.machine.device) < needed:
            self.release()

    def release(self) -> None:
        """Gives the graphs' memory back; what is needed again is recorded again."""
        self._captured.clear()
        self._update = self._pool = None
        torch.cuda.empty_cache()

    def _capture_step(self, shape: tuple, batch: Batch) -> None:
        inputs = batch.to(self.machine.device)
        if graph := self._capture(lambda: self._backward(inputs)):
            self._captured[shape] = CapturedStep(graph, inputs)

    def _step(self, norm: Tensor) -> None:
        recordable = registry.get(self.settings.optimizer.optimizer).recordable
        if not recordable or self.scaler.is_enabled() or self.failed:
            return super()._step(norm)
        self._set_rates()
        if self._updated:
            with self._capturable():
                self._update = self._capture(self._guarded_step)
        if self._update is None:
            self._updated = True
            return super()._step(norm)
        self._norm.copy_(norm)
        self._update.replay()

    def _set_rates(self) -> None:
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    def _guarded_step(self) -> None:
        """The optimizer passes over a step whose loss or gradient is not finite."""
        self._broken.copy_(~torch.isfinite(self._norm + self.loss))
        super()._step(self._norm)
        self.loss.zero_()

    @contextlib.contextmanager
    def _capturable(self) -> Iterator[None]:
        """Within it the optimizer reads its rates, and whether to do nothing, from where they can be set between
        replays.
        """
        groups = self.optimizer.param_groups
        self.optimizer.found_inf = self._broken
        kept = [(group["lr"], group["capturable"]) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, True
        try:
            yield
        finally:
            del self.optimizer.found_inf
            for group, (rate, capturable) in zip(groups, kept, strict=True):
                group["lr"], group["capturable"] = rate, capturable

    def _capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                work()
        except RuntimeError as error:
            if devices.lost(error) and "captur" not in str(error):
                raise
            self.failed = str(error).partition("\n")[0]
            self.release()
            return None
        self._pool = graph.pool()
        return graph

"""A step's arithmetic: forward and backward pass through the model, and the optimizer. One kernel at a time, or
captured once as CUDA graphs and replayed.

A CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) holds every kernel of a batch's forward
and backward pass, which the processor then starts with one call instead of thousands: with a fast GPU a run would
otherwise wait for the processor. There is one graph for each shape of batch, and one for the optimizer. Batches are
copied to where a graph reads them, so it computes what the single kernels would.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AdapterSettings, MachineSettings
from lora_studio.language import tr
from lora_studio.models import Base, inject
from lora_studio.optim import flat, registry
from lora_studio.optim.build import FlatOptimizer
from lora_studio.optim.norm_cap import NormCap
from lora_studio.training import devices, preservation, reading, sliders
from lora_studio.training.batches import Batch, Texts
from lora_studio.training.devices import Machine
from lora_studio.training.loss import losses


class Outcome(NamedTuple):
    """Of one optimizer step: mean loss, and norm of the gradient before clipping. Where either is NaN or infinite, the
    weights are as before.
    """

    loss: float
    norm: float


def choose(base: Base, settings: Settings, machine: Machine, built: FlatOptimizer) -> Stepper:
    """The fastest stepper that the settings allow: see ``obstacle``."""
    why = obstacle(settings.adapter, settings.machine, machine.device)
    return (Stepper if why else CudaGraphStepper)(base, settings, machine, built)


def obstacle(adapter: AdapterSettings, machine: MachineSettings, device: torch.device) -> str:
    """Why steps cannot be captured as CUDA graphs, as a clause; empty where they can."""
    if device.type != "cuda":
        return tr("there is no CUDA GPU")
    if not machine.cuda_graph:
        return tr("it is switched off")
    if adapter.train_text:
        return tr("text encoders train")
    if adapter.tokens:
        return tr("captions with learned tokens are encoded in every step")
    if machine.quantize == "int8":
        return tr("int8 layers search their inputs for outliers")
    if machine.checkpointing != "off" and adapter.dropout:
        return tr("dropout is drawn again in the backward pass")
    return ""


class Stepper:
    """One kernel at a time."""

    how = tr("no CUDA graph")
    """For people."""
    failed = ""
    """Why capturing failed, where it was tried; from then on it is one kernel at a time."""
    overlaps = False
    """Whether ``update`` can start on the next step's first batch."""
    next_started = False
    """Whether the next step's first batch was started already."""
    average_over_processes: Callable[[Tensor], None] | None = None
    """Replaces this process's gradients and loss by their mean over all processes; None where there is no other."""

    def __init__(self, base: Base, settings: Settings, machine: Machine, built: FlatOptimizer):
        self.base, self.settings, self.machine = base, settings, machine
        self.optimizer, self.flat, self.scaler = built.optimizer, built.flat, machine.scaler()
        self.loss = built.flat.loss
        """Mean loss of the batches since the last update."""
        most = settings.optimizer.max_norm
        self.cap = NormCap(inject.factor_pairs(base, built.parameters), most) if most else None
        self._failure_taken = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """For float32 parameters beside a base model in a smaller format; copies in that format need no autocast."""
        return contextlib.nullcontext() if self.flat.has_copies else self.machine.autocast()

    def backward(self, batch: Batch) -> None:
        """Forward and backward pass of one batch: adds the gradient of its share in the step's mean loss."""
        self._backward(self._ready(batch.to(self.machine.device)))

    def update(self, following: Batch | None = None) -> Outcome:
        """The optimizer's step with the gradients since the last one. In fp16 an infinite gradient only means that the
        loss was scaled too far: the scaler skips that step.

        Args:
            following: the next step's first batch, to be given where ``overlaps`` is true.
        """
        norm = self._norm_of_gradient()
        outcome = Outcome(*torch.stack([self.loss, norm]).tolist())
        if math.isfinite(outcome.loss) and (math.isfinite(outcome.norm) or self.scaler.is_enabled()):
            self._step(norm)
        else:
            self.scaler.update()  # otherwise it would refuse the next gradients, having seen these
            self.flat.zero_grad()
        self.loss.zero_()
        return outcome

    def forget(self) -> None:
        """Drops what was started for the next step: another state was put in place."""
        self.next_started = False
        self.flat.zero_grad()
        self.loss.zero_()

    def make_room(self, needed: int) -> None:
        """Frees memory on a GPU until ``needed`` bytes are free, as far as that helps, by dropping what can be made
        again.
        """

    def take_failure(self) -> str:
        """Why capturing failed, once; empty where it did not, or was asked for before."""
        if not self.failed or self._failure_taken:
            return ""
        self._failure_taken = True
        return self.failed

    def show(self, batch: Batch) -> None:
        """A pass of one batch for those who watch the model's layers: one kernel at a time, forward and, unless
        gradients are switched off, backward. ``forget`` drops the gradients that it leaves.
        """
        loss = self._loss(self._ready(batch.to(self.machine.device)))
        if loss.requires_grad:
            self.scaler.scale(loss).backward()

    def _ready(self, batch: Batch) -> Batch:
        """The batch as a step takes it: one of prompt pairs with what the model itself draws."""
        if batch.contrast is None:
            return batch
        with self.autocast():
            return sliders.drawn(self.base, batch, self.settings, self._read)

    def _loss(self, batch: Batch, which: int = 0) -> Tensor:
        """() The share of ``batch`` in the step's mean loss.

        Args:
            which: of the targets of prompt pairs.
        """
        batches = self.settings.optimizer.accumulate
        with self.autocast():
            text = self._read(Texts(batch.text, batch.captions, batch.length))
            if batch.targets is None:
                return losses(self.base, batch, text, self.settings.loss).mean() / batches
            return sliders.losses(self.base, batch, text, which).mean() / (batches * len(batch.targets))

    def _backward(self, batch: Batch) -> None:
        """Adds the gradient of a batch; of prompt pairs at each of the adapter's weights in turn, which so share their
        memory.
        """
        weights = sliders.WEIGHTS[: 1 if batch.targets is None else len(batch.targets)]
        for which, weight in enumerate(weights):
            with inject.scaled(self.base, weight):  # also in the backward pass, for what it computes again
                loss = self._loss(batch, which)
                self.scaler.scale(loss).backward()
            self.flat.accumulate_gradients()
            self.loss += loss.detach()
        if batch.plain:
            self._preserve(batch, batch.plain)

    def _preserve(self, batch: Batch, plain: Texts) -> None:
        """Adds the gradient of what is preserved: after that of the pictures, so that it takes no more memory."""
        share = self.settings.loss.preserve_weight / self.settings.optimizer.accumulate
        with self.autocast():
            loss = preservation.losses(self.base, batch, plain, self._read).mean() * share
        self.scaler.scale(loss).backward()
        self.flat.accumulate_gradients()

    def _read(self, texts: Texts) -> Mapping[str, Tensor]:
        return texts.features or self.base.features(texts.captions, reading.of_captions(self.settings), texts.length)

    def _norm_of_gradient(self) -> Tensor:
        """() float32: norm of the step's gradient over all batches and processes."""
        if self.average_over_processes:
            self.average_over_processes(self.flat.exchanged)
        self.scaler.unscale_(self.optimizer)
        return self.flat.gradients.norm()

    def _step(self, norm: Tensor) -> None:
        flat.clip(self.flat.gradients, norm, self.settings.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.cap:
            self.cap.apply()
        self.flat.zero_grad()
        self.flat.sync_copies()


class CapturedStep(NamedTuple):
    """The captured forward and backward pass of one shape of batch, and where it reads the batch."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch


class CudaGraphStepper(Stepper):
    """As CUDA graphs. The first batch of each shape and the first update are not captured: libraries choose their
    kernels then.
    """

    how = tr("CUDA graph")

    def __init__(self, base: Base, settings: Settings, machine: Machine, built: FlatOptimizer):
        super().__init__(base, settings, machine, built)
        self._captured: dict[tuple, CapturedStep] = {}
        self._seen_shapes: set[tuple] = set()
        self._pool: Any = None
        self._update: torch.cuda.CUDAGraph | None = None
        self._has_updated = False
        self._norm, self._not_finite = torch.zeros(2, device=machine.device)
        self._outcome, self._outcome_read = torch.zeros(2, pin_memory=True), torch.cuda.Event()
        self._rates = [torch.zeros((), device=machine.device) for _ in self.optimizer.param_groups]

    def backward(self, batch: Batch) -> None:
        if batch.contrast:  # drawing takes another number of kernels each time
            batch = self._ready(batch.to(self.machine.device))
        tensors = batch.tensors()
        shape = tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())
        if shape not in self._captured and shape in self._seen_shapes and not self.failed:
            self._capture_step(shape, batch)
        if shape not in self._captured:
            self._seen_shapes.add(shape)
            return super().backward(batch)
        step = self._captured[shape]
        for name, tensor in step.inputs.tensors().items():
            tensor.copy_(tensors[name], non_blocking=True)
        step.graph.replay()

    @property
    def overlaps(self) -> bool:
        """Not with dropout: each step sets the seed of its random numbers."""
        return self._update is not None and not self.settings.adapter.dropout

    def update(self, following: Batch | None = None) -> Outcome:
        """The processor reads a step's loss only after it has started the next one, so that the GPU need not wait for
        it. A step that is NaN or infinite leaves the weights as they were.
        """
        self.next_started = False
        if self._update is None:
            return super().update()
        self._norm.copy_(self._norm_of_gradient())
        self._outcome.copy_(torch.stack([self.loss, self._norm]), non_blocking=True)
        self._outcome_read.record()
        self._set_rates()
        self._update.replay()
        if following is not None:
            self.backward(following)
            self.next_started = True
        self._outcome_read.synchronize()
        outcome = Outcome(*self._outcome.tolist())
        if not all(map(math.isfinite, outcome)):
            super().forget()
        return outcome

    def forget(self) -> None:
        super().forget()
        self._update, self._has_updated = None, False

    def make_room(self, needed: int) -> None:
        torch.cuda.empty_cache()
        if devices.free(self.machine.device) < needed:
            self.release()

    def release(self) -> None:
        """Frees the graphs' memory; what is needed again is captured again."""
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
        if self._has_updated:
            with self._capturable():
                self._update = self._capture(self._guarded_step)
        if self._update is None:
            self._has_updated = True
            return super()._step(norm)
        self._norm.copy_(norm)
        self._update.replay()

    def _set_rates(self) -> None:
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    def _guarded_step(self) -> None:
        """Skips a step whose loss or gradient is NaN or infinite."""
        self._not_finite.copy_(~torch.isfinite(self._norm + self.loss))
        super()._step(self._norm)
        self.loss.zero_()

    @contextlib.contextmanager
    def _capturable(self) -> Generator[None]:
        """Within it the optimizer reads its learning rates, and whether to skip the step, from tensors that can be set
        between replays.
        """
        groups = self.optimizer.param_groups
        setattr(self.optimizer, "found_inf", self._not_finite)  # noqa: B010 - torch reads it, and declares it nowhere
        kept = [(group["lr"], group["capturable"]) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"], group["capturable"] = rate, True
        try:
            yield
        finally:
            delattr(self.optimizer, "found_inf")
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

"""Everything that a run holds in memory while it trains, and how it is brought there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_studio import models
from lora_studio.adapters import Adapter
from lora_studio.dataset import buckets, captions, folder, order
from lora_studio.dataset.cache import Cache
from lora_studio.errors import DatasetError
from lora_studio.events import Event, Preparing, Warned
from lora_studio.models import inject
from lora_studio.runs import Run
from lora_studio.settings import Settings
from lora_studio.training import checkpoint, devices, optimizers
from lora_studio.training.ema import Average

SUBJECTS = ("cat", "house", "rocket", "flower")
"""What previews show when no prompt is given: plain subjects that most bases know and few style folders hold."""


@dataclass
class Session:
    """One run's parts. Only ``step`` and what it names in ``state`` change while training."""

    run: Run
    settings: Settings
    machine: devices.Machine
    base: models.Base
    dataset: folder.Dataset
    cache: Cache
    order: order.Order
    train: list[int]
    validation: list[int]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    scaler: torch.amp.GradScaler
    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Time spent in steps so far."""
    final_loss: float = field(default=float("nan"))

    @property
    def prompts(self) -> list[str]:
        """What previews draw, the trigger word put in as captions have it."""
        wanted = self.settings.preview_prompts or [captions.with_trigger(subject, self.settings.trigger) for subject in SUBJECTS]
        return [prompt.replace("{trigger}", self.settings.trigger).strip(" ,") for prompt in wanted]

    def conditions(self, draws: list[order.Draw]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Text features (batch first) and sizes (B, 6) of a batch's pictures, on the device."""
        text = {key: value.to(self.machine.device) for key, value in self.cache.text(draws).items()}
        return text, self.cache.sizes(draws).to(self.machine.device)

    def state(self) -> dict[str, Any]:
        """All that changes while training: what a checkpoint must hold."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "final_loss": self.final_loss,
            "parameters": dict(self.parameters),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state in place of the present one."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.final_loss = state["step"], state["seconds"], state["final_loss"]

    def adapter(self) -> Adapter:
        """The adapter as it would be exported now: averaged, from the point that schedule-free optimizers report."""
        optimizers.mode(self.optimizer, training=False)
        try:
            with self.average.applied():
                return inject.read_adapter(self.base)
        finally:
            optimizers.mode(self.optimizer, training=True)


def prepare(run: Run, settings: Settings) -> Iterator[Event]:
    """Yields what happens and returns the Session: reads the folder, loads the base, encodes, injects, resumes.

    Raises:
        DatasetError: the folder cannot be trained on.
        ModelError, MachineError, SettingsError: as the parts say.
    """
    dataset = folder.scan(Path(settings.data))
    yield from _report(dataset)
    machine = devices.choose(settings)
    yield Preparing(stage="base model", done=0, total=1)
    base = models.load(settings.base, machine.device, machine.dtype, prediction=settings.prediction)
    yield Preparing(stage="base model", done=1, total=1)
    train, validation = order.split(dataset.pictures, settings.validation_share, settings.seed)
    cache = yield from _encode(run, settings, dataset, base)
    inject.add_adapter(base, settings, settings.seed)
    if settings.checkpointing:
        base.unet.enable_gradient_checkpointing()
    parameters = dict(inject.trainable(base))
    session = Session(
        run, settings, machine, base, dataset, cache, _order(settings, dataset, cache, train), train, validation, parameters,
        optimizers.build(parameters.items(), settings), Average(parameters, settings.ema), machine.scaler(),
    )
    optimizers.mode(session.optimizer, training=True)
    if newest := checkpoint.latest(run):
        session.restore(checkpoint.load(newest, machine.device))
    return session


def _report(dataset: folder.Dataset) -> Iterator[Event]:
    """Warns of every problem; the first that blocks ends the run."""
    for problem in dataset.problems:
        if problem.severity == "blocking":
            raise DatasetError(problem.what, where=problem.file, do=problem.do)
        yield Warned(what=problem.what, where=problem.file, do=problem.do)


def _encode(run: Run, settings: Settings, dataset: folder.Dataset, base: models.Base) -> Iterator[Event]:
    """Fills the cache with every latent and caption that training will ask for; then the encoders leave the accelerator."""
    assigned = buckets.assign(dataset.pictures, settings.resolution or base.resolution, settings.bucket_step, settings.max_upscale)
    wanted = [captions.variants(picture.caption, settings) for picture in dataset.pictures]
    cache = Cache(run.cache, base, dataset.pictures, assigned, wanted, flip=settings.flip)
    base.encoders_to(base.device)
    last = 0.0
    for stage, done, total in cache.fill():
        if done == total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            yield Preparing(stage=stage, done=done, total=total)
    base.encoders_to(torch.device("cpu"))
    return cache


def _order(settings: Settings, dataset: folder.Dataset, cache: Cache, train: list[int]) -> order.Order:
    return order.Order(
        buckets=cache.buckets, repeats=[picture.repeats for picture in dataset.pictures], batch=settings.batch, seed=settings.seed,
        among=train, flip=settings.flip, caption_dropout=settings.caption_dropout, variants=cache.variant_counts,
    )

"""Everything that a run holds in memory while it trains."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_studio import models
from lora_studio.adapters import Adapter, Factors
from lora_studio.config.settings import Settings
from lora_studio.config.slices import PreviewSettings
from lora_studio.dataset import caption_variants, manifest
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Dataset, PromptPair
from lora_studio.methods import registry as methods
from lora_studio.models import inject
from lora_studio.optim import build
from lora_studio.optim.ema import Average
from lora_studio.runs import Run
from lora_studio.sampling.generate import nearest_side
from lora_studio.training import checkpoint, devices, reading
from lora_studio.training.batches import Batch, BatchSource
from lora_studio.training.distributed import World
from lora_studio.training.stepper import Stepper

SUBJECTS = ("cat", "house", "rocket", "flower")
"""What previews draw when no prompt is given: plain subjects that most base models know and few style datasets show."""


@dataclass(frozen=True)
class TrainingData:
    """The pictures of a run, or its pairs, and what is made of them."""

    dataset: Dataset
    cache: Cache
    train: list[int]
    """Indices of the pictures that are trained on, class pictures included."""
    validation: list[int]
    """Indices of those held back."""
    batches: BatchSource

    @property
    def class_pictures(self) -> list[int]:
        """Indices of those trained on that do not show the style."""
        return [index for index in self.train if self.dataset.pictures[index].regularisation]


@dataclass(kw_only=True)
class Session:
    """One run's parts. Only ``step`` and what it names in ``state`` change while training."""

    run: Run
    settings: Settings
    machine: devices.Machine
    world: World
    base: models.Base
    data: TrainingData
    parameters: dict[str, nn.Parameter]
    """What is trained, by name; float32."""
    stepper: Stepper
    average: Average
    step: int = 0
    """Optimizer steps done."""
    started: float = field(default_factory=time.time)
    """When the run first began, in seconds since the epoch."""
    seconds: float = 0.0
    """Time spent in steps so far."""
    final_loss: float = float("nan")
    rate_factor: float = 1.0
    """What divergence has lowered the learning rate to."""
    rollbacks: int = 0
    saved_step: int | None = None
    """The step of the saved state that this session equals or last equalled; None if there is none."""
    abandoned: list[Path] = field(default_factory=list)
    """Saved states of later steps, which a rollback has overtaken."""
    stopping_early: Callable[[], bool] = lambda: False
    """Asked often where work before the first step takes long. Raises StoppedEarly where the run is to end."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.run.steps

    @property
    def prompts(self) -> list[str]:
        """What previews draw."""
        return prompts(self.settings, self.data.dataset.pairs)

    @property
    def previews(self) -> PreviewSettings:
        """How previews are drawn: with few steps where the base model was distilled for that."""
        settings, distilled = self.settings.previews, self.base.distilled
        return distilled.suited(settings) if distilled else settings

    @property
    def preview_side(self) -> int:
        """Width and height of a preview in pixels: the resolution, or the nearest that the base model can draw."""
        return nearest_side(self.base, self.settings.dataset.resolution or self.base.resolution)

    def features(self, texts: list[str], length: int) -> dict[str, Tensor]:
        """The text features of previews, of ``length`` chunks. Text encoders that do not train need not come onto the
        device for them.
        """
        if self.settings.adapter.reads_text:
            return self.base.encode_text(texts, reading.of_prompts(self.settings), length)
        found = self.data.cache.features(texts, length)
        return {name: feature.to(self.machine.device) for name, feature in found.items()}

    def text(self, batch: Batch) -> dict[str, Tensor]:
        """The text features of ``batch``, not differentiable."""
        return batch.text or self.base.encode_text(batch.captions, reading.of_captions(self.settings), batch.length)

    @cached_property
    def base_sha256(self) -> str:
        """Hash of the base model's files: gigabytes are read for it, so it waits for the first export."""
        return self.base.sha256()

    @cached_property
    def given_sha256(self) -> dict[str, str]:
        """The same of the files that were given beside it, by name."""
        return self.base.given_sha256()

    def state(self) -> dict[str, Any]:
        """All that changes while training: what a checkpoint must contain."""
        return {
            "step": self.step,
            "started": self.started,
            "seconds": self.seconds,
            "final_loss": self.final_loss,
            "rate_factor": self.rate_factor,
            "rollbacks": self.rollbacks,
            "threads": torch.get_num_threads(),
            "parameters": dict(self.parameters),
            "optimizer": self.stepper.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "start": self._measured_start(),
        }

    def _measured_start(self) -> dict[str, dict[str, Any]]:
        """The factors that are subtracted while it trains, by canonical path, where they come from batches that were
        looked at: the seed alone would not give them again.
        """
        adapter, method = self.settings.adapter, methods.get(self.settings.adapter.method)
        if self.base.start is None or not method.looks_at(adapter):
            return {}
        factors = self.base.start.adapters[0].factors
        return {path: {"down": one.down, "up": one.up, "alpha": one.alpha} for path, one in factors.items()}

    def copied_state(self) -> dict[str, Any]:
        """The state as it is now, in the computer's memory: a GPU may be full."""
        tensors: dict[str, Tensor] = {}
        return checkpoint.unflatten(checkpoint.flatten(self.state(), tensors), tensors)

    def about(self) -> dict[str, Any]:
        """Which settings and pictures the state comes from, as plain data."""
        return {"settings": self.settings.flat(), "pictures": manifest.manifest(self.data.dataset)}

    def same_layout(self, state: dict[str, Any]) -> bool:
        """Whether the optimizer had the parameters in the present order and groups when ``state`` was saved. Earlier
        versions used others, and moments are not stored by name.
        """
        before, now = (
            [len(group["params"]) for group in optimizer["param_groups"]]
            for optimizer in (state["optimizer"], self.stepper.optimizer.state_dict())
        )
        return list(state["parameters"]) == list(self.parameters) and before == now

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint's state; without the optimizer's moments where ``same_layout`` says that they would
        meet other parameters.
        """
        for name, parameter in self.parameters.items():
            parameter.copy_(state["parameters"][name])
        if self.same_layout(state):
            build.load_state(self.stepper.optimizer, state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        if (start := state.get("start")) and self.base.start is None:  # older states have none; it never changes
            inject.subtract(self.base, {path: Factors(**one) for path, one in start.items()})
        self.stepper.flat.sync_copies()
        self.stepper.forget()
        for name in ("step", "started", "seconds", "final_loss", "rate_factor", "rollbacks"):
            setattr(self, name, state[name])
        if self.machine.device.type == "cpu":
            torch.set_num_threads(state["threads"])  # others would add up in another order

    @torch.no_grad()
    def probe(self) -> None:
        """The forward pass of the first batch, to be timed: about a third of a step."""
        batch = self.data.batches.draw(0)
        self.base.predict(batch.x0, batch.timesteps, self.text(batch), batch.sizes, batch.inpainting)

    @contextlib.contextmanager
    def as_exported(self) -> Generator[None]:
        """Within it the model has the adapter as it would be exported now: averaged, and at the point that a
        schedule-free optimizer evaluates at. It computes in the same precision as in training.
        """
        flat = self.stepper.flat
        # a copy, since switching there and back rounds: how often a run is looked at must not change it
        own = flat.values.clone()
        build.mode(self.stepper.optimizer, training=False)
        try:
            with self.average.applied():
                flat.sync_copies()
                with self.stepper.autocast():
                    yield
        finally:
            build.mode(self.stepper.optimizer, training=True)
            flat.values.copy_(own)
            flat.sync_copies()

    def adapter(self) -> Adapter:
        """The adapter as it would be exported now, in all its digits."""
        with self.as_exported(), self.stepper.flat.full_precision():
            return inject.read_adapter(self.base)


def prompts(settings: Settings, pairs: Sequence[PromptPair] = ()) -> list[str]:
    """The prompts of previews, with the trigger word where captions have it; if none is given, of ``pairs`` the first
    few that are trained.
    """
    own = [prompt for prompt in dict.fromkeys(pair.trained for pair in pairs) if prompt][: len(SUBJECTS)]
    wanted = (
        settings.previews.preview_prompts
        or own
        or [caption_variants.with_trigger(subject, settings.run.trigger) for subject in SUBJECTS]
    )
    return [prompt.replace("{trigger}", settings.run.trigger).strip(" ,") for prompt in wanted]

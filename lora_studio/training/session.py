"""Everything that a run holds in memory while it trains, and how it is brought there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_studio import adapters, files, models
from lora_studio.adapters import Adapter
from lora_studio.config.settings import Settings
from lora_studio.dataset import buckets, captions, folder, manifest
from lora_studio.dataset.batch_sampler import BatchSampler, split
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Dataset, Sample
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.events import Event, Preparing, Warned
from lora_studio.models import gradient_checkpointing, inject, warm_start
from lora_studio.optim import build
from lora_studio.optim.ema import Average
from lora_studio.runs import Run, checkpoints
from lora_studio.training import checkpoint, devices, stepper, threads
from lora_studio.training.batches import Batches
from lora_studio.training.distributed import World
from lora_studio.training.stepper import Stepper

SUBJECTS = ("cat", "house", "rocket", "flower")
"""What previews show when no prompt is given: plain subjects that most bases know and few style folders hold."""


@dataclass
class Session:
    """One run's parts. Only ``step`` and what it names in ``state`` change while training."""

    run: Run
    settings: Settings
    machine: devices.Machine
    base: models.Base
    dataset: Dataset
    cache: Cache
    train: list[int]
    validation: list[int]
    parameters: dict[str, nn.Parameter]
    """What is trained, by name; float32."""
    batches: Batches
    stepper: Stepper
    average: Average
    ranks: World = field(default_factory=World)
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
    saved: float = 0.0
    """When a state was last saved, on the clock of this process."""

    @property
    def prompts(self) -> list[str]:
        """What previews draw."""
        return prompts(self.settings)

    def features(self, texts: list[str]) -> dict[str, Tensor]:
        """Of the previews' texts: text encoders that do not train need not come onto the device for them again."""
        if self.settings.adapter.train_text:
            return self.base.encode_text(texts)
        return {name: feature.to(self.machine.device) for name, feature in self.cache.features(texts).items()}

    @cached_property
    def base_sha256(self) -> str:
        """Hash of the base model's files: gigabytes are read for it, so it waits for the first export."""
        return self.base.sha256()

    def state(self) -> dict[str, Any]:
        """All that changes while training: what a checkpoint must hold."""
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
        }

    def about(self) -> dict[str, Any]:
        """What the state comes from, as plain data."""
        return {"settings": self.settings.flat(), "pictures": manifest.manifest(self.dataset)}

    def same_layout(self, state: dict[str, Any]) -> bool:
        """Whether the optimizer's buffer had the parameters in the present order when ``state`` was saved: earlier
        versions had another, and moments know no names.
        """
        return list(state["parameters"]) == list(self.parameters)

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state in place of the present one; not the optimizer's moments where ``same_layout``
        denies that they would find their parameters.
        """
        for name, parameter in self.parameters.items():
            parameter.copy_(state["parameters"][name])
        if self.same_layout(state):
            self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.flat.sync_copies()
        self.stepper.forget()
        for name in ("step", "started", "seconds", "final_loss", "rate_factor", "rollbacks"):
            setattr(self, name, state[name])
        if self.machine.device.type == "cpu":
            torch.set_num_threads(state["threads"])  # others would add up in another order

    @torch.no_grad()
    def probe(self) -> None:
        """About the half of a step, to be timed: the first batch's way through the base model."""
        batch = self.batches.draw(0)
        self.base.predict(batch.x0, batch.timesteps, batch.text or self.base.encode_text(batch.captions), batch.sizes)

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Within it the model has the adapter as it would be exported now: averaged, from the point that schedule-free
        optimizers report; and computes as in training.
        """
        flat = self.stepper.flat
        # to the bit: the way to that point and back rounds, and a run that is looked at more often would be another run
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
        with self.settled(), self.stepper.flat.full_precision():
            return inject.read_adapter(self.base)


def prepare(run: Run, settings: Settings, ranks: World | None = None) -> Generator[Event, None, Session]:
    """Yields what happens and returns the Session: reads the folder, loads the base, encodes, injects, resumes. Where
    others lead, the state comes from them.

    Raises:
        DatasetError: the folder cannot be trained on.
        ModelError, MachineError, SettingsError: as the parts say.
    """
    ranks = ranks or World()
    dataset = folder.scan(Path(settings.run.data), run.cache)
    yield from _report(dataset)
    if ranks.leads:
        yield from _compare(run, dataset)
    _require_same(dataset, ranks)
    machine = devices.choose(settings, ranks.place)
    yield Preparing(stage="base model", done=0, total=1)
    base = models.load(
        settings.run.base,
        machine.device,
        machine.dtype,
        prediction=settings.loss.prediction,
        quantize=settings.machine.quantize,
        in_turn=True,
    )  # a large model's encoders beside each other would need more memory than a step
    base.tiled = settings.machine.tiled_vae
    yield Preparing(stage="base model", done=1, total=1)
    yield from _warnings(
        dataset,
        buckets.problems(
            dataset,
            settings.dataset.resolution or base.resolution,
            settings.dataset.bucket_step,
            settings.dataset.max_upscale,
        ),
    )
    train, validation = split(dataset.pictures, settings.dataset.validation_share, settings.run.seed)
    with ranks.first():
        cache = yield from _encode(run, settings, dataset, base)
    inject.add_adapter(base, settings.adapter, settings.run.seed)
    gradient_checkpointing.enable(
        base.unet,
        settings.machine.checkpointing,
        base.text_encoders.values() if settings.adapter.train_text else (),
        random=settings.adapter.dropout > 0,
    )
    for model in base.models.values():
        model.train()  # the adapter's dropout is at work; the base itself has none
    built = build.flat_optimizer(
        inject.trainable(base).items(), settings.optimizer, settings.run.steps, machine.copies(settings.adapter)
    )
    batches = Batches(
        cache,
        _sampler(settings, cache, train),
        base.process,
        settings.run.seed,
        settings.loss.noise_offset,
        settings.adapter.train_text,
        pinned=machine.device.type == "cuda",
        part=ranks.part,
    )
    session = Session(
        run,
        settings,
        machine,
        base,
        dataset,
        cache,
        train,
        validation,
        built.parameters,
        batches,
        stepper.choose(base, settings, machine, built),
        Average(built.parameters, settings.optimizer.ema),
        ranks,
    )
    build.mode(built.optimizer, training=True)
    if ranks.world > 1:
        ranks.meet(machine.device)
        session.stepper.exchange = ranks.exchange
    if not ranks.leads:
        return session
    if newest := checkpoints.latest(run):
        state = checkpoint.load(newest, machine.device)
        session.restore(state)
        if not session.same_layout(state):
            yield Warned(
                what="The state was saved by an earlier version of the studio, which laid the adapter out otherwise: the optimizer begins anew.",
                where=newest.name,
                do="Nothing has to be done: what was learned is kept, and the run goes on from there.",
            )
    else:
        if machine.device.type == "cpu" and not settings.machine.deterministic:
            threads.fastest(session.probe, max(1, torch.get_num_threads() // ranks.world))
        if run.start_file.exists():
            yield from _begin_from(session)
    return session


def _begin_from(session: Session) -> Iterator[Event]:
    """The adapter of another run, where the state that it was saved with does not go with this one's settings."""
    given = adapters.read(session.run.start_file)
    with session.stepper.flat.full_precision():
        taken = warm_start.begin_from(session.base, given)
    session.average = Average(session.parameters, session.settings.optimizer.ema)
    if taken < len(given.factors):
        yield Warned(
            what=f"{taken} of the {len(given.factors)} modules of the adapter that this run begins from have a place in it.",
            where="targets",
            do="Train the same layers to begin from all of it.",
        )


def _report(dataset: Dataset) -> Iterator[Event]:
    """Warns of every problem; the first that blocks ends the run."""
    for problem in dataset.blocking:
        raise DatasetError(problem.what, where=problem.file or dataset.folder, do=problem.do)
    yield from _warnings(dataset, dataset.problems)


def _warnings(dataset: Dataset, problems: Sequence[Problem]) -> Iterator[Event]:
    for problem in problems:
        yield Warned(what=problem.what, where=problem.file or str(dataset.folder), do=problem.do)


def _compare(run: Run, dataset: Dataset) -> Iterator[Event]:
    """Notes what the run trains on, or, where that was noted before, says what has changed since."""
    now, before = manifest.manifest(dataset), manifest.noted(run.manifest_file)
    if before is None:
        files.write(run.manifest_file, json.dumps(now, indent=1))
        return
    if changes := manifest.changes(before, now):
        more = f" And {len(changes) - 3} more changes." if len(changes) > 3 else ""
        yield Warned(
            what=f"The pictures changed since this run began: {' '.join(changes[:3])}{more}",
            where=str(dataset.folder),
            do="Training goes on with them as they are now, so the result differs from an undisturbed run's; put them back and resume from an earlier checkpoint to avoid that.",
        )


def _require_same(dataset: Dataset, ranks: World) -> None:
    """Raises DatasetError where this process sees other pictures than the leader: its batches would be others."""
    own = manifest.manifest(dataset)
    if ranks.share(own) != own:
        do = "Put copies of one folder at the same path on every machine, or share it between them."
        raise DatasetError(
            "The pictures or captions are not those of the machine that leads the run.", where=dataset.folder, do=do
        )


def prompts(settings: Settings) -> list[str]:
    """What previews draw, the trigger word put in as captions have it."""
    wanted = settings.previews.preview_prompts or [
        captions.with_trigger(subject, settings.run.trigger) for subject in SUBJECTS
    ]
    return [prompt.replace("{trigger}", settings.run.trigger).strip(" ,") for prompt in wanted]


def _encode(run: Run, settings: Settings, dataset: Dataset, base: models.Base) -> Iterator[Event]:
    """Fills the cache with every latent and caption that training will ask for; then the encoders leave the
    accelerator.
    """
    assigned = buckets.assign(
        dataset.pictures,
        settings.dataset.resolution or base.resolution,
        settings.dataset.bucket_step,
        settings.dataset.max_upscale,
    )
    texts = [picture.caption for picture in dataset.pictures]
    variants = captions.all_variants(texts, settings.run.trigger, settings.dataset, settings.run.seed)
    cache = Cache(
        run.cache,
        base,
        [Sample(*parts) for parts in zip(dataset.pictures, assigned, variants, strict=True)],
        prompts=[*prompts(settings), settings.previews.negative],
        flip=settings.dataset.flip,
    )
    last = 0.0
    for stage, done, total in cache.fill(texts=not settings.adapter.train_text):
        if done == total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            yield Preparing(stage=stage, done=done, total=total)
    base.encoders_to(torch.device("cpu"))
    return cache


def _sampler(settings: Settings, cache: Cache, train: list[int]) -> BatchSampler:
    return BatchSampler(
        cache.samples,
        batch=settings.optimizer.batch,
        seed=settings.run.seed,
        among=train,
        flip=settings.dataset.flip,
        caption_dropout=settings.dataset.caption_dropout,
    )

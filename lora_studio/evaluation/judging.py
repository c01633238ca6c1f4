"""Judges the saved states of a run by what they draw: the same prompts with each, measured against the training
pictures and the base model. Nothing but those is needed.

What was judged lies in the run's folder ``evaluation``: the base model's pictures, and for every step a folder with its
pictures and ``judged.json``. A step is judged once, as long as base model, pictures, prompts and sampler stay the same.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as written
from torch import Tensor

from lora_studio import adapters, files
from lora_studio.config.settings import Settings
from lora_studio.dataset import caption_variants, manifest
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Dataset, Draw
from lora_studio.errors import DatasetError, RunError
from lora_studio.evaluation import copying, perception, subject
from lora_studio.evaluation.drift import drift
from lora_studio.evaluation.measure import Value
from lora_studio.evaluation.style import StyleScale
from lora_studio.events import Event, Preparing
from lora_studio.models import Base, inject
from lora_studio.runs import Run, checkpoints
from lora_studio.sampling.generate import generate, nearest_side
from lora_studio.training import devices, prepare

VERSION = 1
"""Increased whenever the same state would be judged differently."""
PROMPTS = (
    "a cat", "a house", "a tree", "a car", "a bird", "a boat", "a flower", "a chair",
    "a mountain", "a cup", "a dog", "a bicycle", "a fish", "a castle", "a shoe", "a mushroom",
)  # fmt: skip
"""What is drawn if nobody says otherwise: plain subjects that base models know."""
_PROMPTS, _CAPTIONS = 12, 24
_FIRST_SEED, _FIRST_REFERENCE = 1001, 2001
LIKENESS = 0.9
"""From here on a drawn picture may be a copy, if training pictures are less alike among themselves."""


@dataclass(frozen=True)
class JudgingPlan:
    """What is drawn: every prompt with every seed. Prompts are without the trigger word."""

    prompts: tuple[str, ...]
    seeds: int = 2

    @classmethod
    def of(cls, dataset: Dataset, prompts: Sequence[str] = (), seeds: int = 2) -> JudgingPlan:
        """``prompts``, or subjects that the captions do not name: pictures of those would be learned by heart."""
        if prompts:
            return cls(tuple(prompts), seeds)
        words = {word for picture in dataset.pictures for word in picture.caption.casefold().replace(",", " ").split()}
        free = [prompt for prompt in PROMPTS if prompt.split()[-1] not in words]
        return cls(tuple(free[:_PROMPTS] or PROMPTS[:_PROMPTS]), seeds)


@dataclass(frozen=True)
class Copy:
    """A drawn picture that is very like a training picture: its prompt and seed by their numbers, and the name and
    likeness of the training picture.
    """

    prompt: int
    seed: int
    training: str
    likeness: float


@dataclass(frozen=True)
class Judgement:
    """What was measured of one saved state.

    Attributes:
        style: how much of the style was learned, in per cent (``evaluation.style``).
        subject: how well the pictures show their prompts; below ``level`` subjects fade (``evaluation.subject``).
        level: the training pictures' own.
        drift: how far pictures without the trigger word moved (``evaluation.drift``).
        samples: percentages of ``style`` in resamplings that all states share.
    """

    step: int
    style: Value
    subject: Value
    level: Value
    drift: Value
    copies: tuple[Copy, ...]
    samples: tuple[float, ...]

    @property
    def fades(self) -> bool:
        """Whether subjects have faded, beyond doubt."""
        return self.subject.high is not None and self.subject.high < self.level.value


def folder(run: Run) -> Path:
    """Where what was judged of a run lies."""
    return run.folder / "evaluation"


def judged(run: Run, key: str = "") -> list[Judgement]:
    """What is known of the run's states, by step; with ``key``, what was judged under the same conditions."""
    found = []
    for path in folder(run).glob("step-*/judged.json"):
        try:
            table = json.loads(path.read_text("utf-8"))
            if not key or table["key"] == key:
                found.append(_judgement(table))
        except (OSError, ValueError, KeyError, TypeError):  # half-written or damaged: it is judged again
            continue
    return sorted(found, key=lambda one: one.step)


def judge(
    run: Run, prompts: Sequence[str] = (), seeds: int = 2, steps: Iterable[int] = ()
) -> Generator[Event | Judgement, None, None]:
    """Judges the run's saved states, or those of ``steps``, that were not judged yet; yields what happens, and every
    state's judgement in the order of the steps.

    Raises:
        RunError: the run has no saved state with an adapter, or none of a step.
        DatasetError, ModelError, MachineError: the run's pictures or base model cannot be used.
    """
    settings = devices.settled(run.settings())
    states = _states(run, steps)
    dataset = yield from _quiet(prepare.pictures_of(run, settings))
    machine = devices.choose(settings.machine)
    base = yield from _quiet(prepare.load(settings, machine, dataset))
    cache = yield from _quiet(prepare.encode(run, settings, dataset, base))
    bench = Bench(run, settings, base, cache, dataset, JudgingPlan.of(dataset, prompts, seeds))
    known = {one.step: one for one in judged(run, bench.key)}
    yield from bench.prepare()
    for done, (step, path) in enumerate(states.items()):
        yield Preparing(stage=f"step {step}", done=done, total=len(states))
        yield known.get(step) or bench.judge(step, path)


def _quiet(events: Generator[Event, None, Any]) -> Generator[Event, None, Any]:
    """Progress alone: what training warned of need not be said again."""
    while True:
        try:
            event = next(events)
        except StopIteration as done:
            return done.value
        if isinstance(event, Preparing):
            yield event


def _states(run: Run, steps: Iterable[int]) -> dict[int, Path]:
    """The adapter of every saved state by its step, and of the run's end."""
    found = {saved.step: saved.folder / "adapter.safetensors" for saved in checkpoints.listed(run)}
    found = {step: path for step, path in found.items() if path.is_file()}
    wanted = list(steps)
    if missing := [step for step in wanted if step not in found]:
        raise RunError(
            f"{run.name} has no saved state of step {missing[0]}.",
            where=run.checkpoints,
            do=f"Choose among {', '.join(map(str, sorted(found))) or 'none'}.",
        )
    if not found:
        do = "Train with checkpoint_every and keep_checkpoints, so that states are kept."
        raise RunError(f"{run.name} has no saved state to judge.", where=run.checkpoints, do=do)
    return {step: found[step] for step in sorted(wanted or found)}


class Bench:
    """The base model, what it draws and sees, and the training pictures. Call ``prepare`` once, then ``judge``.

    Attributes:
        key: changes with all that a judgement depends on beside the adapter.
    """

    def __init__(self, run: Run, settings: Settings, base: Base, cache: Cache, dataset: Dataset, plan: JudgingPlan):
        self.run, self.settings, self.base, self.plan = run, settings, base, plan
        self.previews = base.distilled.suited(settings.previews) if base.distilled else settings.previews
        self.side = nearest_side(base, settings.dataset.resolution or base.resolution)
        shown = [index for index, picture in enumerate(dataset.pictures) if not picture.regularisation]
        if len(shown) < 2:
            raise DatasetError("A style cannot be measured against one picture.", where=dataset.folder, do="Add more.")
        self.names = [dataset.name(dataset.pictures[index]) for index in shown]
        self.captions = [dataset.pictures[index].full_caption.split("\n")[0] for index in shown]
        self.training = [cache.latents([Draw(index)])[0] for index in shown]
        self.key = self._key(manifest.manifest(dataset))

    def _key(self, pictures: Mapping[str, Any]) -> str:
        drawn = self.previews.model_dump(
            include={"preview_steps", "sampler", "guidance", "guidance_rescale", "negative"}
        )
        parts = [VERSION, self.base.checksum, self.base.fingerprint, self.base.process.name, asdict(self.plan)]
        text = json.dumps([*parts, self.settings.run.trigger, drawn, self.side, pictures], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def prepare(self) -> Iterator[Event]:
        """Draws what the base model makes of the prompts and captions, or reads what is kept of it."""
        plan, seeds = self.plan, range(_FIRST_SEED, _FIRST_SEED + self.plan.seeds)
        others = range(_FIRST_REFERENCE, _FIRST_REFERENCE + subject.REFERENCES)
        chosen = np.linspace(0, len(self.captions) - 1, min(_CAPTIONS, len(self.captions))).round().astype(int).tolist()
        captions = [self.captions[index] for index in chosen]
        kept = folder(self.run) / "base" / "features.safetensors"
        features = _kept(kept, self.key)
        if not features:
            for done, (name, texts, drawn_with) in enumerate(
                [("base", plan.prompts, seeds), ("references", plan.prompts, others), ("captioned", captions, others)]
            ):
                yield Preparing(stage="base model's pictures", done=done, total=3)
                images = self._draw(list(texts), drawn_with)
                if name == "base":
                    self._save("base", images)
                for kind, seen in self._seen(images, len(drawn_with)).items():
                    features[f"{name} {kind}"] = seen
            yield Preparing(stage="base model's pictures", done=3, total=3)
            files.write(kept, written(features, {"key": self.key}))
        self.features = features
        training = perception.style(self.base, self.training)
        self.scale = StyleScale(training, features["captioned style"], features["base style"], chosen)
        own = perception.subject(self.base, [self.training[index] for index in chosen])
        self.level = subject.value(subject.kept(own[:, None], features["captioned subject"]))
        self.alike = max(LIKENESS, float(np.quantile(copying.among_themselves(self.training), 0.95)))

    def judge(self, step: int, adapter: Path) -> Judgement:
        """Draws with ``adapter``, measures, and keeps both.

        Raises:
            AdapterError: it cannot be read, or does not fit the base model.
            MachineError: there is not enough memory or space.
        """
        seeds, trigger = range(_FIRST_SEED, _FIRST_SEED + self.plan.seeds), self.settings.run.trigger
        inject.load_adapters(self.base, [(adapters.read(adapter), 1.0)])
        try:
            images = self._draw([caption_variants.with_trigger(one, trigger) for one in self.plan.prompts], seeds)
            plain = self._draw(list(self.plan.prompts), seeds) if trigger else images
        finally:
            inject.unload_adapters(self.base)
        self._save(f"step-{step}", images)
        seen = self._seen(images, len(seeds))
        moved = self._seen(plain, len(seeds))["subject"] if trigger else seen["subject"]
        found = Judgement(
            step=step,
            style=self.scale.percent(seen["style"]),
            subject=subject.value(subject.kept(seen["subject"], self.features["references subject"])),
            level=self.level,
            drift=drift(moved, self.features["base subject"]),
            copies=tuple(self._copies(images)),
            samples=tuple(self.scale.resampled(seen["style"]).tolist()),
        )
        place = folder(self.run) / f"step-{step}"
        files.write(place / "adapter.safetensors", adapter.read_bytes())
        files.write(place / "judged.json", json.dumps({"key": self.key, **asdict(found)}))
        return found

    def _draw(self, prompts: list[str], seeds: Sequence[int]) -> list[Image]:
        """One picture for each prompt and seed, the seeds of a prompt side by side."""
        how = self.previews
        return generate(
            self.base,
            [prompt for prompt in prompts for _ in seeds],
            [*seeds] * len(prompts),
            negative=how.negative,
            steps=how.preview_steps,
            guidance=how.guidance,
            guidance_rescale=how.guidance_rescale,
            sampler=how.sampler,
            width=self.side,
            height=self.side,
            prompt_weights=how.prompt_weights,
        )

    def _latents(self, images: Sequence[Image]) -> list[Tensor]:
        pixels = [torch.from_numpy(np.array(one)).permute(2, 0, 1).float() / 127.5 - 1 for one in images]
        return [self.base.encode_images(one[None])[0][0].cpu() for one in pixels]

    def _seen(self, images: Sequence[Image], seeds: int) -> dict[str, Tensor]:
        """Features of pictures, (P, S, D)."""
        latents = self._latents(images)
        kinds: dict[str, Callable[[Base, Sequence[Tensor]], Tensor]] = {
            "style": perception.style,
            "subject": perception.subject,
        }
        return {kind: look(self.base, latents).unflatten(0, (-1, seeds)).contiguous() for kind, look in kinds.items()}

    def _copies(self, images: Sequence[Image]) -> Iterator[Copy]:
        for number, found in enumerate(copying.nearest(self._latents(images), self.training)):
            if found.likeness > self.alike:
                yield Copy(*divmod(number, self.plan.seeds), self.names[found.index], round(found.likeness, 3))

    def _save(self, name: str, images: Sequence[Image]) -> None:
        for number, image in enumerate(images):
            data = io.BytesIO()
            image.save(data, "PNG")
            prompt, seed = divmod(number, self.plan.seeds)
            files.write(folder(self.run) / name / f"{prompt}-{seed}.png", data.getvalue())


def _kept(path: Path, key: str) -> dict[str, Tensor]:
    """The features that were kept under the same conditions; none otherwise."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return read_tensors(data) if header["__metadata__"]["key"] == key else {}
    except (OSError, ValueError, KeyError, SafetensorError):
        return {}


def _judgement(table: dict[str, Any]) -> Judgement:
    values = {name: Value(*table[name]) for name in ("style", "subject", "level", "drift")}
    return Judgement(
        step=int(table["step"]),
        copies=tuple(Copy(**one) for one in table["copies"]),
        samples=tuple(table["samples"]),
        **values,
    )

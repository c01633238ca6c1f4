"""Judges adapters by what they draw: the base model, what it draws and sees, and the training pictures."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from lora_studio import adapters, files
from lora_studio.config.settings import Settings
from lora_studio.dataset import caption_variants, fitted, manifest
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.encoding import WORKERS, ahead
from lora_studio.dataset.items import Dataset, Draw
from lora_studio.errors import DatasetError, ModelError, SettingsError
from lora_studio.evaluation import cost, drift, features, judgements, perception, subject
from lora_studio.evaluation.copying import CopyScale
from lora_studio.evaluation.features import latents, pixels, spread_out
from lora_studio.evaluation.judgements import ADAPTER, Conditions, Copy, Judgement, JudgingPlan, Memorized
from lora_studio.evaluation.style import StyleScale
from lora_studio.events import Event, Preparing
from lora_studio.language import tr
from lora_studio.models import Base, inject
from lora_studio.sampling import replay
from lora_studio.sampling.generate import generate, nearest_side
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.training import base_previews

VERSION = 4
"""Increased whenever the same state would be judged differently."""
_REFERENCES = range(2001, 2001 + cost.REFERENCES)
"""Seeds of the base model's pictures that others are compared with."""
_OF_THE_BASE = tr("drawing the base model's pictures for judging")


class Cancelled(Exception):
    """The work was cancelled."""


class Bench:
    """Judges adapters on ``base``, whatever adapter is under training in it. Call ``prepare`` once before.

    Args:
        place: where the base model's pictures and the judged states are kept, as ``judgements.folder`` gives it.
        cancelled: asked before every denoising step; True ends the work with ``Cancelled``.

    Attributes:
        previews: how pictures are drawn; ``side`` their width and height in pixels. Both may be set before ``prepare``.
        base_seconds: how long drawing the base model's pictures took, or would have taken; 0 where features were kept.

    Raises:
        SettingsError: there is one prompt alone.
        DatasetError: there are fewer than two pictures.
    """

    def __init__(
        self,
        settings: Settings,
        base: Base,
        cache: Cache,
        dataset: Dataset,
        plan: JudgingPlan,
        place: Path,
        cancelled: Callable[[], bool] = lambda: False,
    ):
        self.settings, self.base, self.plan, self.place, self.cancelled = settings, base, plan, place, cancelled
        self.previews = base.distilled.suited(settings.previews) if base.distilled else settings.previews
        self.side = nearest_side(base, settings.dataset.resolution or base.resolution)
        shown = [index for index, picture in enumerate(dataset.pictures) if not picture.regularisation]
        if len(plan.prompts) < 2:
            what = tr("Subjects cannot be measured with one prompt: what each shows is seen against the others.")
            raise SettingsError(what, where="evaluation_prompts", do=tr("Name two prompts or more, or none."))
        if len(shown) < 2:
            raise DatasetError(
                tr("A style cannot be measured against one picture."), where=dataset.folder, do=tr("Add more.")
            )
        self.folder = dataset.folder
        self.names = [dataset.name(dataset.pictures[index]) for index in shown]
        self.captions = [dataset.pictures[index].full_caption.split("\n")[0] for index in shown]
        self.training = [cache.latents([Draw(index)])[0] for index in shown]
        self.samples = [cache.samples[index] for index in shown]
        self.base_seconds = 0.0
        self._manifest, self._cache = manifest.manifest(dataset), cache.folder

    @cached_property
    def key(self) -> str:
        """Changes with all that a judgement depends on beside the adapter."""
        drawn = self.previews.model_dump(
            include={"preview_steps", "sampler", "guidance", "guidance_rescale", "negative"}
        )
        parts = [VERSION, self.base.checksum, self.base.fingerprint, self.base.process.name, asdict(self.plan)]
        text = json.dumps([*parts, self.settings.run.trigger, drawn, self.side, self._manifest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def pictures_drawn(self) -> int:
        """How many are drawn to judge one state."""
        return cost.of_a_state(self.settings, len(self.captions), self.plan.prompts, self.plan.seeds)

    @property
    def base_pictures_drawn(self) -> int:
        """How many of the base model are drawn before."""
        return cost.of_the_base(self.settings, len(self.captions), self.plan.prompts, self.plan.seeds)

    def elsewhere(self, place: Path, trigger: str | None = None) -> Bench:
        """The same, prepared or not, that keeps what it judges in ``place``, for runs with another trigger word."""
        other = copy.copy(self)
        other.place = place
        if trigger is not None and trigger != self.settings.run.trigger:
            other.settings = self.settings.changed(trigger=trigger)
            vars(other).pop("key", None)
        return other

    def prepare(self) -> Iterator[Event]:
        """Draws what the base model makes of the prompts and captions, or reads what is kept of it.

        Raises:
            Cancelled: it was.
            DatasetError: the training pictures are all the same.
            MachineError: there is not enough memory or space.
        """
        chosen = spread_out(len(self.captions), cost.CAPTIONS)
        self.copying = CopyScale(self._training_pixels())
        kept = self.place / "base" / "features.safetensors"
        found = features.kept(kept, self.key)
        if not found:
            found = yield from self._base_features([self.captions[index] for index in chosen])
            features.keep(kept, found, self.key)
        self.features = found
        training = perception.look(self.base, self.training)
        if not training.style.std(0).any():
            what = tr("A style cannot be measured against pictures that are all the same.")
            raise DatasetError(what, where=self.folder, do=tr("Add others."))
        self.scale = StyleScale(training.style, found["captioned style"], found["base style"], chosen)
        references = found["captioned subject"], found["references subject"]
        self.level = subject.level(training.subject[chosen], *references)
        self.limit = self.copying.limit(found["captioned likeness"].tolist())

    def _base_features(self, captions: list[str]) -> Generator[Event, None, dict[str, Tensor]]:
        prompts, found = list(self.plan.prompts), dict[str, Tensor]()
        sets: list[tuple[str, list[str], Sequence[int]]] = [
            ("base", prompts, self.plan.seed_numbers),
            ("references", prompts, _REFERENCES),
            ("captioned", captions, _REFERENCES),
        ]
        for done, (name, texts, seeds) in enumerate(sets):
            yield Preparing(stage=_OF_THE_BASE, done=done, total=len(sets))
            images = self._of_the_base(texts, seeds)
            if name == "base":
                self._save(self.place / "base", images)
            for kind, seen in self.seen(images, len(seeds)).items():
                found[f"{name} {kind}"] = seen
            if name == "captioned":
                nearest = self.copying.nearest(pixels(images))
                found["captioned likeness"] = torch.tensor([one.likeness for one in nearest])
        yield Preparing(stage=_OF_THE_BASE, done=len(sets), total=len(sets))
        return found

    def _of_the_base(self, prompts: list[str], seeds: Sequence[int]) -> list[Image]:
        """As ``_draw``, of the base model alone: out of the cache that all runs share, else drawn and kept there."""
        wanted, began = [*product(prompts, seeds)], time.monotonic()
        paths = [base_previews.shared_file(self._cache, self._conditions(*one)) for one in wanted]
        images = base_previews.kept_or_drawn(paths, lambda missing: self._draw([wanted[index] for index in missing]))
        self.base_seconds += time.monotonic() - began + sum(map(base_previews.seconds_saved, images))
        return images

    def _conditions(self, prompt: str, seed: int) -> list[Any]:
        """All that decides what the base model draws."""
        how = ImageSettings.of_previews(self.previews, self.side).model_dump()
        model = base_previews.model_of(self.base, self.settings.machine.quantize)
        return [VERSION, model, prompt, seed, how, base_previews.place_of(self.base.device), str(self.base.dtype)]

    def known(self, step: int, adapter: Path) -> Judgement | None:
        """What was judged of this adapter under the same conditions, if it was."""
        place = judgements.state_folder(self.place, step)
        found = judgements.read(self.place, step, self.key)
        return found if found and judgements.same_tensors(place / ADAPTER, adapter) else None

    def judge(self, step: int, adapter: Path) -> Judgement:
        """Measures the state of ``step``, and keeps its adapter, the pictures and the judgement.

        Raises:
            Cancelled: it was; nothing is kept.
            AdapterError: the adapter cannot be read, or does not fit the base model.
            ModelError: what is measured is not a number.
            MachineError: there is not enough memory.
            OSError: the disk refuses.
        """
        found, images = self.measure(step, adapter)
        memorized, asked = self.memorized(adapter)
        found = replace(found, memorized=memorized)
        place = judgements.state_folder(self.place, step)
        judgements.forget(self.place, step)
        self._save(place, images)
        self._save(place, asked, "caption")
        if adapter != place / ADAPTER:
            files.copy(adapter, place / ADAPTER)
        judgements.write(found, Conditions(self.key, self.plan), self.place)
        return found

    def measure(
        self, step: int, adapter: Path, weight: float = 1.0, trigger: str | None = None
    ) -> tuple[Judgement, list[Image]]:
        """What ``adapter`` draws at ``weight``, and what is measured of that; nothing is kept. Raises as ``judge``.

        Args:
            trigger: in place of the run's trigger word.
        """
        trigger = self.settings.run.trigger if trigger is None else trigger
        on, seeds = [(adapters.read(adapter), weight)], self.plan.seed_numbers
        prompts = [caption_variants.with_trigger(one, trigger) for one in self.plan.prompts]
        images = self._draw([*product(prompts, seeds)], on)
        seen = self.seen(images, len(seeds))
        plain = self.seen(self._draw([*product(self.plan.prompts, seeds)], on), len(seeds)) if trigger else seen
        shown = subject.kept(seen["subject"], self.features["references subject"])
        moved = plain["subject"], self.features["base subject"]
        found = Judgement(
            step=step,
            style=self.scale.percent(seen["style"]),
            subject=subject.value(shown),
            level=self.level,
            drift=drift.drift(*moved),
            copies=tuple(self._copies(images, len(seeds))),
            drawn=len(images),
            samples={
                "style": tuple(self.scale.resampled(seen["style"]).tolist()),
                "subject": tuple(subject.resampled(shown).tolist()),
                "drift": tuple(drift.resampled(*moved).tolist()),
            },
        )
        if not all(math.isfinite(one.value) for one in (found.style, found.subject, found.level, found.drift)):
            what = tr(
                "Step {step} cannot be measured: what the base model sees in its pictures is not a number.", step=step
            )
            raise ModelError(
                what, where=self.settings.run.base, do=tr("Set precision to fp32, or use another base model.")
            )
        return found, images

    def _draw(
        self, wanted: Sequence[tuple[str, int]], on: Sequence[tuple[adapters.Adapter, float]] = ()
    ) -> list[Image]:
        """A picture for each of the ``wanted`` prompts and seeds, with the adapters ``on`` alone."""
        with inject.without_adapter(self.base):
            inject.load_adapters(self.base, on)
            try:
                images = generate(
                    self.base,
                    [prompt for prompt, _ in wanted],
                    [seed for _, seed in wanted],
                    ImageSettings.of_previews(self.previews, self.side),
                    cancelled=self.cancelled,
                )
            finally:
                inject.unload_adapters(self.base)
                replay.release(self.base)  # they read these adapters, and measuring needs the memory
        if len(images) < len(wanted):
            raise Cancelled
        return images

    def seen(self, images: Sequence[Image], seeds: int) -> dict[str, Tensor]:
        """Features of pictures, (P, S, D), those of a prompt side by side."""
        seen = perception.look(self.base, latents(self.base, pixels(images)))
        return {kind: rows.unflatten(0, (-1, seeds)).contiguous() for kind, rows in seen._asdict().items()}

    def memorized(self, adapter: Path) -> tuple[Memorized, list[Image]]:
        """The training pictures that come back if they are asked for by their own captions, and what was drawn."""
        chosen = spread_out(len(self.captions), cost.CAPTIONS_ASKED)
        captions = [caption_variants.with_trigger(self.captions[index], self.settings.run.trigger) for index in chosen]
        images = self._draw([*product(captions, _REFERENCES[:1])], [(adapters.read(adapter), 1.0)])
        return Memorized(len(images), tuple(self._copies(images, 1))), images

    def _copies(self, images: Sequence[Image], seeds: int) -> Iterator[Copy]:
        for number, found in enumerate(self.copying.nearest(pixels(images))):
            if found.likeness > self.limit:
                yield Copy(*divmod(number, seeds), self.names[found.index], round(found.likeness, 3))

    def _training_pixels(self) -> Iterator[Tensor]:
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from ahead(pool, self._pixels, range(len(self.samples)))

    def _pixels(self, index: int) -> Tensor:
        """A training picture as it was trained on, (3, H, W) in [-1, 1]; out of its latents if the file has changed."""
        picture, bucket = self.samples[index][:2]
        try:
            return fitted.pixels(picture, bucket)
        except DatasetError:
            return self.base.decode(self.training[index][None])[0].cpu() * 2 - 1

    def _save(self, place: Path, images: Sequence[Image], name: str = "") -> None:
        for number, image in enumerate(images):
            data = io.BytesIO()
            image.save(data, "PNG")
            prompt, seed = divmod(number, self.plan.seeds)
            files.write(place / (f"{name}-{number}.png" if name else f"{prompt}-{seed}.png"), data.getvalue())

"""Measures a state at strengths from 0.2 to 1.6: the evaluation prompts are drawn with the same noise at each, several
strengths in one batch.

What was drawn lies beside the judged state in ``strength/P-S-STRENGTH.png`` (prompt and seed by number), so that a
sweep that was cancelled goes on where it was, and can be looked at.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Generator
from itertools import product
from pathlib import Path

from PIL import Image
from torch import Tensor

from lora_studio import adapters, files
from lora_studio.adapters import usage
from lora_studio.dataset import caption_variants
from lora_studio.evaluation import cost, strength, subject
from lora_studio.evaluation.bench import Bench, Cancelled
from lora_studio.evaluation.cost import STRENGTHS
from lora_studio.evaluation.strength import Resampled, StrengthRange, StrengthRow
from lora_studio.events import Event, Preparing
from lora_studio.language import tr
from lora_studio.models import inject
from lora_studio.runs import Run, keeping
from lora_studio.sampling import replay
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.generate import IMAGES_AT_ONCE
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings

SEEDS = cost.STRENGTH_SEEDS
_VERSION = 1
"""Increased whenever the same state would be measured differently."""
_AT_ONCE = max(1, IMAGES_AT_ONCE // len(STRENGTHS) // SEEDS)
"""Prompts that are drawn together."""

_Which = tuple[int, int, float]
"""A prompt and a seed by their numbers, and a strength."""


def measure(bench: Bench, run: Run, step: int) -> Generator[Event, None, StrengthRange]:
    """The range of strengths at which the judged state of ``step`` holds; measured unless it is known. It is kept, and
    written into the headers of the run's adapters that are this state.

    Args:
        bench: of the run, prepared.

    Raises:
        Cancelled: ``bench.cancelled`` said so; what was drawn is kept.
        AdapterError: the judged state's adapter cannot be read, or does not fit the base model.
        MachineError: there is not enough memory, or no space for a header.
        OSError: the disk refuses.
    """
    state = run.judged_adapter(step)
    key = _key(bench, state)
    found = strength.known(run, step, key)
    if found is None:
        seen = yield from _seen(bench, _Pictures(run, step, key), adapters.read(state))
        found = _found(bench, step, seen)
        strength.write(run, found, key)
    keeping.label(run, step, usage.texts(found.usage, adapters.header(state).metadata))
    return found


def _key(bench: Bench, state: Path) -> str:
    tensors = adapters.header(state).metadata.get("sshs_model_hash", "")
    return hashlib.sha256(json.dumps([_VERSION, bench.key, tensors, STRENGTHS, SEEDS]).encode()).hexdigest()


def _seen(
    bench: Bench, pictures: _Pictures, adapter: adapters.Adapter
) -> Generator[Event, None, dict[float, dict[str, Tensor]]]:
    """Features (P, S, D) of what ``adapter`` draws at each strength."""
    prompts, seeds = range(len(bench.plan.prompts)), bench.plan.seed_numbers[:SEEDS]
    for first in prompts[::_AT_ONCE]:
        yield Preparing(stage=tr("strengths of step {step}", step=pictures.step), done=first, total=len(prompts))
        wanted = product(prompts[first : first + _AT_ONCE], range(len(seeds)), STRENGTHS)
        missing = [one for one in wanted if one not in pictures]
        drawn = _draw(bench, adapter, missing) if missing else []
        for which, image in zip(missing, drawn, strict=True):
            pictures.save(which, image)
    yield Preparing(stage=tr("strengths of step {step}", step=pictures.step), done=len(prompts), total=len(prompts))
    places = list(product(prompts, range(len(seeds))))
    return {at: bench.seen([pictures.read((*place, at)) for place in places], len(seeds)) for at in STRENGTHS}


def _draw(bench: Bench, adapter: adapters.Adapter, wanted: list[_Which]) -> list[Image.Image]:
    """What ``adapter`` draws of these prompts with these seeds at these strengths."""
    how, trigger = bench.previews, bench.settings.run.trigger
    texts = [caption_variants.with_trigger(prompt, trigger) for prompt in bench.plan.prompts]
    cells = [
        Cell(texts[prompt], bench.plan.seed_numbers[seed], (at,), how.guidance, how.preview_steps)
        for prompt, seed, at in wanted
    ]
    with inject.without_adapter(bench.base):
        settings = ImageSettings.of_previews(how, bench.side)
        images = render(bench.base, [adapter], cells, settings, cancelled=bench.cancelled)
        replay.release(bench.base)
    if len(images) < len(cells):
        raise Cancelled
    return images


def _found(bench: Bench, step: int, seen: dict[float, dict[str, Tensor]]) -> StrengthRange:
    """The range that the features at each strength show."""
    scale, references = bench.scale.of_seeds(SEEDS), bench.features["references subject"]
    rows = [
        StrengthRow(at, scale.percent(one["style"]), subject.value(subject.kept(one["subject"], references)))
        for at, one in seen.items()
    ]
    resampled = [
        Resampled(scale.resampled(one["style"]).tolist(), scale.along(one["style"]).tolist()) for one in seen.values()
    ]
    return strength.find(step, rows, resampled, bench.level)


class _Pictures:
    """What a state drew under the conditions ``key``. What is kept of other conditions is removed."""

    def __init__(self, run: Run, step: int, key: str):
        self.run, self.step = run, step
        folder = strength.picture(run, step, 0, 0, 0).parent
        mark = folder / "key"
        try:
            same = mark.read_text("utf-8") == key
        except (OSError, ValueError):
            same = False
        if not same:
            if folder.exists():
                files.remove(folder)
            files.write(mark, key)

    def __contains__(self, which: _Which) -> bool:
        """Whether it was drawn and can be read."""
        try:
            self.read(which)
        except (OSError, ValueError, SyntaxError):  # the last two: of a damaged PNG
            return False
        return True

    def save(self, which: _Which, image: Image.Image) -> None:
        data = io.BytesIO()
        image.save(data, "PNG")
        files.write(self._file(which), data.getvalue())

    def read(self, which: _Which) -> Image.Image:
        with Image.open(self._file(which), formats=["PNG"]) as image:
            return image.convert("RGB")

    def _file(self, which: _Which) -> Path:
        return strength.picture(self.run, self.step, *which)

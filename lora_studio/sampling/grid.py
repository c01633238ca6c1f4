"""Many adapters in one batch: cells that differ in adapter, weight, prompt, seed or guidance are denoised together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from lora_studio.adapters.adapter import Adapter
from lora_studio.models import Base, inject
from lora_studio.sampling import kept_texts
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.denoise import UNSEEN, Sampling, StepTaken, Watch
from lora_studio.sampling.generate import DEFAULT, by_length, fronted, in_batches, sampling
from lora_studio.sampling.guided import PromptFeatures, Text
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.sampling.passes import latents_of
from lora_studio.texts.chunks import Reading

__all__ = ["Cell", "render"]


def render(
    base: Base,
    adapters: Sequence[Adapter],
    cells: Sequence[Cell],
    settings: ImageSettings = DEFAULT,
    *,
    cancelled: Callable[[], bool] = UNSEEN.cancelled,
    seen: Callable[[StepTaken], None] = UNSEEN.seen,
) -> list[Image.Image]:
    """One image for each cell, as ``generate`` would draw it alone with the cell's weights, up to the rounding of the
    arithmetic.

    Cells of equal steps share their batches, those with guidance and those without it apart, and so those with a prefix
    and those without. ``adapters`` take the place of those that were loaded before, and are taken off again.

    Args:
        cells: each with a weight for every adapter.
        settings: what the cells have in common; steps and guidance are the cells' own.
        cancelled, seen: as for ``generate``.

    Returns:
        RGB images in the cells' order; none where it was cancelled.

    Raises:
        AdapterError: an adapter does not fit, or a cell's weights do not.
        SettingsError: a size or the sampler makes no sense.
        MachineError: not even one image fits into memory.
    """
    groups: dict[tuple[int, bool, tuple[bool, ...]], list[int]] = {}
    for index, cell in enumerate(cells):
        groups.setdefault((cell.steps, cell.guidance > 1, _apart(cell, adapters)), []).append(index)
    drawn: dict[int, Image.Image] = {}
    inject.load_adapters(base, [(adapter, 0.0) for adapter in adapters])
    try:
        for (steps, guided, _), members in groups.items():
            how = sampling(base, settings.changed(steps=steps))
            avoid, reading = settings.negative if guided else None, Reading(settings.prompt_weights)
            inject.set_weights(base, [cells[index].weights for index in members])  # the words that each cell knows
            prompts = fronted(base, [cells[index].prompt for index in members])
            lengths = by_length(base, prompts, avoid, reading)
            for length, places in lengths.items():
                own = [members[place] for place in places]
                encode = partial(kept_texts.encode, base, reading=reading, length=length)
                alike = [cells[members[place]]._replace(prompt=prompts[place]) for place in places]
                batch = _Alike(alike, how, avoid, encode)
                drawn |= zip(own, batch.drawn(base, Watch(cancelled, seen)), strict=False)
    finally:
        inject.unload_adapters(base)
    return [drawn[index] for index in range(len(cells))] if len(drawn) == len(cells) else []


def _apart(cell: Cell, adapters: Sequence[Adapter]) -> tuple[bool, ...]:
    """Which of the adapters that a whole batch has or has not the cell has."""
    pairs = zip(cell.weights, adapters, strict=False)  # another count is refused with the weights
    return tuple(bool(weight) for weight, adapter in pairs if not adapter.shares_batch)


class _Alike(NamedTuple):
    """Cells of equal steps and lengths of text; ``negative`` None is without guidance."""

    cells: Sequence[Cell]
    how: Sampling
    negative: str | None
    encode: Callable[[list[str]], Text]

    def drawn(self, base: Base, watch: Watch) -> list[Image.Image]:
        """Their images. The text encoders have their adapters' weights cell by cell as well."""

        def draw(rows: slice) -> Tensor | None:
            batch = self.cells[rows]
            inject.set_weights(base, [cell.weights for cell in batch])
            avoid = None if self.negative is None else self.encode([self.negative] * len(batch))
            how = self.how.guided(tuple(cell.guidance for cell in batch))
            shown = PromptFeatures(self.encode([cell.prompt for cell in batch]), avoid)
            return latents_of(base, shown, [cell.seed for cell in batch], how, watch=watch)

        return in_batches(base, len(self.cells), self.how.last, draw)

"""Many adapters in one batch: cells that differ in adapter, weight, prompt, seed or guidance are denoised together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from PIL import Image
from torch import Tensor

from lora_studio.adapters.adapter import Adapter
from lora_studio.models import Base, inject
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.generate import OF_THE_PROCESS, Sampling, Text, by_length, denoise, in_batches, sampling
from lora_studio.texts.chunks import Reading

__all__ = ["Cell", "render"]


def render(
    base: Base,
    adapters: Sequence[Adapter],
    cells: Sequence[Cell],
    *,
    negative: str = "",
    guidance_rescale: float = OF_THE_PROCESS,
    sampler: str = "dpm++",
    width: int = 0,
    height: int = 0,
    prompt_weights: bool = True,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Image.Image]:
    """One image for each cell, as ``generate`` would draw it alone with the cell's weights, up to the rounding of the
    arithmetic.

    Cells of equal steps share their batches, those with guidance and those without it apart. ``adapters`` take the
    place of those that were loaded before, and are taken off again.

    Args:
        cells: each with a weight for every adapter.
        negative, guidance_rescale, sampler, width, height, prompt_weights, cancelled: as for ``generate``.

    Returns:
        RGB images in the cells' order; none where it was cancelled.

    Raises:
        AdapterError: an adapter does not fit, or a cell's weights do not.
        SettingsError: a size or the sampler makes no sense.
        MachineError: not even one image fits into memory.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, cell in enumerate(cells):
        groups.setdefault((cell.steps, cell.guidance > 1), []).append(index)
    drawn: dict[int, Image.Image] = {}
    inject.load_adapters(base, [(adapter, 0.0) for adapter in adapters])
    try:
        for (steps, guided), members in groups.items():
            how = sampling(base, sampler, steps, 1.0, width, height, guidance_rescale)
            avoid, reading = negative if guided else None, Reading(prompt_weights)
            lengths = by_length(base, [cells[index].prompt for index in members], avoid, reading)
            for length, places in lengths.items():
                own = [members[place] for place in places]
                encode = partial(base.encode_text, reading=reading, length=length)
                images = _alike(base, [cells[index] for index in own], how, avoid, encode, cancelled)
                drawn |= zip(own, images, strict=False)
    finally:
        inject.unload_adapters(base)
    return [drawn[index] for index in range(len(cells))] if len(drawn) == len(cells) else []


def _alike(
    base: Base,
    cells: Sequence[Cell],
    how: Sampling,
    negative: str | None,
    encode: Callable[[list[str]], Text],
    cancelled: Callable[[], bool],
) -> list[Image.Image]:
    """Images of cells of equal steps and lengths of text; ``negative`` None is without guidance. The text encoders have
    their adapters' weights cell by cell as well.
    """

    def draw(rows: slice) -> Tensor | None:
        batch = cells[rows]
        inject.set_weights(base, [cell.weights for cell in batch])
        avoid = None if negative is None else encode([negative] * len(batch))
        guided = replace(how, guidance=tuple(cell.guidance for cell in batch))
        return denoise(
            base,
            encode([cell.prompt for cell in batch]),
            avoid,
            [cell.seed for cell in batch],
            guided,
            cancelled,
        )

    return in_batches(base, len(cells), how, draw)

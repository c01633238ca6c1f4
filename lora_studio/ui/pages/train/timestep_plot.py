"""How often each level of noise is trained at, as a small drawing beside the settings that say so."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from lora_studio.config.slices import NoiseSettings
from lora_studio.config.specs import SPECS
from lora_studio.diffusion import timesteps
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.fields import from_field
from lora_studio.ui.plots import Frame, in_svg

KEYS = ("timestep_from", "timestep_to", "timestep_bias", "timestep_mean", "timestep_width")
"""The settings that it shows."""


def chart(*values: Any) -> str:
    """The drawing as HTML, of values of ``KEYS`` in their order; empty where they make no sense together, which the
    form says.

    It is that of Stable Diffusion's own noise: which model will be trained is not known before it is read.
    """
    try:
        typed = zip(KEYS, values, strict=True)
        chosen = NoiseSettings(**{key: from_field(SPECS[key], value) for key, value in typed})
    except ValidationError:
        return ""
    low, high = chosen.timestep_from, chosen.timestep_to
    if low >= high:
        return ""
    heights = timesteps.density(chosen, low, high)
    frame = Frame(1, 0, 1.08 * max(heights))
    width = 1 / len(heights)
    steps = [(edge * width, height) for i, height in enumerate(heights) for edge in (i, i + 1)]
    outline = frame.line([(0, 0), *steps, (1, 0)])
    svg = f'<path class="band" d="{outline}Z"/><path class="grid" d="M0 1000H1000"/><path class="trend" d="{outline}"/>'
    about = tr("How often each noise level is trained at, for Stable Diffusion’s noise")
    return (
        f'<figure class="chart"><figcaption>{about}</figcaption>'
        f'<div class="plot still small" role="img" aria-label="{words.text(_spoken(heights))}">'
        f'{in_svg(svg)}<span class="tick across first">{tr("no noise")}</span>'
        f'<span class="tick across last">{tr("only noise")}</span></div></figure>'
    )


def _spoken(heights: list[float]) -> str:
    """What the drawing shows, in words."""
    share = sum(heights[len(heights) // 2 :]) / sum(heights)
    return tr("{share:.0%} of the draws are in the noisier half of the process", share=share)

"""What the denoiser answers to a batch, with guidance: a function of tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.models import Base

Text = Mapping[str, Tensor]
Inputs = dict[str, Tensor]
"""``noisy`` (B, C, h, w), ``timestep`` (), ``guidance`` (1 or B, 1, 1, 1), ``sizes`` (B or 2B, 6), and the features of
texts by their names: of 2B with guidance, the negative prompts' first.
"""
_NO_TEXT = ("noisy", "timestep", "guidance", "sizes")


class PromptFeatures(NamedTuple):
    """What a batch of B pictures should show.

    Attributes:
        text: features of B prompts, as ``Base.encode_text`` gives them.
        avoid: features of one negative prompt for all, or of B; None leaves guidance out.
    """

    text: Text
    avoid: Text | None

    def both(self) -> Text:
        """The negative prompts' features above the prompts', if there are any."""
        if self.avoid is None:
            return self.text
        return {name: torch.cat([self.avoid[name].expand_as(one), one]) for name, one in self.text.items()}


def fixed(base: Base, shown: PromptFeatures, guidance: float | tuple[float, ...], latents: Tensor) -> Inputs:
    """The inputs that stay from step to step, where the denoiser computes; ``latents`` are of the batch's shape."""
    text = {name: feature.to(base.device, base.dtype) for name, feature in shown.both().items()}
    sizes = base.whole(latents if shown.avoid is None else torch.cat([latents, latents]))
    return {"guidance": torch.tensor(guidance, device=base.device).reshape(-1, 1, 1, 1), "sizes": sizes, **text}


def answer(base: Base, given: Inputs, rescale: float) -> Tensor:
    """What the denoiser predicts, (B, C, h, w) float32. It reads nothing but tensors that are where the denoiser is, so
    that it can be recorded as a CUDA graph.

    Classifier-free guidance (Ho & Salimans 2022, eq. 6, with w + 1 = ``guidance``): both answers come from one batch
    of 2B.

    Args:
        rescale: φ of ``rescaled``.
    """
    noisy, timestep, sizes = given["noisy"], given["timestep"], given["sizes"]
    text = {name: feature for name, feature in given.items() if name not in _NO_TEXT}
    if len(sizes) == len(noisy):
        return base.predict(noisy, timestep, text, sizes)
    away, towards = base.predict(torch.cat([noisy, noisy]), timestep, text, sizes).chunk(2)
    guided = away + given["guidance"] * (towards - away)
    return rescaled(guided, towards, rescale) if rescale else guided


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """``guided`` (B, C, h, w), for the share φ with the standard deviation of ``conditional``, image by image: strong
    guidance raises it, which overexposes images where the noise ends without any signal (Lin et al. 2024, *Common
    Diffusion Noise Schedules and Sample Steps are Flawed*, §3.4, eqs. 14–16).
    """
    dims = tuple(range(1, guided.ndim))
    scale = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return share * (guided * scale) + (1 - share) * guided

"""How much memory a run will take, from the shapes of its base model alone: plain arithmetic, no weights.

What a step keeps for the way back is ``activations``' part. docs/memory.md tells what all of it was measured against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.models.autoencode import TILE
from lora_studio.models.fused import triton_support
from lora_studio.models.shapes import Shapes
from lora_studio.models.shapes import read as read_shapes
from lora_studio.optim import registry as optimizers
from lora_studio.training import stepper
from lora_studio.training.activations import CARDS, unet_of
from lora_studio.training.devices import Machine

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a packed weight: 4, an 8-bit scale for each 64 weights, a float32 one for each 256 of those (Dettmers et al. 2023,
§3).
"""
LIBRARIES, REPEATABLE = 0.05 * 2**30, 0.15 * 2**30
"""Bytes on a card that no tensor of ours explains, as measured: what cuBLAS and cuDNN work in; the latter where
``deterministic`` gives cuBLAS more.
"""
RESERVED = 1.04
"""What a card's allocator reserves, as a multiple of the most that it gives out at a time: sizes are rounded, and a
recorded step's memory has gaps.
"""
_TOGETHER = 2**20
"""Pixels that the cache has encoded at once, at most; but one picture at least."""
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Estimate:
    """Bytes on the device that trains, as its allocator reserves them."""

    weights: int
    """The UNet, in its format or packed; text encoders as well where they train; a PiSSA's start."""
    adapter: int
    """What is trained, float32; and the copies that compute, in the base model's format."""
    gradients: int
    """Float32, and beside them those that come in the base model's format."""
    optimizer: int
    """Its state, and the running average if one is kept."""
    activations: int
    """What a step keeps for the way back."""
    working: int
    """Largest intermediate results on top of that, what libraries work in, and what the allocator cannot fill."""
    encoding: int
    """While pictures and captions are encoded beside the UNet: the VAE, or the largest text encoder."""
    preview: int
    """While a preview is decoded beside the UNet and its adapter; denoising it takes less. Its prompts are encoded at
    the beginning.
    """

    @property
    def step(self) -> int:
        """While training."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations + self.working

    @property
    def peak(self) -> int:
        """The most at any time of the run."""
        return max(self.step, self.encoding, self.preview)

    def table(self) -> dict[str, int]:
        """Every figure by name."""
        return {**asdict(self), "step": self.step, "peak": self.peak}


def estimate(settings: Settings, shapes: Shapes, precision: str, limit: float = 0.0) -> Estimate:
    """The memory of a run with ``settings`` on ``shapes``.

    Args:
        precision: the base model's format: fp32, bf16 or fp16.
        limit: bytes that the device has. The VAE takes as many pictures at once as fit, but goes on in tiles where not
            even a whole one does; and a recorded step keeps its memory while a preview is drawn only where both fit. So
            the peak is what the run will come to on such a device, and for 0 what it needs at least.
    """
    e, side = _BYTES[precision], settings.dataset.resolution or shapes.resolution
    unet, texts, vae = unet_of(settings, shapes, e), _encoders(shapes, e), 4 * shapes.parameters["vae"]
    count, copies, spare = unet.adapter, e if e < 4 and not unet.autocast else 0, _libraries(settings)
    weights = (
        _weights(settings.machine.quantize, shapes.parameters["unet"], unet.packable, e)
        + sum(texts) * settings.adapter.train_text
        + 4 * count * (settings.adapter.method == "pissa")
    )
    parts = {
        "weights": weights,
        "adapter": (4 + copies) * count,
        "gradients": (4 + copies) * count,
        "optimizer": count
        * (optimizers.get(settings.optimizer.optimizer).state_bytes + (4 if settings.optimizer.ema else 0)),
    }
    held, kept, text = sum(parts.values()), unet.saved(), 0 if settings.adapter.train_text else max(texts, default=0)
    sizes, together = _sizes(settings, side), max(1, _TOGETHER // side**2)
    encoding = [
        RESERVED * (weights + max(vae + pixels * _encoded(shapes), text) + spare)
        for pixels in ([] if settings.machine.tiled_vae else [together * side**2]) + sizes
    ]
    preview = [RESERVED * (held + vae + pixels * decoded(shapes.vae) + spare) for pixels in sizes]
    if _recorded(settings, precision):
        preview.insert(0, preview[0] + RESERVED * unet.highest())
    parts |= {
        "activations": kept,
        "working": RESERVED * (held + unet.highest() + spare) - held - kept,
        "encoding": _fitting(encoding, limit),
        "preview": _fitting(preview, limit),
    }
    return Estimate(**{name: round(size) for name, size in parts.items()})


def _fitting(ways: list[float], limit: float) -> float:
    """The first that fits, else the last."""
    return next((size for size in ways if size <= limit), ways[-1])


def _sizes(settings: Settings, side: int) -> list[int]:
    """Pixels that the VAE takes of one picture: all of them or, where they do not fit or that is asked for, a tile's."""
    tile = min(side, TILE) ** 2
    return [tile] if settings.machine.tiled_vae else [side**2, tile]


def _on_card(settings: Settings) -> bool:
    """Whether they train on a card of this machine."""
    return settings.machine.device in CARDS and (triton_support.kernels() is not None or torch.cuda.is_available())


def _libraries(settings: Settings) -> float:
    if not _on_card(settings):
        return 0.0
    return REPEATABLE if settings.machine.deterministic else LIBRARIES


def _recorded(settings: Settings, precision: str) -> bool:
    """Whether steps are recorded, on a card, so that their memory stays reserved."""
    return _on_card(settings) and not stepper.obstacle(settings, Machine(torch.device("cuda"), precision))


def _encoders(shapes: Shapes, e: int) -> list[int]:
    """Bytes of each text encoder."""
    return [e * size for part, size in shapes.parameters.items() if part.startswith("text_encoder")]


def _weights(quantize: str, parameters: int, packable: int, e: int) -> float:
    bits = {"none": 8 * e, "nf4": NF4_BITS, "int8": 8}[quantize]
    return (parameters - packable) * e + packable * bits / 8


def _encoded(shapes: Shapes) -> int:
    """Bytes that the VAE's encoder takes for each pixel, as measured: five results of the first level in float32, and
    what cuDNN works in.
    """
    return 4 * 6 * shapes.vae["block_out_channels"][0]


def decoded(vae: Mapping[str, Any]) -> int:
    """Bytes that the decoder of a VAE with this configuration takes for each pixel, as measured: its last level begins
    with the second one's width, twice and once its own; and half of that again is what cuDNN works in."""
    first, second = vae["block_out_channels"][:2]
    return 4 * 3 * (first + second)


@dataclass(frozen=True)
class Way:
    """A change of settings that lowers the need for memory."""

    changes: dict[str, Any]
    peak: int
    """Bytes that the run takes with it, as estimated."""


def ways(settings: Settings, shapes: Shapes, precision: str, limit: float, step: float = math.inf) -> list[Way]:
    """What would bring the run under ``limit`` bytes: every single change that does; where none does, the changes
    together, in the order of what they cost; else nothing.

    Args:
        step: bytes that its steps may take.
    """
    changes = list(_cheaper(settings, shapes))

    def tried(change: dict[str, Any]) -> Way | None:
        found = estimate(settings.changed(**change), shapes, precision)
        return Way(change, found.peak) if found.peak <= limit and found.step <= step else None

    if fitting := [way for change in changes if (way := tried(change))]:
        return fitting
    together: dict[str, Any] = {}
    for change in changes:
        together |= change
        if way := tried(together):
            return [way]
    return []


def mend(settings: Settings, precision: str, limit: float) -> dict[str, Any]:
    """The least change of settings with which a run that did not fit into ``limit`` bytes should: clearly below that,
    its steps also below what they took themselves. Empty where none is known.
    """
    try:
        base = read_shapes(settings.run.base)
    except StudioError:
        return {}
    found = ways(settings, base, precision, 0.9 * limit, 0.9 * estimate(settings, base, precision).step)
    return found[0].changes if found else {}


def _cheaper(settings: Settings, shapes: Shapes) -> Iterator[dict[str, Any]]:
    """Changes that save memory, the one that costs the artist least first."""
    if settings.share > 1:
        yield {"batch": settings.machine.gpus, "accumulate": settings.optimizer.accumulate * settings.share}
    if settings.machine.checkpointing == "off":
        yield {"checkpointing": "largest"}
    if settings.machine.checkpointing != "all":
        yield {"checkpointing": "all"}
    if settings.machine.quantize != "nf4":
        yield {"quantize": "nf4"}
    if change := optimizers.smaller(settings.optimizer.optimizer):
        yield change
    side = settings.dataset.resolution or shapes.resolution
    if side > 512:
        yield {"resolution": max(512, side * 3 // 4 // 64 * 64)}

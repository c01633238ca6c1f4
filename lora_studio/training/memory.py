"""Estimates how much memory a run takes, from the shapes of its base model alone: plain arithmetic, no weights.

What a step keeps for the backward pass is in ``activations``. docs/memory.md says what the estimates were measured
against.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AdapterSettings, MachineSettings, OptimizerSettings
from lora_studio.errors import ModelError, StudioError
from lora_studio.language import tr
from lora_studio.models.autoencode import TILE
from lora_studio.models.fused import triton_support
from lora_studio.models.shapes import Shapes
from lora_studio.models.shapes import read as read_shapes
from lora_studio.optim import registry as optimizers
from lora_studio.training import stepper
from lora_studio.training.activations import GPUS, Activations, Step

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a packed weight: 4, an 8-bit scale for each 64 weights, a float32 one for each 256 of those (Dettmers et al. 2023,
§3).
"""
LIBRARIES, REPEATABLE = 0.05 * 2**30, 0.15 * 2**30
"""Bytes on a GPU that no tensor of ours explains, as measured: workspaces of cuBLAS and cuDNN; the latter where
``deterministic`` gives cuBLAS more.
"""
RESERVED = 1.04
"""What a GPU's allocator reserves, as a multiple of the most that is allocated at a time: sizes are rounded, and a
recorded step's memory has gaps.
"""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Of a number in each format of the base model."""
_TOGETHER = 2**20
"""Pixels that the cache has encoded at once, at most; but one picture at least."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on the device that trains, as its allocator reserves them."""

    weights: int
    """The UNet, in its format or packed; text encoders as well if they train; what a method holds frozen."""
    adapter: int
    """What is trained, float32; and the copies that compute, in the base model's format."""
    gradients: int
    """Float32, and besides them those in the base model's format."""
    optimizer: int
    """Its state, and the running average if one is kept."""
    activations: int
    """What a step keeps for the backward pass."""
    working: int
    """Largest intermediate results on top of that, workspaces of libraries, and what the allocator cannot fill."""
    encoding: int
    """While pictures and captions are encoded with the UNet in memory: the VAE, or the largest text encoder."""
    preview: int
    """While a preview is decoded with the UNet and its adapter in memory; denoising it takes less. Its prompts are
    encoded at the beginning.
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
        limit: bytes that the device has. The VAE takes as many pictures at once as fit, and works in tiles if not even
            one does; a recorded step keeps its memory while a preview is drawn only if both fit. So the peak is what
            the run will reach on such a device, and for 0 what it needs at least.

    Raises:
        ModelError: it can only be measured, see ``can_estimate``.
    """
    step = Step.of(settings, shapes, BYTES[precision])
    kept, spare = _activations(shapes, step), _libraries(settings.machine)
    held = {"weights": _weights(shapes, step, kept)} | _trained(settings.optimizer, step, kept)
    total = sum(held.values())
    highest = kept.highest()
    if pairs := settings.run.has_pairs:  # guidance draws each sample twice at once, and keeps nothing of it
        recorded = _recorded(settings.adapter, settings.machine)
        highest = max(highest, highest * recorded + 2 * (highest - kept.saved()))
    working = RESERVED * (total + highest + spare) - total - kept.saved()
    parts = {
        **held,
        "activations": kept.saved(),
        "working": working,
        "encoding": _fitting(_encoding(shapes, step, held["weights"] + spare, not pairs), limit),
        "preview": _fitting(
            _preview(shapes, step, total + spare, _recorded(settings.adapter, settings.machine) * kept.highest()), limit
        ),
    }
    return Estimate(**{name: round(size) for name, size in parts.items()})


def cached(settings: Settings, shapes: Shapes) -> int:
    """Bytes of the cache, on disk and where they fit in the computer's memory, for each picture or copy: mean and
    deviation of its latents, float32.
    """
    side = (settings.dataset.resolution or shapes.resolution) // 8
    return 2 * 4 * shapes.vae["latent_channels"] * side**2


def can_estimate(shapes: Shapes) -> bool:
    """Whether the base model's family says what a step keeps."""
    return bool(shapes.known.memory)


def _activations(shapes: Shapes, step: Step) -> Activations:
    if not can_estimate(shapes):
        what = tr("How much memory {title} takes cannot be estimated.", title=shapes.known.title)
        raise ModelError(what, where="base", do=tr("Measure it with --dry-run."))
    module, _, name = shapes.known.memory.rpartition(".")
    return getattr(importlib.import_module(module), name)(shapes, step)


def _weights(shapes: Shapes, step: Step, kept: Activations) -> float:
    """Bytes of all that stays as it is, for the whole run."""
    bits = {"none": 8 * step.element, "nf4": NF4_BITS, "int8": 8}[step.machine.quantize]
    unet = (shapes.denoiser_parameters - kept.packable) * step.element + kept.packable * bits / 8
    return unet + sum(_encoders(shapes, step)) * step.adapter.reads_text + 4 * kept.frozen


def _trained(settings: OptimizerSettings, step: Step, kept: Activations) -> dict[str, float]:
    """Bytes of what is trained, its gradients, and what the optimizer keeps of it."""
    each = 4 + (step.element if step.element < 4 and not step.autocast else 0)
    state = optimizers.get(settings.optimizer).state_bytes + (4 if settings.ema else 0)
    return {"adapter": each * kept.trained, "gradients": each * kept.trained, "optimizer": state * kept.trained}


def _encoding(shapes: Shapes, step: Step, beside: float, pictures: bool) -> list[float]:
    """Bytes while pictures and captions are encoded: several pictures at once, one, a tile.

    Args:
        beside: bytes of what else is in memory.
        pictures: whether the run has any; prompts alone need no VAE.
    """
    together = max(1, _TOGETHER // step.side**2) * step.side**2
    sizes = ([] if step.machine.tiled_vae else [together]) + _sizes(step)
    text = 0 if step.adapter.reads_text else max(_encoders(shapes, step), default=0)
    vae = 4 * shapes.parameters["vae"]
    return [RESERVED * (beside + max(pictures * (vae + pixels * _encoded(shapes)), text)) for pixels in sizes]


def _preview(shapes: Shapes, step: Step, beside: float, recorded: float) -> list[float]:
    """Bytes while a preview is decoded: beside a recorded step, a whole image, a tile.

    Args:
        beside: bytes of what else is in memory.
        recorded: bytes that a recorded step keeps reserved; 0 where none does.
    """
    vae = 4 * shapes.parameters["vae"]
    found = [RESERVED * (beside + vae + pixels * decoded(shapes.vae)) for pixels in _sizes(step)]
    return [found[0] + RESERVED * recorded, *found] if recorded else found


def _fitting(sizes: list[float], limit: float) -> float:
    """The first that fits, else the last."""
    return next((size for size in sizes if size <= limit), sizes[-1])


def _sizes(step: Step) -> list[int]:
    """Pixels that the VAE takes of one picture: all of them or, if they do not fit or ``tiled_vae`` is on, a tile's."""
    tile = min(step.side, TILE) ** 2
    return [tile] if step.machine.tiled_vae else [step.side**2, tile]


def _on_gpu(machine: MachineSettings) -> bool:
    """Whether the run trains on a GPU of this machine."""
    return machine.device in GPUS and (triton_support.kernels() is not None or torch.cuda.is_available())


def _libraries(machine: MachineSettings) -> float:
    if not _on_gpu(machine):
        return 0.0
    return REPEATABLE if machine.deterministic else LIBRARIES


def _recorded(adapter: AdapterSettings, machine: MachineSettings) -> bool:
    """Whether steps are recorded on a GPU, so that their memory stays reserved."""
    return _on_gpu(machine) and not stepper.obstacle(adapter, machine, torch.device("cuda"))


def _encoders(shapes: Shapes, step: Step) -> list[int]:
    """Bytes of each text encoder."""
    return [step.element * size for part, size in shapes.parameters.items() if part.startswith("text_encoder")]


def _encoded(shapes: Shapes) -> int:
    """Bytes that the VAE's encoder takes for each pixel, as measured: five results of the first level in float32, and
    what cuDNN works in.
    """
    return 4 * 6 * shapes.vae["block_out_channels"][0]


def decoded(vae: Mapping[str, Any]) -> int:
    """Bytes that the decoder of a VAE with this configuration takes for each pixel, as measured: its last level begins
    with the second one's width, twice and once its own; and cuDNN's workspace is half of that again.
    """
    first, second = vae["block_out_channels"][:2]
    return 4 * 3 * (first + second)


@dataclass(frozen=True)
class Saving:
    """A change of settings that lowers the need for memory."""

    changes: dict[str, Any]
    peak: int
    """Bytes that the run takes with it, as estimated."""


def savings(settings: Settings, shapes: Shapes, precision: str, limit: float, step: float = math.inf) -> list[Saving]:
    """What would bring the run under ``limit`` bytes: every single change that does; if none does, the changes
    together, in the order of what they cost; else nothing.

    Args:
        step: bytes that its steps may take.
    """
    changes = list(_cheaper(settings, shapes))

    def fitting(change: dict[str, Any]) -> Saving | None:
        found = estimate(settings.changed(**change), shapes, precision)
        return Saving(change, found.peak) if found.peak <= limit and found.step <= step else None

    if single := [saving for change in changes if (saving := fitting(change))]:
        return single
    together: dict[str, Any] = {}
    for change in changes:
        together |= change
        if saving := fitting(together):
            return [saving]
    return []


def suggest(settings: Settings, precision: str, limit: float) -> dict[str, Any]:
    """The smallest change of settings with which a run that did not fit into ``limit`` bytes should: clearly below
    that, its steps also below what they took. Empty if none is known.
    """
    try:
        base = read_shapes(settings.run.base, settings.run.vae, settings.run.text_encoders)
        found = savings(settings, base, precision, 0.9 * limit, 0.9 * estimate(settings, base, precision).step)
    except StudioError:
        return {}
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

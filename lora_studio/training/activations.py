"""What a step keeps from the forward pass to the backward pass, recorded layer by layer from shapes and settings alone.

As autograd keeps it with fused attention (Dao et al. 2022) and the blocks of ``models.fused``: with Triton's kernels or
without, in the base model's format throughout or under autocast. Which layers there are a walk through the model says,
as ``unet_activations`` does; what an adapter keeps of a layer its method says. ``tests/training/test_memory.py`` and
``tests/benchmarks/memory.py`` compare the sums with autograd's own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AdapterSettings, MachineSettings
from lora_studio.families.family import Family
from lora_studio.methods import registry
from lora_studio.methods.method import LayerInput, LayerShape, Method
from lora_studio.models.fused import triton_support
from lora_studio.models.shapes import Shapes, Text

TOKENS = 77
"""Of a caption of one chunk. docs/memory.md says what longer ones add."""
GPUS = ("auto", "cuda")
"""The setting ``device`` of runs that train on a GPU where there is one."""
TEXT = -1
"""The level of the text encoders' layers, which are in no level of the denoiser."""


@dataclass(frozen=True)
class Step:
    """What decides how much a forward pass keeps, besides the model's shapes."""

    family: Family
    adapter: AdapterSettings
    """With the family's own blocks (``AdapterSettings.of_family``)."""
    machine: MachineSettings
    batch: int
    """Pictures that one device takes."""
    side: int
    """Of a square picture, in pixels."""
    element: int
    """Bytes of a number in the base model's format."""
    fused: bool
    """Whether Triton's kernels compute what is between matrix products (``models.fused.ops``)."""

    @classmethod
    def of(cls, settings: Settings, shapes: Shapes, element: int) -> Step:
        """The step of a run on this machine."""
        return cls(
            shapes.known,
            settings.adapter.of_family(shapes.known),
            settings.machine,
            settings.share,
            settings.dataset.resolution or shapes.resolution,
            element,
            settings.machine.device in GPUS and triton_support.kernels() is not None,
        )

    @property
    def method(self) -> Method:
        return registry.get(self.adapter.method)

    @property
    def autocast(self) -> bool:
        """Whether float32 parameters meet a base model in a smaller format (``devices.Machine.copies``)."""
        return self.element < 4 and not self.method.low_precision

    @property
    def norm(self) -> int:
        """Bytes an element that a norm keeps: its input, of which autocast makes a float32 copy unless a kernel of ours
        reads it.
        """
        return 4 if self.autocast and not self.fused else self.element


@dataclass
class Block:
    """A part of the model at one level: what it keeps, and what it keeps where it is computed again. Bytes of the whole
    batch.
    """

    level: int
    kept: float
    entrance: float
    """Its input, which is all that checkpointing keeps; for what is never computed again the same as ``kept``."""
    working: float = 0.0
    """What its gradients take: a feed-forward's before and after its GEGLU, or three times a resnet's by its input."""


@dataclass
class Activations:
    """What one batch keeps, gathered block by block in the order of the forward pass."""

    step: Step
    largest: int = 0
    """The level that ``checkpointing=largest`` computes again."""
    blocks: list[Block] = field(default_factory=list)
    trained: int = 0
    """Parameters under training."""
    frozen: int = 0
    """Float32 numbers that the method holds besides."""
    reached: bool = False
    """Whether a gradient goes to what comes next: something before it is trained."""
    packable: int = 0
    """Parameters in the layers that quantization packs."""

    # What a walk records

    def changes(self, path: str) -> bool:
        """Whether the layer at the canonical ``path`` has an adapter."""
        return self.step.adapter.changes(path, self.step.family)

    def changed(self, path: str, shape: LayerShape, tokens: float, bare: bool = False, saved: bool = False) -> float:
        """Bytes that the adapter of one layer keeps, 0 where it has none; counts its parameters.

        Args:
            path: its canonical path.
            tokens: that pass through it, of the whole batch.
            bare: its input comes in the base model's format also without kernels of ours: under autocast float32
                adapters take a copy of it and cast that back.
            saved: its input is kept by a neighbour anyway.
        """
        if not self.changes(path):
            return 0.0
        shape = replace(shape, path=path)
        step, own = self.step, self.step.adapter.at(path)
        packed = step.machine.quantize != "none" and shape.kernel == 1
        reads_a_copy = step.autocast and not ((bare or step.fused) and packed)
        self.reached = True
        self.trained += step.method.parameters(own, shape)
        self.frozen += step.method.frozen(own, shape)
        given = LayerInput(tokens, step.element, step.autocast, shared=saved and not reads_a_copy)
        return step.method.kept(own, shape, given)

    def add(self, level: int, kept: float, entrance: float | None = None, working: float = 0.0) -> None:
        """Adds the next block, as in ``Block``. Before the first trained layer nothing is kept, since no gradient goes
        there, but for the input where checkpointing is on.

        Args:
            entrance: None for what is never computed again.
        """
        kept = kept if self.reached else 0.0
        self.blocks.append(Block(level, kept, kept if entrance is None else entrance, working))

    def text_encoders(self, encoders: Mapping[str, Text]) -> None:
        """Adds text encoders under training by component, about: two norms, attention, and a feed-forward with its
        GELU, the quick one in two pieces.
        """
        element, norm = self.step.element, 4 if self.step.autocast else self.step.element
        tokens = self.step.batch * TOKENS
        for component, (layers, width, inner) in encoders.items():
            learned = self.step.adapter.tokens
            self.reached = learned > 0
            self.trained += learned * width
            square, wide, back = LayerShape(width, width), LayerShape(width, inner), LayerShape(inner, width)
            for index in range(layers):
                path = f"{component}.text_model.encoder.layers.{index}"
                kept = tokens * (width * (2 * norm + 4 * element) + 2 * inner * element)
                kept += self.changed(f"{path}.self_attn.q_proj", square, tokens)
                for name in ("k_proj", "v_proj", "out_proj"):
                    kept += self.changed(f"{path}.self_attn.{name}", square, tokens, saved=True)
                kept += self.changed(f"{path}.mlp.fc1", wide, tokens)
                kept += self.changed(f"{path}.mlp.fc2", back, tokens, bare=True)
                self.add(TEXT, kept, tokens * width * element)

    # The sums

    def saved(self) -> float:
        """Bytes that autograd holds between the forward and the backward pass, the adapter's cast weights included."""
        return self._casts() + sum(self._held(block) for block in self.blocks)

    def highest(self) -> float:
        """The most that the backward pass holds, which frees block by block what was saved, the last one's first: what
        is left then, what is computed again, and what its gradients take.
        """
        held, most = self._casts(), 0.0
        for block in sorted(self.blocks, key=lambda block: block.level != TEXT):
            held += self._held(block)
            most = max(most, held + block.kept - self._held(block) + block.working)
        return most

    def _casts(self) -> int:
        return self.trained * self.step.element * self.step.autocast

    def _held(self, block: Block) -> float:
        """What is kept of a block until the backward pass comes to it."""
        checkpointing = self.step.machine.checkpointing
        again = checkpointing == "all" or checkpointing == "largest" and block.level == self.largest
        return block.entrance if again else block.kept

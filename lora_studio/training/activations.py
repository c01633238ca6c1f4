"""What a step keeps for the way back, from the shapes of the UNet and the settings alone, operation by operation.

As autograd keeps it with fused attention (Dao et al. 2022) and the blocks of ``models.fused``: with Triton's kernels or
without, in the base model's format throughout or under autocast. ``tests/training/test_memory.py`` and
``tests/benchmarks/memory.py`` hold it against autograd's own bytes.

Symbols: r rank; e bytes of the base model's format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora_studio.config.settings import Settings
from lora_studio.models.fused import triton_support
from lora_studio.models.gradient_checkpointing import largest_level
from lora_studio.models.shapes import Shapes, Text

TOKENS = 77
"""Of a caption."""
CARDS = ("auto", "cuda")
"""The setting ``device`` of runs that take a card where there is one."""
_TEXT = -1
"""The level of the text encoders' layers, which are in no level of the UNet."""


@dataclass
class Block:
    """A part of the UNet at one level: what it keeps, and what it keeps where it is computed again. Bytes of the whole
    batch.
    """

    level: int
    kept: float
    entrance: float
    """Its input, which is all that checkpointing keeps; for what is never computed again the same as ``kept``."""
    working: float = 0.0
    """What its gradients take: a feed-forward's before and after its GEGLU, or a resnet's towards its input, thrice."""


@dataclass
class Unet:
    """What of a UNet counts, gathered block by block as a picture goes through it."""

    config: dict[str, Any]
    batch: int
    e: int
    settings: Settings
    fused: bool
    """Whether Triton's kernels stand between its products (``models.fused.ops``)."""
    blocks: list[Block] = field(default_factory=list)
    adapter: int = 0
    """Trained parameters."""
    packable: int = 0
    """Parameters in the transformers' linear layers."""

    @property
    def autocast(self) -> bool:
        """Whether float32 parameters meet a base in a smaller format (``devices.Machine.copies``)."""
        return self.e < 4 and self.settings.adapter.method != "lora"

    @property
    def norm(self) -> int:
        """Bytes an element that a norm keeps: its input, of which autocast makes a float32 copy unless a kernel of ours
        reads it.
        """
        return 4 if self.autocast and not self.fused else self.e

    # What an adapter changes, and what that keeps

    def changed(
        self,
        inputs: int,
        outputs: int,
        tokens: float,
        kind: str,
        kernel: int = 1,
        bare: bool = False,
        saved: bool = False,
    ) -> float:
        """Bytes that the adapter of one layer keeps, 0 where it has none; counts its parameters.

        Args:
            tokens: that go through it, of the whole batch.
            kind: which of ``targets`` brings it: qv, attention, ff or conv.
            bare: its input comes in the base's format also without kernels of ours: under autocast float32 adapters
                take a copy of it and cast that back.
            saved: its input is kept by a neighbour anyway.
        """
        if not self.changes(kind):
            return 0.0
        rank, dropout, packed = (
            self.settings.adapter.rank,
            self.settings.adapter.dropout > 0,
            self.settings.machine.quantize != "none" and kernel == 1,
        )
        dora, pissa = self.settings.adapter.method == "dora", self.settings.adapter.method == "pissa"
        count = rank * (inputs * kernel**2 + outputs)
        self.adapter += count + (outputs if dora else 0)
        own = self.autocast and not ((bare or self.fused) and packed and not dropout)
        kept = tokens * (inputs * self.e * (own or not saved or dropout) + rank * self.e + (inputs if dropout else 0))
        if dora:
            kept += 2 * tokens * outputs * self.e
        if pissa:  # its start is subtracted by factors of its own, cast each time; a convolution keeps its input
            kept += count * self.e * self.autocast + tokens * (inputs * self.autocast + rank) * self.e * (kernel > 1)
        return kept

    def changes(self, kind: str) -> bool:
        """Whether layers of that kind have an adapter."""
        return kind in _CHANGED[self.settings.adapter.targets]

    # The blocks

    def resnet(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """Norm, SiLU, convolution; twice; and a 1×1 convolution beside them where the width changes."""
        kept = tokens * (inputs + outputs) * self._activated()
        kept += self.changed(inputs, outputs, tokens, "conv", 3, saved=True) + self.changed(
            outputs, outputs, tokens, "conv", 3, saved=True
        )
        if inputs != outputs:
            kept += tokens * inputs * (self.norm - self.e and self.e) + self.changed(
                inputs, outputs, tokens, "conv", 1, bare=True, saved=True
            )
        self._add(level, kept, tokens * inputs * self.e, 3 * tokens * inputs * self.norm)

    def _activated(self) -> int:
        """Bytes an element that a norm, its SiLU and the convolution that follows keep: a kernel of ours computes the
        SiLU's input again.
        """
        return self.norm + self.e + (0 if self.fused else self.norm)

    def convolution(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """A layer that changes the resolution; ``tokens`` as it comes in."""
        kept = tokens * inputs * self.e + self.changed(inputs, outputs, tokens, "conv", 3, bare=True, saved=True)
        self._add(level, kept)

    def transformer(self, level: int, width: int, tokens: float, depth: int, heads: int) -> None:
        """Norm and projection around ``depth`` blocks of self-attention, attention to the text, and feed-forward.
        Projections by convolution keep their inputs, linear ones only an adapter's.
        """
        linear = bool(self.config.get("use_linear_projection")) or self.fused and not self.changes("ff")
        outside = tokens * width * (self.norm + (0 if linear else 2 * self.e))
        outside += self.changed(width, width, tokens, "ff", saved=not linear) + self.changed(
            width, width, tokens, "ff", bare=True, saved=not linear
        )
        self._add(level, outside)
        for _ in range(depth):
            kept = (
                self._attention(width, tokens, heads)
                + self._attention(width, tokens, heads, text=True)
                + self._feed_forward(width, tokens)
            )
            self._add(
                level, kept + self._packed_inputs(width, tokens), tokens * width * self.e, 12 * tokens * width * self.e
            )

    def _packed_inputs(self, width: int, tokens: float) -> float:
        """What bitsandbytes' int8 layers keep of a block: their inputs, where no adapter keeps the same."""
        if self.settings.machine.quantize != "int8":
            return 0.0
        attention = 2 * self.norm if self.autocast else 0
        return (
            tokens * width * (attention + (0 if self.changes("ff") and not self.autocast else self.norm + 4 * self.e))
        )

    def _add(self, level: int, kept: float, entrance: float | None = None, working: float = 0.0) -> None:
        """The next block. What lies before the first trained layer keeps nothing: no gradient goes there; checkpointing
        keeps its input all the same.
        """
        kept = kept if self.adapter else 0.0
        self.blocks.append(Block(level, kept, kept if entrance is None else entrance, working))

    def _attention(self, width: int, tokens: float, heads: int, text: bool = False) -> float:
        """Norm; queries, keys and values; fused attention, which keeps those, its answer and one sum for each query;
        the way out.
        """
        context, seen = (self.config["cross_attention_dim"], self.batch * TOKENS) if text else (width, tokens)
        self.packable += 2 * width * width + 2 * context * width
        kept = tokens * (self.norm * width + 2 * width * self.e + 4 * heads) + 2 * seen * width * self.e
        kept += self.changed(width, width, tokens, "qv")
        kept += self.changed(context, width, seen, "attention", saved=True, bare=text)
        kept += self.changed(context, width, seen, "qv", saved=True, bare=text)
        return kept + self.changed(width, width, tokens, "attention", bare=True, saved=True)

    def _feed_forward(self, width: int, tokens: float) -> float:
        """Norm; GEGLU (Shazeer 2020): eight widths, and four of them through a GELU, which a kernel of ours computes
        again; the way back to one.
        """
        self.packable += 12 * width * width
        kept = tokens * width * (self.norm + (8 if self.fused else 12) * self.e)
        return (
            kept
            + self.changed(width, 8 * width, tokens, "ff")
            + self.changed(4 * width, width, tokens, "ff", bare=True)
        )

    def ends(self, width: int, tokens: float) -> None:
        """The last norm, SiLU and convolution, which are never computed again."""
        self._add(0, tokens * width * self._activated())

    def text_encoders(self, encoders: tuple[Text, ...]) -> None:
        """Text encoders under training, about: two norms, attention, and a feed-forward with its GELU, the quick one in
        two pieces.
        """
        tokens, norm = self.batch * TOKENS, 4 if self.autocast else self.e
        for layers, width, inner in encoders:
            for _ in range(layers):
                kept = tokens * (width * (2 * norm + 4 * self.e) + 2 * inner * self.e) + self.changed(
                    width, width, tokens, "qv"
                )
                kept += sum(
                    self.changed(width, width, tokens, kind, saved=True) for kind in ("attention", "qv", "attention")
                )
                kept += self.changed(width, inner, tokens, "ff") + self.changed(inner, width, tokens, "ff", bare=True)
                self._add(_TEXT, kept, tokens * width * self.e)

    # The sums

    def saved(self) -> float:
        """Bytes that autograd holds between the way forth and the way back, the adapter's cast weights included."""
        again = self._again()
        return (
            sum(block.entrance if block.level in again else block.kept for block in self.blocks)
            + self.adapter * self.e * self.autocast
        )

    def highest(self) -> float:
        """The most that is held on the way back, which gives free block by block what was saved, the last one's first:
        what is left then, what is computed again, and what its gradients take.
        """
        again, held, most = self._again(), self.adapter * self.e * self.autocast, 0.0
        for block in sorted(self.blocks, key=lambda block: block.level != _TEXT):
            held += block.entrance if block.level in again else block.kept
            most = max(most, held + (block.kept - block.entrance if block.level in again else 0) + block.working)
        return most

    def _again(self) -> set[int]:
        """The levels that are computed again."""
        if self.settings.machine.checkpointing == "off":
            return set()
        return (
            {block.level for block in self.blocks}
            if self.settings.machine.checkpointing == "all"
            else {largest_level(self.config)}
        )


_CHANGED = {
    "qv": {"qv"},
    "attention": {"qv", "attention"},
    "attention+ff": {"qv", "attention", "ff"},
    "attention+ff+conv": {"qv", "attention", "ff", "conv"},
}
"""The setting ``targets`` -> kinds of layers."""


def _depths(config: dict[str, Any]) -> list[int]:
    """Transformer blocks in each of a level's transformers; 0 where it has none."""
    blocks, depth = config["down_block_types"], config.get("transformer_layers_per_block", 1)
    depths = depth if isinstance(depth, list) else [depth] * len(blocks)
    return [count if "CrossAttn" in kind else 0 for kind, count in zip(blocks, depths, strict=True)]


def _heads(config: dict[str, Any], level: int) -> int:
    """diffusers calls it ``attention_head_dim``, but it counts the heads."""
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    return heads[level] if isinstance(heads, list) else heads


def unet_of(settings: Settings, shapes: Shapes, e: int) -> Unet:
    """The UNet with one batch gone through it, block by block in order."""
    side = (settings.dataset.resolution or shapes.resolution) // shapes.scale
    unet, config = (
        Unet(
            shapes.unet,
            settings.share,
            e,
            settings,
            settings.machine.device in CARDS and triton_support.kernels() is not None,
        ),
        shapes.unet,
    )
    widths, depths, layers = config["block_out_channels"], _depths(config), config["layers_per_block"]
    tokens = [settings.share * side * side / 4**level for level in range(len(widths))]
    skipped, width, last = [widths[0]], widths[0], len(widths) - 1
    for level, wide in enumerate(widths):
        for _ in range(layers):
            _stage(unet, level, width, wide, tokens[level], depths[level])
            width = wide
            skipped.append(width)
        if level < last:
            unet.convolution(level, width, width, tokens[level])
            skipped.append(width)
    unet.resnet(last, width, width, tokens[last])
    unet.transformer(last, width, tokens[last], depths[last] or _middle(config), _heads(config, last))
    unet.resnet(last, width, width, tokens[last])
    for level in reversed(range(len(widths))):
        for _ in range(layers + 1):
            _stage(unet, level, width + skipped.pop(), widths[level], tokens[level], depths[level])
            width = widths[level]
        if level:
            unet.convolution(level, width, width, tokens[level - 1])
    unet.ends(width, tokens[0])
    if settings.adapter.train_text:
        unet.text_encoders(shapes.text)
    return unet


def _stage(unet: Unet, level: int, inputs: int, outputs: int, tokens: float, depth: int) -> None:
    unet.resnet(level, inputs, outputs, tokens)
    if depth:
        unet.transformer(level, outputs, tokens, depth, _heads(unet.config, level))


def _middle(config: dict[str, Any]) -> int:
    """The middle's transformer has as many blocks as the innermost level's would."""
    depth = config.get("transformer_layers_per_block", 1)
    return depth[-1] if isinstance(depth, list) else depth

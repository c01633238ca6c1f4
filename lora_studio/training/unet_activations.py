"""What a step keeps of a UNet, from its configuration: the walk through its blocks that ``activations`` adds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_studio.models.gradient_checkpointing import largest_level
from lora_studio.models.shapes import Shapes
from lora_studio.training.activations import TOKENS, Activations, Step


def walk(shapes: Shapes, step: Step) -> Activations:
    """The activations of one batch through the UNet, and through the text encoders where they train."""
    found = Activations(step, largest_level(shapes.unet))
    tokens = step.batch * (step.side // shapes.scale) ** 2
    Unet(shapes.unet, found).forward(tokens)
    if step.adapter.train_text:
        found.text_encoders(shapes.text)
    return found


@dataclass
class Unet:
    """Records what each kind of block keeps."""

    config: dict[str, Any]
    found: Activations

    def forward(self, tokens: float) -> None:
        """All blocks in order.

        Args:
            tokens: latent pixels of the whole batch.
        """
        widths, layers = self.config["block_out_channels"], self.config["layers_per_block"]
        at = [tokens / 4**level for level in range(len(widths))]
        skipped, width, last = [widths[0]], widths[0], len(widths) - 1
        for level, wide in enumerate(widths):
            for _ in range(layers):
                self._stage(level, width, wide, at[level])
                width = wide
                skipped.append(width)
            if level < last:
                self.convolution(level, width, width, at[level])
                skipped.append(width)
        self._middle(last, width, at[last])
        for level in reversed(range(len(widths))):
            for _ in range(layers + 1):
                self._stage(level, width + skipped.pop(), widths[level], at[level])
                width = widths[level]
            if level:
                self.convolution(level, width, width, at[level - 1])
        self._end(width, at[0])

    def _stage(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        self.resnet(level, inputs, outputs, tokens)
        if depth := self._depth(level):
            self.transformer(level, outputs, tokens, depth, self._heads(level))

    def _middle(self, level: int, width: int, tokens: float) -> None:
        """Its transformer has as many blocks as the innermost level's would."""
        depth = self.config.get("transformer_layers_per_block", 1)
        depth = self._depth(level) or (depth[-1] if isinstance(depth, list) else depth)
        self.resnet(level, width, width, tokens)
        self.transformer(level, width, tokens, depth, self._heads(level))
        self.resnet(level, width, width, tokens)

    def _end(self, width: int, tokens: float) -> None:
        """The last norm, SiLU and convolution, which are never computed again."""
        self.found.add(0, tokens * width * self._activated())

    def _depth(self, level: int) -> int:
        """Transformer blocks in each of a level's transformers; 0 where it has none."""
        depth = self.config.get("transformer_layers_per_block", 1)
        has = "CrossAttn" in self.config["down_block_types"][level]
        return (depth[level] if isinstance(depth, list) else depth) if has else 0

    def _heads(self, level: int) -> int:
        """diffusers calls it ``attention_head_dim``, but it counts the heads."""
        heads = self.config.get("num_attention_heads") or self.config["attention_head_dim"]
        return heads[level] if isinstance(heads, list) else heads

    # Blocks

    def resnet(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """Norm, SiLU, convolution; twice; and a 1×1 convolution beside them where the width changes."""
        changed, norm, element = self.found.changed, self.found.step.norm, self.found.step.element
        kept = tokens * (inputs + outputs) * self._activated()
        kept += changed(inputs, outputs, tokens, "conv", 3, saved=True)
        kept += changed(outputs, outputs, tokens, "conv", 3, saved=True)
        if inputs != outputs:
            kept += tokens * inputs * (element if norm != element else 0)
            kept += changed(inputs, outputs, tokens, "conv", 1, bare=True, saved=True)
        self.found.add(level, kept, tokens * inputs * element, 3 * tokens * inputs * norm)

    def _activated(self) -> int:
        """Bytes an element that a norm, its SiLU and the convolution that follows keep: a kernel of ours computes the
        SiLU's input again.
        """
        step = self.found.step
        return step.norm + step.element + (0 if step.fused else step.norm)

    def convolution(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """A layer that changes the resolution.

        Args:
            tokens: of its input.
        """
        kept = tokens * inputs * self.found.step.element
        self.found.add(level, kept + self.found.changed(inputs, outputs, tokens, "conv", 3, bare=True, saved=True))

    def transformer(self, level: int, width: int, tokens: float, depth: int, heads: int) -> None:
        """Norm and projection around ``depth`` blocks of self-attention, attention to the text, and feed-forward.
        Projections by convolution keep their inputs, linear ones only an adapter's.
        """
        step, changed = self.found.step, self.found.changed
        linear = bool(self.config.get("use_linear_projection")) or step.fused and not self.found.changes("ff")
        outside = tokens * width * (step.norm + (0 if linear else 2 * step.element))
        outside += changed(width, width, tokens, "ff", saved=not linear)
        outside += changed(width, width, tokens, "ff", bare=True, saved=not linear)
        self.found.add(level, outside)
        for _ in range(depth):
            kept = self._attention(width, tokens, heads) + self._attention(width, tokens, heads, text=True)
            kept += self._feed_forward(width, tokens) + self._packed_inputs(width, tokens)
            self.found.add(level, kept, tokens * width * step.element, 12 * tokens * width * step.element)

    def _packed_inputs(self, width: int, tokens: float) -> float:
        """What bitsandbytes' int8 layers keep of a block: their inputs, where no adapter keeps the same."""
        step = self.found.step
        if step.machine.quantize != "int8":
            return 0.0
        attention = 2 * step.norm if step.autocast else 0
        feed_forward = 0 if self.found.changes("ff") and not step.autocast else step.norm + 4 * step.element
        return tokens * width * (attention + feed_forward)

    def _attention(self, width: int, tokens: float, heads: int, text: bool = False) -> float:
        """Norm; queries, keys and values; fused attention, which keeps those, its output and one sum for each query;
        the projection of its output.
        """
        step, changed = self.found.step, self.found.changed
        context, seen = (self.config["cross_attention_dim"], step.batch * TOKENS) if text else (width, tokens)
        self.found.packable += 2 * width * width + 2 * context * width
        kept = tokens * (step.norm * width + 2 * width * step.element + 4 * heads) + 2 * seen * width * step.element
        kept += changed(width, width, tokens, "qv")
        kept += changed(context, width, seen, "attention", saved=True, bare=text)
        kept += changed(context, width, seen, "qv", saved=True, bare=text)
        return kept + changed(width, width, tokens, "attention", bare=True, saved=True)

    def _feed_forward(self, width: int, tokens: float) -> float:
        """Norm; GEGLU (Shazeer 2020): eight widths, and four of them through a GELU, which a kernel of ours computes
        again; the projection to one.
        """
        step, changed = self.found.step, self.found.changed
        self.found.packable += 12 * width * width
        kept = tokens * width * (step.norm + (8 if step.fused else 12) * step.element)
        kept += changed(width, 8 * width, tokens, "ff")
        return kept + changed(4 * width, width, tokens, "ff", bare=True)

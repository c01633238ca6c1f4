"""What a step keeps of a UNet, from its configuration: the walk through its blocks that ``activations`` adds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_studio.methods.method import LayerShape
from lora_studio.models.gradient_checkpointing import largest_level
from lora_studio.models.shapes import Shapes
from lora_studio.training.activations import TOKENS, Activations, Step


def walk(shapes: Shapes, step: Step) -> Activations:
    """The activations of one batch through the UNet, and through the text encoders where they train."""
    found = Activations(step, largest_level(shapes.unet))
    tokens = step.batch * (step.side // shapes.scale) ** 2
    Unet(shapes.unet, found).forward(tokens)
    if step.adapter.reads_text:
        found.text_encoders(dict(zip(step.family.encoders, shapes.text, strict=True)))
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
            side = f"unet.down_blocks.{level}"
            for index in range(layers):
                self._stage(level, f"{side}.{{}}.{index}", width, wide, at[level])
                width = wide
                skipped.append(width)
            if level < last:
                self.convolution(level, f"{side}.downsamplers.0.conv", width, at[level])
                skipped.append(width)
        self._middle(last, width, at[last])
        for level in reversed(range(len(widths))):
            side = f"unet.up_blocks.{last - level}"
            for index in range(layers + 1):
                self._stage(level, f"{side}.{{}}.{index}", width + skipped.pop(), widths[level], at[level])
                width = widths[level]
            if level:
                self.convolution(level, f"{side}.upsamplers.0.conv", width, at[level - 1])
        self._end(width, at[0])

    def _stage(self, level: int, path: str, inputs: int, outputs: int, tokens: float) -> None:
        """``path`` with a gap for the kind of module."""
        self.resnet(level, path.format("resnets"), inputs, outputs, tokens)
        if depth := self._depth(level):
            self.transformer(level, path.format("attentions"), outputs, tokens, depth, self._heads(level))

    def _middle(self, level: int, width: int, tokens: float) -> None:
        """Its transformer has as many blocks as the innermost level's would."""
        depth = self.config.get("transformer_layers_per_block", 1)
        depth = self._depth(level) or (depth[-1] if isinstance(depth, list) else depth)
        self.resnet(level, "unet.mid_block.resnets.0", width, width, tokens)
        self.transformer(level, "unet.mid_block.attentions.0", width, tokens, depth, self._heads(level))
        self.resnet(level, "unet.mid_block.resnets.1", width, width, tokens)

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

    def resnet(self, level: int, path: str, inputs: int, outputs: int, tokens: float) -> None:
        """Norm, SiLU, convolution; twice; and a 1×1 convolution beside them where the width changes."""
        changed, norm, element = self.found.changed, self.found.step.norm, self.found.step.element
        kept = tokens * (inputs + outputs) * self._activated()
        kept += changed(f"{path}.conv1", LayerShape(inputs, outputs, 3), tokens, saved=True)
        kept += changed(f"{path}.conv2", LayerShape(outputs, outputs, 3), tokens, saved=True)
        if inputs != outputs:
            kept += tokens * inputs * (element if norm != element else 0)
            kept += changed(f"{path}.conv_shortcut", LayerShape(inputs, outputs), tokens, bare=True, saved=True)
        self.found.add(level, kept, tokens * inputs * element, 3 * tokens * inputs * norm)

    def _activated(self) -> int:
        """Bytes an element that a norm, its SiLU and the convolution that follows keep: a kernel of ours computes the
        SiLU's input again.
        """
        step = self.found.step
        return step.norm + step.element + (0 if step.fused else step.norm)

    def convolution(self, level: int, path: str, width: int, tokens: float) -> None:
        """A layer that changes the resolution.

        Args:
            tokens: of its input.
        """
        kept = tokens * width * self.found.step.element
        kept += self.found.changed(path, LayerShape(width, width, 3), tokens, bare=True, saved=True)
        self.found.add(level, kept)

    def transformer(self, level: int, path: str, width: int, tokens: float, depth: int, heads: int) -> None:
        """Norm and projection around ``depth`` blocks of self-attention, attention to the text, and feed-forward.
        Projections by convolution keep their inputs, linear ones only an adapter's.
        """
        step, changed, square = self.found.step, self.found.changed, LayerShape(width, width)
        adapted = self.found.changes(f"{path}.proj_in")
        linear = bool(self.config.get("use_linear_projection")) or step.fused and not adapted
        outside = tokens * width * (step.norm + (0 if linear else 2 * step.element))
        outside += changed(f"{path}.proj_in", square, tokens, saved=not linear)
        outside += changed(f"{path}.proj_out", square, tokens, bare=True, saved=not linear)
        self.found.add(level, outside)
        for index in range(depth):
            block = f"{path}.transformer_blocks.{index}"
            kept = self._attention(f"{block}.attn1", width, tokens, heads)
            kept += self._attention(f"{block}.attn2", width, tokens, heads, text=True)
            kept += self._feed_forward(f"{block}.ff", width, tokens) + self._packed_inputs(f"{block}.ff", width, tokens)
            self.found.add(level, kept, tokens * width * step.element, 12 * tokens * width * step.element)

    def _packed_inputs(self, path: str, width: int, tokens: float) -> float:
        """What bitsandbytes' int8 layers keep of a block: their inputs, where no adapter keeps the same."""
        step = self.found.step
        if step.machine.quantize != "int8":
            return 0.0
        attention = 2 * step.norm if step.autocast else 0
        feed_forward = 0 if self.found.changes(f"{path}.net.2") and not step.autocast else step.norm + 4 * step.element
        return tokens * width * (attention + feed_forward)

    def _attention(self, path: str, width: int, tokens: float, heads: int, text: bool = False) -> float:
        """Norm; queries, keys and values; fused attention, which keeps those, its output and one sum for each query;
        the projection of its output.
        """
        step, changed = self.found.step, self.found.changed
        context, seen = (self.config["cross_attention_dim"], step.batch * TOKENS) if text else (width, tokens)
        self.found.packable += 2 * width * width + 2 * context * width
        kept = tokens * (step.norm * width + 2 * width * step.element + 4 * heads) + 2 * seen * width * step.element
        square, read = LayerShape(width, width), LayerShape(context, width)
        self.found.reached |= text and step.adapter.reads_text
        kept += changed(f"{path}.to_q", square, tokens)
        kept += changed(f"{path}.to_k", read, seen, saved=True, bare=text)
        kept += changed(f"{path}.to_v", read, seen, saved=True, bare=text)
        return kept + changed(f"{path}.to_out.0", square, tokens, bare=True, saved=True)

    def _feed_forward(self, path: str, width: int, tokens: float) -> float:
        """Norm; GEGLU (Shazeer 2020): eight widths, and four of them through a GELU, which a kernel of ours computes
        again; the projection to one.
        """
        step, changed = self.found.step, self.found.changed
        self.found.packable += 12 * width * width
        kept = tokens * width * (step.norm + (8 if step.fused else 12) * step.element)
        kept += changed(f"{path}.net.0.proj", LayerShape(width, 8 * width), tokens)
        return kept + changed(f"{path}.net.2", LayerShape(4 * width, width), tokens, bare=True)

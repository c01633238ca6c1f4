"""How much memory a run will take, from the shapes of its base model alone: plain arithmetic, no weights.

What training keeps for the way back is counted operation by operation, as autograd keeps it under autocast with fused attention (Dao et al. 2022), and
is held against autograd's own bytes in ``tests/training/test_memory.py`` and ``tests/benchmarks/memory.py``. docs/memory.md tells how far to trust it.

Symbols: C channels, P pixels or tokens of one picture at a level, B batch, r rank; e bytes of the base model's format, 4 those of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from lora_studio.errors import StudioError
from lora_studio.models.recompute import largest_level
from lora_studio.models.shapes import Shapes, Text
from lora_studio.models.shapes import read as read_shapes
from lora_studio.settings import Settings

TOKENS = 77
"""Of a caption."""
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a packed weight: 4, an 8-bit scale for each 64 weights, a float32 one for each 256 of those (Dettmers et al. 2023, §3)."""
_STATES = {"adamw": 8.0, "adamw8bit": 2 + 8 / 256, "lion": 4.0, "prodigy": 16.0, "schedulefree": 8.0, "adafactor": 0.5}
"""Bytes that an optimizer keeps for each parameter, about."""
_TEXT = -1
"""The level of the text encoders' layers, which are in no level of the UNet."""
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Estimate:
    """Bytes on the device that trains."""

    weights: int
    """The UNet, in its format or packed; text encoders as well where they train."""
    adapter: int
    """What is trained, float32."""
    gradients: int
    optimizer: int
    """Its state, and the running average if one is kept."""
    activations: int
    """What a step keeps for the way back, the adapter's copies in the base model's format among it."""
    working: int
    """Largest intermediate results on top of that."""
    encoding: int
    """While pictures and captions are encoded: the VAE, or the text encoders, beside the UNet."""
    preview: int
    """The same while a preview is drawn."""

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


def estimate(settings: Settings, shapes: Shapes, precision: str) -> Estimate:
    """The memory of a run with ``settings`` on ``shapes``; ``precision`` is the base model's format: fp32, bf16 or fp16."""
    e, unet = _BYTES[precision], unet_of(settings, shapes, _BYTES[precision])
    text, side = e * _encoders(shapes), settings.resolution or shapes.resolution
    weights = _weights(settings.quantize, shapes.parameters["unet"], unet.packable, e) + text * settings.train_text
    count = unet.adapter
    optimizer = count * (_STATES[settings.optimizer] + (4 if settings.ema else 0))
    vae = 4 * shapes.parameters["vae"] + _vae_peak(shapes, side, settings.tiled_vae)
    asking = 0 if settings.train_text else text
    found = {"weights": weights, "adapter": 4 * count, "gradients": 4 * count, "optimizer": optimizer, "activations": unet.kept(), "working": unet.working(),
             "encoding": weights + max(vae, asking), "preview": weights + 8 * count + optimizer + max(vae, asking, unet.working())}
    return Estimate(**{name: round(size) for name, size in found.items()})


@dataclass
class Block:
    """A part of the UNet at one level: what it keeps, and what it keeps where it is computed again. Bytes of the whole batch."""

    level: int
    kept: float
    entrance: float
    """Its input, which is all that checkpointing keeps; for what is never computed again the same as ``kept``."""


@dataclass
class Unet:
    """What of a UNet counts, gathered block by block as a picture goes through it."""

    config: dict[str, Any]
    batch: int
    e: int
    settings: Settings
    blocks: list[Block] = field(default_factory=list)
    adapter: int = 0
    """Trained parameters."""
    packable: int = 0
    """Parameters in the transformers' linear layers."""

    # What an adapter changes, and what that keeps

    def changed(self, inputs: int, outputs: int, tokens: float, kind: str, kernel: int = 1, bare: bool = False, saved: bool = False) -> float:
        """Bytes that the adapter of one layer keeps, 0 where it has none; counts its parameters.

        Args:
            tokens: that go through it, of the whole batch.
            kind: which of ``targets`` brings it: qv, attention, ff or conv.
            bare: its input comes in the base's format: float32 adapters take a copy of it and cast that back.
            saved: its float32 input is kept by a neighbour anyway.
        """
        if kind not in _CHANGED[self.settings.targets]:
            return 0.0
        rank, low, packed = self.settings.rank, self.e < 4, self.settings.quantize != "none" and kernel == 1
        dora, dropout = self.settings.method == "dora", self.settings.dropout > 0
        self.adapter += rank * (inputs * kernel**2 + outputs) + (outputs if dora else 0)
        own = low and not (bare and packed and not dropout)
        kept = tokens * (inputs * self.e * (own or (not saved) or dropout) + rank * self.e + (inputs if dropout else 0))
        return kept + (2 * tokens * outputs * self.e + (inputs + rank) * inputs * self.e if dora else 0.0)

    # The blocks

    def resnet(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """Norm, SiLU, convolution; twice; and a 1×1 convolution beside them where the width changes."""
        kept = tokens * (inputs + outputs) * (4 + 4 + self.e)
        kept += self.changed(inputs, outputs, tokens, "conv", 3, saved=True) + self.changed(outputs, outputs, tokens, "conv", 3, saved=True)
        if inputs != outputs:
            kept += tokens * inputs * self.e * (self.e < 4) + self.changed(inputs, outputs, tokens, "conv", 1, bare=True, saved=True)
        self._add(level, kept, tokens * inputs * self.e)

    def convolution(self, level: int, inputs: int, outputs: int, tokens: float) -> None:
        """A layer that changes the resolution; ``tokens`` as it comes in."""
        kept = tokens * inputs * self.e + self.changed(inputs, outputs, tokens, "conv", 3, bare=True, saved=True)
        self._add(level, kept)

    def transformer(self, level: int, width: int, tokens: float, depth: int, heads: int) -> None:
        """Norm and projection around ``depth`` blocks of self-attention, attention to the text, and feed-forward."""
        linear = bool(self.config.get("use_linear_projection"))
        outside = tokens * width * (4 + (0 if linear else 2 * self.e))
        outside += self.changed(width, width, tokens, "ff", saved=not linear) + self.changed(width, width, tokens, "ff", bare=True, saved=not linear)
        self._add(level, outside)
        for _ in range(depth):
            kept = self._attention(width, tokens, heads) + self._attention(width, tokens, heads, text=True) + self._feed_forward(width, tokens)
            kept += tokens * width * (12 + 4 * self.e) if self.settings.quantize == "int8" else 0  # bitsandbytes' int8 layers keep their inputs as well
            self._add(level, kept, tokens * width * self.e)

    def _add(self, level: int, kept: float, entrance: float | None = None) -> None:
        """The next block. What lies before the first trained layer keeps nothing: no gradient goes there; checkpointing keeps its input all the same."""
        kept = kept if self.adapter else 0.0
        self.blocks.append(Block(level, kept, kept if entrance is None else entrance))

    def _attention(self, width: int, tokens: float, heads: int, text: bool = False) -> float:
        """Norm; queries, keys and values; fused attention, which keeps those, its answer and one sum for each query; the way out."""
        context, seen = (self.config["cross_attention_dim"], self.batch * TOKENS) if text else (width, tokens)
        self.packable += 2 * width * width + 2 * context * width
        shared = self.e == 4 and self.settings.dropout == 0
        kept = tokens * (4 * width + 2 * width * self.e + 4 * heads) + 2 * seen * width * self.e
        kept += self.changed(width, width, tokens, "qv")
        kept += self.changed(context, width, seen, "attention", saved=shared, bare=text)
        kept += self.changed(context, width, seen, "qv", saved=shared, bare=text)
        return kept + self.changed(width, width, tokens, "attention", bare=True, saved=True)

    def _feed_forward(self, width: int, tokens: float) -> float:
        """Norm; GEGLU (Shazeer 2020): eight widths, four of them through a GELU; the way back to one."""
        self.packable += 12 * width * width
        kept = tokens * width * (4 + 12 * self.e)
        return kept + self.changed(width, 8 * width, tokens, "ff") + self.changed(4 * width, width, tokens, "ff", bare=True)

    def ends(self, width: int, tokens: float) -> None:
        """The last norm, SiLU and convolution, which are never computed again."""
        self._add(0, tokens * width * (4 + 4 + self.e))

    def text_encoders(self, encoders: tuple[Text, ...]) -> None:
        """Text encoders under training, about: two norms, attention, and a feed-forward with its GELU in three pieces."""
        tokens = self.batch * TOKENS
        for layers, width, inner in encoders:
            for _ in range(layers):
                kept = tokens * (width * (8 + 5 * self.e) + 3 * inner * self.e)
                kept += sum(self.changed(width, width, tokens, kind) for kind in ("qv", "attention", "qv", "attention"))
                kept += self.changed(width, inner, tokens, "ff") + self.changed(inner, width, tokens, "ff", bare=True)
                self._add(_TEXT, kept, tokens * width * self.e)

    # The sums

    def saved(self) -> float:
        """Bytes that autograd holds between the way forth and the way back, the adapter's cast weights included."""
        again = self._again()
        return sum(block.entrance if block.level in again else block.kept for block in self.blocks) + self.adapter * self.e * (self.e < 4)

    def kept(self) -> float:
        """The same at its highest: where blocks are computed again, the largest of those comes on top."""
        again = self._again()
        return self.saved() + max((block.kept - block.entrance for block in self.blocks if block.level in again), default=0.0)

    def _again(self) -> set[int]:
        """The levels that are computed again."""
        if self.settings.checkpointing == "off":
            return set()
        return {block.level for block in self.blocks} if self.settings.checkpointing == "all" else {largest_level(self.config)}

    def working(self) -> float:
        """The widest layer's results on the way forth and back: a feed-forward's eight widths, or a resnet's float32 copies, three times over."""
        return 3 * max(block.entrance for block in self.blocks) * max(4, 16 // self.e)


_CHANGED = {"qv": {"qv"}, "attention": {"qv", "attention"}, "attention+ff": {"qv", "attention", "ff"}, "attention+ff+conv": {"qv", "attention", "ff", "conv"}}
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
    side = (settings.resolution or shapes.resolution) // shapes.scale
    unet, config = Unet(shapes.unet, settings.share, e, settings), shapes.unet
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
    if settings.train_text:
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


def _encoders(shapes: Shapes) -> int:
    """Weights of all text encoders."""
    return sum(size for part, size in shapes.parameters.items() if part.startswith("text_encoder"))


def _weights(quantize: str, parameters: int, packable: int, e: int) -> float:
    bits = {"none": 8 * e, "nf4": NF4_BITS, "int8": 8}[quantize]
    return (parameters - packable) * e + packable * bits / 8


def _vae_peak(shapes: Shapes, side: int, tiled: bool) -> float:
    """While the VAE decodes one picture: at its widest in full resolution, an upsampled result of the second level's width, a norm's copy of it, and a convolution's result, in float32."""
    edge = min(side, 512) if tiled else side
    return 4.0 * edge * edge * (2 * shapes.vae["block_out_channels"][1] + shapes.vae["block_out_channels"][0])


@dataclass(frozen=True)
class Way:
    """A change of settings that lowers the need for memory."""

    changes: dict[str, Any]
    peak: int
    """Bytes that the run takes with it, as estimated."""


def ways(settings: Settings, shapes: Shapes, precision: str, limit: float) -> list[Way]:
    """What would bring the run under ``limit`` bytes: every single change that does; where none does, the changes together, in the order of what they cost; else nothing."""
    changes = list(_cheaper(settings, shapes))
    tried = [Way(change, estimate(settings.changed(**change), shapes, precision).peak) for change in changes]
    if fitting := [way for way in tried if way.peak <= limit]:
        return fitting
    together: dict[str, Any] = {}
    for change in changes:
        together |= change
        peak = estimate(settings.changed(**together), shapes, precision).peak
        if peak <= limit:
            return [Way(together, peak)]
    return []


def mend(settings: Settings, precision: str, limit: float) -> dict[str, Any]:
    """The least change of settings with which a run that did not fit into ``limit`` bytes should: clearly below both that and what it took itself. Empty where none is known."""
    try:
        base = read_shapes(settings.base)
    except StudioError:
        return {}
    found = ways(settings, base, precision, 0.9 * min(limit, estimate(settings, base, precision).peak))
    return found[0].changes if found else {}


def _cheaper(settings: Settings, shapes: Shapes) -> Iterator[dict[str, Any]]:
    """Changes that save memory, the one that costs the artist least first."""
    if settings.share > 1:
        yield {"batch": settings.gpus, "accumulate": settings.accumulate * settings.share}
    if settings.checkpointing == "off":
        yield {"checkpointing": "largest"}
    if settings.checkpointing != "all":
        yield {"checkpointing": "all"}
    if settings.quantize != "nf4":
        yield {"quantize": "nf4"}
    if settings.optimizer in ("adamw", "prodigy", "schedulefree"):
        yield {"optimizer": "adamw8bit"}
    if not settings.tiled_vae:
        yield {"tiled_vae": True}
    side = settings.resolution or shapes.resolution
    if side > 512:
        yield {"resolution": max(512, side * 3 // 4 // 64 * 64)}

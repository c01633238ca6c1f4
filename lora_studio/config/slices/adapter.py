"""What is trained: method, rank, layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from lora_studio.adapters import block_names
from lora_studio.config import by_block
from lora_studio.config.declaration import MORE_THAN_ZERO, Group, Level, SettingsSlice, setting
from lora_studio.methods import registry as methods

if TYPE_CHECKING:
    from lora_studio.families.family import Family


class AdapterSettings(SettingsSlice):
    """What is trained."""

    group: ClassVar[Group] = Group.ADAPTER

    method: str = setting(
        "lora",
        "Method",
        "How the adapter changes a layer.",
        choices=methods.METHODS.values,
    )
    rank: int = setting(
        16, "Rank", "Size of the adapter: 4–8 for a simple look, 16–32 for a rich style.", Level.BASIC, ge=1, le=1024
    )
    alpha: float = setting(16.0, "Alpha", "Scales the adapter by alpha ÷ rank.", gt=0, le=4096)
    rslora: bool = setting(
        False,
        "Rank-stabilized scale",
        "Scale by alpha ÷ √rank instead, so that high ranks learn as fast as low ones (rsLoRA, Kalajdzievski 2023).",
    )
    lokr_factor: int = setting(
        8,
        "LoKr factor",
        "Size of the smaller factor; −1 takes the divisor nearest to the square root, for the smallest files. A rank "
        "of half the larger factor or more trains that whole.",
        ge=-1,
        le=1024,
        only={"method": ["lokr"]},
    )
    oft_block_size: int = setting(
        32,
        "OFT block size",
        "How many of a layer's outputs are rotated together, or the largest divisor of their number below it. Larger "
        "blocks learn more and take more space.",
        ge=2,
        le=1024,
        only={"method": ["oft"]},
    )
    dropout: float = setting(
        0.0, "Adapter dropout", "Share of the adapter's inputs that are set to zero in training.", ge=0, lt=1
    )
    targets: Literal["qv", "attention", "attention+ff", "attention+ff+conv"] = setting(
        "attention",
        "Layers",
        "Layers of the base model that the adapter changes. More layers hold the style closer and take more memory.",
        choices={
            "qv": "Queries and values",
            "attention": "Attention",
            "attention+ff": "Attention and feed-forward",
            "attention+ff+conv": "Attention, feed-forward, convolutions",
        },
    )
    blocks: list[str] = setting(
        list,
        "Blocks",
        "Blocks of the base model that the adapter changes, one a line, such as up_blocks.1 or mid_block; empty: all. "
        "style, content and layout name SDXL's. A part, as the UNet or a text encoder, of which no line names a block "
        "is changed whole.",
    )
    by_block: list[str] = setting(
        list,
        "Rank and rate by block",
        "Other values for some blocks, one block a line: up_blocks.1 rank=32 alpha=16 rate=0.5. rate multiplies the "
        "learning rate. What a line leaves out is as elsewhere; of two lines the smaller block's counts.",
    )
    train_text: bool = setting(
        False,
        "Train text encoders",
        "Helps with a trigger word that the base model does not know, but other words are soon forgotten. Slower.",
    )
    learned_tokens: int = setting(
        0,
        "Learned tokens",
        "Vectors that the trigger word learns beside the layers, so that it means the style alone (pivotal tuning). 0 "
        "learns none, and with textual inversion and prompt tuning as many as is usual.",
        ge=0,
        le=64,
    )
    init_word: str = setting(
        "",
        "Learned tokens start from",
        "Words whose meaning the learned tokens start with, such as ink drawing. Empty: the letters of the trigger.",
        only={"learned_tokens": MORE_THAN_ZERO},
    )
    keep_norm: bool = setting(
        False,
        "Keep the length of learned tokens",
        "Learn only their directions, so that they stay as strong as words of the language.",
        Level.EXPERT,
        only={"learned_tokens": MORE_THAN_ZERO},
    )
    init: Literal["gaussian", "kaiming", "orthogonal", "eva"] = setting(
        "gaussian",
        "Initialization",
        "The first factor's initial values: random; orthonormal rows that share no direction; or EVA, the main "
        "directions of what the layers take in, which a new run looks at in a few batches (LoRA and DoRA). The second "
        "starts at zero, so that step 0 is the base model itself. Starts along the weights or the gradients are the "
        "methods PiSSA and LoRA-GA.",
        Level.EXPERT,
        choices={
            "gaussian": "Gaussian",
            "kaiming": "Kaiming",
            "orthogonal": "Orthogonal",
            "eva": "EVA (the layers' inputs)",
        },
    )

    @property
    def tokens(self) -> int:
        """Vectors that the trigger word learns; 0 where it stays plain text."""
        return methods.get(self.method).tokens(self)

    @property
    def reads_text(self) -> bool:
        """Whether captions are encoded in every step, since their features change while it trains."""
        return self.train_text or self.tokens > 0

    def of_family(self, family: Family) -> AdapterSettings:
        """The settings for models of ``family``, whose own blocks are in place of ``style``, ``content`` and
        ``layout``.

        Raises:
            SettingsError: none are known of it.
        """
        named = {key: family.named_blocks(getattr(self, key)) for key in ("blocks", "by_block")}
        return self.model_copy(update=named)

    def changes(self, path: str, family: Family) -> bool:
        """Whether the adapter changes the layer at the canonical ``path`` of a model of ``family``. The settings must
        be those of ``of_family``.
        """
        denoiser = path.startswith(f"{family.denoiser}.")
        method = methods.get(self.method)
        if not method.changes_layers or not (denoiser or self.train_text):
            return False
        pattern = (family.targets if denoiser else family.text_targets)[self.targets]
        return bool(re.search(pattern, path)) and block_names.within(self.blocks, path) and method.takes(path)

    def at(self, path: str) -> AdapterSettings:
        """The settings of the layer at the canonical ``path``, with the rank and alpha that ``by_block`` gives it."""
        found = by_block.at(self.by_block, path)
        return self.model_copy(update={"rank": found.rank or self.rank, "alpha": found.alpha or self.alpha})

    def rate(self, path: str) -> float:
        """What the learning rate of the layer at the canonical ``path`` is multiplied by."""
        return by_block.at(self.by_block, path).rate or 1.0

    @field_validator("by_block")
    @classmethod
    def _require_lines(cls, lines: list[str]) -> list[str]:
        for line in lines:
            by_block.read(line)
        return lines

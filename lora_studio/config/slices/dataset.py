"""How pictures and captions are read."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting


class DatasetSettings(SettingsSlice):
    """How pictures and captions are read."""

    group: ClassVar[Group] = Group.DATASET

    nested: bool = setting(
        False,
        "Nested folders",
        "Read the pictures in all folders below, too. Without, only those in folders named like 10_style.",
    )
    masks: bool = setting(
        True,
        "Masks",
        "Learn only what is white in a picture's mask, where it has one: a-masklabel.png or masks/a.png for a.png.",
    )
    resolution: int = setting(
        0,
        "Resolution",
        "Side of the square whose area every picture is scaled to; 0 uses the base model's own resolution.",
        unit="px",
        ge=0,
        le=4096,
    )
    bucket_step: int = setting(
        64,
        "Bucket step",
        "Widths and heights of the aspect-ratio buckets are multiples of this.",
        Level.EXPERT,
        "px",
        ge=8,
        le=512,
    )
    max_upscale: float = setting(
        1.5,
        "Upscale limit",
        "A picture is enlarged by at most this factor. One that is still too small trains at a lower resolution.",
        Level.EXPERT,
        "×",
        ge=1,
        le=8,
    )
    caption_dropout: float = setting(
        0.1,
        "Caption dropout",
        "Share of the captions that are left empty in training, so that the adapter also works with guidance.",
        ge=0,
        le=1,
    )
    caption_lines: Literal["variants", "joined"] = setting(
        "variants",
        "Lines of a caption",
        "Whether each line of a caption is a caption of its own, one of which is drawn each time, or the lines are "
        "joined to one text.",
        choices={"variants": "A caption each", "joined": "One text"},
    )
    caption_prefix: str = setting(
        "",
        "Caption prefix",
        "Text put before every caption, after the trigger word. It is joined with a space: end it with a comma if "
        "tags follow.",
    )
    caption_suffix: str = setting(
        "",
        "Caption suffix",
        "Text put after every caption. It is joined with a space: begin it with a comma if tags precede it.",
    )
    wildcards: bool = setting(
        True,
        "Wildcards in captions",
        "Read {red|blue} in a caption as one of its options, drawn each time. Doubled braces are literal ones; off "
        "reads all braces as text.",
        Level.EXPERT,
    )
    caption_tokens: int = setting(
        225,
        "Caption length",
        "Most tokens of a caption that are read, in chunks of 75; what follows is left out, with a warning. A text "
        "encoder with another window takes as many of its own chunks as hold so many tokens.",
        unit="tokens",
        ge=75,
        le=1500,
    )
    clip_skip: int = setting(
        0,
        "Clip skip",
        "For SD 1.x: 1 reads the text encoder after its last layer, 2 before it, as many anime models were trained. 0 "
        "takes what the base model's file says, else 1.",
        ge=0,
        le=2,
    )
    shuffle_tags: bool = setting(
        False,
        "Shuffle tags",
        "Shuffle a caption's comma-separated tags every time it is used. Those before ||| stay in place, and so do "
        "those after a second |||.",
    )
    keep_tags: int = setting(
        1,
        "Tags kept in place",
        "Number of leading tags that are neither shuffled nor left out, where a caption has no |||. The trigger word "
        "never is. Only with shuffled tags or tag dropout.",
        with_any=("shuffle_tags", "tag_dropout"),
        ge=0,
        le=100,
    )
    tag_dropout: float = setting(
        0.0,
        "Tag dropout",
        "Share of a caption's tags that are left out each time it is used, so that prompts need not name them all. "
        "Tags kept in place, protected tags and the trigger word never are.",
        ge=0,
        le=0.9,
    )
    word_dropout: float = setting(
        0.0,
        "Word dropout",
        "Share of a caption's words that are left out each time it is used: as tag dropout, for captions that are "
        "sentences. Protected tags, what ||| keeps in place and the trigger word never are.",
        ge=0,
        le=0.9,
    )
    protected_tags: list[str] = setting(
        list,
        "Protected tags",
        "Tags that tag dropout never leaves out, and words or phrases that word dropout never does, one a line. Only "
        "with tag or word dropout.",
        with_any=("tag_dropout", "word_dropout"),
    )
    validation_share: float = setting(
        0.1,
        "Validation share",
        "Share of the pictures held out of training. Their loss falls while the adapter learns what all of them have "
        "in common. It does not tell which state is best, and a rise alone is no sign of copying.",
        ge=0,
        le=0.5,
    )
    validate_every: int = setting(
        50,
        "Validate every",
        "Steps between measurements of the loss on held-out pictures; 0 switches them off.",
        Level.EXPERT,
        ge=0,
        le=1_000_000,
        unit="steps",
    )

"""What to know of how captions will be read with given settings, before training."""

from __future__ import annotations

from collections.abc import Iterable

from lora_studio.config.slices import AugmentationSettings, DatasetSettings
from lora_studio.dataset.caption_variants import KEEP
from lora_studio.dataset.items import Dataset
from lora_studio.dataset.phrases import names
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.dataset.sides import speaks_of_sides
from lora_studio.dataset.wildcards import Template
from lora_studio.language import tr


def problems(dataset: Dataset, settings: DatasetSettings) -> list[Problem]:
    """Notices of captions that are read line by line, of wildcards and of braces that are none, and of protected tags
    that no caption has.
    """
    texts = {dataset.name(picture): picture.full_caption for picture in dataset.pictures}
    found = _of_lines(texts) if settings.caption_lines == "variants" else []
    if settings.wildcards:
        found += _of_wildcards(texts)
    drops = settings.tag_dropout or settings.word_dropout
    return found + (_of_protected(texts.values(), settings) if drops else [])


def _of_lines(texts: dict[str, str]) -> list[Problem]:
    names = [name for name, text in texts.items() if "\n" in text]
    lines = sum(texts[name].count("\n") + 1 for name in names)
    return grouped(
        "warning",
        "caption lines",
        names,
        "caption has several lines and is read as {lines} captions, one of which is drawn each time",
        "captions have several lines and are read as {lines} captions, one of which is drawn each time",
        tr("If the lines are one text, set caption_lines to joined."),
        lines=lines,
    )


def _of_wildcards(texts: dict[str, str]) -> list[Problem]:
    templates = {
        name: [Template(line) for line in text.split("\n")]
        for name, text in texts.items()
        if "{" in text or "}" in text
    }
    found = grouped(
        "warning",
        "wildcards",
        [name for name, lines in templates.items() if any(line.count > 1 for line in lines)],
        "caption has wildcards such as {{a|b}}, an option of which is drawn each time",
        "captions have wildcards such as {{a|b}}, an option of which is drawn each time",
        tr("If the braces are meant literally, switch wildcards off."),
    )
    return found + grouped(
        "warning",
        "braces",
        [name for name, lines in templates.items() if any(line.broken for line in lines)],
        "caption has braces that nest or have no partner, which are read as text",
        "captions have braces that nest or have no partner, which are read as text",
        tr("Write wildcards as {a|b}, not inside each other."),
    )


def of_sides(dataset: Dataset, settings: AugmentationSettings) -> list[Problem]:
    """A notice of captions that speak of sides, where mirrored pictures come with them."""
    if not settings.flip or settings.mirror_captions != "same":
        return []
    return grouped(
        "warning",
        "sides",
        [dataset.name(picture) for picture in dataset.pictures if speaks_of_sides(picture.full_caption)],
        "caption speaks of left or right, and its picture is mirrored too",
        "captions speak of left or right, and their pictures are mirrored too",
        tr("Set mirror_captions to exchanged or unmirrored."),
    )


def _of_protected(texts: Iterable[str], settings: DatasetSettings) -> list[Problem]:
    lines = {line for text in texts for line in text.split("\n")}
    seen = [
        text
        for line in lines
        for text in Template(
            f"{settings.caption_prefix} {line} {settings.caption_suffix}", settings.wildcards
        ).covering()
    ]
    tags = {tag.strip().casefold() for text in seen for tag in text.replace(KEEP, ",").split(",")}

    def known(tag: str) -> bool:
        return tag.strip().casefold() in tags or bool(settings.word_dropout) and any(names(text, tag) for text in seen)

    return grouped(
        "warning",
        "protected tag",
        [tag for tag in settings.protected_tags if not known(tag)],
        "protected tag is in no caption",
        "protected tags are in no caption",
        tr("Compare how it is written in the captions."),
    )

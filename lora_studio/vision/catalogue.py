"""The models that the studio offers by a short name. Any other one is used by its folder, file or name on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lora_studio.language import tr


class Task(StrEnum):
    """What a model makes of a picture."""

    SENTENCES = "sentences"
    TAGS = "tags"
    MASKS = "masks"


@dataclass(frozen=True)
class VisionModel:
    """A model that is offered by name. ``hub`` is its name on the hub; ``licence`` and ``size``, in bytes, are what the
    hub listed for it in November 2026, 0 where that is not known.
    """

    key: str
    title: str
    hub: str
    task: Task
    licence: str
    size: int
    about: str
    """One sentence on what it is good for."""


MODELS = (
    VisionModel(
        "blip",
        "BLIP",
        "Salesforce/blip-image-captioning-large",
        Task.SENTENCES,
        "BSD-3-Clause",
        1_880_000_000,
        tr("One short sentence for each picture."),
    ),
    VisionModel(
        "florence2",
        "Florence-2",
        "florence-community/Florence-2-base",
        Task.SENTENCES,
        "MIT",
        0,
        tr("A sentence or a paragraph, as detailed as you choose."),
    ),
    VisionModel(
        "qwen",
        "Qwen3-VL",
        "Qwen/Qwen3-VL-2B-Instruct",
        Task.SENTENCES,
        "Apache-2.0",
        0,
        tr("Follows an instruction of your own. With two billion weights it is the largest of these."),
    ),
    VisionModel(
        "wd14",
        tr("WD14 tagger"),
        "SmilingWolf/wd-vit-tagger-v3",
        Task.TAGS,
        "Apache-2.0",
        380_000_000,
        tr("Booru tags, for base models that were trained on them."),
    ),
    VisionModel(
        "u2net",
        "U²-Net",
        "BritishWerewolf/U-2-Net",
        Task.MASKS,
        "Apache-2.0",
        176_000_000,
        tr("Finds what stands out from the background."),
    ),
    VisionModel(
        "u2net-person",
        tr("U²-Net for people"),
        "BritishWerewolf/U-2-Net-Human-Seg",
        Task.MASKS,
        "Apache-2.0",
        176_000_000,
        tr("Finds people."),
    ),
)


def named(key: str) -> VisionModel | None:
    """The model that is offered under ``key`` or under its name on the hub."""
    return next((model for model in MODELS if key.casefold() in (model.key, model.hub.casefold())), None)


def offered(task: Task) -> list[VisionModel]:
    """The models that do ``task``, in the order in which they are offered."""
    return [model for model in MODELS if model.task is task]

"""Copies of a picture that training draws from beside it: turned, cropped and recoloured a little, each a function of
(seed, picture). How they are cut out is in ``framing``, how they are coloured in ``fitted``.
"""

from __future__ import annotations

from lora_studio.config.slices import AugmentationSettings
from lora_studio.dataset.items import PLAIN, Alteration, Picture
from lora_studio.dataset.wildcards import chance


def copies(picture: Picture, settings: AugmentationSettings, seed: int) -> list[Alteration]:
    """How the copies that training draws from differ from ``picture``: the first one not at all. It is the only one
    where no setting alters anything.
    """
    if not alters(settings):
        return [PLAIN]
    return [PLAIN, *(_copy(settings, seed, picture.sha256, number) for number in range(1, settings.augment_copies))]


def alters(settings: AugmentationSettings) -> bool:
    """Whether copies differ from their picture, apart from being mirrored."""
    colours = settings.augment_hue, settings.augment_saturation, settings.augment_brightness
    return any((settings.augment_rotation, settings.augment_crop, *colours))


def _copy(settings: AugmentationSettings, *key: object) -> Alteration:
    def within(limit: float, name: str) -> float:
        return round(limit * (2 * chance("augment", name, *key) - 1), 6)

    return Alteration(
        rotation=within(settings.augment_rotation, "rotation"),
        cut=abs(within(settings.augment_crop, "cut")),
        across=within(1, "across") if settings.augment_crop else 0.0,
        down=within(1, "down") if settings.augment_crop else 0.0,
        hue=within(settings.augment_hue, "hue"),
        saturation=1 + within(settings.augment_saturation, "saturation"),
        brightness=1 + within(settings.augment_brightness, "brightness"),
    )

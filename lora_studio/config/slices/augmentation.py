"""Which copies of pictures are trained on besides them."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import Group, SettingsSlice, setting


class AugmentationSettings(SettingsSlice):
    """Which copies of pictures are trained on besides them."""

    group: ClassVar[Group] = Group.AUGMENTATION

    flip: bool = setting(
        False,
        "Mirror pictures",
        "Also train on mirrored pictures. Not for styles with writing, or where left and right differ.",
    )
    mirror_captions: Literal["same", "exchanged", "unmirrored"] = setting(
        "same",
        "Caption of a mirrored picture",
        "Whether mirrored pictures keep their captions, have left and right exchanged in them, or are left out where "
        "captions speak of sides.",
        only={"flip": [True]},
        choices={
            "same": "Stay the same",
            "exchanged": "Left and right exchanged",
            "unmirrored": "Where they speak of sides, not mirrored",
        },
    )
    augment_copies: int = setting(
        4,
        "Copies of a picture",
        "How many copies of each picture are drawn from, the unaltered one among them, where rotation, closer crops or "
        "colours alter the others. Each is encoded before training, mirrored ones apart, which takes as many times as "
        "long.",
        with_any=("augment_rotation", "augment_crop", "augment_hue", "augment_saturation", "augment_brightness"),
        ge=2,
        le=64,
    )
    augment_rotation: float = setting(
        0.0,
        "Rotation",
        "Turns copies by up to so many degrees to either side. They are cropped to the largest part without corners.",
        unit="°",
        ge=0,
        le=45,
    )
    augment_crop: float = setting(
        0.0,
        "Closer crops",
        "Crops up to this share of width and height from copies, at random places. Composition is learned less.",
        ge=0,
        le=0.5,
    )
    augment_hue: float = setting(
        0.0,
        "Hue of copies",
        "Turns the hues of copies by up to so many degrees to either side. Not for styles: it unlearns the palette. It "
        "is for subjects that come in any colour.",
        unit="°",
        ge=0,
        le=180,
    )
    augment_saturation: float = setting(
        0.0,
        "Saturation of copies",
        "Changes the saturation of copies by up to this share. Not for styles: it unlearns how vivid they are.",
        ge=0,
        le=1,
    )
    augment_brightness: float = setting(
        0.0,
        "Brightness of copies",
        "Changes the brightness of copies by up to this share. Not for styles: it unlearns how light or dark they are.",
        ge=0,
        le=0.9,
    )

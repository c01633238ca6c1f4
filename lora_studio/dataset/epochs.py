"""The length of a run in epochs: how many steps it takes to see each picture so many times."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.dataset.batch_sampler import split
from lora_studio.dataset.items import Picture
from lora_studio.errors import SettingsError
from lora_studio.language import ntr, tr


def settled(settings: Settings, pictures: Sequence[Picture]) -> Settings:
    """The settings with the steps that their epochs come to; as they are where the length is given in steps.

    Raises:
        SettingsError: that is more steps than a run may have.
    """
    epochs, optimizer = settings.run.epochs, settings.optimizer
    if not epochs:
        return settings
    drawn = epochs * _drawn(pictures, settings)
    steps = max(1, math.ceil(drawn / (optimizer.batch * optimizer.accumulate)))
    if steps > (most := SPECS["steps"].high or math.inf):
        raise SettingsError(
            tr(
                "{epochs:,} epochs of these pictures are {steps:,} steps; a run has at most {most:,.0f}.",
                epochs=epochs,
                steps=steps,
                most=most,
            ),
            where="epochs",
            do=tr("Choose fewer epochs."),
        )
    return settings.changed(epochs=epochs, steps=steps)


def told(settings: Settings) -> str:
    """What ``settled`` found, as a sentence; empty where the length is given in steps."""
    epochs, steps = settings.run.epochs, settings.run.steps
    if not epochs:
        return ""
    length = ntr(steps, "{count:,} step", "{count:,} steps")
    return ntr(epochs, "{count:,} epoch is {length}.", "{count:,} epochs are {length}.", length=length)


def _drawn(pictures: Sequence[Picture], settings: Settings) -> int:
    """How many samples an epoch draws: the pictures that train, each as often as it repeats. Class pictures are drawn
    as often as all others together. (A bucket's last batch is filled up, which is not counted.)
    """
    train, _ = split(pictures, settings.dataset.validation_share, settings.run.seed)
    own = sum(pictures[index].repeats for index in train if not pictures[index].regularisation)
    return own * (2 if any(picture.regularisation for picture in pictures) else 1)

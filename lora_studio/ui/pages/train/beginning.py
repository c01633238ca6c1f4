"""What is checked before a run begins, whoever asks for it: the form or a script."""

from __future__ import annotations

from pathlib import Path

from lora_studio.config.settings import Settings
from lora_studio.dataset import epochs
from lora_studio.errors import DatasetError
from lora_studio.training import noise_levels
from lora_studio.ui import paths
from lora_studio.ui.pages.train import pictures
from lora_studio.ui.scene import base_look


def checked(settings: Settings, outputs: Path) -> Settings:
    """The settings with tidy paths, a base model and a dataset that can be trained on, and the steps that their epochs
    are.

    Raises:
        ModelError, DatasetError: it cannot.
    """
    settings = settings.changed(
        data=paths.tidy(settings.run.data),
        base=paths.tidy(settings.run.base),
        vae=paths.tidy(settings.run.vae),
        text_encoders=[paths.tidy(path) for path in settings.run.text_encoders],
    )
    base_look.look(settings.run.base, settings.run.vae, settings.run.text_encoders)
    dataset = pictures.scan(settings.run.data, outputs, settings.dataset.nested)
    if blocking := dataset.blocking:
        raise DatasetError(blocking[0].what, where=blocking[0].file, do=blocking[0].do)
    noise_levels.require(dataset, settings.noise)
    return epochs.settled(settings, dataset.pictures)

"""Between which levels of noise each picture is trained: those of the run, and of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lora_studio.config.slices import NoiseSettings
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.dataset.preparation import NOISE_LEVELS
from lora_studio.diffusion.timesteps import NoiseRange
from lora_studio.errors import DatasetError
from lora_studio.language import tr


class Levels(NamedTuple):
    """Shares of the noise process: 0 is no noise, 1 nothing else."""

    low: float
    high: float

    def __and__(self, other: Levels) -> Levels:
        """What is in both; empty where its low end is not below its high end."""
        return Levels(max(self.low, other.low), min(self.high, other.high))


ALL = Levels(0.0, 1.0)


def of_folder(picture: Picture) -> Levels:
    """Those that were chosen for its folder."""
    if not picture.timesteps:
        return ALL
    low, high = picture.timesteps
    return Levels(low / NOISE_LEVELS, high / NOISE_LEVELS)


def of_run(settings: NoiseSettings) -> Levels:
    """Those of the settings."""
    return Levels(settings.timestep_from, settings.timestep_to)


def ranges(levels: Sequence[Levels]) -> NoiseRange | None:
    """They as tensors, for a sample each; None where all are the whole process."""
    import torch

    if all(one == ALL for one in levels):
        return None
    low, high = torch.tensor(levels, dtype=torch.float64).T
    return NoiseRange(low, high)


def require(dataset: Dataset, settings: NoiseSettings) -> None:
    """Raises DatasetError for a folder of pictures that has no noise level in common with the run."""
    run = of_run(settings)
    for picture in dataset.pictures:
        common = of_folder(picture) & run
        if common.low >= common.high:
            low, high = of_folder(picture)
            raise DatasetError(
                tr(
                    "The folder's noise levels, {low:g} to {high:g} of all noise, lie outside those of the "
                    "run, {run_low:g} to {run_high:g}.",
                    low=low,
                    high=high,
                    run_low=run.low,
                    run_high=run.high,
                ),
                where=picture.path.parent,
                do=tr("Change timestep_from and timestep_to, or the folder's noise levels on the page Pictures."),
            )

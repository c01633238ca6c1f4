"""Every setting of a training run, declared once: a module and a slice for each group.

The page's form, the command line's flags, the presets' check and the table in ``docs/settings.md`` are made from
these declarations; a test asserts that they agree.
"""

from __future__ import annotations

from lora_studio.config.declaration import SettingsSlice
from lora_studio.config.slices.adapter import AdapterSettings
from lora_studio.config.slices.augmentation import AugmentationSettings
from lora_studio.config.slices.dataset import DatasetSettings
from lora_studio.config.slices.evaluation import EvaluationSettings
from lora_studio.config.slices.loss import LossSettings
from lora_studio.config.slices.machine import MachineSettings
from lora_studio.config.slices.noise import NoiseSettings
from lora_studio.config.slices.optimizer import OptimizerSettings
from lora_studio.config.slices.previews import PreviewSettings
from lora_studio.config.slices.run import RunSettings
from lora_studio.config.slices.saving import SavingSettings
from lora_studio.config.slices.slider import SliderSettings

__all__ = [
    "FIELDS",
    "SLICES",
    "SLICE_OF",
    "AdapterSettings",
    "AugmentationSettings",
    "DatasetSettings",
    "EvaluationSettings",
    "LossSettings",
    "MachineSettings",
    "NoiseSettings",
    "OptimizerSettings",
    "PreviewSettings",
    "RunSettings",
    "SavingSettings",
    "SliderSettings",
]

SLICES: dict[str, type[SettingsSlice]] = {
    "run": RunSettings,
    "dataset": DatasetSettings,
    "augmentation": AugmentationSettings,
    "adapter": AdapterSettings,
    "noise": NoiseSettings,
    "loss": LossSettings,
    "slider": SliderSettings,
    "optimizer": OptimizerSettings,
    "previews": PreviewSettings,
    "evaluation": EvaluationSettings,
    "saving": SavingSettings,
    "machine": MachineSettings,
}
"""Slice -> its declaration, in the order of the form."""
FIELDS = {key: field for part in SLICES.values() for key, field in part.model_fields.items()}
"""Key -> how it is declared."""
SLICE_OF: dict[str, str] = {key: name for name, part in SLICES.items() for key in part.model_fields}
"""Key -> the slice that it is in."""

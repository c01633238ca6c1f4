"""A run's settings as one object: made from keys, checked, changed, and handed on in slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lora_studio.config.slices import (
    SLICE_OF,
    SLICES,
    AdapterSettings,
    DatasetSettings,
    LossSettings,
    MachineSettings,
    OptimizerSettings,
    PreviewSettings,
    RunSettings,
    SavingSettings,
)
from lora_studio.config.specs import SPECS, mistake, require_known
from lora_studio.diffusion import registry as processes
from lora_studio.errors import SettingsError
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers


class Settings(BaseModel):
    """A training run's settings, a slice for each group. Immutable; ``changed`` gives an altered copy.

    Files, presets, ``--set`` and the form know settings by their keys alone, without slices: ``Settings(rank=8)``,
    ``settings.flat()["rank"]``. Code takes the slice that it needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSettings
    dataset: DatasetSettings
    adapter: AdapterSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    previews: PreviewSettings
    saving: SavingSettings
    machine: MachineSettings

    def __init__(self, **values: Any):
        super().__init__(**values)  # declared, since keys are not fields, as type checkers would otherwise assume

    @model_validator(mode="before")
    @classmethod
    def _sort_into_slices(cls, values: dict[str, Any]) -> dict[str, Any]:
        sorted_values: dict[str, Any] = {name: {} for name in SLICES}
        for key, value in values.items():
            if key in SLICE_OF:
                sorted_values[SLICE_OF[key]][key] = value
            else:
                sorted_values[key] = value
        return sorted_values

    @model_validator(mode="after")
    def _require_consistent(self) -> Settings:
        batch, gpus = self.optimizer.batch, self.machine.gpus
        if self.dataset.bucket_step % 8:
            raise ValueError("bucket_step must be a multiple of 8, the VAE's scale")
        if batch % gpus:
            raise ValueError(
                f"batch is {batch}, which {gpus} GPUs cannot share evenly: set batch to a multiple of gpus"
            )
        if refusal := methods.get(self.adapter.method).refusal(self.adapter, self.machine.quantize):
            raise ValueError(refusal)
        if refusal := processes.refusal(self.loss.prediction, self.previews.sampler):
            raise ValueError(refusal)
        return self

    @property
    def share(self) -> int:
        """Pictures of a batch that each GPU takes."""
        return self.optimizer.batch // self.machine.gpus

    def flat(self) -> dict[str, Any]:
        """Every setting by its key, as plain data, in the order of their declaration."""
        return {key: value for part in self.model_dump().values() for key, value in part.items()}

    def __getitem__(self, key: str) -> Any:
        """The value of the setting ``key``."""
        return getattr(getattr(self, SLICE_OF[key]), key)

    def changed(self, **changes: Any) -> Settings:
        """A checked copy with ``changes``, and with the rates that a change of optimizer brings (``layer``).

        Raises:
            SettingsError: a key is unknown or a value out of its bounds.
        """
        return check(layer(self.flat(), changes))


def key_of(error: Mapping[str, Any]) -> str:
    """The setting that one of pydantic's errors is about; empty if it is about several."""
    return str(error["loc"][1]) if len(error["loc"]) > 1 else ""


def check(values: dict[str, Any], where: object = "") -> Settings:
    """Settings from ``values`` over the defaults.

    Raises:
        SettingsError: a key is unknown, or a value has the wrong type or is out of bounds.
    """
    require_known(values, where)
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if key := key_of(first):
            raise mistake(key, first, where) from None
        raise SettingsError(f"{first['msg'].removeprefix('Value error, ')}.", where=where) from None


def layer(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` on top. One optimizer's learning rate is never carried over to another: an optimizer
    whose rates mean something else brings its usual ones, where ``changes`` give none.
    """
    before, after = (each.get("optimizer", SPECS["optimizer"].default) for each in (values, {**values, **changes}))
    known = before in SPECS["optimizer"].choices and after in SPECS["optimizer"].choices
    return {**values, **(optimizers.rates_after(before, after) if known else {}), **changes}

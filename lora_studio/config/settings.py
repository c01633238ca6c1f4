"""A run's settings as one object: made from keys, checked, changed, and handed on in slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lora_studio.adapters import embedding
from lora_studio.config import by_block, prompt_pairs
from lora_studio.config.slices import (
    SLICE_OF,
    SLICES,
    AdapterSettings,
    AugmentationSettings,
    DatasetSettings,
    EvaluationSettings,
    LossSettings,
    MachineSettings,
    NoiseSettings,
    OptimizerSettings,
    PreviewSettings,
    RunSettings,
    SavingSettings,
    SliderSettings,
)
from lora_studio.config.slices.run import names_pairs
from lora_studio.config.specs import SPECS, mistake, plain, require_known, said
from lora_studio.diffusion import registry as processes
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.language import declared, either, tr
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers


class Ignored(NamedTuple):
    """A setting without effect."""

    key: str
    other: str
    """The setting that takes its effect away."""
    value: Any
    """That setting's value."""
    part: str = ""
    """What of the setting has none, where that is not all of it."""

    @property
    def _any(self) -> str:
        """The settings one of which would give it one; empty where ``other`` alone takes it away."""
        names = SPECS[self.key].with_any
        return either([SPECS[name].label for name in names]) if self.other in names else ""

    @property
    def what(self) -> str:
        if self._any:
            return tr("{label} has no effect without {others}.", label=SPECS[self.key].label, others=self._any)
        label, other = SPECS[self.key].label, SPECS[self.other]
        there = {"label": label, "other": other.label, "value": other.title(self.value)}
        if self.part:
            return tr("{part} in {label} has no effect where {other} is {value}.", part=self.part, **there)
        return tr("{label} has no effect where {other} is {value}.", **there)

    @property
    def only(self) -> str:
        """With what it has one, or with what not."""
        if self.other == "data":
            return tr("Only for pictures.") if names_pairs(self.value) else tr("Only for prompt pairs.")
        if self._any:
            return tr("Only with {others}.", others=self._any)
        other = SPECS[self.other]
        values = SPECS[self.key].only.get(self.other)
        if not values:
            return tr("No effect where {label} is {value}.", label=other.label, value=other.title(self.value))
        return tr("Only where {label} is {listed}.", label=other.label, listed=either(map(other.title, values)))

    @property
    def do(self) -> str:
        if self.part:
            return tr("Remove {part} from the lines of {key}.", part=self.part, key=self.key)
        default = plain(SPECS[self.key].default)
        if self._any:
            keys = ", ".join(SPECS[self.key].with_any)
            return tr("Set one of {keys}, or {key} to {default}.", keys=keys, key=self.key, default=default)
        values = SPECS[self.key].only.get(self.other, ())
        if not values:
            return tr("Set {key} to {default}.", key=self.key, default=default)
        return tr(
            "Set {key} to {default}, or {other} to {allowed}.",
            key=self.key,
            default=default,
            other=self.other,
            allowed=either(map(plain, values)),
        )


class Repeated(NamedTuple):
    """A line of a setting that says again what another one says."""

    key: str
    what: str

    @property
    def do(self) -> str:
        return tr("Remove one of the lines from {key}.", key=self.key)


class Settings(BaseModel):
    """A training run's settings, a slice for each group. Immutable; ``changed`` gives an altered copy.

    Files, presets, ``--set`` and the form know settings by their keys alone, without slices: ``Settings(rank=8)``,
    ``settings.flat()["rank"]``. Code takes the slice that it needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSettings
    dataset: DatasetSettings
    augmentation: AugmentationSettings
    adapter: AdapterSettings
    noise: NoiseSettings
    loss: LossSettings
    slider: SliderSettings
    optimizer: OptimizerSettings
    previews: PreviewSettings
    evaluation: EvaluationSettings
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
            raise ValueError(tr("bucket_step must be a multiple of 8, the VAE's scale"))
        if batch % gpus:
            raise ValueError(
                tr(
                    "batch is {batch}, which {gpus} GPUs cannot share evenly: set batch to a multiple of gpus",
                    batch=batch,
                    gpus=gpus,
                )
            )
        if refusal := methods.get(self.adapter.method).refusal(self.adapter, self.machine.quantize):
            raise ValueError(refusal)
        if refusal := self._cap_refusal():
            raise ValueError(refusal)
        if refusal := prompt_pairs.refusal(self.run, self.adapter, self.loss, self.evaluation):
            raise ValueError(refusal)
        if self.noise.timestep_from >= self.noise.timestep_to:
            raise ValueError(tr("timestep_from must be below timestep_to"))
        if self.loss.preserve_weight and not self.run.trigger.strip():
            raise ValueError(
                tr("preserve_weight needs a trigger word, without which captions are preserved: set trigger")
            )
        if refusal := processes.refusal(self.loss.prediction, self.previews.sampler):
            raise ValueError(refusal)
        return self

    def require_named(self) -> None:
        """Raises SettingsError where no base model is named, or tokens are to be learned and there is no trigger word
        to stand for them.
        """
        if not self.run.base.strip():
            do = tr("Set base to starter, or to a model of yours.")
            raise SettingsError(tr("No base model is named."), where="base", do=do)
        if not self.adapter.tokens:
            return
        word = self.run.trigger.strip()
        if not word:
            what = tr("Tokens are to be learned, and there is no trigger word to stand for them.")
            raise SettingsError(what, where="trigger", do=tr("Enter a word that means nothing else, such as anastyle."))
        try:
            embedding.require_usable(word)
        except AdapterError as error:
            raise SettingsError(error.what, where="trigger", do=error.do) from None

    def _cap_refusal(self) -> str:
        """Why ``max_norm`` cannot hold, and what to set instead: a sentence without its full stop; empty if it can."""
        method, optimizer = methods.get(self.adapter.method), optimizers.get(self.optimizer.optimizer)
        if not self.optimizer.max_norm:
            return ""
        if not method.cappable:
            return tr(
                "max_norm cannot scale what {method} learns: set max_norm to 0, or method to lora",
                method=declared(method.title),
            )
        if optimizer.own_weights:
            return tr(
                "max_norm does not reach the weights that {optimizer} keeps for itself: set max_norm to 0, or "
                "choose another optimizer",
                optimizer=declared(optimizer.title),
            )
        return ""

    @property
    def share(self) -> int:
        """Pictures of a batch that each GPU takes."""
        return self.optimizer.batch // self.machine.gpus

    def flat(self) -> dict[str, Any]:
        """Every setting by its key, as plain data, in the order of their declaration."""
        return {key: value for part in self.model_dump().values() for key, value in part.items()}

    def idle(self) -> dict[str, Ignored]:
        """The settings that have no effect under the others, whatever their own value, by their keys. The form hides
        them.
        """
        found: dict[str, Ignored] = {}
        for key, spec in SPECS.items():
            for other, values in spec.only.items():
                if self._counting(other) not in values:
                    found.setdefault(key, Ignored(key, other, self[other]))
            if spec.with_any and not any(self[other] for other in spec.with_any):
                found.setdefault(key, Ignored(key, spec.with_any[0], self[spec.with_any[0]]))
        method = self.adapter.method
        for key in methods.get(method).ignores:
            found.setdefault(key, Ignored(key, "method", method))
        for key in prompt_pairs.idle(self.run):
            found.setdefault(key, Ignored(key, "data", self.run.data))
        return found

    def ignored(self) -> list[Ignored]:
        """The settings that were changed from their defaults and are ``idle``, and the lines of ``by_block`` that are.
        One that is switched off by its lowest value, 0, is as wanted, and so are the rates that an optimizer or a
        method brings.
        """
        idle = self.idle()
        ignores = set(methods.get(self.adapter.method).ignores)
        parts = sorted(by_block.given(self.adapter.by_block) & ignores) if "by_block" not in ignores else []
        return [
            *(one for one in idle.values() if not self._as_wanted(one)),
            *(Ignored("by_block", "method", self.adapter.method, part) for part in parts),
        ]

    def _counting(self, key: str) -> Any:
        """The value of the setting ``key`` that others depend on: of learned tokens, how many there will be."""
        return self.adapter.tokens if key == "learned_tokens" else self[key]

    def _as_wanted(self, one: Ignored) -> bool:
        value, spec = self[one.key], SPECS[one.key]
        off = spec.low == 0 == value and one.key not in methods.get(self.adapter.method).ignores
        if value == spec.default or off:
            return True
        brought = layer({}, {"optimizer": self.optimizer.optimizer, "method": self.adapter.method})
        return one.key in optimizers.RATES and value == brought.get(one.key)

    def repeated(self) -> list[Repeated]:
        """The lines of ``blocks`` and ``by_block`` that say again what an earlier one says."""
        counted = Counter(self.adapter.blocks)
        twice = [block for block, times in counted.items() if times > 1]
        again = by_block.repeated(self.adapter.by_block)
        return [
            *(Repeated("blocks", tr("Blocks names {block} more than once.", block=block)) for block in twice),
            *(
                Repeated("by_block", tr("Two lines give {block} {name}. The first counts.", block=block, name=name))
                for block, name in again
            ),
        ]

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
        raise SettingsError(tr("{fault}.", fault=said(first) or first["msg"]), where=where) from None


def layer(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` on top. One optimizer's learning rate is never carried over to another: an optimizer
    whose rates mean something else brings its usual ones, where ``changes`` give none; so does a method, see
    ``_of_method``. A number of steps takes the place of a number of epochs.
    """
    before, after = (each.get("optimizer", SPECS["optimizer"].default) for each in (values, {**values, **changes}))
    known = before in SPECS["optimizer"].choices and after in SPECS["optimizer"].choices
    merged = {**values, **(optimizers.rates_after(before, after) if known else {})}
    by_steps = {"epochs": 0} if "steps" in changes and values.get("epochs") else {}
    return {**merged, **_of_method(merged, changes), **by_steps, **changes}


def _of_method(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a change of method brings with it: its usual settings in place of the other method's, and learning rates
    that are to those of ``values`` as its usual ones are to the other's. None of an optimizer that finds its rate by
    itself.
    """
    default = SPECS["method"].default
    before, after = (methods.METHODS.get(each.get("method", default)) for each in (values, {**values, **changes}))
    if before is None or after is None or before is after:
        return {}
    left = {key: SPECS[key].default for key, value in before.usual.items() if values.get(key) == value}
    usual = {**left, **after.usual}
    optimizer = {**values, **changes}.get("optimizer", SPECS["optimizer"].default)
    ratio = after.relative_rate / before.relative_rate
    if ratio == 1 or optimizer not in SPECS["optimizer"].choices or optimizers.get(optimizer).learning_rate == 1:
        return usual
    rates = {key: values.get(key, SPECS[key].default) for key in ("learning_rate", "text_learning_rate")}
    return {**usual, **{key: float(f"{rate * ratio:.6g}") for key, rate in rates.items()}}

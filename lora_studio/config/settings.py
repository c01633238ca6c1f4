"""Every setting of a training run, declared once.

The page's form, the command line's flags, the presets' check and the table in ``docs/settings.md`` are made from
this declaration; a test asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from lora_studio.diffusion import registry as processes
from lora_studio.diffusion import samplers
from lora_studio.errors import SettingsError
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers


class Level(StrEnum):
    """Who a setting is for."""

    JOB = "job"
    """What a run is about: at the top of the page."""
    BASIC = "basic"
    """Worth considering for every style: always visible."""
    ADVANCED = "advanced"
    """Folded away."""
    EXPERT = "expert"
    """Folded away, below the advanced ones."""


class Group(StrEnum):
    """The heading of a setting, in the order of the form."""

    RUN = "Run"
    DATASET = "Dataset"
    ADAPTER = "Adapter"
    LOSS = "Loss"
    OPTIMIZER = "Optimizer"
    PREVIEWS = "Previews"
    SAVING = "Saving"
    MACHINE = "Machine"


class Choice(Protocol):
    """One value of a setting that is chosen from a list."""

    @property
    def name(self) -> str:
        """The value itself."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def help(self) -> str:
        """What it is good for: a clause without a full stop; may be empty."""


class NamedChoice(NamedTuple):
    """A choice that is declared with its setting."""

    name: str
    title: str
    help: str = ""


@dataclass(frozen=True)
class _Declaration:
    """What a setting's declaration says besides pydantic's own fields."""

    level: Level
    unit: str
    choices: Callable[[], Iterable[Choice]]


def setting(
    default: Any,
    label: str,
    help: str,
    level: Level = Level.ADVANCED,
    unit: str = "",
    choices: Mapping[str, str] | Callable[[], Iterable[Choice]] | None = None,
    **bounds: Any,
) -> Any:
    """One setting, as the form, the command line and the docs show it.

    Args:
        choices: the title of each value, for a setting that takes a few; or a function that lists the choices, where
            they belong to another room. It is called whenever they are needed, so that another choice may be added.
        bounds: ``ge``, ``le``, ``gt``, ``lt``.
    """
    default = {"default_factory": default} if default is list else {"default": default}
    if isinstance(choices, Mapping):
        choices = partial(map, NamedChoice, choices.keys(), choices.values())
    extra: Any = {"setting": _Declaration(level, unit, choices or tuple)}
    return Field(title=label, description=help, json_schema_extra=extra, **default, **bounds)


class _Slice(BaseModel):
    """The settings of one group. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    group: ClassVar[Group]

    @field_validator("*")
    @classmethod
    def _require_choice(cls, value: Any, info: ValidationInfo) -> Any:
        """Raises pydantic's error for a Literal where ``value`` is not among the setting's choices."""
        names = [repr(choice.name) for choice in _declaration(cls.model_fields[info.field_name or ""]).choices()]
        if names and repr(value) not in names:
            expected = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
            raise PydanticCustomError("choice", "Input should be {expected}", {"expected": expected})
        return value


def _declaration(field: FieldInfo) -> _Declaration:
    return cast(Any, field.json_schema_extra)["setting"]


def _predictions() -> list[Choice]:
    return [NamedChoice("auto", "From the model"), *(NamedChoice(p.name, p.title) for p in processes.PROCESSES)]


def _samplers() -> list[Choice]:
    return [NamedChoice(name, samplers.TITLES[name]) for name in samplers.SAMPLERS]


class RunSettings(_Slice):
    """What a run is about."""

    group: ClassVar[Group] = Group.RUN

    data: str = setting("", "Pictures", "Folder of pictures, with captions beside them if there are any.", Level.JOB)
    base: str = setting(
        "starter",
        "Base model",
        "The built-in starter model, a diffusers folder, a .safetensors checkpoint, or the hub name of a downloaded "
        "model.",
        Level.JOB,
    )
    name: str = setting(
        "",
        "Name",
        "Name of the run and of the adapter's file. If empty, the name of the folder of pictures.",
        Level.JOB,
    )
    trigger: str = setting(
        "", "Trigger word", "A word put before every caption. In a prompt it later brings up the style.", Level.BASIC
    )
    steps: int = setting(
        1000,
        "Steps",
        "Optimizer steps to train. More steps bring the style closer to your pictures; too many can copy them.",
        Level.BASIC,
        "steps",
        ge=1,
        le=1_000_000,
    )
    seed: int = setting(
        0,
        "Seed",
        "With the same seed, settings and pictures, a run draws the same noise in the same order. With "
        '"Deterministic" it also gives the same adapter.',
        ge=0,
        le=2**31 - 1,
    )


class DatasetSettings(_Slice):
    """How pictures and captions are read."""

    group: ClassVar[Group] = Group.DATASET

    resolution: int = setting(
        0,
        "Resolution",
        "Side of the square whose area every picture is scaled to; 0 uses the base model's own resolution.",
        unit="px",
        ge=0,
        le=4096,
    )
    bucket_step: int = setting(
        64,
        "Bucket step",
        "Widths and heights of the aspect-ratio buckets are multiples of this.",
        Level.EXPERT,
        "px",
        ge=8,
        le=512,
    )
    max_upscale: float = setting(
        1.5,
        "Upscale limit",
        "A picture is enlarged by at most this factor. One that is still too small trains at a lower resolution.",
        Level.EXPERT,
        "×",
        ge=1,
        le=8,
    )
    caption_dropout: float = setting(
        0.1,
        "Caption dropout",
        "Share of the captions that are left empty in training, so that the adapter also works with guidance.",
        ge=0,
        le=1,
    )
    shuffle_tags: bool = setting(
        False, "Shuffle tags", "Shuffle a caption's comma-separated tags every time it is used."
    )
    keep_tags: int = setting(
        1,
        "Tags kept in place",
        "Number of leading tags that are not shuffled. The trigger word never is.",
        ge=0,
        le=100,
    )
    flip: bool = setting(
        False,
        "Mirror pictures",
        "Also train on mirrored pictures. Not for styles with writing, or where left and right differ.",
    )
    validation_share: float = setting(
        0.1,
        "Validation share",
        "Share of the pictures held out of training, to compare their loss with that of the training pictures.",
        ge=0,
        le=0.5,
    )
    validate_every: int = setting(
        50,
        "Validate every",
        "Steps between validations; 0 switches them off.",
        Level.EXPERT,
        ge=0,
        le=1_000_000,
        unit="steps",
    )


class AdapterSettings(_Slice):
    """What is trained."""

    group: ClassVar[Group] = Group.ADAPTER

    method: str = setting(
        "lora",
        "Method",
        "How the adapter changes a layer.",
        choices=methods.METHODS.values,
    )
    rank: int = setting(
        16, "Rank", "Size of the adapter: 4–8 for a simple look, 16–32 for a rich style.", Level.BASIC, ge=1, le=1024
    )
    alpha: float = setting(16.0, "Alpha", "Scales the adapter by alpha ÷ rank.", gt=0, le=4096)
    rslora: bool = setting(
        False,
        "Rank-stabilised scale",
        "Scale by alpha ÷ √rank instead, so that high ranks learn as fast as low ones (rsLoRA, Kalajdzievski 2023).",
    )
    dropout: float = setting(
        0.0, "Adapter dropout", "Share of the adapter's inputs that are set to zero in training.", ge=0, lt=1
    )
    targets: Literal["qv", "attention", "attention+ff", "attention+ff+conv"] = setting(
        "attention",
        "Layers",
        "Layers of the base model that the adapter changes. More layers hold the style closer and take more memory.",
        choices={
            "qv": "Queries and values",
            "attention": "Attention",
            "attention+ff": "Attention and feed-forward",
            "attention+ff+conv": "Attention, feed-forward, convolutions",
        },
    )
    train_text: bool = setting(
        False,
        "Train text encoders",
        "Helps with a trigger word that the base model does not know, but other words are soon forgotten. Slower.",
    )
    init: Literal["gaussian", "kaiming"] = setting(
        "gaussian",
        "Initialisation",
        "Distribution of the first factor's initial values. The second starts at zero, so that step 0 is the base "
        "model itself.",
        Level.EXPERT,
        choices={"gaussian": "Gaussian", "kaiming": "Kaiming"},
    )


class LossSettings(_Slice):
    """What a step minimises."""

    group: ClassVar[Group] = Group.LOSS

    prediction: str = setting(
        "auto",
        "Prediction",
        "What the base model was trained to predict; auto reads it from the model.",
        Level.EXPERT,
        choices=_predictions,
    )
    loss: Literal["mse", "huber"] = setting(
        "mse",
        "Loss",
        "Squared error, or the Huber loss, which gives outliers less weight.",
        choices={"mse": "Mean squared error", "huber": "Huber"},
    )
    huber_delta: float = setting(
        0.1,
        "Huber delta",
        "The Huber loss is quadratic up to this error and linear above it.",
        Level.EXPERT,
        gt=0,
        le=10,
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR γ",
        "Limits the weight of timesteps with little noise, so that they do not outweigh the others (Hang et al. "
        "2023); 0 switches it off.",
        ge=0,
        le=100,
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Helps with styles much darker or brighter than the base model's own images. 0.05 is a mild value.",
        ge=0,
        le=1,
    )


class OptimizerSettings(_Slice):
    """How a step changes the adapter."""

    group: ClassVar[Group] = Group.OPTIMIZER

    optimizer: str = setting(
        "adamw",
        "Optimizer",
        "How gradients become steps. Choosing another one also sets its usual learning rate.",
        choices=optimizers.OPTIMIZERS.values,
    )
    learning_rate: float = setting(
        3e-4,
        "Learning rate",
        "Size of each step. Too high a rate destroys the image, too low a rate learns nothing.",
        Level.BASIC,
        gt=0,
        le=10,
    )
    text_learning_rate: float = setting(
        5e-5,
        "Text encoder rate",
        "Learning rate of the text encoders, if they are trained. Optimizers with a single rate ignore it.",
        gt=0,
        le=10,
    )
    lora_plus: float = setting(
        1.0,
        "LoRA+ ratio",
        "The second factor's learning rate as a multiple of the first's (Hayou et al. 2024); 1 is plain LoRA.",
        ge=1,
        le=256,
        unit="×",
    )
    weight_decay: float = setting(
        0.01, "Weight decay", "Pulls the adapter's weights towards zero.", Level.EXPERT, ge=0, le=1
    )
    schedule: Literal["constant", "cosine", "linear"] = setting(
        "cosine",
        "Schedule",
        "How the learning rate falls towards the last step.",
        choices={"constant": "Constant", "cosine": "Cosine", "linear": "Linear"},
    )
    warmup: float = setting(
        0.04, "Warm-up", "Share of the steps over which the learning rate rises from zero.", ge=0, le=0.5
    )
    batch: int = setting(1, "Batch size", "Pictures in each batch.", ge=1, le=256, unit="pictures")
    accumulate: int = setting(
        1,
        "Gradient accumulation",
        "Batches that are accumulated into one step: a larger effective batch in the same memory.",
        ge=1,
        le=256,
    )
    clip: float = setting(
        1.0,
        "Gradient clipping",
        "Largest norm of a step's gradient; a longer one is scaled down to it. 0 switches it off.",
        Level.EXPERT,
        ge=0,
        le=1000,
    )
    ema: float = setting(
        0.0,
        "Moving average (EMA)",
        "Decay of an exponential moving average of the adapter, which is then what is exported. 0 switches it off, "
        "0.99 is usual.",
        ge=0,
        lt=1,
    )


class PreviewSettings(_Slice):
    """What is drawn while training."""

    group: ClassVar[Group] = Group.PREVIEWS

    preview_prompts: list[str] = setting(
        list,
        "Preview prompts",
        "One image is drawn for each prompt; if empty, for four plain subjects. {trigger} is replaced by the trigger "
        "word.",
        Level.BASIC,
    )
    preview_every: int = setting(
        100,
        "Preview every",
        "Steps between previews; 0 draws only the first and the last.",
        ge=0,
        le=1_000_000,
        unit="steps",
    )
    preview_seed: int = setting(
        1, "Preview seed", "Seed of the first prompt; each further prompt adds 1.", ge=0, le=2**31 - 1
    )
    preview_steps: int = setting(20, "Sampler steps", "Denoising steps of a preview.", ge=1, le=200)
    sampler: str = setting(
        "dpm++",
        "Sampler",
        "How previews are denoised.",
        choices=_samplers,
    )
    guidance: float = setting(5.0, "Guidance", "How closely a preview follows its prompt.", ge=1, le=30)
    negative: str = setting("", "Negative prompt", "What previews should not show.")


class SavingSettings(_Slice):
    """Which states are kept."""

    group: ClassVar[Group] = Group.SAVING

    checkpoint_every: int = setting(
        250,
        "Save every",
        "Steps between saved states, from which a run can resume. 0 saves by time alone.",
        ge=0,
        le=1_000_000,
        unit="steps",
    )
    checkpoint_minutes: float = setting(
        10.0,
        "Save after",
        "Longest time between saved states. 0 saves by steps alone. One is always saved at the end.",
        unit="minutes",
        ge=0,
        le=1440,
    )
    keep_checkpoints: int = setting(
        5,
        "States kept",
        "Number of the latest saved states that are kept. Starred ones are kept as well.",
        ge=1,
        le=10_000,
    )
    keep_every: int = setting(
        0,
        "Keep every",
        "States at multiples of this many steps are also kept; 0 keeps none of them.",
        Level.EXPERT,
        "steps",
        ge=0,
        le=1_000_000,
    )


class MachineSettings(_Slice):
    """Where and how it is computed."""

    group: ClassVar[Group] = Group.MACHINE

    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto",
        "Device",
        "Where to train; auto uses the fastest device.",
        choices={"auto": "Fastest available", "cpu": "CPU", "cuda": "NVIDIA or AMD GPU", "mps": "Apple GPU"},
    )
    gpus: int = setting(
        1,
        "GPUs",
        "GPUs that share each batch. The batch size must be a multiple of their number.",
        Level.EXPERT,
        ge=1,
        le=64,
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Precision",
        "Number format of the base model. Auto uses bf16 on a GPU that supports it, fp16 on an older one, and fp32 "
        "on a CPU.",
        choices={
            "auto": "Best for the device",
            "fp32": "32-bit (fp32)",
            "bf16": "16-bit (bf16)",
            "fp16": "16-bit (fp16)",
        },
    )
    quantize: Literal["none", "nf4", "int8"] = setting(
        "none",
        "Quantise",
        "Stores the base model's large layers in 4 bits (nf4) or 8 (int8): less memory, somewhat slower, hardly any "
        "loss of quality. The adapter keeps its precision.",
        choices={"none": "Off", "nf4": "4-bit (nf4)", "int8": "8-bit (int8)"},
    )
    checkpointing: Literal["off", "largest", "all"] = setting(
        "off",
        "Gradient checkpointing",
        "Recomputes activations in the backward pass instead of storing them. For all blocks it saves the most "
        "memory and takes about a third more time; for the largest blocks alone, less of both.",
        choices={"off": "Off", "largest": "Largest blocks", "all": "All blocks"},
    )
    tiled_vae: bool = setting(
        False,
        "Tiled VAE",
        "Always encodes and decodes large pictures in overlapping tiles of 512 pixels. Otherwise only where a whole "
        "picture does not fit in memory.",
        Level.EXPERT,
    )
    deterministic: bool = setting(
        False,
        "Deterministic",
        "Makes a repeated or resumed run on a GPU give the same bits; slower. On a CPU, resuming does so anyway, and "
        "a repeated run does if this is on.",
        Level.EXPERT,
    )
    cuda_graph: bool = setting(
        True,
        "CUDA graph",
        "Captures a step once and replays it, so that a fast GPU never waits for the CPU. If a step cannot be "
        "captured, the run says so and continues without.",
        Level.EXPERT,
    )

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_versions(cls, values: Any) -> Any:
        """In earlier versions gradient checkpointing was on or off."""
        if isinstance(values, dict) and isinstance(was := values.get("checkpointing"), bool):
            return {**values, "checkpointing": "all" if was else "off"}
        return values


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


SLICES: dict[str, type[_Slice]] = {
    "run": RunSettings,
    "dataset": DatasetSettings,
    "adapter": AdapterSettings,
    "loss": LossSettings,
    "optimizer": OptimizerSettings,
    "previews": PreviewSettings,
    "saving": SavingSettings,
    "machine": MachineSettings,
}
"""Slice -> its declaration, in the order of the form."""
FIELDS = {key: field for part in SLICES.values() for key, field in part.model_fields.items()}
"""Key -> how it is declared."""
SLICE_OF: dict[str, str] = {key: name for name, part in SLICES.items() for key in part.model_fields}
"""Key -> the slice that it is in."""


@dataclass(frozen=True)
class Spec:
    """One setting as surfaces need it."""

    key: str
    label: str
    help: str
    group: Group
    level: Level
    unit: str
    default: Any
    kind: Literal["text", "integer", "number", "switch", "choice", "lines"]
    low: float | None
    high: float | None

    @property
    def options(self) -> tuple[Choice, ...]:
        """The present choices, with titles and help; empty for other kinds of settings."""
        return tuple(_declaration(FIELDS[self.key]).choices())

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of ``options``."""
        return tuple(option.name for option in self.options)

    def title(self, value: Any) -> str:
        """A choice's name for people; any other value as text."""
        return next((option.title for option in self.options if option.name == value), str(value))


def _kind(field: FieldInfo) -> Literal["text", "integer", "number", "switch", "choice", "lines"]:
    if list(_declaration(field).choices()):
        return "choice"
    if field.annotation is str:
        return "text"
    if field.annotation is bool:
        return "switch"
    if field.annotation is int:
        return "integer"
    return "number" if field.annotation is float else "lines"


def _bound(field: FieldInfo, *names: str) -> float | None:
    """The first of pydantic's bounds ``names`` that the field has."""
    found = [getattr(part, name, None) for name in names for part in field.metadata]
    return next((bound for bound in found if bound is not None), None)


def _spec(key: str) -> Spec:
    field = FIELDS[key]
    declared = _declaration(field)
    return Spec(
        key,
        field.title or "",
        field.description or "",
        SLICES[SLICE_OF[key]].group,
        declared.level,
        declared.unit,
        field.get_default(call_default_factory=True),
        _kind(field),
        _bound(field, "ge", "gt"),
        _bound(field, "le", "lt"),
    )


SPECS: dict[str, Spec] = {key: _spec(key) for key in FIELDS}
"""Every setting in the order of its declaration, by key."""


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``"Did you mean rank?"`` for the nearest known word, otherwise a list of all."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."


def require_known(keys: Any, where: object = "") -> None:
    """Raises SettingsError for the first of ``keys`` that is no setting."""
    for key in keys:
        if key not in SPECS:
            raise SettingsError(
                f"There is no setting named {key!r}.", where=where, do=did_you_mean(str(key), list(SPECS))
            )


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
        key = key_of(first)
        message = first["msg"].removeprefix("Value error, ")
        what = f"{key}: {message} (it is {first['input']!r})." if key else f"{message}."
        raise SettingsError(what, where=where or key, do=SPECS[key].help if key in SPECS else "") from None


def layer(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` on top. One optimizer's learning rate is never carried over to another: an optimizer
    whose rates mean something else brings its usual ones, where ``changes`` give none.
    """
    before, after = (each.get("optimizer", SPECS["optimizer"].default) for each in (values, {**values, **changes}))
    known = before in SPECS["optimizer"].choices and after in SPECS["optimizer"].choices
    return {**values, **(optimizers.rates_after(before, after) if known else {}), **changes}


def from_text(key: str, text: str) -> Any:
    """The value of the setting ``key`` that was typed as ``text`` after ``--set key=``.

    Lists take ``|`` between their items, switches take on/off, true/false, yes/no, 1/0.

    Raises:
        SettingsError: the key is unknown, or the text is not a value of it.
    """
    require_known([key])
    spec = SPECS[key]
    if spec.kind == "lines":
        return [part.strip() for part in text.split("|") if part.strip()]
    try:
        accepted: Any = cast(Any, Literal)[spec.choices] if spec.choices else FIELDS[key].annotation
        return TypeAdapter(accepted).validate_python(text)
    except ValidationError as error:
        raise SettingsError(f"{key}: {error.errors()[0]['msg']} (it is {text!r}).", where=key, do=spec.help) from None

"""Every setting of a training run, declared once, in a slice for each group.

The page's form, the command line's flags, the presets' check and the table in ``docs/settings.md`` are made from
these declarations; a test asserts that they agree.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from lora_studio.config.declaration import Choice, Group, Level, NamedChoice, SettingsSlice, setting
from lora_studio.diffusion import registry as processes
from lora_studio.diffusion import samplers
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers


def _predictions() -> list[Choice]:
    return [NamedChoice("auto", "From the model"), *(NamedChoice(p.name, p.title) for p in processes.PROCESSES)]


def _samplers() -> list[Choice]:
    return [NamedChoice(name, samplers.TITLES[name]) for name in samplers.SAMPLERS]


class RunSettings(SettingsSlice):
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
    vae: str = setting(
        "",
        "VAE",
        "A .safetensors file with the VAE, for a base model without one or in place of its own.",
        Level.JOB,
    )
    text_encoders: list[str] = setting(
        list,
        "Text encoders",
        "The .safetensors files of the text encoders, for a base model without them or in place of its own.",
        Level.JOB,
    )
    name: str = setting(
        "",
        "Name",
        "Name of the run and of the adapter's file. If empty, the name of the folder of pictures.",
        Level.JOB,
    )
    trigger: str = setting(
        "",
        "Trigger word",
        "A word put before every caption that does not have it. In a prompt it later brings up the style.",
        Level.BASIC,
    )
    start_from: str = setting(
        "",
        "Start from adapter",
        "An adapter to continue from, whoever made it: a .safetensors file, or a folder that peft wrote. If empty, the "
        "run starts from nothing.",
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


class DatasetSettings(SettingsSlice):
    """How pictures and captions are read."""

    group: ClassVar[Group] = Group.DATASET

    nested: bool = setting(
        False,
        "Nested folders",
        "Read the pictures in all folders below, too. Without, only those in folders named like 10_style.",
    )
    masks: bool = setting(
        True,
        "Masks",
        "Learn only what is white in a picture's mask, where it has one: a-masklabel.png or masks/a.png for a.png.",
    )
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
    caption_lines: Literal["variants", "joined"] = setting(
        "variants",
        "Lines of a caption",
        "Whether each line of a caption is a caption of its own, one of which is drawn each time, or the lines are "
        "joined to one text.",
        choices={"variants": "A caption each", "joined": "One text"},
    )
    caption_prefix: str = setting(
        "",
        "Caption prefix",
        "Text put before every caption, after the trigger word. It is joined with a space: end it with a comma if "
        "tags follow.",
    )
    caption_suffix: str = setting(
        "",
        "Caption suffix",
        "Text put after every caption. It is joined with a space: begin it with a comma if tags precede it.",
    )
    wildcards: bool = setting(
        True,
        "Wildcards in captions",
        "Read {red|blue} in a caption as one of its options, drawn each time. Doubled braces are literal ones; off "
        "reads all braces as text.",
        Level.EXPERT,
    )
    caption_tokens: int = setting(
        225,
        "Caption length",
        "Most tokens of a caption that are read, in chunks of 75; what follows is left out, with a warning. A text "
        "encoder with another window takes as many of its own chunks as hold so many tokens.",
        unit="tokens",
        ge=75,
        le=1500,
    )
    clip_skip: int = setting(
        0,
        "Clip skip",
        "For SD 1.x: 1 reads the text encoder after its last layer, 2 before it, as many anime models were trained. 0 "
        "takes what the base model's file says, else 1.",
        ge=0,
        le=2,
    )
    shuffle_tags: bool = setting(
        False,
        "Shuffle tags",
        "Shuffle a caption's comma-separated tags every time it is used. Those before ||| stay in place, and so do "
        "those after a second |||.",
    )
    keep_tags: int = setting(
        1,
        "Tags kept in place",
        "Number of leading tags that are neither shuffled nor left out, where a caption has no |||. The trigger word "
        "never is. Only with shuffled tags or tag dropout.",
        ge=0,
        le=100,
    )
    tag_dropout: float = setting(
        0.0,
        "Tag dropout",
        "Share of a caption's tags that are left out each time it is used, so that prompts need not name them all. "
        "Tags kept in place, protected tags and the trigger word never are.",
        ge=0,
        le=0.9,
    )
    protected_tags: list[str] = setting(
        list, "Protected tags", "Tags that tag dropout never leaves out, one a line. Only with tag dropout."
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


class AdapterSettings(SettingsSlice):
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


class LossSettings(SettingsSlice):
    """What a step minimises."""

    group: ClassVar[Group] = Group.LOSS

    prediction: str = setting(
        "auto",
        "Prediction",
        "What the base model was trained to predict. Auto reads it from its files, and asks the model where they do "
        "not say. A rectified flow without a mark must be set by hand.",
        Level.EXPERT,
        choices=_predictions,
    )
    zero_snr: Literal["auto", "marked", "on", "off"] = setting(
        "auto",
        "Zero terminal SNR",
        "Whether the base model's noise ends without any signal (Lin et al. 2024). Auto reads it from its files; where "
        "they do not say, it is on for SDXL models that predict v. Marked leaves it off there.",
        Level.EXPERT,
        choices={"auto": "From the model", "marked": "Only if its files say so", "on": "On", "off": "Off"},
    )
    flow_shift: float = setting(
        0.0,
        "Flow shift",
        "How far a rectified flow's timesteps are moved towards the noise, in training and in previews. 0 takes the "
        "model's own, or none (1).",
        Level.EXPERT,
        ge=0,
        le=20,
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
    mask_outside: float = setting(
        0.0,
        "Weight outside masks",
        "How much of the loss counts where a mask is black: 0 learns nothing there, 1 as much as where it is white.",
        ge=0,
        le=1,
    )
    normalize_masks: bool = setting(
        True,
        "Normalise masks",
        "Give every picture the same weight, however much of it is masked. Off lets a picture count as much as its "
        "white area.",
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Helps with styles much darker or brighter than the base model's own images. 0.05 is a mild value.",
        ge=0,
        le=1,
    )


class OptimizerSettings(SettingsSlice):
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


class PreviewSettings(SettingsSlice):
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
    guidance_rescale: float = setting(
        -1.0,
        "Guidance rescale",
        "How far a preview's contrast is scaled back to what it would be without guidance (Lin et al. 2024). -1 "
        "chooses: 0.7 for models that predict v with zero terminal SNR, which guidance overexposes, else 0.",
        Level.EXPERT,
        ge=-1,
        le=1,
    )
    negative: str = setting("", "Negative prompt", "What previews should not show.")
    prompt_weights: bool = setting(
        True,
        "Weights in prompts",
        "Reads (word:1.2), [word] and BREAK in prompts as A1111 does. Off reads brackets as they are written, "
        "as those of captions always are.",
    )


class SavingSettings(SettingsSlice):
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


class MachineSettings(SettingsSlice):
    """Where and how it is computed."""

    group: ClassVar[Group] = Group.MACHINE

    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = setting(
        "auto",
        "Device",
        "Where to train; auto uses the fastest device.",
        choices={
            "auto": "Fastest available",
            "cpu": "CPU",
            "cuda": "NVIDIA or AMD GPU",
            "xpu": "Intel GPU",
            "mps": "Apple GPU",
        },
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


SLICES: dict[str, type[SettingsSlice]] = {
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

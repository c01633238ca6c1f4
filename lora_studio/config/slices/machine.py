"""Where and how it is computed: device, precision, memory."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting


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
        "Quantize",
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

"""What is drawn while training."""

from __future__ import annotations

from typing import ClassVar

from lora_studio.config.declaration import Choice, Group, Level, NamedChoice, SettingsSlice, setting
from lora_studio.diffusion import samplers


def _samplers() -> list[Choice]:
    return [NamedChoice(name, sampler.title, sampler.help) for name, sampler in samplers.DECLARED.items()]


class PreviewSettings(SettingsSlice):
    """What is drawn while training."""

    group: ClassVar[Group] = Group.PREVIEWS

    preview_prompts: list[str] = setting(
        list,
        "Preview prompts",
        "One prompt per line, drawn while it trains. Empty: four plain subjects. {trigger} stands for the trigger "
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

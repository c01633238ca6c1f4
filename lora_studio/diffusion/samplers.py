"""The samplers that people can choose from, each declared once. No torch: forms and command lines list them before it
is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sampler:
    """A way to remove noise.

    Attributes:
        title: its name for people.
        scheduler: diffusers' class for a model that predicts noise or velocity. ``options`` of it differ from those of
            the model's own configuration.
        purpose: what it is for: a clause.
        steps, guidance: what is usual with it.
        from_the_end: whether it always begins at the last timestep, as few-step models were trained to.
        most_steps: how many it can take.
    """

    title: str
    scheduler: str
    purpose: str = ""
    steps: int = 20
    guidance: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)
    from_the_end: bool = False
    most_steps: int = 1000

    @property
    def help(self) -> str:
        """What a few-step sampler is for, with its usual steps and guidance; others need none."""
        usual = f"{self.steps} steps, guidance {self.guidance:g}"
        return f"{self.title} {self.purpose}, {usual}" if self.from_the_end else ""


_TRAILING = {"timestep_spacing": "trailing"}
DECLARED = {
    "ddim": Sampler("DDIM", "DDIMScheduler", "repeatable; 30 steps or more"),
    "euler": Sampler("Euler", "EulerDiscreteScheduler", "plain and repeatable"),
    "euler_a": Sampler("Euler ancestral", "EulerAncestralDiscreteScheduler", "draws new noise at every step"),
    "dpm++": Sampler("DPM++ 2M", "DPMSolverMultistepScheduler", "good in 20 steps"),
    "unipc": Sampler("UniPC", "UniPCMultistepScheduler", "good in 10 to 20 steps"),
    # Luo et al. 2023, LCM-LoRA: A Universal Stable-Diffusion Acceleration Module, §3
    "lcm": Sampler("LCM", "LCMScheduler", "for LCM LoRAs", 6, 1.5, from_the_end=True, most_steps=50),
    # Zheng et al. 2024, Trajectory Consistency Distillation, §4.2; γ = 0.3 is diffusers' default
    "tcd": Sampler("TCD", "TCDScheduler", "for TCD and Hyper-SD LoRAs", 6, 1.0, from_the_end=True, most_steps=50),
    # Lin et al. 2024, SDXL-Lightning; Sauer et al. 2023, Adversarial Diffusion Distillation
    "euler_trailing": Sampler(
        "Euler trailing", "EulerDiscreteScheduler", "for Lightning and Turbo", 6, 1.0, _TRAILING, from_the_end=True
    ),
    # Ren et al. 2024, Hyper-SD, the LoRAs for a fixed number of steps
    "ddim_trailing": Sampler(
        "DDIM trailing",
        "DDIMScheduler",
        "for Hyper-SD of a fixed number of steps",
        8,
        1.0,
        _TRAILING,
        from_the_end=True,
    ),
}
"""What the setting ``sampler`` can be."""
SAMPLERS = {name: sampler.scheduler for name, sampler in DECLARED.items()}
"""The setting ``sampler`` -> diffusers' class for a model that predicts noise or velocity."""
TITLES = {name: sampler.title for name, sampler in DECLARED.items()}
"""Their names for people."""
NAMES = tuple(DECLARED)

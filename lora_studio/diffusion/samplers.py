"""The samplers that people can choose from. No torch: forms and command lines list them before it is loaded."""

from __future__ import annotations

SAMPLERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The setting ``sampler`` -> diffusers' class for a model that predicts noise or velocity."""
TITLES = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler ancestral",
    "dpm++": "DPM++ 2M",
    "unipc": "UniPC",
}
"""Their names for people."""
NAMES = tuple(SAMPLERS)
"""What the setting ``sampler`` can be."""

"""The starter: a small text-to-image model of Stable Diffusion's architecture, and two sample styles to train on.

This module only names paths and imports nothing but the standard library. `make/` holds the scripts that made it all.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The model's folder, in diffusers' layout: `StableDiffusionPipeline.from_pretrained(MODEL)`."""

SAMPLES = Path(__file__).parent / "samples"
"""One folder per sample style: pictures, and a `.txt` file with the caption next to each."""


def sample_styles() -> list[Path]:
    """The folders of the sample styles, by name."""
    return sorted(folder for folder in SAMPLES.iterdir() if folder.is_dir())


def is_sample(folder: Path | str) -> bool:
    """Whether ``folder`` is one of the sample styles."""
    return Path(folder).resolve().parent == SAMPLES.resolve()

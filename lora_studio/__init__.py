"""LoRA Studio: train, mix and export style adapters for Stable Diffusion, on your own machine."""

__version__ = "0.1.0"

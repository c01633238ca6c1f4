"""A UNet's step with less work between its matrix products: see ``blocks``."""

from lora_studio.models.fused.blocks import disable, enable

__all__ = ["disable", "enable"]

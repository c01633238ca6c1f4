"""A UNet's step with less work between its products: see ``unet``."""

from lora_studio.models.fused.blocks import disable, enable

__all__ = ["disable", "enable"]

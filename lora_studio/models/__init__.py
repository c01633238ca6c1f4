"""Base models: which there are, loading them, and putting adapters into them."""

from lora_studio.models.base import Base
from lora_studio.models.load import load

__all__ = ["Base", "load"]

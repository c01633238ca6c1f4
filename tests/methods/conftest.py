"""The tiny model, pictures and settings of the training's tests."""

from tests.training.conftest import new_run, pictures, settings, tiny_base

__all__ = ["new_run", "pictures", "settings", "tiny_base"]

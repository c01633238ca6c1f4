"""The page. Importing anything here loads gradio, so it is done once, quickly, and with its voice to the outside
switched off.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@contextmanager
def _without_stubs() -> Generator[None]:
    """Gradio writes type stubs for each of its components whenever it is imported, which takes a third of that import.

    It skips a class that has no source file, as OSError from ``inspect.getfile`` says.
    """
    module: Any = inspect  # whose functions are not declared to be replaceable
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stubs are wanted")
        return original(thing)

    module.getfile = getfile
    try:
        yield
    finally:
        module.getfile = original


with _without_stubs():
    import gradio  # noqa: F401

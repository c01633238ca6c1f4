"""Libraries that take long to import: when that is done, and how."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast


def bitsandbytes() -> ModuleType:
    """The library that packs weights and an optimizer's states. Until it is asked for, it is not installed to other
    libraries (see ``lora_studio``): peft imports it wherever it finds it, which took a second of each process's start.

    Raises:
        ImportError, OSError, RuntimeError: it does not work on this machine.
    """
    modules = cast(dict[str, Any], sys.modules)
    if modules.get("bitsandbytes", True) is None:
        del modules["bitsandbytes"]
        if peft := modules.get("peft.import_utils"):  # it has noted that there is none
            peft.is_bnb_available.cache_clear()
            peft.is_bnb_4bit_available.cache_clear()
    return importlib.import_module("bitsandbytes")


@contextmanager
def importing() -> Generator[None]:
    """Imports of thousands of modules, in which nothing is looked for that could be freed: what they make stays to the
    end. Looking for it again and again took a seventh of a process's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

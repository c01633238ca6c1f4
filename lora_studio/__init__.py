"""LoRA Studio: train, mix and export style adapters for Stable Diffusion, on your own machine."""

import logging
import sys
from typing import Any, cast

__version__ = "0.1.0"

# The optional package `kernels` fetches compiled code from the hub as soon as bitsandbytes finds it. The studio fetches
# nothing unasked: to every library in its processes it is not installed.
_modules = cast(Any, sys.modules)
_modules.setdefault("kernels", None)
_modules.setdefault("bitsandbytes", None)  # until ``libraries.bitsandbytes`` is asked for it
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it would advise to install that package

"""LoRA Studio: train, mix and export style adapters for Stable Diffusion, on your own machine."""

import logging
import sys
from typing import Any, cast

__version__ = "0.1.0"

# The optional package `kernels` fetches compiled code from the hub as soon as bitsandbytes, which diffusers imports,
# finds it. The studio fetches nothing unasked: to every library in its processes it is not installed.
cast(Any, sys.modules).setdefault("kernels", None)
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it would advise to install that package

"""The training methods by name."""

from __future__ import annotations

from lora_studio.errors import SettingsError
from lora_studio.methods.dora import Dora
from lora_studio.methods.lora import Lora
from lora_studio.methods.method import Method
from lora_studio.methods.pissa import Pissa

METHODS: dict[str, Method] = {method.name: method for method in (Lora(), Dora(), Pissa())}
"""Name -> method, in the order in which they are offered. Another one may be added while the studio runs: everything
looks a method up when it needs it.
"""


def get(name: str) -> Method:
    """The method that the setting ``method`` names.

    Raises:
        SettingsError: there is none.
    """
    if name not in METHODS:
        raise SettingsError(
            f"There is no training method named {name!r}.", where="method", do=f"Choose one of: {', '.join(METHODS)}."
        )
    return METHODS[name]

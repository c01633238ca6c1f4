"""The training methods by name."""

from __future__ import annotations

from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.methods.adapter_layers import AdapterLayers
from lora_studio.methods.dora import Dora
from lora_studio.methods.full import Full
from lora_studio.methods.ia3 import Ia3
from lora_studio.methods.loha import Loha
from lora_studio.methods.lokr import Lokr
from lora_studio.methods.lora import Lora
from lora_studio.methods.lora_ga import LoraGa
from lora_studio.methods.method import Method
from lora_studio.methods.oft import Oft
from lora_studio.methods.pissa import Pissa
from lora_studio.methods.prefix_tuning import PrefixTuning
from lora_studio.methods.textual_inversion import PromptTuning, TextualInversion

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(Lora(), Dora(), Pissa(), LoraGa(), Loha(), Lokr(), Oft(), Ia3()),
        *(TextualInversion(), PromptTuning(), PrefixTuning(), Full(), AdapterLayers()),
    )
}
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
            tr("There is no training method named {name!r}.", name=name),
            where="method",
            do=tr("Choose one of: {names}.", names=", ".join(METHODS)),
        )
    return METHODS[name]

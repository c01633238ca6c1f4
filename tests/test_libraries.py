"""Libraries that take long to import."""

import gc
import sys
from functools import lru_cache
from types import ModuleType

import pytest

from lora_studio import libraries


def test_bitsandbytes_is_there_for_others_once_it_was_asked_for(monkeypatch):
    """peft asks once whether it is installed and keeps the answer: a packed base model would get no adapter."""
    found, peft = ModuleType("bitsandbytes"), ModuleType("peft.import_utils")
    for name in ("is_bnb_available", "is_bnb_4bit_available"):
        setattr(peft, name, lru_cache(lambda: sys.modules.get("bitsandbytes") is not None))
    monkeypatch.setitem(sys.modules, "peft.import_utils", peft)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert not peft.is_bnb_available() and not peft.is_bnb_4bit_available()

    def imported(name):
        monkeypatch.setitem(sys.modules, name, found)
        return found

    monkeypatch.setattr(libraries.importlib, "import_module", imported)
    assert libraries.bitsandbytes() is found
    assert peft.is_bnb_available() and peft.is_bnb_4bit_available()
    assert libraries.bitsandbytes() is found


def test_a_fault_while_importing_leaves_the_garbage_collector_on():
    with pytest.raises(ImportError), libraries.importing():
        assert not gc.isenabled()
        raise ImportError("broken")
    assert gc.isenabled()

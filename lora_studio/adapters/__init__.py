"""Adapter files and their algebra. ``read``, ``write``, ``header``; the rest by its module.

Names are loaded when they are first asked for, so that headers can be listed without torch.
"""

from importlib import import_module

_HOMES = {"Adapter": "adapter", "Factors": "adapter", "read": "formats", "write": "formats", "header": "container", "Header": "container"}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), "read_header" if name == "header" else name)

"""Adapter files and their algebra: ``read``, ``write``, ``header``, ``summary``; the rest by its module.

Names are loaded when they are first asked for, so that headers can be listed without torch.
"""

from importlib import import_module

_HOMES = {
    "Adapter": "adapter.Adapter",
    "Factors": "adapter.Factors",
    "read": "formats.read",
    "write": "formats.write",
    "Header": "container.Header",
    "header": "container.read_header",
    "Summary": "listing.Summary",
    "summary": "listing.summary",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)

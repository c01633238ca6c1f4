"""Paths as people type and paste them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lora_studio import files

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}


def tidy(text: str | None) -> str:
    """A path as it was typed or pasted, without the quotes that some systems copy with it, also from a ``file://``
    address or with a terminal's backslashes. Absolute if it exists, since a worker may run in another folder; anything
    else, such as a name on a hub, stays as it is.
    """
    path = _unquoted(re.split(r"[\r\n]", (text or "").strip(), maxsplit=1)[0].strip())
    if path[:7].lower() == "file://":
        path = _of_address(path)
    found = files.absolute(path)
    if os.name != "nt" and "\\" in path and not os.path.exists(found):
        plain = files.absolute(re.sub(r"\\(.)", r"\1", path))
        return plain if os.path.exists(plain) else found
    return found


def _unquoted(text: str) -> str:
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text.strip("\"'")


def _of_address(address: str) -> str:
    """The path of a ``file://`` address; of another computer's as Windows writes it."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:
        return address
    host = "" if parts.hostname in (None, "localhost", "127.0.0.1") else f"//{parts.hostname}"
    rest = parts.path + (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")
    return url2pathname(host + rest)

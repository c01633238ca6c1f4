"""Messages in JSON that one process of the studio prints for another: with their parts, so that the page says them in
its reader's language. Other programs get English text.
"""

from __future__ import annotations

import os
from typing import Any

from lora_studio.language.message import Message, english, from_data, to_data

ASKED = "LORA_STUDIO_MESSAGES"
"""Set in the environment of a process whose JSON the studio itself reads."""
_KEYS = {"text", "template", "plural", "parts"}


def handed(data: Any) -> Any:
    """``data`` as it is printed in JSON: its messages with their parts if the studio reads it, else in English."""
    if isinstance(data, Message):
        return to_data(data) if os.environ.get(ASKED) else english(data)
    if isinstance(data, list | tuple):
        return [handed(one) for one in data]
    if not isinstance(data, dict):
        return data
    if data.keys() == _KEYS:  # a message that pydantic wrote
        return handed(from_data(data))
    return {key: handed(one) for key, one in data.items()}


def taken(data: Any) -> Any:
    """``data`` with messages in place of what ``handed`` made of them."""
    if isinstance(data, list):
        return [taken(one) for one in data]
    if not isinstance(data, dict):
        return data
    return from_data(data) if data.keys() == _KEYS else {key: taken(one) for key, one in data.items()}

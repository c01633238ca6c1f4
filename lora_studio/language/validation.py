"""What pydantic finds wrong with a value, as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_studio.language.message import tr


def fault(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, as a sentence goes on after a colon, without its full stop.

    >>> fault({"type": "less_than_equal", "ctx": {"le": 64.0}, "msg": "Input should be less than or equal to 64"})
    'input should be less than or equal to 64'
    """
    match error["type"]:
        case "greater_than_equal":
            return tr("input should be greater than or equal to {bound}", bound=_bound(error, "ge"))
        case "greater_than":
            return tr("input should be greater than {bound}", bound=_bound(error, "gt"))
        case "less_than_equal":
            return tr("input should be less than or equal to {bound}", bound=_bound(error, "le"))
        case "less_than":
            return tr("input should be less than {bound}", bound=_bound(error, "lt"))
        case "int_type":
            return tr("input should be a valid integer")
        case "int_from_float":
            return tr("input should be a valid integer, got a number with a fractional part")
        case "float_type":
            return tr("input should be a valid number")
        case "finite_number":
            return tr("input should be a finite number")
        case "string_type":
            return tr("input should be a valid string")
        case "missing":
            return tr("field required")
        case "value_error":  # of a validator of ours, which may have said it as a message
            return error["ctx"]["error"].args[0]
    return error["msg"][:1].lower() + error["msg"][1:]


def _bound(error: Mapping[str, Any], name: str) -> float:
    bound = error["ctx"][name]
    return int(bound) if bound == int(bound) else bound

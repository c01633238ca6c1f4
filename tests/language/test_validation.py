"""What pydantic finds wrong, as messages."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from lora_studio.language import Message, fault, tr


def _refuse(value: int) -> int:
    raise ValueError(tr("{value} is odd", value=value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Annotated[int, Field(ge=1)], 0),
        (Annotated[float, Field(ge=0, le=1)], 1.5),
        (Annotated[float, Field(gt=0.5)], 0.5),
        (Annotated[float, Field(lt=1e-3)], 1),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan")),
        (int, 0.5),
        (int, None),
        (float, None),
        (str, 3),
    ],
)
def test_a_message_says_in_english_what_pydantic_says(kind: Any, value: Any):
    """It names another bound than the one that was crossed, or is no message and so stays English."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(value)
    error = raised.value.errors(include_url=False)[0]
    said = fault(error)
    assert isinstance(said, Message)
    assert said == error["msg"][:1].lower() + error["msg"][1:]


def test_what_our_own_validators_say_stays_a_message():
    """The sentence of a validator loses its parts in pydantic's "Value error, …", and cannot be translated."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Annotated[int, AfterValidator(_refuse)]).validate_python(3)
    said = fault(raised.value.errors(include_url=False)[0])
    assert isinstance(said, Message) and said == "3 is odd"


def test_any_other_error_is_as_pydantic_says_it():
    """An error that is not known here prevents the answer, where it could be said in English."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Annotated[str, Field(min_length=2)]).validate_python("a")
    assert fault(raised.value.errors(include_url=False)[0]) == "string should have at least 2 characters"

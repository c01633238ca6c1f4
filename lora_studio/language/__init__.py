"""The languages of the page: messages that keep their parts, and their translations."""

from lora_studio.language.catalogue import ENGLISH, LANGUAGES, current, preferred, using
from lora_studio.language.dates import clock, date
from lora_studio.language.message import (
    Message,
    Told,
    both,
    declared,
    either,
    english,
    few,
    in_row,
    in_sequence,
    ntr,
    number,
    tr,
)
from lora_studio.language.validation import fault

__all__ = [
    "ENGLISH", "LANGUAGES", "Message", "Told", "both", "clock", "current", "date", "declared", "either", "english",
    "fault", "few", "in_row", "in_sequence", "ntr", "number", "preferred", "tr", "using",
]  # fmt: skip

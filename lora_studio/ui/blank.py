"""What stands in a room, or a part of one, while there is nothing to show."""

from __future__ import annotations

from lora_studio.ui import words
from lora_studio.ui.icons import icon


def blank(sign: str, title: str, sentences: str, ways: str = "") -> str:
    """An empty place that says what to do next, as HTML.

    Args:
        sign: one of ``icons.ICONS``.
        title: what is missing, or the next step.
        sentences: HTML of the page's own, in which ``press`` and ``link`` stand; nothing that a user named.
        ways: links that lead on, as HTML.
    """
    onwards = f'<div class="ways">{ways}</div>' if ways else ""
    return f'<div class="blank">{icon(sign)}<h2>{title}</h2><p>{sentences}</p>{onwards}</div>'


def way(tab: str, label: str, primary: bool = False) -> str:
    """A link to another room, drawn as a button, as HTML."""
    return f'<a class="way{" primary" * primary}" href="#{tab}">{label}</a>'


def press(label: str) -> str:
    """A button's label within a sentence that says to press it, as HTML."""
    return f"<b>{words.text(label)}</b>"


def link(tab: str, label: str) -> str:
    """A link to another room within a sentence, as HTML."""
    return f'<a href="#{tab}">{words.text(label)}</a>'

"""What an edit of captions would change, as HTML: before and after in one line, with the changed parts marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from lora_studio.curation.edits import CaptionChange
from lora_studio.language import tr
from lora_studio.ui import words

MOST_SHOWN = 20
_AROUND = 40
"""Characters that are shown of unchanged text on either side of a change."""
_PIECE = re.compile(r"\n|[^\S\n]+|,[^\S\n]*|[^\s,]+[^\S\n]*")


def listed(changes: Sequence[CaptionChange]) -> str:
    """The first changes, and how many more there are."""
    rows = "".join(
        f"<li><code>{words.text(one.name)}</code><p>{marked(one.before, one.after)}</p></li>"
        for one in changes[:MOST_SHOWN]
    )
    return f'<ul class="caption-changes" tabindex="0">{rows}</ul>{more(len(changes) - MOST_SHOWN)}'


def more(left: int) -> str:
    """That a list goes on, as HTML; empty if it does not."""
    return f'<p class="hint">{words.text(tr("and {count:,} more", count=left))}</p>' if left > 0 else ""


def marked(before: str, after: str) -> str:
    """One text with what goes in ``<del>`` and what comes in ``<ins>``. Unchanged text far from a change is cut, with
    a sign.

    >>> marked("drawing, a boat", "a boat, evening")
    '<del>drawing, </del>a boat<ins>, evening</ins>'
    """
    parts, found = [], _compared(before, after)
    for place, (gone, come, same) in enumerate(found):
        if same:
            parts.append(_shortened(gone, place == 0, place == len(found) - 1))
            continue
        parts += [f"<del>{_lines(gone)}</del>"] * bool(gone)
        parts += [f"<ins>{_lines(come)}</ins>"] * bool(come)
    return "".join(parts)


def new(before: str, after: str) -> str:
    """All of the new text, with what is not in the old one in ``<ins>``.

    >>> new("drawing, a boat", "a boat, evening")
    'a boat<ins>, evening</ins>'
    """
    parts = (
        _lines(come) if same else f"<ins>{_lines(come)}</ins>" for _, come, same in _compared(before, after) if come
    )
    return "".join(parts)


def _compared(before: str, after: str) -> list[tuple[str, str, bool]]:
    """The texts in parts: (of the old one, of the new one, whether they are the same)."""
    old, come = _PIECE.findall(before), _PIECE.findall(after)
    codes = SequenceMatcher(None, old, come, autojunk=False).get_opcodes()
    return [("".join(old[a:b]), "".join(come[c:d]), what == "equal") for what, a, b, c, d in codes]


def _shortened(text: str, first: bool, last: bool) -> str:
    """Unchanged text: only what is next to a change, where it is long."""
    before, after = 0 if first else _AROUND, 0 if last else _AROUND
    if len(text) <= before + after + 20:
        return _lines(text)
    return f"{_lines(text[:before])}<span>…</span>{_lines(text[len(text) - after :])}"


def _lines(text: str) -> str:
    return words.text(text).replace("\n", "<i>⏎</i><br>")

"""The states that a run has saved: a star keeps one for good, and from each another run can branch."""

from __future__ import annotations

import time

from lora_studio.runs.checkpoints import Saved
from lora_studio.ui import words


def html(states: list[Saved]) -> str:
    """A row for each state, the newest first."""
    rows = "".join(_row(one) for one in reversed(states))
    return f'<ul class="saved">{rows}</ul><p class="hint">A starred state is kept for good. A branch is a new run that begins there; this one stays as it is.</p>'


def _row(one: Saved) -> str:
    when = time.strftime("%d %b, %H:%M", time.localtime(one.at)).lstrip("0")
    act, title = ("unstar", "Let it go with the others") if one.starred else ("star", "Keep it for good")
    star = f'<button type="button" class="star" data-act="{act}" data-step="{one.step}" title="{title}" aria-label="{title}" aria-pressed="{str(one.starred).lower()}">★</button>'
    branch = f'<button type="button" class="quiet" data-act="branch" data-step="{one.step}">Branch from here</button>'
    return f"<li>{star}<b>step {one.step:,}</b><span>{when} · {words.size(one.size)}</span>{branch}</li>"


CHOOSE = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, step: button.dataset.step});
});
"""
"""Tells which button was pressed; for ``gr.HTML(js_on_load=...)``."""

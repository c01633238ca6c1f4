"""A run's saved states. A star protects one from deletion, and a new run can branch from any of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lora_studio.runs.checkpoints import Damaged, Saved
from lora_studio.ui import words

_HINT = "Starred states are never deleted. Branching starts a new run from a saved state; this run stays as it is."


def html(states: list[Saved], damaged: Sequence[Damaged] = ()) -> str:
    """One row per state, newest first, then those that are damaged."""
    bad = {one.folder for one in damaged}
    rows = "".join(_row(one) for one in reversed(states) if one.folder not in bad)
    rows += "".join(f"<li><b>step {one.step:,}</b><span>damaged: {words.text(one.why)}</span></li>" for one in damaged)
    return f'<ul class="saved">{rows}</ul><p class="hint">{_HINT}</p>'


def _row(one: Saved) -> str:
    when = time.strftime("%d %b, %H:%M", time.localtime(one.at)).lstrip("0")
    act, title = ("unstar", "Remove the star") if one.starred else ("star", "Never delete this state")
    about = f'title="{title}" aria-label="{title}" aria-pressed="{str(one.starred).lower()}"'
    star = f'<button type="button" class="star" data-act="{act}" data-step="{one.step}" {about}>★</button>'
    branch = f'<button type="button" class="quiet" data-act="branch" data-step="{one.step}">Branch from here</button>'
    return f"<li>{star}<b>step {one.step:,}</b><span>{when} · {words.size(one.size)}</span>{branch}</li>"


CHOOSE = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, step: button.dataset.step});
});
"""
"""Reports which button was pressed; for ``gr.HTML(js_on_load=...)``."""

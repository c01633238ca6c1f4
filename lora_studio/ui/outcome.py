"""The state of work that takes a while, as HTML: busy, done, failed, proved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.blocks import Block

from lora_studio import files
from lora_studio.errors import StudioError
from lora_studio.language import number, tr
from lora_studio.ui import words

Updates = dict[Block, Any]
"""What a handler changes: component -> its new value, or ``gr.update(…)``. Components that are left out stay as they
are.
"""

WORK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How handlers are bound that take long and show their own progress."""

PROGRAMS = {"comfyui": "ComfyUI", "forge": "Forge", "a1111": "A1111", "diffusers": "diffusers", "peft": "peft"}
"""Programs that a file is proved for, by the proof's own names."""


_BUSY = """
() => {
  const button = document.getElementById('%(id)s');
  if (button) [button.dataset.busy, button.disabled] = [%(text)s, true];
}
"""
_FREE = """
() => {
  const button = document.getElementById('%(id)s');
  if (!button?.dataset.busy) return;
  delete button.dataset.busy;
  button.disabled = false;
  if (document.activeElement === document.body) button.focus({preventScroll: true});
}
"""


def busy(what: str) -> str:
    """That something is being done."""
    return f'<p class="sentence running" role="status"><span class="dot"></span>{words.text(what)}</p>'


def done(what: str, more: str = "", to: str = "") -> str:
    """That something was done; ``to`` is the address of its result."""
    link = f' <a href="{words.text(to)}">{words.text(tr("Show it"))}</a>' if to else ""
    rest = f"<p>{words.text(more)}</p>" if more else ""
    return f'<div class="notice right" role="status"><b>{words.text(what)}</b>{link}{rest}</div>'


def wrong(error: StudioError | OSError) -> str:
    """The error as a notice, with the table of the proof if a proof failed."""
    if isinstance(error, OSError):
        what, where = tr("The disk reports an error: {reason}.", reason=files.reason(error)), error.filename or ""
        return words.notice("wrong", what, where, files.advice(error))
    rows = error.details.get("proof")
    return words.notice("wrong", error.what, error.where, error.do) + (proof(rows) if rows else "")


def bound(button: gr.Button, meanwhile: str, event: Callable[..., Any], *work: Any, **how: Any) -> Any:
    """Binds ``work`` (a handler, its inputs and outputs) to an ``event``. Until it has ended, ``button`` says what it
    does ``meanwhile`` and cannot be pressed. The browser does that by itself, before it asks the server: a busy machine
    answers only seconds later.
    """
    by_itself: dict[str, Any] = {"queue": False, **WORK}
    event(
        None, js=_BUSY % {"id": button.elem_id, "text": json.dumps(str(meanwhile), ensure_ascii=False)}, **by_itself
    )  # first: they run one by one
    working = event(*work, **how)
    working.then(None, js=_FREE % {"id": button.elem_id}, **by_itself)
    return working


def told(meanwhile: str, act: Callable[[], str]) -> Iterator[Any]:
    """Updates of one component: that ``act`` is at work, then the HTML that it gave or its error."""
    yield gr.update(value=busy(meanwhile), visible=True)
    try:
        shown = act()
    except (StudioError, OSError) as error:
        shown = wrong(error)
    yield gr.update(value=f'<div class="outcome">{shown}</div>', visible=True)


def proof(rows: list[dict[str, Any]]) -> str:
    """The table of the programs that read a file, and how exactly; below a program that does not, the reason."""
    titles = (tr("Read by"), tr("Proof"), tr("Layers"), tr("Off by"))
    head = "".join(f"<th>{words.text(title)}</th>" for title in titles)
    return f'<table class="proof"><thead><tr>{head}</tr></thead><tbody>{"".join(map(_row, rows))}</tbody></table>'


def _row(row: dict[str, Any]) -> str:
    name = words.text(PROGRAMS.get(row["target"], row["target"]))
    kind, verdict = ("passed", tr("passed")) if row["passed"] else ("failed", tr("failed"))
    layers = tr("{matched:,} of {modules:,}", matched=row["matched"], modules=row["modules"])
    why = "" if row["passed"] else f'<tr class="why"><td colspan="4">{words.text(row["note"])}</td></tr>'
    cells = f'<td class="{kind}">{words.text(verdict)}</td><td>{layers}</td><td>{_difference(row["worst"])}</td>'
    return f'<tr><th scope="row">{name}</th>{cells}</tr>{why}'


def _difference(worst: float | None) -> str:
    """A relative difference.

    >>> [_difference(worst) for worst in (None, 0, 3.2e-8, 0.0123)]
    ['not read', 'nothing', '3.2e-08', '1.2 %']
    """
    if worst is None:
        return tr("not read")
    if worst == 0:
        return tr("nothing")
    return number(worst, ".1e") if worst < 1e-3 else tr("{share:.1f} %", share=100 * worst)


def share(part: float) -> str:
    """A share in percent, with more digits where it is close to 1.

    >>> share(0.912), share(0.99987), share(1.0)
    ('91.2 %', '99.987 %', '100.0 %')
    """
    return tr("{share:.3f} %", share=100 * part) if 0.999 < part < 1 else tr("{share:.1f} %", share=100 * part)

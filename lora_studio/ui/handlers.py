"""What holds for every handler of the page, whatever it does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gradio as gr
import gradio.utils

from lora_studio.ui.outcome import WORK
from lora_studio.ui.translated import answering

_SIGN = 15.0
"""Seconds between two signs that a page is still connected."""
_LOOK = 0.1
"""Seconds between two looks whether the studio is to end."""
_ONCE = ("guide", "send-pressed")
"""Parts whose press starts a run, or opens what lies over the page: one that comes before that must not do it again."""
_CHOSEN = (gr.Dropdown, gr.Number, gr.Radio, gr.Textbox)
_KEPT = {"blur", "input", "select"}
"""What fields report of which the last must count, or each where it is a choice that is added to a list."""
_ending = threading.Event()
"""Set when the studio is to end."""


def prepare(studio: gr.Blocks) -> None:
    """Makes the handlers of ``studio`` change what they mean to change and nothing else, all answers arrive, and every
    press in a list and the last choice in a field count. By default gradio drops an event while an earlier one of the
    same handler is being answered. A button may do without the second one; of a list, it may be another row's, and of a
    field another choice.
    """
    vars(gradio.utils)["diff"] = _replacement
    with studio:
        studio.load(_stay, None, None, concurrency_limit=None, **WORK)
    lists = {number for number, one in studio.blocks.items() if isinstance(one, gr.HTML) and one.elem_id not in _ONCE}
    for handler in studio.fns.values():
        if not handler.queue and any(part in lists for part, _ in handler.targets):
            handler.trigger_mode = "multiple"
        if handler.trigger_mode == "once" and not handler.queue:
            events = {event for part, event in handler.targets if isinstance(studio.blocks.get(part), _CHOSEN)}
            if events & _KEPT:
                handler.trigger_mode = "multiple" if "select" in events else "always_last"
        if handler.show_progress == "hidden":  # else gradio tells each output twice, hundreds while the page loads
            handler.show_progress_on = []
        if handler.fn and inspect.isgeneratorfunction(handler.fn):
            handler.fn = _ending_with_nothing(handler.fn, len(handler.outputs))
        if handler.fn:
            handler.fn = answering(handler.fn)


def _replacement(old: Any, new: Any) -> list[Any]:
    """Of a step of a handler what differs from the one before, for the browser: all of it. Gradio's own differences
    are applied to the earlier step's objects, also where the page has not shown that step yet, so that it never does.
    """
    return [] if old == new else [("replace", [], new)]


async def _stay() -> AsyncIterator[list[Any]]:
    """A handler that is never done, so that the stream in which queued handlers answer stays open. Gradio closes it
    whenever none is at work; the answer of one that begins at that moment would wait for the next one to open it. It
    ends when the page has gone. A page whose studio was started anew notices, and loads again.
    """
    while True:
        for _ in range(round(_SIGN / _LOOK)):
            await asyncio.sleep(_LOOK)
            if _ending.is_set():
                return
        yield []


def end(studio: gr.Blocks) -> None:
    """Stops serving ``studio``: first lets the pages' streams go, for which the server would wait in vain."""
    _ending.set()
    studio.app.stop_event.set()
    if studio.server:
        studio.server.close()


def _ending_with_nothing(steps: Callable[..., Iterator[Any]], outputs: int) -> Callable[..., Iterator[Any]]:
    """``steps`` with a last step that changes none of its ``outputs``. When a generator ends, gradio sends its last
    step again, which by then may undo what other handlers have shown; and clears all outputs if there was none.
    """
    nothing = gr.skip() if outputs == 1 else (gr.skip(),) * outputs

    @functools.wraps(steps)
    def ending(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from steps(*args, **kwargs)
        yield nothing

    return ending

"""What holds for every handler of the page, whatever it does."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gradio as gr
import gradio.utils

from lora_studio.ui.outcome import WORK

_SIGN = 15.0
"""Seconds between two signs that a page is still connected."""


def prepare(studio: gr.Blocks) -> None:
    """Makes the handlers of ``studio`` change what they mean to change and nothing else, and all answers arrive."""
    vars(gradio.utils)["diff"] = _replacement
    with studio:
        studio.load(_stay, None, None, concurrency_limit=None, **WORK)
    for handler in studio.fns.values():
        if handler.show_progress == "hidden":  # else gradio tells each output twice, hundreds while the page loads
            handler.show_progress_on = []
        if handler.fn and inspect.isgeneratorfunction(handler.fn):
            handler.fn = _ending_with_nothing(handler.fn, len(handler.outputs))


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
        await asyncio.sleep(_SIGN)
        yield []


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

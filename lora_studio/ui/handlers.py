"""What holds for every handler of the page, whatever it does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr


def prepare(studio: gr.Blocks) -> None:
    """Makes the handlers of ``studio`` change what they mean to change and nothing else."""
    for handler in studio.fns.values():
        if handler.show_progress == "hidden":  # else gradio tells each output twice, hundreds while the page loads
            handler.show_progress_on = []
        if handler.fn and inspect.isgeneratorfunction(handler.fn):
            handler.fn = _ending_with_nothing(handler.fn, len(handler.outputs))


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

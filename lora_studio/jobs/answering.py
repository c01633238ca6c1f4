"""The answers to requests for images: what is drawn or what is wrong, in turn with a run that trains."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

from lora_studio.errors import StudioError
from lora_studio.jobs import identity, turns
from lora_studio.jobs.image_spec import ImageSpec, RoundTrip
from lora_studio.jobs.renderer import Answer, ImageRequest
from lora_studio.language import tr
from lora_studio.runs import Run

if TYPE_CHECKING:
    from lora_studio.training.beside import Drawing


class Draws(Protocol):
    """What draws."""

    say: Callable[[Answer], None]
    """Takes the answers to a request, as they come."""

    def draw(self, request: ImageRequest, cancelled: Callable[[], bool]) -> None:
        """Says the answers to ``request``; the last is "dropped" where it was cancelled. Raises StudioError."""

    def share(self, alone: bool) -> None:
        """Told before it draws whether it has the device ``alone``: beside a run it keeps no memory that it can do
        without.
        """


class Drawer:
    """Answers requests of the pages of ``outputs``: whenever nothing is at work, or the run that trains waits."""

    def __init__(self, outputs: Path, studio: Draws):
        self.outputs, self.studio = outputs, studio
        self._empty = _rss(os.getpid())
        """Bytes that this process holds without models."""

    def answer(self, request: ImageRequest, cancelled: Callable[[], bool]) -> None:
        """Has the studio draw when it is its turn, or says what is wrong."""
        from lora_studio.training import beside

        def waits() -> None:
            self.studio.say(Answer(id=request.id, kind="waiting", last=False))

        run = None
        try:
            with turns.taken(self.outputs, cancelled, waits) as run:
                self.studio.share(alone=run is None)
                if run is None:
                    beside.alone()
                elif not cancelled():
                    beside.require(run, _drawing(request.spec), _held(run), _rss(os.getpid()) - self._empty)
                answer(self.studio, request, cancelled)
                beside.give_back()
        except StudioError as error:
            self.studio.say(_wrong(request, error, run.name if run else ""))


def _drawing(spec: ImageSpec | RoundTrip) -> Drawing:
    from lora_studio.training.beside import Drawing

    parts = spec.base, spec.vae, spec.text_encoders
    if isinstance(spec, RoundTrip):
        return Drawing(*parts, spec.bucket[0] * spec.bucket[1], vae_alone=True)
    scale = spec.hires.scale if spec.hires else 1.0
    adapters = sum(os.path.getsize(one.path) for one in spec.adapters if os.path.isfile(one.path))
    return Drawing(*parts, spec.width * spec.height, scale, adapters)


def _held(run: Run) -> int:
    """Bytes of the computer's memory that the run's process holds; 0 if it has just ended."""
    worker = identity.read(run.worker_file)
    return _rss(worker["pid"]) if worker else 0


def _rss(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def end_first() -> None:
    """Makes Linux end this process rather than the run, if the computer still runs out of memory (proc(5))."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def answer(studio: Draws, request: ImageRequest, cancelled: Callable[[], bool]) -> None:
    """Has ``studio`` draw, or say what is wrong: no error ends the process."""
    from lora_studio.training import exceptions

    try:
        if cancelled():
            studio.say(Answer(id=request.id, kind="dropped"))
        else:
            studio.draw(request, cancelled)
    except Exception as error:
        told = exceptions.translated(error, exceptions.while_drawing())
        if told is None:
            traceback.print_exc()
            told = StudioError(
                tr("Internal error: {name}: {error}", name=type(error).__name__, error=error),
                where="renderer.log",
                do=tr("This is a bug in the studio; what was saved is intact."),
            )
        studio.say(_wrong(request, told))


def _wrong(request: ImageRequest, error: StudioError, run: str = "") -> Answer:
    return Answer(id=request.id, kind="wrong", what=error.what, where=error.where, do=error.do, run=run)

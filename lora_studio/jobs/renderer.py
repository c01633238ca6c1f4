"""Images on request, from a process that keeps the base model and the adapters in memory. The parent's side: imports no
torch.

An ``ImageRequest`` goes out as one line of JSON on the process's standard input, its ``Answer``s come back as lines on
its standard output. The newest request of a lane wins: what waits for that lane is dropped, and what is being drawn for
it is stopped between two steps. The process ends when its input closes, when it had nothing to do for minutes, and when
a run or a job starts, which needs the device. It can be started anew while a run trains, and takes turns with that.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lora_studio import files, runs
from lora_studio.errors import MachineError, RunError, StudioError
from lora_studio.jobs import environment, runner, turns
from lora_studio.jobs.image_spec import ImageSpec, RoundTrip
from lora_studio.language import Told, tr


class Answer(BaseModel):
    """An answer to a request. More follow until one is ``last``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int = 0
    kind: Literal["waiting", "loading", "forming", "drawn", "dropped", "wrong"]
    """"waiting": a run trains, and it is not yet the drawing's turn."""
    path: str = ""
    """Of the first image, a PNG; of one that forms, a small and rough one that is removed some time later."""
    paths: tuple[str, ...] = ()
    """Of all images."""
    step: int = 0
    """Of an image that forms: how many of ``steps`` were taken."""
    steps: int = 0
    seconds: float = 0.0
    last: bool = True
    rank: int = 0
    size: int = 0
    """Of the blend as a file, in bytes."""
    residual: float = 0.0
    """Of a blend that was trimmed; see ``adapters.blend.Blended``."""
    base: Told = ""
    """What the base model predicts, and how that is known, as a sentence."""
    notices: tuple[Told, ...] = ()
    """What else the user should know about it."""
    what: Told = ""
    where: Told = ""
    do: Told = ""
    run: str = ""
    """The run beside which it does not fit."""


class ImageRequest(BaseModel):
    """A line on the process's standard input: what to draw, for which lane, and to which file.

    Further images of the spec are beside the first one, as ``targets`` names them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    lane: str
    spec: ImageSpec | RoundTrip
    to: str


class Cancellation(BaseModel):
    """A line on the process's standard input: nobody waits any longer for what was asked for this lane."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cancel: str


def targets(first: Path, count: int) -> list[Path]:
    """The files of ``count`` images of one spec: ``KEY.png``, ``KEY-2.png``, …"""
    return [first, *(first.with_stem(f"{first.stem}-{number}") for number in range(2, count + 1))]


class Renderer:
    """Draws for one outputs folder, with at most one process.

    Args:
        folder: where images go. What was drawn once is found there again; it may be deleted at any time.
    """

    def __init__(self, outputs: Path, folder: Path):
        self.outputs, self.folder = outputs, folder
        self._starting = threading.Lock()
        self._child: _Child | None = None
        self._no_room_beside = ""

    def draw(self, spec: ImageSpec | RoundTrip, lane: str) -> Iterator[Answer]:
        """Answers as they come; where the lane gets a newer request, the last one is "dropped".

        Raises:
            RunError: what is at work needs the device for itself, or has no room beside it.
            MachineError: the process cannot be started, or ended unexpectedly.
            StudioError: what the process says is wrong with the request.
        """
        target = self.folder / f"{spec.key()}.png"
        if known := _known(target, spec.images):
            yield known
            return
        for answer in self._asked(spec, lane, target):
            if answer.kind == "wrong":
                self._no_room_beside = answer.run
                raise (RunError if answer.run else StudioError)(answer.what, where=answer.where, do=answer.do)
            if answer.kind == "drawn" and answer.last:
                with contextlib.suppress(OSError):  # it is drawn again then
                    files.write(_note(target), answer.model_dump_json())
            yield answer

    def known(self, spec: ImageSpec | RoundTrip) -> Path | None:
        """The first image of ``spec``, if it was drawn before."""
        target = self.folder / f"{spec.key()}.png"
        return target if _known(target, spec.images) else None

    def cancel(self, lane: str) -> None:
        """Ends what is drawn or waits for ``lane``, between two steps: its answer is "dropped"."""
        with self._starting:
            if self._child and self._child.alive:
                self._child.cancel(lane)

    def waits(self) -> bool:
        """Whether what was refused because of a run or a job would be refused again now."""
        try:
            run = turns.require(self.outputs)
        except RunError:
            return True
        return run is not None and run.name == self._no_room_beside

    def warm(self) -> None:
        """Starts the process, which then loads its libraries, so that the first image comes sooner; not beside a run.
        If it cannot be started, ``draw`` says why.
        """
        with contextlib.suppress(StudioError):
            if not runner.active(self.outputs):
                self._started()

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._starting:
            if self._child:
                self._child.close()
            self._child = None

    def _asked(self, spec: ImageSpec | RoundTrip, lane: str, target: Path) -> Iterator[Answer]:
        """The process's answers. If it just ended on its own it is started again, once."""
        for _ in range(2):
            drawer = self._started()
            yield from drawer.ask(lane, spec, target)
            if drawer.alive or drawer.process.wait() != 0:
                break
        if not drawer.alive:
            raise MachineError(
                tr("The process that draws images ended unexpectedly."),
                where=_log(self.outputs),
                do=tr("The computer may have run out of memory. The process is started again for the next image."),
            )

    def _started(self) -> _Child:
        with self._starting:
            turns.require(self.outputs)
            if self._child is None or not self._child.alive:
                self._child = _Child(self.outputs)
            return self._child


class _Child:
    """The process and who waits for which of its answers."""

    def __init__(self, outputs: Path):
        self.alive = True
        self._numbers = count(1)
        self._waiting: dict[int, queue.SimpleQueue[Answer | None]] = {}
        self._lock = threading.Lock()
        line = [sys.executable, "-m", "lora_studio.jobs.renderer_worker", str(outputs)]
        try:
            log = _log(outputs)
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "wb") as errors:
                self.process = subprocess.Popen(
                    line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment.environment()
                )
        except OSError as error:
            what = tr("The process that draws images cannot be started: {reason}.", reason=files.reason(error))
            raise MachineError(
                what, where=error.filename or "", do=tr("Free memory and disk space, then try again.")
            ) from error
        assert self.process.stdin is not None and self.process.stdout is not None, "pipes"
        self._input, self._output = self.process.stdin, self.process.stdout
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, lane: str, spec: ImageSpec | RoundTrip, target: Path) -> Iterator[Answer]:
        """Answers until the last one, or until the process has ended: then ``alive`` is False."""
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        with self._lock:
            if not self.alive:
                return
            number = next(self._numbers)
            self._waiting[number] = answers
            self._send(ImageRequest(id=number, lane=lane, spec=spec, to=str(target)))
        try:
            while (answer := answers.get()) is not None:
                yield answer
                if answer.last:
                    return
        finally:
            self._waiting.pop(number, None)

    def cancel(self, lane: str) -> None:
        """Tells the process that nobody waits for ``lane`` any longer."""
        with self._lock:
            self._send(Cancellation(cancel=lane))

    def _send(self, line: BaseModel) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has just ended, as the listener will notice
            self._input.write(line.model_dump_json().encode() + b"\n")
            self._input.flush()

    def _listen(self) -> None:
        for line in self._output:
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError:
                continue
            if waiting := self._waiting.get(answer.id):
                waiting.put(answer)
        with self._lock:
            self.alive = False
            for waiting in list(self._waiting.values()):
                waiting.put(None)

    def close(self, patience: float = 5.0) -> None:
        """Closes the process's input and waits for its end; kills it after ``patience`` seconds."""
        try:
            self._input.close()
            self.process.wait(patience)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def _known(target: Path, count: int) -> Answer | None:
    """The answer for ``count`` images, ``target`` the first, if they were drawn before and are still there."""
    try:
        there = all(path.is_file() for path in targets(target, count))
        return Answer.model_validate_json(_note(target).read_bytes()) if there else None
    except (OSError, ValidationError):
        return None


def _note(target: Path) -> Path:
    return target.with_suffix(".json")


def _log(outputs: Path) -> Path:
    return runs.cache_folder(outputs) / "renderer.log"

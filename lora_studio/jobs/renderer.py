"""Pictures on request, from a process that keeps the base model and the adapters in memory. The parent's side: imports
no torch.

An ``ImageSpec`` goes out as one line of JSON on the process's standard input, its ``Answer``s come back as lines on its
standard output.
The newest order of a lane wins: what that lane waited for is dropped, what is being drawn for it is left between two
steps.
The process ends by itself when its input closes, when it had nothing to do for minutes, and when a run begins, which
needs the device.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lora_studio import __version__, files, runs
from lora_studio.config.settings import SPECS
from lora_studio.errors import MachineError, RunError, StudioError
from lora_studio.jobs import environment, runner


class Placed(BaseModel):
    """An adapter's file in an order, under a name for labels and messages. ``blocks`` multiplies its weight below a
    block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str
    weight: float = 1.0
    name: str = ""
    blocks: dict[str, float] = {}


class Side(BaseModel):
    """One side of a sheet: the weights of the order's adapter number ``adapter``, counted from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    adapter: int
    weights: tuple[float, ...]


class Blending(BaseModel):
    """How the adapters become one before they are drawn; see ``adapters.recipe.Blend``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    rank: int = 0
    parameters: dict[str, int | float] = {}
    """Those of the method; see ``adapters.blend_methods``."""


class ImageSpec(BaseModel):
    """A picture, or with ``across`` a labelled sheet. ``width`` and ``height`` are in pixels, 0 takes the base model's
    own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: str = SPECS["base"].default
    adapters: tuple[Placed, ...] = ()
    blending: Blending | None = None
    """None adds the adapters up, which takes no preparation when a weight changes."""
    prompt: str
    negative: str = SPECS["negative"].default
    seed: int = SPECS["preview_seed"].default
    steps: int = SPECS["preview_steps"].default
    guidance: float = SPECS["guidance"].default
    sampler: str = SPECS["sampler"].default
    width: int = 0
    height: int = 0
    first: int = 0
    """Steps of a rough picture that comes before the good one; 0 leaves it out."""
    across: Side | None = None
    down: Side | None = None

    def key(self) -> str:
        """The same for orders that give the same picture: what it asks for, and which state of their files."""
        told = [
            self.model_dump(exclude={"first"}),
            __version__,
            [_state(path) for path in (self.base, *(one.path for one in self.adapters))],
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


class Answer(BaseModel):
    """What came of an order. More follow until one is ``last``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int = 0
    kind: Literal["loading", "drawn", "dropped", "wrong"]
    path: str = ""
    """Of the picture, a PNG."""
    steps: int = 0
    seconds: float = 0.0
    last: bool = True
    rank: int = 0
    size: int = 0
    """Of the blend as a file, in bytes."""
    residual: float = 0.0
    """Of a blend that was trimmed; see ``adapters.blend.Blended``."""
    what: str = ""
    where: str = ""
    do: str = ""


class ImageRequest(BaseModel):
    """A line on the process's standard input: an order, its lane, and the file that its picture goes to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    lane: str
    order: ImageSpec
    to: str


class Renderer:
    """Draws for one outputs folder, with at most one process.

    Args:
        folder: where pictures go. What was drawn once is found there again, and may be deleted at any time.
    """

    def __init__(self, outputs: Path, folder: Path):
        self.outputs, self.folder = outputs, folder
        self._starting = threading.Lock()
        self._child: _Child | None = None

    def draw(self, order: ImageSpec, lane: str) -> Iterator[Answer]:
        """Answers to ``order`` as they come; where the lane gets a newer order, the last one says "dropped".

        Raises:
            RunError: a run is at work, which has the device to itself.
            MachineError: the process cannot be started, or ended without a word.
            StudioError: what the process says is wrong with the order.
        """
        target = self.folder / f"{order.key()}.png"
        if known := _known(target):
            yield known
            return
        for answer in self._asked(order, lane, target):
            if answer.kind == "wrong":
                raise StudioError(answer.what, where=answer.where, do=answer.do)
            if answer.kind == "drawn" and answer.last:
                with contextlib.suppress(OSError):  # it is drawn again then, and that is all
                    files.write(_note(target), answer.model_dump_json())
            yield answer

    def warm(self) -> None:
        """Starts the process, which then loads its libraries, so that the first picture comes sooner. Where it cannot,
        ``draw`` will say why.
        """
        with contextlib.suppress(StudioError):
            self._started()

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._starting:
            if self._child:
                self._child.close()
            self._child = None

    def _asked(self, order: ImageSpec, lane: str, target: Path) -> Iterator[Answer]:
        """The process's answers. One that ended by itself while it was asked is started anew, once."""
        for _ in range(2):
            drawer = self._started()
            yield from drawer.ask(lane, order, target)
            if drawer.alive or drawer.process.wait() != 0:
                break
        if not drawer.alive:
            raise MachineError(
                "The process that draws ended without a word.",
                where=_log(self.outputs),
                do="The machine may have run out of memory. It is started anew with the next picture.",
            )

    def _started(self) -> _Child:
        with self._starting:
            if run := runner.active(self.outputs):
                raise RunError(
                    f"Pictures wait until the run {run.name} has ended.",
                    do="It has the machine to itself. What was drawn before can still be seen.",
                )
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
            what = f"The process that draws cannot be started: {error.strerror or error}."
            raise MachineError(
                what, where=error.filename or "", do="Free memory and disk space, then try again."
            ) from error
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, lane: str, order: ImageSpec, target: Path) -> Iterator[Answer]:
        """Answers until the last one, or until the process has gone: then ``alive`` is False."""
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        with self._lock:
            if not self.alive:
                return
            number = next(self._numbers)
            self._waiting[number] = answers
            try:
                self.process.stdin.write(
                    ImageRequest(id=number, lane=lane, order=order, to=str(target)).model_dump_json().encode() + b"\n"
                )
                self.process.stdin.flush()
            except OSError:
                pass  # it has just gone, as the listener will say
        try:
            while (answer := answers.get()) is not None:
                yield answer
                if answer.last:
                    return
        finally:
            self._waiting.pop(number, None)

    def _listen(self) -> None:
        for line in self.process.stdout:
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
        """Closes the process's input and waits for its end; kills it where it does not come."""
        try:
            self.process.stdin.close()
            self.process.wait(patience)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def _state(path: str) -> list[int]:
    """Size and time of change of a file, or of what lies in a model's folder; nothing for the starter or a hub name,
    which do not change.
    """
    try:
        parts = [Path(path), *sorted(Path(path).iterdir())] if Path(path).is_dir() else [Path(path)]
        return [number for stat in map(os.stat, parts) for number in (stat.st_size, stat.st_mtime_ns)]
    except OSError:
        return []


def _known(target: Path) -> Answer | None:
    """The answer that ``target`` was drawn with, if it is still there."""
    try:
        return Answer.model_validate_json(_note(target).read_bytes()) if target.is_file() else None
    except (OSError, ValidationError):
        return None


def _note(target: Path) -> Path:
    return target.with_suffix(".json")


def _log(outputs: Path) -> Path:
    return runs.cache_folder(outputs) / "renderer.log"

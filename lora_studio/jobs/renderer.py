"""Images on request, from a process that keeps the base model and the adapters in memory. The parent's side: imports no
torch.

An ``ImageRequest`` goes out as one line of JSON on the process's standard input, its ``Answer``s come back as lines on
its standard output. The newest request of a lane wins: what waits for that lane is dropped, and what is being drawn for
it is stopped between two steps. The process ends when its input closes, when it had nothing to do for minutes, and when
a run or a captioning job starts, which needs the device.
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
from lora_studio.config.specs import SPECS
from lora_studio.dataset.items import Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import MachineError, RunError, StudioError
from lora_studio.jobs import captioning, environment, runner


class Placed(BaseModel):
    """An adapter file with its weight, under a name for labels and messages. ``blocks`` are factors of the weight, by
    block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str
    weight: float = 1.0
    name: str = ""
    blocks: dict[str, float] = {}


class Side(BaseModel):
    """One side of a sheet: the weights of adapter number ``adapter``, counted from 0."""

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
    """An image to draw, or with ``across`` a labelled sheet. ``width`` and ``height`` are in pixels; 0 is the base
    model's own size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: str = SPECS["base"].default
    vae: str = SPECS["vae"].default
    text_encoders: tuple[str, ...] = ()
    prediction: str = SPECS["prediction"].default
    zero_snr: str = SPECS["zero_snr"].default
    flow_shift: float = SPECS["flow_shift"].default
    clip_skip: int = SPECS["clip_skip"].default
    adapters: tuple[Placed, ...] = ()
    blending: Blending | None = None
    """None adds the adapters, which needs no preparation when a weight changes."""
    prompt: str
    negative: str = SPECS["negative"].default
    prompt_weights: bool = SPECS["prompt_weights"].default
    seed: int = SPECS["preview_seed"].default
    steps: int = SPECS["preview_steps"].default
    guidance: float = SPECS["guidance"].default
    guidance_rescale: float = SPECS["guidance_rescale"].default
    sampler: str = SPECS["sampler"].default
    width: int = 0
    height: int = 0
    first: int = 0
    """Steps of a rough image that comes before the good one; 0 leaves it out."""
    across: Side | None = None
    down: Side | None = None

    @property
    def files(self) -> list[str]:
        """The paths of what it is drawn from."""
        return [self.base, *filter(None, (self.vae, *self.text_encoders)), *(one.path for one in self.adapters)]

    def key(self) -> str:
        """The same for specs that give the same image: a hash of the spec and of the versions of its files."""
        return _key(self.model_dump(exclude={"first"}), self.files)


class RoundTrip(BaseModel):
    """A picture of a dataset as training sees it: cropped and scaled to its bucket, through the VAE and back.

    Attributes:
        picture: its path. ``sha256`` of the file's bytes.
        bucket: width and height in pixels.
        crop: see ``dataset.preparation.Crop``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: str = SPECS["base"].default
    vae: str = SPECS["vae"].default
    text_encoders: tuple[str, ...] = ()
    picture: str
    sha256: str
    bucket: tuple[int, int]
    crop: tuple[float, float, float, float] | None = None

    @property
    def as_picture(self) -> Picture:
        """The picture, with its crop."""
        crop = Crop(*self.crop) if self.crop else None
        return Picture(Path(self.picture), "", 1, *self.bucket, self.sha256, crop=crop)

    def key(self) -> str:
        """The same for specs that give the same image."""
        return _key(self.model_dump(), [self.base, *filter(None, (self.vae, *self.text_encoders)), self.picture])


class Answer(BaseModel):
    """An answer to a request. More follow until one is ``last``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int = 0
    kind: Literal["loading", "drawn", "dropped", "wrong"]
    path: str = ""
    """Of the image, a PNG."""
    steps: int = 0
    seconds: float = 0.0
    last: bool = True
    rank: int = 0
    size: int = 0
    """Of the blend as a file, in bytes."""
    residual: float = 0.0
    """Of a blend that was trimmed; see ``adapters.blend.Blended``."""
    base: str = ""
    """What the base model predicts, and how that is known, as a sentence."""
    notices: tuple[str, ...] = ()
    """What else the user should know about it."""
    what: str = ""
    where: str = ""
    do: str = ""


class ImageRequest(BaseModel):
    """A line on the process's standard input: what to draw, for which lane, and to which file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    lane: str
    spec: ImageSpec | RoundTrip
    to: str


class Renderer:
    """Draws for one outputs folder, with at most one process.

    Args:
        folder: where images go. What was drawn once is found there again; it may be deleted at any time.
    """

    def __init__(self, outputs: Path, folder: Path):
        self.outputs, self.folder = outputs, folder
        self._starting = threading.Lock()
        self._child: _Child | None = None

    def draw(self, spec: ImageSpec | RoundTrip, lane: str) -> Iterator[Answer]:
        """Answers as they come; where the lane gets a newer request, the last one is "dropped".

        Raises:
            RunError: a run or a captioning job is at work, which has the device to itself.
            MachineError: the process cannot be started, or ended unexpectedly.
            StudioError: what the process says is wrong with the request.
        """
        target = self.folder / f"{spec.key()}.png"
        if known := _known(target):
            yield known
            return
        for answer in self._asked(spec, lane, target):
            if answer.kind == "wrong":
                raise StudioError(answer.what, where=answer.where, do=answer.do)
            if answer.kind == "drawn" and answer.last:
                with contextlib.suppress(OSError):  # it is drawn again then
                    files.write(_note(target), answer.model_dump_json())
            yield answer

    def known(self, spec: ImageSpec | RoundTrip) -> Path | None:
        """The image of ``spec``, if it was drawn before."""
        target = self.folder / f"{spec.key()}.png"
        return target if _known(target) else None

    def warm(self) -> None:
        """Starts the process, which then loads its libraries, so that the first image comes sooner. If it cannot be
        started, ``draw`` says why.
        """
        with contextlib.suppress(StudioError):
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
                "The process that draws images ended unexpectedly.",
                where=_log(self.outputs),
                do="The computer may have run out of memory. The process is started again for the next image.",
            )

    def _started(self) -> _Child:
        with self._starting:
            if run := runner.active(self.outputs):
                raise RunError(
                    f"No images are drawn while the run {run.name} trains.",
                    do="It needs the whole machine: wait for its end. Images drawn before can still be seen.",
                )
            if captioning.at_work(self.outputs):
                raise RunError(
                    "No images are drawn while pictures are captioned.",
                    do="The model needs the whole machine: wait for its end, or cancel it on the Pictures page.",
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
            what = f"The process that draws images cannot be started: {files.reason(error)}."
            raise MachineError(
                what, where=error.filename or "", do="Free memory and disk space, then try again."
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
            try:
                self._input.write(
                    ImageRequest(id=number, lane=lane, spec=spec, to=str(target)).model_dump_json().encode() + b"\n"
                )
                self._input.flush()
            except OSError:
                pass  # it has just ended, as the listener will notice
        try:
            while (answer := answers.get()) is not None:
                yield answer
                if answer.last:
                    return
        finally:
            self._waiting.pop(number, None)

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


def _key(told: dict[str, object], paths: list[str]) -> str:
    whole = [told, __version__, [_state(path) for path in paths]]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _state(path: str) -> list[int]:
    """Size and time of change of a file, or of each file in a model's folder; empty for the starter or a hub name,
    which do not change.
    """
    try:
        parts = [Path(path), *sorted(Path(path).iterdir())] if Path(path).is_dir() else [Path(path)]
        return [number for stat in map(os.stat, parts) for number in (stat.st_size, stat.st_mtime_ns)]
    except OSError:
        return []


def _known(target: Path) -> Answer | None:
    """The answer for ``target``, if it was drawn before and is still there."""
    try:
        return Answer.model_validate_json(_note(target).read_bytes()) if target.is_file() else None
    except (OSError, ValidationError):
        return None


def _note(target: Path) -> Path:
    return target.with_suffix(".json")


def _log(outputs: Path) -> Path:
    return runs.cache_folder(outputs) / "renderer.log"

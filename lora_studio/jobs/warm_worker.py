"""The process that waits for the page's next run: ``python -m lora_studio.jobs.warm_worker OUTPUTS``. See ``warm``."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lora_studio import libraries
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs import job, runner, warm, worker
from lora_studio.language import handover
from lora_studio.runs import Run

IDLE = 600.0
"""Seconds after which it ends, if nobody wanted it meanwhile."""
LOOK = 3.0
"""Seconds between two looks whether it is to end."""
Question = tuple[bytes, dict[str, Any]]
"""``warm.ESTIMATE`` or ``warm.CHECK``, with the run's settings and, for a check, the adapter that it begins with."""
Order = Path | Question | None
"""What the studio says: the folder of the run to train, or an empty path if one may come; a question; or nothing any
more.
"""
_SPARE = 0.1
"""Share of a GPU's memory below which it gives its own back."""


def main(outputs: Path, source: int, voice: int) -> int:
    """Waits for a run and trains it; returns the process's exit status. Ends the process where it was not needed.

    Args:
        source, voice: the file descriptors of the pipes to the studio.
    """
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[source, orders], daemon=True).start()

    def say(line: bytes) -> None:
        with suppress(OSError):  # nobody listens: the studio has ended, or this is a run's worker
            os.write(voice, line)

    def warm_up() -> None:
        _warm_up()
        say(warm.READY)

    warming = threading.Thread(target=warm_up, daemon=True)
    warming.start()
    folder = _awaited(outputs, orders, say)
    if folder is None:
        os._exit(0)  # at once: the other thread may be in the middle of an import
    say(warm.TAKEN)  # not before: a process that has just decided to end would lose the run
    _write_to(Run(folder).log_file)
    warming.join()  # two threads that import the same modules in another order could wait for each other
    return worker.main(str(folder))


def _listen(source: int, orders: queue.SimpleQueue[Order]) -> None:
    """Passes on what the studio says: a run's folder, a question about one, an empty line as long as a run may come,
    and its end. Once there is a run, the studio's end is of no interest.
    """
    line = b""
    while data := os.read(source, 1):
        line += data
        if data == b"\n":
            if line[:1] in _ANSWERS:
                orders.put((line[:1], json.loads(line[1:])))
            elif folder := line[:-1]:
                orders.put(Path(os.fsdecode(folder)))
                return
            else:
                orders.put(Path())
            line = b""
    orders.put(None)


def _awaited(outputs: Path, orders: queue.SimpleQueue[Order], say: Callable[[bytes], None]) -> Path | None:
    """The folder of the run that it is to train; None if there will be none. Meanwhile answers questions."""
    wanted = time.monotonic()
    while True:
        try:
            found = orders.get(timeout=LOOK)
        except queue.Empty:
            if time.monotonic() - wanted > IDLE or _in_the_way(outputs):
                return None
            continue
        if isinstance(found, tuple):
            question, told = found
            say(json.dumps(_ANSWERS[question](told)).encode() + b"\n")
        elif found is None or found.parts:
            return found
        wanted = time.monotonic()


def _estimate(told: dict[str, Any]) -> dict[str, int] | None:
    """What the run takes, as ``warm.MemoryEstimate`` has it; None where that cannot be told."""
    from lora_studio.models import shapes
    from lora_studio.training import devices, memory, preflight

    try:
        settings = Settings(**told["settings"])
        machine = devices.choose(settings.machine)
        base = shapes.read(settings.run.base, settings.run.vae, settings.run.text_encoders)
        limit = preflight.limit(machine.device)
        found = memory.estimate(settings, base, machine.precision, limit)
    except StudioError:  # the page says it at its field, or the run when it starts
        return None
    own = psutil.Process().memory_info().rss if machine.device.type == "cpu" else 0
    return {"peak": found.peak + own, "limit": limit}


def _hindrance(told: dict[str, Any]) -> dict[str, Any] | None:
    """Why the run cannot begin, as ``errors.StudioError`` has it; None where nothing is in its way."""
    from lora_studio.training import creating

    adapter = told["adapter"]
    try:
        creating.require_possible(Settings(**told["settings"]), Path(adapter) if adapter else None)
    except StudioError as error:
        return handover.handed({"what": error.what, "where": error.where, "do": error.do})
    return None


_ANSWERS: dict[bytes, Callable[[dict[str, Any]], object]] = {warm.ESTIMATE: _estimate, warm.CHECK: _hindrance}


def _in_the_way(outputs: Path) -> bool:
    """Whether others need the memory."""
    short = psutil.virtual_memory().available < warm.LEAST / 2
    return short or bool(runner.active(outputs) or job.at_work(outputs)) or _gpu_short()


def _gpu_short() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return False
    free, total = torch.cuda.mem_get_info()
    return free < _SPARE * total


def _warm_up() -> None:
    """What every run does first, whatever it trains."""
    with libraries.importing():
        import torch

        import lora_studio.training.loop  # noqa: F401 - most of the time goes into what this imports
        from lora_studio.models.fused import triton_support

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
        triton_support.kernels()


def _write_to(log: Path) -> None:
    """From now on what this process prints goes into the run's log, as a worker's does."""
    with open(log, "ab") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)


if __name__ == "__main__":
    pipes = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    sys.exit(main(Path(sys.argv[1]), *pipes))

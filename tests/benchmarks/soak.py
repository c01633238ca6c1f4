"""Kills a run again and again; it must end like an undisturbed one: ``python -m tests.benchmarks.soak [--kills 200]
[--seed 0]``.

A small model trains in the studio's own worker, started by the studio's own ``runner``. At random moments the worker is
killed with ``kill -9``, its folder is checked, and it is started again. In the end its adapter and optimizer must be
equal, bit for bit, to those of the same run without kills. No saved state may be missing, no file half written, no
event lost or logged twice.

One thing differs from the studio: importing torch and its kin takes longer than the small model's whole training. So
this process imports them once, and each worker is a fork of it.
"""

from __future__ import annotations

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}  # threads do not survive a fork

import argparse
import importlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from lora_studio import files, models, runs
from lora_studio.config.settings import Settings
from lora_studio.events import CheckpointSaved, Started, State, StepDone
from lora_studio.jobs import eventlog, runner, view, worker
from lora_studio.models import inject
from lora_studio.runs import Run, checkpoints
from tests.models import tiny

_SAVE_EVERY = 2


class Forked:
    """Replaces ``subprocess.Popen``: runs the command's worker in a fork of this process."""

    def __init__(self, command: list[str], *, stdout: Any, **_: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._work(Path(command[-1]), stdout.fileno())

    def _work(self, folder: Path, output: int) -> NoReturn:
        status = 1
        try:
            os.setsid()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.closerange(3, 1024)  # the parent's locks among them
            # Recreates torch's thread pool after the fork. Several threads that do so at once break it.
            torch.set_num_threads(1)
            status = worker.main(str(folder))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        """The worker's status once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> int | None:
        """Its status, or None if it still runs after ``seconds`` or once ``enough`` is true."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end and not enough():
            time.sleep(0.005)
        return self.returncode


def settings(folder: Path, steps: int) -> Settings:
    """Settings with everything that draws random numbers, and with something to do at nearly every step."""
    base, pictures = folder / "tiny", folder / "discs"
    if not base.exists():
        tiny.folder(base, "sd1")
        pictures.mkdir()
        for index in range(6):
            image = Image.new("RGB", (64, 64), (20 * index, 90, 200))
            ImageDraw.Draw(image).ellipse((8, 8, 56, 40 + 2 * index), fill=(250, 40 * index, 30))
            image.save(pictures / f"disc{index}.png")
            (pictures / f"disc{index}.txt").write_text(f"disc number {index}, blue paper")
    return Settings(
        data=str(pictures),
        base=str(base),
        name="discs",
        resolution=64,
        steps=steps,
        rank=2,
        batch=2,
        device="cpu",
        targets="qv",
        learning_rate=1e-2,
        dropout=0.3,
        ema=0.9,
        flip=True,
        shuffle_tags=True,
        caption_dropout=0.5,
        noise_offset=0.1,
        validation_share=0.2,
        checkpoint_every=_SAVE_EVERY,
        validate_every=7,
        preview_prompts=["a disc"],
        preview_steps=1,
        preview_every=10,
    )


def start(run: Run) -> Forked:
    """The run's worker, as the studio starts it."""
    runner.start(run)
    return runner._children[json.loads(run.worker_file.read_text())["pid"]]


def finish(run: Run) -> None:
    """Runs the worker until the run has finished."""
    ended = start(run).wait(600)
    assert ended == 0, f"The worker ended with {ended}.\n{run.log_file.read_text()[-3000:]}"


def preload(base: str) -> None:
    """Imports into this process all that a worker imports while it prepares. Must not start a thread."""
    torch.set_num_threads(1)
    importlib.import_module("lora_studio.training.loop")
    inject.add_adapter(models.load(base), Settings(data="x").adapter, seed=0)


class Soak:
    """One run that is killed ``kills`` times."""

    def __init__(self, run: Run, kills: int, seed: int, preparing: float, stepping: float):
        self.run, self.kills, self.preparing, self.stepping = run, kills, preparing, stepping
        self.random, self.phases, self.newest = random.Random(seed), Counter(), 0

    def kill(self, number: int) -> None:
        """Starts the worker, kills it at a random moment and checks what it left. It never gets so far that no step
        would be left for the last kill.
        """
        most = self.run.settings().run.steps * (number + 1) // (self.kills + 1)
        worker, follower = start(self.run), view.Follower(self.run)

        def far_enough() -> bool:
            last = follower.update().last
            return last is not None and last.step > max(most, self.newest)

        ended = worker.wait(
            self.random.uniform(0, self.preparing + 2 * self.stepping * (1 + max(most - self.newest, 0))), far_enough
        )
        assert ended is None, (
            f"The worker ended with {ended} before it was killed.\n{self.run.log_file.read_text()[-3000:]}"
        )
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
        self.phases[self._phase()] += 1
        self._inspect()

    def _phase(self) -> str:
        """What the worker was doing, by its last event and the files that it left."""
        if any(self.run.folder.rglob(f"*{files.PARTIAL}")):
            return "writing"
        told, _ = eventlog.read(self.run.events_file)
        return (
            {State.QUEUED: "starting", State.PREPARING: "preparing", State.RUNNING: "training"}.get(
                view.fold(self.run).state, "ending"
            )
            if told
            else "starting"
        )

    def _inspect(self) -> None:
        """Asserts that saved states exist and are complete, and that the run counts as interrupted."""
        runner.reap(self.run)
        folded = view.fold(self.run)
        assert folded.state is State.INTERRUPTED, folded.state
        saved = checkpoints.listed(self.run)
        assert all(checkpoints.complete(one.folder) for one in saved)
        told = [event.step for event in eventlog.read(self.run.events_file)[0] if isinstance(event, CheckpointSaved)]
        newest = max((one.step for one in saved), default=0)
        assert newest >= max([self.newest, *told]), (
            f"step {max(told)} was logged as saved, but the newest state is {newest}"
        )
        self.newest = newest


def compare(run: Run, whole: Run) -> None:
    """Asserts that ``run`` ended like ``whole`` and left no temporary files."""
    steps = run.settings().run.steps
    for one, other in (
        (run.adapter_file, whole.adapter_file),
        *(
            (run.checkpoint(steps) / name, whole.checkpoint(steps) / name)
            for name in ("adapter.safetensors", "state.safetensors")
        ),
    ):
        mine, theirs = load_file(one), load_file(other)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine), one.name
    folded = view.fold(run)
    assert folded.state is State.FINISHED and [event.step for event in folded.steps] == list(range(1, steps + 1))
    assert [event.loss for event in folded.steps] == [event.loss for event in view.fold(whole).steps]
    assert [(event.step, event.index, event.base) for event in folded.previews] == [
        (event.step, event.index, event.base) for event in view.fold(whole).previews
    ]
    assert {path.relative_to(run.folder) for path in run.folder.rglob("*")} == {
        path.relative_to(whole.folder) for path in whole.folder.rglob("*")
    }
    orphans = [path.name for folder in (run.folder, run.cache) for path in folder.rglob(f"*{files.PARTIAL}*")]
    assert not orphans, orphans


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the soak; prints and returns its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    steps = asked.steps or 2 * asked.kills
    processes: Any = runner.subprocess  # a fork in place of a process is not what its class declares
    processes.Popen = Forked
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = settings(folder, steps)
        preload(wanted.run.base)
        whole, torn = runs.create(wanted, folder / "whole"), runs.create(wanted, folder / "torn")
        began = time.monotonic()
        finish(whole)
        events = eventlog.read(whole.events_file)[0]
        started = next(event.at for event in events if isinstance(event, Started))
        soak = Soak(
            torn,
            asked.kills,
            asked.seed,
            started - events[0].at,
            (time.monotonic() - began - (started - events[0].at)) / steps,
        )
        began = time.monotonic()
        for number in range(asked.kills):
            soak.kill(number)
        finish(torn)
        compare(torn, whole)
        again = sum(isinstance(event, StepDone) for event in eventlog.read(torn.events_file)[0]) - steps
        told = {
            "kills": asked.kills,
            "while": dict(soak.phases),
            "steps": steps,
            "steps done again": again,
            "seconds": round(time.monotonic() - began, 1),
            "equal": True,
        }
    print(json.dumps(told))
    return told


if __name__ == "__main__":
    main(sys.argv[1:])

"""A worker played by a test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from lora_studio import events as e
from lora_studio import files
from lora_studio.evaluation import judgements
from lora_studio.evaluation.judgements import Conditions, Copy, Judgement, JudgingPlan
from lora_studio.evaluation.value import Value
from lora_studio.events import Event, State
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run, checkpoints

PROMPTS = ("a cat", "<b>a house</b>")

PATIENCE = 300_000
"""Milliseconds for what a process does that loads torch and a model first, on a slow and busy machine."""


@dataclass
class Part:
    """Plays a worker: writes into the run's folder what a worker would, step by step, under this process's id."""

    run: Run

    def says(self, *events: Event) -> None:
        log = EventLog(self.run.events_file)
        for event in events:
            log.append(event)

    def lives(self) -> None:
        me = psutil.Process()
        self.run.worker_file.write_text(json.dumps({"pid": me.pid, "started": me.create_time()}))

    def dies(self) -> None:
        self.run.worker_file.write_text(json.dumps({"pid": 2**22 + 1, "started": 0}))

    def begins(self, total: int = 100) -> None:
        self.lives()
        started = e.Started(
            total_steps=total, images=9, validation_images=1, device="CPU", precision="fp32", parameters=1000, modules=4
        )
        self.says(
            e.StateChanged(state=State.PREPARING), e.Preparing(stage="encoding pictures", done=3, total=9), started
        )
        self.draws(0, base=True)
        self.says(e.StateChanged(state=State.RUNNING))

    def trains(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.says(
                e.StepDone(
                    step=step,
                    loss=0.2 - 0.001 * step,
                    learning_rate=1e-4,
                    images_per_second=4.0,
                    seconds=step / 4,
                    eta=75.0,
                )
            )

    def draws(self, step: int, base: bool = False) -> None:
        for index, prompt in enumerate(PROMPTS):
            path = self.run.preview_file(step, index, base)
            Image.new("RGB", (64, 64), (40 * index, step % 256, 200)).save(path)
            self.says(
                e.PreviewReady(
                    step=step, index=index, prompt=prompt, seed=1 + index, path=self.run.relative(path), base=base
                )
            )

    def finishes(self, steps: int, stopped: bool = False) -> None:
        header = json.dumps({"__metadata__": {"ss_v2": "False"}}).encode()
        self.run.adapter_file.write_bytes(len(header).to_bytes(8, "little") + header)
        self.says(
            e.Finished(
                adapter=self.run.relative(self.run.adapter_file),
                steps=steps,
                seconds=25.0,
                final_loss=0.1,
                stopped=stopped,
            )
        )
        self.run.worker_file.unlink(missing_ok=True)


def save(run: Run, *steps: int) -> None:
    """States with nothing in them but what they were saved on."""
    content = {checkpoints.ABOUT: json.dumps({"settings": run.settings().flat()}), "adapter.safetensors": "an adapter"}
    for step in steps:
        for name, text in content.items():
            files.write(run.checkpoint(step) / name, text)
        files.write(
            run.checkpoint(step) / checkpoints.MANIFEST,
            json.dumps({name: files.sha256(run.checkpoint(step) / name) for name in content}),
        )


def judged(
    run: Run,
    step: int,
    style: tuple[float, float, float],
    subject: tuple[float, float, float] = (0.6, 0.55, 0.65),
    copies: tuple[Copy, ...] = (),
) -> None:
    """A state that was judged against training pictures at 0.4: its measures, pictures and adapter. The styles of two
    states can be told apart if they differ by more than a few per cent.
    """
    place = judgements.state_folder(judgements.folder(run), step)
    for folder in (place, place.with_name("base")):
        folder.mkdir(parents=True, exist_ok=True)
        for prompt in range(len(PROMPTS)):
            Image.new("RGB", (32, 32), (step % 256, 80 * prompt, 90)).save(folder / f"{prompt}-0.png")
    write_adapter(place / judgements.ADAPTER)
    turned = step // 50 % 3
    samples = tuple(style[0] + shift for shift in ((-2.0, 0.0, 2.0) * 2)[turned : turned + 3])
    found = Judgement(
        step=step,
        style=Value(*style),
        subject=Value(*subject),
        level=Value(0.4, 0.35, 0.45),
        drift=Value(0.9, 0.8, 1.0),
        copies=copies,
        drawn=2 * len(PROMPTS),
        samples={"style": samples, "subject": samples, "drift": samples},
    )
    judgements.write(found, Conditions("the same", JudgingPlan(PROMPTS)), judgements.folder(run))


def write_adapter(path: Path) -> None:
    """A file that holds no tensor."""
    header = json.dumps({"__metadata__": {"ss_v2": "False"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def until(check: Callable[[], object], seconds: float = 300.0) -> object:
    """Waits for ``check`` to give something true, and returns that."""
    end = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < end, "It did not happen in time."
        time.sleep(0.05)
    return result

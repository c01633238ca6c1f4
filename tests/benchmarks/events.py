"""The time to fold a long run's log: ``python tests/benchmarks/events.py [--events 100000]``. The goal is one second
for 100,000 events.

A page folds a run's whole log once. Later ticks read only what is new, which is timed too, as is drawing the chart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio import events as e
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.view import Follower
from lora_studio.runs import Run
from lora_studio.ui import plots


def timed(what: str, act: Callable[[], object], times: int = 3) -> None:
    """Prints the best of a few runs, in processor time and in wall time."""
    best, wall = float("inf"), float("inf")
    for _ in range(times):
        began, seen = time.process_time(), time.perf_counter()
        act()
        best, wall = min(best, time.process_time() - began), min(wall, time.perf_counter() - seen)
    print(f"{what:44}{1000 * best:9.1f} ms processor{1000 * wall:9.1f} ms wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    count = parser.parse_args().events
    step = e.StepDone(
        step=0, loss=0.123456789, learning_rate=1e-4, gradient_norm=0.5, images_per_second=3.25, seconds=12.5, eta=99.0
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        lines = [
            step.model_copy(update={"step": number, "loss": 0.1 + number % 97 / 1000}).line()
            for number in range(1, count)
        ]
        run.events_file.write_text(
            "\n".join(
                [
                    e.Started(
                        total_steps=count, images=9, device="CPU", precision="fp32", parameters=1, modules=1
                    ).line(),
                    *lines,
                    "",
                ]
            )
        )
        print(f"{count:,} events, {run.events_file.stat().st_size / 1e6:.1f} MB")
        timed("the whole log", lambda: Follower(run).update())
        follower = Follower(run)
        seen, log = follower.update(), EventLog(run.events_file)

        def tick() -> None:
            log.append(step)
            follower.update()

        timed("one more event", tick, 20)
        timed("the chart of all steps", lambda: plots.loss([(one.step, one.loss) for one in seen.steps], [], count))


if __name__ == "__main__":
    main()

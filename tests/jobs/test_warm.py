"""The process that waits for the page's next run: the run's worker once it is handed over, and never in the way."""

import json
import os
import signal
import subprocess
import sys
from collections import namedtuple

import psutil
import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.events import Finished, State
from lora_studio.jobs import control, identity, runner, view, warm
from lora_studio.jobs.control import Request
from lora_studio.language import using
from tests.jobs.conftest import wait_until
from tests.ui.played import Part

PLAYED = """
import sys, time
from pathlib import Path
from lora_studio.events import Finished
from lora_studio.jobs import warm_worker, worker

def events(run, terminated):
    print("a library said this", flush=True)
    while not (run.folder / "enough").exists() and not terminated.is_set():
        time.sleep(0.02)
    yield Finished(adapter="ink.safetensors", steps=1, seconds=0.1, final_loss=0.5)

worker.events, warm_worker._warm_up, warm_worker.LOOK = events, lambda: print("libraries", flush=True), 0.05
warm_worker.IDLE = {idle}
{more}
pipes = warm_worker.os.dup(0), warm_worker.os.dup(1)
warm_worker.os.dup2(2, 1)
sys.exit(warm_worker.main(Path(sys.argv[1]), *pipes))
"""
START = subprocess.Popen
Memory = namedtuple("Memory", "available")


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def ready(outputs, tmp_path, monkeypatch):
    """Has the process started, with a training that is played; ``ready(idle=…)`` with other patience, and
    ``ready(more=…)`` with more lines in its script.
    """
    script, begun = tmp_path / "warm.py", []

    def popen(line, **options):
        assert line[1:3] == ["-m", "lora_studio.jobs.warm_worker"]
        begun.append(START([line[0], str(script), *line[3:]], **options))
        return begun[-1]

    def begin(idle=600.0, more=""):
        script.write_text(PLAYED.format(idle=idle, more=more))
        warm.want(busy=False)
        return begun[-1] if begun else None

    monkeypatch.setattr(warm, "_process", None)
    monkeypatch.setattr(warm, "_outputs", None)
    monkeypatch.setattr(warm.subprocess, "Popen", popen)
    monkeypatch.setattr(warm, "LEAST", 2**20)
    monkeypatch.setattr(warm, "PATIENCE", 120.0)  # a busy machine may be slow to answer
    monkeypatch.delenv(warm.SWITCH, raising=False)
    outputs.mkdir()
    warm.enable(outputs)
    yield begin
    warm.close()
    for one in begun:
        one.kill()
        one.wait()


@pytest.fixture
def run(outputs, ready):
    return runs.create(Settings(data="pictures", name="ink"), outputs)


def enough(run):
    (run.folder / "enough").touch()


def own_worker(monkeypatch):
    """The workers that are started as ever; each returns its command."""
    started = []

    def detached(module, log, variables):
        started.append(module)
        runner._children[0] = START([sys.executable, "-c", "import time; time.sleep(60)"])
        return runner._children[0]

    monkeypatch.setattr(runner, "detached", detached)
    return started


def test_the_process_is_the_runs_worker_once_it_is_handed_over(run, ready, monkeypatch):
    """It trains unseen by the queue, holds no device, or prints into the studio."""
    process, others = ready(), own_worker(monkeypatch)
    runner.start(run)
    assert identity.read(run.worker_file)["pid"] == process.pid and others == []
    wait_until(lambda: run.log_file.exists() and "a library said this" in run.log_file.read_text())
    assert runner.active(run.folder.parent) == run and process.poll() is None
    enough(run)
    assert isinstance(list(runner.follow(run, poll=0.02))[-1], Finished)
    wait_until(lambda: process.poll() == 0)
    assert warm.hand_over(run) is None, "it trains one run"


def test_a_run_outlives_the_studio_that_handed_it_over(run, ready):
    """Its input closes when the studio ends."""
    process = ready()
    runner.start(run)
    assert process.stdin.closed and process.stdout.closed
    wait_until(lambda: run.log_file.exists() and "a library said this" in run.log_file.read_text())
    control.ask(run, Request.STOP)
    os.kill(process.pid, signal.SIGTERM)  # as any worker it ends its run then
    assert isinstance(list(runner.follow(run, poll=0.02))[-1], Finished)


@pytest.mark.fault(38)
def test_a_run_that_is_killed_in_it_is_seen(run, ready):
    process = ready()
    runner.start(run)
    process.kill()
    list(runner.follow(run, poll=0.02))
    assert view.fold(run).state is State.INTERRUPTED


@pytest.mark.fault(38)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "hung"])
def test_where_it_is_gone_or_hangs_a_run_gets_its_own_worker(run, ready, monkeypatch, how):
    """Nobody would train, and nobody would know."""
    process, others = ready(), own_worker(monkeypatch)
    monkeypatch.setattr(warm, "PATIENCE", 0.2)
    os.kill(process.pid, how)
    runner.start(run)
    assert others == [["lora_studio.jobs.worker", str(run.folder)]]
    assert json.loads(run.worker_file.read_text())["pid"] != process.pid
    wait_until(lambda: process.poll() is not None)


LEAVES = """
def looks(outputs):
    (outputs / "looks").touch()
    time.sleep(0.5)
    return True

warm_worker._in_the_way = looks
"""


@pytest.mark.fault(38)
def test_a_run_that_comes_while_it_decides_to_end_gets_its_own_worker(run, ready, outputs, monkeypatch):
    """It answered that it took the run, then ended: the run was interrupted before it began."""
    process, others = ready(more=LEAVES), own_worker(monkeypatch)
    wait_until((outputs / "looks").exists)
    runner.start(run)
    assert others == [["lora_studio.jobs.worker", str(run.folder)]]
    wait_until(lambda: process.poll() == 0)


def test_variables_of_its_own_and_another_folder_need_another_process(run, ready, monkeypatch, tmp_path):
    """A run from the queue would train on the wrong device."""
    process, others = ready(), own_worker(monkeypatch)
    runner.launch(run, 1, {"CUDA_VISIBLE_DEVICES": "1"})
    other = runs.create(Settings(data="pictures", name="ink"), tmp_path / "elsewhere")
    runner.launch(other, 1, {})
    assert len(others) == 2 and warm._process.process is process


def test_it_estimates_the_memory_of_runs_until_it_is_handed_over(run, ready):
    """The page says that nothing is known of the memory before a check of minutes."""
    assert warm.estimate(Settings()) is None, "there is no process"
    process = ready()
    warm.wait(120)
    small, large = (warm.estimate(Settings(device="cpu", batch=batch)) for batch in (1, 16))
    assert small.limit == psutil.virtual_memory().total
    assert psutil.Process(process.pid).memory_info().rss / 2 < small.peak < large.peak < small.limit
    assert warm.estimate(Settings(base="/no/such/model")) is None, "which the page says at its field"
    runner.start(run)
    assert identity.read(run.worker_file)["pid"] == process.pid
    assert warm.estimate(Settings()) is None
    enough(run)


def test_it_looks_whether_a_run_can_begin(ready, tmp_path):
    """Without torch the page cannot tell, and the run would say it once its base model is in memory."""
    wrong = Settings(device="cpu", blocks=["up_blocks.7"])
    warm.require_possible(wrong, None)  # there is no process: the run itself will tell
    ready()
    warm.wait(120)
    warm.require_possible(Settings(device="cpu", blocks=["mid_block"]), None)
    with pytest.raises(StudioError, match="no block named up_blocks.7") as caught:
        warm.require_possible(wrong, None)
    with using("de"):
        assert str(caught.value.what).startswith("Das Basismodell hat keinen Block")
    with pytest.raises(StudioError, match="gone.safetensors"):
        warm.require_possible(wrong.changed(blocks=[]), tmp_path / "gone.safetensors")


IMPORTS = "warm_worker._warm_up = lambda: time.sleep(60)"
HANGS = "warm_worker._ANSWERS[warm_worker.warm.ESTIMATE] = lambda told: time.sleep(60)"


def test_the_page_does_not_wait_for_an_estimate(run, ready, monkeypatch):
    """It hangs as long as libraries are imported, or takes a late answer for that to a run."""
    process = ready(more=IMPORTS)
    warm.wait(0.1)
    assert warm.estimate(Settings()) is None and process.poll() is None
    warm.close()
    process, others = ready(more=HANGS), own_worker(monkeypatch)
    warm.wait(60)
    monkeypatch.setattr(warm, "PATIENCE", 0.2)
    assert warm.estimate(Settings()) is None and process.poll() is not None
    runner.start(run)
    assert others == [["lora_studio.jobs.worker", str(run.folder)]]


def test_it_ends_with_the_studio_even_if_that_is_killed(ready):
    """The system closes the pipes of a process that is gone."""
    process = ready()
    process.stdin.close()
    wait_until(lambda: process.poll() == 0)


def test_it_ends_when_nobody_wants_it_any_more(ready):
    process = ready(idle=0.2)
    wait_until(lambda: process.poll() == 0)
    assert ready() is not process, "the next time there is one again"


def test_it_ends_when_something_is_at_work(ready, outputs):
    """A run from a terminal needs the memory."""
    process = ready()
    Part(runs.create(Settings(name="ink", data="somewhere"), outputs)).lives()
    wait_until(lambda: process.poll() == 0)


def test_nothing_is_started_unless_a_studio_asks_for_it_and_there_is_room(ready, outputs, monkeypatch):
    """Every test, and every command, would start a process of a gigabyte."""
    warm.want(busy=True)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(2**20))
    warm.want(busy=False)
    monkeypatch.undo()
    monkeypatch.setenv(warm.SWITCH, "0")
    warm.enable(outputs)
    warm.want(busy=False)
    assert warm._process is None

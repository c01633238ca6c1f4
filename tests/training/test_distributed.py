"""Runs on several processes: what one process gives, ended together, whatever ends them. They are CPU processes here,
which talk as GPUs' do.
"""

import os
import shlex
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import torch
from PIL import Image

from lora_studio import adapters, runs
from lora_studio.adapters import Adapter
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import MachineError, SettingsError, StudioError
from lora_studio.events import CheckpointSaved, Failed, Started, StepDone
from lora_studio.jobs import control, eventlog, identity, ranks, runner, view, worker
from lora_studio.jobs.control import Request
from lora_studio.runs import Run, branching, checkpoints
from lora_studio.training import checkpoint, devices, distributed, follower, memory, seeds
from lora_studio.training.distributed import Command
from tests.training.test_turns import drawing

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4


class Alone(NamedTuple):
    """A run of one process."""

    run: Run
    steps: list[StepDone]
    adapter: Adapter


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> Settings:
    """Four steps on the starter: in a model of random weights rounding errors alone grow to a percent of a gradient."""
    folder = tmp_path_factory.mktemp("pictures") / "noise"
    folder.mkdir()
    for index in range(6):
        Image.effect_noise((64, 64), 90).convert("RGB").save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"noise number {index}")
    return Settings(
        data=str(folder),
        name="noise",
        resolution=64,
        steps=STEPS,
        rank=2,
        alpha=2,
        batch=2,
        device="cpu",
        learning_rate=1e-4,
        preview_prompts=["a disc"],
        preview_steps=1,
        preview_every=0,
        validate_every=0,
        validation_share=0,
        checkpoint_every=2,
        schedule="constant",
        warmup=0,
    )


@pytest.fixture(scope="module")
def alone(wanted, tmp_path_factory) -> Alone:
    """What one process gives."""
    run = runs.create(wanted, tmp_path_factory.mktemp("alone"))
    steps = [event for event in worker.events(run) if isinstance(event, StepDone)]
    return Alone(run, steps, adapters.read(run.adapter_file))


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path / "outputs"


def assert_same(alone: Alone, steps: list[StepDone], adapter: Adapter) -> None:
    """Losses and gradients, and nearly all of the adapter: where a gradient is nothing but rounding, Adam makes steps
    of that.
    """
    assert_same_steps(alone, steps)
    apart = []
    for path, factors in alone.adapter.factors.items():
        delta = factors.delta()
        apart.append(float((adapter.factors[path].delta() - delta).norm() / delta.norm()))
    assert statistics.quantiles(apart, n=10)[7] < 1e-4, "of four in five modules"


def assert_same_steps(alone: Alone, steps: list[StepDone]) -> None:
    assert [one.step for one in steps] == list(range(1, STEPS + 1))
    for one, other in zip(alone.steps, steps, strict=True):
        assert (other.loss, other.gradient_norm) == pytest.approx((one.loss, one.gradient_norm), rel=1e-4)


def followers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "lora_studio.jobs.rank_worker" in one.cmdline()]


@pytest.mark.fault(38)
def test_a_killed_process_ends_the_run_plainly_and_one_process_resumes_it(alone, wanted, outputs):
    """The others would wait for it for ever; or a picture is taken twice, a gradient not exchanged, or summed and not
    averaged.
    """
    run, seen = runs.create(wanted.changed(gpus=2), outputs), []
    runner.register_worker(run, os.getpid())
    with pytest.raises(MachineError) as raised, drawing(run, seen) as turned:
        for event in worker.events(run):
            seen.append(event)
            if isinstance(event, CheckpointSaved):
                followers()[0].kill()
    assert (
        raised.value.what == "Process 2 of 2 ended unexpectedly (killed by signal 9)."
        and "Resume the run" in raised.value.do
    )
    assert not followers() and not torch.distributed.is_initialized()
    assert turned and all(before == after for before, after in turned), "all wait while somebody draws"
    run.worker_file.unlink()
    assert next(event for event in seen if isinstance(event, Started)).device.startswith("2 × CPU")
    assert checkpoints.latest(run) == run.checkpoint(2) and "Traceback" not in run.log_file.read_text()
    presets.save_settings(run.settings().changed(gpus=1), run.settings_file)
    assert branching.changes(run) == [], "the number of GPUs changes nothing that it learns"
    seen += worker.events(run)
    assert_same(alone, [event for event in seen if isinstance(event, StepDone)], adapters.read(run.adapter_file))


def launch_line() -> list[str]:
    """The command of docs/multi-gpu.md."""
    line = next(
        line
        for line in (ROOT / "docs" / "multi-gpu.md").read_text("utf-8").splitlines()
        if line.startswith(".venv/bin/accelerate launch")
    )
    return shlex.split(line)[1:]


def test_two_machines_started_as_the_docs_say_do_what_one_process_does_and_stop_together(alone, wanted, tmp_path):
    """They share the pictures and nothing else: neither outputs nor cache. One that did not hear of the stop would wait
    for ever.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    many = wanted.changed(steps=10_000, checkpoint_every=0)
    settings = [
        f"--set={key}={'|'.join(value) if isinstance(value, list) else value}"
        for key, value in many.flat().items()
        if value != SPECS[key].default
    ]
    machines = []
    for number in range(2):
        given = {
            "--num_processes": 2,
            "--machine_rank": number,
            "--main_process_ip": "127.0.0.1",
            "--main_process_port": port,
            "--data": wanted.run.data,
            "--base": "starter",
            "--set": "rank=2",
        }
        line = launch_line()
        for option, value in given.items():
            line[line.index(option) + 1] = str(value)
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.accelerate_cli",
            *line,
            *settings,
            "--outputs",
            str(tmp_path / f"outputs-{number}"),
        ]
        own = {**os.environ, "HOME": str(tmp_path / f"home-{number}")}
        machines.append(
            subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    run, end = Run(tmp_path / "outputs-0" / "noise"), time.monotonic() + 240
    try:
        while (
            time.monotonic() < end
            and len(steps_of(run)) < STEPS
            and all(machine.poll() is None for machine in machines)
        ):
            time.sleep(0.1)
        if run.folder.exists():
            control.ask(run, Request.STOP)
        said = [machine.communicate(timeout=120)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert_same_steps(alone, steps_of(run)[:STEPS])
    assert view.fold(run).finished.stopped
    assert not (tmp_path / "outputs-1" / "noise").exists(), "the run is the first machine's"


def steps_of(run: Run) -> list[StepDone]:
    return [event for event in eventlog.read(run.events_file)[0] if isinstance(event, StepDone)]


# The parts


@pytest.fixture
def fallen(tmp_path, monkeypatch):
    """Workers whose one process only prints what it is given, and ends with status 1."""
    run = runs.create(Settings(data="pictures", name="ink"), tmp_path / "outputs")
    real = subprocess.Popen

    def make(line: str = "", status: int = 1) -> ranks.RankWorkers:
        code = f"import sys; print({line!r}); sys.exit({status})"
        monkeypatch.setattr(
            ranks.subprocess, "Popen", lambda command, **options: real([sys.executable, "-c", code], **options)
        )
        return ranks.RankWorkers(run, 2, 1)

    return make


def test_another_process_without_memory_is_told_like_ones_own(fallen):
    full = devices.out_of_memory("GPU", Settings(batch=4))
    with (
        pytest.raises(StudioError) as raised,
        fallen(Failed.of(full).line()) as others,
        others.explaining(distributed.PeerLost),
    ):
        raise distributed.PeerLost("Connection closed by peer")
    assert (raised.value.what, raised.value.where, raised.value.details) == (full.what, full.where, full.details)


def test_a_leader_that_waits_for_a_gpu_is_ended_by_who_watches(fallen, monkeypatch):
    """A GPU that waits for a process that is gone never comes back, and the run would stand still."""
    ended = []
    monkeypatch.setattr(ranks, "GRACE", 0.0)
    monkeypatch.setattr(ranks, "POLL", 0.02)
    monkeypatch.setattr(ranks.os, "_exit", ended.append)
    with fallen() as others:
        watching = next(thread for thread in ranks.threading.enumerate() if thread.name == "rank-workers")
        watching.join(30)
        assert ended == [1]
        (failed,) = eventlog.read(others.run.events_file)[0]
    assert failed.what == "Process 2 of 2 ended unexpectedly (status 1)." and not failed.ours


def test_the_reason_is_read_before_its_file_is_closed(fallen, monkeypatch):
    """The leader ends at the moment at which another process is found to have failed, and the thread that found it
    reads a closed file.
    """
    reading, closed, error = threading.Event(), [], ranks.RankWorkers._error

    def slow(workers, number, status, output):
        reading.set()
        time.sleep(0.2)
        closed.append(output.closed)
        return error(workers, number, status, output)

    monkeypatch.setattr(ranks, "POLL", 0.02)
    monkeypatch.setattr(ranks.RankWorkers, "_error", slow)
    with fallen():
        assert reading.wait(30)
    assert closed == [False]


def test_who_left_since_another_had_ended_is_not_blamed(fallen, monkeypatch):
    left = distributed.PeerLost("Connection closed by peer")
    monkeypatch.setattr(ranks, "GRACE", 0.5)
    with (
        pytest.raises(distributed.PeerLost) as raised,
        fallen(status=ranks.PEER_ENDED) as others,
        others.explaining(distributed.PeerLost),
    ):
        raise left
    assert raised.value is left


def test_a_process_whose_leader_died_ends(monkeypatch):
    class Ended(BaseException):
        pass

    def end(status: int) -> None:
        raise Ended

    monkeypatch.setattr(identity.os, "_exit", end)
    with pytest.raises(Ended):
        identity._end_with(os.getpid(), ranks.PEER_ENDED)


def test_a_follower_rolls_back_with_the_leader_after_a_step_that_diverged(alone, wanted, outputs, monkeypatch):
    """It would continue from weights, or at a step, that no other process has."""
    commands, exchanges, taken = (
        iter([Command.STATE, Command.STEP, Command.STEP, Command.STATE, Command.STEP, Command.END]),
        [],
        [],
    )

    class Told(distributed.World):
        rank, size = 1, 2

        def broadcast(self, thing):
            return thing or ("noise", wanted)

        def next_command(self):
            return next(commands)

        def receive_state(self, device):
            return checkpoint.load(alone.run.checkpoint(2), device)

        def average(self, numbers):
            exchanges.append(numbers)
            if len(exchanges) == 2:
                numbers.fill_(float("nan"))

    real = follower.train_step
    monkeypatch.setattr(follower, "train_step", lambda session: (taken.append(session.step), real(session)))
    follower.follow(Told(), outputs)
    assert taken == [2, 3, 2] and not next(commands, None)


def test_processes_draw_apart_and_the_first_as_one_that_is_alone():
    class Second(distributed.World):
        rank, size = 1, 2

    assert (
        seeds.seed_of(0, seeds.DROPOUT, 7, *distributed.World().stream)
        == seeds.seed_of(0, seeds.DROPOUT, 7)
        != seeds.seed_of(0, seeds.DROPOUT, 7, *Second().stream)
    )
    assert [[0, 1, 2, 3][part] for part in (distributed.World().part, Second().part)] == [[0, 1, 2, 3], [1, 3]]


def test_a_batch_that_cannot_be_shared_is_refused_by_name():
    with pytest.raises(
        SettingsError, match="batch is 3, which 2 GPUs cannot share evenly: set batch to a multiple of gpus"
    ):
        Settings().changed(batch=3, gpus=2)


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, r"2 GPUs were asked for, and PyTorch finds 1 here\..* Set gpus to 1\."), (0, "PyTorch finds none here")],
)
def test_more_gpus_than_there_are_are_refused_with_their_number(monkeypatch, count, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(MachineError, match=words):
        distributed.require(Settings(gpus=2, batch=2).machine)
    distributed.require(Settings(gpus=2, batch=2, device="cpu").machine)


def test_each_process_takes_the_gpu_of_its_place(monkeypatch):
    taken = []
    for name, value in {"is_available": True, "device_count": 4, "get_device_capability": (9, 0)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: taken[-1])
    assert devices.choose(Settings().machine, place=3).device == torch.device("cuda", 3)


def test_a_suggestion_for_several_gpus_leaves_each_its_picture():
    """Half of a batch that is one picture a GPU could not be shared."""
    assert devices.out_of_memory("GPU", Settings(batch=4, gpus=2)).details == {"changes": {"batch": 2, "accumulate": 2}}
    assert devices.out_of_memory("GPU", Settings(batch=2, gpus=2)).details == {"changes": {"checkpointing": "all"}}
    assert memory.suggest(Settings(batch=8, gpus=2), "bf16", 2**40) == {"batch": 2, "accumulate": 4}


def test_a_launcher_is_known_by_all_of_its_variables(monkeypatch):
    """A cluster may set one of them for reasons of its own."""
    monkeypatch.setattr(os, "environ", {"RANK": "1", "WORLD_SIZE": "2"})
    assert (ranks.launched(), ranks.follows()) == (0, False)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    assert (ranks.launched(), ranks.follows()) == (2, True)

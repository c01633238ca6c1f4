"""Requests are files: any process may ask, twice if it likes."""

import os
import signal
from pathlib import Path

import pytest

from lora_studio import files
from lora_studio.jobs import control, runner, worker
from lora_studio.jobs.control import Request
from lora_studio.jobs.control_files import ControlFiles


@pytest.mark.parametrize("request_", list(Request))
def test_asking_twice_asks_once(run, request_):
    control.ask(run, request_)
    control.ask(run, request_)
    assert control.asked(run, request_)
    assert control.take(run, request_)
    assert not control.take(run, request_)


def test_withdrawing_what_was_never_asked_is_no_error(run):
    control.withdraw(run, Request.PAUSE)
    assert not control.asked(run, Request.PAUSE)


def test_requests_do_not_touch_each_other(run):
    control.ask(run, Request.STOP)
    control.ask(run, Request.PREVIEW)
    assert control.take(run, Request.PREVIEW)
    assert control.asked(run, Request.STOP)


def test_a_worker_begins_with_no_requests(run):
    for request in Request:
        control.ask(run, request)
    control.clear(run)
    assert not any(control.asked(run, request) for request in Request)


def test_a_control_folder_that_was_deleted_is_made_again(run):
    run.control.rmdir()
    control.ask(run, Request.STOP)
    assert control.asked(run, Request.STOP)


# Windows lets nobody delete, rename or touch a file while another program has it open in a certain way.


def sharing_violation() -> PermissionError:
    error = PermissionError(13, "The process cannot access the file because it is being used by another process")
    error.winerror = 32
    return error


@pytest.fixture
def held(monkeypatch):
    """Refuses the given number of calls that change files; ``held.refused`` counts them."""
    monkeypatch.setattr(files, "_PAUSES", (0.0,) * 3)

    class Held:
        left = refused = 0

    def refusing(real):
        def call(*arguments, **options):
            if Held.left:
                Held.left, Held.refused = Held.left - 1, Held.refused + 1
                raise sharing_violation()
            return real(*arguments, **options)

        return call

    for name in ("unlink", "replace"):
        monkeypatch.setattr(files.os, name, refusing(getattr(os, name)))
    monkeypatch.setattr(Path, "touch", refusing(Path.touch))
    return Held


@pytest.mark.fault(67)
@pytest.mark.parametrize("request_", list(Request))
def test_a_request_that_another_program_has_open_is_taken_when_it_lets_go(run, held, request_):
    """The page looks for it while the worker takes it: the run died of that."""
    control.ask(run, request_)
    held.left = 100
    assert not control.take(run, request_) and control.asked(run, request_)
    held.left = 0
    assert control.take(run, request_) and not control.asked(run, request_)


@pytest.mark.fault(67)
def test_what_another_program_holds_for_a_moment_is_tried_again(run, held):
    for act in (
        lambda: control.ask(run, Request.STOP),
        lambda: control.take(run, Request.STOP),
        lambda: control.ask(run, Request.PAUSE),
        lambda: control.withdraw(run, Request.PAUSE),
        lambda: runner.register_worker(run, os.getpid()),
        lambda: files.unlink(run.worker_file),
    ):
        held.left, held.refused = 2, 0
        act()
        assert held.refused == 2
    assert not control.asked(run, Request.STOP) and not control.asked(run, Request.PAUSE)


@pytest.mark.fault(67)
def test_a_worker_outlives_requests_that_it_cannot_touch(run, held, signals_as_they_were):
    """Its own pause on a full disk, and a signal to stop, which is not lost."""
    terminated = worker.listen(lambda: control.ask(run, Request.STOP))
    requests = ControlFiles(run, terminated)
    held.left = 1000
    assert requests.pause() is False
    requests.end_pause()
    signal.raise_signal(signal.SIGTERM)
    assert requests.stop() and requests.take_stop() and not requests.stop()


def test_a_control_folder_that_cannot_be_read_holds_no_requests(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Access is denied")

    control.ask(run, Request.STOP)
    monkeypatch.setattr(os, "stat", refuse)
    assert not control.asked(run, Request.STOP)

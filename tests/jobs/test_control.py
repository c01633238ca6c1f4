"""Requests are files: any process may ask, twice if it likes."""

import pytest

from lora_studio.jobs import control
from lora_studio.jobs.control import Request


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

"""Answers of a tab's handlers arrive in the order of its events."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lora_studio.ui.ordering import InOrder
from lora_studio.ui.security import Bounded


def run(coroutine):
    """Its result. In a thread of its own, since the browser's tests have an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class Handlers:
    """An app whose handlers answer when the test says so, and note what they do."""

    def __init__(self):
        self.done, self.go_on = [], {}

    async def __call__(self, scope, receive, send):
        name = json.loads((await receive())["body"])["data"]
        self.done.append(f"{name} begins")
        await self.go_on.setdefault(name, asyncio.Event()).wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.done.append(f"{name} has answered")


async def ask(app, name, tab, path="/gradio_api/run/predict", parts=1, sent=None):
    body = json.dumps({"data": name, "session_hash": tab}).encode()
    size = -(-len(body) // parts)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    messages = [{"type": "http.request", "body": one, "more_body": one is not chunks[-1]} for one in chunks]

    async def receive():
        return messages.pop(0)

    async def send(message):
        if sent is not None:
            sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)


async def played(asked, *go_on):
    """What the handlers do where ``asked`` = [(name, tab)] come in that order, and then may answer in that of
    ``go_on``.
    """
    handlers = Handlers()
    app = InOrder(handlers)
    tasks = []
    for name, tab in asked:
        tasks.append(asyncio.create_task(ask(app, name, tab, parts=3)))
        await asyncio.sleep(0.01)
    for name in go_on:
        handlers.go_on.setdefault(name, asyncio.Event()).set()
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    return handlers.done


@pytest.mark.parametrize("later_first", [True, False])
def test_the_later_event_answers_later(later_first):
    """A picture is chosen while the caption of the one before is being saved, and is no longer shown as chosen."""
    order = ["choose", "save"] if later_first else ["save", "choose"]
    done = run(played([("save", "a"), ("choose", "a")], *order))
    assert done == ["save begins", "save has answered", "choose begins", "choose has answered"]


@pytest.mark.parametrize("tabs", [("a", "b"), ("", ""), (None, None)])
def test_tabs_and_scripts_do_not_wait_for_each_other(tabs):
    done = run(played(list(zip(("slow", "quick"), tabs, strict=True)), "quick", "slow"))
    assert done == ["slow begins", "quick begins", "quick has answered", "slow has answered"]


def test_other_addresses_do_not_wait():
    async def both():
        handlers = Handlers()
        app = InOrder(handlers)
        slow = asyncio.create_task(ask(app, "slow", "a"))
        await asyncio.sleep(0.01)
        handlers.go_on["file"] = asyncio.Event()
        handlers.go_on["file"].set()
        await ask(app, "file", "a", "/gradio_api/upload")
        handlers.go_on["slow"].set()
        await slow
        return handlers.done

    assert run(both()) == ["slow begins", "file begins", "file has answered", "slow has answered"]


def test_one_that_fails_does_not_stop_the_next():
    async def both():
        handlers = Handlers()
        handlers.go_on["good"] = asyncio.Event()
        handlers.go_on["good"].set()
        app = InOrder(handlers)
        with pytest.raises(KeyError):
            await app(
                {"type": "http", "method": "POST", "path": "/run/predict", "headers": []},
                receive_nothing_named("a"),
                None,
            )
        await ask(app, "good", "a")
        return handlers.done

    assert run(both()) == ["good begins", "good has answered"]


def receive_nothing_named(tab):
    async def receive():
        return {"type": "http.request", "body": json.dumps({"session_hash": tab}).encode()}

    return receive


def test_a_body_that_is_too_large_is_refused(monkeypatch):
    """Its size was not declared: the limit is found while it is read, outside of what turns errors into answers."""
    monkeypatch.setattr("lora_studio.ui.security.MAX_BODY", 10)
    sent, handlers = [], Handlers()
    run(ask(Bounded(InOrder(handlers)), "long", "a", sent=sent))
    assert sent[0]["status"] == 413 and not handlers.done

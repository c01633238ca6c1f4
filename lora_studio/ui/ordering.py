"""Answers in the order of the events.

The page applies an answer when it arrives, whatever it shows by then. Of two handlers at work at once the earlier one
may answer last, and what it knows is old: a picture that was chosen is no longer shown as chosen, a run that has ended
trains on. So a tab's handlers work one at a time, each until its answer is sent. Handlers in gradio's queue answer
through a stream of their own; what they show, nothing else may show.
"""

from __future__ import annotations

import asyncio
import json
import re
from weakref import WeakValueDictionary

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HANDLER = re.compile(r"(/gradio_api)?/run/[^/]+/?")
"""The address of handlers that are not queued."""


class InOrder:
    """ASGI middleware: what a tab asks of handlers is answered one by one, in the order in which it was asked."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _HANDLER.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            body = await _read(receive)
        except HTTPException as refusal:  # it is too large
            await PlainTextResponse(refusal.detail, refusal.status_code, refusal.headers)(scope, receive, send)
            return
        tab, again = _tab(body), _replayed(body, receive)
        if not tab:
            await self.app(scope, again, send)
            return
        turn = self._turns.setdefault(tab, asyncio.Lock())
        async with turn:
            await self.app(scope, again, send)


async def _read(receive: Receive) -> bytes:
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _tab(body: bytes) -> str:
    """Gradio's name for the browser tab that asks; a new one for each load of the page, empty for a script.

    >>> _tab(b'{"session_hash": "k3x9", "data": []}'), _tab(b'{"data": []}'), _tab(b"no JSON")
    ('k3x9', '', '')
    """
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    name = found.get("session_hash") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives ``body`` as the request's, then whatever comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return left.pop() if left else await receive()

    return receiving

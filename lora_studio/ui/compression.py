"""Packs what the page loads. Gradio packs its scripts and sends the page itself, a megabyte of names, as it is."""

from __future__ import annotations

import re

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_PACKED = re.compile(r"/|/config|(/gradio_api)?/run/[^/]+/?")
"""The page, and the answers of handlers that are not queued. Streams are not packed: each part is to arrive at once."""
_SMALLEST = 1024
"""Bytes; a shorter answer fits into a packet as it is."""
_EFFORT = 5
"""Of gzip; more takes longer than it saves."""


class Packed:
    """ASGI middleware: gzip for those answers, for browsers that take it."""

    def __init__(self, app: ASGIApp):
        self.plain, self.packed = app, GZipMiddleware(app, minimum_size=_SMALLEST, compresslevel=_EFFORT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        packs = scope["type"] == "http" and _PACKED.fullmatch(scope["path"])
        await (self.packed if packs else self.plain)(scope, receive, send)

"""Who may talk to the page, and how much at once: this machine's own browser, and no other site that happens to be open
in it.

Another site can send requests to 127.0.0.1, or give its own name that address (DNS rebinding). So a foreign ``Host``
gets 400 and a foreign ``Origin`` 403, whatever is asked for; a body that is too large gets 413 before it is read. Doors
of gradio's that the page has no use for are closed. A page for other machines asks for a name and a password.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_studio.errors import SettingsError

LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]
MAX_UPLOAD = 1024**3
"""Bytes of one upload. What is larger lies on this machine already, and its path can be pasted."""
MAX_BODY = 16 * 1024**2
"""Bytes of any other request: what fields and buttons send."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'self'",
    )
)
"""Nothing on the page is fetched from anywhere else, and no other page shows this one in a frame. Gradio's own scripts
need inline and eval.
"""


_OTHERS_PAGE = "This page answers only to itself: the request came from another site."
_UNUSED = re.compile(
    r"(/gradio_api)?/(proxy=|dev/|vibe|undo-vibe|process_recording|component_server|custom_component|stream/|run-history|monitoring|pwa_icon|deep_link)"
)
"""What gradio offers beside what the page asks of it: fetching for visitors, editing its source, running sound through
other programs …
"""
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](.*)", re.DOTALL)
_ASTRAY = re.compile(
    r"[a-z][a-z+.-]+:|//|\\\\|.*(::|[\x00-\x1f]|(^|[/\\])\.\.([/\\]|$)|(^|[/\\])\.[^/\\]*$)", re.DOTALL | re.IGNORECASE
)
"""A file's address that is another machine's, names a hidden stream, climbs, or ends in a hidden file."""


class OwnPagesOnly:
    """ASGI middleware: refuses requests that another site's page makes, unused doors, and file addresses that lead
    astray.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif reason := _refusal(scope):
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, _with_policy(send))


def _refusal(scope: Scope) -> str:
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and _place(origin) != headers.get("host", "").lower():
        return _OTHERS_PAGE
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        return _OTHERS_PAGE
    path = _unquoted(scope["path"])
    if _UNUSED.match(path):
        return "The page has no use for this."
    if (file := _FILE.match(path)) and _ASTRAY.match(file[1]):
        return "Only the page's own pictures are served."
    return ""


def _place(origin: str) -> str | None:
    """Host and port that an ``Origin`` names; None where it names none that can be read."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _unquoted(path: str) -> str:
    """``path`` without any percent escapes, however often they were escaped."""
    while (plain := unquote(path)) != path:
        path = plain
    return path


def _with_policy(send: Send) -> Send:
    async def sending(message) -> None:
        if message["type"] == "http.response.start":
            extra = {
                "content-security-policy": POLICY,
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
            }
            present = {name for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present),
            ]
        await send(message)

    return sending


class Bounded:
    """ASGI middleware: a body larger than ``MAX_UPLOAD`` or ``MAX_BODY`` is refused unread, or where its size was not
    told, as soon as it is.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = MAX_UPLOAD if scope["path"].rstrip("/").endswith("/upload") else MAX_BODY
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal() or int(told) > most:
            await PlainTextResponse(_too_large(most), 413, {"connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, _counted(receive, most), send)


def _counted(receive: Receive, most: int) -> Receive:
    left = most

    async def receiving():
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_large(most), {"connection": "close"})
        return message

    return receiving


def _too_large(most: int) -> str:
    return f"More than {most // 1024**2} MB at once are not taken: paste the path of the file or its folder instead."


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def require_login(address: str, login: tuple[str, str] | None) -> None:
    """Other machines can reach any address but the loopback: then a name and a password are demanded.

    Raises:
        SettingsError: there is none.
    """
    if not is_loopback(address) and not (login and all(login)):
        advice = "Give a name and a password, or leave the address at 127.0.0.1."
        raise SettingsError(f"At {address} other machines could use the studio.", where="address", do=advice)


def middleware(address: str) -> list[Middleware]:
    """What every request passes, outermost first. At an address for other machines the name they use is not known
    beforehand, and the login guards.
    """
    hosts = LOOPBACK if is_loopback(address) else ["*"]
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(OwnPagesOnly),
        Middleware(Bounded),
    ]

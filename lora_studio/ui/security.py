"""Protects the page: only this machine's browser may use it, and no other site that is open in that browser.

Another site can send requests to 127.0.0.1, or resolve its own name to that address (DNS rebinding). So a foreign
``Host`` gets 400 and a foreign ``Origin`` 403, whatever the request. A body that is too large gets 413 before it is
read. Endpoints of gradio that the page does not use are disabled, and no address is fetched. A page for other
machines requires a login.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Never
from urllib.parse import unquote, urlsplit

import gradio as gr
import safehttpx
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.ui.compression import Packed
from lora_studio.ui.gradio_scripts import GradioScripts
from lora_studio.ui.ordering import InOrder
from lora_studio.ui.translated import Spoken

LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]
MAX_UPLOAD = 1024**3
"""Bytes of one upload. For a larger folder its path can be pasted, since it is on this machine."""
MAX_BODY = 16 * 1024**2
"""Bytes of any other request."""

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
"""The page loads nothing from other servers, and no other page may embed it. Gradio's scripts need inline and eval."""


_UNUSED = re.compile(
    r"(/gradio_api)?/(proxy=|dev/|vibe|undo-vibe|process_recording|component_server|custom_component|stream/"
    r"|run-history|monitoring|pwa_icon|deep_link)"
)
"""Endpoints of gradio that the page does not use: proxying, editing its source, converting audio…"""
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](.*)", re.DOTALL)
_ASTRAY = re.compile(
    r"[a-z][a-z+.-]+:|//|\\\\|.*(::|[\x00-\x1f]|(^|[/\\])\.\.([/\\]|$)|(^|[/\\])\.[^/\\]*$)", re.DOTALL | re.IGNORECASE
)
"""A file's address on another machine, with an alternate data stream, with ``..``, or of a hidden file."""


def forbid_fetching() -> None:
    """From now on gradio fetches no address. Where the path of an uploaded file is a URL, it would look up the name,
    at Google too, and download what is there.
    """
    for name in ("get", "async_validate_url"):
        setattr(safehttpx, name, _refuse_address)


async def _refuse_address(address: str, *_: object, **__: object) -> Never:
    raise gr.Error(
        tr("{address} is not fetched. Save the file on this computer, then upload it.", address=address),
        print_exception=False,
    )


class OwnPagesOnly:
    """ASGI middleware that refuses requests of other sites, unused endpoints, and unsafe addresses of files."""

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
        return tr("Requests from other sites are refused.")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        return tr("Requests from other sites are refused.")
    path = _unquoted(scope["path"])
    if _UNUSED.match(path):
        return tr("This endpoint is disabled.")
    if (file := _FILE.match(path)) and _ASTRAY.match(file[1]):
        return tr("Only images of the page are served.")
    return ""


def _place(origin: str) -> str | None:
    """Host and port of an ``Origin``; None if it is invalid."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _unquoted(path: str) -> str:
    """``path`` without percent escapes, even nested ones."""
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
    """ASGI middleware that refuses a body larger than ``MAX_UPLOAD`` or ``MAX_BODY``: unread if its size was declared,
    else as soon as it exceeds the limit.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = MAX_UPLOAD if scope["path"].rstrip("/").endswith("/upload") else MAX_BODY
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await PlainTextResponse(_too_large(limit), 413, {"connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, _counted(receive, limit), send)


def _counted(receive: Receive, limit: int) -> Receive:
    left = limit

    async def receiving():
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_large(limit), {"connection": "close"})
        return message

    return receiving


def _too_large(limit: int) -> str:
    return tr(
        "The request is larger than {size} MB. Paste the path of the file or its folder instead.",
        size=limit // 1024**2,
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to ``address``."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def require_login(address: str, login: tuple[str, str] | None) -> None:
    """Requires a login for an address that other machines can connect to.

    Raises:
        SettingsError: there is no name or no password.
    """
    if not is_loopback(address) and not (login and all(login)):
        advice = "Set a name and a password (LORA_STUDIO_LOGIN=NAME:PASSWORD), or use the address 127.0.0.1."
        raise SettingsError(f"Other machines could use the studio at {address}.", where="address", do=advice)


def middleware(address: str) -> list[Middleware]:
    """The middleware of every request, outermost first. At an address for other machines their name for it is unknown,
    and the login protects the page.
    """
    hosts = LOOPBACK if is_loopback(address) else ["*"]
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(Spoken),
        Middleware(Packed),
        Middleware(OwnPagesOnly),
        Middleware(Bounded),
        Middleware(InOrder),
        Middleware(GradioScripts),
    ]

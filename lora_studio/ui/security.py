"""Who may talk to the page: this machine's own browser, and no other site that happens to be open in it.

Another site can send requests to 127.0.0.1, or give its own name that address (DNS rebinding). So a foreign ``Host`` gets 400
and a foreign ``Origin`` 403, whatever is asked for. A page for other machines asks for a name and a password.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_studio.errors import SettingsError

LOOPBACK = ["127.0.0.1", "localhost", "::1", "[::1]"]

POLICY = "; ".join((
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "object-src 'none'",
    "frame-ancestors 'none'",
    "base-uri 'self'",
))
"""Nothing on the page is fetched from anywhere else, and no other page shows this one in a frame. Gradio's own scripts need inline and eval."""


class OwnPagesOnly:
    """ASGI middleware: refuses requests that another site's page makes, and file addresses that lead out of this machine."""

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
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return "This page answers only to itself: the request came from another site."
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return "This page answers only to itself: the request came from another site."
    path = _unquoted(scope["path"])
    _, found, target = path.partition("/file")
    if "/proxy=" in path or found and target.lstrip("=/").lower().startswith(("http:", "https:", "ftp:", "file:", "//", "\\\\")):
        return "Only files of this machine are served."
    return ""


def _unquoted(path: str) -> str:
    """``path`` without any percent escapes, however often they were escaped."""
    while (plain := unquote(path)) != path:
        path = plain
    return path


def _with_policy(send: Send) -> Send:
    async def sending(message) -> None:
        if message["type"] == "http.response.start":
            extra = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
            present = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present)]
        await send(message)

    return sending


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
    """What every request passes, outermost first. At an address for other machines the name they use is not known beforehand, and the login guards."""
    hosts = LOOPBACK if is_loopback(address) else ["*"]
    return [Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False), Middleware(OwnPagesOnly)]

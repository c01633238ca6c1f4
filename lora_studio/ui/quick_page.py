"""Lets gradio's page find its components at once.

Its script looks through the whole page for each component that a handler reads or changes, and through all handlers for
each component. On a page as large as the studio's, that took more than half of the script's time while the page loads,
and delayed every answer.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from gradio.routes import BUILD_PATH_LIB
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_SCRIPT = re.compile(r"/assets/(core-[\w-]+\.js)")
"""The address of the script that holds the components."""
QUICKER = {
    # The component ``t`` below the root ``e``: of each root a table is made, when it is first asked.
    "function Z(e,t){if(e.id===t)return e;if(e.children)for(let n of e.children){let e=Z(n,t);if(e)return e}"
    "return null}": (
        "function Z(e,t){let known=(Z.known??=new WeakMap).get(e);if(!known){known=new Map;"
        "let add=e=>{known.has(e.id)||known.set(e.id,e);e.children?.forEach(add)};add(e);Z.known.set(e,known)}"
        "return known.get(t)??null}"
    ),
    "a.children=i.children,this.#f(i)": "a.children=i.children,Z.known.delete(this.root),this.#f(i)",
    # The events of the component ``e``, by the handlers ``t``: of those a table is made, when they are first asked.
    "find_attached_events(e,t){let n=t.filter(t=>t.targets.find(([t])=>t===e.id)).map(t=>{let n=t.targets.find("
    "([t])=>t===e.id);return n?n[1]:null}).filter(Boolean);return e.props.shared_props.attached_events=n,e}": (
        "find_attached_events(e,t){if(this.handlers!==t){this.handlers=t;this.events=new Map;for(let{targets:n}of t)"
        "for(let[id,name]of new Map([...n].reverse())){let had=this.events.get(id)??[];name&&had.push(name);"
        "this.events.set(id,had)}}return e.props.shared_props.attached_events=[...this.events.get(e.id)??[]],e}"
    ),
}
"""Parts of the script, and what gives the same answer from a table."""


def quicker(script: str) -> str:
    """``script`` with those parts replaced that it has; another version of gradio's may have none."""
    for slow, quick in QUICKER.items():
        script = script.replace(slow, quick)
    return script


@functools.cache
def _served(name: str) -> bytes | None:
    path = Path(BUILD_PATH_LIB) / name
    return quicker(path.read_text("utf-8")).encode() if path.is_file() else None


class QuickPage:
    """ASGI middleware: serves that script."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _SCRIPT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        body = _served(named[1]) if named else None
        if body is None:
            await self.app(scope, receive, send)
        else:
            await Response(body, media_type="text/javascript")(scope, receive, send)

"""Gradio's scripts as the studio serves them: with parts replaced that are slow, or that lose what was typed.

The page's core looks through the whole page for each component that a handler reads or changes, and through all
handlers for each component. On a page as large as the studio's, that took more than half of the script's time while the
page loads, and delayed every answer. A list of choices reports an input whenever the focus leaves it: on the way
through the form by the Tab key its preset would be chosen anew, and all that was typed would be lost. And it opens
again for a key that has left it, over what is below.

An answer fills its fields whenever it comes, also with what the user has changed since she asked. Here each event has
the time at which it was asked for, and each field the time of what it holds: of what was typed or chosen, or of the
event whose answer filled it. The value of an answer that is older is left out. What follows an event has its time.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from gradio.routes import BUILD_PATH_LIB
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_SCRIPT = re.compile(r"/assets/((?:core|Blocks|Index)-[\w-]+\.js)")
"""The addresses of the page's core, of what runs its handlers, and of the components' scripts."""
CORE = {
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
"""Parts of the core, and what gives the same answer from a table."""
_FIELDS = ("browserstate", "checkbox", "checkboxgroup", "dropdown", "number", "radio", "slider", "textbox")
_ASKED = (
    "let held=globalThis.heldSince??=new Map,asked=e.asked??performance.now();e.asked===void 0&&("
    "e.event_name===`input`||e.event_name===`key_up`&&e.event_data?.key!==`Tab`)&&held.set(e.target_id,asked);"
)
_FOLLOWS = "this.dispatch({type:`fn`,fn_index:e,event_data:null,target_id:l%s})})"
_OLDER = (
    f"if(asked!==void 0&&`value`in t&&{list(_FIELDS)}.includes(r?.type)){{let held=globalThis.heldSince;"
    "if(held.get(e)>asked){t={...t};delete t.value}else held.set(e,asked)}"
)
ORDER = {
    "async dispatch(e){if(this.connection_lost)return;let t;": (
        "async dispatch(e){if(this.connection_lost)return;" + _ASKED + "let t;"
    ),
    "dispatch_state_change_events(e){": "dispatch_state_change_events(e,asked){",
    "this.dispatch({type:`fn`,fn_index:e.id,target_id:t,event_data:null})})}": (
        "this.dispatch({type:`fn`,fn_index:e.id,target_id:t,event_data:null,asked})})}"
    ),
    "this.dispatch_state_change_events(s)": "this.dispatch_state_change_events(s,asked)",
    _FOLLOWS % "": _FOLLOWS % ",asked",
    "this.queue.add(r.id);continue": (
        "this.queue.add(r.id),this.queue[r.id]={type:`fn`,fn_index:r.id,target_id:e.target_id,"
        "event_data:e.event_data,asked};continue"
    ),
    "this.queue.delete(r.id),this.dispatch(e))": "this.queue.delete(r.id),this.dispatch(this.queue[r.id]))",
    "this.handle_data(r.outputs,t.data)": "this.handle_data(r.outputs,t.data,asked)",
    "this.handle_data(r.outputs,s.data)": "this.handle_data(r.outputs,s.data,asked)",
    "async handle_data(e,t){": "async handle_data(e,t,asked){",
    "await this.update_state_cb(e[r],{[a]:o},!1)": "await this.update_state_cb(e[r],{[a]:o},!1,asked)",
    "await this.update_state_cb(n,{value:i},!1)": "await this.update_state_cb(n,{value:i},!1,asked)",
}
"""Parts of the script that runs the handlers, and what tells with each answer when it was asked for."""
UPDATES = {
    "async update_state(e,t,n=!0){let r=Z(this.root,e),i=!1;": (
        "async update_state(e,t,n=!0,asked){let r=Z(this.root,e),i=!1;" + _OLDER
    )
}
"""A part of the core, and what leaves out the values of answers where the field holds something newer."""
CHOICES = {
    "o.on_focus?.()}function we(){": "o.on_focus?.(),we.was=_()}function we(){",
    "o.on_input?.(),I.blur()}": "o.on_input?.(),we.was=_(),I.blur()}",
    "o.on_blur?.(),o.on_input?.()}": "o.on_blur?.(),we.was!==_()&&o.on_input?.()}",
    "async function Te(e){await w();let t=": (
        "async function Te(e){if(await w(),document.activeElement!==I)return;let t="
    ),
}
"""Parts of the script for a list of choices (``gr.Dropdown``), and what reports an input where the value is another one
than when it got the focus, and leaves the list closed that a key has left.
"""
TYPING = {
    "d.onsubmit?.()),await E(),d.oninput?.(m())}": "d.onsubmit?.())}",
    "w(`keypress`,t,Z)": "w(`keypress`,t,Z),w(`input`,t,()=>E().then(()=>d.oninput?.(m())))",
}
"""Parts of the script for a field of text, and what reports each input: gradio reports a key that is pressed, and so
nothing of what is deleted, pasted or composed.
"""


def corrected(script: str) -> str:
    """``script`` with those parts replaced that it has; another version of gradio's may have none."""
    for part, better in (CORE | UPDATES | ORDER | CHOICES | TYPING).items():
        script = script.replace(part, better)
    return script


@functools.cache
def _served(name: str) -> bytes | None:
    path = Path(BUILD_PATH_LIB) / name
    return corrected(path.read_text("utf-8")).encode() if path.is_file() else None


class GradioScripts:
    """ASGI middleware: serves those scripts."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _SCRIPT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        body = _served(named[1]) if named else None
        if body is None:
            await self.app(scope, receive, send)
        else:
            await Response(body, media_type="text/javascript")(scope, receive, send)

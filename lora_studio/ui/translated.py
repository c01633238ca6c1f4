"""The page in the reader's language: which one that is, the page built in it, and handlers that answer in it.

Handlers belong to one page, in English. For another language the page is built once more, in that language, and the
browser gets its components in place of the English ones. They are the same but for their texts.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from http.cookies import CookieError, SimpleCookie
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_studio import language
from lora_studio.language import ENGLISH, LANGUAGES, Message, tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon

COOKIE = "lora-studio-language"
_CHOOSING = """
document.documentElement.lang = '%(language)s';
element.querySelector('select').addEventListener('change', event => {
  document.cookie = `%(cookie)s=${event.target.value}; path=/; max-age=%(year)s; samesite=lax`;
  location.reload();
});
"""
_NAMING = """
{
  const ours = %s;
  const tell = () => {
    for (const [theirs, text] of Object.entries(ours))
      for (const one of document.querySelectorAll(`[aria-label^="${theirs}"]`))
        one.ariaLabel = text.replace('{label}', one.ariaLabel.slice(theirs.length));
  };
  let due = false;
  new MutationObserver(() => {
    if (!due) requestAnimationFrame(() => { due = false; tell(); });
    due = true;
  }).observe(document.body, {childList: true, subtree: true});
}
"""
_NAMES = {
    "Click to upload or drop files": tr("Click to upload or drop files"),
    "range slider for ": tr("range slider for {label}"),
    "number input for ": tr("number input for {label}"),
}
"""How the names of fields begin that gradio gives in English alone, for screen readers."""
_HEAD = """<script>
{
  const chosen = document.cookie.match(/(?:^|; )%(cookie)s=([a-z]+)/)?.[1];
  const name = {zh: 'zh-CN'}[chosen] ?? chosen;
  if (chosen) Object.defineProperties(navigator, {language: {value: name}, languages: {value: [name]}});
}
</script>"""


def of_headers(headers: Any) -> str:
    """The language that was chosen on the page, else the one that the browser asks for."""
    try:
        chosen = SimpleCookie(headers.get("cookie") or "").get(COOKIE)
    except CookieError:
        chosen = None
    if chosen and chosen.value in LANGUAGES:
        return chosen.value
    return language.preferred(headers.get("accept-language") or "")


class Spoken:
    """ASGI middleware that answers each request in the language of its reader."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with language.using(of_headers(Headers(scope=scope))):
            await self.app(scope, receive, send)


class Page(gr.Blocks):
    """A page in every language.

    Args:
        again: builds the same page once more, with the same components in the same order.
    """

    def __init__(self, again: Callable[[], gr.Blocks], **how: Any):
        self._again, self._building = again, threading.Lock()
        self._configs: dict[str, Any] = {}
        super().__init__(**how)

    @property
    def config(self) -> Any:
        """What the browser is told of the page, in the current language."""
        english = self._configs[ENGLISH]
        spoken = language.current()
        if spoken == ENGLISH:
            return english
        with self._building:
            if spoken not in self._configs:
                self._configs[spoken] = self._built_in(spoken)
        return english | self._configs[spoken]

    @config.setter
    def config(self, value: Any) -> None:
        self._configs = {ENGLISH: value}

    def _built_in(self, spoken: str) -> dict[str, Any]:
        other = self._again()
        return _alike(translated(other.get_config_file()), self._configs[ENGLISH], {other._id: self._id})


def choice() -> str:
    """Where the language of the page is chosen, as HTML."""
    options = "".join(
        f'<option value="{code}" lang="{code}"{" selected" * (code == language.current())}>{name}</option>'
        for code, name in LANGUAGES.items()
    )
    return f'{icon("language")}<select id="language" aria-label="{words.text(tr("Language"))}">{options}</select>'


def choosing() -> str:
    """What makes the choice take effect, by loading the page in that language, and translates gradio's own names; for
    ``gr.HTML(js_on_load=...)``.
    """
    chosen = _CHOOSING % {"cookie": COOKIE, "language": language.current(), "year": 365 * 86_400}
    return chosen if language.current() == language.ENGLISH else chosen + _NAMING % words.script(_NAMES)


def head() -> str:
    """Tells gradio, which translates its own words by the browser's language, that another one was chosen; for the head
    of the page.
    """
    return _HEAD % {"cookie": COOKIE}


def _alike(config: dict[str, Any], english: dict[str, Any], number: dict[int, int]) -> dict[str, Any]:
    """What ``config`` has in place of the same in ``english``. Its components have other numbers, and are the same ones
    in the same order. Of the events it is their scripts alone: handlers get their inputs in the order of the page that
    they belong to.

    Args:
        number: the page's number in ``config`` -> the one in ``english``.
    """
    components, events = (list(zip(english[key], config[key], strict=True)) for key in ("components", "dependencies"))
    number |= {other["id"]: own["id"] for own, other in components}
    for own, other in components:
        assert own["type"] == other["type"], "the page is built otherwise in another language"
    for own, other in events:
        targets = [(number.get(block), event) for block, event in other["targets"]]
        assert targets == [tuple(one) for one in own["targets"]], "the page is built otherwise in another language"
    return {
        "components": [other | {"id": own["id"]} for own, other in components],
        "dependencies": [own | {"js": other["js"]} for own, other in events],
    }


def translated(answer: Any) -> Any:
    """``answer`` with the messages in it as text in the current language."""
    if isinstance(answer, Message):
        return str(answer)
    if isinstance(answer, dict):
        return {translated(key) if isinstance(key, Message) else key: translated(one) for key, one in answer.items()}
    if isinstance(answer, list):
        return [translated(one) for one in answer]
    if type(answer) is tuple:
        return tuple(translated(one) for one in answer)
    return answer


def answering(handler: Callable[..., Any]) -> Callable[..., Any]:
    """``handler`` such that it, and what it answers, is in the language of whoever asked."""
    if inspect.isgeneratorfunction(handler):
        return _answering_in_steps(handler)
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        return handler

    @functools.wraps(handler)
    def in_language(*args: Any, **kwargs: Any) -> Any:
        with language.using(_asked_in()):
            return translated(handler(*args, **kwargs))

    return in_language


def _answering_in_steps(handler: Callable[..., Generator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(handler)
    def in_language(*args: Any, **kwargs: Any) -> Iterator[Any]:
        spoken = _asked_in()
        with closing(handler(*args, **kwargs)) as steps:
            while True:
                with language.using(spoken):  # anew at each step, since each may be taken by another thread
                    try:
                        answer = translated(next(steps))
                    except StopIteration:
                        return
                yield answer

    return in_language


def _asked_in() -> str:
    request = LocalContext.request.get(None)
    return of_headers(request.headers) if request is not None else language.current()

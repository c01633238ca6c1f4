"""The page in the reader's language: which one that is, the page built in it, and handlers that answer in it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lora_studio import __version__
from lora_studio.language import LANGUAGES, current, preferred, tr, using
from lora_studio.ui import studio, translated

OWN_NAMES = {
    "A1111", "BLIP", "ComfyUI", "Deutsch", "English", "Esc", "Florence-2", "Fooocus", "Forge", "LoRA Studio",
    f"LoRA Studio {__version__}", "Qwen3-VL", "SwarmUI", "Tab", "U²-Net", "diffusers", "my-style", "peft",
    "~/Pictures/my-style",
}  # fmt: skip
"""Programs, models, languages, keys and examples of names."""


def _outside(text: str) -> str:
    """What of ``text`` is in no message: what stands outside of all marks."""
    depth, found = 0, []
    for sign in text:
        depth += (sign == "⟦") - (sign == "⟧")
        found += [sign] if depth == 0 and sign != "⟧" else []
    return "".join(found)


def _of_html(source: str) -> Iterator[str]:
    """What HTML shows and what it tells screen readers, where that is in no message."""
    for part in re.split(r"(<[^>]*>)", _outside(source)):
        if part.startswith("<"):
            yield from re.findall(r'(?:aria-label|title|alt|placeholder)="([^"]*)"', part)
        else:
            yield part.strip()


def _texts(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What components show that is in no message: where, and what."""
    for one in config["components"]:
        props, kind = one["props"], one["type"]
        where = props.get("elem_id") or kind
        if kind == "api" or where == "helps":  # scripts are answered in English, and help has texts of its own
            continue
        shown = [props.get(key) for key in ("label", "info", "placeholder")]
        shown += [choice[0] for choice in props.get("choices") or []]
        shown += [props.get("value")] if kind == "button" else []
        yield from ((where, _outside(text)) for text in shown if isinstance(text, str))
        if kind == "html" and isinstance(props.get("value"), str):
            yield from ((where, text) for text in _of_html(props["value"]))


@pytest.mark.usefixtures("marked")
def test_nothing_on_a_page_is_outside_of_messages(tmp_path):
    """A label, a heading or a name for screen readers stays English in every language."""
    page = studio.build(tmp_path)
    with using("de"):
        german = page.config
    left = {(where, text) for where, text in _texts(german) if re.search(r"[A-Za-z]{2}", text)}
    assert {(where, text) for where, text in left if text not in OWN_NAMES} == set()


@pytest.mark.usefixtures("marked")
def test_a_page_in_another_language_has_the_same_components(tmp_path):
    """A component is missing in German, so that a handler's answer lands in another one."""
    page = studio.build(tmp_path)
    english = page.config
    with using("de"):
        german = page.config
    assert [one["id"] for one in german["components"]] == [one["id"] for one in english["components"]]
    assert [one["targets"] for one in german["dependencies"]] == [one["targets"] for one in english["dependencies"]]


@pytest.mark.usefixtures("marked")
def test_values_are_the_same_in_every_language(tmp_path):
    """What is chosen on a German page is unknown to its handler."""
    page = studio.build(tmp_path)
    with using("de"):
        german = page.config
    for one, other in zip(page.config["components"], german["components"], strict=True):
        choices, others = (each["props"].get("choices") or [] for each in (one, other))
        assert [choice[1] for choice in choices] == [choice[1] for choice in others], one["props"].get("elem_id")
        assert one["props"].get("elem_id") == other["props"].get("elem_id")


@pytest.mark.parametrize(("accepted", "language"), [
    ("", "en"),
    ("de", "de"),
    ("de-CH, en;q=0.5", "de"),
    ("fr-CH, ja;q=0.8, de;q=0.9", "de"),
    ("zh-TW,zh;q=0.9", "zh"),
    ("JA", "ja"),
    ("*", "en"),
    ("de;q=0", "en"),
    ("de;q=nan, ja;q=x", "en"),
    ("xx, yy;q=0.1", "en"),
])  # fmt: skip
def test_the_browser_asks_for_a_language(accepted, language):
    """A reader gets a language that the browser did not ask for, or no page at all."""
    assert preferred(accepted) == language
    assert translated.of_headers(Headers({"accept-language": accepted})) == language


@pytest.mark.parametrize(("cookie", "language"), [
    ("lora-studio-language=ja", "ja"),
    ("other=1; lora-studio-language=en", "en"),
    ("lora-studio-language=xx", "de"),
    ("lora-studio-language=", "de"),
    ("a[b]=c; ;=", "de"),
])  # fmt: skip
def test_what_was_chosen_on_the_page_counts_more(cookie, language):
    """The choice is forgotten at the next load, or a foreign cookie stops the page."""
    assert translated.of_headers(Headers({"cookie": cookie, "accept-language": "de"})) == language


@pytest.mark.usefixtures("german")
def test_a_request_is_answered_in_its_language():
    """An error is told in the language of whoever asked last."""

    async def told(_):
        return PlainTextResponse(tr("Training"))

    app = translated.Spoken(Starlette(routes=[Route("/", told)]))
    client = TestClient(app)
    assert client.get("/", headers={"accept-language": "de"}).text == "Läuft"
    assert client.get("/", headers={"accept-language": "en"}).text == "Training"
    assert current() == "en"


@pytest.mark.usefixtures("german")
def test_a_handler_answers_in_the_language_of_whoever_asked(asking):
    """Answers, and constants in them, are English on a German page."""
    constant = tr("Training")
    answer = translated.answering(lambda: {"a": [constant, (constant, 1)], "b": gr.update(value=constant)})
    asking(accept_language="de")
    assert answer() == {"a": ["Läuft", ("Läuft", 1)], "b": gr.update(value="Läuft")}


@pytest.mark.usefixtures("german")
def test_each_step_of_a_handler_is_in_that_language(asking):
    """A step that another thread takes is English; or the handler is not ended when its reader has gone."""
    ended = []

    def steps():
        try:
            while True:
                yield tr("Judge")
        finally:
            ended.append(current())

    asking(accept_language="de")
    answers = translated.answering(steps)()
    taken = [next(answers)]
    thread = threading.Thread(target=lambda: taken.append(next(answers)))
    thread.start()
    thread.join()
    answers.close()
    assert taken == ["Beurteilen", "Beurteilen"] and len(ended) == 1 and current() == "en"


@pytest.mark.usefixtures("german")
def test_two_readers_at_once_get_each_their_own_language():
    """One reader's language reaches another one's answers."""
    both_inside, told = threading.Barrier(2, timeout=10), {}

    def read(language: str) -> None:
        with using(language):
            both_inside.wait()
            told[language] = str(tr("Training"))
            both_inside.wait()

    readers = [threading.Thread(target=read, args=[language]) for language in ("de", "en")]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    assert told == {"de": "Läuft", "en": "Training"}


@pytest.mark.usefixtures("german")
def test_the_choice_of_languages_names_each_in_its_own():
    """A reader who does not know the page's language does not find the own one; or another one is shown as chosen."""
    with using("de"):
        shown = translated.choice()
    assert re.findall(r'<option value="(\w+)" lang="\1"( selected)?>([^<]+)</option>', shown) == [
        (code, " selected" if code == "de" else "", name) for code, name in LANGUAGES.items()
    ]
    assert 'aria-label="Sprache"' in shown

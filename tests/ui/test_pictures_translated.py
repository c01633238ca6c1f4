"""The Pictures page in a language whose every message stands in brackets: what stands outside is in English for all."""

from __future__ import annotations

import html
import re

import gradio as gr
import pytest
from PIL import Image

from lora_studio.config.settings import Settings
from lora_studio.jobs.model_downloads import HubOffer
from lora_studio.ui.pages.pictures import captioning_view, drop
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.page import PicturesPage
from lora_studio.ui.translated import translated
from tests.language.brackets import brackets  # noqa: F401 - a fixture of all tests here

_SHOWN = re.compile(r'(?:aria-label|title|alt|placeholder)="([^"]*)"|>([^<>]+)<')
_MESSAGE = re.compile(r"⟦[^⟦⟧]*⟧")
_NAME = re.compile(r"/\S+|\d\w*\.png|10_\w+|GB|BSD-3-Clause|BLIP")


@pytest.fixture
def look(tmp_path):
    """A tab that shows pictures with something to say about each, without a word in names and captions."""
    data = tmp_path / "1"
    (data / "10_1").mkdir(parents=True)
    sizes = {"1.png": (600, 500), "2.png": (70, 70), "3.png": (900, 300), "10_1/4.png": (128, 128)}
    for name, size in sizes.items():
        Image.effect_noise(size, 80).convert("RGB").save(data / name)
    Image.effect_noise((300, 200), 80).convert("RGBA").save(data / "5.png")
    Image.new("L", (600, 500), 90).save(data / "1-masklabel.png")
    (data / "6.png").write_bytes((data / "1.png").read_bytes())
    for name, caption in {"1": "船, 2\n3", "3": "4, " * 200, "10_1/4": "5"}.items():
        (data / f"{name}.txt").write_text(caption, "utf-8")
    return PicturesLook(Settings(data=str(data)))


def in_english(shown: str) -> list[str]:
    """What of HTML is in no message."""
    texts = (first or second for first, second in _SHOWN.findall(f">{_MESSAGE.sub('', shown)}<"))
    return [one for one in map(html.unescape, texts) if re.search(r"[A-Za-z]{2}", _NAME.sub("", one))]


def values(updates: dict) -> dict[str, str]:
    """The texts of components, by their ids."""
    plain = {component.elem_id: translated(update) for component, update in updates.items()}
    shown = {name: one.get("value", one.get("label")) if isinstance(one, dict) else one for name, one in plain.items()}
    return {name: one for name, one in shown.items() if isinstance(one, str)}


_DRAWN = (
    "folder-title", "filters", "cards", "editor-head", "editor-caption", "editor-problems", "crop", "crop-size",
    "crop-spread", "mask", "mask-share", "mask-alpha", "mask-find-all", "words-about", "words", "health", "folders",
    "pictures-message", "leave-out", "selection",
)  # fmt: skip


def test_what_the_page_draws_is_made_of_messages(look, tmp_path):
    """A sentence of a panel stays English in every language, or an English word stands among translated ones."""
    with gr.Blocks():
        page = PicturesPage(tmp_path / "outputs")
    seen = set()
    for tool, name in [(tool, name) for tool in ("", "crop", "mask") for name in ("1.png", "2.png", "3.png", "5.png")]:
        look.tool, look.chosen, look.selected, look.drawn = tool, name, {name, "10_1/4.png"}, None
        look.pending = dict
        shown = {key: one for key, one in values(page.room.draw(look)).items() if key in _DRAWN}
        assert {key: found for key, one in shown.items() if (found := in_english(one))} == {}
        seen |= shown.keys()
    assert seen == {*_DRAWN}


@pytest.mark.parametrize("model", ["blip", "1/2"])
def test_what_is_said_of_a_model_that_is_not_here_is_made_of_messages(model):
    """That a model can be downloaded stays English in every language."""
    for offer in (None, HubOffer("1/2", 1_500_000_000, 3, "")):
        assert in_english(captioning_view.offered(model, offer)) == []


def test_what_the_browser_says_of_an_upload_is_made_of_messages():
    """The sentences that the browser says by itself stay English in every language."""
    assert in_english(drop.sign()) == []
    assert re.findall(r"'[A-Z][a-z]+ [a-z]+[^']*'|`[A-Z][a-z]+ [a-z]+[^`]*`", drop.take()) == []

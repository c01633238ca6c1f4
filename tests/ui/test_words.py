"""The page's words: examples stand in the docstrings."""

import doctest

import pytest

from lora_studio.language import dates
from lora_studio.ui import plots, words
from lora_studio.ui.pages.train import judged_advice, judged_curves, previews


@pytest.mark.parametrize(
    "module", [dates, words, plots, previews, judged_advice, judged_curves], ids=lambda module: module.__name__
)
def test_examples_hold(module):
    """A figure reads wrong: "1 pictures", "60 minutes"."""
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.fault(20)
def test_notice_shows_markup_as_text():
    """A file's name runs as a script in the page."""
    html = words.notice("wrong", "<script>", "a<b>.png", "<i>do</i>")
    assert "<script>" not in html and "<i>" not in html and "a&lt;b&gt;.png" in html


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("a/7", "<b>It is.</b> <code>a/7</code>"),
        ("C:\\ink", "<b>It is.</b> <code>C:\\ink</code>"),
        ("two words.safetensors", "<b>It is.</b> <code>two words.safetensors</code>"),
        ("the preset's name", "The preset&#x27;s name: <b>It is.</b>"),
        ("Folder of ComfyUI", "Folder of ComfyUI: <b>It is.</b>"),
        ("rank", "rank: <b>It is.</b>"),
        ("", '"alert"><b>It is.</b></div>'),
    ],
)
def test_a_place_is_code_only_where_it_is_a_file(where, shown):
    """The label of a field stands after a message as if it were code."""
    assert shown in words.notice("wrong", "It is.", where)

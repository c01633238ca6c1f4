"""Help inside the page: every setting that has a (?) leads to a text that is there, with its picture."""

import re
from pathlib import Path

import pytest

from lora_studio.config.specs import SPECS
from lora_studio.ui import help
from tests.benchmarks import help_pictures

PICTURES = {f"{strip.key}.webp" for strip in help_pictures.STRIPS}


@pytest.mark.parametrize("name", help.PAGES)
def test_each_text_has_a_picture_that_a_script_draws(name):
    """A picture shows what the studio no longer does, and nobody can draw it again."""
    text = (help.DOCS / "help" / f"{name}.md").read_text("utf-8")
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert text.startswith("# ") and picture in PICTURES
    assert 0 < (help.DOCS / "help" / picture).stat().st_size <= help_pictures.MOST


def test_no_picture_is_left_over():
    assert {path.name for path in (help.DOCS / "help").glob("*.webp")} == PICTURES


def test_settings_with_help_are_settings_and_their_texts_exist():
    assert set(help.OF_SETTING) <= set(SPECS) and set(help.OF_SETTING.values()) <= set(help.PAGES)
    assert {path.stem for path in (help.DOCS / "help").glob("*.md")} == set(help.PAGES)


def test_the_dialog_leads_nowhere_else(tmp_path):
    """A link leaves the page, or a picture is asked from elsewhere."""
    shown = help.dialog(tmp_path)
    ids = set(re.findall(r'<article id="(help-[\w-]+)"', shown))
    assert ids == {f"help-{name}" for name in (*help.PAGES, help.TROUBLE)}
    assert set(re.findall(r'href="#([^"]+)"', shown)) <= ids and 'href="http' not in shown and ".md" not in shown
    addresses = re.findall(r'<img loading="lazy" src="([^"]+)"', shown)
    assert len(addresses) == len(help.PAGES)
    assert all(Path(one.removeprefix("/gradio_api/file=")).is_file() for one in addresses)

"""Help inside the page: every setting that has a (?) leads to a text that is there, with its picture."""

import re
from pathlib import Path

import pytest

from lora_studio.config.specs import SPECS
from lora_studio.language import LANGUAGES, using
from lora_studio.ui import help
from tests.benchmarks import help_pictures

TRANSLATIONS = [path for code in LANGUAGES for path in sorted((help.DOCS / "help" / code).glob("*.md"))]
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


def test_a_text_is_shown_in_the_readers_language_and_in_english_where_that_lacks_it(tmp_path, monkeypatch):
    """Help is English on a German page; or a text that is not translated yet is missing there."""
    for folder, name, heading in (("help", "rank", "Rank"), ("help/de", "rank", "Rang"), ("help", "steps", "Steps")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.md").write_text(f"# {heading}\n\n[More](steps.md)\n", "utf-8")
    monkeypatch.setattr(help, "DOCS", tmp_path)
    with using("de"):
        german = help.dialog(tmp_path)
    assert '<a href="#help-rank">Rang</a><a href="#help-steps">Steps</a>' in german
    assert '<a href="#help-rank">Rank</a><a href="#help-steps">Steps</a>' in help.dialog(tmp_path)


def _held(text: str) -> tuple[list[str], set[str]]:
    """Names of the pictures that a text shows, and of the texts that it leads to."""
    links = {Path(link.partition("#")[0]).stem for link in re.findall(r"(?<!!)\[[^\]]+\]\(([^)]+)\)", text)}
    return [Path(one).name for one in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)], links & {*help.PAGES, help.TROUBLE}


@pytest.mark.parametrize("file", TRANSLATIONS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_translation_shows_and_leads_to_what_its_text_does(file, tmp_path):
    """A translation is of no text, lacks its picture, or leads to less."""
    assert file.stem in (*help.PAGES, help.TROUBLE)
    text, original = file.read_text("utf-8"), help._file(file.stem).read_text("utf-8")
    assert text.startswith("# ") and _held(text) == _held(original)
    with using(file.parent.name):
        assert ".md" not in re.sub(r"<[^>]+>", "", help._rendered(file.stem, tmp_path))

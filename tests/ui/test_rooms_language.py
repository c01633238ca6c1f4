"""Draw, Mix, Library and Sweeps in another language: what is kept or compared stays what it is in English."""

from gettext import NullTranslations

import pytest

from lora_studio import adapters, language, runs
from lora_studio.config.settings import Settings
from lora_studio.language import catalogue
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.sampling.picture_recipe import Stated, UsedAdapter
from lora_studio.ui.pages.draw import named, sheets, stage, taking
from lora_studio.ui.pages.draw.easel import DrawingProgress
from lora_studio.ui.pages.draw.order import DrawFields
from lora_studio.ui.pages.draw.sheets import AxisFields
from lora_studio.ui.pages.library import cards
from lora_studio.ui.pages.library.page import _NAMED_NO_MORE
from lora_studio.ui.pages.library.shelf import Shelf
from lora_studio.ui.pages.mix import image_specs, saving
from lora_studio.ui.pages.mix.image_specs import Scene, Spread
from lora_studio.ui.scene.mixture import Mix
from tests.adapters.adapter_samples import small


class _Turned(NullTranslations):
    """A language that has the words of English in quotation marks, and some in another order."""

    def gettext(self, message: str) -> str:
        return {"{run}, step {step:,}": "Schritt {step:,} von {run}"}.get(message, f"»{message}«")

    def ngettext(self, one: str, many: str, count: float) -> str:
        return self.gettext(one if count == 1 else many)


@pytest.fixture(autouse=True)
def german(monkeypatch):
    """The reader's language."""
    english = catalogue.translations(language.ENGLISH)
    monkeypatch.setattr(catalogue, "translations", lambda code: english if code == language.ENGLISH else _Turned())
    with language.using("de"):
        yield


@pytest.fixture
def states(tmp_path) -> list[Entry]:
    """Two saved states of a run, the earlier one first."""
    run = runs.create(Settings(data="x", name="ana"), tmp_path)
    for step in (3, 20):
        adapters.write(small(), run.checkpoint(step) / "adapter.safetensors")
    return sorted(library.entries(tmp_path), key=lambda one: one.step or 0)


def test_a_sheet_and_its_recipe_name_states_in_english(states, tmp_path):
    """A recipe that was written in one language could not be taken over in another."""
    assert str(cards.title(states[0])) == "Schritt 3 von ana"
    keys = {cards.key(one, tmp_path): one for one in states}
    spec = sheets.sheet(DrawFields("a cat"), Mix(), [AxisFields("checkpoint", chosen=list(keys))], keys).spec
    assert spec.across.labels == ["ana, step 3", "ana, step 20"]
    assert [one.name for one in spec.adapters] == ["ana, step 3", "ana, step 20"]


def test_a_mix_is_saved_and_drawn_under_english_names(states, tmp_path):
    """The name of its file and the labels of its sheets would depend on who looked."""
    mix = Mix()
    mix.add(states[0], tmp_path)
    mix.rows[0].factors = {"mid_block": 0.5}
    scene = Scene("starter", "cat", "", 1, 20, 5.0)
    drawn = image_specs.sheet(mix, scene, [mix.rows[0].key], Spread(0, 1, 2))
    assert drawn.adapters[0].name == drawn.across.subject == "ana, step 3, own blocks"
    assert saving.default_name(mix) == "ana, step 3 100"


def test_adapters_are_found_by_their_english_names(states, tmp_path):
    """A prompt that was kept, or a picture's recipe, would name an adapter that nobody finds."""
    assert [one.entry.step for one in named.named([("ana, step 20", 1.0)], states)] == [20]
    used = UsedAdapter(name="ana, step 3", weight=0.5, sha256="").model_dump()
    mix = Mix()
    assert taking.take(Stated({"adapters": [used]}, {}, True), mix, "starter", tmp_path).left == []
    assert [row.path for row in mix.rows] == [states[0].path]


def test_adapters_are_found_by_the_model_that_their_cards_name(states):
    """A search for what a card says found nothing, or one that worked in English."""
    assert library.search(states, "»built-in") == library.search(states, "the built-in starter") == states


def test_the_address_forgets_a_deleted_adapter_in_every_language():
    """The browser looked for an English sentence."""
    mark = _NAMED_NO_MORE.partition("includes('")[2].partition("')")[0]
    shelf = object.__new__(Shelf)
    shelf.deletion = shelf.said = shelf.taken = shelf.back = "said"
    said = []
    shelf._say = lambda shown: said.append(shown) or {}
    shelf.deleted("ink.safetensors")
    assert mark in said[0] and "»<b>ink.safetensors</b> is in the trash.«" in said[0]


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        (DrawingProgress(doing="", total=1), "»Drawing«…"),
        (
            DrawingProgress(doing="", total=5, kept=("a", "b"), step=3, steps=20, waiting=2),
            "»»»Drawing picture 3 of 5«, step 3 of 20«; 2 more to come«…",
        ),
    ],
)
def test_how_far_a_drawing_is_stands_in_whole_sentences(drawing, said):
    """Fragments that are put together read as English word by word."""
    assert said in stage.forming(drawing)

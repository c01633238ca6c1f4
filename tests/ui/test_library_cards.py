"""The library as HTML: cards, details and recipes of files that anybody may have made."""

from pathlib import Path

import pytest
from PIL import Image

from lora_studio import adapters, runs
from lora_studio.adapters import metadata, recipe
from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError
from lora_studio.runs import Unreadable, library
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui.pages.library import cards, details, page
from lora_studio.ui.pages.library.look import MOST_SHOWN, Look
from lora_studio.ui.pages.library.page import LibraryPage
from tests.adapters.adapter_samples import small

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def outputs(tmp_path) -> Path:
    folder = (tmp_path / "outputs").resolve()
    folder.mkdir()
    return folder


def put(outputs: Path, name: str = "ink", **texts: str) -> Entry:
    """An adapter in the library with such texts in its header."""
    path = adapters.write(
        small(),
        runs.library_folder(outputs) / f"{name}.safetensors",
        metadata={key.replace("__", "."): value for key, value in texts.items()},
    )
    return next(entry for entry in library.entries(outputs) if entry.path == str(path))


def trained(settings: dict, **more) -> str:
    return recipe.dumps(recipe.Training(settings=settings, **more))


def test_a_card_tells_what_the_issue_asks_for(outputs):
    entry = put(outputs, modelspec__title="Ink on paper", modelspec__trigger_phrase="inkstyle")
    shown = cards.html(Look(), [entry], 1, outputs)
    for part in (
        "Ink on paper",
        "Built-in starter",
        "rank 4",
        "KB",
        "inkstyle",
        cards.day(entry),
        'href="#library/library/ink.safetensors"',
        "1 adapter<",
    ):
        assert part in shown


@pytest.mark.fault(33)
def test_nothing_in_a_header_is_markup(outputs):
    """A stranger's title, trigger or recipe runs as a script in the library."""
    hostile = trained({"trigger": HOSTILE, "preview_prompts": [HOSTILE], HOSTILE: HOSTILE}, base=HOSTILE)
    entry = put(outputs, modelspec__title=HOSTILE, modelspec__trigger_phrase=HOSTILE, lora_studio__recipe=hostile)
    opened = details.opened(entry, {})
    for shown in (
        cards.html(Look(), [entry], 1, outputs),
        cards.html(Look(words=HOSTILE), [], 1, outputs),
        details.html(entry, outputs),
        details.links(entry, outputs),
        opened,
    ):
        assert "<img" not in shown and 'onerror="' not in shown
    assert "&lt;img" in details.html(entry, outputs) and "&lt;img" in opened


@pytest.mark.fault(61)
def test_a_name_with_letters_that_addresses_use_leads_to_its_adapter(outputs):
    path = runs.library_folder(outputs) / 'a #1 & "50%" <b>.safetensors'
    adapters.write(small(), path)
    (entry,) = library.entries(outputs)
    assert 'href="#library/library/a%20%231%20%26%20%2250%25%22%20%3Cb%3E.safetensors"' in cards.html(
        Look(), [entry], 1, outputs
    )
    assert cards.find(cards.key(entry, outputs), outputs) == entry


@pytest.mark.fault(61)
@pytest.mark.parametrize("key", ["", ".", "../secret.safetensors", "/etc/passwd", "library/none.safetensors"])
def test_a_made_up_key_finds_nothing(outputs, key):
    put(outputs)
    (outputs.parent / "secret.safetensors").write_bytes(b"x")
    assert cards.find(key, outputs) is None


def test_a_thumbnail_comes_from_the_header(outputs):
    image = outputs / "x.png"
    Image.new("RGB", (300, 200), "red").save(image)
    entry = put(outputs, modelspec__thumbnail=metadata.thumbnail(image))
    assert '<img class="cover" src="/gradio_api/file=' in cards.picture(entry, outputs)
    assert cards.thumbnail(Path(entry.path)).size == (256, 171)


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "url",
    [
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,%%",
        "data:image/png,x",
        "data:image/jpeg;base64,",
    ],
)
def test_a_damaged_thumbnail_hides_no_adapter(outputs, url):
    entry = put(outputs, modelspec__thumbnail=url)
    assert entry.has_thumbnail and '<span class="cover"' in cards.picture(entry, outputs)


def test_without_a_thumbnail_the_runs_last_preview_stands_in_up_to_the_adapters_step(outputs):
    run = runs.create(Settings(data="x", name="ink"), outputs)
    for step, colour in ((0, "white"), (50, "red"), (100, "blue")):
        Image.new("RGB", (32, 32), colour).save(run.preview_file(step, 0))
    adapters.write(small(), run.adapter_file)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    found = {entry.step: entry for entry in library.entries(outputs)}
    assert cards._latest_preview(found[None], outputs) == run.preview_file(100, 0)
    assert cards._latest_preview(found[50], outputs) == run.preview_file(50, 0)
    assert '<img class="cover"' in cards.picture(found[50], outputs)


def test_states_of_runs_stay_out_until_they_are_asked_for(outputs):
    run = runs.create(Settings(data="x", name="ink"), outputs)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    entries = library.entries(outputs)
    assert cards.matching(Look(), entries) == [] and "Only saved states" in cards.html(Look(), [], 1, outputs)
    assert [cards.title(entry) for entry in cards.matching(Look(states=True), entries)] == ["ink, step 50"]


def test_adapters_of_one_name_are_told_apart_where_one_is_chosen(outputs):
    for name in ("a", "b"):
        put(outputs, name, modelspec__title="Ink")
    put(outputs, "c", modelspec__title="Rain")
    run = runs.create(Settings(data="x", name="ink"), outputs)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    *others, last = cards.choices(library.entries(outputs), outputs)
    assert sorted(others) == [
        ("Ink (a.safetensors)", "library/a.safetensors"),
        ("Ink (b.safetensors)", "library/b.safetensors"),
        ("Rain", "library/c.safetensors"),
    ]
    assert last == ("ink, step 50", "ink/checkpoints/step-50/adapter.safetensors")


@pytest.mark.fault(33, 62)
def test_files_that_are_no_adapters_are_named_and_counted():
    shown = cards.unreadable(
        [Unreadable(f"/x/{HOSTILE}{number}.safetensors", "It is damaged.", "Copy it again.") for number in range(50)]
    )
    assert "50 files left out" in shown and "and 10 more" in shown and "<img" not in shown


def test_five_hundred_files_cost_their_headers_once_and_a_page_of_cards(outputs, monkeypatch):
    """A large library is read again for each letter of a search, or drawn whole."""
    file = Path(put(outputs, modelspec__title="Ink").path)
    for number in range(499):
        (file.parent / f"ink{number}.safetensors").write_bytes(file.read_bytes())
    read, opened = [], []
    summary, header = library.adapters.summary, adapters.header
    monkeypatch.setattr(library.adapters, "summary", lambda path: read.append(path) or summary(path))
    monkeypatch.setattr(cards.adapters, "header", lambda path: opened.append(path) or header(path))
    with page.gr.Blocks():
        shelf = LibraryPage(outputs).shelf
    seen = shelf.draw(Look())
    assert len(read) == 499, "the first one was known"
    assert seen[shelf.cards].count('class="adapter"') == MOST_SHOWN and "500 adapters" in seen[shelf.cards]
    assert seen[shelf.more]["visible"]
    assert not opened, "without thumbnails no header is needed to draw"
    read.clear()
    seen = shelf.find(Look(), "ink499", False)
    assert seen[shelf.cards].count('class="adapter"') == 0 and not seen[shelf.more]["visible"]
    seen = shelf.find(Look(), "ink12", False)
    assert seen[shelf.cards].count('class="adapter"') == 11 and "11 adapters" in seen[shelf.cards]
    assert not seen[shelf.more]["visible"]
    assert shelf.show_more(Look())[shelf.cards].count('class="adapter"') == 2 * MOST_SHOWN
    assert not read and not opened


def test_only_the_cards_that_are_drawn_cost_a_thumbnail(outputs, monkeypatch):
    image = outputs / "x.png"
    Image.new("RGB", (64, 64), "red").save(image)
    file = Path(put(outputs, modelspec__thumbnail=metadata.thumbnail(image)).path)
    for number in range(99):
        (file.parent / f"ink{number}.safetensors").write_bytes(file.read_bytes())
    opened, header = [], adapters.header
    monkeypatch.setattr(cards.adapters, "header", lambda path: opened.append(path) or header(path))
    with page.gr.Blocks():
        shelf = LibraryPage(outputs).shelf
    shelf.draw(Look())
    assert len(opened) == MOST_SHOWN
    shelf.draw(Look())
    assert len(opened) == MOST_SHOWN, "a thumbnail is made once"


def test_details_show_facts_and_recipe(outputs):
    entry = put(
        outputs,
        lora_studio__recipe=trained(
            {"rank": 8, "steps": 240, "negative": "", "nonsense": 1}, base="starter", steps=200
        ),
    )
    shown = details.html(entry, outputs)
    for part in (
        "LoRA with convolutions",
        "kohya (ComfyUI, Forge, A1111)",
        "4, mixed",
        "Recipe: trained on starter",
        "<dt>Rank</dt><dd>8</dd>",
        "<dt>Steps done</dt><dd>200</dd>",
    ):
        assert part in shown
    assert "nonsense" not in shown and "Negative" not in shown
    assert "no recipe of the studio" in details.html(put(outputs, "plain"), outputs)


def test_a_blend_shows_what_it_is_made_of(outputs):
    made = recipe.Blend(
        method="ties",
        ingredients=[recipe.Ingredient(name="<b>ink</b>", weight=0.5), recipe.Ingredient(name="gold", weight=-0.25)],
    )
    entry = put(outputs, lora_studio__recipe=recipe.dumps(made))
    shown = details.html(entry, outputs)
    assert (
        "a blend (TIES)" in shown
        and "<dt>Share kept</dt><dd>0.5</dd>" in shown
        and "<dt>&lt;b&gt;ink&lt;/b&gt;</dt><dd>× 0.5</dd>" in shown
        and "× -0.25" in shown
    )
    assert not details.can_open(entry)
    with pytest.raises(SettingsError, match="no training recipe"):
        details.settings(entry, outputs)


def test_a_runs_recipe_is_its_own_settings_folders_included(outputs):
    run = runs.create(Settings(data="/my/pictures", name="ink", rank=12), outputs)
    adapters.write(small(), run.adapter_file)
    (entry,) = library.entries(outputs)
    assert details.can_open(entry)
    values = details.settings(entry, outputs)
    assert (values["data"], values["rank"]) == ("/my/pictures", 12)
    assert "Start when you like" in details.opened(entry, values)


def test_a_strangers_recipe_leaves_pictures_and_model_to_the_user(outputs):
    """A folder's bare name out of a recipe would be looked for in the studio's own folder."""
    entry = put(
        outputs,
        lora_studio__recipe=trained({"rank": 12, "data": "anas-pictures", "base": "model.safetensors", "unknown": 3}),
    )
    values = details.settings(entry, outputs)
    assert values == {"rank": 12}
    said = details.opened(entry, values)
    missing = "choose the pictures (“anas-pictures” at the time) and the base model (“model.safetensors” at the time)."
    assert missing in said


@pytest.mark.fault(33)
def test_a_senseless_recipe_is_refused_in_words(outputs):
    for number, wrong in enumerate(({"rank": -5}, {"preview_prompts": 7}, {"steps": "<b>"}, {"trigger": ["x"]})):
        entry = put(outputs, f"wrong{number}", lora_studio__recipe=trained(wrong))
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            details.settings(entry, outputs)


def test_the_base_model_is_at_hand_only_where_it_is(outputs, tmp_path):
    assert details.base_at_hand(put(outputs), outputs) == "starter"
    run = runs.create(Settings(data="x", name="big", base=str(tmp_path / "model.safetensors")), outputs)
    adapters.write(small(), run.adapter_file)
    entry = next(entry for entry in library.entries(outputs) if entry.origin is Origin.RUN).model_copy(
        update={"family": "sd1"}
    )
    assert details.base_at_hand(entry, outputs) == ""
    (tmp_path / "model.safetensors").touch()
    assert details.base_at_hand(entry, outputs) == str(tmp_path / "model.safetensors")
    assert details.base_at_hand(entry.model_copy(update={"run": "", "origin": Origin.IMPORTED}), outputs) == ""
    run.settings_file.write_text("damaged =")
    assert details.base_at_hand(entry, outputs) == ""


@pytest.mark.parametrize(("settings", "prompt"), [
    ({"preview_prompts": ["{trigger}, a cat", "b"]}, "inkstyle, a cat"),
    ({"preview_prompts": []}, "inkstyle, house"), ({"preview_prompts": 7}, "inkstyle, house"),
])  # fmt: skip
def test_what_is_drawn_to_compare_is_what_its_previews_showed(outputs, settings, prompt):
    assert (
        details.subject(put(outputs, modelspec__trigger_phrase="inkstyle", lora_studio__recipe=trained(settings)))
        == prompt
    )


def test_an_index_without_outputs_is_an_invitation(outputs):
    assert "What you train appears here" in cards.html(Look(), [], 0, outputs)

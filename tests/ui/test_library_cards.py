"""The library as HTML: cards, details and recipes of files that anybody may have made."""

from pathlib import Path

import pytest
from PIL import Image

from lora_studio import adapters, runs
from lora_studio.adapters import metadata, recipe
from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError
from lora_studio.evaluation import judgements, strength
from lora_studio.evaluation.judgements import Conditions, Copy, Judgement, JudgingPlan
from lora_studio.evaluation.strength import StrengthRange, StrengthRow
from lora_studio.evaluation.value import Value
from lora_studio.runs import Run, Unreadable, library
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui.pages.library import cards, details, measures, page
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
        "<b>ink</b>",
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
    assert "&lt;img" in details.html(entry, outputs)


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


def test_an_adapter_is_called_as_its_file_is(outputs):
    """A card shows an old title, or the formula of a blend, and its name is in small print alone."""
    entry = put(outputs, "soft", modelspec__title="+0.5·ink -1e-05·wash")
    assert cards.title(entry) == "soft" and "<dt>Title</dt><dd>+0.5·ink -1e-05·wash</dd>" in details.html(
        entry, outputs
    )
    assert "<dt>Title</dt>" not in details.html(put(outputs, "rain", modelspec__title="rain"), outputs)


def test_states_of_runs_stay_out_until_they_are_asked_for(outputs):
    run = runs.create(Settings(data="x", name="ink"), outputs)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    entries = library.entries(outputs)
    assert cards.matching(Look(), entries) == [] and "Only saved states" in cards.html(Look(), [], 1, outputs)
    assert [cards.title(entry) for entry in cards.matching(Look(states=True), entries)] == ["ink, step 50"]


def state(run, step: int, style: float, subject: float, copies: tuple[Copy, ...] = ()) -> None:
    """A judged state of ``run`` with a picture."""
    adapters.write(small().map(lambda tensor: tensor * step), run.judged_adapter(step))
    values = Value(style, style - 10, style + 9), Value(subject, subject - 0.1, subject + 0.1), Value(0.45, 0.4, 0.5)
    samples = {"style": (style,), "subject": (subject,), "drift": (1.02,)}
    found = Judgement(step, *values, Value(1.02, 0.9, 1.1), copies, samples, drawn=24)
    judgements.write(found, Conditions("key", JudgingPlan(("a cat", HOSTILE))), run.evaluation)
    Image.new("RGB", (32, 32), "red").save(run.evaluation / f"step-{step}" / "0-0.png")


@pytest.fixture
def measured(outputs):
    """A run whose adapter is its third of three judged states, and an adapter from elsewhere."""
    run = runs.create(Settings(data="x", name="ink"), outputs)
    state(run, 40, style=50, subject=0.5)
    state(run, 80, style=71, subject=0.5)
    state(run, 120, style=90, subject=0.2, copies=(Copy(0, 0, HOSTILE, 0.97),))
    adapters.write(small().map(lambda tensor: tensor * 120), run.adapter_file, metadata={"modelspec.title": "ink"})
    put(outputs, "rain", modelspec__title="Rain")
    rows = [StrengthRow(at, Value(style, style - 10, style + 10), Value(0.5, 0.4, 0.6)) for at, style in LINE]
    strength.write(run, StrengthRange(80, tuple(rows), Value(0.45, 0.4, 0.5), 0.6, 1.0, 0.8), "key")
    return outputs


LINE = ((0.4, 30), (0.6, 60), (0.8, 70), (1.0, 71))


def test_cards_tell_what_was_measured_of_the_state_that_an_adapter_is(measured):
    entries = {cards.key(entry, measured): entry for entry in library.entries(measured)}
    lines = {key: found.line if (found := measures.of(entry, measured)) else "" for key, entry in entries.items()}
    assert lines == {
        "ink/ink.safetensors": "style 90 % · subjects fade · copies",
        "ink/evaluation/step-40/adapter.safetensors": "style 50 % · subjects hold",
        "ink/evaluation/step-80/adapter.safetensors": "style 71 % · subjects hold",
        "ink/evaluation/step-120/adapter.safetensors": "style 90 % · subjects fade · copies",
        "library/rain.safetensors": "",
    }
    assert "style 71 % · subjects hold" in cards.html(Look(states=True), list(entries.values()), 5, measured)


def test_details_show_intervals_the_level_the_strength_and_the_pictures(measured):
    entries = {entry.step: entry for entry in library.entries(measured)}
    shown = details.html(entries[80], measured)
    for part in (
        "71 %, between 61 and 80",
        "Hold: 0.50 (training pictures 0.45)",
        "<dd>No copies</dd>",
        "1.02",
        "Start at 0.8; style and subjects hold from 0.6 to 1, the strongest that was tried.",
        "Pictures that were judged",
        'alt="a cat"',
    ):
        assert part in shown
    assert "Pictures by strength" not in shown and "<dt>Strength" not in details.html(entries[40], measured)
    drawn = strength.picture(Run(measured / "ink"), 80, 0, 0, 0.6)
    drawn.parent.mkdir()
    Image.new("RGB", (32, 32)).save(drawn)
    assert 'alt="a cat, strength 0.6"' in details.html(entries[80], measured)
    faded = details.html(entries[120], measured)
    assert "Fade: 0.20" in faded and "1 of 24 pictures of new prompts may be copies" in faded
    assert "<img src=x" not in faded


def test_what_is_measured_anew_is_shown(measured):
    entries = {entry.step: entry for entry in library.entries(measured)}
    assert measures.of(entries[40], measured).style.value == 50
    state(Run(measured / "ink"), 40, style=55, subject=0.5)
    assert measures.of(entries[40], measured).style.value == 55


def test_cards_are_sorted_by_style_name_and_size(measured):
    entries = library.entries(measured)

    def order(by: str) -> list[str]:
        return [cards.title(one) for one in cards.ordered(Look(order=by), entries, measured)]

    assert order("newest") == [cards.title(one) for one in entries]
    assert order("name") == ["ink", "ink, step 40", "ink, step 80", "ink, step 120", "rain"]
    assert set(order("style")[:2]) == {"ink", "ink, step 120"}
    assert order("style")[2:] == ["ink, step 80", "ink, step 40", "rain"]
    assert [one.size for one in cards.ordered(Look(order="size"), entries, measured)] == sorted(
        (one.size for one in entries), reverse=True
    )


def test_adapters_of_one_name_are_told_apart_where_one_is_chosen(outputs):
    for name in ("ink", "rain"):
        put(outputs, name, modelspec__title="Ink")
    run = runs.create(Settings(data="x", name="ink"), outputs)
    adapters.write(small(), run.adapter_file)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    *others, last = cards.choices(library.entries(outputs), outputs)
    assert sorted(others) == [
        ("ink (ink)", "ink/ink.safetensors"),
        ("ink (library)", "library/ink.safetensors"),
        ("rain", "library/rain.safetensors"),
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
    seen = shelf.find(Look(), "ink499", False, "newest")
    assert seen[shelf.cards].count('class="adapter"') == 0 and not seen[shelf.more]["visible"]
    seen = shelf.find(Look(), "ink12", False, "newest")
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

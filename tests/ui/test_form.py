"""The form is made from the settings' declaration, and gives the settings back."""

import json
import re
from html import unescape

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.config import presets
from lora_studio.config.declaration import Level
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.language import using
from lora_studio.optim.registry import OPTIMIZERS
from lora_studio.ui.field_notes import notes
from lora_studio.ui.fields import in_full, number, read, to_field
from lora_studio.ui.form import Form, changes, differences, info, preset_values, rates, summary, to_fix
from lora_studio.ui.pages.train.setup import Setup
from lora_studio.ui.scene.base_form import _HELP


def told(reading):
    """What the page's script places at the fields."""
    return json.loads(unescape(re.search('data-told="(.*?)"', notes(reading, ()))[1]))


def raw(**changes):
    """What the fields hold for the default settings with ``changes``."""
    return {key: to_field(spec, changes.get(key, spec.default)) for key, spec in SPECS.items()}


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    with gr.Blocks():
        return Setup(tmp_path_factory.mktemp("outputs"))


def test_every_setting_has_one_field(setup):
    """A new setting is forgotten by the page."""
    assert set(setup.form.fields) == set(SPECS)


def test_labels_help_and_choices_come_from_the_declaration(setup):
    """The form says something else than the docs table."""
    own = {"data", "base", "name"}
    for key, field in setup.form.fields.items():
        if key not in own:
            assert field.label.startswith(SPECS[key].label) and field.info.startswith(SPECS[key].about)
        if SPECS[key].choices:
            assert tuple(choice for _, choice in field.choices) == SPECS[key].choices


def test_four_settings_are_visible():
    """The first row of the form grows until nobody reads it."""
    basic = [key for key, spec in SPECS.items() if spec.level is Level.BASIC]
    assert basic == ["trigger", "steps", "rank", "preview_prompts"]


def test_every_choice_has_a_human_name():
    """A new optimizer shows up as "adamw8bit"."""
    for spec in SPECS.values():
        titles = [option.title for option in spec.options]
        assert all(title == title[:1].upper() + title[1:] for title in titles) and len(set(titles)) == len(titles)


@pytest.mark.parametrize("preset", presets.available(), ids=lambda preset: preset.name)
def test_reading_what_a_preset_filled_in_gives_that_preset(preset):
    """A value is lost on its way through the fields: a list, a small rate, a switch."""
    reading = read(raw(**preset_values(preset)))
    assert reading.settings == Settings(**preset.settings) and not differences(reading.values, preset)


def test_browser_numbers_are_read_as_integers():
    """The browser sends 16.0 for 16, and the form calls it changed or wrong."""
    reading = read(raw() | {"rank": 16.0, "steps": 1000.0})
    assert reading.settings == Settings() and type(reading.settings.adapter.rank) is int


def test_lines_lose_their_empty_ones():
    """An empty line at the end of the prompts draws a fifth preview of nothing."""
    assert read(raw() | {"preview_prompts": "a cat\n\n  a dog \n"}).settings.previews.preview_prompts == [
        "a cat",
        "a dog",
    ]


def test_everything_wrong_is_said_at_once_by_its_label():
    """The user fixes one field, only to hear of the next, in the program's words."""
    reading = read(raw() | {"rank": "0", "batch": "", "steps": "1,5", "guidance": "99"})
    assert reading.wrong == {
        "rank": "Rank must be a whole number from 1 to 1,024; it is 0.",
        "batch": "Optimizer › Batch size is empty.",
        "steps": "Steps must be a whole number from 1 to 1,000,000; it is 1.5.",
        "guidance": "Previews › Guidance must be a number from 1 to 30; it is 99.",
    }
    assert "<b>4 settings to fix</b><p>Steps, Rank, " in to_fix(reading) and summary(reading) == ""
    with using("de"):
        assert "<p>Schritte, Rang, " in to_fix(reading)
    assert told(reading)["wrong"] == {
        "rank": "Must be a whole number from 1 to 1,024; it is 0.",
        "batch": "Is empty.",
        "steps": "Must be a whole number from 1 to 1,000,000; it is 1.5.",
        "guidance": "Must be a number from 1 to 30; it is 99.",
    }


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("0,0001", 0.0001),
        ("0.0001", 0.0001),
        ("1e-4", 1e-4),
        (" 5E-5 ", 5e-5),
        (",5", 0.5),
        ("−1", -1),
        ("10 000", 10000),
    ],
)
def test_a_number_is_read_as_it_is_meant(typed, meant):
    """A German keyboard's 0,0001 trains at a rate of 1."""
    assert number(typed) == meant


@pytest.mark.parametrize(
    ("key", "typed", "said"),
    [
        ("learning_rate", "1,000", "Must be a number above 0 and at most 10. “1,000” can mean 1000 or 1: write which."),
        ("steps", "2.000", "Must be a whole number from 1 to 1,000,000. “2.000” can mean 2000 or 2: write which."),
        ("steps", "2.5", "Must be a whole number from 1 to 1,000,000; it is 2.5."),
        ("rank", "1_6", "Must be a whole number from 1 to 1,024. “1_6” is not a number."),
        ("rank", "-4", "Must be a whole number from 1 to 1,024; it is -4."),
        ("guidance", "nan", "Must be a number from 1 to 30. “nan” is not a number."),
        ("by_block", "mid_block rank", None),
        ("name", "ink/2", "Must not contain / or \\."),
    ],
)
def test_what_cannot_be_meant_is_said_at_its_field(key, typed, said):
    """It is read as another number, without a word."""
    found = told(read(raw() | {key: typed}))["wrong"]
    assert list(found) == [key] and (said is None or found[key] == said)


def test_settings_without_effect_are_hidden_and_the_reason_is_known():
    """A hundred fields, of which twenty do nothing; and a search for one of those that finds nothing."""
    idle = told(read(raw(data="pictures")))["idle"]
    assert idle["lokr_factor"] == "Only where Method is LoKr." and idle["slider_strength"] == "Only for prompt pairs."
    assert idle["text_learning_rate"] == "Only where Train text encoders is on."
    assert idle["keep_tags"] == "Only with Shuffle tags or Tag dropout."
    assert {"augment_copies", "protected_tags"} <= set(idle)
    varied = told(read(raw(shuffle_tags=True, word_dropout="0.1", augment_rotation="5")))["idle"]
    assert {"keep_tags", "augment_copies", "protected_tags"}.isdisjoint(varied)
    with using("de"):
        switched = told(read(raw(data="pictures")))["idle"]["text_learning_rate"]
        assert switched == "Nur, wenn Text-Encoder trainieren an ist." and "an ist" in SPECS["text_learning_rate"].help
        assert str(_HELP["text_encoders"]).startswith("Die .safetensors-Dateien der Text-Encoder")
    assert {"rank", "lora_plus", "min_snr_gamma"}.isdisjoint(idle)
    lokr = told(read(raw(method="lokr", rank="0")))["idle"]
    assert "lokr_factor" not in lokr and "lora_plus" in lokr, "also while another setting is invalid"
    assert told(read(raw(method="full")))["idle"]["alpha"] == "No effect where Method is Full fine-tuning."
    assert told(read(raw(bucket_step="20")))["idle"] is None, "left as they are"
    assert "LoRA+ ratio has no effect where Method is LoKr." in summary(read(raw(method="lokr", lora_plus="2")))


def test_a_bucket_step_that_leaves_no_shape_but_the_square_is_said_at_its_field():
    assert told(read(raw(bucket_step="512", resolution="256")))["warned"]["bucket_step"].endswith("4.0 times as long.")
    for fine in (
        raw(bucket_step="512"),
        raw(resolution="256"),
        raw(bucket_step="512", resolution="256", data="a.toml"),
    ):
        assert "bucket_step" not in told(read(fine))["warned"], "or the base model's resolution is not known yet"


def test_settings_that_do_not_fit_together_are_said():
    """A rule between settings has no field, and its message is lost."""
    reading = read(raw() | {"bucket_step": 20})
    assert "bucket_step" in reading.wrong[""] and "bucket_step" in summary(reading) and to_fix(reading) == ""


@given(
    st.dictionaries(
        st.sampled_from(list(SPECS)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    )
)
def test_no_input_breaks_the_form(values):
    """Something typed makes the handler fail, and the page shows "Error"."""
    typed = {
        key: value
        for key, value in values.items()
        if SPECS[key].kind not in ("text", "lines") or isinstance(value, str | None)
    }
    reading = read(raw() | typed)
    assert (reading.settings is None) == bool(reading.wrong)
    summary(reading)
    notes(reading, ())


def test_a_preset_leaves_the_users_words():
    """Trying another preset throws away the prompts and the trigger word that were typed."""
    plain = Preset(name="p", title="P", blurb="", settings={"rank": 4})
    assert {"trigger", "preview_prompts", "negative", "data", "base", "name"}.isdisjoint(preset_values(plain))
    assert preset_values(plain)["rank"] == 4 and preset_values(plain)["steps"] == SPECS["steps"].default
    assert preset_values(Preset(name="p", title="P", blurb="", settings={"negative": "blurry"}))["negative"] == "blurry"


def test_what_differs_from_the_preset_is_shown():
    """A changed setting in a fold is forgotten there."""
    preset = Preset(name="p", title="<P>", blurb="", settings={"rank": 4})
    html = changes(differences(read(raw(rank=8, optimizer="lion")).values, preset), preset)
    assert "Changed from &lt;P&gt;" in html
    assert "Rank <s>4</s> 8" in html and "Optimizer <s>AdamW</s> Lion" in html and html.count("chip") == 2
    assert changes(differences(read(raw(rank=4)).values, preset), preset) == ""


def test_a_field_says_what_the_chosen_value_is_good_for():
    """Six names of optimizers, and nothing to choose by."""
    assert info("optimizer", {"optimizer": "lion"}).endswith("(Chen et al. 2023).")
    assert "Lion follows" in info("optimizer", {"optimizer": "lion"}) and "AdamW is" in info("optimizer", {})
    assert info("learning_rate", {"optimizer": "prodigy"}).endswith("Usual for Prodigy: 1.")
    assert info("text_learning_rate", {"optimizer": "adamw"}).endswith("Usual for AdamW: 0.00005.")
    assert info("lora_plus", {"optimizer": "adamw"}) == info("lora_plus", {}) == SPECS["lora_plus"].about
    assert info("learning_rate", {"optimizer": "from a later version"}) == SPECS["learning_rate"].about


@pytest.mark.parametrize("preset", presets.available(), ids=lambda preset: preset.name)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_chosen_optimizer_brings_its_rates(preset, name):
    """Prodigy at AdamW's rate learns nothing, AdamW at Prodigy's destroys the picture."""
    own, taken = preset_values(preset), rates(name, preset)
    meant = OPTIMIZERS[own["optimizer"]].update_rule == OPTIMIZERS[name].update_rule
    assert taken["learning_rate"] == (own["learning_rate"] if meant else OPTIMIZERS[name].learning_rate)
    reading = read(raw(**own | {"optimizer": name} | taken))
    assert reading.settings.optimizer.learning_rate == taken["learning_rate"]
    assert "learning rate of" not in summary(reading)
    assert name != "prodigy" or taken == {"learning_rate": 1.0, "text_learning_rate": 5e-5, "lora_plus": 1.0}


def test_a_rate_that_makes_no_sense_is_warned_of_before_the_start():
    """It shows after an hour of training otherwise."""
    html = summary(read(raw(optimizer="prodigy", learning_rate=2e-4)))
    assert 'class="notice warned"' in html and "Prodigy will learn next to nothing" in html
    assert "likely to diverge" in summary(read(raw(learning_rate=1.0)))
    assert told(read(raw(learning_rate=1.0)))["warned"] == {
        "learning_rate": "AdamW is likely to diverge at a learning rate of 1. Its usual learning rate is 0.0002."
    }


def test_a_rate_that_was_typed_comes_back_with_its_optimizer(setup):
    """A look at Prodigy, and the learning rate of AdamW was the preset's again."""
    rate, preset = setup.form.fields["learning_rate"], next(iter(setup.preset_form.found))
    typed = setup.keep_rate("learning_rate", {}, "0,0007", "adamw", "lora")
    assert setup.take_rates(preset, typed, "prodigy", "lora")[rate] == gr.update(value="1")
    assert setup.take_rates(preset, typed, "adamw8bit", "dora")[rate] == gr.update(value="0.0007")
    usual = preset_values(setup.preset_form.found[preset])["learning_rate"] / 20
    assert setup.take_rates(preset, typed, "adamw", "full")[rate] == gr.update(value=in_full(usual))
    assert setup.keep_rate("learning_rate", typed, "", "adamw", "lora") == typed
    assert setup.keep_rate("learning_rate", typed, "much", "adamw", "lora") == typed
    assert setup.choose(preset)[setup.typed] == {}, "a preset fills in its own"


def test_filling_touches_only_the_given_fields():
    """Choosing a preset empties fields that it says nothing about."""
    with gr.Blocks():
        form = Form({"rank": 3})
        field = form.field("rank")
        form.field("trigger")
    assert field.value == "3"
    assert form.fill({"rank": 5}) == {field: gr.update(value="5")}


@pytest.mark.fault(58)
def test_a_draft_comes_back(setup):
    """Reloading the page loses what was typed; a draft of an older version breaks it."""
    name = next(iter(setup.preset_form.found))
    restored = setup.restore({"preset": name, "fields": {"rank": 3, "no such setting": 1}})
    assert restored[setup.preset]["value"] == name and restored[setup.form.fields["rank"]] == gr.update(value="3")
    assert setup.restore({"fields": {"rank": "0,5", "steps": None}})[setup.form.fields["rank"]] == gr.update(
        value="0,5"
    )
    for damaged in (None, [], {"fields": 3, "preset": "gone"}, {"preset": None}, {"preset": []}):
        assert set(setup.restore(damaged)) == set(setup.preset_form.chosen), "and no field is touched"

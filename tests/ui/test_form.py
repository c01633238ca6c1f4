"""The form is made from the settings' declaration, and gives the settings back."""

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.config import presets
from lora_studio.config.declaration import Level
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.optim.registry import OPTIMIZERS
from lora_studio.ui.form import Form, differences, info, preset_values, rates, read, summary, to_field
from lora_studio.ui.pages.train.setup import Setup


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
            assert field.label.startswith(SPECS[key].label) and field.info.startswith(SPECS[key].help)
        if SPECS[key].choices:
            assert tuple(choice for _, choice in field.choices) == SPECS[key].choices


def test_five_settings_are_visible():
    """The first row of the form grows until nobody reads it."""
    assert [key for key, spec in SPECS.items() if spec.level is Level.BASIC] == [
        "trigger",
        "steps",
        "rank",
        "learning_rate",
        "preview_prompts",
    ]


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
    wrong = read(raw() | {"rank": 0, "batch": None, "steps": 1.5, "guidance": 99}).wrong
    assert wrong == {
        "rank": "Rank must be a whole number from 1 to 1,024; it is 0.",
        "batch": "Optimizer › Batch size is empty.",
        "steps": "Steps must be a whole number from 1 to 1,000,000; it is 1.5.",
        "guidance": "Previews › Guidance must be a number from 1 to 30; it is 99.",
    }


def test_settings_that_do_not_fit_together_are_said():
    """A rule between settings has no field, and its message is lost."""
    assert "bucket_step" in read(raw() | {"bucket_step": 20}).wrong[""]


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
    summary(reading, None)


def test_a_preset_leaves_the_users_words():
    """Trying another preset throws away the prompts and the trigger word that were typed."""
    plain = Preset(name="p", title="P", blurb="", settings={"rank": 4})
    assert {"trigger", "preview_prompts", "negative", "data", "base", "name"}.isdisjoint(preset_values(plain))
    assert preset_values(plain)["rank"] == 4 and preset_values(plain)["steps"] == SPECS["steps"].default
    assert preset_values(Preset(name="p", title="P", blurb="", settings={"negative": "blurry"}))["negative"] == "blurry"


def test_what_differs_from_the_preset_is_shown():
    """A changed setting in a fold is forgotten there."""
    preset = Preset(name="p", title="<P>", blurb="", settings={"rank": 4})
    html = summary(read(raw(rank=8, optimizer="lion")), preset)
    assert "Changed from &lt;P&gt;" in html
    assert "Rank <s>4</s> 8" in html and "Optimizer <s>AdamW</s> Lion" in html and html.count("chip") == 2
    assert summary(read(raw(rank=4)), preset) == ""


def test_a_field_says_what_the_chosen_value_is_good_for():
    """Six names of optimizers, and nothing to choose by."""
    assert info("optimizer", {"optimizer": "lion"}).endswith("(Chen et al. 2023).")
    assert "Lion follows" in info("optimizer", {"optimizer": "lion"}) and "AdamW is" in info("optimizer", {})
    assert info("learning_rate", {"optimizer": "prodigy"}).endswith("Usual for Prodigy: 1.")
    assert info("text_learning_rate", {"optimizer": "adamw"}).endswith("Usual for AdamW: 0.00005.")
    assert info("lora_plus", {"optimizer": "adamw"}) == info("lora_plus", {}) == SPECS["lora_plus"].help
    assert info("learning_rate", {"optimizer": "from a later version"}) == SPECS["learning_rate"].help


@pytest.mark.parametrize("preset", presets.available(), ids=lambda preset: preset.name)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_chosen_optimizer_brings_its_rates(preset, name):
    """Prodigy at AdamW's rate learns nothing, AdamW at Prodigy's destroys the picture."""
    own, taken = preset_values(preset), rates(name, preset)
    meant = OPTIMIZERS[own["optimizer"]].update_rule == OPTIMIZERS[name].update_rule
    assert taken["learning_rate"] == (own["learning_rate"] if meant else OPTIMIZERS[name].learning_rate)
    reading = read(raw(**own | {"optimizer": name} | taken))
    assert reading.settings.optimizer.learning_rate == taken["learning_rate"]
    assert "learning rate of" not in summary(reading, preset)
    assert name != "prodigy" or taken == {"learning_rate": 1.0, "text_learning_rate": 5e-5, "lora_plus": 1.0}


def test_a_rate_that_makes_no_sense_is_warned_of_before_the_start():
    """It shows after an hour of training otherwise."""
    html = summary(read(raw(optimizer="prodigy", learning_rate=2e-4)), None)
    assert 'class="notice warned"' in html and "Prodigy will learn next to nothing" in html
    assert "likely to diverge" in summary(read(raw(learning_rate=1.0)), None)


def test_a_rate_that_was_typed_comes_back_with_its_optimizer(setup):
    """A look at Prodigy, and the learning rate of AdamW was the preset's again."""
    rate, preset = setup.form.fields["learning_rate"], next(iter(setup.presets))
    typed = setup.keep_rate("learning_rate", {}, 7e-4, "adamw", "lora")
    assert setup.take_rates(preset, typed, "prodigy", "lora")[rate] == gr.update(value=1.0)
    assert setup.take_rates(preset, typed, "adamw8bit", "dora")[rate] == gr.update(value=7e-4)
    usual = preset_values(setup.presets[preset])["learning_rate"] / 20
    assert setup.take_rates(preset, typed, "adamw", "full")[rate] == gr.update(value=pytest.approx(usual))
    assert setup.keep_rate("learning_rate", typed, None, "adamw", "lora") == typed
    assert setup.choose(preset)[setup.typed] == {}, "a preset fills in its own"


def test_filling_touches_only_the_given_fields():
    """Choosing a preset empties fields that it says nothing about."""
    with gr.Blocks():
        form = Form({"rank": 3})
        field = form.field("rank")
        form.field("trigger")
    assert field.value == 3
    assert form.fill({"rank": 5}) == {field: gr.update(value=5)}


@pytest.mark.fault(58)
def test_a_draft_comes_back(setup):
    """Reloading the page loses what was typed; a draft of an older version breaks it."""
    name = next(iter(setup.presets))
    restored = setup.restore({"preset": name, "fields": {"rank": 3, "no such setting": 1}})
    assert restored[setup.preset] == name and restored[setup.form.fields["rank"]] == gr.update(value=3)
    for damaged in (None, [], {"fields": 3, "preset": "gone"}, {"preset": None}, {"preset": []}):
        assert setup.restore(damaged) == {setup.preset: gr.skip()}

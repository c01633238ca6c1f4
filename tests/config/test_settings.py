"""One declaration a setting: form, command line, presets and docs agree because they are all made from it."""

import re
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.config import by_block, presets, table
from lora_studio.config.declaration import Group, Level
from lora_studio.config.settings import Settings, check
from lora_studio.config.slices import FIELDS
from lora_studio.config.specs import SPECS, Spec, from_text
from lora_studio.errors import SettingsError

NUMBERS = [spec for spec in SPECS.values() if spec.kind in ("integer", "number")]


def typed(spec: Spec, value: object) -> str:
    """``value`` as a user types it behind ``--set key=``."""
    return "|".join(value) if spec.kind == "lines" else str(value)


def test_there_is_a_spec_for_every_setting_and_no_other():
    assert list(SPECS) == list(Settings().flat())


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.key)
def test_every_setting_says_what_a_form_needs(spec):
    assert spec.label and spec.help.endswith(".") and isinstance(spec.group, Group) and isinstance(spec.level, Level)
    assert (spec.kind == "choice") == bool(spec.choices)
    if spec.kind in ("integer", "number"):
        assert spec.low is not None and spec.high is not None and spec.low <= spec.default <= spec.high, (
            "a slider needs both ends"
        )


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.key)
def test_the_default_typed_on_the_command_line_is_the_default(spec):
    assert from_text(spec.key, typed(spec, spec.default)) == spec.default
    assert presets.layered(None, [f"{spec.key}={typed(spec, spec.default)}"]) == Settings()


@pytest.mark.parametrize("spec", NUMBERS, ids=lambda spec: spec.key)
def test_numbers_outside_their_bounds_are_refused_by_name(spec):
    for wrong in (spec.low - 1, spec.high + 1):
        with pytest.raises(SettingsError, match=rf"^{spec.key} must be .*; it is {int(wrong)}\."):
            check({spec.key: int(wrong)})


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.kind == "choice"], ids=lambda spec: spec.key)
def test_every_choice_has_a_title(spec):
    """A Literal and the titles beside it are declared apart."""
    annotation = FIELDS[spec.key].annotation
    assert annotation is str or get_args(annotation) == spec.choices
    assert all(spec.title(choice) == option.title for choice, option in zip(spec.choices, spec.options, strict=True))


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.kind == "choice"], ids=lambda spec: spec.key)
def test_every_choice_is_taken_and_no_other(spec):
    for choice in spec.choices:
        assert presets.layered(None, [f"{spec.key}={choice}"])[spec.key] == choice
    with pytest.raises(SettingsError, match=spec.key):
        presets.layered(None, [f"{spec.key}=purple"])


@pytest.mark.parametrize("text", ["on", "yes", "1", "true", "True"])
def test_switches_take_what_people_type(text):
    assert from_text("flip", text) is True


@pytest.mark.parametrize("text", ["off", "no", "0", "false", "False"])
def test_switches_can_be_switched_off(text):
    assert from_text("flip", text) is False


def test_lists_take_a_bar_between_their_items():
    assert from_text("preview_prompts", " a cat | a house, night |") == ["a cat", "a house, night"]


@pytest.mark.parametrize(
    ("word", "meant"), [("rnak", "rank"), ("learning-rate", "learning_rate"), ("step", "steps"), ("Alpha", "alpha")]
)
def test_a_misspelt_key_gets_the_nearest_one(word, meant):
    with pytest.raises(SettingsError, match=f"Did you mean {meant}"):
        check({word: 1})
    with pytest.raises(SettingsError, match=f"Did you mean {meant}"):
        from_text(word, "1")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(SettingsError):
        presets.layered(None, [f"learning_rate={value}"])


def test_bucket_steps_that_the_vae_cannot_take_are_refused():
    with pytest.raises(SettingsError, match="multiple of 8"):
        check({"bucket_step": 60})


@pytest.mark.parametrize(
    ("prediction", "refused", "taken"),
    [("flow", "euler_a", "ddim, euler, dpm\\+\\+, unipc"), ("edm", "ddim", "euler, dpm\\+\\+")],
)
def test_a_sampler_that_cannot_remove_the_noise_set_by_hand_is_refused(prediction, refused, taken):
    with pytest.raises(
        SettingsError, match=rf"sampler is {refused}, .* prediction {prediction}: set it to .* {taken}\.$"
    ):
        check({"prediction": prediction, "sampler": refused})
    assert check({"prediction": prediction, "sampler": "euler"}) and check({"prediction": "v", "sampler": refused})


@pytest.mark.parametrize("prompts", [["a cat"], ["a cat", " a cat "]])
def test_one_prompt_to_judge_by_is_refused(prompts):
    """It was warned of once the run had begun, and nothing was judged."""
    with pytest.raises(SettingsError) as error:
        check({"evaluation_prompts": prompts})
    assert error.value.what == (
        "evaluation_prompts: what one prompt shows is seen against others, so name two different ones or more, or none."
    )
    assert check({"evaluation_prompts": ["a cat", "a dog"]}).evaluation.evaluation_prompts == ["a cat", "a dog"]


@pytest.mark.parametrize(("was", "now"), [(True, "all"), (False, "off")])
def test_settings_files_from_when_checkpointing_was_a_switch_still_load(was, now, tmp_path):
    """A run of an earlier version must open, resume and show."""
    (tmp_path / "settings.toml").write_text(f"rank = 8\ncheckpointing = {str(was).lower()}\n")
    assert presets.load_settings(tmp_path / "settings.toml") == Settings(rank=8, checkpointing=now, **presets.EARLIER)


def test_settings_cannot_be_changed_in_place_but_copied_and_checked():
    settings = Settings()
    with pytest.raises(ValueError):
        settings.adapter.rank = 8
    assert settings.changed(rank=8).adapter.rank == 8 and settings.adapter.rank == 16
    with pytest.raises(SettingsError):
        settings.changed(rank=0)


def test_a_changed_optimizer_brings_its_rates():
    """Prodigy's 1 left to AdamW would diverge in its first steps."""
    settings = Settings(learning_rate=5e-4, text_learning_rate=1e-5, lora_plus=4)
    prodigy = settings.changed(optimizer="prodigy")
    assert (prodigy.optimizer.learning_rate, prodigy.optimizer.lora_plus) == (1.0, 1.0)
    back = prodigy.changed(optimizer="adamw8bit").optimizer
    assert (back.learning_rate, back.text_learning_rate) == (2e-4, 5e-5)
    assert settings.changed(optimizer="adamw8bit").optimizer.learning_rate == 5e-4, "the same rule, the same rates"
    assert settings.changed(optimizer="prodigy", learning_rate=0.5).optimizer.learning_rate == 0.5


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.text(max_size=3), max_size=2)
)


@given(st.dictionaries(st.sampled_from(sorted(SPECS)), ANYTHING))
def test_whatever_is_given_comes_out_checked_or_as_one_clear_error(values):
    try:
        assert check(values) == Settings(**values)
    except SettingsError as error:
        assert error.what and "Traceback" not in error.what


def test_a_setting_without_effect_is_named_unless_it_is_as_by_default():
    assert Settings().ignored() == []
    huber = Settings(huber_delta=0.5, loss="huber", timestep_mean=-6)
    assert huber.ignored() == []
    [found] = huber.changed(loss="mse").ignored()
    assert (found.key, found.what) == ("huber_delta", "Huber delta has no effect where Loss is Mean squared error.")
    assert found.do.startswith("Set huber_delta to 0.1, or loss to huber or logcosh.")
    assert Settings(weighting="x0", min_snr_gamma=0).ignored() == [], "presets switch it off"
    assert [one.key for one in Settings(weighting="x0", min_snr_gamma=3).ignored()] == ["min_snr_gamma"]
    assert SPECS["huber_delta"].help.endswith("Only where Loss is Huber or Log-cosh.")


def test_a_setting_that_needs_one_of_several_is_named_without_any():
    """Eight copies of each picture are asked for, all of them alike."""
    [found] = Settings(augment_copies=8).ignored()
    others = "Rotation, Closer crops, Hue of copies, Saturation of copies or Brightness of copies"
    assert found.what == f"Copies of a picture has no effect without {others}."
    keys = "augment_rotation, augment_crop, augment_hue, augment_saturation, augment_brightness"
    assert found.do == f"Set one of {keys}, or augment_copies to 4."
    assert Settings(augment_copies=8, augment_crop=0.1).ignored() == []
    assert [one.key for one in Settings(protected_tags=["ink"], shuffle_tags=True).ignored()] == ["protected_tags"]


def test_a_blocks_rank_is_named_where_the_method_has_none():
    lines = ["mid_block rank=8 rate=0.5", "up_blocks.1 alpha=2"]
    rank, alpha = sorted((one.part, one.what, one.do) for one in Settings(method="full", by_block=lines).ignored())[
        ::-1
    ]
    said = "rank in Rank and rate by block has no effect where Method is Full fine-tuning."
    assert rank == ("rank", said, "Remove rank from the lines of by_block.") and alpha[0] == "alpha"
    assert [one.part for one in Settings(method="oft", by_block=lines).ignored()] == ["alpha", "rank"]
    assert Settings(method="lora", by_block=lines).ignored() == []
    assert Settings(method="full", by_block=["mid_block rate=0.5"]).ignored() == []
    [whole] = [one for one in Settings(method="textual-inversion", by_block=lines).ignored() if one.key == "by_block"]
    assert whole.what.startswith("Rank and rate by block has no effect")


def test_lines_that_say_the_same_twice_are_named():
    lines = ["mid_block rank=8", "mid_block rank=4 rate=2", "up_blocks.1 rank=4"]
    found = Settings(blocks=["mid_block", "up_blocks.1", "mid_block"], by_block=lines).repeated()
    said = ["Blocks names mid_block more than once.", "Two lines give mid_block rank. The first counts."]
    assert [one.what for one in found] == said and found[0].do == "Remove one of the lines from blocks."
    assert by_block.at(lines, "unet.mid_block.resnets.0.conv1").rank == 8
    assert Settings(blocks=["mid_block"], by_block=["mid_block rank=8", "mid_block rate=2"]).repeated() == []


def test_the_docs_table_is_the_one_that_the_declarations_make():
    assert table.PATH.read_text("utf-8") == table.markdown(), "run: python -m lora_studio.config.table"
    assert re.findall(r"^\| `(\w+)`", table.markdown(), re.MULTILINE) == list(SPECS)
    rows = [line for line in table.markdown().splitlines() if line.startswith("| `")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}, "a bar within a cell would end it"


def test_the_form_has_a_field_for_every_setting_and_its_defaults_read_back_as_the_defaults():
    """In a process of its own, since the page's modules load gradio."""
    code = """
import gradio
from lora_studio.config.specs import SPECS
from lora_studio.config.settings import Settings
from lora_studio.ui import fields as typed, form
with gradio.Blocks():
    made = form.Form({})
    fields = [made.field(key) for key in SPECS]
reading = typed.read(made.raw([field.value for field in fields]))
assert reading.settings == Settings(), reading
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_lines_help_lists_every_setting():
    from lora_studio.cli.train import settings_help

    assert re.findall(r"^(\w+)  ", settings_help(), re.MULTILINE) == list(SPECS)


def test_a_method_brings_its_usual_learning_rate_unless_one_is_given():
    """A twentieth of a LoRA's for full fine-tuning, and back again; an optimizer that finds its rate keeps it."""
    assert Settings(learning_rate=2e-3).changed(method="full").optimizer.learning_rate == 1e-4
    assert Settings(learning_rate=2e-3).changed(method="full").changed(method="lora").optimizer.learning_rate == 2e-3
    assert Settings(learning_rate=2e-3).changed(method="full", learning_rate=5e-5).optimizer.learning_rate == 5e-5
    assert Settings(learning_rate=2e-3, method="full").optimizer.learning_rate == 2e-3
    assert Settings().changed(optimizer="prodigy", method="full").optimizer.learning_rate == 1
    assert Settings().changed(method="lokr").adapter.rank == 1024
    assert Settings().changed(method="lokr").changed(method="lora").adapter.rank == 16
    assert Settings(rank=4).changed(method="lokr", rank=8).changed(method="lora").adapter.rank == 8


def test_settings_that_a_method_ignores_are_named():
    [found] = Settings(method="full", alpha=8).ignored()
    assert found.what == "Alpha has no effect where Method is Full fine-tuning." and found.do == "Set alpha to 16.0."

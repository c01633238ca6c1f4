"""Presets are partial settings in TOML; the shipped ones are complete, right and kept within their promise."""

import pytest

from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError

SHIPPED = presets.available()


def preset(folder, text, name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_promised_presets_are_there():
    assert {one.name for one in SHIPPED} >= {"quick-look", "style-balanced", "style-faithful", "low-vram", "sdxl-style"}


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.name)
def test_a_shipped_preset_has_words_for_the_page_and_changes_only_what_differs(one):
    assert one.title and one.blurb.endswith(".") and 40 < len(one.blurb) < 200
    assert set(one.settings) <= set(SPECS) - {"data", "base", "name", "trigger"}, "a preset is not about one job"
    assert Settings(**one.settings).adapter.alpha <= 2 * Settings(**one.settings).adapter.rank


def test_quick_look_is_quick():
    """The quickstart promises two minutes on two cores: 160 steps of batch 4 at 0.4 s are half of them."""
    settings = presets.layered("quick-look", [])
    assert settings.run.steps * settings.optimizer.batch * settings.optimizer.accumulate <= 640


def test_quick_look_has_the_noise_that_was_better_in_seven_of_nine_styles():
    assert presets.layered("quick-look", []).noise.multires_discount == 0.3


def test_layers_lie_over_each_other_in_order(tmp_path):
    preset(tmp_path, 'title = "Mine"\n[settings]\nrank = 8\nsteps = 50\nbatch = 2\n')
    settings = presets.layered(str(tmp_path / "mine.toml"), ["batch = 4"], steps=60, base=None)
    assert (
        settings.adapter.rank,
        settings.run.steps,
        settings.optimizer.batch,
        settings.adapter.alpha,
        settings.run.base,
    ) == (8, 60, 4, 16.0, "starter")


PRODIGY = {"optimizer": "prodigy", "learning_rate": 1.0, "lora_plus": 1.0}


@pytest.mark.parametrize(
    ("preset", "under", "assignments", "optimizer", "rate", "ratio"),
    [
        ("quick-look", {}, ["optimizer=prodigy"], "prodigy", 1.0, 1.0),
        ("quick-look", {}, ["optimizer=prodigy", "learning_rate=0.5"], "prodigy", 0.5, 1.0),
        ("quick-look", {}, ["learning_rate=0.5", "optimizer=prodigy"], "prodigy", 0.5, 1.0),
        ("quick-look", {}, ["optimizer=adamw8bit"], "adamw8bit", 2e-3, 2.0),
        ("quick-look", {}, ["optimizer=lion"], "lion", 5e-5, 2.0),
        ("quick-look", PRODIGY, [], "prodigy", 1.0, 1.0),
        ("low-vram", PRODIGY, [], "adamw8bit", 2e-4, 8.0),
        (None, PRODIGY, ["optimizer=adamw"], "adamw", 2e-4, 1.0),
        (None, PRODIGY, ["rank=4"], "prodigy", 1.0, 1.0),
        (None, {}, ["rank=4"], "adamw", 3e-4, 1.0),
    ],
)
def test_a_rate_stays_with_the_optimizer_that_it_was_meant_for(preset, under, assignments, optimizer, rate, ratio):
    found = presets.layered(preset, assignments, Settings(**under) if under else None).optimizer
    assert (found.optimizer, found.learning_rate, found.lora_plus) == (optimizer, rate, ratio)


def test_a_preset_that_names_an_optimizer_alone_has_its_usual_rates(tmp_path):
    path = preset(tmp_path, 'title = "Mine"\n[settings]\noptimizer = "prodigy"\n')
    assert presets.read(path).settings == PRODIGY
    assert presets.layered(str(path), []).optimizer.learning_rate == 1.0


def test_the_rate_is_told_where_an_optimizer_is_chosen_alone():
    (taken,) = presets.rate_notes(presets.layered(None, ["optimizer=prodigy"]).optimizer, ["optimizer=prodigy"])
    assert taken == "The learning rate is 1, the usual one of Prodigy; --set learning_rate=… sets another."
    given = ["optimizer=prodigy", "learning_rate=1e-4"]
    (warning,) = presets.rate_notes(presets.layered(None, given).optimizer, given)
    assert warning.startswith("Prodigy will learn next to nothing at a learning rate of 0.0001.")
    assert presets.rate_notes(Settings().optimizer, []) == []
    chosen = presets.layered(None, ["optimizer=prodigy"], Settings(lora_plus=8)).optimizer
    notes = presets.rate_notes(chosen, ["optimizer=prodigy"], {"lora_plus": 8.0})
    assert notes[1] == "LoRA+ is 1 instead of 8: Prodigy has one rate for all."


@pytest.mark.parametrize(("text", "said"), [
    ('title = "x"\n[settings]\nrnak = 8\n', "Did you mean rank"),
    ('title = "x"\n[settings]\nrank = 0\n', "rank"),
    ('title = "x"\n[settings]\nrank = "many"\n', "rank"),
    ('title = "x"\nrank = 8\n', "under \\[settings\\]"),
    ('settings = 3\n', "must be a table"),
    ("title = \n", "not valid TOML"),
])  # fmt: skip
def test_a_wrong_preset_is_named_with_its_fault(tmp_path, text, said):
    path = preset(tmp_path, text)
    with pytest.raises(SettingsError, match=said) as caught:
        presets.read(path)
    assert "mine.toml" in str(caught.value)


def test_a_preset_saved_by_notepad_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes('\ufefftitle = "Größe"\n'.encode())
    assert presets.read(path).title == "Größe"


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(SettingsError, match="Did you mean style-balanced"):
        presets.find("style-balance")


@pytest.mark.parametrize("assignment", ["rank", "", "rank:8"])
def test_an_assignment_without_an_equals_sign_is_explained(assignment):
    with pytest.raises(SettingsError, match="key=value"):
        presets.layered(None, [assignment])


def test_a_value_may_hold_an_equals_sign():
    assert presets.layered(None, ["negative=a=b"]).previews.negative == "a=b"


@pytest.mark.parametrize("text", ["rank = \n", ".".join("a" * 9) + " = 1\n"])
def test_nobody_is_advised_to_delete_the_settings_of_a_run(tmp_path, text):
    """A run without its settings is no run, and its saved states cannot be resumed."""
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        presets.load_settings(tmp_path / "settings.toml")
    assert caught.value.do == "Fix that line."


def test_settings_come_back_from_their_file(tmp_path):
    settings = Settings(data="C:\\pictures", preview_prompts=['a "cat"', "größe 猫"], learning_rate=1e-7, flip=True)
    presets.save_settings(settings, tmp_path / "settings.toml")
    assert presets.load_settings(tmp_path / "settings.toml") == settings


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 50_000) + "=1",
        "[" + ".".join(["a"] * 50_000) + "]",
        '"""' + "a" + '"""\n' + ' . "b"' * 9,
        "[settings]\nrank = {" + "a\t.\t" * 9 + "b = 1}",
    ],
    ids=["key", "table", "quoted", "inline"],
)
def test_a_key_of_too_many_parts_is_refused_before_it_is_parsed(text, tmp_path, monkeypatch):
    """tomllib takes most of a minute for a hundred kilobytes of them."""
    monkeypatch.setattr(presets.tomllib, "loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(SettingsError, match="more than eight parts"):
        presets.read(preset(tmp_path, text))


def test_dots_in_texts_and_comments_are_no_keys(tmp_path):
    """Also where a text ends with a backslash, or holds quotes of the other kind."""
    dots = "a." * 20
    text = f'''# {dots}
title = "{dots} \\\\"  # {dots} "
blurb = """{dots}
\\"{dots}' """
[settings]
preview_prompts = ['{dots} "', "'{dots}"]
alpha = 8.5
'''
    assert presets.read(preset(tmp_path, text)).settings == {"preview_prompts": [f'{dots} "', f"'{dots}"], "alpha": 8.5}


def test_a_value_of_any_size_is_shown_in_short(tmp_path):
    with pytest.raises(SettingsError, match="rank") as caught:
        presets.read(preset(tmp_path, f"[settings]\nrank = '{'x' * 100_000}'"))
    assert len(str(caught.value)) < 1000

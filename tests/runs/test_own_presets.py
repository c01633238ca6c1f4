"""Presets of one's own outlive an update of the studio, and say all of the settings that they were made of."""

import pytest

from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError
from lora_studio.runs import own_presets


@pytest.fixture
def trashed(monkeypatch):
    """What went to the trash."""
    gone = []
    monkeypatch.setattr(own_presets.trash, "put", lambda path: (gone.append(path.name), path.unlink()))
    return gone


@pytest.mark.parametrize("changes", [
    {"rank": 8},
    {"optimizer": "prodigy", "learning_rate": 1.0},
    {"optimizer": "lion", "learning_rate": 3e-4},
    {"method": "lokr", "rank": 16},
    {"method": "full", "learning_rate": 3e-4, "train_text": True},
])  # fmt: skip
def test_a_saved_preset_gives_the_settings_back(tmp_path, changes):
    """A learning rate that equals the default is not named, and the optimizer brings its own."""
    kept = own_presets.save("Soft ink", Settings(**changes), tmp_path)
    assert presets.layered("Soft-ink", [], None, own_presets.folder(tmp_path)) == Settings(**changes)
    assert (kept.name, kept.title) == ("Soft-ink", "Soft ink")


def test_what_a_run_is_about_is_no_part_of_a_preset(tmp_path):
    """The next style is trained on the pictures of the last one, under its name."""
    about = {"data": "ink", "name": "ink", "base": "other", "trigger": "inkstyle", "preview_prompts": ["a cat"]}
    assert own_presets.save("Mine", Settings(rank=4, **about), tmp_path).settings == {"rank": 4}


def test_it_is_renamed_replaced_and_deleted_and_nothing_is_lost(tmp_path, trashed):
    own_presets.save("One", Settings(rank=4), tmp_path)
    own_presets.save("Two", Settings(rank=8), tmp_path)
    assert own_presets.rename("One", "The first", tmp_path).settings == {"rank": 4}
    assert sorted(path.name for path in own_presets.folder(tmp_path).iterdir()) == ["The-first.toml", "Two.toml"]
    assert own_presets.rename("Two", "two", tmp_path).title == "two"
    own_presets.save("The first", Settings(rank=2), tmp_path)
    own_presets.delete("The-first", tmp_path)
    assert trashed == ["The-first.toml", "The-first.toml"]
    assert own_presets.restore("The-first", tmp_path).settings == {"rank": 2}
    with pytest.raises(SettingsError, match="not kept for undo any more"):
        own_presets.restore("two", tmp_path)


@pytest.mark.parametrize(("act", "said"), [
    (lambda to: own_presets.save(" ", Settings(), to), "has no name"),
    (lambda to: own_presets.save("Quick look", Settings(), to), None),
    (lambda to: own_presets.save("quick-look", Settings(), to), "comes with the studio"),
    (lambda to: own_presets.save("../x y", Settings(), to), "Use letters, .*: “x y” would do"),
    (lambda to: own_presets.rename("Two", "a: b", to), "cannot be called “a: b”"),
    (lambda to: own_presets.rename("Two", "One", to), "Another preset is called One"),
    (lambda to: own_presets.delete("quick-look", to), "no preset of yours"),
    (lambda to: own_presets.delete("../secret", to), "no preset of yours"),
])  # fmt: skip
def test_names_are_refused_that_mean_something_else(tmp_path, trashed, act, said):
    for title in ("One", "Two"):
        own_presets.save(title, Settings(rank=4), tmp_path)
    (tmp_path / "secret.toml").write_text("")
    if said is None:
        assert act(tmp_path).name == "Quick-look"
        return
    with pytest.raises(SettingsError, match=said):
        act(tmp_path)
    assert not trashed and (tmp_path / "secret.toml").exists()


def test_an_own_preset_is_among_those_that_are_suggested(tmp_path):
    own_presets.save("Soft ink", Settings(rank=4), tmp_path)
    with pytest.raises(SettingsError, match="Did you mean Soft-ink"):
        presets.find("Soft-inc", own=own_presets.folder(tmp_path))

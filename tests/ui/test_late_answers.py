"""Answers that come late, or in another order than they were asked for, as on a busy machine."""

import re

import pytest
from playwright.sync_api import expect

from lora_studio.config import presets
from tests.ui.looks import enter

_SLOW = """waits => {
  const asked = window.fetch;
  window.fetch = async (...request) => {
    const answer = await asked(...request);
    const told = /run\\/predict/.test(String(request[0].url ?? request[0])) && waits.length;
    if (told) await new Promise(after => setTimeout(after, waits.length > 1 ? waits.shift() : waits[0]));
    return answer;
  };
}"""


@pytest.fixture
def train(visit):
    page = visit()
    page.wait_for_function("window.formRestored")
    return page


def field(page, key):
    return page.locator(f"#{key}").locator("input, textarea").first


def choose(page, key, title):
    field(page, key).click()
    page.get_by_role("option", name=title).first.click()


def preset(name):
    return presets.read(presets.FOLDER / f"{name}.toml")


def test_what_is_typed_after_a_choice_stays_when_its_answer_comes(train):
    """The answer to a preset takes back the steps that she typed meanwhile, and the run trains for others."""
    steps, rank, own = field(train, "set-steps"), field(train, "set-rank"), preset("style-balanced")
    train.evaluate(_SLOW, [1500])
    choose(train, "preset", own.title)
    steps.fill("88")
    expect(rank).to_have_value(str(own.settings["rank"]))
    train.wait_for_timeout(300)
    assert steps.input_value() == "88"


def test_what_is_deleted_after_a_choice_stays_deleted(train):
    """Only keys that write something count as typing, so that what is deleted, pasted or composed is taken back."""
    rank, own = field(train, "set-rank"), preset("style-balanced")
    field(train, "set-steps").fill("1234")
    train.evaluate(_SLOW, [1500])
    choose(train, "preset", own.title)
    field(train, "set-steps").press("End")
    train.keyboard.press("Backspace")
    expect(rank).to_have_value(str(own.settings["rank"]))
    train.wait_for_timeout(300)
    assert field(train, "set-steps").input_value() == "123"


def test_what_was_typed_before_a_choice_is_filled_in_by_it(train):
    """A preset fills in nothing of what was typed before."""
    own = preset("style-balanced")
    field(train, "set-steps").fill("1234")
    choose(train, "preset", own.title)
    expect(field(train, "set-steps")).to_have_value(str(own.settings["steps"]))


def test_the_last_of_two_choices_counts(train):
    """The second preset is ignored while the first is answered: its name stands above the settings of the other."""
    last = preset("style-faithful")
    train.evaluate(_SLOW, [1500, 0])
    choose(train, "preset", preset("style-balanced").title)
    choose(train, "preset", re.compile(re.escape(last.title)))
    for key in ("steps", "rank"):
        expect(field(train, f"set-{key}")).to_have_value(str(last.settings[key]))
    train.wait_for_timeout(1800)
    assert field(train, "set-steps").input_value() == str(last.settings["steps"])


@pytest.mark.parametrize("room", ["draw", "mix"])
def test_what_is_typed_right_before_a_reload_is_there_after_it(visit, room):
    """A prompt is gone after a reload, since the server had not yet said what to keep."""
    page = visit()
    page.wait_for_function("window.formRestored")
    enter(page, room)
    page.evaluate(_SLOW, [3000])
    for key, typed in (("prompt", "a hare"), ("seed", "7"), ("prompt", "a heron at dusk")):
        field(page, f"{room}-{key}").fill(typed)
        page.wait_for_timeout(300)
    page.reload()
    expect(field(page, f"{room}-prompt")).to_have_value("a heron at dusk")

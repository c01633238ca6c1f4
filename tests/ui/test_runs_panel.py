"""The panel of all runs in a real browser, and what it shows for every state of a run."""

import json
import os
import time

import pytest
from playwright.sync_api import expect

from lora_studio import events as e
from lora_studio.events import State
from lora_studio.jobs import control, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.glance import glance
from lora_studio.jobs.view import fold
from lora_studio.ui.pages.runs import panel_view, rows, state_words
from lora_studio.ui.pages.runs.panel_view import PanelState
from lora_studio.ui.pages.runs.rows import RowCache
from lora_studio.ui.pages.train.live import RunWatcher
from tests.ui.played import until

FAILED = e.Failed(what="The card's memory is full.", where="", do="")


def waiting(played, place):
    """Puts a run into the queue as a ticket."""
    played.says(e.StateChanged(state=State.QUEUED))
    played.run.ticket_file.write_text(json.dumps({"queued": place, "variables": {}}))


def test_runs_are_found_renamed_deleted_restored_and_queued(visit, studio, part):
    """A press does nothing; the run that is shown is lost with its name; a deleted run does not come back; or the
    queue keeps its order.
    """
    ended, works = part("panel-old", studio.outputs), part("panel-works", studio.outputs)
    ended.begins()
    ended.trains(1, 5)
    ended.draws(5)
    ended.finishes(5)
    works.begins()
    works.trains(1, 30)
    queued = [part(name, studio.outputs) for name in ("panel-a", "panel-b")]
    for place, one in enumerate(queued):
        waiting(one, time.time_ns() + place)
    page = visit()
    page.locator("#open-runs").click()
    expect(page.locator("#filter-runs").locator("input, textarea")).to_be_focused()
    expect(page.locator("#queue li .what b")).to_have_text(["panel-works", "panel-a", "panel-b"])
    page.get_by_role("button", name="Earlier: panel-b").click()
    expect(page.locator("#queue li .what b")).to_have_text(["panel-works", "panel-b", "panel-a"])
    page.get_by_role("button", name="Take out: panel-a").click()
    expect(page.locator("#queue li .what b")).to_have_text(["panel-works", "panel-b"])
    expect(page.locator('#runs [data-run="panel-a"]')).to_contain_text("Taken out of the queue")
    page.get_by_role("button", name="Take out: panel-b").click()
    page.get_by_role("button", name="Stop and keep: panel-works").click()
    until(lambda: control.asked(works.run, Request.STOP))
    assert not runner.waits(queued[0].run) and fold(queued[1].run).left_queue

    page.locator("#filter-runs").locator("input, textarea").fill("OLD")
    expect(page.locator("#runs li")).to_have_count(1)
    page.locator("#runs .show").click()
    expect(page.locator("#run-shown")).to_have_text("panel-old")
    expect(page.locator("#runs .show")).to_have_attribute("aria-current", "true")
    page.get_by_role("button", name="Rename: panel-old").click()
    name = page.locator("#rename-run").locator("input, textarea")
    expect(name).to_be_focused()
    name.fill("panel-works")
    name.press("Enter")
    expect(page.locator("#runs-said")).to_contain_text("The name panel-works is taken.")
    name.fill("older than old")
    name.press("Enter")
    expect(page.locator("#runs-said")).to_contain_text("panel-old is called older-than-old now.Saved as older-than-old")
    expect(page.locator('#runs [data-run="older-than-old"] .show')).to_be_focused()
    expect(page.locator("#run-shown")).to_have_text("older-than-old")
    page.evaluate("location.hash = 'run/panel-old'")
    page.get_by_role("button", name="Delete: older-than-old").click()
    expect(page.locator("#runs-said")).to_contain_text(str(studio.trash / "files" / "older-than-old"))
    expect(page.locator("#run-shown")).not_to_have_text("older-than-old")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#runs li b")).to_have_text("older-than-old")
    expect(page.locator("#runs-said")).to_have_text("older-than-old is back.")
    expect(page.locator("#runs .show")).to_be_focused()
    assert (studio.outputs / "older-than-old" / "older-than-old.safetensors").is_file()
    page.locator("#close-runs").click()
    expect(page.locator("#open-runs")).to_be_focused()


def test_two_quick_presses_each_do_their_work_and_the_same_one_once(visit, studio, part):
    """The server is slow, and the second run stays; or what undo has kept is given up, and an error is shown."""
    for name in ("quick-a", "quick-b"):
        played = part(name, studio.outputs)
        played.begins()
        played.finishes(5)
    page = visit()
    page.locator("#open-runs").click()
    page.locator("#filter-runs").locator("input, textarea").fill("quick")
    expect(page.locator("#runs li")).to_have_count(2)
    page.route("**/gradio_api/run/**", lambda request: None)
    for name in ("quick-a", "quick-a", "quick-b", "quick-b"):
        page.get_by_role("button", name=f"Delete: {name}").click()
    page.wait_for_timeout(500)
    page.unroute("**/gradio_api/run/**")  # which lets go what was held
    expect(page.locator("#runs-said")).to_contain_text("quick-b is in the trash")
    expect(page.locator("#runs li")).to_have_count(0)
    undo = page.get_by_role("button", name="Undo")
    undo.dblclick()
    expect(page.locator("#runs-said")).to_have_text("quick-b is back.")
    expect(page.locator("#runs li b")).to_have_text(["quick-b"])
    expect(page.locator(".toast-body")).to_have_count(0)


def test_a_run_is_shown_that_the_address_names_as_the_page_is_opened(visit, studio, part):
    """The room that opens puts its own address in that one's place, and the newest run is shown."""
    for name in ("in-the-address", "begun-last"):
        part(name, studio.outputs).begins()
    page = visit()
    expect(page.locator("#run-shown")).to_have_text("begun-last")
    page.goto("about:blank")
    page.goto(f"{studio.url}#run/in-the-address")
    expect(page.locator("#run-shown")).to_have_text("in-the-address")


def test_every_state_is_said_in_words(part, tmp_path):
    """A run that nobody disturbed is called interrupted, or the list says another step than the run's card."""
    played, known = part("one"), RowCache(tmp_path)
    assert known.row(played.run)[1:4] == ("idle", "Not started", ())
    played.lives()
    assert known.row(played.run).state == "Starting"
    played.begins()
    played.trains(1, 30)
    assert known.row(played.run)[2:4] == ("Training", ("step 30 of 100", "about 75 seconds left"))
    played.says(FAILED)
    played.run.worker_file.unlink()
    assert known.row(played.run)[1:4] == ("failed", "Failed", ("step 30 of 100", "8 seconds"))
    played.finishes(100)
    assert known.row(played.run)[2:4] == ("Finished", ("100 steps", "25 seconds"))
    played.finishes(40, stopped=True)
    assert known.row(played.run).facts == ("step 40 of 100", "25 seconds")
    played.says(e.StateChanged(state=State.QUEUED), e.StateChanged(state=State.INTERRUPTED))
    assert known.row(played.run)[1:3] == ("idle", "Taken out of the queue")
    played.begins()
    played.dies()
    assert known.row(played.run).state == "Interrupted", "and the log says so"
    assert fold(played.run).state is State.INTERRUPTED


def test_scripts_are_told_what_is_at_work(part):
    """A script tries to stop what has no process, or a run that was taken out counts as interrupted."""
    played = part("one")
    assert state_words.plain(played.run, fold(played.run)) == "not started"
    played.begins()
    assert state_words.plain(played.run, fold(played.run)) == "running"
    played.run.worker_file.unlink()
    assert state_words.plain(played.run, fold(played.run)) == "interrupted"
    played.says(e.StateChanged(state=State.QUEUED), e.StateChanged(state=State.INTERRUPTED))
    assert state_words.plain(played.run, fold(played.run)) == "not started"


def test_a_glance_sees_what_a_look_sees(part):
    """The list says that a run is at a step to which it has gone back, or has previews that it dropped."""
    played = part("one")
    played.begins()
    played.trains(1, 20)
    played.draws(20)
    played.trains(21, 30)
    played.says(e.RolledBack(step=20, failed_step=30, factor=0.5, what="Back."))
    played.trains(21, 25)
    with played.run.events_file.open("ab") as file:
        file.write(b'{"kind":"step","torn')
    quick, whole = glance(played.run), fold(played.run)
    assert (quick.state, quick.last, quick.previews) == (whole.state, whole.last, whole.previews)
    assert len(quick.steps) < 4 < len(whole.steps)


@pytest.mark.parametrize(("typed", "names"), [("", ["b-ink", "a-ink", "a-wash"]), ("INK a", ["a-ink"])])
def test_the_list_is_filtered_and_newest_first(part, tmp_path, typed, names):
    """A run is listed where its name has none of the words, or names can contain markup."""
    for age, name in enumerate(("b-ink", "a-ink", "a-wash")):
        os.utime(part(name).run.settings_file, (10_000 - age,) * 2)
    shown = panel_view.shown(PanelState(open=True, words=typed), "a-ink", RunWatcher(tmp_path), RowCache(tmp_path))
    html = shown["list"]["value"]
    assert [one.split('"')[0] for one in html.split('<li data-run="')[1:]] == names
    assert html.count("aria-current") == 1


def test_hundreds_of_runs_stay_small():
    """Each look sends them all."""
    picture = "/gradio_api/file=/home/someone/studio/outputs/.cache/page/ab/0123456789abcdef0123456789abcdef.webp"
    one = rows.RunRow("", "finished", "Finished", ("1,500 steps", "40 minutes"), 1e9, picture, alive=False)
    many = [one._replace(name=f"a-style-{number}") for number in range(rows.PAGE)]
    html = rows.html(many, "a-style-3", "", 260)
    assert len(html) < 30_000 and "Show 40 more of 260" in html
    assert "<b>" not in rows.html([many[0]._replace(name="<b>x")], "", "", 0).replace("<b>&lt;b&gt;x</b>", "")

"""The panels of the Pictures page: what is wrong, words, edits of all captions, folders, automatic captions."""

import re
import shutil
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import expect

from lora_studio import events as e
from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.curation import edits
from lora_studio.curation.collection import Collection, Query
from lora_studio.curation.edits import CaptionChange
from lora_studio.curation.target import Target
from lora_studio.dataset import folder, preparation
from lora_studio.dataset.preparation import FolderOptions, Preparation
from lora_studio.errors import SettingsError
from lora_studio.jobs import model_downloads
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder, Mode
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.model_downloads import HubOffer
from lora_studio.ui.pages.pictures import captioning_form, changes, findings, folders, health, words_panel
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.captioning import CaptioningPanel
from lora_studio.ui.pages.pictures.health import Health
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.page import _READ as READ
from lora_studio.ui.pages.pictures.page import PicturesPage
from lora_studio.ui.pages.pictures.words_panel import WordsPanel
from tests.ui.played import until
from tests.vision import tiny

SHADE = Image.radial_gradient("L")
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def paint(path, colour, side=128):
    Image.composite(Image.new("RGB", (256, 256), colour), Image.new("RGB", (256, 256)), SHADE).resize(
        (side, side)
    ).save(path)


@pytest.fixture
def data(tmp_path):
    """Two copies of one picture, a third that is larger, one without a caption, one that is no picture."""
    made = tmp_path / "data"
    made.mkdir()
    paint(made / "a.png", "red")
    shutil.copy(made / "a.png", made / "b.png")
    paint(made / "c.png", "red", side=200)
    paint(made / "bare.png", "blue")
    (made / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for name in "abc":
        (made / f"{name}.txt").write_text(f"drawing, {name}")
    return made


def opened(data) -> Collection:
    return Collection.of(folder.scan(data), Target.of(Settings()))


def found(collection):
    return {one.kind: one for one in findings.find(collection)}


def test_problems_of_one_kind_are_one_finding_and_duplicates_are_sets(data):
    kinds = found(opened(data))
    assert list(kinds) == ["unreadable", "identical", "alike", "no caption"]
    assert kinds["identical"].groups == (("a.png", "b.png"),)
    assert kinds["alike"].groups == (("a.png", "c.png"),)
    assert kinds["no caption"].names == ("bare.png",)
    assert kinds["unreadable"].names == () and kinds["unreadable"].what[0].startswith("broken.png: ")


def test_the_largest_is_kept_and_a_set_is_settled_when_one_is_left(data):
    collection = opened(data)
    alike = found(collection)["alike"]
    assert findings.largest([collection.cards[name] for name in alike.names]).name == "c.png"
    assert findings.beside_largest(alike, collection) == ["a.png"]
    assert findings.others([alike], alike.key, "a.png") == ["c.png"]
    collection.leave_out(["a.png"])
    assert found(collection).keys() == {"unreadable", "alike", "no caption"}
    assert found(collection)["alike"].groups == (("b.png", "c.png"),)
    collection.leave_out(["b.png"])
    assert found(collection).keys() == {"unreadable", "no caption"}


def test_health_counts_what_trains_and_names_hold_no_markup(data, tmp_path):
    (data / "bare.png").rename(data / "<img src=x>.png")
    collection = opened(data)
    collection.leave_out(["b.png"])
    shown = health.report(collection, findings.find(collection), tmp_path)
    assert "<span>4 pictures</span><span>1 left out</span><span>3 problems</span>" in shown
    assert "&lt;img src=x&gt;.png" in shown and "<img src=x" not in shown


def test_folders_are_counted_with_those_that_have_options(data):
    (data / "10_sea").mkdir()
    paint(data / "10_sea" / "d.png", "green")
    counts = folders.picture_counts(opened(data), {"gone": FolderOptions()})
    assert counts == {"": 4, "10_sea": 1, "gone": 0}
    shown = folders.table(counts, {"10_sea": FolderOptions(weight=0.5, timesteps=(0, 500))}, opened(data))
    assert "1 picture · 10 × · weight 0.5 · noise 0 to 500" in shown


def test_the_form_of_a_folder_gives_its_options_or_says_which_field_is_wrong():
    assert folders.read(None, 1.0, "", "", None, None, False) == FolderOptions()
    assert folders.read(3.0, 0.5, " ink, ", "a dog", 0, 500.0, True) == FolderOptions(
        3, 0.5, "ink,", "a dog", (0, 500), True
    )
    for values, field in (
        ((0.0, 1.0, "", "", None, None, False), "repeats"),
        ((2.5, 1.0, "", "", None, None, False), "repeats"),
        ((None, -1.0, "", "", None, None, False), "weight"),
        ((None, 1.0, "", "", 500, 100, False), "timesteps"),
        ((None, 1.0, "", "", 500, None, False), "timesteps"),
    ):
        with pytest.raises(SettingsError) as caught:
            folders.read(*values)
        assert caught.value.where == field


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("drawing, a boat", "a boat", "<del>drawing, </del>a boat"),
        ("a boat", "zorp, a boat", "<ins>zorp, </ins>a boat"),
        ("a red boat", "a blue boat", "a <del>red </del><ins>blue </ins>boat"),
        ("", HOSTILE, "<ins>&lt;img src=x onerror=&quot;document.title=&#x27;owned&#x27;&quot;&gt;</ins>"),
    ],
)
def test_changed_parts_of_a_caption_are_marked(before, after, shown):
    assert changes.marked(before, after) == shown


def test_of_long_captions_only_what_is_next_to_a_change_is_shown():
    shown = changes.marked("x, " + "far away, " * 40 + "end", "far away, " * 40 + "end")
    assert shown.startswith("<del>x, </del>far away, ") and "…" in shown and len(shown) < 120


def test_a_list_of_changes_says_how_many_more_there_are():
    many = [CaptionChange(f"{number}.png", "a", "b") for number in range(25)]
    assert changes.listed(many).count("<li>") == 20 and "and 5 more" in changes.listed(many)


@pytest.fixture
def page(data, tmp_path):
    """The page without a browser, and the look of a tab that shows ``data``, where the studio may write."""
    with gr.Blocks():
        made = PicturesPage(tmp_path / "outputs")
    (data / ".lora_studio").mkdir()
    return made, PicturesLook(Settings(data=str(data)))


def panel(page, kind):
    return next(one for one in page.panels if isinstance(one, kind))


def test_an_edit_is_shown_as_it_is_typed_and_writes_what_was_shown(page, data):
    page, look = page
    bulk = panel(page, BulkEdits)
    bulk.propose(look, "replace")
    assert look.draft.changes == []
    typed = dict.fromkeys(bulk.fields)
    shown = bulk.type(
        look, "all", *{**typed, ("replace", "find"): "drawing", ("replace", "replacement"): "sea"}.values()
    )
    assert [one.name for one in look.draft.changes] == ["a.png", "b.png", "c.png"]
    assert shown[bulk.apply]["value"] == "Apply to 3 captions"
    bulk.write(look)
    assert (data / "a.txt").read_text() == "sea, a"
    assert look.draft is None and "replaced" in look.said
    page.room._undo(look)
    assert (data / "a.txt").read_text() == "drawing, a"


def test_an_edit_changes_the_pictures_that_are_shown_or_selected_if_asked(page):
    page, look = page
    bulk = panel(page, BulkEdits)
    look.query, look.selected = Query(words="bare"), {"c.png"}
    bulk.propose(look, "prepend")
    assert look.draft.scope == "found"
    look.draft.values = {"text": "zorp"}
    for scope, names in (
        ("found", ["bare.png"]),
        ("selected", ["c.png"]),
        ("all", ["a.png", "b.png", "bare.png", "c.png"]),
    ):
        look.draft.scope = scope
        bulk.draw(look, page.room.collections.of(look))
        assert [one.name for one in look.draft.changes] == names


def test_a_wrong_regular_expression_is_told_and_changes_nothing(page):
    page, look = page
    bulk = panel(page, BulkEdits)
    bulk.propose(look, "replace", {"find": "a(", "regular_expression": True})
    shown = bulk.draw(look, page.room.collections.of(look))
    assert "is no regular expression" in shown[bulk.wrong]["value"] and shown[bulk.apply]["interactive"] is False


def test_every_edit_has_its_fields_on_the_page(page):
    page, _ = page
    assert list(panel(page, BulkEdits).fields) == [
        (kind, one.name) for kind in edits.EDITS for one in edits.fields(kind)
    ]


def test_words_about_the_style_are_removed_by_a_press_and_apply(page, data):
    page, look = page
    panels, collection = panel(page, WordsPanel), page.room.collections.of(look)
    facts = words_panel.facts_of(collection)
    assert facts.counts[0] == ("drawing", 3) and facts.most == 225
    assert "names the style" in words_panel.listed(facts, "", "")
    assert words_panel.listed(facts, "c", "").count("<li>") == 1
    panels.follow(look, SimpleNamespace(act="remark", kind="style"))
    panel(page, BulkEdits).write(look)
    assert [(data / f"{name}.txt").read_text() for name in "abc"] == ["a", "b", "c"]


def test_a_tag_filters_the_cards_and_again_shows_all(page):
    page, look = page
    panels = panel(page, WordsPanel)
    for _ in range(2):  # of a row that was pressed twice before it was drawn as chosen
        panels.filter(look, SimpleNamespace(tag="a", on=True))
        assert [card.name for card in page.room.collections.of(look).find(look.query)] == ["a.png"]
    panels.filter(look, SimpleNamespace(tag="a", on=False))
    assert look.query == Query()


def test_captions_that_are_too_long_stand_out():
    facts = words_panel.CaptionFacts([], [], [3, 10, 300], 225)
    shown = words_panel.about(facts)
    assert "3 to 300 tokens each, half have 10 or fewer; the base model reads 225." in shown
    assert "1 caption is longer" in shown and "class=over" in shown


def test_duplicates_are_left_out_by_a_press(page, data):
    page, look = page
    kind = "warning, identical"
    for _ in range(2):  # a second press finds what looks like it, too
        page.room._handler(panel(page, Health).press)(look, SimpleNamespace(act="keep", kind=kind, name="b.png"))
        assert preparation.read(data)[0].left_out == {"a.png"} and "wrong" not in look.said


def test_choices_about_what_is_gone_are_forgotten_by_a_press(page, data):
    page, look = page
    preparation.write(data, Preparation(left_out=frozenset({"gone.png"})))
    health = panel(page, Health)
    shown = health.draw(look, page.room.collections.of(look, fresh=True))[health.report]
    assert 'data-act="forget">Forget them</button>' in shown
    health.press(look, SimpleNamespace(act="forget", kind="warning, missing"))
    assert preparation.read(data)[0] == Preparation() and "Choices about gone.png removed." in look.said


@pytest.fixture
def job(page, data):
    """Makes a captioning job as its process leaves it: ``job(Mode.PROPOSE, {"a.png": "a boat"})``."""
    made, _ = page

    def make(mode, texts, *more):
        folder = runs.new_captioning("data", made.room.outputs)
        found = CaptioningJob(folder)
        order = CaptioningOrder(data=str(data), model="blip", mode=mode)
        found.order_file.write_text(order.model_dump_json())
        log = EventLog(found.events_file)
        log.append(e.CaptioningStarted(done=0, total=4, model="BLIP", device="CPU"))
        for name, text in texts.items():
            log.append(e.Captioned(name=name, text=text))
        for event in more:
            log.append(event)
        return found

    return make


def shown(page, look):
    panels = panel(page, CaptioningPanel)
    return panels, panels.draw(look, page.room.collections.of(look))


def test_proposals_stand_beside_the_captions_and_are_written_one_by_one_or_all(page, data, job):
    job(Mode.PROPOSE, {"a.png": "a boat", "bare.png": HOSTILE}, e.StateChanged(state=e.State.FINISHED))
    page, look = page
    panels, updates = shown(page, look)
    assert "2 captions are proposed" in updates[panels.status]["value"] and updates[panels.accept]["visible"]
    assert "<ins>a boat</ins>" in updates[panels.proposals]["value"]
    assert "&lt;img" in updates[panels.proposals]["value"] and "<img src=x" not in updates[panels.proposals]["value"]
    for _ in range(2):  # a button that was pressed twice
        page.room._handler(panels.press)(look, SimpleNamespace(act="accept", name="a.png"))
    assert (data / "a.txt").read_text().strip() == "a boat" and not (data / "bare.txt").exists()
    assert page.room.collections.of(look).cards["a.png"].picture.caption == "a boat"
    for _ in range(2):
        page.room._handler(panels.press)(look, SimpleNamespace(act="dismiss", name="bare.png"))
        assert "wrong" not in look.said
    _, updates = shown(page, look)
    assert updates[panels.card]["visible"] is False


def test_a_job_that_failed_says_why_until_it_is_closed(page, job):
    one = job(Mode.FILL, {"a.png": "a boat"}, e.Failed(what="No room.", where="GPU", do="Close other programs."))
    page, look = page
    panels, updates = shown(page, look)
    for part in ("No room.", "GPU", "Close other programs."):
        assert part in updates[panels.status]["value"]
    assert updates[panels.resume]["visible"] and updates[panels.forget]["visible"]
    panels.drop(look)
    assert not one.folder.exists()
    assert shown(page, look)[1][panels.card]["visible"] is False


def test_style_words_of_new_captions_are_offered_for_removal(page, job):
    written = e.CaptionsWritten(written=("a.png",))
    one = job(Mode.FILL, {"a.png": "drawing, a"}, written, e.StateChanged(state=e.State.FINISHED))
    page, look = page
    panels, updates = shown(page, look)
    assert updates[panels.card]["visible"] is False  # it ended well, and this tab did not wait for it
    look.captioning.watched = one.name
    _, updates = shown(page, look)
    assert "BLIP wrote 1 caption." in updates[panels.status]["value"]
    assert "“drawing”" in updates[panels.status]["value"] and updates[panels.style]["visible"]


def test_a_model_that_is_not_here_is_offered_for_download_and_cannot_start(page):
    page, look = page
    panels = panel(page, CaptioningPanel)
    panels.open(look)
    updates = panels.choose(look, '"nobody/knows-it"')
    form = panels.form
    assert look.captioning.model == "nobody/knows-it"
    assert "is not on this machine" in updates[form.offer]["value"] and updates[form.look_up]["visible"]
    assert updates[form.start]["interactive"] is False and not updates[form.download]["visible"]
    look.captioning.offer = HubOffer("nobody/knows-it", 1_500_000_000, 3, "MIT")
    updates = panels.choose(look, "nobody/knows-it") | panels._form(look)
    assert updates[form.download]["visible"] is False  # another choice asks again
    look.captioning.offer = HubOffer("nobody/knows-it", 1_500_000_000, 3, "MIT")
    updates = panels._form(look)
    assert "1.5 GB in 3 files. Licence: MIT." in updates[form.offer]["value"] and updates[form.download]["visible"]


def test_the_form_says_which_field_is_wrong():
    values = (Mode.FILL, "", "<CAPTION>", 1.5, 0.85, "", 4, 0)
    with pytest.raises(SettingsError, match="Threshold of tags"):
        captioning_form.order("wd14", values, data="somewhere")
    good = captioning_form.order("wd14", (*values[:3], 0.3, 0.8, "ink, long hair", 4, 0), data="somewhere")
    assert good.tags.never == ("ink", "long hair") and good.mode is Mode.FILL


def test_fields_follow_the_model():
    assert [captioning_form.options_of(model) for model in ("blip", "florence2", "qwen", "wd14", "a/b")] == [
        "blip", "florence2", "instructed", "tags", ""
    ]  # fmt: skip


def pictures_of(page, data):
    """The Pictures page of the folder ``data``, in the browser."""
    field = page.locator("#set-data").locator("input, textarea")
    expect(page.locator(".dataset")).to_be_visible()  # what the browser kept is in the form
    field.fill(str(data))
    field.press("Enter")
    expect(page.locator(".dataset")).to_contain_text(re.compile("[34] pictures train"))
    page.get_by_role("tab", name="Pictures").click()
    expect(page.locator('.picture[data-name="bare.png"]')).to_be_visible()
    return page


def test_captions_are_changed_together_after_a_look_and_changed_back(visit, data):
    """An edit changes something else than it showed, is lost when the page asks first, or cannot be undone."""
    page = pictures_of(visit(), data)
    page.locator("#words-about button").first.click()
    expect(page.locator("#edit-preview")).to_contain_text("3 captions change")
    expect(page.locator("#edit-preview del").first).to_have_text("drawing, ")
    page.locator("#edit-apply").click()
    page.locator("#yes").click()
    expect(page.locator("#pictures-message")).to_contain_text("Words about the style removed")
    assert (data / "a.txt").read_text() == "a"
    expect(page.locator("#words")).not_to_contain_text("drawing")
    page.locator("#undo").click()
    expect(page.locator("#words")).to_contain_text("drawing")
    assert (data / "a.txt").read_text() == "drawing, a"

    page.locator("#words-replace").click()
    page.locator("#replace-find").locator("input, textarea").fill("dr(aw")
    page.locator("#replace-regular-expression input").check()
    expect(page.locator("#edit-wrong")).to_contain_text("is no regular expression")
    expect(page.locator("#edit-apply")).to_be_disabled()
    page.locator("#replace-find").locator("input, textarea").fill("dr(aw)ing")
    expect(page.locator("#edit-preview")).to_contain_text("3 captions change")
    page.locator("#words button", has_text="drawing").click()
    expect(page.locator(".picture")).to_have_count(3)


def test_duplicates_are_settled_and_a_folder_gets_options(visit, data):
    """A press leaves the wrong picture out, or the form of a folder loses what was typed."""
    (data / ".lora_studio").mkdir()
    page = pictures_of(visit(width=390, height=844), data)
    page.locator("#health summary", has_text="Nearly alike").click()
    page.get_by_role("button", name="Keep c.png, leave the others out").click()
    expect(page.locator("#health .facts")).to_contain_text("1 left out")
    assert preparation.read(data)[0].left_out == {"a.png"}
    page.get_by_role("button", name="Options of this folder").click()
    page.locator("[data-folder]").click()
    page.locator("#folder-weight input").fill("-1")
    page.locator("#folder-save").click()
    expect(page.locator(".notice.wrong")).to_contain_text("The weight must be a number from 0 to 100.")
    page.locator("#folder-weight input").fill("0.5")
    page.locator("#folder-save").click()
    expect(page.locator("#folders")).to_contain_text("weight 0.5")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_model_captions_as_a_job_that_outlives_its_tab(visit, data, tmp_path):
    """Captions are lost with the tab, or overwrite what was written by hand."""
    (data / ".lora_studio").mkdir()
    tagger = tiny.wd14(tmp_path / "wd").parent
    page = pictures_of(visit(), data)
    page.locator("#write-captions").click()
    expect(page.locator("#captioner-offer")).to_contain_text("BLIP is not on this machine.")
    page.locator("#captioner input").fill(str(tagger))
    page.locator("#captioner input").press("Enter")
    page.locator("#general input").fill("0.1")
    page.locator("#caption").click()
    expect(page.locator("#captioning-stop")).to_be_visible()
    page.close()
    until((data / "bare.txt").exists, 240)
    page = pictures_of(visit(), data)
    expect(page.locator('.picture[data-name="bare.png"] b')).to_have_text("rose (flower)")
    assert (data / "a.txt").read_text() == "drawing, a"


def test_a_model_that_was_chosen_meanwhile_gets_no_offer_of_another(page, monkeypatch):
    page, look = page
    panels = panel(page, CaptioningPanel)
    panels.choose(look, "a/first")
    asking = panels.look_up(look)
    assert "Asking the hub" in next(asking)[panels.form.offer]["value"]

    def answers(name):
        panels.choose(look, "a/second")
        return HubOffer(name, 1, 1, "MIT")

    monkeypatch.setattr(model_downloads, "look", answers)
    assert list(asking) == [] and look.captioning.offer is None


def test_a_job_is_no_longer_watched_where_the_folder_cannot_be_shown(page, data):
    page, look = page
    look.settings = Settings(data=str(data), base="gone.safetensors")
    panels = panel(page, CaptioningPanel)
    updates = panels.tick(look)
    assert updates[page.room.failure]["visible"] and not updates[panels.timer].active


def test_while_a_folder_is_read_for_the_first_time_nothing_else_is_shown(page, data, monkeypatch):
    """Empty cards look as if there were no pictures; or cards vanish whenever the page is opened again."""
    page, look = page
    values = [look.settings.flat().get(key) for key in READ]
    monkeypatch.setattr(page.room.collections, "read", lambda look: iter([(3, 9)]))
    other = data.parent / "other"
    look.arrived[other] = "2 files copied to other."
    look.drawn = None
    first, *_ = page.open(look, str(data), *values)
    assert "3 of 9" in first[page.room.failure]["value"] and "alone" in first[page.room.failure]["value"]
    assert look.arrived == {other: "2 files copied to other."}, "another folder's message is lost"
    look.drawn = ("something",)
    again, *_ = page.open(look, str(data), *values)
    assert "3 of 9" in again[page.room.failure]["value"] and "alone" not in again[page.room.failure]["value"]

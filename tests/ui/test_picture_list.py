"""The list of the Pictures page, without a browser."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from lora_studio import runs, starter
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.curation.collection import Query
from lora_studio.dataset.preparation import Crop
from lora_studio.ui.pages.pictures import look as looks
from lora_studio.ui.pages.pictures import page as pages
from lora_studio.ui.pages.pictures import picture_list, recent
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.page import PicturesPage
from lora_studio.ui.pages.pictures.recent import RecentFolder


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page with five pictures, two on a page of the list, and the look of a tab that shows them."""
    for module in (looks, picture_list, picture_list.cards):
        monkeypatch.setattr(module, "PAGE_SIZE", 2)
    data = tmp_path / "data"
    data.mkdir()
    for number, name in enumerate("abcde"):
        Image.new("RGB", (128 + 64 * number, 128), (50 * number, 20, 20)).save(data / f"{name}.png")
        (data / f"{name}.txt").write_text("boat, " * number + f"thing {name}")
    with gr.Blocks():
        made = PicturesPage(tmp_path / "outputs")
    return made, PicturesLook(Settings(data=str(data)))


def event(at=0, **fields):
    return SimpleNamespace(at=at, **fields)


def names(page, look):
    html = page.room.draw(look).get(page.list.cards)
    return [part.split('"')[0] for part in html.split('data-name="')[1:]]


def test_a_search_and_an_order_give_pages(page):
    page, look = page
    assert names(page, look) == ["a.png", "b.png"]
    page.list.find(look, "BOAT", "", "", "long")
    look.drawn = None
    assert names(page, look) == ["e.png", "d.png"]
    page.list.turn(look, event(by=1))
    assert (look.page, look.chosen) == (1, "c.png")
    page.list.turn(look, event(by=1))
    assert look.page == 1, "there is no third page"
    page.list.turn(look, event(by=-1))
    assert (look.page, look.chosen) == (0, "d.png")
    page.list.find(look, "", "", "short", "name")
    assert {card.name for card in page.room.collections.of(look).find(look.query)} == {"a.png", "b.png"}


def test_a_choice_draws_no_card_again(page):
    """A click blinks, or scrolls the list away."""
    page, look = page
    page.room.draw(look)
    assert page.list.cards not in page.list.choose(
        look, event(name="b.png", names=["a.png", "b.png"], page=["a.png", "b.png"], keep=True)
    )
    page.list.choose(look, event(name="c.png", names=["c.png"], page=["c.png", "d.png"], keep=True))
    assert look.selected == {"a.png", "b.png", "c.png"} and look.chosen == "c.png"
    page.list.choose(look, event(name="d.png", names=["d.png"], page=["c.png", "d.png"], keep=False))
    assert look.selected == {"d.png"}
    page.list.select_all(look)
    assert len(look.selected) == 5
    page.list.unselect(look)
    assert (look.selected, look.chosen) == (set(), "")


def test_a_choice_shows_what_another_tab_changed(page):
    """Two tabs: the cards of the first keep captions that the second has changed."""
    page, look = page
    page.room.draw(look)
    page.room.collections.of(look).change({"a.png": "written elsewhere"})
    drawn = page.list.choose(look, event(name="b.png", names=["b.png"], page=["a.png", "b.png"], keep=False))
    assert "written elsewhere" in drawn[page.list.cards]


def test_a_folder_that_is_gone_is_no_empty_one(page):
    """It is shown with no picture or with cards of pictures that are gone, and nothing says why."""
    page, look = page
    page.room.draw(look)
    folder = page.room.collections.of(look).dataset.folder
    folder.rename(folder.with_name("moved"))
    for _ in page.room.collections.read(look):
        pass
    drawn = page.room.draw(look)
    assert look.failed and "There is no folder" in drawn[page.room.failure]["value"]
    assert drawn[page.intake.card]["visible"]


def test_a_file_of_prompt_pairs_is_said_to_have_no_pictures(page, tmp_path):
    page, look = page
    look.settings = look.settings.changed(data=str(tmp_path / "size.toml"))
    drawn = page.room.draw(look)
    assert look.failed and "size.toml holds pairs, and is no folder of pictures." in drawn[page.room.failure]["value"]


def test_a_sample_stays_as_it_is_and_its_copy_is_edited(page):
    """The program's own files change."""
    page, look = page
    sample = starter.sample_styles()[0]
    before = sorted(path.name for path in sample.iterdir())
    look.settings = Settings(data=str(sample))
    look.selected = {page.room.collections.of(look).find(Query())[0].name}
    asked = page.room._handler(page.list.turn_over)(look)
    assert asked[page.room.yes]["value"] == "Make a copy" and "Work on a copy?" in asked[page.room.message]["value"]
    page.room._agree(look)
    copy = Path(look.folder)
    assert copy.parent == runs.pictures_folder(page.outputs) and copy.name == sample.name
    assert page.room.collections.of(look).counts()["left out"] == 1 and "1 picture left out" in look.said
    assert sorted(path.name for path in sample.iterdir()) == before


def test_the_selection_is_left_out_once_she_agreed(page):
    """She is not asked, asked twice, or what she pressed is forgotten."""
    page, look = page
    act = page.room._handler(page.list.turn_over)
    look.selected = {"a.png", "b.png"}
    assert page.room.yes.visible is False and act(look)[page.room.yes]["visible"]
    assert not page.room.collections.of(look).counts()["left out"]
    page.room._agree(look)
    assert page.room.collections.of(look).counts()["left out"] == 2 and "2 pictures left out" in look.said
    look.selected = {"a.png", "c.png"}
    assert not act(look)[page.room.yes]["visible"]
    look.selected = {"a.png", "b.png", "c.png"}
    act(look)
    assert not page.room.collections.of(look).counts()["left out"], "all were left out, so they are taken in"
    page.room._undo(look)
    assert page.room.collections.of(look, fresh=True).counts()["left out"] == 3


def test_thumbnails_are_made_for_what_is_shown(page):
    """A folder of thousands is read from end to end before anything appears; a damaged picture is asked for forever."""
    page, look = page
    assert page.room.draw(look)[page.list.cards].count("data-wanted") == 2
    (page.room.collections.of(look).dataset.folder / "b.png").write_bytes(b"no picture")
    (*_, last) = page.list.make_thumbnails(look)
    assert last[page.list.cards].count("<img src=") == 1 and "data-wanted" not in last[page.list.cards]
    assert "not a picture" in last[page.list.cards]
    assert len(list(page.outputs.rglob("*.jpg"))) == 1


def test_a_card_names_its_marks_for_one_picture(page):
    """It says "masks" of a single mask, or warns of what she drew herself."""
    page, look = page
    folder = page.room.collections.of(look).dataset.folder
    Image.new("L", (128, 128), 0).save(folder / "a-masklabel.png")
    collection = page.room.collections.of(look, fresh=True)
    collection.change(crop={"b.png": Crop(0, 0, 0.5, 1)})
    html = page.room.draw(look)[page.list.cards]
    assert '<i class="plain">mask</i>' in html and '<i class="plain">own crop</i>' in html


def test_files_without_a_picture_are_refused_and_nothing_is_asked(page):
    """She is asked to name a dataset of nothing."""
    page, look = page
    updates = page.intake.received(look, event(files=[], others=["letter.docx"]))
    assert "no picture among these files" in updates[page.intake.wrong]["value"]
    assert updates[page.intake.card]["visible"] and not updates[page.intake.naming]["visible"]


def test_a_file_of_pairs_is_opened_by_its_path_and_one_that_is_dropped_says_so(page, tmp_path):
    """The page calls it neither a folder nor a picture, or drops it without a word of what to do."""
    page, look = page
    (tmp_path / "size.toml").write_text('[[pair]]\nerase = "snow"\n')
    updates = page.intake.open(look, str(tmp_path / "size.toml"), SimpleNamespace(data="data"))
    assert updates["data"] == str(tmp_path / "size.toml") and not updates[page.intake.wrong]["visible"]
    updates = page.intake.received(look, event(files=[], others=["sliders/size.toml"]))
    assert "Paste the path of sliders/size.toml" in updates[page.intake.wrong]["value"]


def test_opening_a_folder_moves_nothing_under_the_pointer(page):
    """The card with the path closes, and a second click lands on a picture instead."""
    page, look = page
    data, other = look.folder, str(starter.sample_styles()[0])
    setup = SimpleNamespace(data="data")
    look.settings = Settings(data="")
    shown = page.intake.draw(look)
    assert shown[page.intake.card]["visible"]
    updates = page.intake.open(look, data, setup)
    look.settings = Settings(data=data)
    assert updates["data"] == data and page.intake.draw(look)[page.intake.card]["visible"]
    page.intake.toggle(look)
    page.intake.open(look, other, setup)
    assert not page.intake.draw(look)[page.intake.card]["visible"], "the card that was closed stays so"


def test_folders_that_are_listed_keep_their_places(page, tmp_path):
    """The second press on a folder opens the one that took its place."""
    page, look = page
    for name in ("ink", "oil"):
        (tmp_path / name).mkdir()
        recent.remember(str(tmp_path / name), tmp_path / "outputs")
    for _ in range(2):
        listed = page.intake._places(look)
        assert listed.index("/oil") < listed.index("/ink")
        recent.remember(str(tmp_path / "ink"), tmp_path / "outputs")
    page.intake.toggle(look)
    listed = page.intake._places(look)
    assert listed.index("/ink") < listed.index("/oil"), "the card was opened anew"


def test_no_picture_is_nothing_to_train_on(page):
    """She presses Train on these where there are none, and is told so on another page."""
    page, look = page
    assert page.room.draw(look)[page.list.train]["interactive"]
    collection = page.room.collections.of(look)
    collection.leave_out(list(collection.cards), True)
    assert not page.room.draw(look)[page.list.train]["interactive"]


def test_a_folder_is_remembered_without_its_damaged_files(page):
    page, look = page
    (Path(look.folder) / "broken.png").write_bytes(b"no picture")
    look.intake = True
    *_, updates = page.open(look, look.folder, *(SPECS[key].default for key in pages._READ))
    assert 'aria-pressed="true">data <span>5 pictures' in updates[page.intake.places], "and listed at once"
    assert recent.recent(page.outputs) == [RecentFolder(look.folder, 5)]

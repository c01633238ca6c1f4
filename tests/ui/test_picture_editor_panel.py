"""The panel of the chosen picture, without a browser."""

from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from lora_studio.config.settings import Settings
from lora_studio.curation import masks
from lora_studio.dataset import pictures
from lora_studio.dataset.preparation import Crop, FolderOptions
from lora_studio.errors import DatasetError, RunError
from lora_studio.ui.pages.pictures import crop, model_view, picture_problems
from lora_studio.ui.pages.pictures.editor import PictureEditor
from lora_studio.ui.pages.pictures.folders import Folders
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from tests.vision import tiny


@pytest.fixture
def editor(tmp_path):
    """The panel, and the look of a tab that shows four pictures and may write in their folder."""
    data = tmp_path / "data"
    (data / ".lora_studio").mkdir(parents=True)
    for name, size in (("a", (512, 256)), ("b", (512, 256)), ("long", (256, 128)), ("tiny", (70, 70))):
        Image.effect_noise(size, 80).convert("RGB").save(data / f"{name}.png")
        (data / f"{name}.txt").write_text(f"thing {name}")
    (data / "b.png").write_bytes((data / "a.png").read_bytes())
    (data / "long.txt").write_text("a boat at the quay, " * 80)
    with gr.Blocks():
        made = PictureEditor(Room(tmp_path / "outputs"))
    return made, PicturesLook(Settings(data=str(data), trigger="zorp"))


def cards(editor):
    page, look = editor
    return page.room.collections.of(look)


def said(editor, name):
    collection = cards(editor)
    return [(one.what, one.act) for one in picture_problems.of(collection.cards[name], collection)]


def event(**fields):
    return SimpleNamespace(**fields)


def test_what_is_wrong_is_said_of_the_picture_with_its_remedy(editor):
    assert said(editor, "a.png") == [("It is the same picture as b.png.", "out")]
    assert said(editor, "tiny.png") == [("It is small for 128 × 128 and trains at 64 × 64.", "out")]
    ((what, act),) = said(editor, "long.png")
    assert what.startswith("Only the first 225 of the ") and act == "shorten"


def test_each_notice_of_reading_has_its_sentence_about_one_picture():
    """A picture is said to have what many have: "pictures have several frames"."""
    assert {*picture_problems.NOTICES, "alpha"} == {*pictures.NOTICES}


def test_a_long_caption_is_shortened_to_what_is_read(editor):
    page, look = editor
    look.chosen = "long.png"
    page.fix(look, event(act="shorten", name="long.png"))
    card = cards(editor).cards["long.png"]
    assert 200 < card.tokens <= 225 and card.picture.caption.endswith("a boat at the quay")
    assert (card.picture.path.parent / "long.txt").read_text().strip() == card.picture.caption


def test_a_refused_caption_says_why_and_what_is_in_the_file(editor):
    """A text is taken for saved that is not, or what another program wrote is gone."""
    page, look = editor
    look.chosen = "a.png"
    long = event(name="a.png", text="x" * 70_000, before="thing a", turn="1")
    answer = page._save(look, long)
    assert (answer.turn, answer.saved, answer.other) == ("1", None, None) and "longer than 64 KiB" in answer.why
    file = cards(editor).cards["a.png"].picture.path.with_suffix(".txt")
    file.write_text("by another program")
    answer = page._save(look, event(name="a.png", text="mine", before="thing a", turn="2"))
    assert (answer.saved, answer.other, file.read_text()) == (None, "by another program", "by another program")
    assert cards(editor).cards["a.png"].picture.caption == "by another program"


def test_a_crop_of_several_takes_each_picture_s_own_shape(editor):
    page, look = editor
    collection = cards(editor)
    page.crop._keep(look, {"a.png": crop.snapped(collection.cards["a.png"], Crop(0, 0, 0.5, 1), collection)})
    look.chosen, look.selected = "a.png", {"a.png", "b.png", "tiny.png"}
    page.crop.apply_to_selected(look)
    kept = {name: card.picture.crop for name, card in collection.cards.items() if card.picture.crop}
    assert kept.keys() == look.selected and kept["a.png"] == kept["b.png"] == Crop(0, 0, 0.5, 1)
    for name in kept:
        left, top, right, bottom = collection.cards[name].box
        bucket = collection.cards[name].bucket
        assert (right - left) / (bottom - top) == pytest.approx(bucket.width / bucket.height)


def test_a_crop_that_training_does_not_use_is_not_shown(editor):
    """The page shows the crop of another picture, which is too few pixels of this one."""
    page, look = editor
    look.chosen, look.selected = "a.png", {"a.png", "tiny.png"}
    page.crop._keep(look, {"a.png": Crop(0, 0, 0.05, 0.1)})
    page.crop.apply_to_selected(look)
    assert cards(editor).cards["a.png"].picture.crop and cards(editor).cards["tiny.png"].picture.crop is None
    assert "1 picture is too small for it." in look.said


def test_a_crop_with_few_pixels_is_told(editor):
    page, look = editor
    look.chosen, look.tool = "tiny.png", "crop"
    page.crop._keep(look, {"tiny.png": Crop(0.25, 0.25, 0.75, 0.75)})
    shown = page.crop.draw(look, cards(editor))[page.crop.size]
    assert "Trains at <b>64 × 64</b>, from 35 × 35 pixels." in shown and "is enlarged" in shown


def test_pictures_are_gone_through_in_the_order_of_the_list(editor):
    page, look = editor
    look.chosen = "b.png"
    page.step(look, event(act="next"))
    assert (look.chosen, look.selected) == ("long.png", {"long.png"})
    page.step(look, event(act="back"))
    page.step(look, event(act="back"))
    page.step(look, event(act="back"))
    assert look.chosen == "a.png"


def test_what_is_left_out_is_taken_in_by_the_same_button(editor):
    page, look = editor
    look.chosen = "a.png"
    for out, label in ((True, "Take in"), (False, "Leave out")):
        page.leave_out(look)
        assert cards(editor).cards["a.png"].left_out == out
        assert page.draw(look, cards(editor))[page.out] == label


def test_a_picture_of_a_folder_without_weight_says_why_it_is_left_out(editor):
    """The button does nothing, and nobody knows why."""
    page, look = editor
    page.room.workbench(look).set_folder("", FolderOptions(weight=0.0))
    page.room.collections.of(look, fresh=True)
    look.chosen, look.selected = "tiny.png", {"tiny.png"}
    assert said(editor, "tiny.png")[0] == ("It is left out, since the weight of its folder is 0.", "folder")
    with pytest.raises(DatasetError, match="since the weight of the folder is 0"):
        page.leave_out(look)
    with gr.Blocks():
        folders = Folders(page.room)
    page.fix(look, event(act="folder", name="tiny.png"))
    shown = folders.draw(look, cards(editor))
    assert shown[folders.folder] == "" and shown[folders.fold]["open"] and shown[folders.weight]["value"] == 0.0
    assert folders.form not in folders.draw(look, cards(editor))


def test_what_was_not_written_is_not_shown(editor):
    """The frame or the strokes stay as if they had been saved."""
    page, look = editor
    with gr.Blocks():
        page.room.encloses(gr.Column(), gr.HTML())
    look.chosen, look.tool = "a.png", "crop"
    shown = page.crop.draw(look, cards(editor))[page.crop.frame]
    page.room._handler(page.crop.move)(look, SimpleNamespace(name="a.png", crop=[0, 0, 0.01, 1]))
    assert "smaller than 8 × 8" in look.said and not cards(editor).cards["a.png"].picture.crop
    refused = page.crop.draw(look, cards(editor))[page.crop.frame]
    page.room._decline(look)
    declined = page.crop.draw(look, cards(editor))[page.crop.frame]
    assert len({shown, refused, declined}) == 3
    look.tool = "mask"
    canvas = page.mask.draw(look, cards(editor))[page.mask.canvas]
    page.room._decline(look)
    assert page.mask.draw(look, cards(editor))[page.mask.canvas] != canvas


def test_the_card_shows_the_caption_that_training_reads(editor):
    """Two pictures share a caption file, or an emptied caption is the folder's now; the page shows another one."""
    page, look = editor
    path = cards(editor).cards["a.png"].picture.path
    Image.open(path).save(path.with_suffix(".webp"))
    page.room.changed(look, page.room.workbench(look).set_folder("", FolderOptions(caption="a folder")))
    page._save(look, event(name="a.png", text="both", before="thing a", turn="1"))
    assert cards(editor).cards["a.webp"].picture.caption == "both"
    page._save(look, event(name="a.png", text="", before="both", turn="2"))
    assert {cards(editor).cards[name].picture.caption for name in ("a.png", "a.webp")} == {"a folder"}


def test_an_edit_of_a_picture_that_is_gone_is_refused(editor):
    """Another tab has read the folder again, and a button here answers with a traceback."""
    page, look = editor
    look.chosen, look.selected = "a.png", {"a.png"}
    cards(editor).cards["a.png"].picture.path.unlink()
    page.room.collections.of(look, fresh=True)
    for act in (page.leave_out, page.crop.apply_to_selected, page.mask.turn_over):
        with pytest.raises(DatasetError, match="There is no picture a.png any more"):
            act(look)


def test_a_corner_is_hidden_where_it_is_asked_for_and_turned_over(editor):
    """The mask of one picture is written for all, or what is learned is hidden."""
    page, look = editor
    look.chosen, look.selected = "a.png", {"a.png", "tiny.png"}
    corner = {"name": "a.png", "corner": "top-left", "width": 50, "height": 50}
    page.mask.hide_corner(look, event(**corner, scope="selected"))
    masked = {name for name, card in cards(editor).cards.items() if card.picture.mask}
    assert masked == look.selected

    def levels():
        mask = masks.of(cards(editor).cards["a.png"].picture)
        return [mask.getpixel(at) for at in ((10, 10), (250, 120), (262, 120), (500, 250))]

    assert levels() == [0, 0, 255, 255]
    page.mask.turn_over(look)
    assert levels() == [255, 255, 0, 0]
    page.mask.make_soft(look)
    assert levels()[0] == 255 and levels()[1] < 255 and levels()[2:] == [0, 0]


def test_what_the_model_sees_is_asked_for_again(editor, monkeypatch):
    """The image that could not be made while a run trained never comes."""
    page, look = editor
    look.chosen, look.tool = "a.png", "model"
    view = page.model

    def refuse(*_):
        raise RunError("No images are drawn while the run ink trains.", do="Wait for its end.")

    monkeypatch.setattr(view.renderer, "draw", refuse)
    told = list(view.render(look))[-1]
    assert "while the run ink trains" in told[view.note] and told[view.again]["visible"]
    monkeypatch.setattr(view.renderer, "draw", lambda *_: [SimpleNamespace(kind="loading")])
    monkeypatch.setattr(
        view.renderer, "known", lambda _: model_view.read(cards(editor).cards["a.png"], view.room.outputs)
    )
    first, loading, last = view.render(look)
    assert not first[view.again]["visible"] and "Loading the VAE" in loading[view.note]
    assert "Compare with the picture" in last[view.pair]


@pytest.fixture
def subjects(editor, tmp_path):
    """The search for subjects, with a model that finds what is red, in four pictures of which the left half is."""
    page, look = editor
    for card in cards(editor).cards.values():
        picture = Image.new("RGB", (card.picture.width, card.picture.height), "blue")
        picture.paste("red", (0, 0, picture.width // 2, picture.height))
        picture.save(card.picture.path)
    page.room.collections.of(look, fresh=True)
    with gr.Blocks():
        page.room.encloses(gr.Column(), gr.HTML())
    look.chosen, look.selected, look.tool = "a.png", {"a.png"}, "mask"
    page.mask.subject.ask_everywhere(look, str(tiny.u2net(tmp_path / "model.onnx")), "subject")
    return page.mask.subject


def masked(editor):
    page, look = editor
    return {name for name, card in page.room.collections.of(look, fresh=True).cards.items() if card.picture.mask}


def test_a_search_for_subjects_says_how_far_it_is_and_is_one_step(editor, subjects):
    page, look = editor
    told = list(subjects.search(look))
    assert [f"{done} of 4" in step[subjects.progress] for done, step in enumerate(told[:-1], 1)] == [True] * 4
    assert "Mask of a.png, b.png, long.png and 1 more set." in look.said and look.search is None
    assert masked(editor) == {"a.png", "b.png", "long.png", "tiny.png"}
    page.room.workbench(look).undo()
    assert masked(editor) == set()


def test_a_search_that_is_stopped_keeps_what_it_found_and_what_was_drawn_meanwhile(editor, subjects):
    page, look = editor
    steps = subjects.search(look)
    next(steps)
    page.mask._keep(look, {"a.png": masks.png(Image.new("L", (512, 256), 7))})
    next(steps)
    assert "Stopping…" in subjects.stop_search(look)[subjects.progress]
    list(steps)
    assert "Stopped after 2 pictures. 1 mask that you changed meanwhile stayed." in look.said
    assert masked(editor) == {"a.png", "b.png"}
    assert masks.of(cards(editor).cards["a.png"].picture).getpixel((5, 5)) == 7


def test_a_search_ends_where_another_folder_is_opened_and_says_what_it_wrote(editor, subjects):
    page, look = editor
    steps = subjects.search(look)
    next(steps)
    look.leave()
    list(steps)
    assert "In data:" in look.said and "Mask of a.png set. Stopped after 1 picture." in look.said
    assert masked(editor) == {"a.png"}


def test_a_search_that_fails_keeps_what_it_found_and_says_why(editor, subjects):
    page, look = editor
    cards(editor).cards["long.png"].picture.path.write_bytes(b"no picture")
    list(subjects.search(look))
    assert "Mask of a.png, b.png set." in look.said and "not a picture" in look.said and look.search is None


def test_a_mask_that_is_gone_is_named(editor):
    """The page cannot be drawn any more once another program deletes a mask."""
    page, look = editor
    look.chosen, look.tool = "a.png", "mask"
    page.mask.hide_corner(look, event(name="a.png", corner="top-left", width=20, height=20, scope="one"))
    cards(editor).cards["a.png"].picture.mask.path.unlink()
    assert "cannot be read" in page.mask.draw(look, cards(editor))[page.mask.share]

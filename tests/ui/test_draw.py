"""The Draw page without a browser: what is asked for, what is kept, and what a picture's settings become."""

import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from lora_studio import adapters, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, RunError, SettingsError
from lora_studio.jobs.renderer import Answer, targets
from lora_studio.runs import gallery, library
from lora_studio.sampling import infotext, picture_file
from lora_studio.sampling.axes import Axis
from lora_studio.sampling.picture_recipe import PictureRecipe
from lora_studio.sampling.recipe import grid, to_png
from lora_studio.ui import images
from lora_studio.ui.pages.draw import drawing, easel, order, sheets, sizes, stage, starts, taking, wall
from lora_studio.ui.pages.draw.easel import DrawingProgress, Easel
from lora_studio.ui.pages.draw.order import DrawFields
from lora_studio.ui.pages.draw.page import DrawPage
from lora_studio.ui.pages.draw.sheets import AxisFields
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.library import cards
from lora_studio.ui.scene.mixture import Mix
from tests.adapters.adapter_samples import small

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def outputs(tmp_path) -> Path:
    """A library of two adapters of the starter."""
    for name, trigger in (("ink", "inkstyle"), ("wash", "")):
        path = runs.library_folder(tmp_path) / f"{name}.safetensors"
        adapters.write(small(), path, metadata={"modelspec.title": name, "modelspec.trigger_phrase": trigger})
    return tmp_path


class PlayedRenderer:
    """Draws plain pictures at once; ``gate`` holds it before each request."""

    def __init__(self, folder: Path):
        self.folder, self.asked, self.cancelled, self.gate = folder, [], [], threading.Event()
        self.gate.set()
        self.error = None

    def draw(self, spec, lane):
        self.asked.append(spec)
        if self.error:
            raise self.error
        rough = self.folder / "rough.png"
        Image.new("RGB", (4, 4)).save(rough)
        yield Answer(kind="forming", path=str(rough), step=1, steps=2, last=False)
        assert self.gate.wait(60)
        if lane in self.cancelled:
            yield Answer(kind="dropped")
            return
        paths = targets(self.folder / f"{spec.key()}.png", spec.count)
        for path in paths:
            Image.new("RGB", (spec.width, spec.height)).save(path)
        yield Answer(kind="drawn", path=str(paths[0]), paths=tuple(map(str, paths)), steps=spec.steps)

    def cancel(self, lane):
        self.cancelled.append(lane)


@pytest.fixture
def renderer(tmp_path) -> PlayedRenderer:
    return PlayedRenderer(tmp_path)


def drawn(made: Easel, lane: str = "tab") -> DrawingProgress:
    """What is known once nothing is drawn any more."""
    *_, last = (one for one in made.follow(lane) if one)
    return last


def test_a_row_is_kept_picture_by_picture(outputs, renderer):
    made = Easel(outputs, renderer)
    made.begin("tab", order.order(DrawFields("a cat <lora:ink:0.8>", seed=5, count=6, steps=2), Mix(), outputs))
    done = drawn(made)
    assert [(spec.seed, spec.count) for spec in renderer.asked] == [(5, 4), (9, 2)]
    assert [(one.name, one.weight) for one in renderer.asked[0].adapters] == [("ink", 0.8)]
    assert len(done.kept) == 6 and not done.at_work
    told = picture_file.read(gallery.found(done.kept[-1], outputs)).values
    assert (told["seed"], told["prompt"], told["width"]) == (10, "a cat", 128)
    assert told["adapters"][0]["name"] == "ink" and len(told["adapters"][0]["sha256"]) == 64
    made.begin("tab", order.order(DrawFields("a cat <lora:ink:0.8>", seed=5, count=4, steps=2), Mix(), outputs))
    assert drawn(made).kept == done.kept[:4] and len(gallery.listed(outputs)) == 6, "the same pictures are kept once"


def test_what_was_drawn_stays_when_the_rest_is_cancelled(outputs, renderer):
    made = Easel(outputs, renderer)
    renderer.gate.clear()
    asked = order.order(DrawFields("a cat", count=6, steps=2), Mix(), outputs)
    made.begin("tab", asked)
    made.begin("tab", asked)
    forming = next(one for one in made.follow("tab") if one and one.step)
    assert forming.share == pytest.approx(4 * 0.5 / 6) and forming.waiting == 1 and forming.rough
    assert "Drawing pictures 1 to 4 of 6, step 1 of 2; 1 more to come" in stage.forming(forming)
    made.cancel("tab")
    renderer.gate.set()
    done = drawn(made)
    assert done.cancelled and not done.kept and len(renderer.asked) == 1
    assert "Cancelled" in drawing.note(done)
    made.begin("tab", asked)
    renderer.cancelled.clear()
    assert len(drawn(made).kept) == 6, "a press after that draws again"


def test_a_run_that_trains_is_told(outputs, renderer):
    renderer.error = RunError("No images are drawn while the run ana trains.", do="Wait for its end.")
    made = Easel(outputs, renderer)
    made.begin("tab", order.order(DrawFields("a cat"), Mix(), outputs))
    said = drawing.note(drawn(made))
    assert "while the run ana trains" in said and "Wait for its end" in said


@pytest.mark.parametrize(("asked", "error"), [
    (DrawFields("a <lora:gone>"), "The library has no adapter named gone"),
    (DrawFields("a <lora:inc:1>"), "Did you mean ink"),
    (DrawFields("a <lora:ink:99>"), "weight of ink is 99"),
    (DrawFields("a <lora:ink:1> <lora:ink:0.5>"), "ink is named twice"),
    (DrawFields("a", seed=None), "Seed must be"),
    (DrawFields("a", count=65), "Pictures must be a whole number from 1 to 64"),
    (DrawFields("a", count=1.5), "Pictures must be"),
    (DrawFields("a", shape=sizes.OWN, width=16, height=128), "Width must be"),
    (DrawFields("a", larger=True, scale=9), "Times larger must be"),
    (DrawFields("a", base=" "), "No base model is named"),
    (DrawFields("a", start="/nowhere.png"), "picture to start from"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused_with_its_field(outputs, asked, error):
    with pytest.raises((AdapterError, SettingsError, Exception), match=error):
        order.order(asked, Mix(), outputs)


def test_settings_of_a_picture_come_back(outputs, tmp_path):
    """A picture cannot be drawn again from what its file tells."""
    start = tmp_path / "from.png"
    Image.new("RGB", (8, 8)).save(start)
    kept = str(starts.keep(start, outputs))
    asked = DrawFields(
        "a cat <lora:ink:0.8>", "text", 5, shape="3:2", upright=True, steps=7, guidance=3.0, sampler="euler",
        larger=True, scale=1.5, start=kept, start_strength=0.4,
    )  # fmt: skip
    first = order.order(asked, Mix(), outputs)
    path = tmp_path / "a.png"
    path.write_bytes(picture_file.to_png(Image.new("RGB", (8, 8)), first.recipe()))
    mix = Mix()
    taken = taking.take(picture_file.read(path), mix, "starter", outputs)
    again = order.order(
        DrawFields(
            **{**DrawFields("")._asdict(), **taken.fields},
        ),
        mix,
        outputs,
    )
    assert again.spec.key() == first.spec.key() and taken.left == []


def test_what_the_page_cannot_take_over_is_named(outputs):
    text = (
        "a cat <lora:ink:0.5> <lora:gone:1>\nSteps: 9, Sampler: Restart, CFG scale: 6, Seed: 3, Size: 999x333, "
        "Model hash: 0123456789, Model: dream, Denoising strength: 0.5"
    )
    mix = Mix()
    taken = taking.take(infotext.read(text), mix, "starter", outputs)
    assert [(row.name, row.weight) for row in mix.rows] == [("ink", 0.5)]
    assert taken.fields["shape"] == sizes.OWN and taken.fields["width"] == 999 and "sampler" not in taken.fields
    assert taken.left == [
        "Sampler: Restart",
        "The adapter gone (1) is not in your library.",
        "The picture that it was drawn from is not here: choose it again.",
        "The base model dream.safetensors is not known here: choose it yourself.",
    ]


def test_names_and_prompts_are_shown_as_text(outputs):
    """A dropped file's prompt runs as a script."""
    recipe = PictureRecipe(prompt=EVIL, negative=EVIL, base=EVIL, width=8, height=8)
    gallery.keep(picture_file.to_png(Image.new("RGB", (8, 8)), recipe), "a.png", outputs)
    gallery.keep(b"no picture", "b.png", outputs)
    sitting = Sitting(chosen="a.png", other="")
    shown = stage.html(sitting, DrawingProgress(), outputs)
    assert EVIL not in shown and "&lt;img src=x" in shown
    wall.make(gallery.listed(outputs), outputs)
    assert "data-wanted" in wall.html(sitting, gallery.listed(outputs), outputs), "a damaged file has no small picture"
    sitting.choose("b.png")
    assert stage.html(sitting, DrawingProgress(), outputs) == stage.empty()


def test_pages_of_many_pictures(outputs, monkeypatch):
    monkeypatch.setattr(wall, "PAGE_SIZE", 2)
    for number in range(5):
        gallery.keep(b"x", f"{number}.png", outputs)
    sitting = Sitting(page=9)
    found = gallery.listed(outputs)
    assert len(wall.shown(sitting, found)) == 1 and sitting.page == 2
    assert wall.place(sitting, found) == "5 to 5 of 5"


def test_two_pictures_are_compared_by_what_tells_them_apart(outputs):
    for seed in (1, 2):
        recipe = PictureRecipe(prompt="a cat", seed=seed, base="starter", width=8, height=8)
        gallery.keep(picture_file.to_png(Image.new("RGB", (8, 8)), recipe), f"{seed}.png", outputs)
    sitting = Sitting(chosen="1.png", comparing=True)
    sitting.choose("2.png")
    shown = stage.html(sitting, DrawingProgress(), outputs)
    assert 'class="left">seed 1<' in shown and 'class="right">seed 2<' in shown
    sitting.beside = True
    assert "<figcaption>seed 2</figcaption>" in stage.html(sitting, DrawingProgress(), outputs)


def test_a_start_is_one_of_the_studios_own(outputs, tmp_path):
    """A page elsewhere has the studio read any file of this computer."""
    with pytest.raises(SettingsError, match="gone"):
        starts.checked("/etc/hostname", outputs)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    kept = starts.keep(tmp_path / "a.png", outputs)
    assert starts.checked(str(kept), outputs) == kept.resolve()
    assert starts.find("*", outputs) is None and easel.DrawingProgress().share == 0


@pytest.fixture
def page(outputs, renderer) -> DrawPage:
    with gr.Blocks():
        return DrawPage(outputs, Easel(outputs, renderer), gr.BrowserState({}))


def values(page: DrawPage, mix: Mix, **changed) -> dict:
    """The page's fields as they are at first, but for those ``changed`` by name."""
    typed = {page.form.fields[name]: value for name, value in changed.items()}
    held = {field: getattr(field, "value", None) for field in page.drawing.inputs}
    return {**held, page.mix: mix, page.sitting: Sitting(), **typed}


def test_an_adapter_that_the_address_names_takes_the_place_of_others(page, outputs):
    """The button "Draw with it" of a run draws with something else, or without its trigger word."""
    mix = Mix()
    page.adapters.add(mix, "library/wash.safetensors")
    changed = page.row(Sitting(), mix, "starter", "cat", SimpleNamespace(key="library/ink.safetensors"))
    assert [row.name for row in mix.rows] == ["ink"] and changed[page.form.fields["prompt"]] == "inkstyle, cat"
    mix.rows[0].weight = 0.3
    page.row(Sitting(), mix, "starter", "cat", SimpleNamespace(key="library/ink.safetensors"))
    assert mix.rows[0].weight == 0.3, "a reload of that address changes nothing"
    changed = page.row(Sitting(), mix, "starter", "cat", SimpleNamespace(key="library/gone.safetensors"))
    assert "gone" in changed[page.adapters.message]["value"]


def test_what_was_typed_comes_back_after_a_reload(page, outputs):
    mix = Mix()
    page.adapters.add(mix, "library/ink.safetensors")
    kept = page.keep(values(page, mix, prompt="a dog", steps=9, shape="4:3"))
    fresh = Mix()
    back = page.restore({**values(page, fresh), page.draft: kept})
    assert (back[page.form.fields["prompt"]], back[page.form.fields["steps"]]) == ("a dog", 9)
    assert [row.name for row in fresh.rows] == ["ink"] and back[page.sitting].lane == kept["lane"]
    for forged in (None, [], {"lane": "../x", "rows": 3, "start": "/etc/hostname", "base_read": 5, "seed": []}):
        assert page.restore({**values(page, Mix()), page.draft: forged})[page.sitting].lane.isalnum()


def test_trigger_words_of_named_adapters_are_offered(page):
    shown = page.tags("a cat <lora:ink:0.5>")
    assert "ink × 0.5" in shown and 'data-name="inkstyle"' in shown
    assert "data-name" not in page.tags("inkstyle, a cat <lora:ink:0.5>") and page.tags("a cat") == ""
    assert "no adapter named gone" in page.tags("<lora:gone>")


def test_a_picture_is_opened_in_mix_with_its_adapters(page, outputs):
    recipe = order.order(DrawFields("a cat <lora:ink:0.8>", seed=5), Mix(), outputs).recipe()
    gallery.keep(picture_file.to_png(Image.new("RGB", (8, 8)), recipe), "a.png", outputs)
    draft = page.acts.to_mix(Sitting(), SimpleNamespace(act="mix", name="a.png"))
    assert draft["rows"] == [{"key": "library/ink.safetensors", "weight": 0.8, "blocks": {}}]
    assert (draft["prompt"], draft["seed"], draft["base"]) == ("a cat", 5, "starter")
    assert page.acts.to_mix(Sitting(), SimpleNamespace(act="star", name="a.png")) is None


def test_a_button_that_is_pressed_twice_does_its_work_once(page, outputs):
    """A star is given and taken away again, or it is said that the picture is gone which she has deleted."""
    for name in ("a.png", "b.png"):
        gallery.keep(b"x", name, outputs)
    given = values(page, Mix())
    sitting = given[page.sitting]
    sitting.chosen = "a.png"

    def twice(act):
        said = [page.acts.act(given, SimpleNamespace(act=act, name="a.png", on=True)) for _ in range(2)]
        assert said[1][page.note] == ""

    twice("star")
    assert [one.name for one in gallery.listed(outputs) if one.starred] == ["a.png"]
    twice("compare")
    twice("beside")
    assert sitting.comparing and sitting.beside
    twice("delete")
    assert [one.name for one in gallery.listed(outputs)] == ["b.png"] and gallery.can_restore(outputs) == 1
    assert sitting.chosen == "b.png"


def library_of(outputs) -> dict:
    return {cards.key(entry, outputs): entry for entry in library.entries(outputs)}


def test_a_sheet_varies_two_things_of_the_form(outputs):
    """A sheet's labels say something else than what is drawn."""
    entries, mix = library_of(outputs), Mix()
    mix.add(entries["library/wash.safetensors"], outputs, 0.7)
    sides = [
        AxisFields("prompt", "a cat, asleep\n\n a dog "),
        AxisFields("adapter", chosen=["library/ink.safetensors"]),
    ]
    spec = sheets.sheet(DrawFields("", seed=3, count=5), mix, sides, entries).spec
    assert spec.across.values == ("a cat, asleep", "a dog") and spec.down.values == ("ink",)
    assert [(one.name, one.weight) for one in spec.adapters] == [("wash", 0.7), ("ink", 1.0)] and spec.images == 1
    sides = [AxisFields("weight", "0 0.5; 1", subject="library/ink.safetensors"), AxisFields(sheets.NONE)]
    spec = sheets.sheet(DrawFields("a cat"), Mix(), sides, entries).spec
    assert (spec.across.values, spec.across.subject, spec.down) == ((0.0, 0.5, 1.0), "ink", None)


@pytest.mark.parametrize(("sides", "said"), [
    ([("none",), ("none",)], "no columns"),
    ([("prompt", " "), ("none",)], "no prompts"),
    ([("seed", "1, two")], "'two' is no seed"),
    ([("steps", "0")], "'0' is no steps"),
    ([("seed", "1,2"), ("seed", "3")], "vary the same seed"),
    ([("weight", "0,1")], "no adapter whose weight"),
    ([("adapter", "", ())], "not chosen"),
    ([("adapter", "", ("library/gone.safetensors",))], "not chosen, or gone"),
    ([("seed", ",".join(map(str, range(11)))), ("guidance", "1 2 3 4 5 6 7 8 9 10")], "more than 100"),
])  # fmt: skip
def test_a_sheet_that_makes_no_sense_is_refused(outputs, sides, said):
    with pytest.raises(SettingsError, match=said):
        sheets.sheet(DrawFields("a cat"), Mix(), [AxisFields(*one) for one in sides], library_of(outputs))


def test_a_sheet_of_a_runs_states_is_filled_in_and_drawn(page, outputs):
    """One press on the page Train shows what each state draws."""
    prompts = ["{trigger}, a cat", "{trigger}, a house"]
    run = runs.create(Settings(data="x", name="ana", trigger="anastyle", preview_prompts=prompts), outputs)
    for step in (20, 100, 3):
        adapters.write(small(), run.checkpoint(step) / "adapter.safetensors")
    sitting, mix = Sitting(), Mix()
    changed = page.row(sitting, mix, "", "", SimpleNamespace(key="sheet:ana"))
    across, down = page.sheet.across, page.sheet.down
    assert changed[across.kind] == "checkpoint" and changed[down.typed]["value"] == "anastyle, a cat\nanastyle, a house"
    chosen = changed[across.chosen]["value"]
    assert [Path(key).parent.name for key in chosen] == ["step-3", "step-20", "step-100"] and sitting.sheet_wanted
    sides = [AxisFields("checkpoint", chosen=chosen), AxisFields("prompt", changed[down.typed]["value"])]
    spec = sheets.sheet(DrawFields("", steps=2), mix, sides, page.sheet.entries()).spec
    assert spec.across.labels == ["ana, step 3", "ana, step 20", "ana, step 100"]


def test_a_sheet_is_offered_as_a_webp_too(outputs):
    recipe = grid(x=Axis("seed", (1, 2)), prompt="a cat", base="starter")
    gallery.keep(to_png(recipe, [Image.new("RGB", (8, 8))] * 2), "sheet.png", outputs)
    shown = stage.html(Sitting(chosen="sheet.png"), DrawingProgress(), outputs)
    assert 'download="sheet.webp"' in shown and "Columns: seed 1, seed 2" in shown and "Start from it" not in shown
    made = images.place(gallery.found("sheet.png", outputs), outputs, 0)
    assert picture_file.read(made).left == {"Columns": "seed 1, seed 2"}

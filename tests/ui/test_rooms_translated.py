"""Draw, Mix, Sweeps, Library and Export in a language whose every message stands in brackets: what stands outside is in
English for all.
"""

from __future__ import annotations

import html
import re
from types import SimpleNamespace

import pytest
from PIL import Image

from lora_studio import adapters, language, runs
from lora_studio.adapters import recipe
from lora_studio.adapters.recipe import Blend, Ingredient, Training
from lora_studio.evaluation.strength import StrengthRange, StrengthRow
from lora_studio.evaluation.value import Value
from lora_studio.events import State
from lora_studio.jobs.renderer import Answer
from lora_studio.jobs.sweeping import SweepingView
from lora_studio.runs import Unreadable, gallery, library
from lora_studio.sampling import picture_file
from lora_studio.sampling.image_settings import Hires
from lora_studio.sampling.picture_recipe import PictureRecipe, StartedFrom, UsedAdapter
from lora_studio.sweeps import results, space
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.ui.pages import export
from lora_studio.ui.pages.draw import drawing, shelf, stage, wall
from lora_studio.ui.pages.draw.easel import DrawingProgress
from lora_studio.ui.pages.draw.form import about_sampler
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.library import cards, details, work
from lora_studio.ui.pages.library.look import Look
from lora_studio.ui.pages.library.measures import Measures
from lora_studio.ui.pages.mix import figures, states_form
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.pages.sweeps import charts, status, table
from lora_studio.ui.scene.mixture import Mix
from tests.adapters.adapter_samples import small
from tests.language.brackets import brackets  # noqa: F401 - a fixture of all tests here
from tests.sweeps.conftest import outcome

_SHOWN = re.compile(r'(?:aria-label|title|alt|placeholder)="([^"]*)"|>([^<>]+)<')
_MESSAGE = re.compile(r'⟦[^⟦⟧<"]*⟧?')
_NAME = re.compile(
    r"\b[KMG]B\b|\bWebP\b|DPM\+\+ 2M|\b(Lo|Do)RA\b|kohya \(ComfyUI, Forge, A1111\)"
    r"|\d\w*\.(png|safetensors)|\d\. \w+\.? \d{4}"
)
"""What is no word: units, files, dates, and what is called the same everywhere."""


def in_english(shown: str) -> list[str]:
    """What of HTML is in no message."""
    texts = (first or second for first, second in _SHOWN.findall(f">{_MESSAGE.sub('', shown)}<"))
    return [one for one in map(html.unescape, texts) if re.search(r"[A-Za-z]{2}", _NAME.sub("", one))]


def drawn(outputs, name: str, **told) -> str:
    """A picture of the gallery."""
    image = Image.new("RGB", (8, 8))
    gallery.keep(
        picture_file.to_png(image, PictureRecipe(**{"prompt": "船", "width": 8, "height": 8} | told)), name, outputs
    )
    return name


def test_pictures_and_what_they_were_drawn_from(tmp_path):
    """A fact below the large picture stays English."""
    used = (UsedAdapter(name="1", weight=0.8, sha256=""),)
    more = {"hires": Hires(scale=2, strength=0.5), "start": StartedFrom(name="", sha256="", strength=0.6)}
    one = drawn(tmp_path, "1.png", negative="山", base="starter", adapters=used, **more)
    other = drawn(tmp_path, "2.png", base="3.safetensors", prompt="")
    Image.new("RGB", (8, 8)).save(runs.pictures_folder(tmp_path) / "3.png")
    gallery.star(one, True, tmp_path)
    for sitting in (Sitting(), Sitting(chosen=one, comparing=True), Sitting(chosen="3.png"), Sitting(chosen=other)):
        assert in_english(stage.html(sitting, DrawingProgress(), tmp_path)) == []
    for beside in (True, False):
        assert (
            in_english(stage.html(Sitting(chosen=one, other=other, beside=beside), DrawingProgress(), tmp_path)) == []
        )
    found = gallery.listed(tmp_path)
    assert in_english(wall.html(Sitting(), found, tmp_path) + wall.place(Sitting(), found)) == []
    assert in_english(shelf._chips(Sitting(), 3, 1) + wall.html(Sitting(starred=True), [], tmp_path)) == []
    assert in_english(about_sampler("lcm") + about_sampler("ddim")) == []


@pytest.mark.parametrize(
    "progress",
    [
        {},
        {"doing": "", "total": 3},
        {"doing": "", "total": 3, "together": 2, "step": 1, "steps": 9, "waiting": 1},
        {"at_work": False, "cancelled": True},
        {"at_work": False, "cancelled": True, "kept": ("1",)},
    ],
)
def test_how_far_a_drawing_is(progress):
    """The sentence below a picture that forms is put together of English fragments."""
    known = DrawingProgress(**{"at_work": True} | progress)
    assert in_english(stage.forming(known) + drawing.note(known)) == []


def test_what_a_mix_costs_and_how_it_was_drawn(tmp_path):
    """Facts below its pictures stay English."""
    answer = Answer(kind="drawn", path="1.png", steps=9, seconds=1.5, rank=8, size=9_000_000, residual=0.1)
    mix = Mix(rows=[SimpleNamespace(rank=4, weight=1.0)])
    shown = figures.empty() + figures.html(mix) + figures.cost(mix, None) + figures.cost(mix, answer)
    shown += figures.caption(answer, Scene("starter", "船", "", 1, 9, 5.0)) + figures.sheet(answer, "1")
    parts = [{"name": f"1-{step}", "weight": 0.5} for step in (10, 20)]
    result = {"recipe": {"ingredients": parts}, "rank": 8, "size": 9_000_000, "residual": 0.1}
    assert in_english(shown + states_form.told(result) + states_form.told(result | {"residual": 0.0})) == []


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_what_a_sweep_tries_and_found(sampler):
    """A head of the table, a state, or the legend of a chart stays English."""
    told = {
        "axes": {"rank": {"low": 4, "high": 8, "points": 2}},
        "seeds": 2,
        "preset": "quick-look",
        "sampler": sampler,
    }
    sweep = space.checked(told | ({} if sampler == "grid" else {"trials": 4}), "1.toml")
    wide = outcome(50).model_copy(update={"style": Value(-30.0, -160.0, 90.0), "parameters": 1200, "size": 9_000_000})
    found = [outcome(40), outcome(60, copies=2), outcome(50, subject=0.1), wide]
    trials = [Trial(i, TrialState.FINISHED, {"rank": 4 + i}, one, 20) for i, one in enumerate(found)]
    trials += [Trial(9, state, {"rank": 8}) for state in TrialState if state is not TrialState.FINISHED]
    best = results.best(trials)
    shown = table.html(sweep, trials, best, 1) + table.finding(best) + table.actions(trials[0])
    shown += charts.parallel(sweep, trials, 1) + charts.response(sweep, trials, "rank", 1)
    shown += status.source({"data": "", "base": "1"}) + status.about(sweep, None) + status.about(sweep, 0.1)
    job = SimpleNamespace(stage=lambda: "1")
    for state in State:
        shown += status.html(job, SweepingView(state, [], 1, 3, 90.0, "1", stopping=state is State.STOPPING))
    assert in_english(shown) == []


def test_adapters_their_facts_and_recipes(tmp_path):
    """A fact of a card or a head of a recipe stays English."""
    folder = runs.library_folder(tmp_path)
    trained = Training(settings={"rank": 4}, base="", images=[], steps=1200)
    blend = Blend(method="ties", rank=4, density=0.5, ingredients=[Ingredient(name="1", weight=0.5)] * 2)
    for index, one in enumerate((trained, blend, None)):
        metadata = {"modelspec.title": "船"} | ({recipe.KEY: recipe.dumps(one)} if one else {})
        adapters.write(small(), folder / f"{index}.safetensors", metadata=metadata)
    entries = library.entries(tmp_path)
    shown = cards.html(Look(), entries, 3, tmp_path) + cards.html(Look(), [], 0, tmp_path)
    shown += cards.html(Look(words="1"), [], 3, tmp_path) + cards.html(Look(), [], 3, tmp_path)
    shown += cards.unreadable([Unreadable("1", "2", "3")] * 50)
    for entry in entries:
        shown += details.html(entry, tmp_path) + details.links(entry, tmp_path) + details.opened(entry, {})
    assert in_english(shown) == []
    value = Value(50.0, 40.0, 60.0)
    rows = tuple(StrengthRow(at, value, value) for at in (0.5, 1.0))
    for fades in (True, False):
        known = Measures(
            value,
            value,
            value,
            value,
            fades,
            True,
            language.tr("copies"),
            StrengthRange(80, rows, value, 0.5, 1.0, 0.5),
        )
        assert in_english(known.line + "".join(f"<b>{name}</b><i>{told}</i>" for name, told in known.facts)) == []
    figures = {"rank_before": 8, "rank": 4, "size_before": 9_000_000, "size": 4_000_000, "kept": 0.9, "residual": 0.1}
    assert in_english(work._figures(figures)) == []


def test_what_an_export_tells():
    """What a file contains, and what its proof means, stays English."""
    shown = export._empty() + export._none() + "".join(map(export._tells, export.PRIVACY))
    assert in_english(shown + "".join(map(export._proved, (0.0, 1e-5, 0.01, 0.5)))) == []

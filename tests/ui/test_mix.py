"""The Mix page without a browser: which adapters go together, what is drawn, what is shown and saved."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from lora_studio import adapters, runs
from lora_studio.adapters import Adapter, blend, recipe
from lora_studio.adapters.blend_methods import METHODS
from lora_studio.cli import ingredients
from lora_studio.cli.generate import parse_adapter
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, ModelError, RunError, SettingsError
from lora_studio.jobs import runner
from lora_studio.jobs.image_spec import Blending
from lora_studio.jobs.renderer import Answer, Renderer
from lora_studio.runs import library, renaming
from lora_studio.sampling.axes import Axis
from lora_studio.ui.pages.library import cards
from lora_studio.ui.pages.mix import figures, image_specs, saving
from lora_studio.ui.pages.mix.image_specs import ChosenBlend, Scene, Spread
from lora_studio.ui.pages.mix.page import MixPage
from lora_studio.ui.scene import base_reading, mixture, rows
from lora_studio.ui.scene.mixture import Mix, bounded
from tests.adapters.adapter_samples import factors, small

SCENE = Scene("starter", "cat", "", 1, 20, 5.0)
EXACT = ChosenBlend("exact", {"rank": 0})
EVIL = "<img src=x onerror=alert(1)>"
SDXL = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture
def outputs(tmp_path) -> Path:
    """A library of two adapters of the starter, one of them with a hostile name, and one of SDXL."""
    folder = runs.library_folder(tmp_path)
    adapters.write(
        small(), folder / "ink.safetensors", metadata={"modelspec.title": EVIL, "modelspec.trigger_phrase": EVIL}
    )
    adapters.write(
        small().map(lambda tensor: 2 * tensor),
        folder / "wash.safetensors",
        metadata={"modelspec.title": "Wash", "modelspec.trigger_phrase": "washstyle"},
    )
    adapters.write(Adapter({SDXL: factors(SDXL, 1280, 1280)}), folder / "wide.safetensors")
    return tmp_path


def entry(outputs: Path, name: str) -> library.Entry:
    return next(one for one in library.entries(outputs) if Path(one.path).stem == name)


@pytest.fixture
def mix(outputs) -> Mix:
    made = Mix()
    for name in ("ink", "wash"):
        made.add(entry(outputs, name), outputs)
    return made


@pytest.mark.parametrize(("told", "start"), [("0.7", 0.7), ("9", 2.0), ("", 1.0), ("much", 1.0)])
def test_a_row_starts_at_the_strength_that_the_header_recommends(outputs, told, start):
    path = runs.library_folder(outputs) / "measured.safetensors"
    adapters.write(small(), path, metadata={"modelspec.lora_default_weight": told})
    mix = Mix()
    mix.add(entry(outputs, "measured"), outputs)
    assert mix.rows[0].weight == start


@pytest.mark.parametrize(("typed", "kept", "why"), [
    ("0.5", 0.5, ""), ("0,5", 0.5, ""), ("−1", -1.0, ""), (0, 0.0, ""), ("-2", -2.0, ""),
    ("10", 2.0, "10 is out of range"), ("-1e9", -2.0, "out of range"), ("inf", 2.0, "inf is out of range"),
    ("nan", 0.7, "not a number"), ("", 0.7, "not a number"), ("much", 0.7, "“much” is not a number"),
    (None, 0.7, "not a number"), ([1], 0.7, "not a number"),
])  # fmt: skip
@pytest.mark.fault(32)
def test_a_weight_out_of_bounds_is_corrected_with_the_reason(typed, kept, why):
    """A weight of NaN or 1,000 gives grey pictures without a reason."""
    weight, said = bounded(typed, 0.7)
    assert weight == kept and (why in said if why else not said)
    assert not said or f"{kept:g}" in said


@pytest.mark.fault(29)
def test_adapters_of_different_models_are_refused_with_names(mix, outputs):
    """The mix is made, and every picture fails."""
    with pytest.raises(
        AdapterError, match="was made for the built-in starter and wide for Stable Diffusion XL: they cannot be mixed"
    ) as told:
        mix.add(entry(outputs, "wide"), outputs)
    assert told.value.do and len(mix.rows) == 2


def test_an_adapter_is_found_under_the_new_name_of_its_run(outputs):
    """Its run was renamed, and Mix looks for its file under the old name until the page is loaded again."""
    (of_oil, of_pen), shown = (trained(outputs, name, small()) for name in ("oil", "pen")), Mix()
    for key in (of_oil, of_pen):
        shown.add(cards.found(key, outputs), outputs, weight=0.5)
    assert not shown.follow(outputs)
    renaming.rename(runs.find("pen", outputs), "chalk")
    assert shown.follow(outputs) and not shown.follow(outputs)
    assert [(row.key, row.name, row.run, row.weight) for row in shown.rows] == [
        (of_oil, "oil", "oil", 0.5),
        ("chalk/chalk.safetensors", "chalk", "chalk", 0.5),
    ]
    assert shown.rows[1].path == str(outputs / "chalk" / "chalk.safetensors")


def test_an_adapter_is_in_a_mix_once_and_their_number_is_bounded(mix, outputs):
    """The same adapter counts twice unseen, or a hundred rows fill the memory."""
    with pytest.raises(AdapterError, match="wash is in the mix already"):
        mix.add(entry(outputs, "wash"), outputs)
    for number in range(mixture.MOST):
        adapters.write(
            small(), runs.library_folder(outputs) / f"wash-{number}.safetensors", metadata={"modelspec.title": "Wash"}
        )
    for number in range(mixture.MOST - 2):
        mix.add(entry(outputs, f"wash-{number}"), outputs)
    assert len({row.name for row in mix.rows}) == mixture.MOST, "a sheet tells its adapters apart by name"
    with pytest.raises(AdapterError, match="at most 8"):
        mix.add(entry(outputs, f"wash-{mixture.MOST - 1}"), outputs)


def test_what_the_browser_tells_is_taken_over_by_key(mix):
    """A late message of a removed row changes another one's weight, or a forged one ends in a traceback."""
    ink, wash = mix.rows
    mix.remove(ink.key)
    said = mix.weigh(
        [
            {"key": ink.key, "weight": "2"},
            {"key": wash.key, "weight": "9", "blocks": {"down_blocks.0": "0.5", "mid_block": "1", "nonsense": "3"}},
        ]
    )
    assert (
        wash.weight == 2.0
        and wash.factors == {"down_blocks.0": 0.5}
        and len(said) == 1
        and "wash: 9 is out of range" in said[0]
    )
    for forged in (None, "x", [None, 1, {}], [{"key": wash.key, "weight": {}, "blocks": []}]):
        mix.weigh(forged)
    assert wash.weight == 2.0


@pytest.mark.fault(20, 33)
def test_rows_show_names_as_text(mix):
    """An adapter from the net runs as a script when it is added."""
    html = rows.html(mix, "")
    assert EVIL not in html and "&lt;img" in html and 'data-act="trigger"' in html
    assert html.count('class="ingredient"') == 2 and html.count('data-block="down_blocks.0"') == 2
    assert "Nothing &lt;yet&gt;" in rows.html(Mix(), "Nothing <yet>")


def test_what_is_drawn_is_the_mix(mix):
    """The preview leaves out a weight, a block or the seed."""
    mix.rows[0].weight, mix.rows[0].factors = -0.5, {"mid_block": 0.0}
    order = image_specs.mixed(
        mix, SCENE._replace(seed=7, prompt=" cat ", negative="fog", base_read={"prediction": "v"}), None
    )
    first, second = order.adapters
    assert (first.path, first.weight, first.blocks) == (
        mix.rows[0].path,
        -0.5,
        {"mid_block": 0.0},
    ) and second.weight == 1.0
    assert (order.prompt, order.negative, order.seed, order.steps, order.guidance, order.base) == (
        "cat",
        "fog",
        7,
        20,
        5.0,
        "starter",
    ) and order.first
    plain = image_specs.plain(mix, SCENE)
    assert plain.adapters == () and plain.seed == 1
    assert (order.prediction, plain.prediction) == ("v", "auto")


@pytest.mark.parametrize(("change", "field"), [
    ({"seed": None}, "^Seed must"), ({"seed": -1}, "from 0 to 2,147,483,647"), ({"steps": 0}, "^Steps must"),
    ({"steps": 2.5}, "whole"), ({"guidance": float("nan")}, "Guidance"),
])  # fmt: skip
def test_a_senseless_number_is_named(mix, change, field):
    with pytest.raises(SettingsError, match=field):
        image_specs.mixed(mix, SCENE._replace(**change), None)


def test_no_base_model_says_which_kind_is_needed(mix):
    with pytest.raises(ModelError, match="made for the built-in starter"):
        image_specs.mixed(mix, SCENE._replace(base=""), None)


def test_only_base_models_that_fit_are_offered(outputs):
    """The starter is offered for an SDXL adapter."""
    assert (
        base_reading.bases(outputs, "starter") == base_reading.bases(outputs, "") == [("Built-in starter", "starter")]
    )
    assert base_reading.bases(outputs, "sdxl") == []
    run = runs.create(Settings(data="x", name="wide", base="/models/big.safetensors"), outputs)
    adapters.write(adapters.read(entry(outputs, "wide").path), run.adapter_file)
    assert base_reading.bases(outputs, "sdxl") == [("big.safetensors", "/models/big.safetensors")]


RUN = {"base": "/models/unet.safetensors", "vae": "/models/vae.safetensors", "text_encoders": ["/a", "/b"],
       "prediction": "v", "zero_snr": "off", "flow_shift": 3.0, "clip_skip": 2}  # fmt: skip
READ = {key: value for key, value in RUN.items() if key != "base"}


def trained(outputs, name, adapter, **settings) -> str:
    """A run with an adapter; the adapter's key."""
    run = runs.create(Settings(data="x", name=name, **settings), outputs)
    adapters.write(adapter, run.adapter_file)
    return cards.key(entry(outputs, name), outputs)


def test_the_base_model_is_read_as_in_the_run_that_it_is_taken_from(outputs):
    """A run's adapter is drawn with another VAE, without its noise, or not at all."""
    made = Mix()
    made.add(entry(outputs, "ink"), outputs)
    key = trained(outputs, "anime", small(), **RUN)
    assert base_reading.reading(RUN["base"], made, outputs) == {
        key: value for key, value in READ.items() if key != "clip_skip"
    }
    assert base_reading.reading("/models/other.safetensors", made, outputs) == {}
    made.add(entry(outputs, "anime"), outputs)
    assert key in [row.key for row in made.rows]
    trained(outputs, "later", small(), **RUN | {"prediction": "auto", "vae": ""})
    assert base_reading.reading(RUN["base"], made, outputs) == READ, "its own run comes before the latest one"
    spec = image_specs.mixed(made, SCENE._replace(base=RUN["base"], base_read=READ), None)
    assert spec.model_dump(include=set(RUN)) == RUN | {"text_encoders": ("/a", "/b")}


@pytest.mark.parametrize(("fields", "said"), [
    ({"clip_skip": 3}, "Clip skip"), ({"clip_skip": None}, "Clip skip"), ({"flow_shift": -1.0}, "Flow shift"),
    ({"vae": 5}, "VAE"), ({"text_encoders": {}}, "Text encoders"), ({"prediction": "noise"}, "Prediction"),
])  # fmt: skip
def test_a_senseless_setting_of_the_base_model_is_named(fields, said):
    with pytest.raises(SettingsError, match=said):
        base_reading.read_from(fields)


def test_fields_of_the_base_model_are_read_as_settings(tmp_path):
    """A pasted path in quotes is not found, or an empty line is a file."""
    (tmp_path / "v.safetensors").touch()
    typed = {"vae": f'"{tmp_path}/v.safetensors"', "text_encoders": "a\n\n b ", "clip_skip": 1.0, "zero_snr": "auto"}
    read = {"vae": str(tmp_path / "v.safetensors"), "text_encoders": ["a", "b"], "clip_skip": 1}
    assert base_reading.read_from(typed) == base_reading.read_from(read) == read


def test_the_image_without_adapters_is_read_as_with_them(outputs):
    """The two images differ by the clip skip too, which is no doing of the adapter."""
    headers = {"two": {"ss_clip_skip": "2"}, "none": {}, "one": {"ss_clip_skip": "1"}}
    made, skips = Mix(), []
    for name, metadata in headers.items():
        adapters.write(small(), runs.library_folder(outputs) / f"{name}.safetensors", metadata=metadata)
        made.add(entry(outputs, name), outputs)
        skips.append(image_specs.plain(made, SCENE).clip_skip)
    assert skips == [2, 2, 0] and image_specs.plain(made, SCENE._replace(base_read={"clip_skip": 1})).clip_skip == 1


def test_the_sum_needs_no_blending_and_the_rest_is_bounded():
    """Every move of a slider blends anew; or a rank of half a million is asked for."""
    assert image_specs.blending(EXACT) is None and image_specs.blending(ChosenBlend("exact", {"rank": None})) is None
    assert image_specs.blending(ChosenBlend("exact", {"rank": 4})) == Blending(method="exact", rank=4)
    assert image_specs.blending(ChosenBlend("svd", {"rank": 0})) == Blending(method="svd")
    drawn = image_specs.blending(ChosenBlend("dare", {"rank": 0, "density": 0.3, "seed": None}))
    assert drawn == Blending(method="dare", parameters={"density": 0.3, "seed": 0})
    for method, wrong in (
        ("svd", {"rank": -1}),
        ("svd", {"rank": 5000}),
        ("svd", {"rank": 1.5}),
        ("ties", {"density": 0.0}),
        ("dare", {"seed": -3}),
    ):
        with pytest.raises(SettingsError, match="must be a"):
            image_specs.blending(ChosenBlend(method, wrong))


def test_what_is_to_be_known_of_the_base_model_is_said_below_images_and_sheets():
    """A base model's doubtful noise or unread tensors are said on the command line alone."""
    answer = Answer(kind="drawn", path="/a.png", base="It predicts: v.", notices=(f"It holds {EVIL}.",))
    for said in (figures.caption(answer, SCENE), figures.sheet(answer, "strip")):
        assert "It predicts: v." in said and "It holds &lt;img" in said and 'class="notice warned"' in said


def test_what_blending_costs_is_told_in_words(mix):
    """The residual is known only when the file is there."""
    mix.rows[1].weight = 0.0
    total = figures.cost(mix, None)
    assert "nothing is lost" in total and f"rank {mix.rows[0].rank}" in total
    told = figures.cost(mix, Answer(kind="drawn", rank=4, size=250_000, residual=0.2))
    assert "rank 4" in told and "250 KB" in told and "keeps 96.0 %" in told and "0.2000" in told


def test_sheets_cross_the_mix(mix):
    """A sheet varies another adapter than its label says, or draws the same one both ways."""
    ink, wash = mix.rows
    wash.factors = {"mid_block": 0.5}
    strip = image_specs.sheet(mix, SCENE, [wash.key], Spread(-1.0, 1.0, 5))
    assert strip.across == Axis("weight", (-1.0, -0.5, 0.0, 0.5, 1.0), "wash, own blocks") and strip.down is None
    assert strip.adapters[1].name == "wash, own blocks", "the recipe of a sheet tells no blocks"
    grid = image_specs.sheet(mix, SCENE, [ink.key, wash.key], Spread(0.0, 1.0, 3))
    assert [axis.subject for axis in (grid.across, grid.down)] == [one.name for one in grid.adapters]
    bad_names = [[None], [ink.key, ink.key], ["gone"]]
    bad_weights = [(0, 3, 3), (1, 1, 3), (None, 1, 3), (0, 1, 1), (0, 1, None)]
    senseless = [(names, (0, 1, 3)) for names in bad_names] + [([ink.key], weights) for weights in bad_weights]
    for names, weights in [*senseless, ([ink.key, wash.key], (0, 1, 12))]:
        with pytest.raises(SettingsError):
            image_specs.sheet(mix, SCENE, names, Spread(*weights))


def test_what_is_saved_is_what_is_seen(mix):
    """The command blends with other weights, blocks or another rank than the preview."""
    mix.rows[0].weight, mix.rows[1].factors = -0.25, {"down_blocks.0": 0.5}
    ink, wash, *options = saving.arguments(mix, ChosenBlend("ties", {"rank": 8, "density": 0.3}))
    assert parse_adapter(ink) == (Path(mix.rows[0].path), -0.25) and parse_adapter(wash)[1] == 1.0
    assert options == [
        "--method",
        "ties",
        "--rank",
        "8",
        "--density",
        "0.3",
        "--block",
        "2:down_blocks.0=0.5",
    ]
    assert ingredients.parse_blocks(options[-1:], 2) == [{}, {"down_blocks.0": 0.5}]
    assert saving.arguments(mix, EXACT)[2:4] == ["--method", "exact"]
    with pytest.raises(AdapterError, match="nothing to save"):
        saving.arguments(Mix(), EXACT)


@pytest.mark.fault(62)
@pytest.mark.parametrize("name", ["../../evil", "wash", "", "CON", 'a/b:"c"'])
def test_a_saved_mix_never_leaves_the_library_nor_overwrites(mix, outputs, monkeypatch, name):
    """A name with a path in it writes elsewhere, or an earlier mix is lost."""
    asked = []

    def run(command, *arguments):
        asked.append(Path(arguments[-1]))
        return {"rank": 8, "size": 1000, "residual": 0.0, "notices": [], "proof": []}

    monkeypatch.setattr(saving.command, "run", run)
    html = saving.save(mix, EXACT, name, outputs)
    assert asked[0].parent == runs.library_folder(outputs) and not asked[0].exists()
    assert f"#library/library/{asked[0].name}" in html or "%" in html
    assert EVIL not in html
    if name == 'a/b:"c"':
        assert asked[0].name == "a-b-c.safetensors"


def test_a_blend_is_taken_apart(mix, outputs):
    """A mix that was saved cannot be changed any more."""
    wash = entry(outputs, "wash")
    own = adapters.header(Path(wash.path)).metadata["sshs_model_hash"]
    made = recipe.blend(
        ingredients=[
            {"name": "renamed since", "weight": 0.5, "sha256": own, "blocks": {"mid_block": 0.0}},
            {"name": "ink", "weight": 1.0},
        ],
        method="subtract",
    )
    adapters.write(
        small(),
        runs.library_folder(outputs) / "both.safetensors",
        metadata={recipe.KEY: recipe.dumps(made), "modelspec.title": "Both"},
    )
    one = Mix()
    one.add(entry(outputs, "both"), outputs, weight=-1.0)
    assert 'data-act="apart"' in rows.html(one, "")
    assert mixture.apart(one, one.rows[0].key, outputs) == made
    assert (
        [(Path(row.path).stem, row.weight) for row in one.rows][1] == ("ink", 1.0)
        and one.rows[0].weight == -0.5
        and one.rows[0].factors == {"mid_block": 0.0}
    )
    with pytest.raises(AdapterError, match="not a blend"):
        mixture.apart(one, one.rows[0].key, outputs)


@pytest.mark.parametrize("method", [method for method in METHODS.values() if not method.subtracts])
def test_a_saved_blend_opens_again_as_it_was_made(page, mix, outputs, method):
    """It is blended anew with the defaults, or without its weights by block."""
    parameters = {one.key: int(one.high) if one.whole else one.high / 4 for one in method.parameters}
    blocks = [{"mid_block": 0.25}, {}]
    named = zip(mix.rows, (0.5, 0.75), blocks, strict=True)
    ingredients = [{"name": Path(row.path).stem, "weight": weight, "blocks": own} for row, weight, own in named]
    made = recipe.blend(method=method.key, ingredients=ingredients, rank=3, **parameters)
    blended = blend.blend(made, [adapters.read(row.path) for row in mix.rows])
    adapters.write(blended.adapter, runs.library_folder(outputs) / "both.safetensors")
    one = Mix()
    one.add(entry(outputs, "both"), outputs)
    changed = acted(page, one, act="apart", key=one.rows[0].key)
    assert [(row.weight, row.factors) for row in one.rows] == [(0.5, blocks[0]), (0.75, {})]
    form = page.blend
    assert changed[form.method] == method.key
    assert {key: changed[form.parameters[key]] for key in ("rank", *parameters)} == {"rank": 3, **parameters}
    typed = {field: field.value for field in form.inputs} | {field: changed.get(field) for field in form.inputs}
    assert saving.arguments(one, form.chosen(typed))[2:] == [
        *("--method", method.key, "--rank", "3"),
        *(word for key, value in parameters.items() for word in (f"--{key}", str(value))),
        *("--block", "1:mid_block=0.25"),
    ]


def test_a_blend_whose_parts_are_gone_says_which(outputs):
    made = recipe.blend(ingredients=[{"name": EVIL, "sha256": "0" * 64}])
    adapters.write(
        small(),
        runs.library_folder(outputs) / "both.safetensors",
        metadata={recipe.KEY: recipe.dumps(made), "modelspec.title": "Both"},
    )
    one = Mix()
    one.add(entry(outputs, "both"), outputs)
    with pytest.raises(AdapterError, match="which the library does not have"):
        mixture.apart(one, one.rows[0].key, outputs)
    assert len(one.rows) == 1


# The page's handlers, with a renderer that the test plays.


class Played:
    """Answers as the renderer would, or as it is told to."""

    def __init__(self, folder):
        self.folder, self.asked, self.wrong = folder, [], None
        self.meanwhile = lambda: None
        self.waits = lambda: False

    def draw(self, order, lane):
        self.asked.append((order, lane))
        if self.wrong:
            raise self.wrong
        for steps in (6, 20) if order.adapters else (20,):
            self.meanwhile()
            yield Answer(
                kind="drawn",
                path=str(self.folder / f"{lane}-{steps}.png"),
                steps=steps,
                seconds=1.0,
                last=steps == 20,
                rank=4,
                size=1000,
                residual=0.1,
            )


@pytest.fixture
def page(outputs):
    with gr.Blocks():
        made = MixPage(outputs, Renderer(outputs, outputs / "drawn"), gr.BrowserState({}))
    made.drawing.renderer = Played(outputs)
    return made


def values(page, mix, **changed):
    """The page's fields as they are at first, but for those ``changed`` by name."""
    fields = page.drawing.inputs | page.sheet.inputs | {page.name}
    typed = {_field(page, name): value for name, value in changed.items()}
    return {field: getattr(field, "value", None) for field in fields} | {page.mix: mix} | typed


def _field(page, name):
    return next(getattr(part, name) for part in (page.scene, page.sheet, page) if hasattr(part, name))


def test_the_rough_picture_comes_first_then_the_good_one_then_the_base(page, mix):
    """The user waits for the slowest picture to see the first."""
    seen = list(page.drawing.draw(values(page, mix)))
    figures, notes = page.drawing.figures, [one[page.note] for one in seen]
    html = [one[figures] for one in seen if isinstance(one.get(figures), str)]
    assert [(one.count("<img"), "-20.png" in one) for one in html] == [(0, False), (1, False), (1, True), (2, True)]
    assert "Drawing" in notes[0] and "20 steps" in notes[-1] and "seed 1" in notes[-1]
    (first, lane), (plain, other) = page.drawing.renderer.asked
    assert len(first.adapters) == 2 and plain.adapters == () and lane != other, (
        "the base model's picture must not drop the mix's"
    )


def test_an_older_turn_shows_nothing_more(page, mix):
    """The picture of an earlier weight comes late and takes the place of the newer one."""
    asked = page.drawing.draw(values(page, mix))
    next(asked)
    next(asked)
    mix.turn += 1
    assert list(asked) == []


def test_what_is_wrong_is_shown_beside_the_last_pictures(page, mix, outputs):
    """A fault empties the page, or waits for a run without saying so."""
    list(page.drawing.draw(values(page, mix)))
    page.drawing.renderer.wrong = RunError(
        "Pictures wait until the run ink has ended.", do="It has the machine to itself."
    )
    seen = list(page.drawing.draw(values(page, mix)))[-1]
    assert seen[page.figures].count("<img") == 2 and "until the run ink has ended" in seen[page.note]
    assert seen[page.drawing.again] == gr.update(active=True)
    page.drawing.renderer.wrong = AdapterError(EVIL, where=EVIL, do=EVIL)
    seen = list(page.drawing.draw(values(page, mix)))[-1]
    assert "wrong" in seen[page.note] and EVIL not in seen[page.note]
    assert seen[page.drawing.again] == gr.update(active=False)
    assert "Seed must be" in list(page.drawing.draw(values(page, mix, seed=None)))[-1][page.note]


def test_a_page_waits_for_the_run_and_then_draws(page, mix):
    """Previews do not come back after training."""
    page.drawing.renderer.waits = lambda: True
    assert list(page.drawing.retry(values(page, mix))) == []
    assert not page.drawing.renderer.asked
    page.drawing.renderer.waits = lambda: False
    assert len(list(page.drawing.retry(values(page, mix)))) > 1 and page.drawing.renderer.asked


def test_the_page_says_with_which_run_it_takes_turns(page, mix, outputs, monkeypatch):
    """Drawing is slow while a run trains, and the page does not say why."""
    monkeypatch.setattr(runner, "active", lambda _: runs.Run(outputs / "ink"))
    notes = [seen[page.note] for seen in page.drawing.draw(values(page, mix)) if isinstance(seen[page.note], str)]
    assert "Drawing… It takes turns with the run ink." in notes[0] and "turns" not in notes[-1]


def test_other_weights_do_not_draw_the_sliders_anew(page, mix):
    """The slider is torn from under the pointer; or a bounded weight is not shown."""

    def told(weight):
        return SimpleNamespace(rows=[{"key": mix.rows[0].key, "weight": weight}])

    first = next(page.weigh(values(page, mix), told("0.3")))
    assert page.adapters.rows not in first and not first[page.adapters.message]["visible"] and mix.rows[0].weight == 0.3
    first = next(page.weigh(values(page, mix), told("11")))
    message = first[page.adapters.message]["value"]
    assert 'value="2"' in first[page.adapters.rows] and "11 is out of range" in message and EVIL not in message


def listed(page, mix, what, text=""):
    """A press on a button of a list; what the browser reports first is as it is."""
    event = SimpleNamespace(rows=mix.draft(), list=what, key=mix.rows[0].key, text=text)
    return next(page.weigh(values(page, mix), event))


def test_lists_of_block_weights_are_pasted_and_copied(page, mix):
    """A1111's lists have to be typed slider by slider; or one that is pasted is lost at the next move of a slider."""
    ink, _ = mix.rows
    shown = listed(page, mix, "use", "STYLE:1,0.5,1,1,1,1,1,0,1,1,1,1,1,1,1,1,5")
    assert ink.factors == {"IN01": 0.5, "M00": 0.0}
    assert 'data-block="IN01"' in shown[page.adapters.rows] and not shown[page.adapters.message]["visible"]
    mix.weigh([{"key": ink.key, "weight": 1, "blocks": {"IN01": "0.75", "IN02": "0", "M00": "1", "BASE": "1"}}])
    assert ink.factors == {"IN01": 0.75, "IN02": 0.0}
    copied = listed(page, mix, "copy")[page.adapters.rows]
    assert 'value="1,0.75,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1" data-copied' in copied and not ink.listed
    assert saving.arguments(mix, EXACT)[-4:] == [
        *("--block", "1:IN01=0.75", "--block", "1:IN02=0"),
    ]
    shown = listed(page, mix, "use", "ALL")
    assert not ink.factors and 'data-block="down_blocks.0"' in shown[page.adapters.rows]


def test_a_list_that_is_none_is_named_and_one_out_of_bounds_is_corrected(page, mix):
    said = listed(page, mix, "use", EVIL)[page.adapters.message]
    assert said["visible"] and "wrong" in said["value"] and EVIL not in said["value"] and not mix.rows[0].factors
    said = listed(page, mix, "use", ",".join(["9"] * 17))[page.adapters.message]["value"]
    assert "9 is out of range" in said and mix.rows[0].factors["IN01"] == 2.0
    mix.rows[0].factors = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1": 0.5}
    assert "A list has one weight for IN01" in listed(page, mix, "copy")[page.adapters.message]["value"]


def acted(page, mix, prompt="cat", **told):
    return page.act(mix, "starter", prompt, SimpleNamespace(**told))


def test_the_buttons_of_a_row(page, mix, outputs):
    """A button acts on another row, or loses what was typed beside it."""
    ink, wash = mix.rows
    assert acted(page, mix, act="trigger", key=wash.key)[page.scene.prompt] == "washstyle, cat"
    assert page.scene.prompt not in acted(page, mix, "washstyle, dog", act="trigger", key=wash.key)
    acted(page, mix, act="remove", key=ink.key, rows=[{"key": wash.key, "weight": "0.4"}])
    assert mix.rows == [wash] and wash.weight == 0.4
    acted(page, mix, key=ink.key)
    acted(page, mix, key=ink.key)
    assert [row.key for row in mix.rows] == [wash.key, ink.key], "an address adds its adapter once"
    assert "This adapter is gone" in acted(page, mix, key="../../etc/passwd")[page.adapters.message]["value"]
    assert "not a blend" in acted(page, mix, act="apart", key=ink.key)[page.adapters.message]["value"]


def test_a_family_brings_its_base_models(page, outputs):
    """The starter stays chosen under an SDXL adapter, and each picture is a refusal."""
    mix = Mix()
    page.add(mix, cards.key(entry(outputs, "wide"), outputs), "starter")
    assert page._list(mix, "starter")[page.scene.base] == gr.update(choices=[], value="")
    assert page._list(mix, "/models/mine.safetensors")[page.scene.base]["value"] == "/models/mine.safetensors"


@pytest.mark.parametrize(("there", "chosen"), [(True, "run"), (False, "starter")])
def test_the_first_adapter_brings_the_base_model_of_its_run(page, outputs, tmp_path, there, chosen):
    """An adapter of a run on one's own model is drawn with the starter; or with a model that is gone."""
    model = tmp_path / "model.safetensors"
    if there:
        model.touch()
    key = trained(outputs, "anime", small(), base=str(model))
    for added in (page.add(Mix(), key, "starter"), page.act(Mix(), "starter", "", SimpleNamespace(key=key))):
        assert added[page.scene.base]["value"] == {"run": str(model), "starter": "starter"}[chosen]


def test_the_fields_of_the_base_model_follow_the_run(page, outputs):
    """The fields tell of another run than the one that is drawn; or what was typed is lost with the next adapter."""
    fields, mix = page.scene.reading.fields, Mix()
    key = trained(outputs, "anime", Adapter({SDXL: factors(SDXL, 1280, 1280)}), **RUN)
    filled = page.add(mix, key, "starter")
    shown = {name: filled[field]["value"] for name, field in fields.items()}
    as_typed = {"text_encoders": "/a\n/b", "flow_shift": "3", "clip_skip": "2"}
    assert filled[page.scene.base]["value"] == RUN["base"] and shown == READ | as_typed
    assert page.act(Mix(), "starter", "", SimpleNamespace(key=key))[page.scene.base]["value"] == RUN["base"]
    assert fields["vae"] not in page.add(mix, cards.key(entry(outputs, "wide"), outputs), RUN["base"])
    other = page.base_form.follow(mix, "/models/other.safetensors")
    assert other[fields["prediction"]]["value"] == "auto" and other[fields["vae"]]["value"] == ""
    assert list(page.base_form.follow(mix, "/models/third.safetensors")) == [page.scene.base]


@pytest.mark.parametrize("forged", [None, 1, {"vae": []}, {"prediction": "x"}, {"text_encoders": 2}])
def test_a_reload_keeps_how_the_base_model_is_read(page, mix, forged):
    typed = dict.fromkeys(page.scene.inputs) | values(page, mix)
    typed[page.scene.reading.fields["text_encoders"]] = "/a\n/b"
    draft = next(page.drawing.draw(typed))[page.draft]
    field = page.scene.reading.fields["text_encoders"]
    assert page.restore(Mix(), draft, "starter")[field]["value"] == "/a\n/b"
    assert field not in page.restore(Mix(), draft | {"base_read": forged}, "starter")


def test_a_reload_keeps_the_mix(page, mix, outputs):
    """Half an hour of weighing is lost with a reload; or what has gone meanwhile takes the rest along."""
    mix.rows[1].weight, mix.rows[1].factors = -0.5, {"mid_block": 0.25}
    draft = next(page.drawing.draw(values(page, mix, prompt="dog", seed=9)))[page.draft]
    Path(mix.rows[0].path).unlink()
    fresh = Mix()
    restored = page.restore(fresh, draft, "starter")
    assert [(row.key, row.weight, row.factors) for row in fresh.rows] == [(mix.rows[1].key, -0.5, {"mid_block": 0.25})]
    assert (restored[page.scene.prompt]["value"], restored[page.scene.seed]["value"]) == ("dog", 9)
    page.restore(fresh, draft, "starter")
    assert len(fresh.rows) == 1, "an adapter that the address named was there before"
    asked = len(page.drawing.renderer.asked)
    assert list(page.drawing.first(values(page, fresh))) and len(page.drawing.renderer.asked) == asked + 2
    assert list(page.drawing.first(values(page, fresh))) == []
    assert len(page.drawing.renderer.asked) == asked + 2, "each visit draws anew"
    for forged in (None, [], {"rows": 1}, {"rows": [None, {"key": 1}]}, {"rows": [{"key": "../x", "weight": "nan"}]}):
        with_nothing = Mix()
        page.restore(with_nothing, forged, "starter")
        assert with_nothing.rows == []


def test_an_empty_mix_says_what_to_do(page):
    [seen] = page.drawing.draw(values(page, Mix()))
    assert "Nothing to see yet" in seen[page.figures] and not page.drawing.renderer.asked


def test_a_sheet_that_cannot_be_drawn_says_why(page, mix):
    chosen = {"kind": "grid", "across": mix.rows[0].key, "down": None, "start": 0.0, "stop": 1.0, "count": 3}
    assert "two different ones" in list(page.drawing.draw_sheet(values(page, mix, **chosen)))[-1]["value"]
    chosen |= {"down": mix.rows[1].key}
    drawn = list(page.drawing.draw_sheet(values(page, mix, **chosen)))[-1]["value"]
    assert "<img" in drawn and "Download" in drawn and EVIL not in drawn


def test_a_saved_mix_is_offered_at_once(page, mix, outputs, monkeypatch):
    """The file is there, and nothing on the page shows it."""

    def run(command, *arguments):
        adapters.write(small(), Path(arguments[-1]), metadata={"modelspec.title": "Mixed"})
        return {
            "rank": 8,
            "size": 1000,
            "residual": 0.1,
            "notices": ["The blend states no clip skip."],
            "proof": [{"target": "comfyui", "passed": True, "matched": 7, "modules": 7, "worst": 0.0, "note": ""}],
        }

    monkeypatch.setattr(saving.command, "run", run)
    _, seen = page.keep(values(page, mix, name="my mix"))
    said, choices = seen[page.saved]["value"], seen[page.adapters.adding]["choices"]
    assert "my-mix.safetensors" in said and "ComfyUI" in said and "residual 0.1" in said
    assert "The blend states no clip skip." in said
    assert "library/my-mix.safetensors" in [key for _, key in choices]


def test_the_fields_of_a_blend_follow_its_method(page):
    """A share is asked for that the method does not have, or a hidden field reaches the blend."""
    blend = page.blend
    updates = blend.show("dare").items()
    visible = {field.elem_id for field, update in updates if field != blend.about and update["visible"]}
    assert visible == {"blend-rank", "blend-density", "blend-seed"}
    assert blend.show("svd")[blend.parameters["density"]] == gr.update(visible=False)
    filled = {blend.method: "ties", **dict.fromkeys(blend.parameters.values(), 0.25)}
    assert blend.chosen(filled) == ChosenBlend("ties", {"rank": 0.25, "density": 0.25})
    offered = [key for _, key in blend.method.choices]
    assert "svd" in offered and "subtract" not in offered, "here a negative weight subtracts"

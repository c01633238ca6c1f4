"""The process that draws on request: the real one with the starter on the CPU, and small fake ones for what may befall
it.
"""

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_studio import adapters, files, models, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, RunError, StudioError
from lora_studio.jobs import forming, renderer, renderer_worker, runner
from lora_studio.jobs.answering import Drawer, answer
from lora_studio.jobs.image_spec import Blending, ImageSpec, Placed, RoundTrip
from lora_studio.jobs.inbox import Inbox
from lora_studio.jobs.renderer import Answer, ImageRequest, Renderer
from lora_studio.jobs.renderer_worker import Studio, main
from lora_studio.jobs.turns import RunTurns
from lora_studio.models import inject
from lora_studio.models.distilled import Distilled, by_name
from lora_studio.models.load import load
from lora_studio.sampling import replay, shortcuts
from lora_studio.sampling.axes import Axis
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import FromImage, Hires, ImageSettings
from lora_studio.sampling.recipe import read_recipe
from lora_studio.training import beside, threads
from lora_studio.training.beside import Drawing
from tests.jobs.conftest import wait_until
from tests.models import tiny
from tests.ui.played import Part
from tests.ui.small_adapters import small_adapter

FEW = {"prompt": "a cat", "steps": 2, "guidance": 1.0}


@pytest.fixture(scope="module")
def base():
    return models.load("starter")


@pytest.fixture(scope="module")
def pair(base, tmp_path_factory):
    """Two adapters of the starter as files."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        adapters.write(small_adapter(base, seed), folder / f"{name}.safetensors")
        for seed, name in enumerate(("one", "two"))
    ]


@pytest.fixture
def studio(base, monkeypatch):
    """A studio that finds its base model in memory."""
    monkeypatch.setattr(models, "load", lambda *_, **__: base)
    monkeypatch.setattr(threads, "fastest", lambda *_: 1)  # it sets the number for the tests that follow as well
    yield Studio(lambda answer: None)
    inject.unload_adapters(base)


def placed(pair, *weights, **more):
    return tuple(
        Placed(path=str(path), weight=weight, name=path.stem, **more)
        for path, weight in zip(pair, weights, strict=False)
    )


def said(studio, order, to, cancelled=lambda: False) -> list[Answer]:
    answers = []
    studio.say = answers.append
    answer(studio, ImageRequest(id=1, lane="a", spec=order, to=str(to)), cancelled)
    return answers


def drawn(studio, order, to, cancelled=lambda: False) -> list[Answer]:
    return [one for one in said(studio, order, to, cancelled) if one.kind != "loading"]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def expected(base, pair, *weights, steps=2) -> np.ndarray:
    """What ``generate`` draws by itself."""
    inject.load_adapters(base, [(adapters.read(path), weight) for path, weight in zip(pair, weights, strict=False)])
    picture = generate(base, ["a cat"], [1], ImageSettings(steps=steps, guidance=1.0))[0]
    inject.unload_adapters(base)
    return np.asarray(picture, int)


def test_a_picture_is_the_one_that_generate_draws(studio, base, pair, tmp_path):
    """The preview shows something else than the adapters give at these weights."""
    first, second = (expected(base, pair, *weights) for weights in ((0.5, -0.5), (1.0, 0.25)))
    for weights, wanted in (((0.5, -0.5), first), ((1.0, 0.25), second)):
        [answer] = drawn(studio, ImageSpec(adapters=placed(pair, *weights), **FEW), tmp_path / "mix.png")
        assert answer.kind == "drawn" and answer.last and answer.steps == 2
        assert np.abs(pixels(answer.path) - wanted).max() <= 1
    assert np.abs(first - second).max() > 8


def test_it_says_when_it_loads_a_base_model(studio, tmp_path):
    """The page seems to hang while gigabytes are read."""
    first, second = (said(studio, ImageSpec(**FEW), tmp_path / "a.png") for _ in range(2))
    assert [(one.kind, one.last) for one in first] == [("loading", False), ("drawn", True)]
    assert [one.kind for one in second] == ["drawn"]


def test_a_prediction_by_hand_draws_another_image(studio, tmp_path, monkeypatch):
    """The base model in memory would stay as it was loaded."""
    monkeypatch.setattr(models, "load", load)
    paths = [tmp_path / f"{name}.png" for name in ("auto", "epsilon")]
    for path, name in zip(paths, ("auto", "epsilon"), strict=True):
        spec = ImageSpec(prediction=name, **FEW)
        assert drawn(studio, spec, path)[0].kind == "drawn"
        assert studio.models.base(spec).process.name == ("v" if name == "auto" else name)
    assert np.abs(pixels(paths[0]) - pixels(paths[1])).max() > 8


def test_a_base_model_in_several_files_is_loaded_with_all_of_them(studio, tmp_path, monkeypatch):
    """The page refuses a model that a run was trained on; or the model in memory keeps the VAE of an earlier image."""
    monkeypatch.setattr(models, "load", load)
    half, whole, other = (
        str(tiny.checkpoint(tmp_path / f"{name}.safetensors", "sd1", seed=seed, drop=drop))
        for name, seed, drop in (("half", 0, "first_stage_model."), ("whole", 0, ""), ("other", 1, ""))
    )
    [answer] = drawn(studio, ImageSpec(base=half, **FEW), tmp_path / "a.png")
    assert answer.kind == "wrong" and answer.what.endswith("but not the VAE.") and "as vae" in answer.do
    small = {**FEW, "steps": 1, "width": 64, "height": 64}
    specs = [
        ImageSpec(base=half, vae=vae, text_encoders=more, **small) for vae, more in ((other, ()), (whole, (other,)))
    ]
    given = [[str(path) for path in studio.models.base(spec).given.files] for spec in specs]
    assert given == [[other], [whole, other]]
    adapter = adapters.write(small_adapter(studio.models.base(specs[1]), 0), tmp_path / "a.safetensors")
    sheet = {"adapters": placed([adapter], 1), "across": Axis("weight", (0,), "a")}
    [answer] = drawn(studio, specs[1].model_copy(update=sheet), tmp_path / "sheet.png")
    recipe = read_recipe(answer.path)
    assert recipe.parts == {Path(path).name: files.sha256(Path(path)) for path in (whole, other)}
    assert recipe.base_sha256 == files.sha256(Path(half))


def test_another_clip_skip_draws_another_image_and_loads_nothing(studio, base, tmp_path, monkeypatch):
    """The setting is ignored; or each change reads gigabytes; or a family without one takes it."""
    images = [drawn(studio, ImageSpec(clip_skip=skip, **FEW), tmp_path / f"{skip}.png")[0].path for skip in (0, 2)]
    assert base.clip_skip == 2 and (pixels(images[0]) != pixels(images[1])).any()
    answers = said(studio, ImageSpec(clip_skip=1, **FEW), tmp_path / "a.png")
    assert [one.kind for one in answers] == ["drawn"] and base.clip_skip == 1
    monkeypatch.setattr(type(base.family), "clip_skips", ())
    [answer] = drawn(studio, ImageSpec(clip_skip=2, **FEW), tmp_path / "b.png")
    assert answer.kind == "wrong" and "has no clip skip 2" in answer.what


def test_what_is_known_of_the_base_model_is_answered(studio, base, tmp_path, monkeypatch):
    """The page says nothing of a model that draws with other steps than its fields show."""
    monkeypatch.setattr(base, "distilled", Distilled(by_name("ink_lightning_2step"), "its name says so"))
    [answer] = drawn(studio, ImageSpec(prompt="a cat AND a dog"), tmp_path / "fast.png")
    assert answer.steps == 2 and answer.base.endswith("It predicts: Velocity (v) – its scheduler's configuration.")
    plain, notice = answer.notices
    assert plain.startswith("In prompts the studio reads AND as plain words")
    assert notice.startswith("Images of this distilled model are drawn with 2 steps and guidance 1 instead of 20 steps")


def test_new_weights_load_nothing(studio, pair, tmp_path, monkeypatch):
    """Every move of a slider reads the files again; or a file that was written anew is not."""
    drawn(studio, ImageSpec(adapters=placed(pair, 1, 1), **FEW), tmp_path / "a.png")
    monkeypatch.setattr(adapters, "read", lambda path: pytest.fail(f"{path} was read again"))
    loaded = studio.models.base(ImageSpec(**FEW)).loaded
    assert drawn(studio, ImageSpec(adapters=placed(pair, 0.3, 1), **FEW), tmp_path / "b.png")[0].kind == "drawn"
    assert studio.models.base(ImageSpec(**FEW)).loaded is loaded
    assert (
        drawn(studio, ImageSpec(**FEW), tmp_path / "c.png")[0].kind == "drawn"
        and studio.models.base(ImageSpec(**FEW)).loaded is None
    )


def test_what_costs_memory_is_kept_while_it_is_alone_and_dropped_with_the_model(studio, base, tmp_path, monkeypatch):
    """A run is short of memory for recordings that can be made again; or two base models' are kept."""
    told = []
    monkeypatch.setattr(shortcuts, "take", lambda base: told.append("take"))
    monkeypatch.setattr(shortcuts, "save_memory", lambda base: told.append("save"))
    studio.share(alone=False)
    drawn(studio, ImageSpec(**FEW), tmp_path / "a.png")
    studio.share(alone=True)
    assert told == ["save", "take"]
    drawn(studio, ImageSpec(prediction="epsilon", **FEW), tmp_path / "b.png")
    assert told == ["save", "take", "save", "take"]


@pytest.mark.fault(106)
def test_steps_that_cannot_be_recorded_are_told_once(studio, base, tmp_path, monkeypatch):
    class Failing:
        def __call__(self, work):
            raise RuntimeError("operation not permitted")

    monkeypatch.setattr(shortcuts, "take", lambda base: replay.enable(base, Failing))
    first, second = (drawn(studio, ImageSpec(**FEW), tmp_path / f"{name}.png")[-1] for name in "ab")
    replay.disable(base)
    assert any("could not be recorded as a CUDA graph: operation not permitted." in one for one in first.notices)
    assert not any("recorded" in one for one in second.notices)


def test_a_rough_picture_comes_first_and_costs_no_steps(studio, base, pair, tmp_path, monkeypatch):
    """On a slow machine nothing moves for seconds after a change; or a picture of few steps shows something else."""
    steps, predict = [], type(base).predict
    monkeypatch.setattr(type(base), "predict", lambda *given: steps.append(1) or predict(*given))
    order = ImageSpec(adapters=placed(pair, 1), **{**FEW, "steps": 8}, first=6)
    rough, good = drawn(studio, order, tmp_path / "mix.png")
    assert (rough.steps, rough.last, good.steps, good.last) == (6, False, 8, True) and len(steps) == 8
    assert rough.path != good.path and pixels(rough.path).shape == pixels(good.path).shape == (128, 128, 3)
    assert np.abs(pixels(rough.path) - pixels(good.path)).mean() < 24


def test_several_pictures_of_one_spec_are_those_of_their_seeds(studio, base, tmp_path):
    """All of them are the first one's seed, or one overwrites the other."""
    [answer] = drawn(studio, ImageSpec(count=3, seed=1, **FEW), tmp_path / "a.png")
    assert [Path(path).name for path in answer.paths] == ["a.png", "a-2.png", "a-3.png"] and answer.path.endswith(
        "a.png"
    )
    alone = generate(base, ["a cat"], [3], ImageSettings(steps=2, guidance=1.0))[0]
    assert np.abs(pixels(answer.paths[2]) - np.asarray(alone, int)).max() <= 1
    rough, good = drawn(studio, ImageSpec(count=2, first=1, seed=5, **FEW), tmp_path / "b.png")
    assert [Path(path).name for path in rough.paths] == ["b-first.png", "b-first-2.png"] and len(good.paths) == 2


def test_a_second_pass_makes_it_larger_and_the_rough_picture_goes_without(studio, tmp_path):
    order = ImageSpec(hires=Hires(scale=1.5), first=1, **FEW)
    rough, good = drawn(studio, order, tmp_path / "a.png")
    assert pixels(rough.path).shape == (128, 128, 3) and pixels(good.path).shape == (192, 192, 3)


def test_a_picture_is_drawn_over(studio, tmp_path):
    path = tmp_path / "start.png"
    Image.new("RGB", (128, 128), "teal").save(path)
    start = FromImage(path=str(path), sha256=files.sha256(path), strength=0.0)
    order = ImageSpec(start=start, **FEW)
    [kept] = drawn(studio, order, tmp_path / "a.png")
    assert np.abs(pixels(kept.path) - (0, 128, 128)).mean() < 8
    changed = order.model_copy(update={"start": start.model_copy(update={"sha256": "0"})})
    [refused] = drawn(studio, changed, tmp_path / "b.png")
    assert refused.kind == "wrong" and "has changed" in refused.what and changed.key() != order.key()


def test_a_picture_is_seen_while_it_forms(studio, tmp_path, monkeypatch):
    """Nothing moves for the minutes that a large picture takes; or rough files stay for ever."""
    monkeypatch.setattr(forming, "EVERY", 0.0)
    shapes = []
    order = ImageSpec(forming=True, **{**FEW, "steps": 4})
    seen = []
    studio.say = lambda answer: (seen.append(answer), answer.path and shapes.append(pixels(answer.path).shape))
    answer(studio, ImageRequest(id=1, lane="a", spec=order, to=str(tmp_path / "a.png")), lambda: False)
    assert [(one.kind, one.step, one.steps, one.last) for one in seen if one.kind != "loading"] == [
        *(("forming", step, 4, False) for step in (1, 2, 3)),
        ("drawn", 0, 4, True),
    ]
    assert shapes == [(16, 16, 3)] * 3 + [(128, 128, 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and order.key() == ImageSpec(
        **{**FEW, "steps": 4}
    ).key()


def test_blocks_are_weighted_apart(studio, base, pair, tmp_path):
    """A block's slider moves and the picture stays; or factor 0 leaves a rest."""
    everything = keys_of(pair[0])
    [off] = drawn(
        studio, ImageSpec(adapters=placed(pair, 1, blocks=dict.fromkeys(everything, 0.0)), **FEW), tmp_path / "off.png"
    )
    assert np.abs(pixels(off.path) - expected(base, [])).max() <= 1
    [part] = drawn(
        studio, ImageSpec(adapters=placed(pair, 1, blocks={"up_blocks.1": 0.0}), **FEW), tmp_path / "part.png"
    )
    assert np.abs(pixels(part.path) - pixels(off.path)).max() > 8
    assert np.abs(pixels(part.path) - expected(base, pair, 1)).max() > 1


def keys_of(path) -> list[str]:
    from lora_studio.adapters import block_names

    return sorted({block_names.block_of(one) for one in adapters.read(path).factors})


def test_a_blend_is_drawn_as_it_would_be_saved_and_tells_what_it_costs(studio, base, pair, tmp_path):
    """The residual is known only after saving, or the preview shows the sum instead of the blend."""
    [answer] = drawn(
        studio,
        ImageSpec(adapters=placed(pair, 1, 1), blending=Blending(method="svd", rank=2), **FEW),
        tmp_path / "svd.png",
    )
    assert answer.rank == 2 and 0 < answer.residual < 1 and answer.size > 10_000
    assert np.abs(pixels(answer.path) - expected(base, pair, 1, 1)).max() > 1
    [whole] = drawn(
        studio, ImageSpec(adapters=placed(pair, 1, 1), blending=Blending(method="exact"), **FEW), tmp_path / "exact.png"
    )
    assert whole.residual == 0 and whole.rank == 8
    assert np.abs(pixels(whole.path) - expected(base, pair, 1, 1)).max() <= 2


def test_a_sheet_carries_its_recipe(studio, pair, tmp_path):
    """The sheet has no labels, or cannot be drawn again."""
    order = ImageSpec(
        adapters=placed(pair, 1, 1),
        across=Axis("weight", (0, 1), "one"),
        down=Axis("weight", (0, 0.5), "two"),
        **FEW,
    )
    [answer] = drawn(studio, order, tmp_path / "sheet.png")
    recipe = read_recipe(answer.path)
    assert recipe.x.labels == ["one 0", "one 1"] and recipe.y.labels == ["two 0", "two 0.5"] and recipe.base_sha256
    assert pixels(answer.path).shape[0] > 256 < pixels(answer.path).shape[1]


@pytest.mark.fault(73)
def test_a_picture_of_a_dataset_comes_back_through_the_vae(studio, tmp_path, monkeypatch):
    """It needs the whole base model, or another crop counts as the same image."""
    monkeypatch.setattr(models, "load", None)
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100), "teal").save(path)
    asked = RoundTrip(picture=str(path), sha256=files.sha256(path), bucket=(128, 64))
    (answer,) = drawn(studio, asked, tmp_path / "seen.png")
    assert answer.kind == "drawn" and pixels(answer.path).shape == (64, 128, 3)
    assert asked.key() != asked.model_copy(update={"crop": (0.0, 0.0, 0.5, 1.0)}).key()
    (answer,) = drawn(studio, asked.model_copy(update={"sha256": "0"}), tmp_path / "other.png")
    assert answer.kind == "wrong" and "changed" in answer.what


def test_what_is_wrong_is_answered_and_the_next_order_is_drawn(studio, pair, tmp_path, monkeypatch, capfd):
    """A missing file, a full GPU or a fault of the studio's ends the process."""
    [gone] = drawn(
        studio, ImageSpec(adapters=(Placed(path=str(tmp_path / "gone.safetensors")),), **FEW), tmp_path / "a.png"
    )
    assert gone.kind == "wrong" and "gone.safetensors is gone" in gone.what and gone.do
    with monkeypatch.context() as patch:
        for error in (
            torch.OutOfMemoryError(),
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ):
            patch.setattr(studio, "_pictures", raising(error))
            [full] = drawn(studio, ImageSpec(**FEW), tmp_path / "b.png")
            assert full.kind == "wrong" and "does not fit in memory" in full.what and full.do
        assert "Traceback" not in capfd.readouterr().err
        patch.setattr(studio, "_pictures", lambda *_: [b"a picture"])
        (tmp_path / "file").touch()
        [refused] = drawn(studio, ImageSpec(**FEW), tmp_path / "file" / "b.png")
        assert refused.kind == "wrong" and "cannot be saved" in refused.what and refused.do
        patch.setattr(studio, "_pictures", raising(ZeroDivisionError("one by none")))
        [fault] = drawn(studio, ImageSpec(**FEW), tmp_path / "c.png")
        assert fault.kind == "wrong" and "one by none" in fault.what and "ZeroDivisionError" in capfd.readouterr().err
    assert drawn(studio, ImageSpec(**FEW), tmp_path / "d.png")[0].kind == "drawn"


def raising(error):
    def act(*_, **__):
        raise error

    return act


def test_a_picture_that_nobody_wants_is_left_between_two_steps(studio, tmp_path):
    """An old picture is finished while the new one waits."""
    asked = iter([False, False, True])
    [answer] = drawn(studio, ImageSpec(**{**FEW, "steps": 20}), tmp_path / "old.png", lambda: next(asked))
    assert answer.kind == "dropped" and not (tmp_path / "old.png").exists()


def test_the_newest_order_of_a_lane_wins():
    """Every stop of a moved slider is drawn in turn; or one tab's picture drops another's."""
    inbox = Inbox()
    first, second, other = (
        ImageRequest(id=i, lane=lane, spec=ImageSpec(prompt="p"), to="x") for i, lane in enumerate(("a", "a", "b"))
    )
    assert inbox.put(first) is None and inbox.put(other) is None
    assert inbox.put(second) is first
    assert inbox.take(0) is other and not inbox.superseded(other)
    assert inbox.superseded(first) and inbox.take(0) is second and not inbox.superseded(second)
    assert inbox.take(0) is None
    inbox.put(first)
    inbox.close()
    assert inbox.take(0) is None and inbox.superseded(other)


def test_a_cancelled_lane_alone_is_left():
    """The next request of the lane is dropped as well; or that of another tab."""
    inbox, spec = Inbox(), ImageSpec(prompt="p")
    first, second, other = (ImageRequest(id=i, lane=lane, spec=spec, to="x") for i, lane in enumerate("aab"))
    inbox.put(first)
    assert inbox.cancel("a") is first and inbox.take(0) is None
    inbox.put(first)
    assert inbox.take(0) is first and inbox.cancel("b") is None and not inbox.superseded(first)
    assert inbox.cancel("a") is None and inbox.superseded(first)
    inbox.put(second)
    inbox.put(other)
    assert inbox.take(0) is second and not inbox.superseded(second) and inbox.take(0) is other


def test_a_closed_input_or_a_quiet_time_ends_the_process(tmp_path, monkeypatch):
    """A process stays in memory after the page has gone."""
    voice = io.BytesIO()
    assert main(str(tmp_path), io.BytesIO(b"no request\n"), voice) == 0 and voice.getvalue() == b""
    monkeypatch.setattr(renderer_worker, "IDLE", 0.05)
    monkeypatch.setattr(renderer_worker, "LOOK", 0.02)
    forever = threading.Event()
    assert main(str(tmp_path), (line for line in iter(forever.wait, None)), voice) == 0


def test_a_run_at_work_ends_the_process(tmp_path, monkeypatch):
    """Training and previews share a GPU that has room for one."""
    monkeypatch.setattr(renderer_worker, "LOOK", 0.02)
    played = Part(runs.create(Settings(name="ink", data="somewhere"), tmp_path))
    threading.Timer(0.1, played.lives).start()
    assert main(str(tmp_path), (line for line in iter(threading.Event().wait, None)), io.BytesIO()) == 0


class Sketcher:
    """Draws nothing, and says so."""

    def __init__(self):
        self.said: list[Answer] = []
        self.say = self.said.append
        self.alone: list[bool] = []

    def share(self, alone):
        self.alone.append(alone)

    def draw(self, request, cancelled):
        self.say(Answer(id=request.id, kind="drawn", path=request.to))


@pytest.fixture
def trained(tmp_path):
    """A run that this process is the worker of, between its steps."""
    run = runs.create(Settings(name="ink", data="somewhere"), tmp_path)
    runner.register_worker(run, os.getpid())
    its = RunTurns(run)
    with its.offered():
        yield run, lambda: its.wait(lambda: False)


def test_an_image_is_drawn_when_the_run_waits(trained, monkeypatch):
    """It is drawn beside a step; or the page is not told that it waits; or the run waits after the image is there."""
    run, between_steps = trained
    monkeypatch.setattr(beside, "require", lambda beside_it, drawing, held, ours: fits.append((beside_it, drawing)))
    fits, sketcher = [], Sketcher()
    drawer = Drawer(run.folder.parent, sketcher)
    request = ImageRequest(id=7, lane="a", spec=ImageSpec(width=64, height=32, **FEW), to="a.png")
    thread = threading.Thread(target=drawer.answer, args=[request, lambda: False])
    thread.start()
    wait_until(lambda: sketcher.said)
    assert [(one.id, one.kind, one.last) for one in sketcher.said] == [(7, "waiting", False)]
    between_steps()
    thread.join(120)
    assert [one.kind for one in sketcher.said] == ["waiting", "drawn"] and fits == [
        (run, Drawing("starter", "", (), 64 * 32))
    ]
    assert sketcher.alone == [False]
    between_steps()


def test_an_image_without_room_beside_the_run_waits_for_its_end(trained, parent, monkeypatch):
    """The run is killed for want of memory; or the page asks again and again."""
    run, between_steps = trained
    monkeypatch.setattr(beside, "require", raising(MachineError("No room.", where="device", do="Wait.")))
    sketcher = Sketcher()
    drawer = Drawer(run.folder.parent, sketcher)
    request = ImageRequest(id=7, lane="a", spec=ImageSpec(**FEW), to="a.png")
    thread = threading.Thread(target=drawer.answer, args=[request, lambda: False])
    thread.start()
    wait_until(lambda: between_steps() or sketcher.said[1:])
    thread.join(120)
    _, refused = sketcher.said
    assert (refused.kind, refused.what, refused.run) == ("wrong", "No room.", "ink")
    parent.outputs = run.folder.parent
    assert not parent.waits()
    parent.become(f"print({refused.model_copy(update={'id': 1}).model_dump_json()!r}, flush=True); continue")
    with pytest.raises(RunError, match=r"No room. \[device\] Wait."):
        list(parent.draw(ImageSpec(prompt="p"), "a"))
    assert parent.waits()
    run.worker_file.unlink()
    assert not parent.waits()


# The parent's side, with a process that is a few lines long.

ANSWERING = """
import sys, json, time
from pathlib import Path
from lora_studio.jobs.renderer import ImageRequest
for line in sys.stdin:
    request = ImageRequest.model_validate_json(line)
    print("a library's chatter", flush=True)
    {act}
    Path(request.to).parent.mkdir(parents=True, exist_ok=True)
    Path(request.to).write_bytes(b"picture")
    print(json.dumps({{"id": request.id, "kind": "drawn", "path": request.to, "rank": 3}}), flush=True)
"""


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """A renderer whose process runs given code; ``parent.started`` counts how often."""
    start, script = renderer.subprocess.Popen, tmp_path / "process.py"
    made = Renderer(tmp_path / "outputs", tmp_path / "pictures")
    made.started = 0

    def popen(line, **options):
        assert line[1:3] == ["-m", "lora_studio.jobs.renderer_worker"]
        made.started += 1
        return start([line[0], str(script), *line[3:]], **options)

    monkeypatch.setattr(renderer.subprocess, "Popen", popen)
    made.become = lambda act: script.write_text(ANSWERING.format(act=act))
    made.become("pass")
    yield made
    made.close()


def test_it_can_be_started_before_the_first_order(parent):
    """The first image waits for all that could be loaded before; or a page that only looks fails beside a run."""
    parent.warm()
    parent.warm()
    assert (
        parent.started == 1
        and [one.kind for one in parent.draw(ImageSpec(prompt="p"), "a")] == ["drawn"]
        and parent.started == 1
    )
    parent.close()
    Part(runs.create(Settings(name="ink", data="somewhere"), parent.outputs)).lives()
    parent.warm()
    assert parent.started == 1


def test_what_was_drawn_once_is_there_at_once(parent):
    """Moving a slider back draws the same picture again; or a changed file shows its old picture."""
    order = ImageSpec(prompt="p")
    first = list(parent.draw(order, "a"))
    parent.become("raise SystemExit(1)")
    parent.close()
    assert list(parent.draw(order, "a")) == first and first[0].rank == 3 and parent.started == 1
    assert parent.known(order) == parent.folder / f"{order.key()}.png"
    more = order.model_copy(update={"count": 2})
    (parent.folder / f"{more.key()}.json").write_text(first[0].model_dump_json())
    (parent.folder / f"{more.key()}.png").touch()
    assert parent.known(more) is None, "its second file is not there"


@pytest.mark.parametrize(
    "change",
    [
        {"vae": "v"},
        {"text_encoders": ("t",)},
        {"prediction": "v"},
        {"zero_snr": "on"},
        {"flow_shift": 3.0},
        {"clip_skip": 2},
    ],
)
def test_each_setting_of_the_base_model_is_another_picture(change):
    """The page shows the image of the settings before."""
    assert ImageSpec(prompt="p", **change).key() != ImageSpec(prompt="p").key()


@pytest.mark.parametrize("place", ["vae", "text_encoders", "adapters"])
def test_another_state_of_a_file_is_another_picture(place, tmp_path):
    """An adapter that was trained further shows its old picture."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"1")
    given = {"vae": str(path), "text_encoders": (str(path),), "adapters": (Placed(path=str(path)),)}[place]
    order = ImageSpec(prompt="p", **{place: given})
    before = order.key()
    assert before == ImageSpec(prompt="p", **{place: given}, first=6).key()
    path.write_bytes(b"22")
    assert before != order.key()


def test_a_crash_is_told_and_the_next_picture_starts_it_anew(parent, tmp_path):
    """A crash of the drawing process takes the page along, or leaves it without pictures until a restart."""
    parent.become("import os; os._exit(9)")
    with pytest.raises(MachineError, match="ended unexpectedly") as told:
        list(parent.draw(ImageSpec(prompt="p"), "a"))
    assert "renderer.log" in str(told.value) and told.value.do
    parent.become("pass")
    assert [answer.kind for answer in parent.draw(ImageSpec(prompt="p"), "a")] == ["drawn"]


def test_a_process_that_ended_by_itself_is_started_anew_unseen(parent):
    """The first picture after a quiet time is an error."""
    parent.become(
        f"import os; mark = Path({str(parent.outputs)!r}) / 'was'; seen = mark.exists(); "
        "mark.touch(); seen or os._exit(0)"
    )
    parent.outputs.mkdir()
    assert [answer.kind for answer in parent.draw(ImageSpec(prompt="p"), "a")] == ["drawn"] and parent.started == 2


def test_no_picture_is_drawn_beside_a_run(parent):
    """Previews take the memory that training needs."""
    played = Part(runs.create(Settings(name="ink", data="somewhere"), parent.outputs))
    played.lives()
    with pytest.raises(RunError, match="while the run ink begins or ends") as told:
        list(parent.draw(ImageSpec(prompt="p"), "a"))
    assert told.value.do and parent.started == 0


def test_what_the_process_says_is_wrong_is_raised(parent):
    """The page shows no reason."""
    parent.become(
        "print(json.dumps({'id': request.id, 'kind': 'wrong', 'what': 'W', 'where': 'here', 'do': 'D'}), flush=True); "
        "continue"
    )
    with pytest.raises(StudioError, match="W .here. D"):
        list(parent.draw(ImageSpec(prompt="p"), "a"))


def test_the_real_process_draws_drops_and_ends_with_its_input(base, pair, tmp_path):
    """It all works only with processes that a test plays."""
    real = Renderer(tmp_path / "outputs", tmp_path / "pictures")
    (tmp_path / "outputs").mkdir()
    long, short = ImageSpec(prompt="a cat", steps=200), ImageSpec(adapters=placed(pair, 1), **FEW)
    seen = []
    waiting = threading.Thread(target=lambda: seen.extend(real.draw(long, "a")))
    try:
        waiting.start()
        wait_until(lambda: real._child and real._child._waiting)
        *_, answer = real.draw(short, "a")
        if sys.platform == "linux":
            assert Path(f"/proc/{real._child.process.pid}/oom_score_adj").read_text() == "1000\n", "before a run"
        waiting.join(120)
        assert [one.kind for one in seen] in (["dropped"], ["loading", "dropped"])
        assert np.abs(pixels(answer.path) - expected(base, pair, 1)).max() <= 2
        cancelled = real.draw(long, "a")
        asked = threading.Thread(target=lambda: seen.extend(cancelled))
        asked.start()
        wait_until(lambda: real._child._waiting)
        real.cancel("b")
        real.cancel("a")
        asked.join(120)
        assert [one.kind for one in seen][-1:] == ["dropped"] and not asked.is_alive() and real.known(long) is None
    finally:
        child = real._child
        real.close()
    assert child.process.returncode == 0
    real.cancel("a")

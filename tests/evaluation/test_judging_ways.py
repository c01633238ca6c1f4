"""Judging on what is not plain: an adapter of the text encoders too, pictures with masks, SDXL."""

import math
import shutil

import pytest
from PIL import Image

from lora_studio import adapters
from lora_studio.config.settings import Settings
from lora_studio.evaluation import judging
from lora_studio.evaluation.judgements import Judgement
from lora_studio.sampling import replay
from lora_studio.training.loop import train
from tests.models import tiny
from tests.sampling.test_replay import Played

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import new_run, pictures, settings, tiny_base  # noqa: F401

PROMPTS = ("a cat", "a house")
SHORT = {
    "steps": 2, "preview_every": 0, "validate_every": 0, "validation_share": 0, "keep_checkpoints": 9,
    "trigger": "", "preview_steps": 1,
}  # fmt: skip


@pytest.fixture
def made(new_run, settings):  # noqa: F811
    """Trains a run of two steps with further settings."""

    def make(**changes):
        run = new_run(settings.changed(**SHORT | changes))
        for _ in train(run, run.settings()):
            pass
        return run

    return make


@pytest.fixture
def masked(tmp_path, pictures):  # noqa: F811
    """Pictures of which the upper half alone is learned."""
    folder = tmp_path / "masked"
    shutil.copytree(pictures, folder)
    for path in list(folder.glob("*.png")):
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size)
        mask.paste(255, (0, 0, mask.width, mask.height // 2))
        mask.save(path.with_name(f"{path.stem}-masklabel.png"))
    return folder


def bench_of(run):
    """The bench of a run, prepared."""
    events = judging.bench_of(run, PROMPTS)
    while True:
        try:
            next(events)
        except StopIteration as done:
            bench = done.value
            break
    list(bench.prepare())
    return bench


def require_sound(found):
    """All measures are numbers with their intervals around them."""
    for value in (found.style, found.subject, found.drift):
        assert value.low is not None and value.high is not None and value.low <= value.high
        assert math.isfinite(value.value)


def test_what_the_text_encoders_learned_is_drawn_and_measured(made, tmp_path):
    """Half of the adapter would be judged, without a word."""
    run = made(train_text=True, learning_rate=1.0)
    bench, file = bench_of(run), run.checkpoint(2) / "adapter.safetensors"
    whole = adapters.read(file)
    unet = {path: of for path, of in whole.factors.items() if path.startswith("unet.")}
    assert 0 < len(unet) < len(whole.factors)
    adapters.write(adapters.Adapter(unet), tmp_path / "unet.safetensors", metadata={})
    (found, images), (half, others) = bench.measure(2, file), bench.measure(2, tmp_path / "unet.safetensors")
    require_sound(found)
    assert [one.tobytes() for one in images] != [one.tobytes() for one in others]
    assert found.samples["style"] != half.samples["style"]


def test_pictures_with_masks_are_judged_and_again_once_a_mask_has_changed(made, masked):
    run = made(data=str(masked))
    (found,) = [one for one in judging.judge(run, PROMPTS) if isinstance(one, Judgement)]
    require_sound(found)
    assert found.memorized.asked == 6
    before = bench_of(run)
    assert before.known(2, run.checkpoint(2) / "adapter.safetensors") == found
    (masked / "disc0-masklabel.png").unlink()
    after = bench_of(run)
    assert after.key != before.key and after.known(2, run.checkpoint(2) / "adapter.safetensors") is None


def test_sdxl_is_judged_by_the_same_blocks(made, tmp_path, pictures):  # noqa: F811
    few = tmp_path / "few"
    few.mkdir()
    for name in ("disc0.png", "disc3.png"):
        shutil.copy(pictures / name, few)
    run = made(base=str(tiny.folder(tmp_path / "sdxl", "sdxl")), data=str(few))
    (found,) = [one for one in judging.judge(run, PROMPTS) if isinstance(one, Judgement)]
    require_sound(found)
    assert found.drawn == 4 and (judging.folder(run) / "step-2" / "1-1.png").is_file()


def test_recorded_steps_judge_the_same_and_leave_no_memory_taken(made, monkeypatch):
    """The second state is drawn by the recordings of the first one's adapter; or they stay while pictures are looked
    at.
    """
    run = made(preview_steps=3)
    plain = [one for one in judging.judge(run, PROMPTS) if isinstance(one, Judgement)]
    shutil.rmtree(judging.folder(run))
    played, made_of = Played(), []
    enable = replay.enable
    monkeypatch.setattr(replay, "enable", lambda base: made_of.append(enable(base, lambda: played)))
    recorded = [one for one in judging.judge(run, PROMPTS) if isinstance(one, Judgement)]
    assert played.replayed > played.recorded > 0 and not made_of[0]._kept
    assert recorded == plain


@pytest.mark.parametrize("switched", [{"cuda_graph": False}, {"quantize": "int8"}])
def test_steps_are_not_recorded_where_a_run_may_not(monkeypatch, switched):
    monkeypatch.setattr(replay, "enable", lambda base: pytest.fail("they are recorded"))
    judging.record(None, Settings().machine.model_copy(update=switched))

"""What a run looks at before it trains."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from lora_studio.config.slices import OptimizerSettings
from lora_studio.dataset import preparation
from lora_studio.dataset.examination import Stamp
from lora_studio.dataset.folder import scan
from lora_studio.dataset.preparation import Crop, Preparation
from lora_studio.events import StepDone, Warned
from lora_studio.training import prepare
from lora_studio.training.distributed import World
from lora_studio.training.loop import train
from lora_studio.training.prepare import look


@pytest.mark.fault(82)
def test_a_run_trains_on_the_pictures_as_they_are_now(new_run, settings, tmp_path, monkeypatch):
    """A page's scan remembers another picture of the same name, size and time of change; the system notes nothing."""
    monkeypatch.setattr(Stamp, "of", classmethod(lambda cls, status: cls(status.st_size, 0, 0, 0)))
    style = tmp_path / "style"
    style.mkdir()
    Image.new("RGB", (64, 64), "red").save(style / "a.bmp")
    run = new_run(settings.changed(data=str(style)))
    scan(style, run.cache)
    Image.new("RGB", (64, 64), "blue").save(style / "a.bmp")
    looking = look(run, run.settings(), World())
    with pytest.raises(StopIteration) as end:
        while True:
            next(looking)
    (picture,) = end.value.value.pictures
    assert picture.sha256 == hashlib.sha256((style / "a.bmp").read_bytes()).hexdigest()
    assert os.path.getsize(style / "a.bmp") == 64 * 64 * 3 + 54


@pytest.mark.fault(95)
def test_a_resumed_run_says_what_is_cropped_otherwise_and_left_out(new_run, settings, pictures, tmp_path):
    style = shutil.copytree(pictures, tmp_path / "style")
    preparation.write(style, Preparation({"disc4.png": Crop(0, 0, 0.5, 1)}))
    run = new_run(settings.changed(data=str(style), preview_every=0, validate_every=0, checkpoint_every=1))
    for event in train(run, run.settings()):
        if isinstance(event, StepDone) and event.step == 2:
            break
    assert json.loads(run.manifest_file.read_text())["disc4.png"]["crop"] == [0, 0, 0.5, 1]
    encoded = len(list(run.cache.glob("latents/*")))
    preparation.write(style, Preparation({"disc4.png": Crop(0.5, 0, 1, 1)}, frozenset({"disc0.png"})))
    warned = [event.what for event in train(run, run.settings()) if isinstance(event, Warned)]
    assert any("1 picture is left out, as you chose: disc0.png." in what for what in warned)
    (said,) = [what for what in warned if "changed since this run began" in what]
    assert said.endswith("disc0.png was left out. disc4.png is cropped differently.")
    assert len(list(run.cache.glob("latents/*"))) == encoded + 1


def test_large_files_are_said_before_the_run():
    """A billion parameters in float32, and AdamW's two moments in 8 bits; a LoRA's few are not worth a word."""
    [told] = prepare._large_files(10**9, OptimizerSettings(optimizer="adamw8bit"))
    assert told.what == "The adapter's file will take about 4.0 GB, and each saved state 10.0 GB."
    assert list(prepare._large_files(10**7, OptimizerSettings())) == []


def test_a_bucket_step_that_is_large_for_the_resolution_is_said_where_pictures_lose_by_it(pictures):
    of_discs = scan(pictures)
    square = replace(of_discs, pictures=[one for one in of_discs.pictures if one.width == one.height])

    def said(dataset, step):
        return [(one.where, one.do) for one in prepare._coarse(dataset, 64, step)]

    assert said(of_discs, 64) == said(of_discs, 128) == said(square, 128) == [("bucket_step", "Set bucket_step to 8.")]
    assert said(of_discs, 32) == said(square, 64) == []

"""A run draws each line of a caption as often as the others, and says that there are several."""

from collections import Counter

import pytest
from PIL import Image

from lora_studio.dataset import caption_variants
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.items import Bucket, Sample
from lora_studio.events import Warned
from lora_studio.training.distributed import World
from lora_studio.training.prepare import look
from tests.training.test_loop import of

LINES = "a boat in a harbour\nred ship, water, evening\nA wooden vessel rests quietly."


@pytest.fixture
def looked(tmp_path, new_run, settings):
    """Dataset, events and settings of a run on one picture with a caption of three lines."""

    def look_with(**changes):
        Image.new("RGB", (64, 64)).save(tmp_path / "p0.png")
        (tmp_path / "p0.txt").write_text(LINES)
        run = new_run(settings.changed(data=str(tmp_path), **changes))
        events, looking = [], look(run, run.settings(), World())
        while True:
            try:
                events.append(next(looking))
            except StopIteration as end:
                return end.value, events, run.settings()

    return look_with


@pytest.mark.fault(89)
def test_lines_are_drawn_evenly_by_seed_and_step(looked):
    dataset, events, settings = looked()
    said = [event.what for event in of(Warned, events) if "lines" in event.what]
    assert said == ["1 caption has several lines and is read as 3 captions, one of which is drawn each time: p0.png."]
    texts = caption_variants.all_variants([dataset.pictures[0].caption], "", settings.dataset, settings.run.seed)[0]
    sampler = BatchSampler([Sample(dataset.pictures[0], Bucket(64, 64), texts)], 2, settings.run.seed)
    drawn = [texts[draw.variant] for step in range(900) for draw in sampler.draw(step)]
    assert {text: pytest.approx(count / 1800, abs=0.03) for text, count in Counter(drawn).items()} == dict.fromkeys(
        LINES.split("\n"), 1 / 3
    )
    assert drawn[200:202] == [texts[draw.variant] for draw in sampler.draw(100)]


def test_joined_lines_are_one_caption_and_need_no_notice(looked):
    dataset, events, settings = looked(caption_lines="joined")
    assert not [event for event in of(Warned, events) if "lines" in event.what]
    texts = caption_variants.all_variants([dataset.pictures[0].caption], "", settings.dataset)
    assert texts == [["a boat in a harbour red ship, water, evening A wooden vessel rests quietly."]]

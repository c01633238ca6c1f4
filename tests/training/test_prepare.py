"""What a run looks at before it trains."""

import hashlib
import os

import pytest
from PIL import Image

from lora_studio.dataset.examination import Stamp
from lora_studio.dataset.folder import scan
from lora_studio.training.distributed import World
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

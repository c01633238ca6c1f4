"""The folders of pictures that were opened last."""

import json
import os
import shutil

from lora_studio import runs, starter
from lora_studio.config.settings import Settings
from lora_studio.ui.pages.pictures import recent
from lora_studio.ui.pages.pictures.recent import RecentFolder


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return str(path)


def test_folders_come_back_with_their_counts(tmp_path):
    """Yesterday's folder has to be found on the disk again."""
    outputs = tmp_path / "outputs"
    ink = folder(tmp_path / "ink", "a.png", "a.txt", "b.JPG", "a-masklabel.png", "10_more/c.webp", "other/d.png")
    oil = folder(tmp_path / "oil", "a.png")
    trained = folder(tmp_path / "trained", "a.png", "b.png")
    runs.create(Settings(name="x", data=trained), outputs)
    for one in (oil, ink, str(starter.sample_styles()[0]), oil, ink):
        recent.remember(one, outputs)
    assert recent.recent(outputs) == [RecentFolder(ink, 3), RecentFolder(oil, 1), RecentFolder(trained, 2)]
    shutil.rmtree(oil)
    assert [one.path for one in recent.recent(outputs)] == [ink, trained]


def test_folders_that_link_to_each_other_are_counted_once(tmp_path):
    """The page hangs on two links to the folder itself, each of which holds both."""
    ink = folder(tmp_path / "ink", "a.png", "2_more/b.png", "2_more/3_less/c.png")
    for name in ("1_a", "1_b"):
        (tmp_path / "ink" / name).symlink_to(tmp_path / "ink")
    recent.remember(ink, tmp_path)
    assert recent.recent(tmp_path) == [RecentFolder(ink, 2)]


def test_a_damaged_list_is_no_list(tmp_path):
    """One bad byte keeps the page from opening."""
    for content in (b"\xff", b"{}", b"[1, null]", b"[" * 100_000):
        runs.recent_file(tmp_path).write_bytes(content)
        assert recent.recent(tmp_path) == []


def test_what_cannot_be_read_is_no_picture_until_it_is_mended(tmp_path):
    """The chip says 3 pictures, and the page that it opens 1."""
    ink = folder(tmp_path / "ink", "a.png", "b.png", "10_more/c.png")
    recent.remember(ink, tmp_path, ["b.png", "10_more/c.png", "gone.png"])
    assert recent.recent(tmp_path) == [RecentFolder(ink, 1)]
    os.utime(tmp_path / "ink" / "b.png", (1, 1))
    assert recent.recent(tmp_path) == [RecentFolder(ink, 2)]


def test_folders_that_an_earlier_version_noted_are_known(tmp_path):
    """An update forgets all folders."""
    ink = folder(tmp_path / "ink", "a.png")
    runs.recent_file(tmp_path).write_text(json.dumps([ink]))
    assert recent.recent(tmp_path) == [RecentFolder(ink, 1)]

"""What the page serves are copies of pictures, never the files themselves."""

import os
import time

import pytest
from PIL import Image

from lora_studio.ui import images


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "ü #1 %.png"
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    Image.new("RGB", (900, 300), "red").save(path, exif=exif)
    return path


def test_a_copy_is_small_webp_without_the_originals_notes(source, tmp_path):
    """A thumbnail carries the place where the photo was taken, or is as large as the photo."""
    copy = images.copy(source, tmp_path / "out", 200, images.preview)
    assert copy.is_relative_to(images.folder(tmp_path / "out")) and copy.suffix == ".webp"
    with Image.open(copy) as image:
        assert image.size == (200, 67) and not image.getexif()


def test_a_changed_picture_gets_a_new_copy(source, tmp_path):
    """The page shows the preview of an earlier run under the new one's name."""
    first = images.copy(source, tmp_path, 200, images.preview)
    assert images.copy(source, tmp_path, 200, images.preview) == first
    Image.new("RGB", (900, 300), "blue").save(source)
    os.utime(source, ns=(1, 1))
    second = images.copy(source, tmp_path, 200, images.preview)
    assert second != first and Image.open(second).getpixel((0, 0))[2] > 200


@pytest.mark.fault(63)
@pytest.mark.parametrize("content", [b"", b"<script>alert(1)</script>", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_never_copied(tmp_path, content):
    """A page named .png is served from the studio's address."""
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(OSError):
        images.copy(path, tmp_path, 200, images.preview)
    assert not list(images.folder(tmp_path).rglob("*.webp"))


@pytest.mark.fault(61)
def test_an_event_cannot_lead_out_of_the_run(tmp_path):
    """A run folder from elsewhere names "../../secret.png" as its preview."""
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "run" / "own.png").write_bytes(b"x")
    (tmp_path / "run" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png", "."):
        assert images.inside(tmp_path / "run", name) is None
    assert images.inside(tmp_path / "run", "own.png") == (tmp_path / "run" / "own.png").resolve()


def test_old_copies_and_cut_off_uploads_are_swept(source, tmp_path):
    """The cache grows for ever."""
    copy = images.copy(source, tmp_path, 200, images.preview)
    upload = images.uploads(tmp_path) / "tmp0123"
    upload.parent.mkdir()
    upload.touch()
    images.sweep(tmp_path)
    assert copy.exists() and upload.exists()
    images.sweep(tmp_path, now=time.time() + 31 * 86400)
    assert not copy.exists() and not upload.exists()

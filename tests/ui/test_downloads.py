"""Files offered for download: the same bytes under any name, without a second copy where the disk allows that."""

import os

import pytest

from lora_studio.ui import downloads, images


def test_the_same_file_is_offered_once_and_a_changed_one_anew(tmp_path):
    file = tmp_path / "ink.safetensors"
    file.write_bytes(b"one")
    first = downloads.offered(file, tmp_path)
    assert first == downloads.offered(file, tmp_path) and first.read_bytes() == b"one" and first.name == file.name
    assert first.is_relative_to(images.folder(tmp_path)), "only that folder is served"
    file.unlink()
    file.write_bytes(b"other")
    os.utime(file, ns=(1, 1))
    assert downloads.offered(file, tmp_path).read_bytes() == b"other"


@pytest.mark.fault(56)
def test_a_disk_without_hard_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "ink.safetensors"
    file.write_bytes(b"one")
    copy = downloads.offered(file, tmp_path)
    assert copy.read_bytes() == b"one" and [path.name for path in copy.parent.iterdir()] == ["ink.safetensors"]


def test_what_is_withdrawn_takes_no_space(tmp_path):
    """A deleted adapter's bytes stay in the cache."""
    file = tmp_path / "ink.safetensors"
    file.write_bytes(b"one")
    copy = downloads.offered(file, tmp_path)
    downloads.withdraw(file, tmp_path)
    downloads.withdraw(file, tmp_path)
    assert not copy.exists() and file.exists()


def test_a_name_is_never_markup(tmp_path):
    file = tmp_path / 'a"><script>x</script>.safetensors'.replace("/", "")
    file.write_bytes(b"one")
    shown = downloads.link(file, tmp_path, "<b>Get</b>")
    assert "<script" not in shown and "<b>" not in shown and shown.count('"') == 6

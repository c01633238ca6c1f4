"""Paths as people paste them."""

import os

import pytest

from lora_studio.ui.paths import tidy


@pytest.mark.parametrize(
    "write",
    [
        "{path}",
        " {path} \n",
        '"{path}"',
        "'{path}'",
        "“{path}”",
        "{url}",
        "{local}",
        "{url}\r\nfile:///another\r\n",
        pytest.param("{escaped}", marks=pytest.mark.skipif(os.name == "nt", reason="a terminal of another system")),
    ],
)
def test_a_pasted_path_is_found(tmp_path, write):
    """She is told that her folder does not exist, which is open beside the page."""
    folder = tmp_path / "mein Stil, 100% (ü)"
    folder.mkdir()
    url = folder.as_uri()
    typed = write.format(
        path=folder, url=url, local=url.replace("file://", "file://localhost"), escaped=str(folder).replace(" ", "\\ ")
    )
    assert tidy(typed) == str(folder)


def test_a_path_from_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "ink").mkdir()
    assert tidy("~/ink") == str(tmp_path / "ink")


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("", ""),
        (None, ""),
        ("stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo"),
        ("starter", "starter"),
        ("/no such folder", "/no such folder"),
        ("file:///no%20such%20folder", "/no such folder"),
        ("file://[", "file://["),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of another system")
def test_what_is_no_path_stays(typed, path):
    """A model's name on a hub becomes a path, or a damaged address ends in a traceback."""
    assert tidy(typed) == path

"""The variables of the processes that the studio starts."""

import os

from lora_studio.jobs import environment


def test_the_package_is_found_whatever_path_the_user_has(monkeypatch):
    """A run that waited in the queue took the user's own path in place of it, and never began."""
    root = str(environment._ROOT)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert environment.environment()["PYTHONPATH"] == os.pathsep.join([root, "/mine"])
    later = environment.environment(environment.own() | {"OMP_NUM_THREADS": "3"})
    assert later["PYTHONPATH"] == os.pathsep.join([root, "/mine"]) and later["OMP_NUM_THREADS"] == "3"
    assert environment.environment({"PYTHONPATH": root})["PYTHONPATH"] == root

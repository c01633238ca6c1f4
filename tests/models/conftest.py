"""One tiny model of each family for all of these tests."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lora_studio import models
from lora_studio.models import Base, inject
from tests.models import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Family -> a diffusers folder; not to be changed."""
    return cache(lambda family: tiny.folder(tmp_path_factory.mktemp("tiny") / family, family))


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Callable[[str], Path]:
    """Family -> the same weights as one file; not to be changed."""
    return cache(lambda family: tiny.checkpoint(tmp_path_factory.mktemp("tiny") / f"{family}.safetensors", family))


@pytest.fixture(scope="module")
def shared(tiny_folder) -> Base:
    """A tiny SD 1 for all tests of a module."""
    return models.load(str(tiny_folder("sd1")))


@pytest.fixture
def base(shared) -> Iterator[Base]:
    """``shared`` without adapters; they are taken out again."""
    yield shared
    inject.remove(shared)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach another machine fails the test."""
    import socket

    def refuse(*_args, **_named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

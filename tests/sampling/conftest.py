"""One tiny model of each family for all of these tests."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.models import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Family -> a diffusers folder; not to be changed."""
    return cache(lambda family: tiny.folder(tmp_path_factory.mktemp("tiny") / family, family))

"""Gradio's script as the studio serves it."""

from pathlib import Path

import pytest
from gradio.routes import BUILD_PATH_LIB
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lora_studio.ui.quick_page import QUICKER, QuickPage, quicker


@pytest.fixture
def client():
    async def answer(request):
        return PlainTextResponse("gradio's own")

    served = Starlette(routes=[Route("/{path:path}", answer)])
    served.add_middleware(QuickPage)
    return TestClient(served)


def test_each_slow_part_is_in_gradios_script_once_and_is_served_quick(client):
    """After an update of gradio the page is slow again, and nobody knows."""
    (script,) = Path(BUILD_PATH_LIB).glob("core-*.js")
    own, answer = script.read_text("utf-8"), client.get(f"/assets/{script.name}")
    assert [own.count(slow) for slow in QUICKER] == [1] * len(QUICKER)
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.text == quicker(own) and not any(slow in answer.text for slow in QUICKER)


@pytest.mark.parametrize("path", ["/assets/core-of-another-version.js", "/assets/core-..%2F..%2Fapp.js", "/config"])
def test_all_else_is_gradios(client, path):
    """A page of another version of gradio's does not load, or a file is served that is none of the page's."""
    assert client.get(path).text == "gradio's own"

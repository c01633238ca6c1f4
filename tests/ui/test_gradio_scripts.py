"""Gradio's scripts as the studio serves them."""

from pathlib import Path

import pytest
from gradio.routes import BUILD_PATH_LIB
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lora_studio.ui.gradio_scripts import CHOICES, CORE, ORDER, TYPING, UPDATES, GradioScripts, corrected


@pytest.fixture
def client():
    async def answer(request):
        return PlainTextResponse("gradio's own")

    served = Starlette(routes=[Route("/{path:path}", answer)])
    served.add_middleware(GradioScripts)
    return TestClient(served)


@pytest.mark.parametrize(
    "names, parts",
    [("core-*.js", CORE | UPDATES), ("Blocks-*.js", ORDER), ("Index-*.js", CHOICES), ("Index-*.js", TYPING)],
)
def test_each_part_is_in_one_of_gradios_scripts_and_is_served_replaced(client, names, parts):
    """After an update of gradio the page is slow again, or loses what was typed, and nobody knows."""
    found = {path: path.read_text("utf-8") for path in Path(BUILD_PATH_LIB).glob(names)}
    (path,) = (path for path, script in found.items() if all(part in script for part in parts))
    answer = client.get(f"/assets/{path.name}")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.text == corrected(found[path])
    assert all(answer.text.count(better) == found[path].count(part) for part, better in parts.items())


@pytest.mark.parametrize("path", ["/assets/core-of-another-version.js", "/assets/core-..%2F..%2Fapp.js", "/config"])
def test_all_else_is_gradios(client, path):
    """A page of another version of gradio's does not load, or a file is served that is none of the page's."""
    assert client.get(path).text == "gradio's own"

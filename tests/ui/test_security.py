"""The door: who is let in, and at which addresses."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lora_studio.errors import SettingsError
from lora_studio.ui import security


@pytest.fixture
def client():
    async def answer(request):
        return PlainTextResponse("in")

    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    return TestClient(
        Starlette(routes=routes, middleware=security.middleware("127.0.0.1")), base_url="http://127.0.0.1:7860"
    )


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "127.0.0.1", "LOCALHOST:1"])
def test_this_machine_is_let_in(client, host):
    """The studio refuses its own user."""
    assert client.get("/", headers={"host": host}).text == "in"


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example#127.0.0.1",
        "",
    ],
)
def test_a_foreign_host_gets_400(client, host):
    """A page under another name that points here (DNS rebinding) uses the studio."""
    assert client.get("/", headers={"host": host}).status_code == 400


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1.evil.example:7860", ""]
)
def test_a_foreign_origin_gets_403(client, origin):
    """Another site's page uploads or starts training."""
    assert client.post("/gradio_api/upload", headers={"origin": origin}).status_code == 403


def test_the_pages_own_requests_pass(client):
    """The page cannot talk to its server."""
    assert client.post("/", headers={"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}).text == "in"
    assert client.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).text == "in"


@pytest.mark.fault(60)
def test_pictures_are_not_shown_in_the_page_of_another_site(client):
    """Another site shows or measures the user's pictures."""
    assert (
        client.get(
            "/gradio_api/file=/x.webp", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        ).status_code
        == 403
    )


@pytest.mark.fault(64)
@pytest.mark.parametrize("path", [
    "/file=http://evil.example/x", "/gradio_api/file=https://evil.example/x", "/gradio_api/file=HTTP://evil.example/x",
    "/gradio_api/file/http://evil.example/x",
    "/gradio_api/file=http%3A//evil.example/x", "/gradio_api/file=http%253A//evil.example/x",
    "/gradio_api/%66ile=http://evil.example/x", "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file=\\\\evil\\share", "/gradio_api/proxy=https://evil.example/x",
])  # fmt: skip
def test_nothing_is_fetched_from_elsewhere_for_a_visitor(client, path):
    """The studio becomes a way into the network behind it."""
    assert client.get(path).status_code == 403


@pytest.mark.fault(64)
def test_answers_forbid_what_comes_from_elsewhere(client):
    """A script or font from outside is loaded; the page is framed by another."""
    headers = client.get("/").headers
    assert (
        "default-src 'self'" in headers["content-security-policy"]
        and "frame-ancestors 'none'" in headers["content-security-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_loopback_needs_no_login(address):
    """The user of one machine is asked for a password."""
    security.require_login(address, None)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.4", "::", "studio.local"])
def test_other_addresses_need_a_login(address):
    """The studio stands open in the network."""
    for login in (None, ("", ""), ("me", "")):
        with pytest.raises(SettingsError, match="password"):
            security.require_login(address, login)
    security.require_login(address, ("me", "secret"))

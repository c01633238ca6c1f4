"""A studio that other machines can reach: nothing without the login, and other sites still have no say."""

import gradio as gr
import httpx
import pytest

from lora_studio.ui import studio


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with nothing on it, behind the same door as the studio's."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox("for the user alone")
    port = studio.free_port("0.0.0.0", 7990)
    studio.serve(page, tmp_path_factory.mktemp("outputs"), "0.0.0.0", port, ("ana", "secret"))
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture
def visitor(address):
    with httpx.Client(base_url=address, trust_env=False) as client:
        yield client


LOCKED = [("GET", "/config"), ("GET", "/gradio_api/info"), ("POST", "/gradio_api/upload"),
          ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/run/x"), ("POST", "/gradio_api/call/x"),
          ("GET", "/gradio_api/queue/data?session_hash=a"), ("GET", "/gradio_api/file=/etc/passwd"),
          ("GET", "/gradio_api/upload_progress?upload_id=a")]  # fmt: skip


def ask(client, method, path, **options):
    body = (
        {"files": {"files": ("a.png", b"1")}}
        if path.endswith("upload")
        else {"json": {"data": []}}
        if method == "POST"
        else {}
    )
    return client.request(method, path, **body, **options)


def test_without_the_login_nothing_is_told_or_taken(visitor):
    for method, path in LOCKED:
        assert ask(visitor, method, path).status_code == 401, path
    assert "for the user alone" not in visitor.get("/").text


@pytest.mark.parametrize("name, password", [("ana", "wrong"), ("", ""), ("ana", ""), ("anna", "secret")])
def test_a_wrong_login_opens_nothing(visitor, name, password):
    assert visitor.post("/login", data={"username": name, "password": password}).status_code in (400, 422)
    assert visitor.get("/config").status_code == 401


@pytest.mark.fault(60)
def test_with_the_login_the_page_opens_and_other_sites_are_still_refused(visitor):
    """The browser sends the login along with whatever another site's page asks for."""
    assert visitor.post("/login", data={"username": "ana", "password": "secret"}).status_code == 200
    assert "for the user alone" in visitor.get("/config").text
    for method, path in [*LOCKED, ("POST", "/login")]:
        assert ask(visitor, method, path, headers={"origin": "http://evil.example"}).status_code == 403, path

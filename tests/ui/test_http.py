"""Real requests to a real studio: what is served, and what is not."""

import re
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from lora_studio.ui import images


@pytest.fixture(scope="module")
def client(studio):
    with httpx.Client(base_url=studio.url, trust_env=False) as client:
        yield client


def fetch(client, path):
    return client.get("gradio_api/file=" + quote(str(path)))


def test_the_page_is_up_quickly(studio, client):
    """Opening the studio takes as long as loading torch (aim: five seconds on two idle cores)."""
    assert client.get("").status_code == 200
    assert studio.seconds < 8


def test_the_page_is_packed_on_its_way(client):
    """It weighs a megabyte: over a slow line, to another machine, she waits for it."""
    with client.stream("GET", "", headers={"accept-encoding": "gzip"}) as answer:
        page = answer.read()
        assert len(page) > 500_000 and answer.num_bytes_downloaded < 200_000
    with client.stream("GET", "", headers={"accept-encoding": "identity"}) as answer:
        assert len(answer.read()) == answer.num_bytes_downloaded


@pytest.mark.fault(59)
@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "theme.css"])
def test_a_foreign_host_is_refused_everywhere(client, path):
    """DNS rebinding reads the page."""
    assert client.get(path, headers={"host": "evil.example"}).status_code == 400


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    "path", ["gradio_api/upload", "gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/call/runs"]
)
def test_a_foreign_origin_cannot_post(client, path):
    """Another site uploads or starts training."""
    for origin in ("http://evil.example", "null"):
        answer = client.post(
            path, headers={"origin": origin}, files={"files": ("x.png", b"1")} if path.endswith("upload") else None
        )
        assert answer.status_code == 403


@pytest.mark.fault(63)
def test_own_uploads_pass_and_are_never_shown_in_line(client):
    """An uploaded page runs as one of the studio's own."""
    (kept,) = client.post("gradio_api/upload", files={"files": ("x.html", b"<script>1</script>")}).json()
    answer = fetch(client, kept)
    assert (
        answer.headers["content-disposition"].startswith("attachment")
        and answer.headers["content-type"] == "application/octet-stream"
    )


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=http://example.com/", "file=https://example.com/", "gradio_api/file=http%3A%2F%2Fexample.com"],
)
def test_nothing_is_fetched_for_a_visitor(client, path):
    """The studio fetches addresses for others."""
    assert client.get(path).status_code == 403


@pytest.mark.fault(61, 63)
def test_only_copies_are_served(client, studio, pictures):
    """The dataset, the run's log or the system's files can be read."""
    cache = images.folder(studio.outputs)
    (pictures / "evil.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    for path in (
        pictures / "drawing 1.png",
        pictures / "evil.svg",
        "/etc/passwd",
        cache / ".." / "..",
        cache / ".." / ".." / "secret",
        Path(__file__),
    ):
        (studio.outputs / "secret").write_text("x")
        assert fetch(client, path).status_code in (403, 404), path
    assert client.get(f"gradio_api/file={cache}/%2e%2e/%2e%2e/secret").status_code == 403


@pytest.mark.fault(61)
def test_a_link_out_of_the_cache_is_not_followed(client, studio, tmp_path):
    """A link in the cache folder hands out any file."""
    (tmp_path / "secret").write_text("x")
    link = images.folder(studio.outputs) / "link.webp"
    link.symlink_to(tmp_path / "secret")
    try:
        assert fetch(client, link).status_code == 403
    finally:
        link.unlink()


def test_programs_find_only_the_named_handlers(client):
    """Every button of the page is an interface for programs."""
    named = client.get("gradio_api/info").json()
    assert (
        set(named["named_endpoints"]) == {"/runs", "/train", "/status", "/stop", "/draw", "/mix", "/sheet", "/export"}
        and not named["unnamed_endpoints"]
    )


@pytest.mark.fault(64)
def test_the_page_asks_nothing_from_elsewhere(client):
    """The page loads a font or a script from outside."""
    for path in ("", "theme.css"):
        text = client.get(path).text
        assert not re.findall(r'(?:src|href)="https?://(?!127\.0\.0\.1)[^"]+"|@import[^;]+https?:|url\(.?https?:', text)


@pytest.mark.fault(77)
@pytest.mark.parametrize("address", ["http://example.com/x.png", "https://127.0.0.1/x.safetensors"])
def test_an_address_in_place_of_an_upload_is_not_fetched(client, address):
    """gradio looked the name up, at dns.google too, and downloaded what was there."""
    config = client.get("config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    takers = [one for one in config["dependencies"] if any(target[1] == "upload" for target in one["targets"])]
    takers = [one for one in takers if {kinds[part] for part in one["inputs"]} & {"uploadbutton", "file"}]
    assert takers
    for taker in takers:
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        data = [[file] if kinds[part] in ("uploadbutton", "file") else None for part in taker["inputs"]]
        told = client.post("gradio_api/run/predict", json={"data": data, "fn_index": taker["id"]}).json()
        assert f"{address.split('/')[2]}" in told["error"] and "is not fetched" in told["error"]

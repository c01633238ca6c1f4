"""The door of a real studio, tried with bare sockets: what no well-behaved client would send."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest

from lora_studio.ui import images, security

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def port(studio) -> int:
    return urlsplit(studio.url).port


@pytest.fixture(scope="module")
def ask(port) -> Ask:
    """``ask("GET", "/path", {header: value}, body)``: the line exactly as it is written; status, headers and the
    answer's beginning.
    """

    def asked(
        method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        fields = (
            {"Host": f"127.0.0.1:{port}", "Connection": "close"}
            | ({"Content-Length": str(len(body))} if body else {})
            | (headers or {})
        )
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall("\r\n".join(lines).encode() + body)
            return _answer(connection)

    return asked


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


@pytest.fixture(scope="module")
def hidden(studio) -> Path:
    """A file in the outputs folder that nobody may read through the page."""
    path = studio.outputs / "secret.txt"
    path.write_text("precious")
    return path


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def form(name: str, data: bytes = b"1") -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--x--\r\n' % (
        name.encode(),
        data,
    )


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example:80",
        "",
        "[::ffff:10.0.0.1]",
        "localhost\t.evil",
    ],
)
def test_a_foreign_host_gets_400_before_anything_else(ask, host):
    for method, path in (
        ("GET", "/"),
        ("GET", "/config"),
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/nothing"),
    ):
        assert ask(method, path, {"Host": host})[0] == 400, path


@pytest.mark.fault(59)
def test_two_hosts_or_none_get_400(port):
    """Whoever reads the first one and whoever reads the last one would disagree."""
    for hosts in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert _answer(connection)[0] == 400


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://[",
        "",
        "file://",
        "http://127.0.0.1:7950.evil.example",
    ],
)
def test_a_foreign_origin_gets_403_and_nothing_is_kept(ask, studio, origin):
    before = sorted(images.uploads(studio.outputs).rglob("*"))
    for path in (
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/run/runs",
        "/gradio_api/cancel",
        "/login",
    ):
        assert ask("POST", path, {"Origin": origin, **FORM}, form("a.png"))[0] == 403, path
    assert sorted(images.uploads(studio.outputs).rglob("*")) == before


@pytest.mark.fault(60)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_port_or_site_reads_nothing(ask, site):
    """A picture, a style sheet or a script is asked for without an Origin."""
    for path in ("/config", "/theme.css", "/gradio_api/info"):
        assert ask("GET", path, {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})[0] == 403


def once(path: str) -> str:
    return quote(path, safe="")


@pytest.mark.fault(61, 64)
@pytest.mark.parametrize(
    "escaped",
    [str, once, lambda path: once(once(path)), lambda path: once(once(once(path)))],
    ids=["plain", "escaped", "twice", "three times"],
)
@pytest.mark.parametrize("door", ["/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"])
def test_no_address_leads_out_of_the_pictures_of_the_page(ask, studio, hidden, door, escaped):
    page = images.folder(studio.outputs)
    targets = [
        str(hidden), "/etc/passwd", "//etc/passwd", "///etc/passwd", f"{page}/../../secret.txt",
        f"{page}/..\\..\\secret.txt", f"{page}/./.././../secret.txt",
        "../../../../etc/passwd", "..", ".", "", "app.py", "lora_studio/ui/studio.py", ".gitignore", ".git/config",
        str(studio.outputs), str(page),
        f"{page}/.hidden", f"{page}/x.webp::$DATA", "C:\\Windows\\win.ini", "c:/windows/win.ini", "\\\\evil\\share\\x",
        "//evil/share/x", "\\\\?\\C:\\x", "/dev/zero", "/proc/self/environ",
        "http://evil.example/", "HTTP://evil.example/", "https:evil.example", "ftp://evil.example/x",
        "file:///etc/passwd", "javascript:alert(1)", f"{hidden}\0.webp", f"{hidden}\n.webp", "~/.ssh/id_rsa", "CON",
        "con.webp",
    ]  # fmt: skip
    for target in targets:
        written = escaped(target) if escaped is not str else target.translate({0: "%00", 10: "%0A", 32: "%20"})
        status, _, body = ask("GET", door + written)
        assert status in (400, 403, 404) and b"precious" not in body and b"root:" not in body, target


@pytest.mark.fault(61)
@pytest.mark.parametrize("path", ["/static/{}", "/assets/{}", "/svelte/{}", "/{}", "/theme.css/{}"])
@pytest.mark.parametrize(
    "climb",
    [
        "../../../routes.py",
        "..%2f..%2froutes.py",
        "%2e%2e/%2e%2e/routes.py",
        "..%5c..%5croutes.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "....//....//routes.py",
    ],
)
def test_the_folders_of_the_framework_lead_nowhere(ask, path, climb):
    status, _, body = ask("GET", path.format(climb))
    assert status in (400, 403, 404) and b"import" not in body and b"root:" not in body


@pytest.mark.fault(63)
@pytest.mark.parametrize(("name", "data"), [
    ("evil.html", b"<script>alert(1)</script>"),
    ("evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    ("evil.xhtml", b"<html xmlns='http://www.w3.org/1999/xhtml'/>"), ("evil.xml", b"<a/>"), ("evil.pdf", b"%PDF-1.4"),
    ("evil.js", b"alert(1)"), ("evil", b"<html>"),
])  # fmt: skip
def test_what_runs_in_a_browser_is_never_served_in_line(ask, studio, pictures, name, data):
    """Neither from a dataset, where it is not served at all, nor from an upload of one's own."""
    evil = pictures / name
    evil.write_bytes(data)
    try:
        assert ask("GET", f"/gradio_api/file={quote(str(evil))}")[0] == 403
    finally:
        evil.unlink()
    status, _, body = ask("POST", "/gradio_api/upload", FORM, form(name, data))
    (kept,) = json.loads(body)
    status, headers, _ = ask("GET", f"/gradio_api/file={quote(kept)}")
    assert (
        status == 200
        and headers["content-disposition"].startswith("attachment")
        and headers["content-type"] == "application/octet-stream"
    )
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    "name",
    [
        "../../../x.png",
        "..\\..\\x.png",
        "/etc/x.png",
        "C:\\x.png",
        "....//x.png",
        "x.png/..",
        "..",
        ".",
        "%2e%2e%2fx.png",
        ".hidden",
        "a" * 300 + ".png",
    ],
)
def test_an_upload_lands_in_its_own_folder_whatever_it_is_called(ask, studio, name):
    before = {path for path in studio.outputs.rglob("*") if path.is_file()}
    status, _, body = ask("POST", "/gradio_api/upload", FORM, form(name))
    uploads = images.uploads(studio.outputs)
    assert status in (200, 400, 500)
    new = {path for path in studio.outputs.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(uploads) for path in new)
    assert status != 200 or all(Path(kept).resolve().is_relative_to(uploads.resolve()) for kept in json.loads(body))


@pytest.mark.parametrize(("path", "length"), [
    ("/gradio_api/upload", 2 * 1024**3), ("/gradio_api/upload", security.MAX_UPLOAD + 1),
    ("/gradio_api/upload", 10**18), ("/gradio_api/queue/join", security.MAX_BODY + 1), ("/login", 2 * 1024**3),
])  # fmt: skip
def test_a_body_that_is_too_large_is_refused_before_it_comes(ask, studio, path, length):
    """Two gigabytes would be on the disk before anybody looked at them."""
    before = sorted(images.uploads(studio.outputs).rglob("*"))
    status, headers, body = ask("POST", path, {**FORM, "Content-Length": str(length)})
    assert status == 413 and headers["connection"] == "close" and b"Paste the path" in body
    assert sorted(images.uploads(studio.outputs).rglob("*")) == before


def test_a_body_of_untold_size_is_cut_off(port):
    """A chunked body says nothing beforehand: it is counted as it comes."""
    head = (
        f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    piece, sent = b"100000\r\n" + b" " * 2**20 + b"\r\n", 0
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(200):
                connection.sendall(piece)
                sent += 2**20
        except OSError:
            pass  # it has hung up
    assert sent < 4 * security.MAX_BODY


def test_the_number_of_files_in_an_upload_is_bounded(ask, studio):
    """A million empty files fill a disk's table of files."""
    one = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n\r\n'
    assert ask("POST", "/gradio_api/upload", FORM, one * 1001 + b"--x--\r\n")[0] == 400


@pytest.mark.parametrize("path", [
    "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/dev/reload", "/gradio_api/vibe-code",
    "/gradio_api/component_server", "/gradio_api/process_recording", "/monitoring", "/monitoring/summary",
    "/gradio_api/deep_link?session_hash=x", "/gradio_api/custom_component/a/client/b/c", "/gradio_api/%76ibe-code",
    "/pwa_icon/99999999", "/gradio_api/run-history/buckets", "/gradio_api/stream/x",
])  # fmt: skip
def test_doors_that_the_page_does_not_use_are_closed(ask, path):
    for method in ("GET", "POST"):
        assert ask(method, path)[0] == 403


def test_programs_see_and_reach_only_what_is_named(ask):
    """Every button is an interface for programs; a handler's name is a promise to keep."""
    for path in ("/config", "/gradio_api/info"):
        assert ask("GET", path)[0] == 200
    named = json.loads(ask("GET", "/gradio_api/info")[2])
    endpoints = {"runs", "draw", "mix", "sheet", "export", "train", "status", "stop"}
    assert set(named["named_endpoints"]) == {f"/{one}" for one in endpoints} and not named["unnamed_endpoints"]
    config = json.loads(ask("GET", "/config")[2])
    assert {one["api_name"] for one in config["dependencies"] if one["api_visibility"] != "private"} == endpoints


@pytest.mark.fault(61)
def test_a_handler_takes_no_file_that_was_not_uploaded(ask, hidden):
    """An upload field is sent the path of any file of this machine instead of an upload's."""
    config = json.loads(ask("GET", "/config")[2])
    field = next(one["id"] for one in config["components"] if one["type"] == "file")
    handler = next(one for one in config["dependencies"] if [field, "upload"] in one["targets"])
    sent = [{"path": str(hidden), "meta": {"_type": "gradio.FileData"}}]
    body = json.dumps(
        {
            "data": [sent if part == field else None for part in handler["inputs"]],
            "fn_index": handler["id"],
            "session_hash": "a",
        }
    ).encode()
    status, _, answer = ask("POST", "/gradio_api/run/predict", {"Content-Type": "application/json"}, body)
    assert status >= 400 and b"precious" not in answer


def test_garbage_does_not_end_the_studio(port, ask):
    """A scanner on the machine sends anything at all."""
    for data in (
        b"\x16\x03\x01\x02\x00\x01",
        b"\0" * 5000,
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
            except OSError:
                pass  # it has hung up
    assert ask("GET", "/")[0] == 200


def test_only_this_machine_can_reach_it(port):
    """A studio that listens at every address is open to the café's network."""
    listening = {
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    assert listening == {"127.0.0.1"}

"""A hub of one model on this machine, as much of it as a download asks for; it can break a connection off."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves ``folder`` as the model ``name``; ``asked`` notes each request."""

    def __init__(self, folder: Path, name: str, licence: str = "openrail"):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder, self.name, self.licence = folder, name, licence
        self.closing = threading.Event()
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Range."""
        self.broken: dict[str, list[int]] = {}
        """Path of a file -> after how many bytes the connection ends, one for each time that it is asked for."""
        self.slow: dict[str, int] = {}
        """Path of a file -> after how many bytes nothing more comes for a minute."""
        self.status = 200

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@contextmanager
def serving(folder: Path, name: str = "someone/tiny"):
    hub = Hub(folder, name)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range", "")))
        name = self.server.name
        if self.server.status != 200:
            return self._say(json.dumps({"error": "no"}).encode(), {"X-Error-Code": "RepoNotFound"}, self.server.status)
        if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
            return self._say(json.dumps(self._info()).encode())
        if path == f"/api/models/{name}/tree/{SHA}":
            return self._say(
                json.dumps(
                    [
                        {"type": "file", "path": file, "size": len(data), "oid": _oid(data)}
                        for file, data in self.server.files().items()
                    ]
                ).encode()
            )
        for revision in ("main", SHA):
            if path.startswith(f"/{name}/resolve/{revision}/"):
                return self._file(path.removeprefix(f"/{name}/resolve/{revision}/"))
        self._say(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    def _info(self) -> dict:
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": _oid(data)} for file, data in self.server.files().items()
        ]
        return {
            "id": self.server.name,
            "modelId": self.server.name,
            "sha": SHA,
            "siblings": siblings,
            "tags": ["diffusers", f"license:{self.server.licence}"],
            "private": False,
            "downloads": 1,
            "likes": 1,
        }

    def _file(self, name: str) -> None:
        data = self.server.files().get(name)
        if data is None:
            return self._say(b"{}", {"X-Error-Code": "EntryNotFound"}, 404)
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers.get("Range") else 0
        more = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        if start:
            more["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._say(data[start:], more, 206 if start else 200, self._cut(name), self.server.slow.get(name))

    def _cut(self, name: str) -> int | None:
        cuts = self.server.broken.get(name)
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def _say(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        status: int = 200,
        cut: int | None = None,
        slow: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET" and slow is not None:
            self.wfile.write(body[:slow])
            self.close_connection = not self.server.closing.wait(60)
        elif self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

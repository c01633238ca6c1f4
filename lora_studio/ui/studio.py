"""The studio in the browser: its pages, its address, and the door that only this machine's user passes."""

from __future__ import annotations

import json
import os
import socket
import webbrowser
from pathlib import Path

import gradio as gr

from lora_studio import __version__, runs
from lora_studio.errors import MachineError
from lora_studio.locks import Lock
from lora_studio.ui import images, security, tabs
from lora_studio.ui.pages.export import ExportPage
from lora_studio.ui.pages.library.page import LibraryPage
from lora_studio.ui.pages.mix.page import MixPage
from lora_studio.ui.pages.train import page as train
from lora_studio.ui.theme import html, theme

_HERE = Path(__file__).parent
_FIRST_PORT, _PORTS = 7860, 100
_DAY = 86_400


def build(outputs: Path = runs.OUTPUTS) -> gr.Blocks:
    """All pages of the studio, for the runs in ``outputs``."""
    outputs = outputs.resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(images.uploads(outputs))
    with gr.Blocks(
        title="LoRA Studio", analytics_enabled=False, fill_width=True, delete_cache=(_DAY, 7 * _DAY)
    ) as studio:
        with gr.Row(elem_classes="masthead"):
            html(f'<h1>LoRA Studio</h1><span class="version">{__version__}</span>', elem_classes="brand")
            pill = html(elem_id="pill")
        mixed = gr.BrowserState({}, storage_key="lora-studio-mix", secret="lora-studio")
        with tabs.all() as all_rooms:
            with tabs.room("Train"):
                setup = train.build(studio, outputs, pill)
            with tabs.room("Library") as room:
                LibraryPage(outputs).wire(room, all_rooms, setup)
            with tabs.room("Mix") as room:
                MixPage(outputs, mixed).wire(room, studio)
            with tabs.room("Export") as room:
                ExportPage(outputs).wire(room)
        tabs.wire(studio)
    return studio


def launch(
    port: int | None = None,
    browser: bool = True,
    outputs: Path = runs.OUTPUTS,
    address: str = "127.0.0.1",
    login: tuple[str, str] | None = None,
) -> None:
    """Serves the studio until it is ended with Ctrl+C. Runs at work go on without it.

    Args:
        port: the wanted port, 7860 by default; the next free one is taken if it is in use.
        browser: open the page in the user's browser.
        address: who can reach it; any other than the loopback needs ``login``.
        login: name and password.

    Raises:
        SettingsError: an address for other machines without a login.
        MachineError: no port is free, ``outputs`` cannot be written, or another studio has it open.
    """
    security.require_login(address, login)
    _prepare(outputs)
    lock = claim(outputs)
    studio = build(outputs)
    port = free_port(address, port or _FIRST_PORT)
    try:
        serve(studio, outputs, address, port, login)
    except OSError:  # a studio that was started at the same moment has just taken it
        serve(studio, outputs, address, free_port(address, port), login)
    url = studio.local_url
    assert url is not None  # gradio sets it where it serves
    lock.note(json.dumps({"address": url}))
    print(
        f"LoRA Studio is at {url.rstrip('/')}\nEnd it with Ctrl+C. A run at work goes on without it.",
        flush=True,
    )
    if browser:
        webbrowser.open(url)
    studio.block_thread()


def serve(studio: gr.Blocks, outputs: Path, address: str, port: int, login: tuple[str, str] | None = None) -> gr.Blocks:
    """Starts serving ``studio`` in a thread, with everything switched off that speaks to the outside."""
    os.environ["no_proxy"] = ",".join(
        filter(None, [os.environ.get("no_proxy", ""), *security.LOOPBACK[:2]])
    )  # gradio asks itself whether it is up
    studio._queue.sleep_when_free = (
        0.05  # gradio looks for queued work a thousand times a second, for 6 % of a core that training needs
    )
    studio.launch(
        server_name=address,
        server_port=port,
        auth=login,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        share=False,
        enable_monitoring=False,
        mcp_server=False,
        run_history=False,
        pwa=False,
        ssr_mode=False,
        footer_links=[],
        allowed_paths=[str(images.folder(outputs))],
        max_file_size=security.MAX_UPLOAD,
        app_kwargs={"middleware": security.middleware(address)},
        theme=theme(),
        css_paths=_HERE / "studio.css",
        favicon_path=_HERE / "favicon.svg",
    )
    return studio


def _prepare(outputs: Path) -> None:
    try:
        images.folder(outputs).mkdir(parents=True, exist_ok=True)
        images.sweep(outputs)
    except OSError as error:
        what = f"The outputs folder cannot be written: {error.strerror}."
        raise MachineError(
            what, where=error.filename or outputs, do="Free space there, or choose another with --outputs."
        ) from error


def claim(outputs: Path) -> Lock:
    """The lock that makes this studio the only one of its outputs folder; it lasts as long as the process does.

    Raises:
        MachineError: another studio has it; its address is told.
    """
    lock = Lock(runs.studio_file(outputs))
    if lock.acquire():
        return lock
    try:
        where = f"at {json.loads(lock.path.read_text())['address'].rstrip('/')}"
    except (OSError, ValueError, KeyError, TypeError):
        where = "and is just starting"
    raise MachineError(
        f"Another studio has this folder open, {where}.",
        where=outputs,
        do="Use that one, end it, or choose another folder with --outputs.",
    )


def free_port(address: str, first: int) -> int:
    """``first``, or the next port above it that nobody listens on.

    Raises:
        MachineError: a hundred ports in a row are taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket(family) as probe:
            if os.name != "nt":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.strip("[]"), port))
                return port
            except OSError:
                continue
    raise MachineError(
        f"The ports from {first} to {first + _PORTS - 1} are all taken.", where="--port", do="Name another one."
    )

"""The studio in the browser: its pages, its address, and its protection."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import webbrowser
from functools import partial
from pathlib import Path

import gradio as gr

from lora_studio import __version__, files, runs
from lora_studio.errors import MachineError, SettingsError
from lora_studio.jobs import warm
from lora_studio.jobs.renderer import Renderer
from lora_studio.language import tr
from lora_studio.locks import Lock
from lora_studio.runs import undo
from lora_studio.ui import endpoints, folds, handlers, help, icons, images, keys, security, tabs, translated, words
from lora_studio.ui.pages.draw.easel import Easel
from lora_studio.ui.pages.draw.page import DrawPage
from lora_studio.ui.pages.export import ExportPage
from lora_studio.ui.pages.library.page import LibraryPage
from lora_studio.ui.pages.mix.page import MixPage
from lora_studio.ui.pages.pictures.page import PicturesPage
from lora_studio.ui.pages.sweeps.page import SweepsPage
from lora_studio.ui.pages.train import page as train
from lora_studio.ui.sending import SendPanel
from lora_studio.ui.theme import html, theme

_HERE = Path(__file__).parent
STYLES = [
    _HERE / "styles" / f"{part}.css"
    for part in ("base", "form", "run", "runs", "library", "export", "mix", "draw", "pictures", "sweeps")
]
"""The rules of the page, in the order in which they apply."""
_FIRST_PORT, _PORTS = 7860, 100
_PORT_REFUSED = (errno.EADDRINUSE, errno.EACCES)
_DAY = 86_400


def build(outputs: Path = runs.OUTPUTS) -> gr.Blocks:
    """All pages of the studio, for the runs in ``outputs``."""
    outputs = outputs.resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(images.uploads(outputs))
    with translated.Page(
        partial(build, outputs),
        title="LoRA Studio",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_DAY, 7 * _DAY),
    ) as studio:
        with gr.Row(elem_classes="masthead"):
            version = words.text(tr("Version {version}", version=__version__))
            html(f'{keys.skip_links()}<h1 title="{version}">LoRA Studio</h1>', elem_classes="brand")
            pill = html(elem_id="pill")
            html(translated.choice(), js_on_load=translated.choosing(), elem_classes="languages")
            html(keys.dialog(__version__), js_on_load=keys.SCRIPT + folds.SCRIPT, elem_classes="helping")
        html(help.dialog(outputs), js_on_load=help.script(), elem_id="helps")
        mixed = gr.BrowserState({}, storage_key="lora-studio-mix", secret="lora-studio")
        drawn = gr.BrowserState({}, storage_key="lora-studio-draw", secret="lora-studio")
        renderer = Renderer(outputs, images.folder(outputs) / "drawn")
        easel = Easel(outputs, renderer)
        endpoints.expose(outputs, easel)  # before any handler takes the names
        with tabs.container() as all_tabs:
            with tabs.tab(tr("Pictures"), "pictures") as pictures_tab:
                pictures = PicturesPage(outputs)
            with tabs.tab(tr("Train"), "train") as train_tab:
                setup = train.build(studio, outputs, pill)
            with tabs.tab(tr("Draw"), "draw") as draw_tab:
                draw = DrawPage(outputs, easel, drawn)
            with tabs.tab(tr("Mix"), "mix") as tab:
                mix = MixPage(outputs, renderer, mixed)
                mix.wire(tab, studio)
            with tabs.tab(tr("Library"), "library") as tab:
                LibraryPage(outputs).wire(tab, all_tabs, setup)
            with tabs.tab(tr("Export"), "export") as tab:
                ExportPage(outputs).wire(tab)
            with tabs.tab(tr("Sweeps"), "sweeps") as tab:
                SweepsPage(outputs, setup).wire(tab, all_tabs)
        SendPanel(outputs)
        draw.wire(draw_tab, studio, all_tabs, mix)
        setup.draft.render()
        setup.looks_again(train_tab)
        pictures.wire(pictures_tab, all_tabs, setup)
        tabs.follow_address(studio, "train")
    handlers.prepare(studio)
    return studio


def launch(
    port: int | None = None,
    browser: bool = True,
    outputs: Path = runs.OUTPUTS,
    address: str = "127.0.0.1",
    login: tuple[str, str] | None = None,
) -> None:
    """Serves the studio until it is ended with Ctrl+C. Runs continue without it.

    Args:
        port: the port, 7860 by default; if it is in use, the next free one.
        browser: open the page in the browser.
        address: the network address to listen on; any other than the loopback needs ``login``.
        login: user name and password.

    Raises:
        SettingsError: an address for other machines without a login.
        MachineError: no port is free, ``outputs`` cannot be written, or another studio uses it.
    """
    security.require_login(address, login)
    _prepare(outputs)
    lock = claim(outputs)
    warm.enable(outputs.resolve())
    studio = build(outputs)
    port = free_port(address, port or _FIRST_PORT)
    try:
        serve(studio, outputs, address, port, login)
    except OSError:  # another studio that was started at the same moment took it
        serve(studio, outputs, address, free_port(address, port), login)
    url = studio.local_url
    assert url is not None  # gradio sets it where it serves
    lock.note(json.dumps({"address": url}))
    print(
        f"LoRA Studio is at {url.rstrip('/')}\nPress Ctrl+C to end it. Runs continue without it.",
        flush=True,
    )
    if browser:
        webbrowser.open(url)
    try:
        while studio.is_running:
            time.sleep(0.1)
    except KeyboardInterrupt:
        handlers.end(studio)


def serve(studio: gr.Blocks, outputs: Path, address: str, port: int, login: tuple[str, str] | None = None) -> gr.Blocks:
    """Starts serving ``studio`` in a thread, with all features off that contact other servers."""
    security.forbid_fetching()
    os.environ["no_proxy"] = ",".join(
        filter(None, [os.environ.get("no_proxy", ""), *security.LOOPBACK[:2]])
    )  # gradio asks its own server whether it is up
    studio._queue.sleep_when_free = (
        0.05  # gradio polls its queue a thousand times a second, which takes 6 % of a core that training needs
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
        _frontend=False,  # else a page that takes more than three seconds, on a busy machine, counts as out of reach
        footer_links=[],
        allowed_paths=[str(images.folder(outputs))],
        max_file_size=security.MAX_UPLOAD,
        app_kwargs={"middleware": security.middleware(address)},
        theme=theme(),
        css=icons.css(),
        css_paths=STYLES,
        head=translated.head() + tabs.HEAD,
        favicon_path=_HERE / "favicon.svg",
    )
    return studio


def _prepare(outputs: Path) -> None:
    runs.require_text(outputs)
    try:
        images.folder(outputs).mkdir(parents=True, exist_ok=True)
        images.sweep(outputs)
        undo.forget(outputs)
    except OSError as error:
        raise files.refusal(error, "The outputs folder cannot be written", outputs) from error


def claim(outputs: Path) -> Lock:
    """The lock that makes this studio the only one for ``outputs``. The process holds it until it ends.

    Raises:
        MachineError: another studio holds it; the message has its address.
    """
    lock = Lock(runs.studio_file(outputs))
    if lock.acquire():
        return lock
    try:
        where = f"at {json.loads(lock.path.read_text())['address'].rstrip('/')}"
    except (OSError, ValueError, KeyError, TypeError):
        where = "and is starting"
    raise MachineError(
        f"Another studio uses this folder, {where}.",
        where=outputs,
        do="Use that one, end it, or choose another folder with --outputs.",
    )


def free_port(address: str, first: int) -> int:
    """``first``, or the next higher port that is free.

    Raises:
        MachineError: a hundred ports in a row are in use.
        SettingsError: the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket(family) as probe:
            if os.name != "nt":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.strip("[]"), port))
                return port
            except (OSError, UnicodeError) as error:  # of names as well as of ports
                if getattr(error, "errno", None) in _PORT_REFUSED:
                    continue
                raise SettingsError(
                    f"The studio cannot listen on {address}, which is no address of this machine.",
                    where="--address",
                    do="Use 127.0.0.1 for this machine alone, or 0.0.0.0 for its network.",
                ) from error
    raise MachineError(
        f"The ports from {first} to {first + _PORTS - 1} are all in use.",
        where="--port",
        do="Choose another one.",
    )

"""A studio to test against: served in a process of its own, with runs whose worker is played by the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.jobs import identity, runner
from lora_studio.jobs.judging import JudgingJob
from tests.ui.played import Part

expect.set_options(timeout=60_000)
_ABSENT = (
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup"),  # two pages of the browser's own, loaded again with each of ours
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "PaintHolding"),
    *("HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable", "ThirdPartyStoragePartitioning"),
    *("LensOverlay", "MediaRouter", "Translate", "OptimizationHints", "NetworkTimeServiceQuerying"),
    *("AimEnabled", "PreconnectToSearch"),
)
"""Parts of Chromium that no test needs. The browser follows one such list: apart from the first two it is playwright's,
whose place it takes.
"""
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    *(f"--disable-{part}" for part in ("quic", "background-networking", "component-update", "sync")),
    f"--disable-features={','.join(_ABSENT)}",
]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Callable[..., Part]]:
    """Makes a run whose worker the test plays: ``part("name", outputs)``. When the test ends, the worker is gone."""
    played = []

    def make(name: str, outputs: Path | None = None, **settings: object) -> Part:
        played.append(
            Part(runs.create(Settings(**{"name": name, "data": "somewhere", **settings}), outputs or tmp_path))
        )
        return played[-1]

    yield make
    for one in played:
        one.run.worker_file.unlink(missing_ok=True)
        JudgingJob(one.run.judging).worker_file.unlink(missing_ok=True)  # it would keep the device from other tests


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of ten drawings, one with a caption that tries to be markup."""
    folder = tmp_path_factory.mktemp("drawings")
    for i in range(10):
        image = Image.new("RGB", (96, 96), "white")
        ImageDraw.Draw(image).ellipse((10 + i, 10, 80, 60 + 2 * i), fill=(20 * i, 90, 120))
        image.save(folder / f"drawing {i}.png")
        (folder / f"drawing {i}.txt").write_text(f"a round thing, number {i}")
    (folder / "drawing 0.txt").write_text("<img src=x onerror='document.title=\"owned\"'>")
    return folder


@dataclass
class Served:
    """A running studio."""

    url: str
    outputs: Path
    seconds: float
    """Processor time that it took until it answered."""
    trash: Path
    """Where deleted files go, on Linux; nothing of a test lands in the user's own."""


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The studio as a user starts it, on an outputs folder of its own."""
    outputs, home = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("home")
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    port = 7950 + 20 * number  # so that two workers of the tests do not compete for one
    imports = "from pathlib import Path; from lora_studio.ui.studio import launch"
    command = f"{imports}; launch({port}, False, Path({str(outputs)!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(home)},
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("LoRA Studio is at http://127.0.0.1:"), f"The studio did not start; it said {line!r}."
        times = psutil.Process(process.pid).cpu_times()
        yield Served(line.split()[-1], outputs, times.user + times.system, home / "Trash")
    finally:
        process.terminate()
        process.wait(60)
        for run in runner.at_work(outputs):  # of a test that failed: it would train on and slow all others
            if (noted := identity.read(run.worker_file)) and noted["pid"] != os.getpid():
                psutil.Process(noted["pid"]).kill()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path. Without one the tests fail: a page that was not seen was not tested."""
    named = os.environ.get("LORA_STUDIO_CHROMIUM")
    found = named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
    )
    if not found:
        pytest.fail("There is no Chromium. Install one, or name its program in LORA_STUDIO_CHROMIUM.")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=OPTIONS, ignore_default_args=["--hide-scrollbars"]
        )  # scrollbars take room, as they do on Windows and Linux
        yield browser
        browser.close()


_LEFT = (
    "BodyStreamBuffer was aborted",
    "Unexpected error Connection errored out.",
    "AbortError: signal is aborted without reason",
)
"""What gradio says as a page is reloaded or left, which ends its streams."""


def _is_fault(text: str) -> bool:
    return not any(one in text for one in _LEFT)


@pytest.fixture
def visit(browser: Browser, studio: Served) -> Iterator[Callable[..., Page]]:
    """Opens the studio in a fresh profile; at the end nothing may have been asked from elsewhere, and no script may
    have failed.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(90_000)  # a page loads for half a minute on a busy machine
    outside, faults = [], []

    def opened(**size: int) -> Page:
        page = context.new_page()
        if size:
            page.set_viewport_size(size)
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((studio.url, "data:", "blob:")) else outside.append(request.url)
            ),
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda got: faults.append(f"{got.status} {got.url}") if got.status >= 500 else None)
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{studio.url}#train")
        page.wait_for_selector("#start")
        return page

    yield opened
    context.close()
    assert not outside and not list(filter(_is_fault, faults))

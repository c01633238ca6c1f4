"""A Chromium for the tests of the page: the system's, else the one that playwright or apt can install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lora_studio.errors import MachineError

VARIABLE = "LORA_STUDIO_CHROMIUM"
"""Environment variable with the path of the Chromium that the tests use."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "{ProgramFiles}/Google/Chrome/Application/chrome.exe",
    "{ProgramFiles(x86)}/Microsoft/Edge/Application/msedge.exe",
)


def installed() -> str | None:
    """The installed Chromium: the one that the user names, the system's, or playwright's."""
    named = os.environ.get(VARIABLE)
    if named and Path(named).is_file():
        return named
    places = [place for place in map(_filled, _PLACES) if Path(place).is_file()]
    return next(filter(None, map(shutil.which, _NAMES)), None) or next(iter(places), None) or _of_playwright()


def require() -> str:
    """A Chromium, which is installed if there is none.

    Raises:
        MachineError: there is none, and neither playwright nor apt can install one.
    """
    if found := installed():
        return found
    said = []
    for way in _ways():
        print(f"No Chromium here; trying: {' '.join(way[-4:])}", file=sys.stderr, flush=True)
        done = subprocess.run(way, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
        if found := installed():
            return found
        said += [line.strip() for line in done.stdout.splitlines() if line.strip()][-1:]
    raise MachineError(
        "The tests of the page need a Chromium, and none could be installed: " + " / ".join(said),
        where="chromium",
        do=f"Install Chromium or Chrome, or name one in {VARIABLE}.",
    )


def _filled(place: str) -> str:
    """``place`` with its variable filled in, as Windows' folders need."""
    for variable in ("ProgramFiles", "ProgramFiles(x86)"):
        place = place.replace(f"{{{variable}}}", os.environ.get(variable, ""))
    return place


def _of_playwright() -> str | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def _ways() -> list[list[str]]:
    """The commands that may install a Chromium, the least invasive first."""
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        ways += [["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]]
    return ways

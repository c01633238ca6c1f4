"""Runs pip, shows its progress, and explains a failure in one sentence."""

from __future__ import annotations

import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from lora_studio.errors import MachineError

WITH_RAW_PROGRESS = (24, 1)
"""From this version on, pip reports the progress of a download to a pipe."""
LARGE = 20_000_000
"""A download of at least so many bytes is shown with its progress."""


def say(line: str) -> None:
    """Prints ``line`` to stderr."""
    print(line, file=sys.stderr, flush=True)


def version(site_packages: Path) -> tuple[int, int]:
    """Major and minor version of the installed pip; (0, 0) without one."""
    found = (
        re.match(r"(\d+)\.(\d+)", path.name.removeprefix("pip-")) for path in site_packages.glob("pip-*.dist-info")
    )
    return max(((int(one[1]), int(one[2])) for one in found if one), default=(0, 0))


def install(title: str, python: Path, site_packages: Path, arguments: list[str], log: Path) -> None:
    """Runs ``pip install`` and shows its progress under ``title``. Its output is appended to ``log``.

    Raises:
        MachineError: pip failed; the error names the cause where it is known, or pip's last lines.
    """
    bar = "raw" if version(site_packages) >= WITH_RAW_PROGRESS else "off"
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        f"--progress-bar={bar}",
        *arguments,
    ]
    environment = {**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    child = subprocess.Popen(
        command,
        env=environment,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        lines = _shown(title, child, site_packages, log)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.wait():
        raise explain(title, lines, log)


def _shown(title: str, child: subprocess.Popen[str], site_packages: Path, log: Path) -> list[str]:
    """Shows pip's progress until it ends. Returns the lines of its output."""
    assert child.stdout is not None, "pip's output is a pipe"
    out = child.stdout
    lines: list[str] = []
    source: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in out:
            source.put(line)
        source.put(None)

    threading.Thread(target=read, daemon=True).start()
    progress = InstallProgress(title, site_packages)
    with open(log, "a", encoding="utf-8") as file:
        while True:
            try:
                line = source.get(timeout=0.5)
            except queue.Empty:
                progress.tick()
                continue
            if line is None:
                progress.close()
                return lines
            progress.take(line.strip())
            if not line.startswith("Progress "):
                lines.append(line.rstrip())
                file.write(line)


class InstallProgress:
    """A progress line that is updated in place on a terminal; a few plain lines elsewhere."""

    def __init__(self, title: str, site_packages: Path):
        self.title, self.site_packages = title, site_packages
        self.terminal, self.began = sys.stderr.isatty(), time.monotonic()
        self.found, self.current, self.to_install, self.before = 0, "", 0, 0
        self._quarter, self._width = 0, 0
        if not self.terminal:
            say(f"{title} …")

    def take(self, line: str) -> None:
        """Updates the progress from a line of pip's output."""
        if line.startswith(("Collecting ", "Processing ")):
            self.found += 1
            self.tick()
        elif one := re.match(r"Downloading (?:\S*/)?([^\s/]+?)-\d\S* \((.+)\)", line):
            self.current, self._quarter = one[1], 0
            self.tick()
        elif one := re.match(r"Progress (\d+) of (\d+)", line):
            self._downloaded(int(one[1]), int(one[2]))
        elif one := re.match(r"Installing collected packages: (.+)", line):
            self.to_install, self.before = one[1].count(",") + 1, self._installed()
            self._plain(f"installing {self.to_install} package{'s' * (self.to_install > 1)}")

    def tick(self) -> None:
        """Shows the current progress."""
        if self.to_install:
            self._line(f"installing, {max(0, self._installed() - self.before)} of {self.to_install} packages")
        elif self.found:
            self._line(f"{self.found} found" + (f", downloading {self.current}" if self.current else ""))
        else:
            self._line("searching")

    def close(self) -> None:
        """Shows the time that the installation took."""
        seconds = f"{time.monotonic() - self.began:.0f} s"
        self._line(seconds)
        if self.terminal:
            print(file=sys.stderr)
        else:
            say(f"{self.title}: {seconds}")

    def _downloaded(self, done: int, total: int) -> None:
        if total < LARGE:
            return
        self._line(f"downloading {self.current}, {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        if (quarter := 4 * done // total) > self._quarter:
            self._quarter = quarter
            self._plain(f"downloading {self.current}, {25 * quarter} % of {total / 1e6:.0f} MB")

    def _installed(self) -> int:
        return sum(1 for _ in self.site_packages.glob("*.dist-info"))

    def _line(self, text: str) -> None:
        if self.terminal:
            line = f"{self.title}: {text}"[: shutil.get_terminal_size().columns - 1]
            print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(line)

    def _plain(self, text: str) -> None:
        if not self.terminal:
            say(f"{self.title}: {text}")


_NO_SPACE = ("No space left on device", "Errno 28", "WinError 112", "not enough space on the disk")
_NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "getaddrinfo failed",
    "ProxyError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Network is unreachable",
    "Connection refused",
    "Could not fetch URL",
    "SSLError",
    "Name or service not known",
)


def explain(title: str, lines: list[str], log: Path) -> MachineError:
    """The error for a failure of pip, from the ``lines`` of its output: what happened and what to do."""
    text = "\n".join(lines)
    if any(word in text for word in _NO_SPACE):
        return MachineError(
            f"The disk filled up while installing {title}.", where=log.parent, do="Free some space, then try again."
        )
    if any(word in text for word in _NO_NETWORK):
        return MachineError(
            f"The package index could not be reached to install {title}.",
            where=log,
            do="Connect to the internet, then try again.",
        )
    if missing := re.search(r"No matching distribution found for (\S+)", text):
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return MachineError(
            f"There is no {missing[1]} for {here}.",
            where=log,
            do="Run app.py with Python 3.12, which all packages support.",
        )
    return MachineError(f"pip could not install {title}.", where=log, do=f"pip's last lines: {tail(lines)}")


def tail(lines: list[str]) -> str:
    """The last lines with an error, or the last lines if none has one."""
    output = [line.strip() for line in lines if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in output if "error" in line.lower()]
    return " / ".join((errors or output)[-4:]) or "none."

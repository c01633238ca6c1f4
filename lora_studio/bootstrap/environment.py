"""The studio's ``.venv``: created, checked within milliseconds, repaired."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lora_studio.bootstrap import pip, torch_build, triton
from lora_studio.errors import MachineError

SPACE = 3 * 2**30
"""Bytes that the environment needs with a CPU build of PyTorch, including room for unpacking."""
SPACE_CUDA = 9 * 2**30
"""The same with a CUDA build."""
PIP = "pip==26.3"
_LOCK = ".lock"


class Environment:
    """The folder ``.venv`` in ``root``, with the packages of ``requirements.txt`` as ``constraints.txt`` pins them."""

    def __init__(self, root: Path):
        self.folder = root / ".venv"
        self.python = self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.stamp_file = self.folder / "lora-studio.json"
        self.requirements, self.constraints = root / "requirements.txt", root / "constraints.txt"

    def is_current(self) -> bool:
        """Whether this process runs in the environment."""
        return os.path.realpath(sys.prefix) == os.path.realpath(self.folder)

    def ready(self, extra: Path | None = None) -> bool:
        """Whether the packages of ``requirements.txt`` and of the file ``extra`` are installed. Takes milliseconds."""
        stamp, files = self._stamp(), [self.requirements, *([extra] if extra else [])]
        return bool(
            self.python.exists()
            and (stamp.get("machine"), stamp.get("python")) == (_machine(), self._real_python())
            and stamp.get("torch wanted") == torch_build.wanted()
            and all(stamp.get(maker, False) for maker in torch_build.cards())
            and all(stamp.get(file.name) == self._digest(file) for file in files)
            and not _missing(files, self._site_packages())
        )

    def prepare(self, extra: Path | None = None) -> None:
        """Creates or repairs the environment and installs the file ``extra``. Returns at once if nothing has changed. A
        second process waits for the first.

        Raises:
            MachineError: there is no venv module, no space or no network, or a package cannot be installed or
                imported.
        """
        if self.ready(extra):
            return
        if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
            package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            raise MachineError(
                "Python's venv module is missing.",
                where=sys.executable,
                do=f"On Debian and Ubuntu: sudo apt install {package}",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / _LOCK):
                if not self.ready(extra):
                    self._make(extra)
        except OSError as error:
            what, place = f"The environment cannot be written: {error.strerror}.", error.filename or self.folder
            raise MachineError(
                what,
                where=place,
                do="Check that there is room and that you may write there, or move the studio elsewhere.",
            ) from error

    def require_here(self) -> None:
        """Checks that the interpreter of this process has the required packages itself.

        Raises:
            MachineError: some are not installed.
        """
        from importlib.metadata import distributions

        here = {_normal(found.name) for found in distributions()}
        if missing := [name for name in pins(self.requirements) if name not in here]:
            where = f"{sys.executable}, since LORA_STUDIO_NO_VENV is set"
            raise MachineError(
                f"Not installed: {', '.join(missing)}.",
                where=where,
                do=f"Run pip install -r {self.requirements.name}, or unset the variable.",
            )

    def _make(self, extra: Path | None) -> None:
        began = time.monotonic()
        if not self.ready():
            pip.say("Setting up LoRA Studio's environment, once. If it is interrupted, run the same command again.")
            self._make_base()
        if extra:
            self._install("test requirements", "-r", str(extra))
            self._note(**{extra.name: self._digest(extra)})
        pip.say(f"The environment is ready after {time.monotonic() - began:.0f} s.")

    def _make_base(self) -> None:
        build = torch_build.choose()
        self._require_space(build)
        self._require_interpreter()
        _drop_half_installed(self._site_packages())
        self._renew_pip()
        build = self._install_torch(build)
        self._install("libraries", "-r", str(self.requirements))
        self._require_torch_starts()
        if torch_build.has_nvidia():
            self._bring_triton()
        self._note(
            **{
                "machine": _machine(),
                "python": self._real_python(),
                **dict.fromkeys(torch_build.cards(), True),
                "torch": build,
                "torch wanted": torch_build.wanted(),
                self.requirements.name: self._digest(self.requirements),
            }
        )

    def _renew_pip(self) -> None:
        """Upgrades an old pip, which can neither report the progress of a download nor resume one."""
        if pip.version(self._site_packages()) < pip.WITH_RAW_PROGRESS:
            try:
                self._install("a newer pip", "--upgrade", PIP)
            except MachineError:
                pip.say("No newer pip is available. Continuing with the installed one.")

    def _install(self, title: str, *arguments: str) -> None:
        constraints = ["-c", str(self.constraints)] if self.constraints.exists() else []
        pip.install(
            title, self.python, self._site_packages(), [*constraints, *arguments], log=self.folder / "install.log"
        )

    def _install_torch(self, build: str) -> str:
        """Installs torch first and exactly as pinned: a bare name or a range would download gigabytes of another build.
        Returns the build that was installed.
        """
        pin = next(
            line.strip() for line in self.requirements.read_text("utf-8").splitlines() if line.startswith("torch==")
        )
        if build != torch_build.DEFAULT:
            try:
                self._install(f"PyTorch for {build}", f"{pin}+{build}", "--extra-index-url", torch_build.INDEX + build)
                return build
            except MachineError:
                if os.name == "nt" or torch_build.wanted():
                    raise
            pip.say(
                "PyTorch's own index does not have it. Installing the package index's build, which supports NVIDIA "
                "cards on Linux, but not AMD's and Intel's."
            )
        self._install("PyTorch", pin)
        return torch_build.DEFAULT

    def _bring_triton(self) -> None:
        """What the fused kernels need and this machine lacks. Without it all works, more slowly."""
        try:
            if packages := triton.packages():
                self._install("what compiles the fused kernels", *packages)
        except MachineError as error:
            pip.say(f"The fused kernels cannot be compiled, so that training is slower: {error.what}")
        if sys.platform == "linux" and not (triton.headers(self.folder) or triton.fetch_headers(self.folder)):
            pip.say(f"Training would be faster with Python's headers. {triton.lacking(self.folder)}")

    def _require_space(self, build: str) -> None:
        need, free = SPACE if build in (torch_build.DEFAULT, "cpu") else SPACE_CUDA, shutil.disk_usage(self.folder).free
        if free < need and not (self._stamp() or any(_dists(self._site_packages()))):
            what = f"The environment needs about {need / 1e9:.0f} GB, but only {free / 1e9:.1f} GB are free."
            raise MachineError(what, where=self.folder, do="Free some space, or move the studio to another disk.")

    def _require_interpreter(self) -> None:
        """Recreates the environment if its Python does not run on this machine."""
        if self._stamp().get("machine", _machine()) == _machine() and self._python_runs():
            return
        if self.is_current():
            raise MachineError(
                "The environment that runs this command is damaged.",
                where=self.folder,
                do="Run app.py with the system's Python.",
            )
        pip.say(f"environment: creating {self.folder.name} with Python {platform.python_version()}")
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()
        done = subprocess.run([sys.executable, "-m", "venv", str(self.folder)], capture_output=True, text=True)
        if done.returncode or not self._python_runs():
            raise MachineError(
                "Python's venv module could not create the environment.",
                where=self.folder,
                do=pip.tail((done.stdout + done.stderr).splitlines()),
            )

    def _python_runs(self) -> bool:
        try:
            return subprocess.run([self.python, "-c", "import pip"], capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def _require_torch_starts(self) -> None:
        done = subprocess.run([self.python, "-c", "import torch"], capture_output=True, text=True)
        if done.returncode:
            windows = (
                " On Windows, install Microsoft's Visual C++ Redistributable (x64), then try again."
                if os.name == "nt"
                else ""
            )
            raise MachineError(
                "PyTorch is installed but cannot be imported.",
                where=self.folder,
                do=pip.tail(done.stderr.splitlines()[-1:]) + windows,
            )

    def _stamp(self) -> dict[str, object]:
        try:
            stamp = json.loads(self.stamp_file.read_text("utf-8"))
            return stamp if isinstance(stamp, dict) else {}
        except (OSError, ValueError):
            return {}

    def _note(self, **facts: object) -> None:
        """Adds ``facts`` to the stamp atomically: a crash leaves the old one."""
        partial = self.stamp_file.with_suffix(".partial")
        partial.write_text(json.dumps({**self._stamp(), **facts}, indent=1), "utf-8")
        os.replace(partial, self.stamp_file)

    def _real_python(self) -> str:
        """The interpreter that the environment's link leads to. After a system upgrade it may be another one, which
        does not find the packages.
        """
        return os.path.realpath(self.python)

    def _digest(self, requirements: Path) -> str:
        constraints = self.constraints.read_bytes() if self.constraints.exists() else b""
        return hashlib.sha256(requirements.read_bytes() + constraints).hexdigest()

    def _site_packages(self) -> Path:
        if os.name == "nt":
            return self.folder / "Lib" / "site-packages"
        return next(self.folder.glob("lib/python3*/site-packages"), self.folder / "lib")


def _machine() -> str:
    """The platform that packages are built for."""
    return f"{sys.platform} {platform.machine()}"


def _dists(site_packages: Path) -> Iterator[tuple[str, str]]:
    """The normalized name and the version of every installed package."""
    names = os.listdir(site_packages) if site_packages.is_dir() else []
    for name in names:
        if name.endswith(".dist-info"):
            package, _, version = name.removesuffix(".dist-info").partition("-")
            yield _normal(package), version.partition("+")[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(requirements: Path) -> dict[str, str]:
    """Package name -> pinned version, from a requirements file."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    return {_normal(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def _missing(files: list[Path], site_packages: Path) -> set[tuple[str, str]]:
    return {pin for file in files for pin in pins(file).items()} - set(_dists(site_packages))


def _drop_half_installed(site_packages: Path) -> None:
    """Removes what an interrupted pip left. A package without its list of files would count as installed."""
    for entry in list(site_packages.iterdir()):
        if entry.name.startswith("~") or (entry.name.endswith(".dist-info") and not (entry / "RECORD").exists()):
            shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Holds a lock on ``path``, after waiting for other holders. The system releases it if the process dies."""
    with open(path, "a+") as file:
        waiting = False
        while not _try_lock(file):
            if not waiting:
                pip.say("Another process is setting up the environment; waiting for it.")
            waiting = True
            time.sleep(0.5)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False

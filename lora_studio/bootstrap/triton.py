"""What Triton, which compiles the fused kernels for NVIDIA cards, needs besides PyTorch. The standard library alone.

On Windows PyTorch comes without it; the package ``triton-windows`` brings a compiler and headers of its own. On Linux
Triton compiles one small C extension before its first kernel, and desktops often have no compiler, or no headers of
Python's. Zig's package brings a C compiler and the C library's headers; the distribution's package of Python's headers
is unpacked into the environment, for which nobody has to be root.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

WINDOWS, ZIG = "triton-windows", "ziglang"
"""Packages; ``constraints.txt`` has their versions."""
_ABOUT = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_PATIENCE = 120.0
"""Seconds for fetching the headers."""


def packages() -> list[str]:
    """The packages that this machine needs for it, if it has an NVIDIA card."""
    if sys.platform == "win32":
        return [WINDOWS] if platform.machine() == "AMD64" else []
    return [ZIG] if sys.platform == "linux" and not _system_compiler() else []


def complete() -> bool:
    """Whether the system has all that Triton needs."""
    return os.name == "nt" or bool(_system_compiler() and (_system_headers() / "Python.h").is_file())


def compiler() -> list[str]:
    """The command of a C compiler that takes gcc's options; empty if there is none. The system's comes first."""
    if found := _system_compiler():
        return [found]
    return [sys.executable, "-m", ZIG, "cc"] if find_spec(ZIG) else []


def headers(environment: Path) -> list[str]:
    """The folders of Python's headers: the system's, else those in the ``environment``; empty if there are none."""
    if (_system_headers() / "Python.h").is_file():
        return [str(_system_headers())]
    ours = _folder(environment)
    return [str(ours / _ABOUT), str(ours)] if (ours / _ABOUT / "Python.h").is_file() else []


def fetch_headers(environment: Path) -> bool:
    """Unpacks the headers of Debian's or Ubuntu's Python into the ``environment``; returns whether they are there."""
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        return False
    try:
        with tempfile.TemporaryDirectory() as place:
            _run("apt-get", "download", f"lib{_ABOUT}-dev", cwd=place)
            for package in Path(place).glob("*.deb"):
                _run("dpkg-deb", "-x", str(package), place, cwd=place)
            target = _folder(environment)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(place, "usr", "include"), target)
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(headers(environment))


def lacking(environment: Path) -> str:
    """What Linux lacks to compile the extension, and how to install it, as a sentence; empty if nothing."""
    if sys.platform != "linux":
        return ""
    if not headers(environment):
        return f"Install Python's headers: sudo apt install {_ABOUT}-dev, or sudo dnf install python3-devel."
    return "" if compiler() else f"Install a C compiler, such as gcc, or the package {ZIG}."


def build(
    name: str, source: str, folder: str, library_dirs: list[str], include_dirs: list[str], libraries: list[str]
) -> str:
    """Compiles a C extension for this Python; the arguments are those of ``triton.knobs.build.impl``.

    Returns:
        The path of the shared library, in ``folder``.

    Raises:
        RuntimeError: there is no compiler or there are no headers; or compiling failed, with the compiler's words.
    """
    command, python = compiler(), headers(Path(sys.prefix))
    if not (command and python):
        raise RuntimeError(lacking(Path(sys.prefix)))
    made = os.path.join(folder, name + sysconfig.get_config_var("EXT_SUFFIX"))
    places = [f"-I{one}" for one in (*include_dirs, folder, *python) if one] + [f"-L{one}" for one in library_dirs]
    linked = [_library(one, library_dirs) for one in libraries]
    done = subprocess.run(
        [*command, source, "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", made, *places, *linked],
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise RuntimeError(f"{os.path.basename(command[0])} cannot compile {name}: {done.stderr.strip()[-500:]}")
    return made


def _system_compiler() -> str:
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or ""


def _system_headers() -> Path:
    return Path(sysconfig.get_path("include", "posix_prefix"))


def _library(name: str, folders: list[str]) -> str:
    """How it is linked. One that is named with its ending, such as ``libcuda.so.1``, as a path: Zig does not know gcc's
    ``-l:``.
    """
    if ".so" not in name and not name.endswith(".a"):
        return f"-l{name}"
    return next((path for folder in folders if os.path.exists(path := os.path.join(folder, name))), f"-l:{name}")


def _folder(environment: Path) -> Path:
    return environment / "python-headers"


def _run(*command: str, cwd: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)

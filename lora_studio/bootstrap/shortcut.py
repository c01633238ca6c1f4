"""Puts the studio where the system lists its programs. The standard library alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lora_studio.errors import MachineError

NAME = "LoRA Studio"
_ICON = Path("lora_studio", "ui", "favicon.svg")


def place(home: Path) -> Path:
    """Where this system has a user's programs: the start menu, the folder of applications, or the desktop entries."""
    if os.name == "nt":
        start_menu = Path(os.environ.get("APPDATA", home / "AppData" / "Roaming"), "Microsoft", "Windows", "Start Menu")
        return start_menu / "Programs" / f"{NAME}.lnk"
    if sys.platform == "darwin":
        return home / "Applications" / f"{NAME}.command"
    data = os.environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return Path(data, "applications", "lora-studio.desktop")


def install(root: Path, home: Path) -> Path:
    """Makes the shortcut that opens the studio in ``root``, in place of an older one; returns its path.

    Raises:
        MachineError: Windows does not make it.
        OSError: the folder cannot be written.
    """
    path = place(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":
        _link(path, root / "start.bat", root)
    elif sys.platform == "darwin":
        path.write_text(f"#!/bin/sh\nexec {_quoted(root / 'start.command')}\n", "utf-8")
        path.chmod(0o755)
    else:
        path.write_text(desktop_entry(root), "utf-8")
    return path


def desktop_entry(root: Path) -> str:
    """An entry as the Desktop Entry Specification 1.5 has it. It opens a terminal, which shows what is installed, and
    whose closing ends the studio.
    """
    return "\n".join(
        (
            "[Desktop Entry]",
            "Type=Application",
            f"Name={NAME}",
            "Comment=Train, draw with and mix style LoRAs",
            f"Exec={_argument(root / 'start.command')}",
            f"Path={_text(root)}",
            f"Icon={_text(root / _ICON)}",
            "Terminal=true",
            "Categories=Graphics;",
            "",
        )
    )


def _text(value: Path | str) -> str:
    """A value of the entry: a backslash begins an escape."""
    return str(value).replace("\\", "\\\\")


def _argument(path: Path) -> str:
    """``path`` as one argument of ``Exec``: in quotes, since folders' names have spaces, and with % doubled."""
    quoted = "".join(f"\\{letter}" if letter in '"`$\\' else letter for letter in str(path))
    return _text(f'"{quoted}"').replace("%", "%%")


def _quoted(path: Path) -> str:
    """``path`` as one word of a shell's."""
    return "'" + str(path).replace("'", "'\\''") + "'"


def _link(path: Path, target: Path, folder: Path) -> None:
    """A shortcut of Windows', which only its own objects write."""
    names = {"LINK": path, "TARGET": target, "FOLDER": folder}
    script = (
        "$link = (New-Object -ComObject WScript.Shell).CreateShortcut($env:LINK); "
        "$link.TargetPath = $env:TARGET; $link.WorkingDirectory = $env:FOLDER; $link.Save()"
    )
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", script]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **{name: str(value) for name, value in names.items()}},
            capture_output=True,
            text=True,
            timeout=60,
        )
        why = "" if done.returncode == 0 and path.exists() else done.stderr.strip() or "PowerShell made no file"
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
    if why:
        raise MachineError(
            f"Windows did not make the shortcut: {why}.", where=path, do=f"Double-click {target} to open the studio."
        )

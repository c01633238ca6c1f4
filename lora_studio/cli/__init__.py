"""The command line: ``python3 app.py [COMMAND]``. Without a command it opens the studio.

Results go to standard output, progress and problems to standard error. Exit status: 0 done, 1 a fault of the studio,
2 a problem that the user can fix, 130 ended with Ctrl+C.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from inspect import isfunction
from pathlib import Path
from typing import Annotated, TypeGuard

import typer

from lora_studio import __version__, errors, files
from lora_studio.cli import (
    add,
    analyze,
    blend,
    caption,
    check,
    checkpoints,
    compare,
    convert,
    doctor,
    download,
    extract,
    generate,
    grid,
    inspect,
    judge,
    masks,
    merge,
    pictures,
    quickstart,
    recipe,
    resize,
    resume,
    send,
    shortcut,
    stop,
    strip,
    sweep,
    tags,
    test,
    train,
)
from lora_studio.cli.options import Outputs
from lora_studio.errors import SettingsError, StudioError
from lora_studio.jobs import environment
from lora_studio.runs import OUTPUTS

LOOPBACK = "127.0.0.1"
"""The address that only this machine can connect to."""

app = typer.Typer(
    name="app.py", no_args_is_help=False, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command(epilog=train.settings_help())(train.train)
for command in (
    resume.resume,
    stop.stop,
    checkpoints.checkpoints,
    generate.generate,
    strip.strip,
    grid.grid,
    pictures.pictures,
    tags.tags,
    caption.caption,
    judge.judge,
    compare.compare,
    sweep.sweep,
    blend.blend,
    resize.resize,
    analyze.analyze,
    convert.convert,
    send.send,
    merge.merge,
    extract.extract,
    add.add,
    check.check,
    inspect.inspect,
    recipe.recipe,
    masks.masks,
    quickstart.quickstart,
    download.download,
    doctor.doctor,
    shortcut.shortcut,
):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(test.test)
COMMANDS = [info.callback.__name__ for info in app.registered_commands if isfunction(info.callback)]


@app.callback(invoke_without_command=True)
def studio(
    context: typer.Context,
    outputs: Outputs = OUTPUTS,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page.", show_default="7860, or the next free one")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the browser.")] = False,
    address: Annotated[
        str,
        typer.Option(
            help="Network address to listen on. Any other than this machine's own needs "
            "LORA_STUDIO_LOGIN=NAME:PASSWORD in the environment.",
        ),
    ] = LOOPBACK,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Train, mix and export style LoRAs for Stable Diffusion. Without a command: open the studio in the browser."""
    if context.invoked_subcommand:
        if outputs != OUTPUTS or port or no_browser or address != LOOPBACK:
            raise SettingsError(
                "Options of the studio cannot be combined with a command.",
                do=f"Write the options of {context.invoked_subcommand} after its name.",
            )
    elif version:
        print(f"LoRA Studio {__version__}")
    else:
        from lora_studio.ui.studio import launch

        launch(port, not no_browser, outputs, address, _login())


def _login() -> tuple[str, str] | None:
    """The name and the password that the page asks for; None if it asks for none.

    Raises:
        SettingsError: ``LORA_STUDIO_LOGIN`` has another form.
    """
    if not (text := os.environ.get("LORA_STUDIO_LOGIN", "")):
        return None
    name, _, password = text.partition(":")
    if not (name and password):
        raise SettingsError(
            "The login must be a name and a password with a colon between them.",
            where="LORA_STUDIO_LOGIN",
            do="Set it to NAME:PASSWORD, or unset it.",
        )
    return name, password


def _is_refusal(error: Exception) -> TypeGuard[OSError]:
    """Whether the disk refused a file for a reason that is not a fault of the studio, such as a name that is too
    long.
    """
    ours = isinstance(error, FileNotFoundError | FileExistsError)
    return isinstance(error, OSError) and isinstance(error.filename, str) and not ours


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status. A problem that the user can fix is reported in one message,
    without a traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    for name, value in environment.PATIENT.items():  # commands that draw images do so in this process
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a Windows console cannot print all letters of captions
    try:
        return app(arguments, prog_name="app.py", standalone_mode=False) or 0
    except StudioError as error:
        return errors.report(error, as_json)
    except typer.TyperException as error:
        command = next((f" {word}" for word in arguments if word in COMMANDS), "")
        what = f"{error.format_message().rstrip('.')}."  # typer ends some messages with a full stop and others without
        return errors.report(SettingsError(what, do=f"python3 app.py{command} --help lists all options."), as_json)
    except typer.Abort:
        return 130
    except Exception as error:  # the last place where a fault can still reach the user
        if _is_refusal(error):
            return errors.report(files.refusal(error, "The command cannot continue", Path(error.filename)), as_json)
        traceback.print_exc()
        errors.report(
            StudioError(
                f"Internal error: {type(error).__name__}: {error}",
                do="Nothing that was saved is lost. Please report this with the traceback above.",
            ),
            as_json,
        )
        return 1

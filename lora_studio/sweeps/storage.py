"""Where Optuna keeps a study's trials: a database, or a journal for files that are shared over a network."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from lora_studio.errors import MachineError, RunError
from lora_studio.language import tr
from lora_studio.sweeps.study import Study

HEARTBEAT, SILENCE = 30, 120
"""Seconds between two signs of life of a trial in a database, and after which it counts as dead on other machines."""
_PATIENCE = 60.0
"""Seconds that one process waits for others to write."""


def opened(study: Study) -> BaseStorage:
    """The study's storage. Raises what libraries raise: to be called within ``explained``."""
    place = study.plan.storage or str(study.database)
    if "://" not in place and Path(place).suffix in (".log", ".journal"):
        return JournalStorage(JournalFileBackend(place, JournalFileOpenLock(place)))
    if "://" not in place:
        from sqlalchemy.engine import URL

        place = URL.create("sqlite", database=place).render_as_string(hide_password=False)
    if not place.startswith("sqlite"):
        return RDBStorage(place, heartbeat_interval=HEARTBEAT, grace_period=SILENCE)
    how = {"connect_args": {"timeout": _PATIENCE}}
    made = RDBStorage(place, engine_kwargs=how, heartbeat_interval=HEARTBEAT, grace_period=SILENCE)
    _write_one_at_a_time(made)
    return made


def _write_one_at_a_time(storage: RDBStorage) -> None:
    """Lets every transaction on an SQLite file begin with the lock for writing. SQLite knows no lock on a row, and
    Python's module begins a transaction only with its first change: two processes that find a trial waiting would both
    take it.
    """
    from sqlalchemy import event

    @event.listens_for(storage.engine, "connect")
    def leave_transactions_alone(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def take_the_lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def explained(study: Study, *more: type[Exception]) -> Generator[None]:
    """Turns errors of the storage, and of the kinds ``more``, into the studio's.

    Raises:
        RunError, MachineError: as ``TrialStore``.
    """
    place = study.plan.storage or study.database
    try:
        yield
    except ImportError as error:
        do = tr("Install the driver of that database, or use a file.")
        if error.name:
            do = tr("Install {name}, or use a file.", name=error.name)
        raise MachineError(tr("The storage needs a library that is not installed."), where=place, do=do) from error
    except (optuna.exceptions.OptunaError, _database_error(), *more) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        what = tr("The study's storage cannot be used: {why}.", why=why)
        raise RunError(
            what, where=place, do=tr("Check that its disk or server is there and may be written.")
        ) from error


def _database_error() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError

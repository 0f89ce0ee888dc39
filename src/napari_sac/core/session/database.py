"""The database of a session's journal: who may open it, and what it must look like."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_sac.core.errors import OutputError, SessionError, reason_of
from napari_sac.core.session.layout import JOURNAL, LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = {
    "facts": "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "annotations": "CREATE TABLE annotations (number INTEGER PRIMARY KEY, "
    "image TEXT, tables BLOB, written INTEGER)",
    "log": "CREATE TABLE log (entry INTEGER PRIMARY KEY, kind TEXT, step INTEGER, "
    "annotation INTEGER, time REAL, change BLOB)",
}
_LOCK_SECONDS = 5
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
WRONG_VALUES = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    # JSON that is nested too deep
    RecursionError,
)

BUSY = "This session is open in another viewer, so it was opened read-only."


def take_lock(
    folder: Path, *, seconds: float = 0
) -> tuple[FileLock | None, str | None]:
    """Return the lock, or why it is not to be had in that time."""
    forbidden = f"{folder} cannot be written to, so it was opened read-only."
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return None, BUSY
    except (OSError, NotImplementedError) as error:
        # a network drive, where nobody could tell who else writes there
        may_not = isinstance(error, OSError) and error.errno in _FORBIDDEN
        reason = reason_of(error)
        return None, forbidden if may_not else (
            f"{folder} is on a drive that cannot lock files ({reason}), so it was "
            "opened read-only."
        )
    if all(os.access(place, os.W_OK) for place in (folder, folder / JOURNAL)):
        return lock, None
    lock.release()
    return None, forbidden


def is_busy(folder: Path) -> bool:
    """Return whether another viewer has a session open."""
    lock, reason = take_lock(folder)
    if lock is not None:
        lock.release()
    return reason is BUSY


def connect(folder: Path, *, in_place: bool, whole: bool = True) -> sqlite3.Connection:
    """Return a connection to the journal, or to a copy where nobody may write.

    Parameters
    ----------
    folder : Path
    in_place : bool
    whole : bool, optional
        Whether all of the file is checked for damage, which takes the longer the longer
        the log is; not to have a short look at what is in it.
    """
    with reading(folder):
        if in_place:
            return _open_database(folder / JOURNAL, whole=whole)
        with tempfile.TemporaryDirectory() as scratch:
            for name in (JOURNAL, f"{JOURNAL}-wal"):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, Path(scratch) / name)
            with closing(_open_database(Path(scratch) / JOURNAL)) as copied:
                connection = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                copied.backup(connection)
                return connection


def _open_database(file: Path, *, whole: bool = True) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{sqlite_uri(file)}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=_LOCK_SECONDS,
        # it is read in one thread and then written in another, never in both at once
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        found = connection.execute("SELECT name, sql FROM sqlite_master").fetchall()
        # a table could be a view that never ends
        if dict(found) != TABLES or len(found) != len(TABLES):
            raise ValueError("it has other tables than a journal")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        if file.stat().st_size % page:
            raise ValueError("it was cut short")
        if whole:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise ValueError(str(verdict))
        prepare(connection)
    except (sqlite3.Error, ValueError, OSError):
        connection.close()
        raise
    return connection


def sqlite_uri(file: PurePath) -> str:
    """Return the address of a file as SQLite understands it, on Windows shares too."""
    uri = file.as_uri()
    # a share is //server/share: SQLite takes no server, only a path
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def prepare(connection: sqlite3.Connection) -> None:
    """Make what is written durable."""
    connection.execute("PRAGMA journal_mode = WAL")
    # a line is on the disk, not only with the operating system, when it was written
    connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what damaged or hostile files cause into a ``SessionError``."""
    try:
        yield
    except (sqlite3.Error, *WRONG_VALUES, OSError) as error:
        reason = reason_of(error)
        raise SessionError(
            f"The session {folder} is damaged, or cannot be read ({reason}). Nothing "
            "was changed; open a copy of the session, if there is one."
        ) from error


@contextmanager
def writing(folder: Path, *, waiting: int = 0) -> Iterator[None]:
    """Turn what a full disk causes into an ``OutputError``; say what is waiting."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.Error, OSError) as error:
        reason = reason_of(error)
        kept = (
            f"The last {waiting} changes are in memory only, and are written with the "
            "next one"
            if waiting
            else "What was written before is kept"
        )
        raise OutputError(
            f"The session {folder} cannot be written ({reason}). {kept}; make space "
            "on the disk, or save the session into another folder."
        ) from error

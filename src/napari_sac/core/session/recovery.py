"""Sessions that nobody has saved yet, and those that were not closed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.core.errors import SessionError
from napari_sac.core.io import atomic_path, data_folder
from napari_sac.core.session.database import connect, is_busy, reading
from napari_sac.core.session.image import ImageReference
from napari_sac.core.session.layout import JOURNAL, SUFFIX, check_folder, is_session

if TYPE_CHECKING:
    import sqlite3

_NOTE_ENDING = ".open.json"
_MAX_NOTE_BYTES = 1 << 16
_OFFERED_FOR = timedelta(days=30)


@dataclass(frozen=True)
class Unclosed:
    """A session with work that nobody saved, or whose program was killed.

    Parameters
    ----------
    folder : Path
    changed : datetime
        When the last step was written, in UTC.
    images : tuple of str
        Names of the images that it is about; none if it cannot be read.
    """

    folder: Path
    changed: datetime
    images: tuple[str, ...]


def sessions_folder() -> Path:
    """Return where sessions are that were not saved yet; may not exist yet."""
    return data_folder() / "sessions"


def new_session_folder() -> Path:
    """Return a folder that does not exist yet, for a session that nobody has named."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return sessions_folder() / f"{now}-{secrets.token_hex(3)}{SUFFIX}"


def is_unsaved(folder: Path) -> bool:
    """Return whether a session is one that nobody has saved."""
    return folder.absolute().parent == sessions_folder().absolute()


def remember(folder: Path) -> None:
    """Note that a session elsewhere is open, so that it is found after a kill.

    Raises
    ------
    OutputError
        If the note cannot be written.
    """
    if is_unsaved(folder):
        return
    text = json.dumps({"folder": str(folder.absolute())})
    with atomic_path(_note(folder)) as partial:
        partial.write_text(text, encoding="utf-8")


def forget(folder: Path) -> None:
    """Take back :func:`remember`."""
    with suppress(OSError):
        _note(folder).unlink(missing_ok=True)


def find_unclosed() -> list[Unclosed]:
    """Return the sessions that were not closed and that no viewer has open.

    The one changed last comes first. Sessions without an image are left out.
    """
    found = []
    for folder in _candidates():
        if not is_session(folder):
            # a drive that is not there now may be there the next time
            # nor is one that gives no access, of which pathlib raises
            if _can_look(folder.parent) and (
                not os.path.isdir(folder) or _can_look(folder)
            ):
                forget(folder)
            continue
        session = _look_at(folder)
        if session is not None:
            found.append(session)
        elif not is_busy(folder):
            forget(folder)
    return sorted(found, key=lambda s: s.changed, reverse=True)


def _can_look(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.X_OK)


def discard(folder: Path) -> None:
    """Delete a session that nobody has saved; another one is only forgotten.

    Raises
    ------
    SessionError
        If a viewer has it open.
    """
    if is_session(folder) and is_busy(folder):
        raise SessionError(
            f"The session {folder} is open in a viewer and was not deleted. Close it "
            "there first."
        )
    forget(folder)
    if is_unsaved(folder):
        shutil.rmtree(folder, ignore_errors=True)


def discard_old(keep: int = 20) -> None:
    """Delete sessions that were never saved, but for the last ones.

    Those that can still be restored go only after a month without a change.

    Parameters
    ----------
    keep : int, optional
        How many to keep, so that closing without saving can be regretted.
    """
    folders = [(_changed(f), f) for f in _own_sessions() if not is_busy(f)]
    long_ago = datetime.now(UTC) - _OFFERED_FOR
    for changed, folder in sorted(folders, reverse=True)[keep:]:
        if changed < long_ago or _look_at(folder) is None:
            discard(folder)


def _candidates() -> list[Path]:
    folders = _own_sessions()
    for note in sessions_folder().glob(f"*{_NOTE_ENDING}"):
        try:
            folder = Path(json.loads(note.read_bytes()[:_MAX_NOTE_BYTES])["folder"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            folder = None
        # the name is made from the folder, so a note says nothing else
        if folder is not None and _note(folder) == note:
            folders.append(folder)
    return folders


def _own_sessions() -> list[Path]:
    return [f for f in sessions_folder().glob(f"*{SUFFIX}") if is_session(f)]


def _note(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return sessions_folder() / f"{name}{_NOTE_ENDING}"


def _look_at(folder: Path) -> Unclosed | None:
    """Return what is in a session, or None if it was closed, is open, or is empty."""
    if is_busy(folder):
        return None
    try:
        check_folder(folder)
        # who opens it has all of it checked
        opened = connect(folder, in_place=True, whole=False)
        with reading(folder), closing(opened) as connection:
            return _describe(folder, connection)
    except SessionError:
        return Unclosed(folder, _changed(folder), ())


def _describe(folder: Path, connection: sqlite3.Connection) -> Unclosed | None:
    closed = "SELECT count(*) FROM facts WHERE name = 'closed' AND value = '1'"
    if connection.execute(closed).fetchone()[0]:
        return None
    texts = connection.execute("SELECT image FROM annotations ORDER BY number")
    images = tuple(ImageReference.from_json(text).name for (text,) in texts)
    if not images:
        return None
    (last,) = connection.execute("SELECT max(time) FROM log").fetchone()
    changed = _changed(folder) if last is None else datetime.fromtimestamp(last, UTC)
    return Unclosed(folder, changed, images)


def _changed(folder: Path) -> datetime:
    """Return when a session's journal was last written to."""
    return datetime.fromtimestamp((folder / JOURNAL).stat().st_mtime, UTC)

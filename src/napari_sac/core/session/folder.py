"""Save and open sessions: folders that a person has named."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.core.errors import OutputError, SessionError, reason_of
from napari_sac.core.folders import whole_folder
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.database import is_busy
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.layout import SUFFIX, is_session
from napari_sac.core.session.recovery import discard, forget, remember

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from napari_sac.core.progress import Progress


def open_session(folder: str | Path) -> Journal:
    """Open a session; it is offered at the next start, should it not be closed.

    Returns
    -------
    Journal
        With ``read_only`` and the reason, if another viewer has the session or its
        folder may not be written to. :func:`copy_session` makes one to go on with.

    Raises
    ------
    SessionError
        If it is no session, is damaged, or is from a newer version.
    """
    journal = Journal.open(folder)
    if not journal.read_only:
        # a session that cannot be offered later can still be worked on
        with suppress(OutputError):
            remember(journal.folder)
    return journal


def save_as(
    journal: Journal,
    folder: str | Path,
    labels_by_annotation: Mapping[int, npt.NDArray[np.uint32]],
) -> Journal:
    """Save a session, and go on in the folder saved to.

    Parameters
    ----------
    journal : Journal
        Closed afterwards, and deleted if nobody had saved it, unless it is itself what
        is saved to.
    folder : str or Path
        A name without ``.sac`` gets it. A session that is there is replaced.
    labels_by_annotation : mapping of int to (H, W) uint32
        As for :meth:`Journal.flush`. On a full disk they need not be written where the
        session was, for what they lack is in its log.

    Returns
    -------
    Journal
        Of ``folder``; ``journal`` itself if it is there already.

    Raises
    ------
    OutputError
        If it cannot be written, something else has that name, or the work cannot go on
        there: then it has a copy.
    SessionError
        If a session of that name is open elsewhere. In either case ``journal`` goes on.
    """
    target = session_path(folder)
    here = is_same(target, journal.folder)
    if not journal.read_only:
        try:
            journal.flush(labels_by_annotation)
        except OutputError:
            # what the labels lack is in the log, unless lines of that wait too
            if here or journal.unsaved:
                raise
        if here:
            return journal
    saved = copy_session(journal, target)
    move(journal, saved)
    if not journal.read_only:
        discard(journal.folder)
    return saved


def move(journal: Journal, copy: Journal) -> None:
    """Go on in a copy of a session, with what was written to the session meanwhile.

    Parameters
    ----------
    journal : Journal
        Closed afterwards. If nobody had saved it, it is to be deleted, which for many
        files takes long.
    copy : Journal
        What :func:`copy_session` has made of it.

    Raises
    ------
    OutputError
        If the copy cannot be written; it is given up, and ``journal`` goes on.
    """
    try:
        with _writing(copy.folder):
            copy.take_over(journal)
    except OutputError as error:
        raise OutputError(f"{error} {give_up(copy)}") from error
    _close(journal)


def give_up(copy: Journal) -> str:
    """Close a copy of a session that nobody goes on in; return what it is good for.

    It stays: a session that was there before is gone.
    """
    _close(copy)
    return f"{copy.folder} has the work as it was when it was copied."


def let_go(journal: Journal) -> None:
    """Close a journal that another one has taken the place of, and delete it."""
    _close(journal)
    if not journal.read_only:
        discard(journal.folder)


def _close(journal: Journal) -> None:
    # what a full disk keeps this one from noting, the other one has
    with suppress(OutputError):
        journal.close(clean=True)
    if not journal.read_only:
        # else it is another viewer's
        forget(journal.folder)


def copy_session(
    journal: Journal, folder: str | Path, progress: Progress = ignore_progress
) -> Journal:
    """Copy what a journal has on disk to another folder, and open that.

    It may run beside the thread that goes on writing to the journal. With :func:`move`
    the work goes on in the copy.

    Parameters
    ----------
    journal : Journal
    folder : str or Path
        A name without ``.sac`` gets it. A session that is there is replaced.
    progress : Progress, optional
        Where it stops the work, nothing is left behind.

    Raises
    ------
    OutputError, SessionError
        As :func:`save_as`.
    """
    target = session_path(folder)
    # it may lie where one may not look
    with _writing(target):
        _check_target(target)
        with whole_folder(target) as partial:
            journal.copy_to(partial, progress)
            # it took long: somebody may have opened what is there
            _check_target(target)
    copy = open_session(target)
    if copy.read_only:
        copy.close(clean=True)
        raise OutputError(
            f"The session was copied to {target}, but the work cannot go on there: "
            f"{copy.read_only_reason} It goes on where it was; save it on another "
            "drive too."
        )
    return copy


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn what a full disk causes into a sentence about the folder to save to."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"The session could not be saved as {target} ({reason_of(error)}). The "
            "work is kept, and goes on where it was; choose a folder that you may "
            "write to and that has space left."
        ) from error


def session_path(folder: str | Path) -> Path:
    """Return the folder with the ending that sessions have."""
    path = Path(folder).absolute()
    if path.suffix.lower() == SUFFIX:
        return path
    return path.with_name(path.name + SUFFIX)


def _check_target(target: Path) -> None:
    around = next((place for place in target.parents if is_session(place)), None)
    if around is not None:
        # replacing the one around it would delete it
        raise OutputError(
            f"{target} lies inside the session {around.name}. Nothing was written; "
            "choose a folder beside it."
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not is_session(target):
        raise OutputError(
            f"{target} is there already and is no session. Nothing was written; choose "
            "another name."
        )
    if is_busy(target):
        raise SessionError(
            f"{target} is open in a viewer and was not replaced. Close it there, or "
            "choose another name."
        )


def is_same(a: Path, b: Path) -> bool:
    """Return whether two names are those of one folder that is there."""
    # pathlib raises where one may not look
    return os.path.exists(a) and os.path.samefile(a, b)

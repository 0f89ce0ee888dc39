"""The journal of a session: every step is on disk before the next one.

A log of what was done, undone and done again, to which lines are only added, in SQLite;
beside it the labels in chunks, with a mark up to which line of the log they are
written. Lines behind the mark are applied again when a session is restored. They write
what pixels become, not by how much they change, so to apply one twice does no harm, and
a process may be killed at any moment.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_sac.core.errors import OutputError, SessionError
from napari_sac.core.folders import whole_folder
from napari_sac.core.io import atomic_path
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.changes import (
    Change,
    add_pixels,
    forward_tables,
)
from napari_sac.core.session.chunks import (
    Chunk,
    all_chunks,
    create_labels,
    labels_files,
    read_labels,
    touched_chunks,
    write_chunks,
)
from napari_sac.core.session.database import (
    BUSY,
    TABLES,
    WRONG_VALUES,
    connect,
    prepare,
    reading,
    take_lock,
    writing,
)
from napari_sac.core.session.encoding import (
    from_bytes,
    tables_from_bytes,
    tables_to_bytes,
    to_bytes,
)
from napari_sac.core.session.history import LIMIT, History, Step
from napari_sac.core.session.image import ImageReference, load_pixels
from napari_sac.core.session.layout import (
    HEADER,
    JOURNAL,
    MAX_ANNOTATIONS,
    check_folder,
    copy_file,
    copy_files,
    image_path,
    labels_path,
    make_header,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt
    from filelock import FileLock

    from napari_sac.core.progress import Progress
    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.session.state import AnnotationState

_KINDS = ("do", "amend", "undo", "redo")
_CLOSED = "closed"
_COMPACTED = "compacted"
_INFO = "info."
_ADD_LINE = (
    "INSERT INTO log (kind, step, annotation, time, change) VALUES (?, ?, ?, ?, ?)"
)
_PROBED_SECONDS = 0.3
_PAGES = 256
"""Of the log that are copied at once, a megabyte."""


COMPACT_BYTES = 16 << 20
"""A log with more than this is made shorter when its session is opened again."""
KEPT_STEPS = 1000
"""Steps that can be undone after that."""


@dataclass(frozen=True, eq=False)
class Restored:
    """What a session held when it was last written to.

    Parameters
    ----------
    states : dict of int to AnnotationState
        By number of the annotation.
    images : dict of int to ImageReference
    history : History
        Its steps, to be undone and done again.
    info : dict of str to value
        What :meth:`Journal.set_info` noted.
    """

    states: dict[int, AnnotationState]
    images: dict[int, ImageReference]
    history: History
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> dict[int, AnnotationState]:
        """The states without those that somebody deleted, and then began anew."""
        return {n: state for n, state in self.states.items() if not self._replaced(n)}

    def _replaced(self, number: int) -> bool:
        work, image = self.info.get(f"work-{number}"), self.images[number]
        last = work.get("deleted") if isinstance(work, dict) else None
        if type(last) is not int:
            return False
        # an empty one was undone: nothing has taken the place of what was deleted
        return any(
            n > max(number, last)
            and image.is_plane_of(other)
            and not self.states[n].is_empty
            for n, other in self.images.items()
        )


class _Line(NamedTuple):
    """A line of the log without its change."""

    entry: int
    kind: str
    step: int
    annotation: int


class _Row(NamedTuple):
    """What is known of an annotation, without its tables."""

    image: str
    written: int


class _Read(NamedTuple):
    """All that is on disk: the labels are of the end, the tables of the beginning."""

    images: dict[int, ImageReference]
    states: dict[int, AnnotationState]
    done: list[int]
    undone: list[int]
    owners: dict[int, int]
    changes: dict[int, Change]


class Journal:
    """An open session folder; made by :meth:`create` or :meth:`open`.

    Use it from one thread at a time. When the disk is full, lines that could not be
    written are kept in memory and written with the next one.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        lock: FileLock | None,
        read_only_reason: str | None,
    ) -> None:
        self._folder = folder
        self._connection = connection
        self._lock = lock
        self._read_only_reason = read_only_reason
        self._pending: list[tuple[str, int, int, float, bytes | None]] = []
        self._shapes: dict[int, tuple[int, int]] = {}
        self._dirty: dict[int, set[Chunk]] = {}
        # of each step, so that undoing it marks the same chunks as doing it
        self._steps: dict[int, tuple[int, list[PixelChange]]] = {}
        self._marked_open = False
        # whether the three above hold what is on disk
        self._knows_steps = False
        # annotations that are about other pixels since this was last copied
        self._exchanged: set[int] = set()

    @classmethod
    def create(cls, folder: str | Path) -> Journal:
        """Make an empty session and open it.

        Parameters
        ----------
        folder : str or Path
            Must not exist yet, or be empty. Missing folders above it are made.

        Raises
        ------
        OutputError
            If it cannot be made there; nothing is left behind.
        """
        target = Path(folder).absolute()
        with writing(target):
            if target.exists():
                # fails if something is in it, or it is a file
                target.rmdir()
            with whole_folder(target) as partial:
                write_file(partial / HEADER, make_header().encode())
                with closing(sqlite3.connect(partial / JOURNAL)) as connection:
                    prepare(connection)
                    for statement in TABLES.values():
                        connection.execute(statement)
                    connection.commit()
        return cls.open(target)

    @classmethod
    def open(cls, folder: str | Path) -> Journal:
        """Open a session; read-only if another viewer has it or nobody may write.

        Raises
        ------
        SessionError
            If the folder is no session, is damaged, or is from a newer version.
        """
        target = Path(folder).absolute()
        check_folder(target)
        # another napari that starts has it for a moment, to see whether it is open
        lock, reason = take_lock(target, seconds=_PROBED_SECONDS)
        try:
            connection = connect(target, in_place=lock is not None or reason is BUSY)
        except SessionError:
            if lock is not None:
                lock.release()
            raise
        return cls(target, connection, lock, reason)

    @property
    def folder(self) -> Path:
        """The session folder."""
        return self._folder

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written."""
        return self._read_only_reason is not None

    @property
    def read_only_reason(self) -> str | None:
        """Why nothing may be written, as a sentence, or None."""
        return self._read_only_reason

    @property
    def unsaved(self) -> int:
        """How many lines wait for space on the disk."""
        return len(self._pending)

    @property
    def unflushed(self) -> int:
        """How many chunks of labels differ from those on disk; the log has it all."""
        return sum(len(chunks) for chunks in self._dirty.values())

    def add_annotation(
        self,
        image: ImageReference,
        state: AnnotationState,
        pixels: npt.NDArray[np.uint8] | None = None,
    ) -> int:
        """Write what is known about one more plane, and return its number.

        Parameters
        ----------
        image : ImageReference
        state : AnnotationState
            Where its steps begin.
        pixels : (H, W, 3) uint8, optional
            Kept in the session, for an image that cannot be read again from a file.

        Raises
        ------
        OutputError
            If it cannot be written; the session is as before.
        """
        self._check_writable()
        self._know_steps()
        if state.labels.shape != image.shape:
            raise ValueError(f"labels {state.labels.shape} on an image {image.shape}")
        self._write_pending()
        if len(self._shapes) >= MAX_ANNOTATIONS:
            raise OutputError(
                f"{self._folder} has {MAX_ANNOTATIONS:,} images, and cannot have more. "
                "What is in it is kept; save it, and begin another session for the "
                "rest."
            )
        with writing(self._folder):
            number = 1 + self._one("SELECT coalesce(max(number), 0) FROM annotations")
            # what an earlier try left behind is replaced
            create_labels(labels_path(self._folder, number), state.labels)
            image = self._keep(number, image, pixels)
            row = (number, image.to_json(), tables_to_bytes(state), self._last_entry())
            self._connection.execute("INSERT INTO annotations VALUES (?, ?, ?, ?)", row)
        self._shapes[number] = image.shape
        return number

    def set_image(
        self,
        number: int,
        image: ImageReference,
        pixels: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Write that an annotation is about other pixels of the same place from now on.

        Parameters
        ----------
        number : int
        image : ImageReference
            Of the same shape as before: other channels, another stain.
        pixels : (H, W, 3) uint8, optional
            Kept in the session, for an image that cannot be read again from a file.

        Raises
        ------
        OutputError
            If it cannot be written. Labels and prompts are as before; kept pixels are
            the new ones where only the reference could not be written, and are then
            told to be another image.
        """
        self._check_writable()
        if image.shape != self._shapes.get(number, image.shape):
            raise ValueError(f"an image {image.shape} for {self._shapes[number]}")
        with writing(self._folder):
            image = self._keep(number, image, pixels)
            row = (image.to_json(), number)
            self._connection.execute(
                "UPDATE annotations SET image = ? WHERE number = ?", row
            )
        # not before: who begins to copy it now, may miss it
        self._exchanged.add(number)

    def _keep(
        self, number: int, image: ImageReference, pixels: npt.NDArray[np.uint8] | None
    ) -> ImageReference:
        """Write pixels that can be read from nowhere else; return where they are."""
        if pixels is None:
            return replace(image, kept=False)
        import tifffile

        with atomic_path(image_path(self._folder, number)) as partial:
            tifffile.imwrite(
                partial,
                pixels,
                compression="zlib",
                # a little larger than by default, and several times as fast
                compressionargs={"level": 1},
                photometric="rgb",
            )
        return replace(image, kept=True)

    def push(self, step: Step) -> None:
        """Write a step that was just done; it is on disk when this returns.

        Raises
        ------
        OutputError
            If it cannot be written; it is kept in memory and written with the next.
        """
        self._check_writable()
        self._know_steps()
        self._mark(step.annotation, step.change.pixels)
        self._note_pixels(step.number, step.annotation, step.change.pixels)
        self._append("do", step.number, step.annotation, step.change)

    def amend(self, step_number: int, annotation: int, pixels: PixelChange) -> None:
        """Write pixels that joined a step; errors as :meth:`push`."""
        self._check_writable()
        self._know_steps()
        self._mark(annotation, pixels)
        self._note_pixels(step_number, annotation, pixels)
        self._append("amend", step_number, annotation, Change("", pixels=pixels))

    def undo(self, step_number: int) -> None:
        """Write that a step was undone; errors as :meth:`push`."""
        self._append_again("undo", step_number)

    def redo(self, step_number: int) -> None:
        """Write that a step was done again; errors as :meth:`push`."""
        self._append_again("redo", step_number)

    def set_info(self, name: str, value: Any) -> None:
        """Note a value of JSON beside the log, such as timings; the last one counts.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._check_writable()
        with writing(self._folder):
            row = (_INFO + name, json.dumps(value))
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", row)

    def flush(
        self,
        labels_by_annotation: Mapping[int, npt.NDArray[np.uint32]],
        *,
        chunks: int | None = None,
    ) -> int:
        """Write chunks of labels that changed, so that restoring has less to do.

        Nothing is lost without it: the log has every pixel.

        Parameters
        ----------
        labels_by_annotation : mapping of int to (H, W) uint32
            The labels as they are after all steps that were written.
        chunks : int, optional
            Write so many at most; each takes a few milliseconds.

        Returns
        -------
        int
            Chunks that are left.

        Raises
        ------
        OutputError
            If they cannot be written; call again when there is space.
        """
        self._check_writable()
        self._know_steps()
        # a chunk must not be ahead of the log
        self._write_pending()
        left = chunks
        with writing(self._folder):
            for number, labels in labels_by_annotation.items():
                dirty = self._dirty.get(number)
                if not dirty:
                    continue
                part = sorted(dirty)[:left]
                write_chunks(labels_path(self._folder, number), labels, part)
                dirty.difference_update(part)
                left = None if left is None else left - len(part)
                if not dirty:
                    row = (self._last_entry(), number)
                    self._connection.execute(
                        "UPDATE annotations SET written = ? WHERE number = ?", row
                    )
        return self.unflushed

    def restore(self) -> Restored:
        """Return what the session holds, with the last steps of its history.

        Raises
        ------
        SessionError
            If the journal or the labels are damaged.
        """
        with reading(self._folder):
            read = self._read_all()
            images, states = read.images, read.states
            done, undone, owners = read.done, read.undone, read.owners
            changes = read.changes
            for number in done:
                owner = owners[number]
                states[owner] = forward_tables(states[owner], changes[number])
            # what does not fit is refused now, not when it is done again
            trial = dict(states)
            for number in reversed(undone):
                owner = owners[number]
                trial[owner] = forward_tables(trial[owner], changes[number])
            self._steps.clear()
            steps = {n: Step(n, owners[n], changes[n]) for n in (*done, *undone)}
            for step in steps.values():
                self._note_pixels(step.number, step.annotation, step.change.pixels)
            history = History(
                done=[steps[n] for n in done[-LIMIT:]],
                undone=[steps[n] for n in reversed(undone)],
                next_number=max(owners, default=0) + 1,
            )
            info = {
                name.removeprefix(_INFO): json.loads(value)
                for name, value in self._connection.execute("SELECT * FROM facts")
                if name.startswith(_INFO)
            }
        self._knows_steps = True
        return Restored(states, images, history, info)

    def find_image(
        self, number: int, image: ImageReference
    ) -> tuple[npt.NDArray[np.uint8], ImageReference]:
        """Return the pixels (H, W, 3) of an annotation, and how to find them again.

        The reference is another one where the file was found beside the session.

        Raises
        ------
        SessionError
            As :func:`~napari_sac.core.session.image.load_pixels`.
        """
        kept = image_path(self._folder, number)
        pixels, place = load_pixels(image, kept, self._folder.parent)
        if not image.kept and place != Path(image.path or ""):
            image = replace(image, path=str(place))
        return pixels, image

    def copy_to(self, folder: Path, progress: Progress = ignore_progress) -> None:
        """Write a copy of what is on disk into an empty folder.

        It may run beside the thread that goes on writing to this journal; with
        :meth:`take_over` the copy gets what came meanwhile.

        Raises
        ------
        OSError, sqlite3.Error
            If it cannot be written.
        """
        self._exchanged.clear()
        copy_file(self._folder / HEADER, folder / HEADER)
        rows: dict[int, _Row] = {}
        with self._beside() as source:
            copied = False
            while not copied:
                # the rows before the files, and the files before the log: so the log
                # has all that the files have, from the marks in the rows on
                new = {n: row for n, row in _rows(source).items() if n not in rows}
                files = [file for number in new for file in self._files(number)]
                copy_files(files, self._folder, folder, progress)
                rows |= new
                source.execute("BEGIN")
                try:
                    # else an image was begun meanwhile, whose files are not there
                    if copied := _rows(source).keys() == rows.keys():
                        _copy_log(source, folder / JOURNAL, rows, progress)
                finally:
                    source.execute("ROLLBACK")

    def take_over(self, other: Journal) -> None:
        """Get what was written to a journal since this copy was made of it.

        And know what it knows, without reading it all. Nothing may be written to it
        meanwhile.

        Raises
        ------
        OSError, sqlite3.Error
            If it cannot be written.
        """
        if not other.read_only:
            self._add_later(other)
        if other._knows_steps:
            self._shapes = dict(other._shapes)
            self._steps = dict(other._steps)
            self._dirty = {n: set(chunks) for n, chunks in other._dirty.items()}
            # chunks may have been written to the other folder after they were copied
            query = (
                "SELECT DISTINCT annotation, step FROM log CROSS JOIN annotations "
                "ON number = annotation WHERE entry > written"
            )
            for number, step in self._connection.execute(query).fetchall():
                if step in self._steps:
                    for pixels in self._steps[step][1]:
                        self._mark(number, pixels)
                else:
                    # one that can neither be undone nor done again
                    chunks = all_chunks(self._shapes[number])
                    self._dirty.setdefault(number, set()).update(chunks)
            self._knows_steps = True

    def _add_later(self, other: Journal) -> None:
        """Write what another journal has, and this copy of it has not."""
        source = other._connection
        here, there = _rows(self._connection), _rows(source)
        # not those whose rows differ: one may have been changed and changed back
        changed = other._exchanged & here.keys()
        images = [(there[number].image, number) for number in changed]
        files = [file for number in changed for file in other._kept(number)]
        begun = []
        for number in there.keys() - here.keys():
            query = "SELECT * FROM annotations WHERE number = ?"
            begun += source.execute(query, (number,)).fetchall()
            files += other._files(number)
        copy_files(files, other._folder, self._folder)
        query = "SELECT * FROM log WHERE entry > ? ORDER BY entry"
        lines = source.execute(query, (self._last_entry(),)).fetchall()
        facts = source.execute("SELECT * FROM facts").fetchall()
        write = self._connection.executemany
        with self._transaction():
            write("INSERT INTO annotations VALUES (?, ?, ?, ?)", begun)
            write("UPDATE annotations SET image = ? WHERE number = ?", images)
            write("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", lines)
            write(_ADD_LINE, other._pending)
            write("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
            if other._pending:
                self._set_closed("0")

    def _files(self, number: int) -> list[Path]:
        """Return the files that an annotation has beside the log."""
        return labels_files(labels_path(self._folder, number)) + self._kept(number)

    def _kept(self, number: int) -> list[Path]:
        path = image_path(self._folder, number)
        return [path] if path.is_file() else []

    @contextmanager
    def _beside(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for a thread beside the one that writes."""
        if self.read_only:
            # nobody writes by this one
            yield self._connection
            return
        with closing(connect(self._folder, in_place=True, whole=False)) as connection:
            yield connection

    def compact(self, kept: int = KEPT_STEPS) -> None:
        """Forget old steps, and what was undone for good; what is known stays the same.

        Steps that were forgotten can no longer be undone, so it is for a session that
        was closed. The log is another one from one moment to the next.

        Parameters
        ----------
        kept : int, optional
            Steps that can still be undone; all that can be redone are kept.

        Raises
        ------
        OutputError
            If it cannot be written, or labels are not flushed; the log is as before.
        SessionError
            If the journal is damaged.
        """
        self._check_writable()
        self._know_steps()
        if self.unsaved or self.unflushed:
            raise OutputError("The labels of the session are not written yet.")
        with reading(self._folder):
            read = self._read_all()
            forgotten = read.done[: max(0, len(read.done) - kept)]
            states = read.states
            for number in forgotten:
                owner = read.owners[number]
                states[owner] = forward_tables(states[owner], read.changes[number])
        lines = list(_short_log(read, read.done[len(forgotten) :]))
        with writing(self._folder), self._transaction():
            self._connection.execute("DELETE FROM log")
            self._connection.executemany(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", lines
            )
            self._connection.executemany(
                "UPDATE annotations SET tables = ?, written = ? WHERE number = ?",
                [(tables_to_bytes(s), len(lines), n) for n, s in states.items()],
            )
            # for who is reading it meanwhile
            row = (_COMPACTED, secrets.token_hex(8))
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", row)
        # the steps that are known are not those of the log any more
        self._knows_steps = False
        with suppress(sqlite3.Error):
            # without space for it, the file stays as large as it was
            self._connection.execute("VACUUM")

    def shorten(self, restored: Restored) -> Restored:
        """Make the log shorter if it is long and the session was closed on purpose.

        It takes seconds, so it is for who opens a session beside the window, and not
        for who closes one. Of a session that was not closed all steps stay.

        Parameters
        ----------
        restored : Restored
            What :meth:`restore` has just returned.

        Returns
        -------
        Restored
            What the session holds now: the same, with fewer steps that can be undone.

        Raises
        ------
        SessionError
            As :meth:`restore`.
        """
        kept = self._steps_of_a_long_log()
        if kept is None or self.read_only or not self._is_closed():
            return restored
        done, undone = restored.history.done, restored.history.undone
        shortest = len(done) + 2 * len(undone)
        if len(done) <= kept and self._one("SELECT count(*) FROM log") <= shortest:
            return restored
        # a log that stays long is no reason not to open it
        with suppress(OutputError, SessionError):
            self.flush({n: state.labels for n, state in restored.states.items()})
            self.compact(kept)
        return restored if self._knows_steps else self.restore()

    def close(self, *, clean: bool) -> None:
        """Close the session, so that others may open it; a second time does nothing.

        Parameters
        ----------
        clean : bool
            Whether it was closed on purpose; otherwise it is offered at the next start.

        Raises
        ------
        OutputError
            If the last lines cannot be written; it is closed all the same.
        """
        try:
            if not self.read_only:
                self._write_pending()
                with writing(self._folder):
                    if clean:
                        self._set_closed("1")
                    # a window that closes waits for nobody who reads it meanwhile,
                    # as who copies it does; then what is beside the file is kept
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.ProgrammingError:
            return
        finally:
            with suppress(sqlite3.Error):
                self._connection.close()
            if self._lock is not None:
                self._lock.release()

    def _append(
        self, kind: str, step: int, annotation: int, change: Change | None
    ) -> None:
        data = None if change is None else to_bytes(change)
        self._pending.append((kind, step, annotation, time.time(), data))
        self._write_pending()

    def _append_again(self, kind: str, step_number: int) -> None:
        self._check_writable()
        self._know_steps()
        if step_number not in self._steps:
            raise ValueError(f"there is no step {step_number} in this journal")
        annotation, written = self._steps[step_number]
        for pixels in written:
            self._mark(annotation, pixels)
        self._append(kind, step_number, annotation, None)

    def _write_pending(self) -> None:
        if not self._pending:
            return
        waiting = len(self._pending)
        with writing(self._folder, waiting=waiting), self._transaction():
            if not self._marked_open:
                self._set_closed("0")
            self._connection.executemany(_ADD_LINE, self._pending)
        self._marked_open = True
        self._pending.clear()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _steps_of_a_long_log(self) -> int | None:
        """Return how many steps a long log should keep; None of a short one."""
        with suppress(sqlite3.Error, TypeError):
            if self._one("SELECT coalesce(sum(length(change)), 0) FROM log") > (
                COMPACT_BYTES
            ):
                return KEPT_STEPS
            # each is done again when the session is opened, and can be undone no more
            if self._one("SELECT count(*) FROM log WHERE kind = 'do'") > LIMIT:
                return LIMIT
        return None

    def _is_closed(self) -> bool:
        query = "SELECT value FROM facts WHERE name = ?"
        found = self._connection.execute(query, (_CLOSED,)).fetchone()
        return found is not None and found[0] == "1"

    def _set_closed(self, value: str) -> None:
        row = (_CLOSED, value)
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", row)

    def _check_writable(self) -> None:
        if self._read_only_reason is not None:
            raise OutputError(
                f"{self._read_only_reason} Nothing was written; save under another "
                "name to go on."
            )

    def _know_steps(self) -> None:
        if not self._knows_steps:
            self.restore()

    def _note_pixels(
        self, step: int, annotation: int, pixels: PixelChange | None
    ) -> None:
        _, known = self._steps.setdefault(step, (annotation, []))
        if pixels is not None:
            known.append(pixels)

    def _mark(self, annotation: int, pixels: PixelChange | None) -> None:
        if pixels is not None:
            chunks = touched_chunks(pixels, self._shapes[annotation])
            self._dirty.setdefault(annotation, set()).update(chunks)

    def _one(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])

    def _last_entry(self) -> int:
        return self._one("SELECT coalesce(max(entry), 0) FROM log")

    def _read_all(self) -> _Read:
        """Return all that is on disk, though another process may write meanwhile."""
        while True:
            version = self._version()
            try:
                read = self._read_once()
            except (sqlite3.Error, SessionError, *WRONG_VALUES):
                # lines may have gone between two looks at them, or be of a new image
                if self._version() == version:
                    raise
            else:
                if self._version() == version:
                    return read

    def _read_once(self) -> _Read:
        # the marks before the labels, the labels before the log: so the log has
        # all that another process may be writing meanwhile
        marks, images, states = self._read_annotations()
        lines = list(self._lines())
        done, undone = _replay_order(self._folder, lines)
        changes = self._apply_lines(lines, {*done, *undone}, marks, states)
        owners = {line.step: line.annotation for line in lines}
        return _Read(images, states, done, undone, owners, changes)

    def _version(self) -> tuple[str | None, int | None]:
        """Return what differs once the log was made shorter, or an image was added."""
        query = (
            "SELECT (SELECT value FROM facts WHERE name = ?), "
            "(SELECT max(number) FROM annotations)"
        )
        compacted, images = self._connection.execute(query, (_COMPACTED,)).fetchone()
        return compacted, images

    def _read_annotations(
        self,
    ) -> tuple[dict[int, int], dict[int, ImageReference], dict[int, AnnotationState]]:
        marks, images, states = {}, {}, {}
        for number, row in _rows(self._connection).items():
            query = "SELECT tables FROM annotations WHERE number = ?"
            (tables,) = self._connection.execute(query, (number,)).fetchone()
            marks[number] = row.written
            images[number] = ImageReference.from_json(row.image)
            shape = images[number].shape
            labels = read_labels(labels_path(self._folder, number), shape)
            states[number] = tables_from_bytes(tables, labels)
            self._shapes[number] = shape
        return marks, images, states

    def _lines(self) -> Iterator[_Line]:
        query = "SELECT entry, kind, step, annotation FROM log ORDER BY entry"
        for row in self._connection.execute(query):
            line = _Line(*row)
            _check_numbers(line.entry, line.step, line.annotation)
            if line.kind not in _KINDS or line.annotation not in self._shapes:
                raise ValueError(f"line {line.entry} of the log makes no sense")
            yield line

    def _apply_lines(
        self,
        lines: Iterable[_Line],
        wanted: set[int],
        marks: Mapping[int, int],
        states: Mapping[int, AnnotationState],
    ) -> dict[int, Change]:
        """Write pixels behind the marks into the labels; return all wanted changes."""
        lines = list(lines)
        behind = {line.entry for line in lines if line.entry > marks[line.annotation]}
        needed = wanted | {line.step for line in lines if line.entry in behind}
        changes: dict[int, Change] = {}
        for line in lines:
            if line.step not in needed:
                continue
            if line.kind == "do":
                changes[line.step] = self._read_change(line)
            pixels = changes[line.step].pixels
            if line.kind == "amend":
                pixels = self._read_change(line).pixels
                if pixels is not None:
                    changes[line.step] = add_pixels(changes[line.step], pixels)
            if line.entry in behind and pixels is not None:
                labels = states[line.annotation].labels
                pixels.write(labels, back=line.kind == "undo")
                self._mark(line.annotation, pixels)
        return changes

    def _read_change(self, line: _Line) -> Change:
        query = "SELECT change FROM log WHERE entry = ?"
        (data,) = self._connection.execute(query, (line.entry,)).fetchone()
        if not isinstance(data, bytes):
            raise TypeError(f"line {line.entry} of the log has no change")
        change = from_bytes(data)
        height, width = self._shapes[line.annotation]
        pixels = change.pixels
        if pixels is not None and (pixels.ends > height * width).any():
            raise ValueError(f"line {line.entry} of the log has pixels outside")
        return change


def _rows(connection: sqlite3.Connection) -> dict[int, _Row]:
    rows = {}
    query = "SELECT number, image, written FROM annotations ORDER BY number"
    for number, image, written in connection.execute(query).fetchall():
        _check_numbers(number, written)
        if number > MAX_ANNOTATIONS:
            raise ValueError(f"an annotation {number}")
        rows[number] = _Row(image, written)
    return rows


def _copy_log(
    source: sqlite3.Connection,
    file: Path,
    rows: Mapping[int, _Row],
    progress: Progress,
) -> None:
    """Copy the log, with these rows of its annotations."""

    def told(status: int, left: int, total: int) -> None:
        progress("copying the history", total - left, total)

    with closing(sqlite3.connect(file)) as connection:
        prepare(connection)
        source.backup(connection, pages=_PAGES, progress=told)
        # the files were copied before the log, and may be as old as these
        connection.executemany(
            "UPDATE annotations SET image = ?, written = ? WHERE number = ?",
            [(*row, number) for number, row in rows.items()],
        )
        connection.commit()


def _replay_order(folder: Path, lines: Iterable[_Line]) -> tuple[list[int], list[int]]:
    """Return the steps that are done, and those undone, the next to be redone last."""
    done: list[int] = []
    undone: list[int] = []
    owners: dict[int, int] = {}
    for line in lines:
        if line.kind == "do":
            # numbers ascend, and are never given twice
            fits = line.step > next(reversed(owners), 0)
            owners[line.step] = line.annotation
            done.append(line.step)
            undone.clear()
        elif line.kind == "amend":
            fits = line.step in owners
        else:
            source, target = (done, undone) if line.kind == "undo" else (undone, done)
            fits = source[-1:] == [line.step]
            target.extend(source[-1:])
            del source[-1:]
        if not fits or owners[line.step] != line.annotation:
            raise SessionError(
                f"The session {folder} is damaged: line {line.entry} of its journal "
                "does not follow from those before. Nothing was changed; open a copy "
                "of the session, if there is one."
            )
    return done, undone


def _short_log(
    read: _Read, done: Iterable[int]
) -> Iterator[tuple[int, str, int, int, float, bytes | None]]:
    """Return the rows of a log of these steps, and of those that can be done again."""
    again = read.undone[::-1]
    kept = [("do", number) for number in (*done, *again)]
    now = time.time()
    rows = [*kept, *(("undo", number) for number in read.undone)]
    for entry, (kind, number) in enumerate(rows, start=1):
        change = to_bytes(read.changes[number]) if kind == "do" else None
        yield entry, kind, number, read.owners[number], now, change


def _check_numbers(*numbers: Any) -> None:
    if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"{numbers!r:.80} are not whole numbers")

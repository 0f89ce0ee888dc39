"""Save, open, copy and find sessions again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from core.session import editing
from core.session.conftest import Edited
from filelock import FileLock

from napari_sac.core.errors import Cancelled, OutputError, SessionError
from napari_sac.core.session import journal as journal_module
from napari_sac.core.session import recovery
from napari_sac.core.session.changes import Change, backward
from napari_sac.core.session.folder import (
    copy_session,
    move,
    open_session,
    save_as,
    session_path,
)
from napari_sac.core.session.history import History
from napari_sac.core.session.image import hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.layout import JOURNAL, copy_file
from napari_sac.core.session.pixels import PixelChange

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unsaved(home: Path) -> Iterator[Edited]:
    """A session that nobody has saved, with five edits; open."""
    session = Edited(recovery.new_session_folder())
    session.edit(5)
    yield session
    session.journal.close(clean=True)


def save(session: Edited, folder: Path) -> None:
    session.journal = save_as(
        session.journal, folder, {session.number: session.state.labels}
    )


def same(journal: Journal, session: Edited) -> bool:
    state = journal.restore().states[session.number]
    return editing.snapshot(state) == editing.snapshot(session.state)


def test_saving_moves_there_and_goes_on(unsaved: Edited, tmp_path: Path) -> None:
    before = unsaved.journal.folder
    assert recovery.is_unsaved(before)
    save(unsaved, tmp_path / "mine")
    assert unsaved.journal.folder == tmp_path / "mine.sac"
    assert not before.exists()
    assert not recovery.is_unsaved(tmp_path / "mine.sac")
    restored = unsaved.journal.restore()
    assert [s.number for s in restored.history.done] == [1, 2, 3, 4, 5]
    unsaved.edit(2)
    # saving where it is already, by another name
    journal = unsaved.journal
    save(unsaved, tmp_path / "." / "mine.sac")
    assert unsaved.journal is journal
    assert journal.unflushed == 0
    journal.close(clean=True)
    unsaved.journal = open_session(tmp_path / "mine.sac")
    assert same(unsaved.journal, unsaved)
    pixels, _ = unsaved.journal.find_image(1, unsaved.journal.restore().images[1])
    assert (pixels == unsaved.pixels).all()
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_saving_replaces_a_session_but_nothing_else(
    unsaved: Edited, tmp_path: Path
) -> None:
    Edited(tmp_path / "old.sac", seed=1).journal.close(clean=True)
    folder = tmp_path / "holiday.sac"
    folder.mkdir()
    (folder / "photo.jpg").write_text("")
    with pytest.raises(OutputError, match="no session"):
        save(unsaved, folder)
    assert (folder / "photo.jpg").exists()
    other = Journal.open(tmp_path / "old.sac")
    with pytest.raises(SessionError, match="open in a viewer"):
        save(unsaved, tmp_path / "old.sac")
    other.close(clean=True)
    # the failures left the journal at work
    unsaved.edit()
    save(unsaved, tmp_path / "old.sac")
    assert same(unsaved.journal, unsaved)


def test_a_folder_that_cannot_be_written_keeps_the_session(
    unsaved: Edited, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be saved as"):
        save(unsaved, tmp_path / "file" / "x.sac")
    unsaved.edit()
    assert same(unsaved.journal, unsaved)


def test_a_place_where_one_may_not_look_keeps_the_session(
    unsaved: Edited, private: Path
) -> None:
    with pytest.raises(OutputError, match="could not be saved as"):
        save(unsaved, private / "x.sac")
    unsaved.edit()
    assert same(unsaved.journal, unsaved)


def test_a_copy_of_a_busy_session_can_be_worked_on(
    unsaved: Edited, tmp_path: Path
) -> None:
    save(unsaved, tmp_path / "a.sac")
    unsaved.edit()
    reader = open_session(tmp_path / "a.sac")
    assert reader.read_only
    copy = copy_session(reader, tmp_path / "b.sac")
    assert not copy.read_only
    restored = copy.restore()
    assert editing.snapshot(restored.states[1]) == editing.snapshot(unsaved.state)
    step = restored.history.undo()
    assert step is not None
    copy.undo(step.number)
    backward(restored.states[1], step.change)
    copy.close(clean=True)
    reader.close(clean=True)


@pytest.mark.parametrize("stage", ["copying the session", "copying the history"])
def test_what_is_done_while_a_session_is_copied_is_in_the_copy(
    unsaved: Edited, tmp_path: Path, stage: str
) -> None:
    times = iter(range(5))

    def work(now: str, done: int, total: int) -> None:
        if now != stage or next(times, None) is None:
            return
        journal = unsaved.journal
        unsaved.edit(3)
        unsaved.pixels = unsaved.pixels + np.uint8(1)
        digest = hash_pixels(unsaved.pixels)
        image = editing.reference(unsaved.state, sha256=digest)
        journal.set_image(unsaved.number, image, unsaved.pixels)
        journal.add_annotation(image, unsaved.state, unsaved.pixels)
        unsaved.edit()

    old = unsaved.journal
    unsaved.journal, copy = old, copy_session(old, tmp_path / "mine", work)
    unsaved.edit()
    unsaved.journal.set_info("timings", 1)
    move(old, copy)
    unsaved.journal = copy
    before = Journal.open(tmp_path / "mine.sac").restore()
    assert editing.snapshot(before.states[1]) == editing.snapshot(unsaved.state)
    assert before.info == {"timings": 1}
    images = {n: copy.find_image(n, image)[0] for n, image in before.images.items()}
    assert len(images) > 1
    assert (images[1] == unsaved.pixels).all()
    done = [step.number for step in copy.restore().history.done]
    assert done == [step.number for step in unsaved.history.done]


def test_an_image_that_was_changed_and_changed_back_has_its_pixels_in_the_copy(
    unsaved: Edited, tmp_path: Path
) -> None:
    journal, number, pixels = unsaved.journal, unsaved.number, unsaved.pixels
    begun: list[str] = []

    def show(pixels: np.ndarray) -> None:
        image = editing.reference(unsaved.state, sha256=hash_pixels(pixels))
        journal.set_image(number, image, pixels)

    def change(now: str, done: int, total: int) -> None:
        if not begun:
            begun.append(now)
            show(pixels + np.uint8(1))

    copy = copy_session(journal, tmp_path / "mine", change)
    show(pixels)
    move(journal, copy)
    image = copy.restore().images[number]
    assert (copy.find_image(number, image)[0] == pixels).all()
    copy.close(clean=True)


def test_progress_of_a_copy_is_that_of_all_images(
    unsaved: Edited, tmp_path: Path
) -> None:
    image = editing.reference(unsaved.state)
    unsaved.journal.add_annotation(image, unsaved.state, unsaved.pixels)
    told: list[int] = []

    def note(now: str, done: int, total: int) -> None:
        if now == "copying the session":
            told.append(done)

    copy_session(unsaved.journal, tmp_path / "mine", note).close(clean=True)
    assert told == list(range(len(told)))


def test_chunks_that_were_written_elsewhere_are_written_to_the_copy_too(
    tmp_path: Path,
) -> None:
    journal, history = Journal.create(tmp_path / "a.sac"), History()
    labels = np.zeros((8, 1200), np.uint32)
    state = editing.replace(editing.start(np.random.default_rng(0)), labels=labels)
    number = journal.add_annotation(editing.reference(state), state)

    def paint(journal: Journal, x: int) -> None:
        box = np.zeros((4, 4)), np.ones((4, 4)), (2, x)
        pixels = PixelChange.between(*box, shape=labels.shape)
        pixels.write(labels)
        history.push(number, Change("paint", pixels=pixels))
        journal.push(history.done[-1])

    copy = copy_session(journal, tmp_path / "b.sac")
    paint(journal, 5)
    journal.flush({number: labels})
    move(journal, copy)
    # from now on nothing is in the log only
    paint(copy, 1100)
    copy.flush({number: labels})
    assert (copy.restore().states[number].labels == labels).all()
    copy.close(clean=True)


def test_a_copy_that_is_stopped_leaves_nothing(unsaved: Edited, tmp_path: Path) -> None:
    for stage in ("copying the session", "copying the history"):

        def stop(now: str, done: int, total: int, stage: str = stage) -> None:
            if now == stage:
                raise Cancelled("stopped")

        with pytest.raises(Cancelled):
            copy_session(unsaved.journal, tmp_path / "mine", stop)
        assert [p for p in tmp_path.iterdir() if p.name != "home"] == []
        unsaved.edit()
        assert same(unsaved.journal, unsaved)


def test_a_session_that_was_opened_meanwhile_is_not_replaced(
    unsaved: Edited, tmp_path: Path
) -> None:
    Edited(tmp_path / "old.sac", seed=1).journal.close(clean=True)
    opened: list[Journal] = []

    def open_it(now: str, done: int, total: int) -> None:
        if not opened:
            opened.append(open_session(tmp_path / "old.sac"))

    with pytest.raises(SessionError, match="open in a viewer"):
        copy_session(unsaved.journal, tmp_path / "old.sac", open_it)
    (other,) = opened
    assert not other.restore().history.done
    assert other.folder.exists()
    assert sorted(p.name for p in tmp_path.glob(".*")) == []
    other.close(clean=True)


def test_a_disk_that_is_full_at_the_end_of_a_copy_keeps_the_session_and_the_copy(
    unsaved: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Edited(tmp_path / "mine.sac", seed=1).journal.close(clean=True)
    copied = editing.snapshot(unsaved.state)
    copy = copy_session(unsaved.journal, tmp_path / "mine")
    unsaved.edit()

    def fail(journal: Journal, other: Journal) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_add_later", fail)
        with pytest.raises(OutputError, match="as it was when it was copied"):
            move(unsaved.journal, copy)
    unsaved.edit()
    assert same(unsaved.journal, unsaved)
    assert recovery.find_unclosed() == []
    # what it was to replace is gone, so it stays
    left = Journal.open(tmp_path / "mine.sac")
    assert not left.read_only
    assert editing.snapshot(left.restore().states[1]) == copied
    left.close(clean=True)


def test_steps_that_wait_for_space_go_along(
    unsaved: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_session(unsaved.journal, tmp_path / "mine")

    def fail(journal: Journal) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write_pending", fail)
        with pytest.raises(OutputError):
            unsaved.edit()
    assert unsaved.journal.unsaved == 1
    move(unsaved.journal, copy)
    unsaved.journal = copy
    assert same(copy, unsaved)


def test_steps_that_wait_for_space_are_offered_where_they_went_along(
    edited: Edited, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited.flush()
    edited.journal.close(clean=True)
    edited.journal = journal = open_session(edited.journal.folder)
    copy = copy_session(journal, tmp_path / "mine")

    def fail(journal: Journal) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write_pending", fail)
        with pytest.raises(OutputError):
            edited.edit()
        move(journal, copy)
    edited.journal = copy
    folder = leave(edited)
    assert [s.folder for s in recovery.find_unclosed()] == [folder]


def test_names_get_their_ending(tmp_path: Path) -> None:
    assert session_path(tmp_path / "a.b").name == "a.b.sac"
    assert session_path(tmp_path / "a.SAC").name == "a.SAC"


def leave(session: Edited) -> Path:
    """Do what a kill does, as far as others can see."""
    session.journal.close(clean=False)
    return session.journal.folder


def test_what_was_not_closed_is_found(unsaved: Edited, tmp_path: Path) -> None:
    assert recovery.find_unclosed() == []
    empty = Journal.create(recovery.new_session_folder())
    empty.close(clean=False)
    folder = leave(unsaved)
    (found,) = recovery.find_unclosed()
    assert (found.folder, found.images) == (folder, ("cells",))
    # looking changes nothing, opening takes it from the list
    journal = open_session(found.folder)
    assert recovery.find_unclosed() == []
    journal.close(clean=True)
    assert recovery.find_unclosed() == []
    # a step after a clean end, and it is one again
    unsaved.journal = open_session(folder)
    unsaved.journal.restore()
    unsaved.edit()
    leave(unsaved)
    assert [s.folder for s in recovery.find_unclosed()] == [folder]


def test_saved_sessions_are_found_too(unsaved: Edited, tmp_path: Path) -> None:
    save(unsaved, tmp_path / "mine.sac")
    unsaved.edit()
    folder = leave(unsaved)
    assert [s.folder for s in recovery.find_unclosed()] == [folder]
    recovery.discard(folder)
    assert folder.exists()
    assert recovery.find_unclosed() == []
    # one that is no longer there
    journal = open_session(folder)
    leave(unsaved)
    journal.close(clean=False)
    folder.rename(tmp_path / "elsewhere.sac")
    assert recovery.find_unclosed() == []


def test_a_session_on_a_drive_that_is_away_is_offered_when_it_is_back(
    unsaved: Edited, tmp_path: Path
) -> None:
    (tmp_path / "drive").mkdir()
    save(unsaved, tmp_path / "drive" / "mine.sac")
    unsaved.edit()
    folder = leave(unsaved)
    (tmp_path / "drive").rename(tmp_path / "away")
    assert recovery.find_unclosed() == []
    (tmp_path / "away").rename(tmp_path / "drive")
    assert [s.folder for s in recovery.find_unclosed()] == [folder]


def test_notes_of_others_are_passed_over(unsaved: Edited, tmp_path: Path) -> None:
    other = Edited(tmp_path / "other.sac")
    leave(other)
    for i, text in enumerate(
        ("", "[]", "[" * 90_000, json.dumps({"folder": str(other.journal.folder)}))
    ):
        note = recovery.sessions_folder() / f"{i}.open.json"
        note.write_text(text)
    assert recovery.find_unclosed() == []


def test_a_note_that_cannot_be_written_is_as_before(
    unsaved: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(unsaved, tmp_path / "mine.sac")
    (note,) = recovery.sessions_folder().glob("*.open.json")
    before = note.read_bytes()

    def half(file: Path, text: str, **options: Any) -> None:
        file.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(OutputError, match="No space left"):
            recovery.remember(unsaved.journal.folder)
    assert note.read_bytes() == before
    assert not list(note.parent.glob("*.part"))


def test_a_damaged_one_is_found_too(unsaved: Edited) -> None:
    folder = leave(unsaved)
    (folder / "session.json").write_text("{}")
    (found,) = recovery.find_unclosed()
    assert found.folder == folder
    assert found.images == ()


def test_a_look_at_sessions_does_not_read_all_of_them(
    unsaved: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = leave(unsaved)
    checked: list[str] = []
    connect_to = sqlite3.connect

    def connect(*args, **options) -> sqlite3.Connection:
        connection = connect_to(*args, **options)
        connection.set_trace_callback(
            lambda line: checked.append(line) if "quick_check" in line else None
        )
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    (found,) = recovery.find_unclosed()
    assert found.folder == folder
    assert checked == []
    # who opens one has it checked
    open_session(folder).close(clean=True)
    assert len(checked) == 1


def test_one_whose_log_is_damaged_is_told_so_at_the_latest_when_it_is_opened(
    unsaved: Edited,
) -> None:
    folder = leave(unsaved)
    file = folder / "journal.sqlite"
    data = bytearray(file.read_bytes())
    # all but the first page, which names the tables
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(bytes(data))
    assert [found.folder for found in recovery.find_unclosed()] == [folder]
    with pytest.raises(SessionError, match="damaged"):
        open_session(folder)
    assert [found.folder for found in recovery.find_unclosed()] == [folder]


def test_discarding_spares_what_is_open_and_the_last_ones(
    unsaved: Edited, home: Path
) -> None:
    with pytest.raises(SessionError, match="open in a viewer"):
        recovery.discard(unsaved.journal.folder)
    folders = []
    for _ in range(4):
        session = Edited(recovery.new_session_folder())
        session.journal.close(clean=True)
        folders.append(session.journal.folder)
    lost = Edited(recovery.new_session_folder())
    lost.edit()
    leave(lost)
    recovery.discard_old(keep=1)
    left = {p.name for p in recovery.sessions_folder().glob("*.sac")}
    assert left == {lost.journal.folder.name, unsaved.journal.folder.name}
    recovery.discard_old(keep=0)
    assert lost.journal.folder.exists(), "it is offered still"
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(lost.journal.folder / JOURNAL, (month_ago, month_ago))
    recovery.discard_old(keep=1)
    assert lost.journal.folder.exists()
    recovery.discard_old(keep=0)
    assert not lost.journal.folder.exists()
    assert unsaved.journal.folder.exists()
    lost = Edited(recovery.new_session_folder())
    lost.edit()
    leave(lost)
    recovery.discard(lost.journal.folder)
    assert not lost.journal.folder.exists()


def test_on_a_drive_without_locks_there_is_a_copy_and_the_session_goes_on(
    unsaved: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, acquire = unsaved.journal.folder, FileLock.acquire

    def acquire_elsewhere(lock: FileLock, **options: Any) -> Any:
        if Path(lock.lock_file).is_relative_to(tmp_path / "share"):
            raise OSError(errno.ENOLCK, "No locks available")
        return acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", acquire_elsewhere)
    with pytest.raises(OutputError, match="cannot lock files"):
        save(unsaved, tmp_path / "share" / "a.sac")
    assert unsaved.journal.folder == folder
    unsaved.edit()
    assert same(unsaved.journal, unsaved)
    copy = open_session(tmp_path / "share" / "a.sac")
    assert copy.read_only
    assert copy.restore().history.done
    copy.close(clean=True)


def test_from_a_full_disk_one_can_save_to_another(
    unsaved: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = unsaved.journal.folder
    unsaved.edit(15)
    note, write = Journal._set_closed, journal_module.write_chunks

    def note_elsewhere(journal: Journal, value: str) -> None:
        if journal.folder == full:
            raise sqlite3.OperationalError("database or disk is full")
        note(journal, value)

    def write_elsewhere(path: Path, *arguments: Any) -> None:
        if path.parent == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(Journal, "_set_closed", note_elsewhere)
    monkeypatch.setattr(journal_module, "write_chunks", write_elsewhere)
    with pytest.raises(OutputError, match="make space"):
        unsaved.flush()
    save(unsaved, tmp_path / "usb")
    assert not full.exists()
    unsaved.edit()
    unsaved.flush()
    assert same(unsaved.journal, unsaved)


def test_a_session_where_one_may_not_look_is_offered_when_one_may(
    edited: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_as(edited.journal, tmp_path / "mine.sac", {}).folder
    recovery.remember(folder)
    away = folder.rename(tmp_path / "not to be seen.sac")
    with monkeypatch.context() as patch:
        patch.setattr(recovery.os, "access", lambda *_: False)
        assert recovery.find_unclosed() == []
    away.rename(folder)
    assert recovery._note(folder).exists()
    folder.rename(away)
    assert recovery.find_unclosed() == []
    assert not recovery._note(folder).exists(), "it is not there, and one may look"


def test_a_file_that_cannot_be_copied_whole_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_bytes(b"new")
    target.write_bytes(b"old")

    def full(_: object, copy: Path) -> None:
        copy.write_bytes(b"n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            copy_file(source, target)
    assert target.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "old"]
    copy_file(source, target)
    assert target.read_bytes() == b"new"

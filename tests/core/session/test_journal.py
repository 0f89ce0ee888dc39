"""What is written comes back, and what cannot be written or read is said so."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import zarr
from core.session import editing
from core.session.conftest import Edited
from filelock import FileLock

from napari_sac.core.errors import OutputError, SessionError
from napari_sac.core.session.changes import Change, backward, forward
from napari_sac.core.session.database import sqlite_uri
from napari_sac.core.session.history import History
from napari_sac.core.session.image import hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.layout import LOCK
from napari_sac.core.session.pixels import PixelChange

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


def reopen(session: Edited):
    session.journal.close(clean=False)
    session.journal = Journal.open(session.journal.folder)
    return session.journal.restore()


def take_back(state, history: History):
    while (step := history.undo()) is not None:
        state = backward(state, step.change)
    return state


def test_more_images_than_could_be_read_again_are_not_written(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sac.core.session.journal.MAX_ANNOTATIONS", 1)
    image = reopen(edited).images[edited.number]
    with pytest.raises(OutputError, match="cannot have more"):
        edited.journal.add_annotation(image, edited.state)
    assert len(reopen(edited).states) == 1


def test_a_session_comes_back_to_the_byte_and_can_be_undone(edited: Edited) -> None:
    restored = reopen(edited)
    state = restored.states[edited.number]
    assert editing.snapshot(state) == editing.snapshot(edited.state)
    assert restored.images[edited.number].kept
    # and goes on with new numbers
    edited.history, edited.state = restored.history, state
    edited.edit(3)
    last = editing.snapshot(edited.state)
    restored = reopen(edited)
    assert editing.snapshot(restored.states[edited.number]) == last
    assert [s.number for s in restored.history.done] == list(range(1, 24))
    first = editing.start(np.random.default_rng(0))
    state = take_back(restored.states[edited.number], restored.history)
    assert editing.snapshot(state) == editing.snapshot(first)


def test_a_thousand_steps_can_be_undone_after_reopening(tmp_path: Path) -> None:
    session = Edited(tmp_path / "long.sac")
    session.edit(1100)
    began = time.perf_counter()
    restored = reopen(session)
    assert time.perf_counter() - began < 10
    assert len(restored.history.done) == 1100
    first = editing.start(np.random.default_rng(0))
    state = take_back(restored.states[session.number], restored.history)
    assert editing.snapshot(state) == editing.snapshot(first)
    session.journal.close(clean=True)


def test_what_was_undone_can_be_done_again_after_reopening(edited: Edited) -> None:
    for _ in range(4):
        step = edited.history.undo()
        edited.state = backward(edited.state, step.change)
        edited.journal.undo(step.number)
    step = edited.history.redo()
    edited.state = forward(edited.state, step.change)
    edited.journal.redo(step.number)
    restored = reopen(edited)
    state = restored.states[edited.number]
    assert editing.snapshot(state) == editing.snapshot(edited.state)
    assert [s.number for s in restored.history.undone] == [18, 19, 20]
    while (step := restored.history.redo()) is not None:
        state = forward(state, step.change)
        edited.state = forward(edited.state, edited.history.redo().change)
        edited.journal.redo(step.number)
    assert editing.snapshot(state) == editing.snapshot(edited.state)


def test_a_late_mask_comes_back_as_part_of_its_step(edited: Edited) -> None:
    number = edited.history.push(edited.number, Change("click"))
    edited.journal.push(edited.history.done[-1])
    before = edited.state.labels.copy()
    after = before.copy()
    after[2:6, 3:9] = 500
    pixels = PixelChange.between(before, after)
    pixels.write(edited.state.labels)
    edited.history.amend(number, pixels)
    edited.journal.amend(number, edited.number, pixels)
    restored = reopen(edited)
    labels = restored.states[edited.number].labels
    assert (labels == after).all()
    step = restored.history.undo()
    assert step.change.title == "click"
    backward(restored.states[edited.number], step.change)
    assert (labels == before).all()


def test_flush_writes_chunks_that_changed_and_zarr_reads_them(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "big.sac")
    labels = np.zeros((600, 1200), np.uint32)
    labels[0, 0] = 1
    state = editing.replace(editing.start(np.random.default_rng(0)), labels=labels)
    number = journal.add_annotation(editing.reference(state), state)
    change = PixelChange.between(
        np.zeros((4, 4)), np.full((4, 4), 70_000), (510, 1022), shape=labels.shape
    )
    history = History()
    history.push(number, Change("paint", pixels=change))
    journal.push(history.done[-1])
    change.write(labels)
    assert journal.unflushed == 4
    assert journal.flush({number: labels}, chunks=3) == 1
    assert journal.flush({number: labels}, chunks=3) == 0
    folder = journal.folder / "labels-1.zarr"
    files = sorted(str(p.relative_to(folder)) for p in folder.glob("c/*/*"))
    assert files == ["c/0/0", "c/0/1", "c/0/2", "c/1/1", "c/1/2"]
    stored = zarr.open_array(folder, mode="r")
    assert stored.dtype == np.uint32
    np.testing.assert_array_equal(stored[:], labels)
    # what became empty is deleted
    history.undo()
    change.write(labels, back=True)
    journal.undo(1)
    journal.flush({number: labels})
    assert [p.name for p in folder.glob("c/*/*")] == ["0"]
    restored = journal.restore()
    np.testing.assert_array_equal(restored.states[number].labels, labels)
    journal.close(clean=True)


def test_notes_beside_the_log_come_back(edited: Edited) -> None:
    edited.journal.set_info("timings", {"1": {"decoding": 0.5}})
    edited.journal.set_info("timings", {"1": {"decoding": 0.7}})
    assert reopen(edited).info == {"timings": {"1": {"decoding": 0.7}}}


def test_the_header_names_the_versions(edited: Edited) -> None:
    header = json.loads((edited.journal.folder / "session.json").read_text())
    assert header["version"] == 1
    assert {"python", "numpy", "napari-sac"} <= set(header["versions"])


def test_a_second_opener_is_told_and_reads_only(edited: Edited) -> None:
    second = Journal.open(edited.journal.folder)
    assert second.read_only
    assert "another viewer" in str(second.read_only_reason)
    seen = second.restore()
    assert editing.snapshot(seen.states[1]) == editing.snapshot(edited.state)
    with pytest.raises(OutputError, match="another viewer"):
        second.push(edited.history.done[-1])
    # the first goes on, and what it writes then can be seen too
    edited.edit(5)
    edited.flush()
    seen = second.restore()
    assert editing.snapshot(seen.states[1]) == editing.snapshot(edited.state)
    second.close(clean=True)
    edited.journal.close(clean=True)
    third = Journal.open(edited.journal.folder)
    assert not third.read_only
    third.close(clean=True)


def test_a_napari_that_looks_for_a_moment_takes_no_session(edited: Edited) -> None:
    folder = edited.journal.folder
    edited.journal.close(clean=True)
    look = FileLock(folder / LOCK, thread_local=False)
    look.acquire()
    end = threading.Timer(0.05, look.release)
    end.start()
    edited.journal = Journal.open(folder)
    end.join()
    assert not edited.journal.read_only


def test_a_session_that_somebody_reads_is_closed_without_waiting(
    edited: Edited,
) -> None:
    folder = edited.journal.folder
    reader = Journal.open(folder)._connection
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    edited.edit()
    begun = time.monotonic()
    edited.journal.close(clean=True)
    assert time.monotonic() - begun < 2
    reader.execute("ROLLBACK")
    reader.close()
    edited.journal = Journal.open(folder)
    state = edited.journal.restore().states[edited.number]
    assert editing.snapshot(state) == editing.snapshot(edited.state)


def test_an_image_that_is_added_while_a_session_is_read_is_no_damage(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Journal.open(edited.journal.folder)
    read_annotations, added = Journal._read_annotations, []

    def read_then_add(journal: Journal) -> Any:
        found = read_annotations(journal)
        if not added:
            state = editing.start(edited.rng)
            added.append(edited.journal.add_annotation(editing.reference(state), state))
            edited.history.push(added[0], editing.edit(edited.rng, state))
            edited.journal.push(edited.history.done[-1])
        return found

    monkeypatch.setattr(Journal, "_read_annotations", read_then_add)
    seen = reader.restore()
    assert seen.states.keys() == {edited.number, *added}
    assert seen.history.done[-1].annotation == added[0]
    reader.close(clean=True)


READ = """
import os, sys
from napari_sac.core.session.image import hash_pixels
from napari_sac.core.session.journal import Journal
if os.geteuid() == 0:
    # root may write anywhere
    os.setuid(65534)
journal = Journal.open(sys.argv[1])
assert journal.read_only
assert "cannot be written" in journal.read_only_reason, journal.read_only_reason
print(len(journal.restore().history.done))
journal.close(clean=True)
"""


@posix
@pytest.mark.parametrize("clean", [True, False])
def test_a_folder_that_may_not_be_written_to_opens_read_only(
    edited: Edited, clean: bool
) -> None:
    if clean:
        edited.journal.close(clean=True)
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        folder = shutil.copytree(edited.journal.folder, Path(parent) / "read.sac")
        (folder / "lock").unlink(missing_ok=True)
        assert (folder / "journal.sqlite-wal").exists() == (not clean)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        result = subprocess.run(
            [sys.executable, "-c", READ, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "20\n"


@posix
def test_on_a_full_disk_changes_wait_and_nothing_is_lost(edited: Edited) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    wal = edited.journal.folder / "journal.sqlite-wal"
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
    try:
        for waiting in (1, 2):
            with pytest.raises(OutputError, match="make space") as failure:
                edited.edit()
            assert edited.journal.unsaved == waiting
            assert f"last {waiting} changes" in str(failure.value)
        with pytest.raises(OutputError, match="make space"):
            edited.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    edited.edit()
    assert edited.journal.unsaved == 0
    restored = reopen(edited)
    assert len(restored.history.done) == 23
    state = restored.states[edited.number]
    assert editing.snapshot(state) == editing.snapshot(edited.state)


@posix
def test_a_session_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal.create(tmp_path / "file" / "new.sac")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal.create(tmp_path / "full")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal.create(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
    assert (tmp_path / "file").is_file()


def test_a_journal_knows_its_own_steps_only(edited: Edited) -> None:
    with pytest.raises(ValueError, match="no step 99"):
        edited.journal.undo(99)
    edited.journal.close(clean=True)
    edited.journal.close(clean=True)


def test_no_folder_no_session(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="is not there"):
        Journal.open(tmp_path / "no.sac")
    with pytest.raises(SessionError, match="is not a session"):
        Journal.open(tmp_path)


def test_an_image_may_become_another_stain_of_itself(edited: Edited) -> None:
    reference = edited.journal.restore().images[edited.number]
    pixels = 255 - edited.pixels
    other = replace(reference, stain="haematoxylin", sha256=hash_pixels(pixels))
    edited.journal.set_image(edited.number, other, pixels)
    with pytest.raises(ValueError, match="an image"):
        edited.journal.set_image(edited.number, replace(other, shape=(1, 1)))
    again = reopen(edited).images[edited.number]
    assert again.stain == "haematoxylin"
    kept, _ = edited.journal.find_image(edited.number, again)
    np.testing.assert_array_equal(kept, pixels)


def test_a_mask_without_pixels_that_comes_late_does_no_harm(edited: Edited) -> None:
    edited.edit()
    step = edited.history.done[-1]
    edited.journal.amend(step.number, edited.number, PixelChange.none())
    edited.journal.close(clean=True)
    journal = Journal.open(edited.journal.folder)
    assert len(journal.restore().history.done) == len(edited.history.done)
    journal.close(clean=True)


def test_the_address_of_a_database_on_a_windows_share_has_no_server() -> None:
    share = sqlite_uri(PureWindowsPath(r"\\nas\lab\a b.sac\journal.sqlite"))
    assert share == "file:////nas/lab/a%20b.sac/journal.sqlite"
    drive = sqlite_uri(PureWindowsPath(r"C:\a.sac\journal.sqlite"))
    assert drive == "file:///C:/a.sac/journal.sqlite"

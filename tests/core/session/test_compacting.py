"""A long log gets shorter when its session is opened, and what it says stays true."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from core.session import editing
from core.session.conftest import Edited

from napari_sac.core.errors import OutputError
from napari_sac.core.session import journal as journals
from napari_sac.core.session.changes import backward, forward
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.recovery import find_unclosed

if TYPE_CHECKING:
    from pathlib import Path

COMPACT = """
import os, signal, sys, sqlite3
from napari_sac.core.session.journal import Journal

journal = Journal.open(sys.argv[1])
limit, count = int(sys.argv[2]), 0


def kill():
    global count
    count += 1
    if count > limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


restored = journal.restore()
journal.flush({n: s.labels for n, s in restored.states.items()})
journal._connection.set_progress_handler(kill, 50)
journal.compact(kept=5)
journal.close(clean=True)
print("compacted")
"""


def lines_of(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection:
        rows = connection.execute("SELECT kind FROM log ORDER BY entry")
        return [kind for (kind,) in rows]


def undo(session: Edited, count: int) -> None:
    for _ in range(count):
        step = session.history.undo()
        session.state = backward(session.state, step.change)
        session.journal.undo(step.number)


def check(session: Edited, kept: int) -> None:
    """See that all is there, and that as many steps can be undone, and redone."""
    session.journal = Journal.open(session.journal.folder)
    restored = session.journal.restore()
    state = restored.states[session.number]
    assert editing.snapshot(state) == editing.snapshot(session.state)
    last, expected = editing.snapshot(state), session.state
    done, undone = session.history.done, session.history.undone
    assert len(restored.history.done) == kept
    theirs = [s.number for s in restored.history.undone]
    assert theirs == [s.number for s in undone]
    for step in done[: -kept - 1 : -1]:
        state = backward(state, restored.history.undo().change)
        expected = backward(expected, step.change)
        assert editing.snapshot(state) == editing.snapshot(expected)
    assert restored.history.undo() is None
    while (step := restored.history.redo()) is not None:
        state = forward(state, step.change)
    for step in (*done[-kept:], *undone):
        expected = forward(expected, step.change)
    assert editing.snapshot(state) == editing.snapshot(expected)
    if not undone:
        assert editing.snapshot(state) == last


def test_the_last_steps_can_be_undone_and_redone(edited: Edited) -> None:
    undo(edited, 6)
    edited.edit(4)
    undo(edited, 3)
    edited.flush()
    edited.journal.compact(kept=7)
    # it goes on as if nothing had been
    edited.edit(2)
    undo(edited, 1)
    edited.flush()
    edited.journal.close(clean=True)
    kinds = lines_of(edited.journal.folder)
    assert kinds == ["do"] * 10 + ["undo"] * 3 + ["do"] * 2 + ["undo"]
    check(edited, kept=8)


def test_labels_that_are_not_written_are_not_lost(edited: Edited) -> None:
    while not edited.journal.unflushed:
        edited.edit()
    before = lines_of(edited.journal.folder)
    with pytest.raises(OutputError):
        edited.journal.compact()
    assert lines_of(edited.journal.folder) == before


def shorten(folder: Path) -> None:
    """Open a session as the window does, and do nothing."""
    journal = Journal.open(folder)
    restored = journal.shorten(journal.restore())
    again = journal.restore()
    for number, state in again.states.items():
        assert editing.snapshot(state) == editing.snapshot(restored.states[number])
    numbers = [[s.number for s in r.history.done] for r in (restored, again)]
    assert numbers[0] == numbers[1]
    journal.close(clean=True)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("flushed", [True, False])
def test_a_long_log_is_compacted_when_it_is_opened_after_a_clean_close_only(
    edited: Edited, monkeypatch: pytest.MonkeyPatch, clean: bool, flushed: bool
) -> None:
    while not edited.journal.unflushed:
        edited.edit()
    many = len(edited.history.done)
    if flushed:
        edited.flush()
    monkeypatch.setattr(journals, "COMPACT_BYTES", 100)
    monkeypatch.setattr(journals, "KEPT_STEPS", 12)
    folder = edited.journal.folder
    edited.journal.close(clean=clean)
    # nobody waits for it when the window closes
    assert lines_of(folder) == ["do"] * many
    shorten(folder)
    kept = 12 if clean else many
    assert lines_of(folder) == ["do"] * kept
    check(edited, kept)


def test_a_long_log_that_gets_no_shorter_is_let_alone(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(edited, 3)
    monkeypatch.setattr(journals, "COMPACT_BYTES", 100)
    monkeypatch.setattr(journals, "KEPT_STEPS", 12)
    edited.journal.close(clean=True)
    shorten(edited.journal.folder)
    compacted: list[int] = []
    monkeypatch.setattr(Journal, "compact", lambda _, kept: compacted.append(kept))
    shorten(edited.journal.folder)
    assert compacted == []
    check(edited, 12)


def test_a_session_whose_log_cannot_be_made_shorter_opens(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "COMPACT_BYTES", 100)
    monkeypatch.setattr(journals, "KEPT_STEPS", 12)
    edited.journal.close(clean=True)

    def fail(self: Journal, kept: int) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "compact", fail)
        shorten(edited.journal.folder)
    assert lines_of(edited.journal.folder) == ["do"] * 20
    check(edited, 20)


def test_of_many_small_steps_those_stay_that_can_be_undone(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "LIMIT", 8)
    edited.flush()
    edited.journal.close(clean=True)
    shorten(edited.journal.folder)
    assert lines_of(edited.journal.folder) == ["do"] * 8
    check(edited, 8)


def test_a_short_log_stays(edited: Edited) -> None:
    edited.flush()
    edited.journal.close(clean=True)
    shorten(edited.journal.folder)
    assert len(lines_of(edited.journal.folder)) == 20
    assert find_unclosed() == []


def test_the_file_is_smaller_afterwards(tmp_path: Path) -> None:
    session = Edited(tmp_path / "large.sac")
    session.edit(400)
    session.flush()
    file = session.journal.folder / "journal.sqlite"
    session.journal.close(clean=False)
    before = file.stat().st_size
    session.journal = Journal.open(session.journal.folder)
    session.journal.compact(kept=20)
    session.journal.close(clean=True)
    assert file.stat().st_size < before / 2
    check(session, kept=20)
    session.journal.close(clean=True)


def test_who_reads_meanwhile_reads_one_log_or_the_other(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited.flush()
    reader = Journal.open(edited.journal.folder)
    assert reader.read_only
    read_lines, compacted = Journal._lines, []

    def compact_first(journal: Journal):
        if journal is reader and not compacted:
            compacted.append(True)
            edited.journal.compact(kept=4)
        return read_lines(journal)

    monkeypatch.setattr(Journal, "_lines", compact_first)
    restored = reader.restore()
    assert compacted
    state = restored.states[edited.number]
    assert editing.snapshot(state) == editing.snapshot(edited.state)
    assert len(restored.history.done) == 4
    reader.close(clean=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.timeout(180)
def test_a_kill_at_any_moment_loses_nothing(edited: Edited) -> None:
    folder = edited.journal.folder
    edited.journal.close(clean=False)
    moments = [0, 3, *np.random.default_rng(0).integers(5, 60, 4).tolist(), 10**9]
    killed = 0
    for moment in sorted(moments):
        process = subprocess.run(
            [sys.executable, "-c", COMPACT, os.fspath(folder), str(moment)],
            capture_output=True,
            text=True,
            check=False,
        )
        killed += process.returncode == -signal.SIGKILL
        left = lines_of(folder)
        assert left in (["do"] * 20, ["do"] * 5), process.stderr
        check(edited, kept=len(left))
        edited.journal.close(clean=False)
    assert killed >= 2
    assert len(lines_of(folder)) == 5

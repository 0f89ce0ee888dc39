"""Replacing a folder: at no moment is there nothing."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from napari_sac.core import folders
from napari_sac.core.errors import OutputError
from napari_sac.core.folders import (
    files_together,
    remove_left_over,
    rename,
    replace_folder,
    sync_folder,
    whole_folder,
)


def _folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "what").write_text(text)
    return path


def test_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    target = _folder(tmp_path / "mine.sac", "old")
    replace_folder(_folder(tmp_path / ".new.part", "new"), target)
    assert (target / "what").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.sac"]


def test_goes_where_nothing_was(tmp_path: Path) -> None:
    replace_folder(_folder(tmp_path / ".new.part", "new"), tmp_path / "mine.sac")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.sac"]


class _Killed(BaseException):
    """What nothing in the program catches, as a kill."""


def test_a_kill_in_between_leaves_the_one_before_to_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _folder(tmp_path / "mine.sac", "old")
    # what an earlier kill has left is not lost by a second one
    _folder(tmp_path / "mine (before).sac", "older")
    partial = _folder(tmp_path / ".new.part", "new")
    rename = os.replace

    def rename_and_die(a: Path, b: Path) -> None:
        rename(a, b)
        raise _Killed

    monkeypatch.setattr(os, "replace", rename_and_die)
    with pytest.raises(_Killed):
        replace_folder(partial, target)
    kept = {(p / "what").read_text() for p in tmp_path.glob("mine (before)*.sac")}
    assert kept == {"old", "older"}


def test_half_of_a_folder_does_not_look_like_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(folder: Path, **options: object) -> None:
        raise _Killed

    monkeypatch.setattr("shutil.rmtree", die)
    target = _folder(tmp_path / "mine.sac", "old")
    with pytest.raises(_Killed):
        replace_folder(_folder(tmp_path / ".new.part", "new"), target)
    assert (target / "what").read_text() == "new"
    shown = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert shown == ["mine.sac"]


def test_a_failure_puts_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _folder(tmp_path / "mine.sac", "old")
    partial = _folder(tmp_path / ".new.part", "new")
    rename = os.replace

    def rename_no_new(a: Path, b: Path) -> None:
        if a == partial:
            raise OSError("no")
        rename(a, b)

    monkeypatch.setattr(os, "replace", rename_no_new)
    with pytest.raises(OSError, match="no"):
        replace_folder(partial, target)
    assert (target / "what").read_text() == "old"
    assert not list(tmp_path.glob("*before*"))


@pytest.mark.parametrize("before", [True, False])
def test_what_is_written_as_a_whole_is_there_and_outlives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    target = tmp_path / "new" / "mine.sac"
    if before:
        target.parent.mkdir()
        _folder(target, "old")
    synced = []

    def note(folder: Path) -> None:
        if target.exists():
            synced.append((folder, (target / "what").read_text()))

    monkeypatch.setattr("napari_sac.core.folders.sync_folder", note)
    with whole_folder(target) as partial:
        (partial / "what").write_text("new")
        assert partial.parent == target.parent
    assert (target.parent, "new") in synced
    assert [p.name for p in target.parent.iterdir()] == ["mine.sac"]


def test_files_are_on_the_disk_before_the_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _folder(tmp_path / "mine.sac", "old")
    synced = set()
    fsync, rename = os.fsync, os.replace

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(a: Path, b: Path) -> None:
        below = [p for p in partial.rglob("*") if p.is_file()]
        assert {p.stat().st_ino for p in below} <= synced
        rename(a, b)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", check)
    with whole_folder(target) as partial:
        (partial / "what").write_text("new")
        _folder(partial / "deeper", "new too")
    assert (target / "deeper" / "what").read_text() == "new too"
    assert len(synced) >= 2


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = _folder(tmp_path / "mine.sac", "old")
    with pytest.raises(ZeroDivisionError), whole_folder(target) as partial:
        (partial / "what").write_text(str(1 / 0))
    assert (target / "what").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.sac"]


def _write(folder: Path, text: str, *names: str) -> None:
    for name in names:
        (folder / name).write_text(text)


def test_files_that_belong_together_come_together(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for text in ("old", "new"):
        with files_together(folder, ["c", "a", "b"]) as partial:
            _write(partial, text, "a", "b")
            _folder(partial / "c", text)
            assert text == "old" or (folder / "a").read_text() == "old"
    assert {p.name for p in folder.iterdir()} == {"a", "b", "c"}
    assert {(folder / p).read_text() for p in ("a", "b", "c/what")} == {"new"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(28, "No space left"),
            "a, b could not be written to .*(No space left)",
        ),
        (OutputError("It is somebody's"), "^It is somebody's$"),
    ],
)
def test_of_files_that_belong_together_none_comes_alone(
    tmp_path: Path, error: Exception, words: str
) -> None:
    _write(tmp_path, "old", "a", "b")

    def fail(partial: Path) -> None:
        _write(partial, "new", "a")
        raise error

    with (
        pytest.raises(OutputError, match=words),
        files_together(tmp_path, ["a", "b"]) as partial,
    ):
        fail(partial)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "a": "old",
        "b": "old",
    }


def test_which_files_are_new_is_told_where_one_cannot_be_put_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(OutputError, match="New there: a; the others are as they were"),
        files_together(tmp_path, ["a", "b"]) as partial,
    ):
        _write(partial, "new", "a", "b")
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}


def test_all_that_belongs_together_is_there_before_what_was_there_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(folder: Path, **options: object) -> None:
        raise _Killed

    def replace() -> None:
        with files_together(tmp_path, ["c", "a"]) as partial:
            _folder(partial / "c", "new")
            _write(partial, "new", "a")
            monkeypatch.setattr("shutil.rmtree", die)

    _folder(tmp_path / "c", "old")
    _write(tmp_path, "old", "a")
    with pytest.raises(_Killed):
        replace()
    assert (tmp_path / "c" / "what").read_text() == "new"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_a_file_that_a_virus_scanner_looks_at_is_renamed_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    real, refusals = os.replace, [PermissionError(13, "in use")] * 3

    def refuse_thrice(a: Path, b: Path) -> None:
        if refusals:
            raise refusals.pop()
        real(a, b)

    _write(tmp_path, "new", "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse_thrice)
        patch.setattr(folders.os, "name", system)
        may = nullcontext() if system == "nt" else pytest.raises(PermissionError)
        with may:
            rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").exists() == (system == "nt")


def test_what_a_killed_program_left_is_removed_and_what_is_written_now_stays(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "old", "a", ".mine", ".lock")
    _folder(tmp_path / ".0123456789ab.part", "of somebody else")
    there = set(tmp_path.iterdir())
    hold = (
        "import sys; from pathlib import Path; "
        "from napari_sac.core.folders import files_together\n"
        "with files_together(Path(sys.argv[1]), ['a']) as partial:\n"
        "    (partial / 'a').write_text('half'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        before = set(tmp_path.iterdir())
        assert len(before) == len(there) + 2
        remove_left_over(tmp_path)
        assert set(tmp_path.iterdir()) == before
        # another computer may have it, and its lock need not hold here
        program.kill()
        program.wait()
        remove_left_over(tmp_path)
        assert set(tmp_path.iterdir()) == before
        for file in before:
            os.utime(file, (0, 0))
    remove_left_over(tmp_path)
    assert set(tmp_path.iterdir()) == there
    assert (tmp_path / "a").read_text() == "old"


def test_a_folder_with_a_file_that_may_not_be_written_to_is_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: str = "r") -> object:
        raise PermissionError(path, mode)

    # who is root may write to all files
    monkeypatch.setattr(folders, "open", refuse, raising=False)
    with whole_folder(tmp_path / "there") as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "there" / "file").read_text() == "whole"


def test_a_drive_that_cannot_sync_folders_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)

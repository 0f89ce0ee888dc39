"""A run as a folder: what is asked comes back, hostile files do not; who runs it."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import zipfile
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock

from napari_sac.core.config import FinetuneConfig
from napari_sac.core.errors import OutputError, TrainingDataError
from napari_sac.core.models.adapter import CONFIG_FILE, LEARNED_FILE, WEIGHT_NAMES
from napari_sac.core.training import reviewed_file
from napari_sac.core.training.events import Wish
from napari_sac.core.training.reviewed_image import ReviewedImage
from napari_sac.core.training.run_folder import (
    Phase,
    RunRequest,
    RunStatus,
    ask_for,
    clear_request,
    command,
    find_runs,
    hold,
    is_running,
    load_request,
    log_path,
    read_curve,
    read_log_end,
    read_status,
    read_validation,
    read_wish,
    remove_run,
    save_request,
    sweep_runs,
    write_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def request_() -> RunRequest:
    """Two images, all fields other than their defaults."""
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 1:3], labels[4:, 5:] = 1, 2
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    one = ReviewedImage(
        "one", image, labels, labels > 0, np.array([[0.5, 6]]), np.array([[1, 2, 2.0]])
    )
    other = ReviewedImage("other", image[:, ::-1], labels[:, ::-1], labels >= 0)
    config = FinetuneConfig(quick=True, rank=3, max_minutes=2.5)
    return RunRequest(
        "sac_tiny", "he", (one, other), config, "cpu", "My title", "d", "t", "CC0"
    )


@pytest.fixture
def folder(request_: RunRequest, tmp_path: Path) -> Path:
    save_request(tmp_path / "mine", request_)
    return tmp_path / "mine"


def test_a_request_comes_back(request_: RunRequest, folder: Path) -> None:
    found = load_request(folder)
    for field in fields(RunRequest):
        if field.name != "images":
            assert getattr(found, field.name) == getattr(request_, field.name)
    for one, expected in zip(found.images, request_.images, strict=True):
        assert one.name == expected.name
        for array in ("image", "labels", "known", "rejected", "negatives"):
            values, wanted = getattr(one, array), getattr(expected, array)
            assert values.dtype == wanted.dtype
            np.testing.assert_array_equal(values, wanted)


def test_numpy_reads_the_arrays_too(folder: Path) -> None:
    with np.load(folder / "run" / "data.npz") as arrays:
        assert arrays["0_labels"].max() == 2


def test_a_second_run_in_a_folder_is_refused(
    request_: RunRequest, folder: Path
) -> None:
    with pytest.raises(OutputError, match="kept"):
        save_request(folder, replace(request_, title="other"))
    assert load_request(folder).title == "My title"


@pytest.mark.parametrize(
    ("limit", "value"), [("_MOST_IMAGES", 1), ("_MOST_PIXELS", 95)]
)
def test_more_than_could_be_read_again_is_refused_before_it_is_written(
    request_: RunRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    monkeypatch.setattr(reviewed_file, limit, value)
    with pytest.raises(TrainingDataError, match=r"2 images .* Nothing was begun"):
        save_request(tmp_path / "mine", request_)
    assert not (tmp_path / "mine").exists()


def change_request(folder: Path, **changes: object) -> None:
    file = folder / "run" / "request.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


IMAGE = {"name": "one", "shape": [6, 8], "rejected": 1, "negatives": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"model": 7},
        {"model": "x" * 20_000},
        {"config": {"rank": "8"}},
        {"config": {"rank": 0}},
        {"config": {"quick": 1}},
        {"config": {"unheard": 1}},
        {"config": {"learning_rate": math.nan}},
        {"config": {"rank": 10**400}},
        {"config": []},
        {"images": {}},
        {"images": [IMAGE | {"shape": [6]}]},
        {"images": [IMAGE | {"shape": [9, 9]}]},
        {"images": [IMAGE | {"shape": [-6, -8]}]},
        {"images": [IMAGE | {"shape": [1 << 30, 1 << 30]}]},
        {"images": [IMAGE | {"rejected": -1}]},
        {"images": [IMAGE | {"rejected": True}]},
    ],
)
def test_a_hostile_request_is_one_sentence(
    folder: Path, changes: dict[str, object]
) -> None:
    change_request(folder, **changes)
    with pytest.raises(TrainingDataError, match="Discard the run and begin it again"):
        load_request(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, " " * (1 << 23)])
def test_what_is_no_request_is_one_sentence(folder: Path, text: str) -> None:
    (folder / "run" / "request.json").write_text(text)
    with pytest.raises(TrainingDataError):
        load_request(folder)


def npy(values: np.ndarray, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=pickled)
    return buffer.getvalue()


def forge(folder: Path, name: str, content: bytes, **options: int) -> None:
    """Replace one array of the data by other bytes."""
    file = folder / "run" / "data.npz"
    with zipfile.ZipFile(file) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(file, "w", **options) as archive:
        for part, data in (parts | {name: content}).items():
            archive.writestr(part, data)


class Trap:
    """Would create a file if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


LABELS = np.zeros((6, 8), np.int32)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0_labels.npy", npy(np.array([[Trap()] * 8] * 6), pickled=True)),
        ("0_labels.npy", npy(LABELS.astype(np.int64))),
        ("0_labels.npy", npy(np.asfortranarray(LABELS + np.arange(8, dtype="i4")))),
        ("0_labels.npy", npy(LABELS.reshape(8, 6))),
        ("0_labels.npy", npy(LABELS)[:-1]),
        ("0_labels.npy", npy(LABELS - 1)),
        ("0_labels.npy", npy(LABELS + (1 << 30))),
        ("0_labels.npy", npy(LABELS) + b"more than it says" * 1000),
        ("0_labels.npy", b"nothing" * 40),
        ("0_labels.npy", npy(LABELS).replace(b", }", b", (")),
        ("0_labels.npy", npy(LABELS).replace(b"{'descr'", b"  a\n b  ")),
        ("0_known.npy", npy(np.full((6, 8), 7, np.uint8)).replace(b"|u1", b"|b1")),
        ("0_rejected.npy", npy(np.array([[np.nan, 1.0]]))),
        ("0_rejected.npy", npy(np.array([[1e12, 1.0]]))),
        ("0_negatives.npy", npy(np.array([[1.0, 1.0, 9.0]]))),
    ],
)
def test_hostile_arrays_are_one_sentence(
    folder: Path, name: str, content: bytes
) -> None:
    forge(folder, name, content)
    with pytest.raises(TrainingDataError, match="cannot be read"):
        load_request(folder)


def test_a_compressed_bomb_is_not_unpacked(folder: Path) -> None:
    forge(folder, "0_labels.npy", npy(LABELS), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TrainingDataError, match="compressed"):
        load_request(folder)


def test_a_status_comes_back(folder: Path) -> None:
    assert read_status(folder) is None
    status = RunStatus(
        Phase.TRAINING, 5, 20, 3.5, 10**9, "a GPU", "", ("one", "two"), pid=7
    )
    write_status(folder, status)
    assert read_status(folder) == status
    failed = RunStatus(Phase.FAILED, message="why", report="trace", promoted=False)
    write_status(folder, failed)
    assert read_status(folder) == failed


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"phase": "dancing"}', '{"phase": "paused"}', "\xff"]
)
def test_a_status_that_is_none_says_nothing(folder: Path, text: str) -> None:
    (folder / "run" / "status.json").write_text(text, encoding="latin-1")
    assert read_status(folder) is None


def test_wishes_come_back(folder: Path) -> None:
    assert read_wish(folder) is Wish.GO
    for wish in Wish:
        ask_for(folder, wish)
        assert read_wish(folder) is wish
    (folder / "run" / "wish").write_text("dance")
    assert read_wish(folder) is Wish.GO


def test_tables_are_read_while_they_are_written(folder: Path) -> None:
    assert read_curve(folder) == read_validation(folder) == {}
    (folder / "run" / "curve.csv").write_text("step,loss\n5,0.5\n10,0.25\n15,0.1")
    assert read_curve(folder) == {"step": [5, 10], "loss": [0.5, 0.25]}
    (folder / "run" / "validation.csv").write_text("step,f1\n0,none\n")
    assert read_validation(folder) == {}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOLCK, "No locks available"),
        NotImplementedError("FileSystem does not appear to support flock"),
    ],
)
def test_where_nothing_can_be_locked_nothing_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OutputError, match="another drive"), hold(folder):
        pass


def test_only_its_process_runs_a_run(folder: Path) -> None:
    assert not is_running(folder)
    # a lock of its own, as another process has
    with FileLock(folder / "run" / "lock"):
        assert is_running(folder)
        with pytest.raises(OutputError, match="another process"), hold(folder):
            pass
    with hold(folder):
        assert is_running(folder)
        # what it calls may hold it too
        with hold(folder):
            pass
        assert is_running(folder)
    assert not is_running(folder)


def test_unfinished_runs_are_found(folder: Path, request_: RunRequest) -> None:
    root = folder.parent
    (root / "an adapter").mkdir()
    for name, phase in (("b", Phase.FINISHED), ("c", Phase.FAILED)):
        save_request(root / name, request_)
        write_status(root / name, RunStatus(phase))
    assert find_runs(root) == (root / "c", folder)
    assert find_runs(root / "nowhere") == ()


def test_what_is_left_of_runs_is_swept_away(folder: Path, request_: RunRequest) -> None:
    root = folder.parent
    write_status(folder, RunStatus(Phase.TRAINING))
    save_request(root / "cancelled", request_)
    write_status(root / "cancelled", RunStatus(Phase.CANCELLED))
    for name in ("logged", "begun"):
        (root / name / "run").mkdir(parents=True)
        (root / name / "run" / "log.txt").write_text("")
    os.utime(root / "logged" / "run" / "log.txt", (0, 0))
    # as the command line leaves it when it is killed
    (root / "killed" / "run").mkdir(parents=True)
    for name in ("job.json", "checkpoint.pt"):
        (root / "killed" / "run" / name).write_text("")
        os.utime(root / "killed" / "run" / name, (0, 0))
    with hold(root / "cancelled"):
        sweep_runs(root)
        assert (root / "cancelled").exists(), "it is about to clean up itself"
    sweep_runs(root)
    assert {place.name for place in root.iterdir()} == {"mine", "begun", "killed"}
    sweep_runs(root / "nowhere")


def test_the_end_of_the_log_is_read(folder: Path) -> None:
    assert read_log_end(folder) == ""
    log_path(folder).write_text("x" * 9000 + "\nNo space left on device\n")
    end = read_log_end(folder)
    assert end.endswith("No space left on device")
    assert len(end) < 5000


def test_the_command_names_the_folder(folder: Path) -> None:
    assert command(folder)[1:] == [
        "-m", "napari_sac.core.training.child", str(folder),
    ]  # fmt: skip


def test_a_removed_run_leaves_nothing(folder: Path) -> None:
    ask_for(folder, Wish.CANCEL)
    (folder / "report.html").write_text("half")
    # what a killed process was writing
    (folder / ".0123456789ab.part").mkdir()
    (folder / ".0123456789ab.part" / "adapter_config.json").write_text("{}")
    remove_run(folder)
    assert not folder.exists()


def test_half_an_adapter_goes_with_its_run_and_one_of_others_stays(
    folder: Path,
) -> None:
    (folder / CONFIG_FILE).write_text("{}")
    remove_run(folder)
    assert [p.name for p in folder.iterdir()] == [CONFIG_FILE]
    for name in (LEARNED_FILE, WEIGHT_NAMES[0]):
        (folder / name).write_text("{}")
    remove_run(folder)
    assert not folder.exists()


def test_an_adapter_stays_when_its_run_is_removed(folder: Path) -> None:
    for name in ("napari_sac.json", "report.html"):
        (folder / name).write_text("{}")
    clear_request(folder)
    assert not (folder / "run" / "data.npz").exists()
    remove_run(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "napari_sac.json", "report.html",
    ]  # fmt: skip

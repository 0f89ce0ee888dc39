"""The process that fine-tunes: it finishes, waits, stops, survives, explains itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from PIL import Image

from napari_sac.core.config import FinetuneConfig
from napari_sac.core.models.adapter import read_adapter_info
from napari_sac.core.training import child
from napari_sac.core.training.events import Wish, Working
from napari_sac.core.training.run_folder import (
    Phase,
    RunRequest,
    RunStatus,
    ask_for,
    command,
    example_path,
    find_runs,
    is_running,
    load_request,
    read_curve,
    read_status,
    read_validation,
    save_request,
    write_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sac.core.training.reviewed_image import ReviewedImage

SECONDS = 240
CONFIG = FinetuneConfig(epochs=5, batch_size=2, prompts_per_crop=4, rank=2)
LONG = replace(CONFIG, epochs=100_000)

# The child with the tiny model, and a checkpoint whenever there can be one.
TINY = """
import sys
sys.path.insert(0, {tests!r})
from synthetic import build_tiny_model
from napari_sac.core.training import checkpoint, child, run
model = build_tiny_model()
run.load_model = lambda *_, **__: model
run.weights_sha256 = lambda _: "ab" * 32
checkpoint.CHECKPOINT_SECONDS = 0.0
sys.exit(child.main())
"""


@pytest.fixture
def ask_run(
    reviewed: tuple[ReviewedImage, ...], tmp_path: Path
) -> Callable[[FinetuneConfig], Path]:
    def ask(config: FinetuneConfig) -> Path:
        folder = tmp_path / "mine"
        save_request(
            folder,
            RunRequest("sac_tiny", None, reviewed, config, "cpu", title="My own"),
        )
        return folder

    return ask


@pytest.fixture
def start() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Start the child with the tiny model; what still runs at the end is killed."""
    started = []

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        code = TINY.format(tests=str(Path(__file__).parents[2]))
        line = [sys.executable, "-c", code, *command(folder)[3:]]
        with (folder / "run" / "log.txt").open("ab") as log:
            started.append(subprocess.Popen(line, stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it took too long"
        assert process.poll() is None, "the process has ended"
        time.sleep(0.02)


def steps_of(folder: Path) -> list[float]:
    return read_curve(folder).get("step", [])


def status_of(folder: Path) -> RunStatus:
    status = read_status(folder)
    assert status is not None
    return status


@pytest.mark.timeout(900)
def test_a_run_pauses_goes_on_and_stops_with_the_best(
    ask_run: Callable[[FinetuneConfig], Path],
    start: Callable[[Path], subprocess.Popen[bytes]],
) -> None:
    folder = ask_run(LONG)
    process = start(folder)
    wait_for(lambda: len(steps_of(folder)) >= 2, process)
    assert is_running(folder)
    assert status_of(folder).pid == process.pid
    own = psutil.Process().nice()
    assert psutil.Process(process.pid).nice() != own, "the window comes first"
    assert find_runs(folder.parent) == (folder,)
    assert example_path(folder).is_file()
    with Image.open(example_path(folder)) as picture:
        assert picture.mode == "RGB"

    ask_for(folder, Wish.PAUSE)
    wait_for(lambda: status_of(folder).phase is Phase.PAUSED, process)
    held = steps_of(folder)
    time.sleep(1)
    assert steps_of(folder) == held
    assert is_running(folder)

    ask_for(folder, Wish.GO)
    wait_for(lambda: len(steps_of(folder)) > len(held), process)
    assert status_of(folder).phase is Phase.TRAINING

    ask_for(folder, Wish.STOP)
    assert process.wait(SECONDS) == 0
    status = status_of(folder)
    assert status.phase is Phase.FINISHED
    assert status.promoted == read_adapter_info(folder).promoted
    assert any("Estimate" in note for note in status.notes)
    assert status.memory_bytes > 1e6
    assert status.device
    report = json.loads((folder / "report.json").read_text())
    assert report["stopped"]
    assert read_validation(folder)["step"][0] == 0
    assert not is_running(folder)
    assert find_runs(folder.parent) == ()
    assert read_adapter_info(folder).title == "My own"


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_at_its_checkpoint(
    ask_run: Callable[[FinetuneConfig], Path],
    start: Callable[[Path], subprocess.Popen[bytes]],
) -> None:
    folder = ask_run(LONG)
    killed = start(folder)
    wait_for(lambda: len(steps_of(folder)) >= 4, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not is_running(folder)
    assert status_of(folder).phase is Phase.TRAINING
    assert find_runs(folder.parent) == (folder,)
    before = steps_of(folder)

    ask_for(folder, Wish.STOP)
    again = start(folder)
    assert again.wait(SECONDS) == 0
    status = status_of(folder)
    assert status.phase is Phase.FINISHED
    (resumed,) = [n for n in status.notes if n.startswith("Going on at step ")]
    step = int(resumed.split()[4])
    assert step > 0
    # the last row may be written, and the checkpoint of its step not yet
    assert before[-1] - 1 <= step < before[-1] + 5
    assert steps_of(folder) == [s for s in before if s <= step]


@pytest.mark.usefixtures("tiny_registry")
def test_a_cancelled_run_leaves_nothing(
    ask_run: Callable[[FinetuneConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_step_back", lambda: None)
    folder = ask_run(LONG)
    ask_for(folder, Wish.CANCEL)
    assert child.main([str(folder)]) == 0
    assert not folder.exists()


@pytest.mark.usefixtures("tiny_registry")
def test_a_finished_run_is_not_done_again(
    ask_run: Callable[[FinetuneConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_step_back", lambda: None)
    folder = ask_run(CONFIG)
    assert child.main([str(folder)]) == 0
    status = status_of(folder)
    assert status.phase is Phase.FINISHED
    assert status.step == status.steps == steps_of(folder)[-1]
    assert child.main([str(folder)]) == 0
    assert read_status(folder) == status


def test_a_request_that_cannot_be_fails_with_a_sentence(
    ask_run: Callable[[FinetuneConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(child, "_step_back", lambda: None)
    folder = ask_run(CONFIG)
    file = folder / "run" / "request.json"
    file.write_text(file.read_text().replace('"sac_tiny"', '"sac_huge"'))
    assert child.main([str(folder)]) == 1
    status = status_of(folder)
    assert status.phase is Phase.FAILED
    assert "sac_huge" in status.message
    assert status.report == ""
    file.write_text("{}")
    assert child.main([str(folder)]) == 1
    assert "cannot be read" in status_of(folder).message
    assert "cannot be read" in capsys.readouterr().err
    assert find_runs(folder.parent) == (folder,), "it can be mended or deleted"


def test_what_nobody_expected_is_reported(
    ask_run: Callable[[FinetuneConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("of course")

    monkeypatch.setattr(child, "_step_back", lambda: None)
    monkeypatch.setattr(child, "split", break_down)
    folder = ask_run(CONFIG)
    write_status(folder, RunStatus(Phase.TRAINING, 5, 10))
    assert child.main([str(folder)]) == 1
    status = status_of(folder)
    assert status.phase is Phase.FAILED
    assert (status.step, status.steps) == (5, 10)
    assert "is kept" in status.message
    assert "break_down" in status.report
    assert "ZeroDivisionError: of course" in status.report
    assert load_request(folder).model == "sac_tiny", "it can go on"


@pytest.mark.parametrize(
    ("done", "total", "stage"),
    [(314_572_800, 629_145_600, "downloading: 50%"), (0, 0, "downloading")],
)
def test_how_far_it_is_beside_the_steps_is_a_part_and_no_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: int,
    total: int,
    stage: str,
) -> None:
    monkeypatch.setattr(child, "_STATUS_SECONDS", -1.0)
    (tmp_path / "run").mkdir()
    reporter = child._Reporter(tmp_path, None)
    reporter.listen(Working("downloading", done, total))
    assert status_of(tmp_path).stage == stage


def test_a_folder_without_a_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_step_back", lambda: None)
    assert child.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("There is no run in ")

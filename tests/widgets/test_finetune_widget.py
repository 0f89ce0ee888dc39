"""The dock Fine-tune: its form, a run that is watched by its files, and the result."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from annotating import add_to_nucleus, import_labels
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

from napari_sac.core.config import FinetuneConfig
from napari_sac.core.models.adapter import SHIPPED_ADAPTERS, user_adapters
from napari_sac.core.training.events import Wish
from napari_sac.core.training.reviewed_image import review_image
from napari_sac.core.training.run_folder import (
    Phase,
    RunRequest,
    RunStatus,
    ask_for,
    hold,
    load_request,
    log_path,
    read_wish,
    save_request,
    write_status,
)
from napari_sac.core.types import NEGATIVE
from napari_sac.viewer.finetuning import Counts, pair_folders
from napari_sac.viewer.planes import current_plane
from napari_sac.widgets import _finetune_closing, _finetune_watch, finetune_widget
from napari_sac.widgets._finetune_closing import Closing, build_question
from napari_sac.widgets._finetune_sources import Listed, SourcesPanel
from napari_sac.widgets._finetune_watch import RunStage
from napari_sac.widgets.finetune_widget import FinetuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot
    from qtpy.QtGui import QCloseEvent
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation

TRAINING = RunStatus(
    Phase.TRAINING, 20, 80, 75.0, 1_200_000_000, "CPU", notes=("Estimate: 80 steps.",)
)
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Folders whose process the dock has started: one that only sleeps."""
    folders: list[Path] = []
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
        folders.append(log.parents[1])
        processes.append(subprocess.Popen(SLEEP))
        return processes[-1]

    monkeypatch.setattr(_finetune_watch, "start_program", start)
    yield folders
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def make_dock(qtbot: QtBot) -> Iterator[Callable[[ViewerModel], FinetuneWidget]]:
    made: list[FinetuneWidget] = []

    def make(viewer: ViewerModel) -> FinetuneWidget:
        dock = FinetuneWidget(viewer)
        dock.guard.ask = lambda *_: Closing.KEEP
        qtbot.addWidget(dock)
        made.append(dock)
        return dock

    yield make
    for dock in made:
        dock.leave()


@pytest.fixture
def tuner(
    viewer: ViewerModel, make_dock: Callable[[ViewerModel], FinetuneWidget]
) -> FinetuneWidget:
    return make_dock(viewer)


@pytest.fixture
def imported(
    qtbot: QtBot, tuner: FinetuneWidget, viewer: ViewerModel, nuclei: Nuclei
) -> Annotation:
    """Twelve reviewed nuclei."""
    plane = current_plane(viewer.layers["field"], viewer.dims.point)
    annotation = import_labels(tuner.session, plane, nuclei.labels)
    tuner.session.accept(annotation, np.arange(12))
    qtbot.waitUntil(lambda: "12 nuclei" in tuner.sources.total.text())
    return annotation


@pytest.fixture
def folder(nuclei: Nuclei) -> Path:
    """A run that was asked for, and that no process runs."""
    made = user_adapters() / "mine"
    reviewed = review_image("field", nuclei.image, nuclei.labels)
    config = FinetuneConfig(quick=True)
    save_request(made, RunRequest("sac_tiny", None, (reviewed,), config, "cpu"))
    return made


def finish(folder: Path, *, promoted: bool, least: float = 0.01) -> None:
    """Have a run end as its process leaves it: an adapter, a report, the last word."""
    for file in (SHIPPED_ADAPTERS / "he").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    scores = {"f1": 0.7, "pq": 0.6, "aji": 0.5, "dice": 0.8}
    report = {
        "promoted": promoted,
        "reason": "PQ 0.500 before, 0.600 after.",
        "model": "sac_tiny",
        "base": {name: value - 0.1 for name, value in scores.items()},
        "tuned": scores,
        "intervals": {
            "base": {"f1": [0.5, 0.7]},
            "tuned": None,
            "gain": {"f1": [-0.02, 0.22], "pq": [least, 0.19]},
        },
        "gained": 3,
        "lost": 1,
        "nuclei": 20,
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "report.html").write_text("<html></html>")
    write_status(folder, replace(TRAINING, phase=Phase.FINISHED, promoted=promoted))


# -- the form ---------------------------------------------------------------------


def test_all_words_of_a_line_that_wraps_are_seen(qtbot: QtBot) -> None:
    panel = SourcesPanel()
    qtbot.addWidget(panel)
    panel.show_lines([Listed(1, "slide", Counts(251, 20, 0, 1))])
    heights = []
    for width in (600, 200, 600):
        panel.resize(width, 400)
        panel.show()
        qtbot.wait(20)
        lines = panel.list
        rows = lines.visualItemRect(lines.item(0))
        assert lines.viewport().rect().contains(rows)
        assert not lines.verticalScrollBar().isVisible()
        heights.append(lines.height())
    assert heights[0] == heights[2] < heights[1]
    panel.show_lines([Listed(i, "slide", Counts(251, 20, 0, 1)) for i in range(40)])
    qtbot.wait(20)
    assert panel.list.verticalScrollBar().isVisible()


def test_the_form_lists_what_was_reviewed(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation
) -> None:
    assert tuner.sources.list.item(0).text() == "field\n12 nuclei"
    assert tuner.train.start.isEnabled()
    assert tuner.adapter.name.text() == "field_tuned"
    tuner.session.reject(imported, np.array([0]))
    qtbot.waitUntil(
        lambda: tuner.sources.list.item(0).text() == "field\n11 nuclei, 1 rejected"
    )


def test_a_line_that_went_is_ticked_when_another_takes_its_place(
    tuner: FinetuneWidget, imported: Annotation
) -> None:
    sources = tuner.sources
    lines = list(sources.chosen())
    assert len(lines) == 1
    sources.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    sources.show_lines(lines)
    assert sources.chosen() == []
    # as when all layers are deleted and a session is opened
    sources.show_lines([])
    sources.show_lines(lines)
    assert sources.chosen() == lines


def test_without_anything_reviewed_it_says_why_not(
    qtbot: QtBot, tuner: FinetuneWidget, viewer: ViewerModel, imported: Annotation
) -> None:
    tuner.sources.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert not tuner.train.start.isEnabled()
    assert "Tick" in tuner.train.why_not.text()
    tuner.sources.list.item(0).setCheckState(Qt.CheckState.Checked)
    assert tuner.train.start.isEnabled()
    viewer.layers.remove("field")
    qtbot.waitUntil(lambda: not tuner.train.start.isEnabled())
    assert "image was deleted" in tuner.sources.list.item(0).text()
    assert "no reviewed nucleus" in tuner.train.why_not.text()


def test_an_empty_viewer_says_what_to_do(
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    dock = make_dock(ViewerModel())
    assert not dock.train.start.isEnabled()
    assert "Find nuclei" in dock.train.why_not.text()
    assert dock.adapter.name.text() == "my_tuned"


def test_few_nuclei_are_taken_with_a_warning(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation
) -> None:
    tuner.session.reject(imported, np.arange(9))
    qtbot.waitUntil(lambda: "held out" in tuner.train.why_not.text())
    assert tuner.train.start.isEnabled()


def test_a_name_that_is_taken_or_none_is_refused(
    tuner: FinetuneWidget, imported: Annotation
) -> None:
    for name, reason in (("he", "already"), ("../x", "cannot be the name")):
        tuner.adapter.name.setText(name)
        assert not tuner.train.start.isEnabled()
        assert reason in tuner.adapter.problem.text()
        assert not tuner.adapter.problem.isHidden()
    tuner.adapter.name.setText("fine")
    assert tuner.train.start.isEnabled()
    assert tuner.adapter.problem.isHidden()


def test_a_name_that_was_typed_stays(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation
) -> None:
    tuner.adapter.name.clear()
    qtbot.keyClicks(tuner.adapter.name, "liver")
    tuner.session.reject(imported, np.array([0]))
    qtbot.waitUntil(lambda: "11 nuclei" in tuner.sources.total.text())
    assert tuner.adapter.name.text() == "liver"


def test_what_waits_for_its_masks_is_not_learned_before(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation
) -> None:
    qtbot.waitUntil(tuner.train.start.isEnabled)
    tuner.session.live.hold(True)
    tuner.session.reject(imported, np.array([0]))
    add_to_nucleus(tuner.session, imported, imported.prompts.yx[3] + 2, NEGATIVE)
    qtbot.waitUntil(lambda: not tuner.train.start.isEnabled())
    assert "masks of 1 nucleus lag behind" in tuner.train.why_not.text()
    tuner.session.undo()
    qtbot.waitUntil(tuner.train.start.isEnabled)


def test_a_folder_is_counted_added_and_removed(
    qtbot: QtBot, tuner: FinetuneWidget, nuclei: Nuclei, tmp_path: Path
) -> None:
    for name, pixels in (("images", nuclei.image), ("labels", nuclei.labels)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", pixels)
    folders = pair_folders(tmp_path)
    assert folders is not None
    tuner.add_folders(folders)
    qtbot.waitUntil(lambda: tuner.sources.list.count() == 1, timeout=60_000)
    assert tuner.sources.list.item(0).text() == "images\n12 nuclei"
    assert tuner.train.start.isEnabled()
    assert tuner.sources.remove.isHidden()
    tuner.sources.list.setCurrentRow(0)
    assert not tuner.sources.remove.isHidden()
    tuner.sources.remove.click()
    assert tuner.sources.list.count() == 0


def test_a_folder_that_cannot_be_read_is_said(
    qtbot: QtBot, tuner: FinetuneWidget, tmp_path: Path
) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    folders = pair_folders(tmp_path)
    assert folders is not None
    tuner.add_folders(folders)
    qtbot.waitUntil(lambda: not tuner.worker.busy, timeout=60_000)
    assert "images" in tuner.status.message.text()
    assert tuner.sources.list.count() == 0


def test_the_form_gives_the_defaults_of_the_config(tuner: FinetuneWidget) -> None:
    assert tuner.train.config() == FinetuneConfig()
    tuner.train.quick.setChecked(True)
    tuner.train.minutes.setValue(3)
    assert tuner.train.config() == FinetuneConfig(quick=True, max_minutes=3)


def test_it_goes_on_from_the_model_of_the_segment_dock(tuner: FinetuneWidget) -> None:
    assert "without adapter" in tuner.adapter.start.text()
    tuner.session.choose_model("sac_tiny", "he")
    assert "with H&E tissue" in tuner.adapter.start.text()


# -- start ------------------------------------------------------------------------


def test_the_button_writes_the_request_and_starts_the_run(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation, started: list[Path]
) -> None:
    tuner.session.choose_model("sac_tiny", "he")
    tuner.session.device = "cpu"
    tuner.adapter.name.setText("mine")
    tuner.adapter.tissue.setText("liver")
    tuner.train.quick.setChecked(True)
    tuner.train.start.click()
    assert not tuner.train.start.isEnabled()
    qtbot.waitUntil(lambda: started != [], timeout=60_000)
    folder = user_adapters() / "mine"
    assert started == [folder]
    request = load_request(folder)
    assert (request.model, request.adapter) == ("sac_tiny", "he")
    assert request.config == FinetuneConfig(quick=True)
    assert (request.device, request.tissue) == ("cpu", "liver")
    # that of what it goes on from
    assert request.licence == "CC-BY-NC-SA-4.0"
    (one,) = request.images
    assert (one.name, one.count) == ("field", 12)
    assert tuner.setup.isHidden()
    assert not tuner.run.isHidden()
    assert "mine" in tuner.run.title.text()
    assert tuner.watch.is_going


def test_gathering_that_is_cancelled_leaves_nothing(
    qtbot: QtBot, tuner: FinetuneWidget, imported: Annotation, started: list[Path]
) -> None:
    tuner.train.start.click()
    tuner.worker.cancel()
    qtbot.waitUntil(lambda: not tuner.worker.busy, timeout=60_000)
    assert "was cancelled" in tuner.status.message.text()
    assert started == []
    assert not (user_adapters() / "field_tuned").exists()
    assert tuner.train.start.isEnabled()


def test_the_name_of_a_run_that_was_cancelled_late_is_free_again(
    qtbot: QtBot,
    tuner: FinetuneWidget,
    imported: Annotation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = user_adapters() / "field_tuned"
    written, go_on = threading.Event(), threading.Event()

    def write(*_: object) -> Path:
        folder.mkdir(parents=True)
        written.set()
        go_on.wait(60)
        return folder

    monkeypatch.setattr(finetune_widget, "_write_request", write)
    tuner.train.start.click()
    assert written.wait(60)
    tuner.worker.cancel()
    go_on.set()
    qtbot.waitUntil(lambda: not tuner.worker.busy, timeout=60_000)
    assert not folder.exists()
    assert tuner.train.start.isEnabled()


def test_layers_may_go_and_the_run_is_watched_on(
    qtbot: QtBot,
    tuner: FinetuneWidget,
    viewer: ViewerModel,
    imported: Annotation,
    started: list[Path],
) -> None:
    tuner.train.start.click()
    qtbot.waitUntil(lambda: started != [], timeout=60_000)
    viewer.layers.clear()
    qtbot.wait(10)
    assert tuner.watch.is_going
    write_status(started[0], TRAINING)
    qtbot.waitUntil(lambda: "Step 20 of 80" in tuner.run.steps.text())


# -- a run that is watched --------------------------------------------------------


def test_what_the_files_say_is_shown(
    qtbot: QtBot, tuner: FinetuneWidget, folder: Path
) -> None:
    with hold(folder):
        write_status(folder, TRAINING)
        tuner.watch.watch(folder)
        assert tuner.run.steps.text() == "Step 20 of 80, about 1 min 15 s left."
        assert tuner.run.machine.text() == "CPU, takes 1.2 GB of memory."
        assert tuner.run.said.text() == "Estimate: 80 steps."
        assert tuner.run.phase.text() == "Learning."
        assert (tuner.run.bar.value(), tuner.run.bar.maximum()) == (20, 80)
        assert tuner.run.loss.isHidden()
        (folder / "run" / "curve.csv").write_text("step,loss\n5,2.5\n10,1.5\n")
        (folder / "run" / "validation.csv").write_text(
            "step,f1,pq,aji,dice\n0,0.5,0.4,0.3,0.6\n10,0.7,0.5,0.4,0.7\n"
        )
        Image.new("RGB", (40, 20), (9, 200, 9)).save(folder / "run" / "example.png")
        qtbot.waitUntil(lambda: not tuner.run.loss.isHidden())
        assert not tuner.run.scores.isHidden()
        assert tuner.run.scores.renderer().isValid()
        assert not tuner.run.example.is_empty
        write_status(folder, replace(TRAINING, phase=Phase.COMPARING))
        qtbot.waitUntil(lambda: "Comparing" in tuner.run.phase.text())
        assert not tuner.run.stop.isEnabled()


def test_the_buttons_tell_the_run_what_is_wished(
    tuner: FinetuneWidget, folder: Path
) -> None:
    with hold(folder):
        write_status(folder, TRAINING)
        tuner.watch.watch(folder)
        run = tuner.run
        run.pause.click()
        assert read_wish(folder) is Wish.PAUSE
        assert run.pause.text() == "Go on"
        run.pause.click()
        assert read_wish(folder) is Wish.GO
        assert run.pause.text() == "Pause"
        run.stop.click()
        assert read_wish(folder) is Wish.STOP
        assert "Stopping" in run.phase.text()
        assert not run.pause.isEnabled()
        assert run.cancel.isEnabled()
        run.cancel.click()
        assert read_wish(folder) is Wish.CANCEL
        assert "Cancelling" in run.phase.text()


def test_a_run_that_was_cancelled_leaves_the_form(
    qtbot: QtBot, tuner: FinetuneWidget, folder: Path
) -> None:
    with hold(folder):
        write_status(folder, TRAINING)
        tuner.watch.watch(folder)
        tuner.run.cancel.click()
    qtbot.waitUntil(lambda: not tuner.setup.isHidden(), timeout=10_000)
    assert not folder.exists()
    assert "was cancelled" in tuner.status.message.text()


def test_a_run_that_was_killed_is_said_and_goes_on(
    qtbot: QtBot, tuner: FinetuneWidget, folder: Path, started: list[Path]
) -> None:
    with hold(folder):
        write_status(folder, TRAINING)
        tuner.watch.watch(folder)
        tuner.run.pause.click()
    qtbot.waitUntil(lambda: tuner.watch.stage is RunStage.LOST, timeout=10_000)
    assert "ended without a word" in tuner.run.problem.text()
    assert "step 20 of 80" in tuner.run.problem.text()
    assert tuner.run.pause.isHidden()
    tuner.run.go_on.click()
    assert started == [folder]
    # the wish to pause was that of another time
    assert read_wish(folder) is Wish.GO
    assert tuner.watch.is_going
    assert tuner.run.problem.isHidden()


def test_what_a_lost_run_said_last_can_be_copied(
    tuner: FinetuneWidget, folder: Path
) -> None:
    write_status(folder, TRAINING)
    log_path(folder).write_text("OSError: No space left on device")
    tuner.watch.watch(folder)
    assert tuner.watch.stage is RunStage.LOST
    assert not tuner.run.copy.isHidden()
    tuner.run.copy.click()
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    assert "No space left" in clipboard.text()


def test_what_goes_on_elsewhere_is_not_discarded(
    tuner: FinetuneWidget, folder: Path
) -> None:
    write_status(folder, TRAINING)
    tuner.watch.watch(folder)
    tuner.run.discard.click()
    with hold(folder):
        # another window took it up meanwhile
        tuner.run.discard.click()
        assert (folder / "run" / "data.npz").exists()
        assert "goes on" in tuner.status.sentence
        assert tuner.watch.is_going


def test_discarding_asks_first(tuner: FinetuneWidget, folder: Path) -> None:
    write_status(folder, TRAINING)
    tuner.watch.watch(folder)
    tuner.run.discard.click()
    assert "Delete this run for good?" in tuner.run.problem.text()
    tuner.run.keep.click()
    assert "ended without a word" in tuner.run.problem.text()
    tuner.run.discard.click()
    assert folder.exists()
    tuner.run.discard.click()
    assert not folder.exists()
    assert not tuner.setup.isHidden()


def test_a_run_that_failed_says_why_and_gives_the_report(
    tuner: FinetuneWidget, folder: Path
) -> None:
    failed = replace(TRAINING, phase=Phase.FAILED, message="No space.", report="Trace")
    write_status(folder, failed)
    tuner.watch.watch(folder)
    assert tuner.run.problem.text() == "No space."
    assert not tuner.run.go_on.isHidden()
    tuner.run.copy.click()
    assert QApplication.clipboard().text() == "Trace"


# -- the result -------------------------------------------------------------------


def test_a_promoted_adapter_is_used_and_can_be_taken_back(
    tuner: FinetuneWidget, folder: Path
) -> None:
    finish(folder, promoted=True)
    tuner.watch.watch(folder)
    result = tuner.result
    assert not result.isHidden()
    assert tuner.session.chosen_model == ("sac_tiny", "mine")
    assert "promoted" in result.verdict.text()
    assert "not promoted" not in result.verdict.text()
    assert result.used.text() == "Segment nuclei uses mine now."
    assert result.gain.text() == "Of 20 held-out nuclei, 3 gained and 1 lost."
    assert result.use.isHidden()
    cells = [c.text() for c in result.table.findChildren(type(result.title))]
    assert "F1" in cells
    assert "0.600\n0.50 to 0.70" in cells
    assert "+0.100" in cells
    result.back.click()
    assert tuner.session.chosen_model == ("sac_tiny", None)
    assert "not used" in result.used.text()
    assert result.back.isHidden()
    result.use.click()
    assert tuner.session.chosen_model == ("sac_tiny", "mine")


def test_a_gain_that_may_be_chance_is_not_called_help(
    tuner: FinetuneWidget, folder: Path
) -> None:
    finish(folder, promoted=True)
    tuner.watch.watch(folder)
    assert tuner.result.verdict.text().startswith("It helped: ")
    sure = tuner.result.verdict.styleSheet()
    finish(folder, promoted=True, least=-0.04)
    tuner.watch.watch(folder)
    assert "may be chance" in tuner.result.verdict.text()
    assert tuner.result.verdict.styleSheet() != sure


def test_a_worse_adapter_is_never_used_by_itself(
    tuner: FinetuneWidget, folder: Path
) -> None:
    finish(folder, promoted=False)
    tuner.watch.watch(folder)
    assert tuner.session.chosen_model == ("sac_tiny", None)
    assert "not promoted" in tuner.result.verdict.text()
    assert tuner.result.use.text() == "Use it anyway"
    tuner.result.use.click()
    assert tuner.session.chosen_model == ("sac_tiny", "mine")


def test_the_report_opens_and_the_form_comes_back(
    tuner: FinetuneWidget, folder: Path
) -> None:
    opened: list[Any] = []
    tuner.open_file = opened.append
    finish(folder, promoted=False)
    tuner.watch.watch(folder)
    tuner.result.report.click()
    assert opened[0].toLocalFile() == str(folder / "report.html")
    tuner.result.again.click()
    assert not tuner.setup.isHidden()
    assert tuner.offer.isHidden()


def test_a_damaged_report_is_said(tuner: FinetuneWidget, folder: Path) -> None:
    finish(folder, promoted=True)
    (folder / "report.json").write_text("{}")
    tuner.watch.watch(folder)
    assert "cannot be read" in tuner.status.message.text()
    assert not tuner.setup.isHidden()
    assert tuner.session.chosen_model == ("sac_tiny", None)


# -- a run of another time --------------------------------------------------------


def test_a_run_that_goes_on_is_offered(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    with hold(folder):
        write_status(folder, TRAINING)
        dock = make_dock(viewer)
        qtbot.waitUntil(lambda: not dock.offer.isHidden())
        assert dock.offer.text.text() == "The fine-tuning mine is going on."
        assert dock.offer.discard.isHidden()
        dock.look.click()
        assert dock.offer.isHidden()
        assert "Step 20 of 80" in dock.run.steps.text()


def test_a_paused_run_is_offered_as_paused(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    with hold(folder):
        ask_for(folder, Wish.PAUSE)
        dock = make_dock(viewer)
        qtbot.waitUntil(lambda: not dock.offer.isHidden())
        assert dock.offer.text.text() == "The fine-tuning mine is paused."


def test_a_killed_run_is_offered_to_go_on_or_to_discard(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    started: list[Path],
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    write_status(folder, TRAINING)
    dock = make_dock(viewer)
    qtbot.waitUntil(lambda: not dock.offer.isHidden())
    assert "before it had finished" in dock.offer.text.text()
    dock.offer.later.click()
    assert dock.offer.isHidden()
    other = make_dock(viewer)
    qtbot.waitUntil(lambda: not other.offer.isHidden())
    other.go_on.click()
    assert started == [folder]
    assert not other.run.isHidden()


def test_a_killed_run_can_be_discarded(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    write_status(folder, TRAINING)
    dock = make_dock(viewer)
    qtbot.waitUntil(lambda: not dock.offer.isHidden())
    dock.offer.discard.click()
    assert folder.exists()
    dock.offer.discard.click()
    assert not folder.exists()
    assert dock.offer.isHidden()


def test_a_result_that_nobody_saw_is_offered_and_not_used(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    make_dock: Callable[[ViewerModel], FinetuneWidget],
) -> None:
    finish(folder, promoted=True)
    dock = make_dock(viewer)
    qtbot.waitUntil(lambda: not dock.offer.isHidden())
    assert "has finished" in dock.offer.text.text()
    dock.look.click()
    assert "promoted" in dock.result.verdict.text()
    assert dock.session.chosen_model == ("sac_tiny", None)
    assert dock.result.use.text() == "Use it"
    again = make_dock(viewer)
    qtbot.wait(50)
    assert again.offer.isHidden()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish.GO, "Fine-tuning of mine goes on without its dock. "),
        (Wish.PAUSE, "Fine-tuning of mine stays paused. "),
    ],
)
def test_a_dock_that_is_closed_says_that_its_run_goes_on_and_offers_it_again(
    qtbot: QtBot,
    tuner: FinetuneWidget,
    imported: Annotation,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    wish: Wish,
    said: str,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(_finetune_closing, "show_info", told.append)
    with hold(folder):
        write_status(folder, TRAINING)
        ask_for(folder, wish)
        window = QMainWindow()
        qtbot.addWidget(window)
        tuner.setParent(window)
        window.show()
        tuner.watch.watch(folder)
        tuner.setParent(None)
        assert tuner.watch.folder is None
        (sentence,) = told
        assert sentence.startswith(f"{said}Open the dock again to ")
        tuner.setParent(window)
        qtbot.waitUntil(lambda: not tuner.offer.isHidden())
        tuner.session.changed.emit()
        tuner.setParent(None)
    assert len(told) == 1, "what is only offered is not this dock's"


# -- the window is closed ---------------------------------------------------------


class Window(QMainWindow):
    """Asks whether to close, as napari does where there are layers."""

    def __init__(self, *, asks: bool) -> None:
        super().__init__()
        self.asks = asks
        self.stays = False
        # napari's is deleted when it is closed
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        if self.asks:
            # a dialog: everything that waits happens before it is answered
            loop = QEventLoop()
            QTimer.singleShot(50, loop.quit)
            loop.exec()
        if event is not None and self.stays:
            event.ignore()


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(
    ("answer", "wish"),
    [
        (Closing.KEEP, Wish.GO),
        (Closing.STOP, Wish.STOP),
        (Closing.CANCEL, Wish.CANCEL),
    ],
)
def test_closing_asks_and_tells_the_run(
    qtbot: QtBot,
    viewer: ViewerModel,
    folder: Path,
    answer: Closing,
    wish: Wish,
    asks: bool,
) -> None:
    window = Window(asks=asks)
    dock = FinetuneWidget(viewer)
    window.setCentralWidget(dock)
    window.show()
    asked: list[str] = []

    def ask(_: object, name: str, wished: Wish) -> Closing:
        assert wished is Wish.GO
        asked.append(name)
        return Closing.STAY if len(asked) == 1 else answer

    dock.guard.ask = ask
    with hold(folder):
        write_status(folder, TRAINING)
        dock.watch.watch(folder)
        window.close()
        assert window.isVisible()
        qtbot.wait(10)
        assert read_wish(folder) is Wish.GO
        window.stays = True
        window.close()
        qtbot.wait(60)
        assert read_wish(folder) is Wish.GO, "the window asked too, and stayed"
        window.stays = False
        window.close()
        qtbot.waitUntil(lambda: read_wish(folder) is wish)
    assert asked == ["mine"] * 3


def test_without_a_run_closing_asks_nothing(
    qtbot: QtBot, viewer: ViewerModel, folder: Path
) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    dock = FinetuneWidget(viewer)
    window.setCentralWidget(dock)
    window.show()
    dock.guard.ask = lambda *_: pytest.fail("there is nothing to ask")
    # one that was killed keeps nobody from closing
    write_status(folder, TRAINING)
    dock.watch.watch(folder)
    assert dock.watch.stage is RunStage.LOST
    window.close()
    assert not window.isVisible()
    dock.leave()


def test_the_question_names_the_run_and_the_ways(qtbot: QtBot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    box, buttons = build_question(window, "mine", Wish.GO)
    assert box.text() == "Fine-tuning of mine is still going on."
    assert buttons[Closing.KEEP].text() == "Keep training"
    assert set(buttons) == set(Closing)
    assert box.escapeButton() is buttons[Closing.STAY]


def test_of_a_paused_run_closing_says_that_it_stays_paused(
    qtbot: QtBot, viewer: ViewerModel, folder: Path
) -> None:
    window = Window(asks=False)
    dock = FinetuneWidget(viewer)
    window.setCentralWidget(dock)
    window.show()
    said: list[str] = []

    def ask(closed: QWidget, name: str, wished: Wish) -> Closing:
        box, buttons = build_question(closed, name, wished)
        said.extend((box.text(), buttons[Closing.KEEP].text()))
        return Closing.KEEP

    dock.guard.ask = ask
    with hold(folder):
        ask_for(folder, Wish.PAUSE)
        write_status(folder, replace(TRAINING, phase=Phase.PAUSED))
        dock.watch.watch(folder)
        window.close()
        assert read_wish(folder) is Wish.PAUSE
    assert said == [
        "Fine-tuning of mine is paused, and stays so without the window.",
        "Keep it paused",
    ]

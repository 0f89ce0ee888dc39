"""The panel of adapters, by its own buttons."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from annotating import import_labels

from napari_sac.core.config import DecodeConfig
from napari_sac.core.models.adapter import (
    INFO_FILE,
    LEARNED_FILE,
    SHIPPED_ADAPTERS,
    find_adapter,
    list_adapters,
    read_adapter_info,
)
from napari_sac.viewer import comparing
from napari_sac.viewer.inference import LoadedModel
from napari_sac.viewer.session import AnnotationSession
from napari_sac.widgets._adapters_panel import AdaptersPanel, Dialogs
from napari_sac.widgets._status_panel import StatusPanel
from napari_sac.widgets._wording import describe_cancelled
from napari_sac.widgets._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_sac.core.models.registry import Model
    from napari_sac.widgets.segment_widget import SegmentWidget


@dataclass
class Answers:
    """What the user answers, and what was asked."""

    yes: bool = True
    text: str | None = None
    path: Path | None = None
    asked: list[str] = field(default_factory=list)

    def dialogs(self) -> Dialogs:
        def say_yes(parent: object, question: str, button: str) -> bool:
            self.asked.append(question)
            return self.yes

        return Dialogs(
            say_yes,
            lambda parent, question, before: self.text,
            lambda parent, title: self.path,
            lambda parent, title, patterns, name: self.path,
        )


def own(name: str, **values: Any) -> Path:
    """Make an adapter of the user's: a copy of the shipped one, without its notes."""
    folder = Path(os.environ["NAPARI_SAC_HOME"]) / "adapters" / name
    shutil.copytree(SHIPPED_ADAPTERS / "he", folder)
    file = folder / INFO_FILE
    notes = {"metrics": {}, "created": "", "data": ""}
    file.write_text(json.dumps(json.loads(file.read_text()) | notes | values))
    return folder


@pytest.fixture
def session(viewer: ViewerModel) -> AnnotationSession:
    return AnnotationSession.of(viewer)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def panel(
    qtbot: QtBot, session: AnnotationSession, answers: Answers
) -> Iterator[AdaptersPanel]:
    metrics = {"before": {"f1": 0.612}, "after": {"f1": 0.743}}
    own("mine", title="Mine", tissue="liver", created="2026-11-02", metrics=metrics)
    worker, status = Worker(None), StatusPanel()
    widget = AdaptersPanel(session, worker, status, answers.dialogs())
    # as the dock does
    worker.busy_changed.connect(status.show_busy)
    worker.progressed.connect(status.show_progress)
    worker.failed.connect(status.say_error)
    worker.cancelled.connect(lambda title: status.say(describe_cancelled(title)))
    status.cancel_requested.connect(worker.cancel)
    qtbot.addWidget(widget)
    qtbot.addWidget(status)
    yield widget
    widget.leave()


def wait(qtbot: QtBot, panel: AdaptersPanel) -> None:
    qtbot.waitUntil(lambda: not panel._worker.busy, timeout=60_000)


def rows(panel: AdaptersPanel) -> list[list[str]]:
    table = panel.table
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def enabled(panel: AdaptersPanel) -> set[str]:
    names = ("use", "rename", "delete", "export", "export_merged", "compare", "add")
    return {name for name in names if getattr(panel, name).isEnabled()}


def test_the_table_tells_what_there_is(
    panel: AdaptersPanel, session: AnnotationSession
) -> None:
    own("bad", title="Bad", promoted=False, created="2026-11-03")
    own("odd", metrics={"before": {"f1": "x"}, "after": []}, title="Odd")
    session.adapters_changed.emit()
    before, after = (find_adapter("he").metrics[k]["f1"] for k in ("before", "after"))
    assert rows(panel) == [
        ["Bad (not promoted)", "-", ""],
        ["Mine", "0.61 → 0.74", "liver"],
        ["Odd", "-", ""],
        ["H&E tissue", f"{before:.2f} → {after:.2f}", ""],
        ["Brown tissue (DAB)", "-", ""],
    ]
    panel.select("mine")
    assert "2026-11-02" in panel.about.text()
    assert "F1 on what was held out: 0.612, now 0.743." in panel.about.text()
    panel.select("bad")
    assert "Not promoted" in panel.about.text()


def test_buttons_are_on_where_they_apply(
    panel: AdaptersPanel, session: AnnotationSession
) -> None:
    everything = {
        "use", "rename", "delete", "export", "export_merged", "compare", "add",
    }  # fmt: skip
    panel.select("mine")
    assert enabled(panel) == everything
    assert panel.hindrance.isHidden()
    panel.select("he")
    assert enabled(panel) == everything - {"rename", "delete"}
    assert "came with napari-sac" in panel.hindrance.text()
    own("foreign", base="my_sam")
    (own("damaged") / "adapter_config.json").unlink()
    session.adapters_changed.emit()
    panel.select("foreign")
    assert enabled(panel) == {"rename", "delete", "export", "add"}
    assert "my_sam" in panel.hindrance.text()
    assert "cannot be used" in panel.why_not_compare.text()
    panel.select("damaged")
    assert enabled(panel) == {"delete", "add"}
    assert "is missing" in panel.about.text()
    panel.select("mine")
    session.viewer.layers.clear()
    assert enabled(panel) == everything - {"compare"}
    assert "Open an image" in panel.why_not_compare.text()


def test_use_and_switch_back(
    panel: AdaptersPanel, dock: SegmentWidget, session: AnnotationSession
) -> None:
    assert dock.session is session
    assert not panel.switch_back.isEnabled()
    assert "nothing to switch back to" in panel.used.text()
    panel.select("mine")
    panel.use.click()
    assert dock.models.adapter.currentText() == "Mine, liver"
    assert (
        panel.used.text()
        == "In use: SAC tiny with Mine. Before: SAC tiny without adapter."
    )
    assert not panel.use.isEnabled()
    assert not panel.delete.isEnabled()
    assert "It is in use" in panel.hindrance.text()
    panel.switch_back.click()
    assert dock.models.choice().adapter is None
    panel.switch_back.click()
    assert dock.models.choice().adapter.name == "mine"


def test_what_was_used_before_may_be_gone(
    panel: AdaptersPanel, session: AnnotationSession
) -> None:
    session.choose_model("sac_tiny", "mine")
    session.choose_model("sac_tiny", "he")
    assert panel.switch_back.isEnabled()
    panel.select("mine")
    panel.delete.click()
    assert not panel.switch_back.isEnabled()
    assert "mine" not in {info.name for info in list_adapters()}


def test_the_name_on_the_command_line_is_told_also_after_a_rename(
    panel: AdaptersPanel, session: AnnotationSession, answers: Answers
) -> None:
    panel.select("mine")
    answers.text = "Liver of mice"
    panel.rename.click()
    assert rows(panel)[0][0] == "Liver of mice"
    panel.select("mine")
    assert "On the command line: --adapter mine" in panel.about.text()
    # that name means the one of the package
    folder = own("he", title="Also H&E")
    session.adapters_changed.emit()
    panel.table.selectRow([row[0] for row in rows(panel)].index("Also H&E"))
    assert f"On the command line: --adapter {folder}" in panel.about.text()


def test_rename(panel: AdaptersPanel, answers: Answers) -> None:
    panel.select("mine")
    panel.rename.click()
    assert find_adapter("mine").title == "Mine", "the user thought better of it"
    answers.text = "  Liver,\n frozen "
    panel.rename.click()
    assert find_adapter("mine").title == "Liver, frozen"
    assert panel.selected().title == "Liver, frozen"
    for name in (" ", "x" * 61):
        answers.text = name
        panel.rename.click()
        assert "keeps its name" in panel.status.message.text()
    assert find_adapter("mine").title == "Liver, frozen"


def test_delete_asks(
    panel: AdaptersPanel, answers: Answers, session: AnnotationSession
) -> None:
    panel.select("mine")
    answers.yes = False
    panel.delete.click()
    assert answers.asked == [
        "Delete the adapter Mine for good? Labels made with it stay."
    ]
    assert find_adapter("mine")
    answers.yes = True
    panel.delete.click()
    assert [row[0] for row in rows(panel)] == ["H&E tissue", "Brown tissue (DAB)"]
    assert panel.selected().name == "he"


def test_one_that_is_gone_already_is_a_sentence(
    panel: AdaptersPanel, session: AnnotationSession
) -> None:
    panel.select("mine")
    shutil.rmtree(panel.selected().path)
    panel.use.click()
    assert "no adapter" in panel.status.message.text()
    panel.delete.click()
    assert "no adapter mine of your own" in panel.status.message.text()
    assert [row[0] for row in rows(panel)] == ["H&E tissue", "Brown tissue (DAB)"]


def test_add_and_export(
    qtbot: QtBot, panel: AdaptersPanel, answers: Answers, tmp_path: Path
) -> None:
    answers.path = tmp_path
    panel.select("mine")
    panel.export.click()
    wait(qtbot, panel)
    assert read_adapter_info(tmp_path / "mine").title == "Mine"
    assert "Written to" in panel.status.message.text()
    answers.path = tmp_path / "mine"
    panel.add.click()
    wait(qtbot, panel)
    assert panel.selected().name == "mine_2"
    answers.path = tmp_path / "he_merged.pth"
    panel.export_merged.click()
    assert not panel.status.bar.isHidden()
    assert not panel.export.isEnabled()
    wait(qtbot, panel)
    assert answers.path.stat().st_size > 8_000_000
    assert "Other SAM tools" in panel.status.message.text()
    assert panel.status.bar.isHidden()
    assert panel.export.isEnabled()


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch, disc_model: Model) -> None:
    """Both candidates are the model that finds discs."""
    monkeypatch.setattr(
        comparing,
        "load",
        lambda choice, loaded, progress: LoadedModel(choice, disc_model),
    )


def test_compare_counts_nuclei_and_flips(
    qtbot: QtBot,
    panel: AdaptersPanel,
    viewer: ViewerModel,
    session: AnnotationSession,
    discs: None,
) -> None:
    # a random model thinks little of its masks
    # the generator of a random model says nothing of nuclei
    session.decode_config = DecodeConfig(minimum_iou=0, generator_weight=0)
    panel.select("mine")
    assert panel.opponent.currentText() == "SAC tiny without adapter"
    with qtbot.waitSignal(panel.compared, timeout=60_000):
        panel.compare.click()
    table = panel.scores
    assert [table.item(row, 0).text() for row in (0, 1)] == [
        "SAC tiny without adapter",
        "Mine, liver",
    ]
    assert [table.item(row, 1).text() for row in (0, 1)] == ["12", "12"]
    assert table.isColumnHidden(2)
    assert "Nothing was reviewed here" in panel.verdict.text()
    assert panel.shown.text() == "Shown: SAC tiny without adapter [field]"
    panel.flip.click()
    assert panel.shown.text() == "Shown: Mine, liver [field]"
    panel.remove.click()
    assert [layer.name for layer in viewer.layers] == ["field"]
    assert not panel.flip.isEnabled()


def test_compare_measures_what_was_reviewed_and_says_what_flatters(
    qtbot: QtBot, panel: AdaptersPanel, session: AnnotationSession, discs: None
) -> None:
    annotation = import_labels(
        session, comparing.shown_plane(session), _squares(session.viewer)
    )
    session.accept(annotation, np.arange(2))
    learned = {"name": annotation.name, "sha256": "0" * 64, "nuclei": [[3, 4]]}
    (panel.selected().path / LEARNED_FILE).write_text(
        json.dumps({"format": 1, "images": [learned]})
    )
    before = annotation.labels.data.copy()
    with qtbot.waitSignal(panel.compared, timeout=60_000):
        panel.compare.click()
    assert not panel.scores.isColumnHidden(2)
    for column in range(2, 6):
        assert 0 <= float(panel.scores.item(0, column).text()) <= 1
    assert "Scores are on" in panel.verdict.text()
    assert "Mine, liver was trained on an image of this name" in panel.verdict.text()
    assert "drawn by" not in panel.verdict.text(), "the labels were imported"
    np.testing.assert_array_equal(annotation.labels.data, before)


def _squares(viewer: ViewerModel) -> np.ndarray:
    labels = np.zeros(viewer.layers["field"].data.shape[:2], np.int32)
    for i in range(3):
        labels[20:40, 20 + 50 * i : 40 + 50 * i] = i + 1
    return labels


def test_a_cancelled_comparison_shows_nothing(
    qtbot: QtBot,
    panel: AdaptersPanel,
    viewer: ViewerModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait_for_cancel(choice: object, loaded: object, progress: Any) -> LoadedModel:
        while True:
            progress("waiting", 0, 0)
            time.sleep(0.01)

    monkeypatch.setattr(comparing, "load", wait_for_cancel)
    panel.compare.click()
    assert "being computed" in panel.why_not_compare.text()
    qtbot.wait(100)
    panel.status.cancel.click()
    wait(qtbot, panel)
    assert "Comparing was cancelled" in panel.status.message.text()
    assert [layer.name for layer in viewer.layers] == ["field"]
    assert panel.compare.isEnabled()

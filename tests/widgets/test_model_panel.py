"""The model panel shows what the session has chosen, and who chooses there tells it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt

from napari_sac.core.models.adapter import INFO_FILE, SHIPPED_ADAPTERS
from napari_sac.core.models.registry import model_specs
from napari_sac.viewer.session import AnnotationSession
from napari_sac.widgets import _model_panel
from napari_sac.widgets._model_panel import ModelPanel
from napari_sac.widgets._worker import Worker

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot


SHIPPED = ["H&E tissue", "Brown tissue (DAB)"]


def make_adapter(folder: Path, **values: Any) -> Path:
    """Return a copy of the shipped adapter that says other things of itself."""
    shutil.copytree(SHIPPED_ADAPTERS / "he", folder)
    file = folder / INFO_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def own(name: str, **values: Any) -> Path:
    return make_adapter(
        Path(os.environ["NAPARI_SAC_HOME"]) / "adapters" / name, **values
    )


@pytest.fixture
def session(viewer: ViewerModel) -> AnnotationSession:
    return AnnotationSession.of(viewer)


@pytest.fixture
def panel(qtbot: QtBot, session: AnnotationSession) -> ModelPanel:
    widget = ModelPanel(session, Worker(None), ask=lambda parent, title: None)
    qtbot.addWidget(widget)
    widget.follow_session()
    return widget


def entries(panel: ModelPanel) -> list[str]:
    return [panel.adapter.itemText(i) for i in range(panel.adapter.count())]


def test_adapters_are_named_by_title_tissue_and_promotion(
    panel: ModelPanel, session: AnnotationSession
) -> None:
    assert entries(panel) == ["none", *SHIPPED]
    own("a", title="Mine", tissue="liver")
    own("b", title="Mine", promoted=False)
    own("c", title="Theirs", base="my_sam")
    session.adapters_changed.emit()
    assert entries(panel) == [
        "none",
        *SHIPPED,
        "Mine [a], liver",
        "Mine [b] (not promoted)",
    ]
    panel.adapter.setCurrentIndex(4)
    assert session.chosen_model == ("sac_tiny", "b")
    assert "no better" in panel.about_adapter.text()


def test_the_panel_and_the_session_choose_the_same(
    qtbot: QtBot, panel: ModelPanel, session: AnnotationSession
) -> None:
    own("mine", title="Mine")
    session.adapters_changed.emit()
    with qtbot.waitSignal(panel.changed):
        session.choose_model("sac_tiny", "mine")
    assert panel.adapter.currentText() == "Mine"
    assert panel.choice().adapter.name == "mine"
    panel.adapter.setCurrentText("H&E tissue")
    assert session.chosen_model == ("sac_tiny", "he")
    assert session.previous_model == ("sac_tiny", "mine")
    panel.model.setCurrentIndex(1)
    assert session.chosen_model == ("vit_b", None)
    assert entries(panel) == ["none"]
    session.choose_model(*session.previous_model)
    assert panel.choice().name == "sac_tiny"
    assert panel.adapter.currentText() == "H&E tissue"


def test_a_panel_that_comes_later_shows_the_choice(
    qtbot: QtBot, session: AnnotationSession
) -> None:
    session.choose_model("sac_tiny", "he")
    late = ModelPanel(session, Worker(None), "cpu")
    qtbot.addWidget(late)
    assert late.choice().adapter == SHIPPED_ADAPTERS / "he"
    assert late.choice().device == "cpu"


def test_an_adapter_outside_the_lists_can_be_chosen(
    panel: ModelPanel, session: AnnotationSession, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "elsewhere", title="Elsewhere")
    session.choose_model("sac_tiny", str(folder))
    assert panel.adapter.currentText() == "Elsewhere"
    assert panel.choice().adapter == folder


def test_a_model_that_is_imported_meanwhile_is_listed(
    qtbot: QtBot, panel: ModelPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(model_specs()[0], name="mine", title="My own")
    monkeypatch.setattr(_model_panel, "model_specs", lambda: (*model_specs(), mine))
    assert panel.model.findText("My own") == -1
    qtbot.mouseClick(panel.model, Qt.MouseButton.LeftButton)
    panel.model.hidePopup()
    assert panel.model.findText("My own") == panel.model.count() - 1
    assert panel.choice().name == "sac_tiny"


def test_an_adapter_deleted_by_somebody_else_is_left_out_in_words(
    qtbot: QtBot, panel: ModelPanel, session: AnnotationSession
) -> None:
    folder = own("mine", title="Mine")
    session.choose_model("sac_tiny", "mine")
    shutil.rmtree(folder)
    # pressing on the box is when they are looked at
    qtbot.mouseClick(panel.adapter, Qt.MouseButton.LeftButton)
    panel.adapter.hidePopup()
    assert session.chosen_model == ("sac_tiny", None)
    assert panel.choice().adapter is None
    assert "mine is not there any more" in panel.refused.text()
    assert not panel.refused.isHidden()
    panel.adapter.setCurrentText("H&E tissue")
    assert panel.refused.isHidden()


def test_an_adapter_damaged_before_it_is_chosen_is_refused_in_words(
    panel: ModelPanel, session: AnnotationSession
) -> None:
    folder = own("mine", title="Mine")
    session.adapters_changed.emit()
    (folder / "mask_decoder.safetensors").unlink()
    panel.adapter.setCurrentText("Mine")
    assert "mask_decoder.safetensors is missing" in panel.refused.text()
    assert session.chosen_model == ("sac_tiny", None)
    assert panel.choice().adapter is None
    assert entries(panel) == ["none", *SHIPPED]


def test_an_adapter_from_a_folder_is_copied_and_used(
    qtbot: QtBot, session: AnnotationSession, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "sent", title="Sent")
    worker = Worker(None)
    panel = ModelPanel(session, worker, ask=lambda parent, title: folder)
    qtbot.addWidget(panel)
    panel.follow_session()
    panel.add.click()
    qtbot.waitUntil(lambda: not worker.busy, timeout=60_000)
    assert session.chosen_model == ("sac_tiny", "sent")
    assert panel.adapter.currentText() == "Sent"
    shutil.rmtree(folder)
    assert panel.choice().adapter.is_dir()


def test_no_adapter_is_added_while_something_is_computed(
    qtbot: QtBot, session: AnnotationSession
) -> None:
    worker = Worker(None)
    panel = ModelPanel(session, worker)
    qtbot.addWidget(panel)
    assert panel.add.isEnabled()
    worker.start("Waiting", lambda _: None, lambda _: None)
    assert not panel.add.isEnabled()
    qtbot.waitUntil(panel.add.isEnabled)
    assert not worker.busy


def test_a_foreign_adapter_from_a_folder_is_a_sentence(
    qtbot: QtBot, panel: ModelPanel, session: AnnotationSession, tmp_path: Path
) -> None:
    worker, sentences = panel._worker, []
    worker.failed.connect(lambda sentence, report: sentences.append((sentence, report)))
    panel.add_from(make_adapter(tmp_path / "sent", base="my_sam", title="Sent"))
    qtbot.waitUntil(lambda: not worker.busy, timeout=60_000)
    ((sentence, report),) = sentences
    assert "my_sam, which is not here" in sentence
    assert report == ""
    assert session.chosen_model == ("sac_tiny", None)
    assert entries(panel) == ["none", *SHIPPED]

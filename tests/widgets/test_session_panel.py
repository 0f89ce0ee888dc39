"""Save, import and export buttons; the offer to restore; the dialogs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit, QVBoxLayout, QWidget

from napari_sac.core.session.recovery import Unclosed, sessions_folder
from napari_sac.widgets import _files
from napari_sac.widgets._files import ask_folder, ask_open, ask_save
from napari_sac.widgets._panel import narrow_button
from napari_sac.widgets._session_panel import SessionPanel
from napari_sac.widgets._wording import describe_time, describe_unsaved, name_step

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


@pytest.fixture
def panel(qtbot: QtBot) -> SessionPanel:
    made = SessionPanel([("csv", "Points")], [("a", "One"), ("b", "Other")])
    qtbot.addWidget(made)
    return made


def test_menus_say_what_was_chosen(qtbot: QtBot, panel: SessionPanel) -> None:
    with qtbot.waitSignal(panel.export_requested) as told:
        panel.export.menu().actions()[1].trigger()
    assert told.args == ["b"]
    with qtbot.waitSignal(panel.import_requested) as told:
        panel.bring.menu().actions()[0].trigger()
    assert told.args == ["csv"]


def test_a_notice_is_shown_while_there_is_one(panel: SessionPanel) -> None:
    panel.show_place("kept in field.sac", "")
    assert panel.place.text() == "kept in field.sac"
    assert panel.notice.isHidden()
    panel.show_place("kept in field.sac", "read only")
    assert not panel.notice.isHidden()
    assert panel.notice.text() == "read only"


def unclosed(changed: datetime, *images: str) -> Unclosed:
    return Unclosed(sessions_folder() / "a.sac", changed, images)


def test_words() -> None:
    now = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    yesterday = unclosed(datetime(2026, 3, 1, 23, 59, tzinfo=UTC), "a.tif")
    assert describe_unsaved([yesterday], now) == (
        "Unsaved work from yesterday 23:59 on a.tif."
    )
    old = unclosed(datetime(2025, 1, 5, 8, 3, tzinfo=UTC), "b", "c", "d")
    assert describe_unsaved([old, yesterday, yesterday], now) == (
        "Unsaved work from 05 January 2025 08:03 on b and 2 more. And 2 older ones."
    )
    named = replace(yesterday, folder=Path("mine.sac"))
    assert describe_unsaved([named], now) == "mine.sac from yesterday 23:59 on a.tif."
    assert describe_time(5) == "5 s"
    assert describe_time(125.2) == "2 min 5 s"
    assert describe_time(7300) == "2 h 1 min"
    assert name_step("reject 37 nuclei") == "reject 37 nuclei"
    assert len(name_step("x" * 100)) == 32


def test_dialogs_give_a_path_or_nothing(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)
    for chosen in ("", "/somewhere/a"):
        for name in ("getOpenFileName", "getSaveFileName"):
            monkeypatch.setattr(QFileDialog, name, lambda *_, c=chosen: (c, ""))
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, c=chosen: c)
        known = Path(chosen) if chosen else None
        assert ask_open(parent, "Open", "*") == known
        assert ask_folder(parent, "Open") == known
        saved = ask_save(parent, "Save", "*", "field.ome.zarr")
        assert saved == (Path("/somewhere/a.ome.zarr") if chosen else None)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("/x/b.tiff", ""))
    patterns = "TIFF (*.tif *.tiff)"
    assert ask_save(parent, "Save", patterns, "field.tif") == Path("/x/b.tiff")


def test_what_got_its_ending_here_is_not_replaced_unasked(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)
    (tmp_path / "patient 3.2.sac").mkdir()
    typed = str(tmp_path / "patient 3.2")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (typed, ""))
    asked: list[str] = []
    for answer, chosen in ((False, None), (True, tmp_path / "patient 3.2.sac")):
        monkeypatch.setattr(
            _files, "ask_yes", lambda _, told, __, a=answer: asked.append(told) or a
        )
        assert ask_save(parent, "Save", "Sessions (*.sac)", "a.v2.sac") == chosen
    assert len(asked) == 2
    assert "patient 3.2.sac" in asked[0]


def test_space_is_left_to_the_canvas_after_a_click(qtbot: QtBot) -> None:
    parent = QWidget()
    layout = QVBoxLayout(parent)
    field, button = QLineEdit(), narrow_button("Reject", "")
    for widget in (field, button):
        layout.addWidget(widget)
    qtbot.addWidget(parent)
    with qtbot.waitExposed(parent):
        parent.show()
    parent.activateWindow()
    field.setFocus()
    qtbot.waitUntil(field.hasFocus)
    qtbot.keyClicks(field, "12")
    finished: list[bool] = []
    field.editingFinished.connect(lambda: finished.append(True))
    clicks: list[bool] = []
    button.clicked.connect(clicks.append)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert len(clicks) == 1
    assert not button.hasFocus()
    # what was typed counts
    assert finished == [True]
    assert not field.hasFocus()

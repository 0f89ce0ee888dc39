"""Tests for napari_sac.widgets._held_frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sac.widgets._held_frame import LONGEST_MS, HeldFrame

if TYPE_CHECKING:
    import pytest
    from pytestqt.qtbot import QtBot


def build_window(qtbot: QtBot) -> tuple[QWidget, HeldFrame]:
    window, dock = QWidget(), QWidget()
    qtbot.addWidget(window)
    QVBoxLayout(window).addWidget(dock)
    return window, HeldFrame(dock)


def test_the_window_is_held_until_it_is_released(qtbot: QtBot) -> None:
    window, frame = build_window(qtbot)
    frame.hold()
    assert not window.updatesEnabled()
    frame.hold()
    frame.release()
    assert window.updatesEnabled()
    frame.release()
    assert window.updatesEnabled()


def test_the_window_is_never_held_for_long(qtbot: QtBot) -> None:
    assert LONGEST_MS <= 100
    window, frame = build_window(qtbot)
    frame.hold()
    qtbot.waitUntil(window.updatesEnabled, timeout=5_000)


def test_a_window_that_somebody_else_holds_is_left_alone(qtbot: QtBot) -> None:
    window, frame = build_window(qtbot)
    window.setUpdatesEnabled(False)
    frame.hold()
    frame.release()
    assert not window.updatesEnabled()


def test_a_canvas_is_painted_at_once_unless_it_is_held(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = []

    def paint(canvas: QOpenGLWidget) -> None:
        painted.append(canvas)

    # what it paints needs OpenGL, which not every machine has
    monkeypatch.setattr(QOpenGLWidget, "repaint", paint)
    window, frame = build_window(qtbot)
    canvas = QOpenGLWidget(window)
    frame.paint()
    assert painted == [canvas]
    frame.hold()
    frame.paint()
    assert painted == [canvas]
    frame.release()

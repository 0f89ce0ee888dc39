"""One whole session in a real napari window, by its buttons, keys and mouse."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hands import emptiest
from qtpy.QtCore import QPoint, Qt, QThreadPool
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_sac.viewer.inference import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytestqt.qtbot import QtBot
    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

LEFT = Qt.MouseButton.LeftButton
PATIENCE = 120_000


class Window:
    """A napari window with the dock, and a person's hands."""

    def __init__(self, viewer: Any, model: Model, qtbot: QtBot) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        viewer.window.resize(1400, 900)
        _, self.dock = viewer.window.add_plugin_dock_widget(
            "napari-sac", "Segment nuclei"
        )
        self.dock: SegmentWidget
        self.canvas = self.dock.window().findChild(QOpenGLWidget)
        choice = self.dock.models.choice()
        self.dock.session.loaded = LoadedModel(choice, model)

    @property
    def annotation(self) -> Annotation:
        return self.dock.session.annotations[-1]

    def press(self, button: Any) -> None:
        self.qtbot.mouseClick(button, LEFT)
        self.qtbot.waitUntil(lambda: not self.dock.worker.busy, timeout=PATIENCE)
        self.qtbot.wait(200)

    def place(self, yx: Any) -> QPoint:
        """Return where the canvas shows a position of the points."""
        camera = self.viewer.scene.camera
        y, x = self.annotation.points.data_to_world(yx)[-2:]
        size = (self.canvas.height(), self.canvas.width())
        down, right = (
            (world - centre) * camera.zoom + length / 2
            for world, centre, length in zip(
                (y, x), camera.center[-2:], size, strict=True
            )
        )
        return QPoint(round(right), round(down))

    def click(self, yx: Any) -> None:
        place = self.place(yx)
        self.qtbot.mouseMove(self.canvas, place)
        self.qtbot.mouseClick(self.canvas, LEFT, pos=place)
        self.qtbot.wait(100)

    def drag(self, start: Any, end: Any) -> None:
        places = [
            self.place(np.add(start, np.subtract(end, start) * t))
            for t in (0, 0.3, 0.6, 1)
        ]
        self.qtbot.mouseMove(self.canvas, places[0])
        self.qtbot.mousePress(self.canvas, LEFT, pos=places[0])
        for place in places[1:]:
            self.qtbot.wait(50)
            self.qtbot.mouseMove(self.canvas, place)
        self.qtbot.wait(50)
        self.qtbot.mouseRelease(self.canvas, LEFT, pos=places[-1])
        self.qtbot.wait(100)

    def key(self, key: Qt.Key) -> None:
        self.qtbot.keyClick(self.canvas, key)
        self.qtbot.wait(100)


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., Any], disc_model: Model, qtbot: QtBot
) -> Iterator[Window]:
    opened = Window(make_napari_viewer(show=True), disc_model, qtbot)
    yield opened
    # the fixture looks for leaked viewers
    opened.__dict__.clear()


@pytest.fixture
def with_image(window: Window, nuclei: Nuclei) -> Window:
    window.viewer.add_image(
        nuclei.image, name="field", scale=(0.5, 0.5), units=("um", "um")
    )
    window.qtbot.wait(200)
    return window


def test_find_correct_and_segment(with_image: Window) -> None:
    window, dock = with_image, with_image.dock
    window.press(dock.find_button)
    annotation = window.annotation
    assert len(annotation.prompts) == 12
    window.press(dock.segment_button)
    assert annotation.labels in window.viewer.layers

    # 2 is napari's key for adding points
    empty = emptiest(annotation.prompts.yx, (160, 200))
    window.key(Qt.Key.Key_2)
    window.click(empty)
    assert len(annotation.prompts) == 13
    assert annotation.prompts.state[12] == "added"
    np.testing.assert_allclose(annotation.prompts.yx[12], empty, atol=1.5)

    # 3 is napari's key for selecting and moving them
    window.key(Qt.Key.Key_3)
    window.click(annotation.prompts.yx[0])
    assert annotation.points.selected_data == {0}
    window.key(Qt.Key.Key_W)
    assert annotation.prompts.state[0] == "accepted"
    window.click(annotation.prompts.yx[1])
    window.key(Qt.Key.Key_Q)
    assert annotation.prompts.state[1] == "rejected"
    window.click(annotation.prompts.yx[2])
    window.key(Qt.Key.Key_N)
    assert annotation.prompts.sign[2] == 0
    start = annotation.prompts.yx[3].copy()
    window.click(start)
    window.drag(start, start + 4)
    assert annotation.prompts.state[3] == "moved"
    np.testing.assert_allclose(annotation.prompts.yx[3], start + 4, atol=1.5)
    gone = annotation.prompts.object_id[4]
    window.click(annotation.prompts.yx[4])
    window.key(Qt.Key.Key_Delete)
    assert len(annotation.prompts) == 12
    positive = annotation.prompts.sign == 1
    assert gone not in annotation.prompts.object_id[positive]

    window.press(dock.segment_button)
    assert "unchanged" in dock.status.message.text()
    labels = set(np.unique(annotation.labels.data).tolist())
    assert gone not in labels
    assert annotation.prompts.object_id[1] not in labels


def test_the_sample_image_and_the_slider(window: Window) -> None:
    window.viewer.open_sample("napari-sac", "immunohistochemistry")
    assert window.dock.images.layer().name == "immunohistochemistry"
    about = window.dock.models.about_adapter
    assert about.text() == "This looks like Brown tissue (DAB): choose it."
    window.dock.diameter.setValue(40)
    window.press(window.dock.find_button)
    count = len(window.annotation.prompts)
    assert count
    window.dock.threshold.setValue(1)
    window.qtbot.waitUntil(lambda: len(window.annotation.prompts) < count)


def test_the_dock_of_the_menu_is_the_dock(window: Window) -> None:
    assert "Segment nuclei (napari-sac)" in window.viewer.window.dock_widgets


def test_nothing_is_cut_off_at_300_pixels(window: Window) -> None:
    contents = window.dock.findChild(type(window.dock.images)).parentWidget()
    assert contents.minimumSizeHint().width() <= 300
    assert contents.width() >= contents.minimumSizeHint().width()


def test_closing_the_dock_and_opening_it_again(with_image: Window) -> None:
    window = with_image
    window.press(window.dock.find_button)
    annotation = window.annotation
    viewer = window.viewer
    viewer.window.remove_dock_widget(window.dock)
    window.qtbot.wait(100)
    viewer.layers.selection.active = annotation.points
    annotation.points.add([1.0, 1.0])
    _, again = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    assert again.session.find(again.images.plane()) is annotation
    window.dock = again
    window.press(again.segment_button)
    assert len(annotation.prompts) == 13
    assert annotation.labels in viewer.layers


def test_closing_the_window_while_it_works(with_image: Window) -> None:
    window = with_image
    asked, go_on = threading.Event(), threading.Event()

    def work(progress: Callable[[str, int, int], None]) -> None:
        asked.set()
        go_on.wait(30)
        progress("too late", 1, 1)

    shown: list[object] = []
    window.dock.worker.start("Waiting", work, shown.append)
    window.qtbot.waitUntil(asked.is_set, timeout=PATIENCE)
    window.viewer.close()
    go_on.set()
    assert QThreadPool.globalInstance().waitForDone(20_000)
    window.qtbot.wait(100)
    assert shown == []

"""Correcting in a real napari window, with real mouse and key events on its canvas."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hands import Hands
from napari.components import ViewerModel
from qtpy.QtCore import Qt, QTimer
from synthetic import draw_nuclei

from napari_sac.core.session.recovery import find_unclosed
from napari_sac.viewer.inference import LoadedModel
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytestqt.qtbot import QtBot

    from napari_sac.core.models.registry import Model
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

Key, Modifier = Qt.Key, Qt.KeyboardModifier
PATIENCE = 120_000
DISC_RADIUS = 11
LONGEST_PAUSE = 0.25
"""Seconds for which the window may stand still; a target of 0.05 on a free computer."""


@pytest.fixture(scope="module")
def sac_tiny() -> Model:
    """The model that ships: the masks of drawn discs are discs."""
    from napari_sac.core.models.registry import load_model

    return load_model("sac_tiny", device="cpu")


class Field:
    """A window with twelve segmented nuclei, and the truth about them."""

    def __init__(self, viewer: Any, model: Model, qtbot: QtBot) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.truth = draw_nuclei(radius=DISC_RADIUS)
        viewer.window.resize(1400, 900)
        layer = viewer.add_image(self.truth.image, rgb=True, name="field")
        self.dock: SegmentWidget
        _, self.dock = viewer.window.add_plugin_dock_widget(
            "napari-sac", "Segment nuclei"
        )
        self.session = self.dock.session
        self.session.loaded = LoadedModel(self.dock.models.choice(), model)
        self.session.preview.enabled = False
        self.hands = Hands(viewer, layer, qtbot)
        self.dock.diameter.setValue(2 * DISC_RADIUS)
        for button in (self.dock.find_button, self.dock.segment_button):
            qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
            qtbot.waitUntil(lambda: not self.dock.worker.busy, timeout=PATIENCE)
        qtbot.wait(100)
        viewer.layers.selection.active = self.annotation.points

    @property
    def annotation(self) -> Annotation:
        return self.session.annotations[-1]

    @property
    def labels(self) -> np.ndarray:
        return self.annotation.labels.data

    def settle(self) -> None:
        """Wait until all masks are drawn."""
        lane = self.dock.correcting.lane
        self.qtbot.waitUntil(
            lambda: not lane.busy and not self.session.live.waiting, timeout=PATIENCE
        )
        self.qtbot.wait(30)

    def found(self, number: int) -> int:
        """Return one of the drawn nuclei that the model has found, by its number."""
        drawn = range(1, self.truth.labels.max() + 1)
        return [n for n in drawn if self.label_at(self.place(n)) > 0][number]

    def place(self, nucleus: int) -> np.ndarray:
        """Return the middle of a nucleus that was drawn."""
        return np.argwhere(self.truth.labels == nucleus).mean(axis=0)

    def label_at(self, yx: np.ndarray) -> int:
        return int(self.labels[tuple(np.rint(yx).astype(int))])

    def row_of(self, nucleus: int) -> int:
        distance = np.linalg.norm(
            self.annotation.prompts.yx - self.place(nucleus), axis=1
        )
        return int(distance.argmin())

    def select(self, nucleus: int) -> None:
        self.hands.key(Key.Key_3)
        self.hands.click(self.annotation.prompts.yx[self.row_of(nucleus)])

    def undo(self) -> None:
        self.hands.key(Key.Key_Z, Modifier.ControlModifier)
        self.settle()


@pytest.fixture
def field(
    make_napari_viewer: Callable[..., Any], sac_tiny: Model, qtbot: QtBot
) -> Iterator[Field]:
    opened = Field(make_napari_viewer(show=True), sac_tiny, qtbot)
    yield opened
    # the fixture looks for leaked viewers
    opened.__dict__.clear()


def test_delete_click_and_undo(field: Field) -> None:
    nucleus = field.found(0)
    middle = field.place(nucleus)
    count = len(field.annotation.prompts)
    before = field.labels.copy()

    field.select(nucleus)
    field.hands.key(Key.Key_Delete)
    field.settle()
    assert len(field.annotation.prompts) == count - 1
    assert field.label_at(middle) == 0
    assert "delete 1 nucleus" in field.dock.correct.undo.text()
    deleted = field.labels.copy()

    # a click adds the nucleus, and its mask appears without another press
    field.hands.key(Key.Key_2)
    field.hands.click(middle)
    field.settle()
    assert len(field.annotation.prompts) == count
    added = field.label_at(middle)
    assert added not in {0, *np.unique(before).tolist()}
    drawn = field.labels == added
    truth = field.truth.labels == nucleus
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.6

    field.undo()
    np.testing.assert_array_equal(field.labels, deleted)
    field.undo()
    np.testing.assert_array_equal(field.labels, before)
    assert len(field.annotation.points.data) == count
    field.hands.key(Key.Key_Z, Modifier.ControlModifier | Modifier.ShiftModifier)
    np.testing.assert_array_equal(field.labels, deleted)
    # the same by the button that names the step
    assert "Redo add 1 nucleus" in field.dock.correct.redo.text()
    field.qtbot.mouseClick(field.dock.correct.redo, Qt.MouseButton.LeftButton)
    assert field.label_at(middle) == added


def test_shift_and_control_click_join_a_nucleus(field: Field) -> None:
    middle = field.place(field.found(1))
    object_id = field.label_at(middle)
    field.hands.key(Key.Key_2)
    for modifier, sign in (
        (Modifier.ShiftModifier, 0),
        (Modifier.ControlModifier, 1),
    ):
        field.hands.click(np.add(middle, (0, DISC_RADIUS - 4)), modifier)
        field.settle()
        added = field.annotation.prompts
        assert (added.object_id[-1], added.sign[-1]) == (object_id, sign)
    field.undo()
    field.undo()
    assert field.label_at(middle) == object_id


def test_dragging_a_point_moves_its_mask(field: Field) -> None:
    nucleus = field.found(2)
    field.select(nucleus)
    row = field.row_of(nucleus)
    start = field.annotation.prompts.yx[row].copy()
    object_id = int(field.annotation.prompts.object_id[row])
    end = np.array([4.0, 4.0])
    field.hands.drag(start, (start + end) / 2, end)
    field.settle()
    assert field.annotation.prompts.state[row] == "moved"
    np.testing.assert_allclose(field.annotation.prompts.yx[row], end, atol=2)
    assert field.label_at(field.place(nucleus)) != object_id
    field.undo()
    np.testing.assert_allclose(field.annotation.points.data[row], start)
    assert field.label_at(field.place(nucleus)) == object_id


def test_the_review_by_keys(field: Field) -> None:
    annotation, review = field.annotation, field.session.review
    field.hands.key(Key.Key_J)
    first = review.current
    assert first > 0
    assert f"Nucleus {first}" in field.dock.review.reasons.text()
    selected = sorted(annotation.points.selected_data)
    assert set(annotation.prompts.object_id[selected].tolist()) == {first}
    field.hands.key(Key.Key_J)
    second = review.current
    assert second not in {0, first}
    field.hands.key(Key.Key_K)
    assert review.current == first
    field.hands.key(Key.Key_D)
    assert review.current == second
    accepted = annotation.prompts.object_id == first
    assert set(annotation.prompts.state[accepted]) == {"accepted"}
    assert (
        field.dock.review.bar.text()
        == f"1 of {field.dock.review.bar.maximum()} nuclei reviewed"
    )
    # rejecting the present nucleus takes its mask away
    field.hands.key(Key.Key_Q)
    field.settle()
    assert second not in field.labels
    field.undo()
    assert second in field.labels


def test_the_brush_makes_a_nucleus_that_no_computing_overwrites(field: Field) -> None:
    layer = field.annotation.labels
    field.viewer.layers.selection.active = layer
    field.hands.key(Key.Key_M)
    layer.brush_size = 8
    field.hands.key(Key.Key_P)
    start, end = np.array([6.0, 6.0]), np.array([6.0, 30.0])
    before = field.labels.copy()
    field.hands.drag(start, end)
    field.settle()
    painted = field.label_at(start)
    assert painted > 0
    assert painted in field.annotation.painted
    assert "paint" in field.dock.correct.undo.text()
    pixels = field.labels == painted
    field.qtbot.mouseClick(field.dock.segment_button, Qt.MouseButton.LeftButton)
    field.qtbot.waitUntil(lambda: not field.dock.worker.busy, timeout=PATIENCE)
    np.testing.assert_array_equal(field.labels == painted, pixels)
    while painted in field.labels:
        assert field.session.undo_title
        field.undo()
    np.testing.assert_array_equal(field.labels, before)


def test_the_window_answers_while_masks_are_computed(field: Field) -> None:
    pauses: list[float] = []
    last = time.perf_counter()

    def beat() -> None:
        nonlocal last
        now = time.perf_counter()
        pauses.append(now - last)
        last = now

    timer = QTimer()
    timer.timeout.connect(beat)
    timer.start(2)
    field.hands.key(Key.Key_2)
    for nucleus in [field.found(number) for number in range(6)]:
        place = np.add(field.place(nucleus), (0, DISC_RADIUS - 2))
        field.hands.click(place, Modifier.ShiftModifier)
        field.settle()
    timer.stop()
    # the longest may be Python's garbage collector's
    assert sorted(pauses)[-3] < LONGEST_PAUSE, sorted(pauses)[-5:]


def test_without_live_masks_wait_for_segment(field: Field) -> None:
    field.dock.correct.live.setChecked(False)
    nucleus = field.found(3)
    middle = field.place(nucleus)
    object_id = field.label_at(middle)
    field.select(nucleus)
    field.hands.key(Key.Key_Q)
    field.qtbot.wait(300)
    assert field.label_at(middle) == object_id
    field.qtbot.mouseClick(field.dock.segment_button, Qt.MouseButton.LeftButton)
    field.qtbot.waitUntil(lambda: not field.dock.worker.busy, timeout=PATIENCE)
    assert object_id not in field.labels


def test_a_closed_dock_leaves_the_mask_to_the_next(field: Field) -> None:
    nucleus = field.found(4)
    middle = field.place(nucleus)
    object_id = field.label_at(middle)
    viewer = field.viewer
    viewer.window.remove_dock_widget(field.dock)
    field.qtbot.wait(50)
    viewer.layers.selection.active = field.annotation.points
    field.hands.key(Key.Key_3)
    field.hands.click(field.annotation.prompts.yx[field.row_of(nucleus)])
    field.hands.key(Key.Key_Q)
    field.qtbot.wait(100)
    assert field.label_at(middle) == object_id
    _, field.dock = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    field.settle()
    assert object_id not in field.labels


def test_closing_the_window_keeps_the_work_for_the_next(field: Field) -> None:
    session, qtbot = field.session, field.qtbot
    field.select(field.found(5))
    field.hands.key(Key.Key_Q)
    field.settle()
    folder = session.journal.folder
    labels = field.annotation.state.labels.copy()
    assert find_unclosed() == []
    field.viewer.close()
    qtbot.wait(100)
    # nobody has it open any more, and nobody has saved it
    (unclosed,) = find_unclosed()
    assert unclosed.folder == folder
    again = AnnotationSession(ViewerModel())
    (opened,) = again.open(folder)
    np.testing.assert_array_equal(opened.state.labels, labels)
    again.close(clean=True)

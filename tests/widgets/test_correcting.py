"""The panels Correct and Review: names of steps, keys, masks that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import add_nuclei, add_to_nucleus, import_labels
from napari.components import ViewerModel
from napari.settings import get_plugin_settings
from napari.utils._proxies import PublicOnlyProxy
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QAbstractButton, QToolButton

import napari_sac
from napari_sac.core.types import NEGATIVE, POSITIVE, ObjectMask
from napari_sac.viewer.keys import DEFAULTS
from napari_sac.viewer.live import PreviewRequest
from napari_sac.viewer.outlines import WIDTH
from napari_sac.widgets._key_clashes import find_clashes
from napari_sac.widgets._wording import MASKS_WAIT
from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from npe2._pytest_plugin import TestPluginManager
    from pytestqt.qtbot import QtBot
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.live import LiveResult


@pytest.fixture
def registered(npe2pm: TestPluginManager, plugin_settings: None) -> None:
    file = Path(napari_sac.__file__).parent / "napari.yaml"
    npe2pm.register(PluginManifest.from_file(file))


def settle(qtbot: QtBot, dock: SegmentWidget) -> None:
    lane, queue = dock.correcting.lane, dock.session.live
    qtbot.waitUntil(lambda: not lane.busy and not queue.waiting, timeout=60_000)


def select(annotation: Annotation, *rows: int) -> None:
    annotation.points.selected_data = set(rows)


def pressed(dock: SegmentWidget) -> list[str]:
    """Return the tools whose buttons look pressed."""
    buttons = dock.correct.tool_buttons
    return [name for name, button in buttons.items() if button.isChecked()]


def test_undo_and_redo_name_their_step(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    panel = dock.correct
    assert not panel.redo.isEnabled()
    dock.session.reject(annotated, np.arange(5))
    settle(qtbot, dock)
    assert panel.undo.text() == "Undo reject 5 nuclei"
    panel.undo.click()
    assert panel.redo.text() == "Redo reject 5 nuclei"
    assert panel.undo.text() == "Undo import labels"
    panel.undo.click()
    assert not panel.undo.isEnabled()
    assert panel.undo.text() == "Undo"
    assert panel.undo.toolTip() == "Nothing to undo."
    panel.redo.click()
    panel.redo.click()
    assert set(annotated.prompts.state[:5]) == {"rejected"}


def test_masks_follow_a_point_at_once(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    free = np.argwhere(annotated.state.labels == 0)[[2000]].astype(float)
    (new,) = add_nuclei(annotated, free)
    assert dock.correcting.lane.busy
    settle(qtbot, dock)
    assert new in annotated.masks


def test_a_closed_dock_decodes_nothing(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.correcting.pause(True)
    add_nuclei(annotated, np.array([[80.0, 100.0]]))
    assert dock.session.live.waiting
    dock.leave()
    # as when a job ends that the closing dock has cancelled
    dock.correcting.pause(False)
    assert not dock.correcting.lane.busy
    assert dock.session.live.waiting


def test_switched_off_they_wait(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.correct.live.setChecked(False)
    (new,) = add_nuclei(annotated, np.array([[80.0, 100.0]]))
    assert not dock.correcting.lane.busy
    dock.correct.live.setChecked(True)
    settle(qtbot, dock)
    assert new in annotated.masks


def test_switched_off_the_mouse_still_shows_what_a_click_would_give(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    # the first mask that follows makes the embedding
    dock.session.redraw(annotated, [1])
    settle(qtbot, dock)
    dock.correct.live.setChecked(False)
    dock.session.redraw(annotated, [2])
    preview = dock.session.preview
    preview.look(annotated, np.array([80.0, 100.0]), POSITIVE, joins=False)
    settle(qtbot, dock)
    assert preview.layer is not None
    assert 2 not in annotated.masks
    dock.correct.live.setChecked(True)
    settle(qtbot, dock)
    assert 2 in annotated.masks


def test_the_canvas_is_painted_before_napari_has_added_the_point(
    dock: SegmentWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = []

    def paint(canvas: QOpenGLWidget) -> None:
        painted.append(canvas)

    monkeypatch.setattr(QOpenGLWidget, "repaint", paint)
    canvas = QOpenGLWidget(dock)
    dock.session.masks_placed.emit()
    assert painted == [canvas]
    dock.correcting.leave()
    dock.session.masks_placed.emit()
    assert painted == [canvas]
    dock.correcting.join()


def test_the_first_click_after_segment_is_prepared(
    qtbot: QtBot, dock: SegmentWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, answered = dock.session.live, []
    take = live.take

    def note(result: LiveResult) -> None:
        answered.append(result.request)
        take(result)

    monkeypatch.setattr(live, "take", note)
    for button in (dock.find_button, dock.segment_button):
        button.click()
        qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    steps = len(dock.session.history.done)
    settle(qtbot, dock)
    (request,) = answered
    assert isinstance(request, PreviewRequest)
    # nobody sees it, and nothing was done
    assert dock.session.preview.layer is None
    assert len(dock.session.history.done) == steps


def test_the_mouse_gets_its_tools_from_the_dock(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    layers = dock.session.viewer.layers
    layers.selection.active = annotated.labels
    for mode, button in dock.correct.tool_buttons.items():
        button.click()
        paints = mode == "paint"
        layer = annotated.labels if paints else annotated.points
        assert layers.selection.active is layer
        adds = {"exclude": "add", "include": "add"}
        assert layer.mode == adds.get(mode, mode)
        assert dock.status.message.text()
        assert pressed(dock) == [mode]


def test_the_buttons_show_the_tool_that_the_mouse_has(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    layers = dock.session.viewer.layers
    layers.selection.active = annotated.points
    # as napari's own buttons and keys do
    for mode in ("select", "add", "pan_zoom"):
        annotated.points.mode = mode
        assert pressed(dock) == [mode]
    buttons = dock.correct.tool_buttons
    buttons["exclude"].click()
    # a second click puts it not away
    buttons["exclude"].click()
    assert pressed(dock) == ["exclude"]
    annotated.labels.mode = "paint"
    assert pressed(dock) == ["exclude"]
    layers.selection.active = annotated.labels
    assert pressed(dock) == ["paint"]
    annotated.labels.mode = "erase"
    assert pressed(dock) == []
    layers.selection.active = layers["field"]
    assert pressed(dock) == []
    layers.selection.active = annotated.points
    assert pressed(dock) == ["exclude"]


def test_the_buttons_show_the_tool_in_a_dock_of_napari(
    viewer: ViewerModel, qtbot: QtBot, nuclei: Nuclei
) -> None:
    # napari gives its docks a proxy, whose layers are proxies too
    dock = SegmentWidget(PublicOnlyProxy(viewer))
    qtbot.addWidget(dock)
    annotated = import_labels(dock.session, dock.images.plane(), nuclei.labels)
    viewer.layers.selection.active = annotated.points
    annotated.points.mode = "select"
    assert pressed(dock) == ["select"]
    dock.correct.tool_buttons["include"].click()
    assert pressed(dock) == ["include"]
    dock.leave()


def test_tools_that_are_one_to_napari_have_marks_of_their_own(
    dock: SegmentWidget,
) -> None:
    buttons = dock.correct.tool_buttons
    marks = [
        buttons[name].icon().pixmap(14).toImage()
        for name in ("add", "exclude", "include")
    ]
    assert not any(mark.isNull() for mark in marks)
    assert marks[0] != marks[1]
    assert marks[1] != marks[2]
    assert marks[0] != marks[2]


def test_decisions_by_the_mouse_alone(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    panel = dock.correct
    panel.reject.click()
    assert "Select points first" in dock.status.message.text()
    for button, state in ((panel.accept, "accepted"), (panel.reject, "rejected")):
        select(annotated, 2, 3)
        button.click()
        assert set(annotated.prompts.state[[2, 3]]) == {state}
    gone = int(annotated.prompts.object_id[5])
    select(annotated, 5)
    panel.delete.click()
    settle(qtbot, dock)
    assert gone not in annotated.prompts.object_id
    assert len(annotated.points.data) == 11


def test_the_status_says_what_was_done_last(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    said = dock.status.message
    dock.status.say("12 nuclei segmented (1.0 s).")
    dock.session.reject(annotated, np.array([0, 4]))
    assert said.text() == "Done: reject 2 nuclei. Now 10 nuclei."
    dock.session.undo()
    assert said.text() == "Undone: reject 2 nuclei. Now 12 nuclei."
    dock.session.redo()
    settle(qtbot, dock)
    assert said.text() == "Done: reject 2 nuclei. Now 10 nuclei."


def test_the_status_keeps_what_matters_more(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.session.accept(annotated, np.array([0]))
    # the pixels of an accepted nucleus stay, and that is said
    add_to_nucleus(dock.session, annotated, annotated.prompts.yx[0] + 2, NEGATIVE)
    assert "painted or accepted" in dock.status.message.text()
    qtbot.wait(20)
    dock.session.reject(annotated, np.array([3]))
    assert dock.status.message.text().startswith("Done: reject")


def test_the_tools_work_on_the_selected_points(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    panel = dock.correct
    panel.merge.click()
    assert "Select points first" in dock.status.message.text()
    select(annotated, 0, 1)
    panel.merge.click()
    assert panel.undo.text() == "Undo merge 2 nuclei"
    panel.undo.click()
    painted = len(annotated.painted)
    select(annotated, 3)
    panel.redraw.click()
    assert len(annotated.painted) == painted - 1
    settle(qtbot, dock)
    select(annotated, 3)
    panel.negate.click()
    assert annotated.prompts.sign[3] == NEGATIVE
    settle(qtbot, dock)
    panel.tools.click()
    assert annotated.tools in dock.session.viewer.layers
    panel.regions.click()
    assert annotated.regions in dock.session.viewer.layers


def test_switches_reach_the_session(dock: SegmentWidget, annotated: Annotation) -> None:
    dock.correct.preview.setChecked(False)
    assert not dock.session.preview.enabled
    dock.correct.outlines.setChecked(True)
    assert annotated.labels.contour == WIDTH
    dock.correct.outlines.setChecked(False)
    assert annotated.labels.contour == 0


def test_negative_points_by_the_mouse_alone(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.correct.tool_buttons["exclude"].click()
    annotated.points.add(annotated.prompts.yx[3] + 4)
    assert annotated.prompts.sign[-1] == NEGATIVE
    assert annotated.prompts.object_id[-1] == annotated.prompts.object_id[3]
    # another tool, and back by napari's key: it adds nuclei again
    annotated.points.mode = "select"
    annotated.points.mode = "add"
    annotated.points.add([80.0, 100.0])
    assert annotated.prompts.sign[-1] == POSITIVE
    settle(qtbot, dock)


def test_here_too_by_the_mouse_alone(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    layer = annotated.points
    # where nothing is the nearest nucleus would get it, were another one not selected
    here = np.array([84.0, 110.0])
    assert annotated.state.labels[84, 110] == 0
    near, other = np.argsort(np.linalg.norm(annotated.prompts.yx - here, axis=1))[:2]
    ids = annotated.prompts.object_id
    select(annotated, other)
    dock.correct.tool_buttons["include"].click()
    assert dock.correct.tool_buttons["include"].isChecked()
    layer.add(here)
    assert annotated.prompts.sign[-1] == POSITIVE
    assert annotated.prompts.object_id[-1] == ids[other]
    layer.add(annotated.prompts.yx[near] + 2)
    assert annotated.prompts.object_id[-1] == ids[near]
    # another tool, and back by napari's key: it adds nuclei again
    layer.mode = "select"
    layer.mode = "add"
    layer.add(here + 3)
    assert annotated.prompts.object_id[-1] == ids.max() + 1
    settle(qtbot, dock)


def test_a_nucleus_is_painted_by_the_mouse_alone(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.correct.tool_buttons["paint"].click()
    layer = annotated.labels
    assert dock.session.viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    assert layer.selected_label not in annotated.prompts.object_id
    assert "brush" in dock.status.message.text()


def test_the_layer_does_not_keep_a_label_that_was_not_meant(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.correct.live.setChecked(False)
    layer, first = annotated.labels, int(annotated.prompts.object_id[0])
    layer.selected_label = first
    # with the bucket into another nucleus
    layer.fill(annotated.prompts.yx[1], first)
    assert not np.array_equal(layer.data, annotated.state.labels)
    qtbot.waitUntil(lambda: np.array_equal(layer.data, annotated.state.labels))


def test_the_review_is_walked_by_its_buttons(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    panel, review = dock.review, dock.session.review
    assert panel.bar.text() == "0 of 12 nuclei reviewed"
    assert not panel.accept.isEnabled()
    assert "Press Next" in panel.reasons.text()
    panel.next.click()
    first = review.current
    assert panel.reasons.text().startswith(f"Nucleus {first}: ")
    panel.accept.click()
    assert panel.bar.text() == "1 of 12 nuclei reviewed"
    assert review.current != first
    assert "per nucleus" in panel.effort.text()
    panel.previous.click()
    for _ in range(12):
        panel.next.click()
        panel.accept.click()
    assert panel.bar.text() == "12 of 12 nuclei reviewed"
    assert panel.reasons.text() == "All nuclei are reviewed."


def test_reject_and_next(dock: SegmentWidget, annotated: Annotation) -> None:
    panel, review = dock.review, dock.session.review
    assert not panel.reject.isEnabled()
    panel.next.click()
    first = review.current
    panel.reject.click()
    own = annotated.prompts.object_id == first
    assert set(annotated.prompts.state[own]) == {"rejected"}
    assert panel.bar.text() == "0 of 11 nuclei reviewed, 1 rejected"
    assert review.current not in (0, first)
    assert panel.reasons.text().startswith(f"Nucleus {review.current}: ")
    dock.session.undo()
    assert panel.bar.text() == "0 of 12 nuclei reviewed"


def test_all_count_the_same_nuclei(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    panel, session = dock.review, dock.session
    told: list[str] = []
    session.told.connect(told.append)
    session.reject(annotated, np.array([3]))
    assert "Now 11 nuclei" in dock.status.message.text()
    settle(qtbot, dock)
    while session.review.current or not told:
        panel.next.click()
        panel.accept.click()
    assert panel.bar.text() == "11 of 11 nuclei reviewed, 1 rejected"
    assert told[-1] == "All 11 nuclei are reviewed."
    session.reject(annotated, np.arange(12))
    assert panel.bar.isHidden()
    assert not panel.effort.isHidden()


def test_merge_lies_where_one_corrects(dock: SegmentWidget) -> None:
    panel = dock.correct
    assert panel.isAncestorOf(panel.merge)
    assert not panel.tools_fold.isAncestorOf(panel.merge)


def test_the_review_says_what_is_the_case_now(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    session, said = dock.session, dock.review.reasons
    session.review.go(annotated, 1)
    first = session.review.current
    rows = np.flatnonzero(annotated.prompts.object_id == first)
    doubts = said.text()
    session.accept(annotated, rows)
    assert said.text() == f"Nucleus {first}: accepted."
    session.reject(annotated, rows)
    assert said.text() == f"Nucleus {first}: rejected."
    session.undo()
    session.undo()
    settle(qtbot, dock)
    assert said.text() == doubts
    add_to_nucleus(session, annotated, annotated.prompts.yx[rows[0]] + 1, NEGATIVE)
    assert said.text() == f"Nucleus {first}: corrected."
    session.undo()
    settle(qtbot, dock)
    assert said.text() == doubts


def test_the_review_says_nothing_about_a_nucleus_that_is_gone(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    session, panel = dock.session, dock.review
    first = session.review.go(annotated, 1)
    second = session.review.go(annotated, 1)
    third = session.review.go(annotated, 1)
    session.review.go(annotated, -1)
    assert session.review.current == second
    # the lowest id stays
    assert first < second
    session.merge(annotated, {first, second})
    assert panel.reasons.text().startswith("Press Next")
    assert not panel.accept.isEnabled()
    assert not panel.reject.isEnabled()
    session.undo()
    settle(qtbot, dock)
    assert panel.reasons.text().startswith(f"Nucleus {second}: ")
    session.redo()
    settle(qtbot, dock)
    # it goes on where it was
    panel.next.click()
    assert session.review.current == third


def test_the_reasons_are_those_of_the_mask_that_is_shown(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    # of a random model none is better than the others
    labels = annotated.state.labels
    for k in np.unique(labels[labels > 0]).tolist():
        y, x = np.argwhere(labels == k).min(axis=0)
        shape = np.where(labels[y:, x:] == k, 9.0, -9.0).astype(np.float32)
        annotated.masks[k] = ObjectMask(k, (int(y), int(x)), shape, 1.0, b"")
    review = dock.session.review
    review.go(annotated, 1)
    first, mask = review.current, annotated.masks[review.current]
    dock.session.changed.emit()
    before = dock.review.reasons.text()
    assert "poor mask" not in before
    annotated.masks[first] = replace(mask, predicted_iou=0.1)
    dock.session.changed.emit()
    assert "poor mask" in dock.review.reasons.text()


def test_without_labels_there_is_nothing_to_review(dock: SegmentWidget) -> None:
    assert dock.review.bar.isHidden()
    assert not dock.review.next.isEnabled()
    assert "Segment first" in dock.review.why_not.text()
    assert not dock.correct.merge.isEnabled()


def test_the_dock_shows_the_keys_that_are_set(registered: None, qtbot: QtBot) -> None:
    shortcuts = get_plugin_settings("napari-sac").shortcuts
    shortcuts.accept = "Y"
    shortcuts.merge = ""
    dock = SegmentWidget(ViewerModel())
    qtbot.addWidget(dock)
    assert dock.session.keys["accept"] == "Y"
    assert dock.correct.accept.toolTip() == "The selected nuclei are right (key Y)."
    assert "key" not in dock.correct.merge.toolTip()
    table = dock.correct.keys.text()
    assert "<b>Y</b>" in table
    assert "Merge" not in table
    assert dock.correct.key_clashes.isHidden()
    dock.leave()


def test_a_key_that_is_taken_is_told(registered: None, qtbot: QtBot) -> None:
    shortcuts = get_plugin_settings("napari-sac").shortcuts
    shortcuts.accept = shortcuts.reject = "Y"
    dock = SegmentWidget(ViewerModel())
    qtbot.addWidget(dock)
    assert "is the key of two things" in dock.status.message.text()
    assert dock.session.keys == {n: str(k) for n, k in DEFAULTS.items()}
    dock.leave()


def test_the_defaults_clash_with_nothing_of_naparis() -> None:
    # Ctrl+C copies points: bound by napari when the layer's module is imported
    assert find_clashes(DEFAULTS) == []
    (told,) = find_clashes(DEFAULTS | {"merge": "Ctrl+C"})
    assert "'copy'" in told
    assert "Merge" in told


def test_a_dock_that_closes_leaves_masks_to_the_next(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    (new,) = add_nuclei(annotated, np.array([[80.0, 100.0]]))
    dock.leave()
    assert new not in annotated.masks
    again = SegmentWidget(dock.session.viewer)
    qtbot.addWidget(again)
    assert again.session is dock.session
    settle(qtbot, again)
    assert new in annotated.masks
    again.leave()


def test_pasted_points_can_be_merged(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    points = annotated.points
    points.selected_data = {0, 1}
    points._copy_data()
    points._paste_data()
    dock.correct.merge.click()
    assert len(points.data) == len(annotated.prompts) == 14


def test_a_paused_lane_holds_no_frame(
    dock: SegmentWidget, annotated: Annotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    monkeypatch.setattr(dock.correcting._frame, "hold", lambda: held.append(True))
    dock.correcting.pause(True)
    add_nuclei(annotated, np.array([[80.0, 100.0]]))
    assert dock.session.live.step_waits
    assert not held


def test_looking_at_an_image_shows_how_far_it_is_and_can_be_cancelled(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    status, lane = dock.status, dock.correcting.lane
    add_nuclei(annotated, np.array([[80.0, 100.0]]))
    assert not annotated.masks
    lane.progressed.emit("embedding", 3, 8)
    assert not status.bar.isHidden()
    assert (status.bar.value(), status.bar.maximum()) == (3, 8)
    status.cancel.click()
    assert not lane.busy
    assert status.bar.isHidden()
    assert status.sentence == MASKS_WAIT
    assert not dock.correct.live.isChecked()
    # the point waits for its mask
    dock.correct.live.setChecked(True)
    settle(qtbot, dock)
    assert annotated.masks


def test_the_bar_and_cancel_are_those_of_the_job_that_masks_do_not_wait_for(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    status, correcting = dock.status, dock.correcting
    add_nuclei(annotated, np.array([[80.0, 100.0]]))
    status.show_busy(True)
    correcting.pause(True, masks_wait=False)
    status.show_progress("copying the session", 5, 9)
    correcting.lane.progressed.emit("embedding", 3, 8)
    assert (status.bar.value(), status.bar.maximum()) == (5, 9)
    status.show_busy(False)
    correcting.pause(False)
    correcting.lane.progressed.emit("embedding", 4, 8)
    assert not status.bar.isHidden(), "and then those of the looking"
    assert (status.bar.value(), status.bar.maximum()) == (4, 8)
    settle(qtbot, dock)
    assert status.bar.isHidden()


def test_segment_takes_over_what_a_click_has_begun(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation
) -> None:
    lane = dock.correcting.lane
    add_nuclei(annotated, np.array([[80.0, 100.0]]))
    lane.progressed.emit("embedding", 3, 8)
    dock.segment_button.click()
    assert not lane.busy
    assert not dock.status.bar.isHidden()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    settle(qtbot, dock)
    assert dock.status.bar.isHidden()
    assert dock.correct.live.isChecked()


def test_no_click_leaves_a_button_waiting_for_space(dock: SegmentWidget) -> None:
    buttons = dock.findChildren(QAbstractButton)
    assert len(buttons) > 20
    clicked = Qt.FocusPolicy.ClickFocus.value
    ours = [b for b in buttons if b.text() and not isinstance(b, QToolButton)]
    waiting = [b.text() for b in ours if b.focusPolicy().value & clicked]
    assert waiting == []

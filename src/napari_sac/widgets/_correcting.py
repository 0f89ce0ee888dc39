"""Joins the panels *Correct* and *Review* to the session, and the lane to its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_sac.core.errors import NapariSacError
from napari_sac.viewer.keys import ACTIONS
from napari_sac.viewer.live import decode_live
from napari_sac.viewer.prompts import count_nuclei
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._held_frame import HeldFrame
from napari_sac.widgets._held_keys import HeldKeys
from napari_sac.widgets._key_clashes import find_clashes
from napari_sac.widgets._settings import key_settings
from napari_sac.widgets._wording import (
    MASKS_WAIT,
    NOTHING_SELECTED,
    TOOL_HINTS,
    describe_effort,
    describe_stage,
    describe_step,
)
from napari_sac.widgets._worker import LiveLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.live import LiveRequest, LiveResult, PreviewRequest
    from napari_sac.viewer.prompts import Rows
    from napari_sac.viewer.session import AnnotationSession
    from napari_sac.widgets._correct_panel import CorrectPanel
    from napari_sac.widgets._review_panel import ReviewPanel
    from napari_sac.widgets._status_panel import StatusPanel

    Lane = LiveLane[LiveRequest | PreviewRequest, LiveResult]


class Correcting(QObject):
    """What the buttons of *Correct* and *Review* do.

    Parameters
    ----------
    parent : QWidget
        The dock.
    session : AnnotationSession
    correct : CorrectPanel
    review : ReviewPanel
    status : StatusPanel
    chosen : callable
        Gives the annotation of the plane that is shown, or None.

    Attributes
    ----------
    lane : LiveLane
    """

    def __init__(
        self,
        parent: QWidget,
        session: AnnotationSession,
        correct: CorrectPanel,
        review: ReviewPanel,
        status: StatusPanel,
        chosen: Callable[[], Annotation | None],
    ) -> None:
        super().__init__(parent)
        self._dock = parent
        self._session = session
        self._correct = correct
        self._review = review
        self._status = status
        self._chosen = chosen
        self._worker_busy = False
        self._masks_wait = False
        self._joined = False
        self._stage = ""
        self._told = False
        self._sentence = ""
        self._last_step = 0
        self.lane: Lane = LiveLane(self, session.live, decode_live)
        self._frame = HeldFrame(parent)
        self._keys = HeldKeys(parent)
        self._connect()

    def join(self) -> None:
        """Serve the session's requests from now on, with the keys of Preferences."""
        self._joined = True
        self._use_keys()
        self._session.live_requested.connect(self._on_live_requested)
        self._session.masks_placed.connect(self._frame.paint)
        self._session.told.connect(self._on_told)
        self._session.changed.connect(self._on_changed)
        self._session.gestures.tool_changed.connect(self._show_tool)
        self._on_live(self._correct.live.isChecked())
        self._on_preview(self._correct.preview.isChecked())
        self.lane.pause(self._masks_wait)

    def leave(self) -> None:
        """Serve nothing more; what is being computed is dropped."""
        self._joined = False
        self._session.live_requested.disconnect(self._on_live_requested)
        self._session.masks_placed.disconnect(self._frame.paint)
        self._session.told.disconnect(self._on_told)
        self._session.changed.disconnect(self._on_changed)
        self._session.gestures.tool_changed.disconnect(self._show_tool)
        self.lane.stop()
        self._frame.release()

    def watch_window(self) -> None:
        """Follow the keys held down in the window that the dock is in now."""
        self._keys.watch_window()

    def pause(self, busy: bool, *, masks_wait: bool = True) -> None:
        """Be told of a long job; let masks wait while it has the processor."""
        self._worker_busy = busy
        self._masks_wait = busy and masks_wait
        # its bar is shown no more; what goes on here shows its own again
        self._stage = ""
        if self._joined:
            self.lane.pause(self._masks_wait)

    def give_way(self) -> None:
        """Give back what takes long, to what computes it too; a click waits for it."""
        if self._stage:
            self.lane.stop()

    def cancel(self) -> None:
        """Stop looking at the image, and let masks wait until they are asked for."""
        if self._worker_busy or not self.lane.busy:
            return
        self._correct.live.setChecked(False)
        self.lane.stop()
        self._status.say(MASKS_WAIT)

    def refresh(self) -> None:
        """Make both panels say what is the case."""
        session, annotation = self._session, self._chosen()
        editable = not session.read_only
        undo, redo = session.undo_title, session.redo_title
        self._correct.show_history(undo if editable else "", redo if editable else "")
        self._correct.allow(points=annotation is not None, editable=editable)
        if annotation is not None:
            self._correct.show_outlines(session.drawing.outlined(annotation))
        self._show_review(annotation, editable=editable)
        self._show_tool()

    def _show_review(self, annotation: Annotation | None, *, editable: bool) -> None:
        if annotation is None or annotation.labels is None:
            self._review.show_progress(None, editable=editable)
            return
        progress = self._session.review.progress(annotation)
        nuclei = count_nuclei(annotation.prompts)
        reviewed = progress.reviewed - (progress.total - nuclei)
        self._review.show_progress(
            progress, nuclei, describe_effort(annotation, reviewed), editable=editable
        )

    def _connect(self) -> None:
        correct, review = self._correct, self._review
        correct.tool_requested.connect(self._on_tool)
        correct.accept.clicked.connect(self._on_accept_selected)
        correct.reject.clicked.connect(self._on_reject_selected)
        correct.delete.clicked.connect(self._on_delete_selected)
        correct.negate.clicked.connect(self._on_negate)
        correct.undo.clicked.connect(self._session.undo)
        correct.redo.clicked.connect(self._session.redo)
        correct.live.toggled.connect(self._on_live)
        correct.preview.toggled.connect(self._on_preview)
        correct.outlines.toggled.connect(self._on_outlines)
        correct.merge.clicked.connect(self._on_merge)
        correct.split.clicked.connect(self._on_split)
        correct.redraw.clicked.connect(self._on_redraw)
        correct.regions.clicked.connect(self._on_regions)
        correct.tools.clicked.connect(self._on_tools)
        review.previous_requested.connect(self._on_previous)
        review.next_requested.connect(self._on_next)
        review.accept_requested.connect(self._on_accept)
        review.reject_requested.connect(self._on_reject)
        self._keys.changed.connect(self._session.gestures.hold)
        self.lane.failed.connect(self._status.say_error)
        self.lane.progressed.connect(self._on_progressed)
        self.lane.busy_changed.connect(self._on_lane_busy)
        self._status.cancel_requested.connect(self.cancel)

    def _use_keys(self) -> None:
        try:
            self._session.set_keys(key_settings())
        except NapariSacError as error:
            self._status.say_error(str(error), "")
        keys = self._session.keys
        self._correct.show_keys(ACTIONS, keys, find_clashes(keys))

    def _on_live_requested(self) -> None:
        self.lane.wake()
        # a lane that is paused brings no mask to wait for
        if self.lane.busy and self._session.live.step_waits:
            self._frame.hold()

    def _on_live(self, at_once: bool) -> None:
        self._session.live.hold(not at_once)

    def _on_told(self, sentence: str) -> None:
        self._told = True
        # until what is being done is done
        QTimer.singleShot(0, self._forget_told)
        self._status.say(sentence)

    def _forget_told(self) -> None:
        self._told = False

    def _on_changed(self) -> None:
        """Say what was just done, unless there is more to say about it."""
        if not is_alive(self._dock):
            return
        # napari may be just about to draw with another label, which it would save
        QTimer.singleShot(0, self._mend)
        done = self._session.history.done[-1:]
        number, before = (done[0].number if done else 0), self._last_step
        self._last_step = number
        shown = self._chosen()
        undone = number < before
        step = self._session.history.undone[:1] if undone else done
        annotation = self._session.numbered(step[0].annotation) if step else None
        if number == before or annotation is None or self._told or self._worker_busy:
            return
        title = self._session.redo_title if undone else self._session.undo_title
        sentence = describe_step(title, annotation, undone=undone)
        elsewhere = "" if annotation is shown else f"{annotation.name}: "
        self._status.say(f"{elsewhere}{sentence}")

    def _mend(self) -> None:
        for annotation in self._session.annotations:
            self._session.drawing.mend(annotation)

    def _on_preview(self, shown: bool) -> None:
        self._session.preview.enabled = shown

    def _on_outlines(self, outlines: bool) -> None:
        self._session.drawing.outline(outlines)

    def _on_tool(self, name: str) -> None:
        """Give the mouse a tool, in the layer that it is for."""
        annotation = self._chosen()
        if annotation is not None and self._session.gestures.take_up(annotation, name):
            self._status.say(TOOL_HINTS[name])
        # a click on its button has changed how that looks
        self._show_tool()

    def _show_tool(self) -> None:
        if is_alive(self._dock):
            annotation = self._chosen()
            gestures = self._session.gestures
            self._correct.show_tool(
                "" if annotation is None else gestures.tool(annotation)
            )

    def _on_accept_selected(self) -> None:
        self._decide(self._session.accept)

    def _on_reject_selected(self) -> None:
        self._decide(self._session.reject)

    def _on_delete_selected(self) -> None:
        self._decide(_delete_selected)

    def _on_negate(self) -> None:
        self._decide(self._session.negate)

    def _decide(self, decide: Callable[[Annotation, Rows], None]) -> None:
        """Decide about the points that are selected."""
        annotation = self._chosen()
        if annotation is None or annotation.points is None:
            return
        self._session.sync(annotation)
        rows = np.array(sorted(annotation.points.selected_data), np.intp)
        if len(rows):
            decide(annotation, rows)
        else:
            self._status.say(NOTHING_SELECTED)

    def _on_merge(self) -> None:
        self._for_selected(self._session.merge)

    def _on_split(self) -> None:
        self._for_selected(self._session.split)

    def _on_redraw(self) -> None:
        self._for_selected(self._session.redraw)

    def _for_selected(self, edit: Callable[[Annotation, set[int]], None]) -> None:
        """Edit the nuclei whose points are selected."""
        annotation = self._chosen()
        if annotation is None or annotation.points is None:
            return
        self._session.sync(annotation)
        rows = sorted(annotation.points.selected_data)
        if rows:
            edit(annotation, set(annotation.prompts.object_id[rows].tolist()))
        else:
            self._status.say(NOTHING_SELECTED)

    def _on_regions(self) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.regions.show_reviewed(annotation)

    def _on_tools(self) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.regions.show_tools(annotation)

    def _on_previous(self) -> None:
        self._go(-1)

    def _on_next(self) -> None:
        self._go(1)

    def _go(self, step: int) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.go(annotation, step)

    def _on_accept(self) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.review.accept_and_next(annotation)

    def _on_reject(self) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.review.reject_and_next(annotation)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._worker_busy:
            # the bar and Cancel are the worker's
            return
        if self._status.sentence != self._stage:
            self._sentence = self._status.sentence
        if not self._stage:
            self._status.show_busy(True)
        self._stage = describe_stage(stage)
        self._status.show_progress(stage, done, total)

    def _on_lane_busy(self, busy: bool) -> None:
        """Show the mask; say again what the progress was shown in place of."""
        if not busy:
            # when the queue has drawn what this is about
            QTimer.singleShot(0, self._frame.release)
        if not busy and self._stage:
            stage, self._stage = self._stage, ""
            self._status.show_busy(self._worker_busy)
            if self._status.sentence == stage:
                self._status.say(self._sentence)


def _delete_selected(annotation: Annotation, rows: Rows) -> None:
    if len(rows) and annotation.points is not None:
        annotation.points.remove_selected()

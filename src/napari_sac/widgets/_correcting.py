"""Joins the panels *Correct* and *Review* to the session, and the lane to its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_sac.core.errors import NapariSacError
from napari_sac.viewer.keys import ACTIONS
from napari_sac.viewer.live import decode_live
from napari_sac.widgets._key_clashes import find_clashes
from napari_sac.widgets._settings import key_settings
from napari_sac.widgets._wording import NOTHING_SELECTED
from napari_sac.widgets._worker import LiveLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.live import LiveRequest, LiveResult, PreviewRequest
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
        self._session = session
        self._correct = correct
        self._review = review
        self._status = status
        self._chosen = chosen
        self._worker_busy = False
        self._progress_shown = False
        self.lane: Lane = LiveLane(self, session.live, decode_live)
        self._connect()

    def join(self) -> None:
        """Serve the session's requests from now on, with the keys of Preferences."""
        self._use_keys()
        self._session.live_requested.connect(self.lane.wake)
        self.lane.wake()

    def leave(self) -> None:
        """Serve nothing more; what is being computed is dropped."""
        self._session.live_requested.disconnect(self.lane.wake)
        self.lane.stop()

    def pause(self, busy: bool) -> None:
        """Let masks wait while a long job has the processor."""
        self._worker_busy = busy
        self._pause_lane()

    def refresh(self) -> None:
        """Make both panels say what is the case."""
        session, annotation = self._session, self._chosen()
        editable = not session.read_only
        undo, redo = session.undo_title, session.redo_title
        self._correct.show_history(undo if editable else "", redo if editable else "")
        self._correct.allow(points=annotation is not None, editable=editable)
        progress = None
        if annotation is not None and annotation.labels is not None:
            progress = session.review.progress(annotation)
        current, reasons = session.review.current, session.review.reasons
        self._review.show_progress(progress, current, reasons, editable=editable)

    def _connect(self) -> None:
        correct, review = self._correct, self._review
        correct.undo_requested.connect(self._session.undo)
        correct.redo_requested.connect(self._session.redo)
        correct.live_changed.connect(self._pause_lane)
        correct.preview_changed.connect(self._on_preview)
        correct.sign_changed.connect(self._on_sign)
        correct.merge_requested.connect(self._on_merge)
        correct.split_requested.connect(self._on_split)
        correct.redraw_requested.connect(self._on_redraw)
        correct.regions_requested.connect(self._on_regions)
        correct.tools_requested.connect(self._on_tools)
        review.previous_requested.connect(self._on_previous)
        review.next_requested.connect(self._on_next)
        review.accept_requested.connect(self._on_accept)
        self.lane.failed.connect(self._status.say_error)
        self.lane.progressed.connect(self._on_progressed)
        self.lane.busy_changed.connect(self._on_lane_busy)

    def _use_keys(self) -> None:
        try:
            self._session.set_keys(key_settings())
        except NapariSacError as error:
            self._status.say_error(str(error), "")
        keys = self._session.keys
        self._correct.show_keys(ACTIONS, keys, find_clashes(keys))

    def _pause_lane(self) -> None:
        self.lane.pause(self._worker_busy or not self._correct.live.isChecked())

    def _on_preview(self, shown: bool) -> None:
        self._session.preview.enabled = shown

    def _on_sign(self, sign: int) -> None:
        self._session.added_sign = sign

    def _on_merge(self) -> None:
        self._for_selected(self._session.merge)

    def _on_split(self) -> None:
        self._for_selected(self._session.split)

    def _on_redraw(self) -> None:
        self._for_selected(self._session.unpaint)

    def _for_selected(self, edit: Callable[[Annotation, set[int]], None]) -> None:
        """Edit the nuclei whose points are selected."""
        annotation = self._chosen()
        if annotation is None or annotation.points is None:
            return
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
            self._session.review.go(annotation, step)

    def _on_accept(self) -> None:
        annotation = self._chosen()
        if annotation is not None:
            self._session.review.accept_and_next(annotation)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        self._progress_shown = True
        self._status.say(f"{stage[:1].upper()}{stage[1:]} ...")

    def _on_lane_busy(self, busy: bool) -> None:
        if not busy and self._progress_shown:
            self._progress_shown = False
            self._status.say("")

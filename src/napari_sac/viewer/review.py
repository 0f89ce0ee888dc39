"""The review queue: the most doubtful nuclei first, one key to accept and go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.types import POSITIVE, PromptState
from napari_sac.viewer.prompts import usable_ids
from napari_sac.viewer.view import bring_into_view, is_in_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sac.core.inference.review import DoubtTable, Usual
    from napari_sac.core.types import Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.prompts import Rows
    from napari_sac.viewer.session import AnnotationSession

OUT_OF_VIEW = (
    "The nucleus under review was out of view, so nothing was decided. Here it is."
)


@dataclass(frozen=True)
class ReviewProgress:
    """How far a review is.

    Parameters
    ----------
    reviewed, total : int
        Nuclei that a person has decided on, and all there are.
    current_id : int
        The nucleus under review; 0 for none.
    reasons : tuple of str
        Why it is doubtful, as it is now.
    decision : str
        What a person has made of it: "accepted", "rejected" or "corrected"; empty for
        nothing yet. Also that it has no mask all the same, and why.
    """

    reviewed: int
    total: int
    current_id: int = 0
    reasons: tuple[str, ...] = ()
    decision: str = ""


class Review:
    """Walks through the nuclei of a session, the most doubtful first.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    current : int
        The nucleus under review; 0 for none, also if it is not there any more.
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self._annotation: Annotation | None = None
        self._queue: list[int] = []
        self._usual: Usual | None = None
        # with what they are about, and how many changes there had been by then
        self._known: tuple[Annotation, int, DoubtTable] | None = None
        # it may be merged or deleted since, and come back by undo
        self._shown = 0
        self._mouse_at: tuple[float, ...] = ()

    @property
    def current(self) -> int:
        """The nucleus under review; 0 for none, also if it is not there any more."""
        if self._annotation is None:
            return 0
        prompts = self._annotation.prompts
        own = prompts.sign[prompts.object_id == self._shown]
        return self._shown if (own == POSITIVE).any() else 0

    def meant(self, annotation: Annotation) -> int:
        """Return the nucleus under review, which keys mean until the mouse moves.

        0 for none. The view moves to it, and napari learns what lies under the mouse
        only from the mouse.
        """
        moved = self._mouse_at != self._session.viewer.cursor.position
        return 0 if moved or annotation is not self._annotation else self.current

    def go(self, annotation: Annotation, step: int) -> int:
        """Go to the next nucleus (1) or the previous one (-1); return it, 0 for none.

        Those that were decided on meanwhile are passed over on the way forward.
        """
        self._session.sync(annotation)
        if annotation is not self._annotation or not self._queue:
            self._sort(annotation)
            self._shown = 0
        there = usable_ids(annotation.prompts)
        open_ids = _open_ids(annotation)
        wanted = open_ids if step > 0 else set(annotation.prompts.object_id.tolist())
        place = self._place() + step
        if step < 0 and self._shown == 0:
            place = len(self._queue) - 1
        while 0 <= place < len(self._queue):
            if self._queue[place] in wanted:
                return self._show(annotation, self._queue[place])
            place += step
        if step > 0 and open_ids:
            # new nuclei, and those passed over, are at the end of the next round
            self._sort(annotation)
            return self._show(annotation, self._queue[0])
        if step > 0:
            self._shown = 0
            self._session.told.emit(
                f"All {len(there):,} nuclei are reviewed."
                if there
                else "There are no nuclei to review."
            )
            self._session.changed.emit()
        return self.current

    def know(self, annotation: Annotation, doubts: DoubtTable) -> None:
        """Be told how doubtful nuclei are, which holds until something changes."""
        self._known = annotation, self._session.steps.changes, doubts

    def sort_again(self, annotation: Annotation) -> None:
        """Begin anew with the most doubtful nucleus, for there are other masks."""
        if annotation is self._annotation:
            self._queue = []

    def accept_and_next(self, annotation: Annotation) -> int:
        """Accept the nucleus under review and go to the next; return that.

        One that is not on the screen is brought back into view instead.
        """
        return self._decide_and_next(annotation, self._session.accept)

    def reject_and_next(self, annotation: Annotation) -> int:
        """Reject the nucleus under review and go to the next; return that.

        One that is not on the screen is brought back into view instead.
        """
        return self._decide_and_next(annotation, self._session.reject)

    def progress(self, annotation: Annotation) -> ReviewProgress:
        """Return how far the review of an annotation is."""
        prompts = annotation.prompts
        ids = set(prompts.object_id[prompts.sign == POSITIVE].tolist())
        decided = ids - _open_ids(annotation)
        current = self.current if annotation is self._annotation else 0
        reasons = _reasons(annotation, current, self._usual) if current else ()
        return ReviewProgress(
            len(decided),
            len(ids),
            current,
            reasons,
            _decision(prompts, current, reasons),
        )

    def _decide_and_next(
        self,
        annotation: Annotation,
        decide: Callable[[Annotation, Rows], None],
    ) -> int:
        if self.current and annotation is self._annotation:
            if not is_in_view(self._session.viewer, annotation, self.current):
                self._show(annotation, self.current)
                self._session.told.emit(OUT_OF_VIEW)
                return self.current
            own = annotation.prompts.object_id == self.current
            decide(annotation, np.flatnonzero(own))
        return self.go(annotation, 1)

    def _place(self) -> int:
        return self._queue.index(self._shown) if self._shown in self._queue else -1

    def _sort(self, annotation: Annotation) -> None:
        table = self._doubts(annotation)
        self._usual = table.usual
        ids = [int(k) for k in table.object_id]
        open_ids = _open_ids(annotation)
        listed = [k for k in ids if k in open_ids]
        self._queue = listed + sorted(open_ids - set(listed))
        self._annotation = annotation

    def _doubts(self, annotation: Annotation) -> DoubtTable:
        from napari_sac.core.inference.review import doubt

        if self._known is not None:
            about, changes, table = self._known
            if about is annotation and changes == self._session.steps.changes:
                return table
        state = annotation.state
        return doubt(
            annotation.masks, state.prompts, state.labels, state.settings.diameter
        )

    def _show(self, annotation: Annotation, object_id: int) -> int:
        """Bring a nucleus into view, and select its points."""
        self._shown = object_id
        self._mouse_at = self._session.viewer.cursor.position
        layer, prompts = annotation.points, annotation.prompts
        rows = np.flatnonzero(prompts.object_id == object_id)
        if layer is not None and len(rows):
            self._make_keys_work(annotation)
            if layer.mode != "add":
                layer.mode = "select"
            layer.selected_data = set(rows.tolist())
            bring_into_view(self._session.viewer, annotation, object_id)
        self._session.changed.emit()
        return object_id

    def _make_keys_work(self, annotation: Annotation) -> None:
        """Select the points where the selected layer has no keys to decide with."""
        selection = self._session.viewer.layers.selection
        if selection.active not in (annotation.points, annotation.labels):
            selection.active = annotation.points


def _reasons(
    annotation: Annotation, object_id: int, usual: Usual | None
) -> tuple[str, ...]:
    """Return what speaks against a nucleus, as it is now, beside the others."""
    from napari_sac.core.inference.review import doubt

    state = annotation.state
    own = state.prompts.select(state.prompts.object_id == object_id)
    table = doubt(annotation.masks, own, state.labels, state.settings.diameter, usual)
    return table.reasons[0] if table.reasons else ()


def _decision(prompts: Prompts, object_id: int, reasons: tuple[str, ...]) -> str:
    """Return what a person has made of a nucleus; empty for nothing yet."""
    from napari_sac.core.inference.review import NO_MASK

    own = prompts.object_id == object_id
    states = set(prompts.state[own].tolist())
    positives = set(prompts.state[own & (prompts.sign == POSITIVE)].tolist())
    if positives == {PromptState.REJECTED.value}:
        return "rejected"
    decision = "accepted" if PromptState.ACCEPTED.value in states else ""
    if states & {PromptState.ADDED.value, PromptState.MOVED.value}:
        decision = "corrected"
    hidden = [reason for reason in reasons if reason.startswith(NO_MASK)]
    if decision and hidden:
        why, _, _ = hidden[0].partition(". ")
        return f"{decision}, but {why}"
    return decision


def _open_ids(annotation: Annotation) -> set[int]:
    """Return the nuclei that nobody has decided on."""
    prompts = annotation.prompts
    ids = set(prompts.object_id[prompts.sign == POSITIVE].tolist())
    decided = prompts.object_id[prompts.state != PromptState.AUTO.value]
    return ids - set(decided.tolist())

"""The one way to change what a session holds: every change is a step.

A step is in the history, in the journal and in the layers when the methods return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.core.session.changes import backward, find_change, forward
from napari_sac.core.session.history import History
from napari_sac.core.session.pixels import PixelChange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sac.core.session.history import Step
    from napari_sac.core.session.state import AnnotationState
    from napari_sac.core.types import ObjectMask, Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.live import Edit
    from napari_sac.viewer.session import AnnotationSession


class Steps:
    """Does, undoes and redoes the steps of a session.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    history : History
    changes : int
        How often anything was done, amended, undone or redone.
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self.history = History()
        self.changes = 0

    def record(
        self,
        annotation: Annotation,
        title: str,
        after: AnnotationState,
        *,
        pixels: PixelChange | None = None,
        masks: Mapping[int, ObjectMask | None] | None = None,
        edit: Edit | None = None,
        positions: bool = True,
        shown: Prompts | None = None,
    ) -> int:
        """Make a change a step: all changes end here.

        Parameters
        ----------
        annotation : Annotation
        title : str
            What the step is called, behind "Undo".
        after : AnnotationState
            The state to be. Its labels are those of before, into which the pixels are
            written here, or others that have them.
        pixels : PixelChange, optional
            What changes in the labels.
        masks : mapping of int to (ObjectMask or None), optional
            Masks that the step brings, None for one that is worthless now.
        edit : Edit, optional
            If given, the step waits for masks.
        positions : bool
            Whether the points must be moved; not where napari has done that.
        shown : Prompts, optional
            What the layer shows already, if not the prompts of before.

        Returns
        -------
        int
            Number of the step; 0 if nothing changes.
        """
        session = self._session
        session.drawing.mend(annotation)
        before = annotation.state
        change = find_change(title, before, after, pixels or PixelChange.none())
        if change.is_empty:
            annotation.replace_masks(masks or {})
            return 0
        session.journal.begin(annotation)
        self.changes += 1
        if change.pixels is not None:
            annotation.writes += 1
            if after.labels is before.labels:
                change.pixels.write(before.labels)
        annotation.state = after
        # nobody can take these back, or do them again, after this
        for step in self.history.doomed:
            owner = session.numbered(step.annotation)
            if owner is not None:
                owner.forget_masks(step.number)
        number = self.history.push(annotation.number, change)
        session.journal.push(self.history.done[-1], annotation)
        annotation.take_masks(number, masks or {})
        session.effort.count(annotation)
        # masks take longest, so they are first where the layer has its points already
        masks_first = not positions
        if edit is not None and masks_first:
            session.live.add(number, annotation, edit)
        session.drawing.draw(
            annotation, before, change.pixels, positions=positions, shown=shown
        )
        if edit is not None and not masks_first:
            session.live.add(number, annotation, edit)
        session.changed.emit()
        return number

    def amend(
        self, annotation: Annotation, number: int, pixels: PixelChange
    ) -> int | None:
        """Let pixels, which are written here, join a step that was done before.

        It is their own step, unless a later one has drawn over the same pixels
        meanwhile; then it is the last one.

        Returns
        -------
        int or None
            The step; None, with nothing written, if undo would go wrong by it.
        """
        step = self._step_for(annotation, number, pixels)
        if step is not None and len(pixels):
            self.changes += 1
            annotation.writes += 1
            pixels.write(annotation.state.labels)
            self.history.amend(step, pixels)
            self._session.journal.amend(step, annotation, pixels)
        return step

    def undo(self, *, points: bool = True) -> Step | None:
        """Take the last step back and return it; None if there is none.

        Parameters
        ----------
        points : bool
            Whether the points are drawn; not before another step that draws them.
        """
        step = self.history.undo()
        annotation = None if step is None else self._session.numbered(step.annotation)
        if step is None or annotation is None:
            return None
        self.changes += 1
        annotation.writes += step.change.pixels is not None
        before = annotation.state
        annotation.state = backward(before, step.change)
        annotation.undo_masks(step.number)
        self._session.live.undo(step.number)
        self._session.journal.undo(step)
        drawing, pixels = self._session.drawing, step.change.pixels
        if points:
            drawing.draw(annotation, before, pixels, again=True)
        elif pixels is not None:
            drawing.draw_pixels(annotation, pixels)
        return step

    def redo(self) -> Step | None:
        """Do the step again that was undone last and return it; None without one."""
        step = self.history.redo()
        annotation = None if step is None else self._session.numbered(step.annotation)
        if step is None or annotation is None:
            return None
        self.changes += 1
        annotation.writes += step.change.pixels is not None
        before = annotation.state
        annotation.state = forward(before, step.change)
        annotation.redo_masks(step.number)
        self._session.journal.redo(step)
        self._session.drawing.draw(annotation, before, step.change.pixels, again=True)
        self._session.live.redo(step.number)
        return step

    def _step_for(
        self, annotation: Annotation, number: int, pixels: PixelChange
    ) -> int | None:
        if self.history.can_amend(number, pixels):
            return number
        for step in reversed(self.history.done):
            if step.annotation == annotation.number:
                amendable = self.history.can_amend(step.number, pixels)
                return step.number if amendable else None
        return None

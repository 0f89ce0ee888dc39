"""Learn from what was reviewed in a session, without a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.core.errors import SessionError, TrainingDataError
from napari_sac.core.inference.instances import decided_objects
from napari_sac.core.session.journal import Journal
from napari_sac.core.training.reviewed_image import review_image

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.session.state import AnnotationState
    from napari_sac.core.training.reviewed_image import ReviewedImage


def read_reviewed_session(folder: str | Path) -> tuple[ReviewedImage, ...]:
    """Return what of a session's images may be learned from.

    Images in which nothing was reviewed are left out. The session is not changed, and
    may be open in a viewer: then it is read as it was written last.

    Parameters
    ----------
    folder : str or Path
        ``NAME.sac``.

    Raises
    ------
    TrainingDataError
        If an image that was reviewed is missing, another one, or segmented in semantic
        mode, or if nothing was reviewed at all.
    SessionError
        If the session is damaged, or is from a newer version.
    """
    journal = Journal.open(folder)
    found = []
    try:
        restored = journal.restore()
        for number, state in restored.shown.items():
            if not _was_reviewed(state):
                continue
            image = restored.images[number]
            if state.settings.decode.mode == "semantic":
                raise TrainingDataError(
                    f"{image.name} in the session {folder} has one mask of all nuclei, "
                    "from which no nucleus can be learned. Open the session, segment "
                    "it in instance mode and save it. Nothing was changed."
                )
            try:
                pixels, image = journal.find_image(number, image)
            except SessionError as error:
                raise TrainingDataError(
                    f"{error} Nothing was changed. Without it, nothing can be learned "
                    f"from the session {folder}."
                ) from error
            one = review_image(
                image.name,
                pixels,
                state.labels,
                prompts=state.prompts,
                regions=state.reviewed,
                group=image.path or f"{folder}: {image.name}",
            )
            if one.known.any():
                found.append(one)
    finally:
        # looking at a session says nothing about whether it was closed
        journal.close(clean=False)
    if not any(one.count or len(one.rejected) for one in found):
        raise TrainingDataError(
            f"In the session {folder} nothing was reviewed that could be learned from. "
            "Open it, accept, correct or add nuclei, or draw a reviewed region around "
            "some, and save it. Nothing was changed."
        )
    return tuple(found)


def _was_reviewed(state: AnnotationState) -> bool:
    """Return whether a person said anything about the image."""
    prompts = state.prompts
    rejected = prompts.rejected.any()
    return bool(state.reviewed or decided_objects(prompts) or rejected)

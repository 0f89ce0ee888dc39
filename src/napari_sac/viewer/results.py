"""What the models found and drew, put into the state and the layers of a session."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.config import ProposalConfig
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.types import POSITIVE, Prompts
from napari_sac.viewer import painting
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.editing import edit_if_drawn, sync
from napari_sac.viewer.live import Edit, LiveRequest
from napari_sac.viewer.regions import nuclei_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari_sac.core.session.state import AnnotationState, Settings
    from napari_sac.core.types import FloatArray, ObjectMask
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import Found, LoadedModel, Segmented
    from napari_sac.viewer.live import LiveResult
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.session import AnnotationSession

LITTLE_FOUND = "Little was found here. Undo takes the point back."


def show_proposals(
    session: AnnotationSession,
    plane: ImagePlane,
    found: Found,
    threshold: float | None = None,
) -> Annotation:
    """Show what was found in a plane, beside what the user has touched before.

    Parameters
    ----------
    session : AnnotationSession
    plane : ImagePlane
    found : Found
    threshold : float, optional
        Proposals with a lower score are hidden.
    """
    if threshold is None:
        threshold = ProposalConfig().score_threshold
    annotation = session.about(plane)
    # of points that were pasted napari has told nobody
    sync(session, annotation)
    session.journal.know_pixels(annotation, found.image)
    state = annotation.state
    known, painted, reviewed = state.prompts, state.painted, state.reviewed
    if annotation.points is None:
        # who deletes the layer of prompts wants to start over; undo brings them back
        known, painted, reviewed = Prompts.empty(), frozenset(), ()
    # of what was reviewed nothing goes, and nothing comes that nobody has seen
    kept = painted | nuclei_inside(known, reviewed)
    unseen, proposals = _apart(found.prompts, reviewed)
    # beside a region a nucleus must not go because it is found in it now
    kept |= _near(known, unseen, found.diameter / 2)
    first = edits.next_id(state.prompts, state.hidden)
    everything = edits.add_proposals(
        known, proposals, found.diameter, first_id=first, kept=kept
    )
    shown, hidden = edits.split_by_score(
        everything, Prompts.empty(), threshold, kept=kept
    )
    settings = replace(
        settings_of(found.loaded, state.settings),
        diameter=found.diameter,
        threshold=threshold,
    )
    session.loaded = found.loaded
    annotation.foreground = found.foreground
    session.use(annotation)
    annotation.seconds.update(found.seconds)
    gone = set(state.prompts.object_id.tolist()) - set(shown.object_id.tolist())
    after = replace(
        state,
        prompts=shown,
        hidden=hidden,
        settings=settings,
        painted=state.painted - gone,
        reviewed=reviewed,
    )
    title = edits.count_title("find", edits.count_nuclei(shown))
    if annotation.points is None:
        session.drawing.adopt_points(annotation, found.points)
    pixels = painting.erasure(state.labels, gone)
    masks = dict.fromkeys(gone)
    session.effort.start()
    # a click while nuclei were looked for waits for its mask still
    before = session.live.take_back(annotation)
    edit = None if before is None else Edit(before, shown)
    step = session.steps.record(
        annotation, title, after, pixels=pixels, masks=masks, edit=edit
    )
    if before is not None:
        annotation.drew_others.add(step)
    return annotation


def show_labels(
    session: AnnotationSession,
    annotation: Annotation,
    plane: ImagePlane,
    segmented: Segmented,
) -> None:
    """Show the labels of a segmentation, and keep what the next one can use."""
    request, state = segmented.request, annotation.state
    session.see(annotation, plane)
    session.journal.know_pixels(annotation, segmented.image)
    if segmented.embedding is not None:
        annotation.embed(segmented.embedding)
    session.loaded = segmented.loaded
    annotation.seconds.update(segmented.seconds)
    session.use(annotation)
    settings = replace(
        settings_of(segmented.loaded, state.settings),
        decode=request.config,
        diameter=request.diameter,
    )
    fresh = segmented.fresh
    pixels = drawn = fresh.pixels_in(annotation)
    # semantic labels are one mask of all nuclei: 1 is no nucleus there
    painted: frozenset[int] = frozenset()
    if request.config.mode == "instance":
        # of one mask of all nuclei nobody has accepted the pixels of one
        late = (
            _accepted_since(request.prompts, state)
            if annotation.has_instances
            else set()
        )
        pixels = _keep(state.painted | late, drawn)
        painted = state.painted
    as_computed, layer = pixels is drawn, None
    after = replace(state, settings=settings, painted=painted)
    if pixels is fresh.pixels:
        after, layer = replace(after, labels=fresh.labels), fresh.layer
    masks: dict[int, ObjectMask | None] = dict.fromkeys(annotation.masks)
    masks |= segmented.masks
    title = edits.count_title("segment", segmented.nuclei)
    waited = session.live.settle(annotation, request.prompts)
    # what was changed while the segmentation ran is decoded after it
    edit = Edit(
        request.prompts,
        state.prompts,
        request.painted - state.painted,
        painted=state.painted - request.painted,
    )
    # also what could not be drawn before, or was not known to be right
    waited |= annotation.unsure or bool(annotation.undrawn)
    first, annotation.segmented = not annotation.segmented, True
    annotation.undrawn = set()
    annotation.drawn_from = request.prompts
    if segmented.recomputed:
        session.review.sort_again(annotation)
    session.effort.start()
    step = session.steps.record(
        annotation,
        title,
        after,
        pixels=pixels,
        masks=masks,
        edit=None if request.prompts is state.prompts else edit,
    )
    if first:
        annotation.segmented_by[step] = True
    if waited:
        annotation.drew_others.add(step)
    as_computed &= request.prompts is state.prompts
    if segmented.doubts is not None and as_computed:
        session.review.know(annotation, segmented.doubts)
    if annotation.labels is None:
        session.drawing.show_labels(annotation, layer)
        session.changed.emit()


def set_threshold(
    session: AnnotationSession, annotation: Annotation, threshold: float
) -> None:
    """Show the proposals with at least this score, and all touched prompts.

    In reviewed regions all stays as it is.
    """
    sync(session, annotation)
    if threshold == annotation.threshold:
        return
    done = session.steps.history.done
    drawn, moved_back = annotation.prompts, False
    # a slider makes many steps; undo takes back all of them at once
    last = done[-1] if done else None
    if last is not None and last.number == annotation.threshold_step:
        # thousands of points are drawn once, as they are in the end
        session.steps.undo(points=False)
        annotation.steps -= 1
        moved_back = True
    state = annotation.state
    kept = state.painted | nuclei_inside(state.prompts, state.reviewed)
    unseen, others = _apart(state.hidden, state.reviewed)
    shown, hidden = edits.split_by_score(state.prompts, others, threshold, kept=kept)
    hidden = Prompts.concatenate([hidden, unseen])
    after = replace(
        state,
        prompts=shown,
        hidden=hidden,
        settings=replace(state.settings, threshold=threshold),
    )
    annotation.threshold_step = session.steps.record(
        annotation,
        f"show scores from {threshold:.2f}",
        after,
        edit=edit_if_drawn(annotation, shown),
        shown=drawn,
    )
    if moved_back and not annotation.threshold_step:
        # to where it was at first: there is one step less, and no other in its place
        session.drawing.draw(annotation, replace(state, prompts=drawn), None)
        session.changed.emit()


def draw_masks(
    session: AnnotationSession, annotation: Annotation, result: LiveResult
) -> None:
    """Draw the masks that a step has brought, as a part of that step."""
    session.drawing.mend(annotation)
    update, request = result.update, result.request
    if update is None or not isinstance(request, LiveRequest):
        return
    labels = annotation.state.labels
    shape = (labels.shape[0], labels.shape[1])
    y, x = update.origin_yx
    height, width = update.before.shape
    window = labels[y : y + height, x : x + width]
    # what was drawn while the masks were decoded stays
    lately = annotation.painted - request.painted
    stays = window != update.before
    if lately:
        stays |= np.isin(window, list(lately)) | np.isin(update.after, list(lately))
    after = np.where(stays, window, update.after)
    pixels = PixelChange.between(window, after, (y, x), shape)
    annotation.seconds["live"] = result.seconds
    annotation.add_masks(result.known)
    step = session.steps.amend(annotation, request.step, pixels)
    if step is None:
        # undo would go wrong by it: the next request sees which masks are old
        annotation.unsure = True
        return
    annotation.take_masks(step, update.masks)
    if step != request.step or request.unsure:
        annotation.drew_others.add(step)
    if annotation.labels is None:
        session.drawing.show_labels(annotation)
    elif len(pixels):
        session.drawing.draw_pixels(annotation, pixels)
    _tell_little(session, annotation, request.edit, update.masks)
    session.changed.emit()


def _tell_little(
    session: AnnotationSession,
    annotation: Annotation,
    edit: Edit,
    masks: Mapping[int, ObjectMask | None],
) -> None:
    """Say so where a person has set points, and next to nothing is there."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import placed_objects
    from napari_sac.core.inference.review import found_little

    state = annotation.state
    new = placed_objects(edit.after) - set(edit.before.object_id.tolist())
    # they may be rejected or gone since
    new &= edits.usable_ids(state.prompts)
    drawn = [mask for k, mask in masks.items() if mask is not None and k in new]
    little = sum(found_little(m, state.labels, state.settings.diameter) for m in drawn)
    if little == len(drawn) == 1:
        session.told.emit(LITTLE_FOUND)
    elif little:
        session.told.emit(f"Little was found at {little:,} of {len(drawn):,} points.")


def _apart(
    prompts: Prompts, regions: tuple[FloatArray, ...]
) -> tuple[Prompts, Prompts]:
    """Return the prompts of nuclei in regions, and all others."""
    inside = np.isin(prompts.object_id, list(nuclei_inside(prompts, regions)))
    return prompts.select(inside), prompts.select(~inside)


def _near(prompts: Prompts, others: Prompts, reach: float) -> set[int]:
    """Return the nuclei with a positive point within reach of one of the others."""
    if len(others) == 0:
        return set()
    # imported late: it takes half a second, which opening a dock need not
    from scipy.spatial import KDTree

    distance, _ = KDTree(others.yx).query(prompts.yx)
    near = (distance < reach) & (prompts.sign == POSITIVE)
    return set(prompts.object_id[near].tolist())


def settings_of(loaded: LoadedModel, settings: Settings) -> Settings:
    """Return settings with a model, by which other weights of that name are known."""
    adapter = loaded.choice.adapter
    return replace(
        settings,
        model=loaded.choice.name,
        adapter=None if adapter is None else str(adapter),
        model_key=loaded.model.key,
    )


def _accepted_since(before: Prompts, state: AnnotationState) -> set[int]:
    """Return the nuclei with pixels that were accepted since: they were meant so."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import accepted_objects, objects_at

    if before is state.prompts:
        return set()
    late = accepted_objects(state.prompts) - accepted_objects(before)
    points = state.prompts.select(np.isin(state.prompts.object_id, list(late)))
    return late & objects_at(points, state.labels)


def _keep(ids: Collection[int], pixels: PixelChange) -> PixelChange:
    """Return a change by which these nuclei lie as they did before, and only there."""
    kept = np.array(sorted(ids), np.uint32)
    theirs, onto = np.isin(pixels.before, kept), np.isin(pixels.after, kept)
    if not (theirs | onto).any():
        return pixels
    after = np.where(onto, np.uint32(0), pixels.after)
    stays = theirs | (after == pixels.before)
    columns = (pixels.starts, pixels.lengths, pixels.before, after)
    return PixelChange(*(column[~stays] for column in columns))

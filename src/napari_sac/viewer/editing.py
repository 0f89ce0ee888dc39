"""What a person does to nuclei: each function makes one step of the session.

The functions are what the methods of the session, the keys and the mouse end in. What
becomes of the prompts is in :mod:`~napari_sac.viewer.prompts`; here is what follows
for pixels that are given, and for masks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.types import POSITIVE, Prompts, PromptState
from napari_sac.viewer import painting
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.live import Edit
from napari_sac.viewer.regions import labels_inside, nuclei_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from napari_sac.core.types import FloatArray
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession

NOTHING_GIVEN = (
    "The model draws these nuclei already. Draw again is for those that were painted, "
    "imported or accepted."
)

OUTSIDE = "Outside of the image there are no nuclei: nothing was added."
NO_MASK = (
    "The image is not here, so nothing draws a mask of it. Open the image, and press "
    "Segment."
)

_NEAR_DIAMETERS = 8.0
"""How far beyond a region its nuclei reach, at most."""

_SELECTED_REACH = 2.0
"""How far, in diameters, a click may be from the selected nucleus to belong to it."""


def accept(
    session: AnnotationSession, annotation: Annotation, rows: edits.Rows
) -> None:
    """Accept prompts, by row, and what else nobody has touched of their nuclei.

    Rejected ones are accepted where all of the rows are, with all of their nuclei:
    who selects everything does not mean those.
    """
    prompts = annotation.prompts
    rejected = prompts.rejected
    brought_back = bool(rejected[rows].all())
    rows = rows if brought_back else rows[~rejected[rows]]
    own = np.isin(prompts.object_id, prompts.object_id[rows])
    rest = prompts.state == PromptState.AUTO.value
    rest |= rejected & brought_back
    rows = np.union1d(rows, np.flatnonzero(own & rest))
    title = edits.count_title("accept", len(set(prompts.object_id[rows].tolist())))
    _decide(session, annotation, title, edits.accept(prompts, rows))


def reject(
    session: AnnotationSession, annotation: Annotation, rows: edits.Rows
) -> None:
    """Reject the nuclei of prompts, by row; they stay visible and make no mask.

    Of a nucleus of which only negatives are given, these alone are rejected.
    """
    prompts = annotation.prompts
    ids = set(prompts.object_id[rows[prompts.sign[rows] == POSITIVE]].tolist())
    title = edits.count_title("reject", len(ids))
    if not ids:
        title = edits.count_title("reject", len(rows), "point")
    rows = np.union1d(rows, np.flatnonzero(np.isin(prompts.object_id, list(ids))))
    _decide(session, annotation, title, edits.reject(prompts, rows))


def negate(
    session: AnnotationSession, annotation: Annotation, rows: edits.Rows
) -> None:
    """Turn positive prompts into negative ones of the nearest nucleus, or back."""
    new_id = edits.next_id(annotation.prompts, annotation.hidden)
    prompts = edits.negate(annotation.prompts, rows, new_id)
    title = edits.count_title("turn", len(rows), "point")
    _change_prompts(session, annotation, title, prompts, positions=False)


def delete(
    session: AnnotationSession, annotation: Annotation, rows: edits.Rows
) -> None:
    """Forget prompts that napari has taken out of the layer, by their old rows."""
    ids = annotation.prompts.object_id[rows]
    prompts = edits.delete(annotation.prompts, rows)
    if set(ids.tolist()) & edits.usable_ids(prompts):
        title = edits.count_title("delete", len(rows), "point")
    else:
        title = edits.count_title("delete", len(set(ids.tolist())))
    _change_prompts(session, annotation, title, prompts, positions=False, shown=prompts)


def merge(
    session: AnnotationSession, annotation: Annotation, ids: Collection[int]
) -> None:
    """Make one nucleus of several; it keeps the lowest id.

    Where pixels are given and not computed, by hand or by import, they are put
    together, as where the image is not here; else the model draws the nucleus from all
    its prompts.
    """
    state = annotation.state
    ids = set(ids) & edits.usable_ids(state.prompts)
    if len(ids) < 2:
        session.told.emit("Select the points of at least two nuclei to merge them.")
        return
    prompts = edits.merge(state.prompts, ids)
    title = edits.count_title("merge", len(ids))
    together = bool(ids & state.painted)
    if annotation.plane is None and annotation.has_instances:
        together |= bool(np.isin(state.labels, sorted(ids)).any())
    if not together:
        _change_prompts(session, annotation, title, prompts, positions=False)
        return
    target = min(ids)
    rows, columns = np.nonzero(np.isin(state.labels, sorted(ids - {target})))
    shape = (state.labels.shape[0], state.labels.shape[1])
    pixels = PixelChange.of_pixels(
        shape, (rows, columns), state.labels[rows, columns], target
    )
    painted = (state.painted - ids) | {target}
    classes = edits.inherit_classes(state.classes, state.prompts, prompts)
    after = replace(state, prompts=prompts, painted=painted, classes=classes)
    edit = Edit(
        state.prompts,
        prompts,
        frozenset(ids - {target}),
        painting.change_box(pixels, shape),
        painted=frozenset({target}) - state.painted,
    )
    session.steps.record(
        annotation, title, after, pixels=pixels, edit=edit, positions=False
    )


def split(
    session: AnnotationSession, annotation: Annotation, ids: Collection[int]
) -> None:
    """Make a nucleus of each positive point of these nuclei."""
    new_id = edits.next_id(annotation.prompts, annotation.hidden)
    prompts = edits.split(annotation.prompts, ids, new_id)
    if prompts is annotation.prompts:
        session.told.emit(
            "A nucleus is split where it has two points: add one by a click in it, "
            "which makes it two at once."
        )
        return
    _change_prompts(
        session,
        annotation,
        edits.count_title("split", len(set(ids))),
        prompts,
        positions=False,
        reshaped=set(ids),
    )


def redraw(
    session: AnnotationSession, annotation: Annotation, ids: Collection[int]
) -> None:
    """Let the model draw nuclei again that were painted, imported or accepted.

    One that was accepted is open again: nobody has looked at what will be drawn.
    """
    from napari_sac.core.inference.instances import accepted_objects

    if annotation.plane is None:
        session.told.emit(NO_MASK)
        return
    state = annotation.state
    painted = frozenset(ids) & state.painted
    accepted = (accepted_objects(state.prompts) & frozenset(ids)) - painted
    released = painted | accepted
    if not released:
        session.told.emit(NOTHING_GIVEN)
        return
    prompts = state.prompts
    if accepted:
        states = prompts.state.copy()
        states[np.isin(prompts.object_id, list(accepted))] = PromptState.AUTO.value
        prompts = replace(prompts, state=states)
    session.steps.record(
        annotation,
        edits.count_title("redraw", len(released)),
        replace(state, prompts=prompts, painted=state.painted - painted),
        edit=Edit(state.prompts, prompts, released),
        positions=False,
    )


def add_box(
    session: AnnotationSession, annotation: Annotation, corners: FloatArray
) -> int | None:
    """Add a nucleus in the middle of a box of corners (N, 2); return its id.

    None where the middle is outside of the image.
    """
    from napari_sac.core.inference.imports import prompts_from_box

    sync(session, annotation)
    y0, x0 = np.rint(np.min(corners, axis=0)).astype(int).tolist()
    y1, x1 = np.rint(np.max(corners, axis=0)).astype(int).tolist()
    new_id = edits.next_id(annotation.prompts, annotation.hidden)
    box = prompts_from_box((y0, x0, y1, x1), new_id)
    if not _is_inside(annotation, box.yx).all():
        session.told.emit(OUTSIDE)
        return None
    prompts = Prompts.concatenate([annotation.prompts, box])
    _change_prompts(session, annotation, "add a box", prompts)
    return new_id


def nucleus_at(annotation: Annotation, yx: FloatArray) -> int | None:
    """Return the nucleus that a further point at (y, x) belongs to.

    It is the one whose label lies there, else the selected one if that is near, else
    the nearest one. napari selects each new point: were the selected nucleus first, two
    clicks into two nuclei would make one of them.
    """
    usable = edits.usable_ids(annotation.prompts)
    labels = annotation.state.labels
    row, column = np.rint(np.asarray(yx, float)).astype(int)
    inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
    there = int(labels[row, column]) if inside and annotation.has_instances else 0
    for object_id in (there, _selected_near(annotation, yx)):
        if object_id in usable:
            return object_id
    return edits.nearest_nucleus(annotation.prompts, np.asarray(yx, float))


def set_reviewed(
    session: AnnotationSession, annotation: Annotation, polygons: tuple[FloatArray, ...]
) -> None:
    """Say which regions, polygons (N, 2) in pixels, were reviewed.

    What nobody has decided on in those that are new is accepted: it was looked at.
    """
    sync(session, annotation)
    state = annotation.state
    before = len(state.reviewed)
    more, fewer = len(polygons) - before, before - len(polygons)
    if more > 0:
        title = edits.count_title("mark", more, "region")
    elif fewer > 0:
        title = edits.count_title("unmark", fewer, "region")
    else:
        title = "change the reviewed regions"
    new = [p for p in polygons if not any(np.array_equal(p, q) for q in state.reviewed)]
    is_open = state.prompts.state == PromptState.AUTO.value
    is_open &= np.isin(state.prompts.object_id, list(_nuclei_in(annotation, new)))
    prompts, edit = state.prompts, None
    if is_open.any():
        prompts = edits.accept(prompts, np.flatnonzero(is_open))
        edit = edit_if_drawn(annotation, prompts)
        accepted = len(set(prompts.object_id[is_open].tolist()))
        title += f", {edits.count_title('accept', accepted)}"
    session.steps.record(
        annotation,
        title,
        replace(state, prompts=prompts, reviewed=polygons),
        edit=edit,
        positions=False,
    )


def take_features(session: AnnotationSession, annotation: Annotation) -> None:
    """Take up what was typed into napari's table of features."""
    layer, known = annotation.points, annotation.prompts
    if layer is not None and len(layer.data) == len(known):
        prompts = edits.read_features(layer.features, known)
        if prompts is not known:
            _change_prompts(
                session, annotation, "edit the table", prompts, positions=False
            )


def sync(
    session: AnnotationSession, annotation: Annotation, joins_as: int | None = None
) -> None:
    """Take up what was done to the layer of prompts, also what napari tells nobody.

    Pasting points, for one, emits no event.

    Parameters
    ----------
    annotation : Annotation
    joins_as : {POSITIVE, NEGATIVE}, optional
        New points are of this sign, and belong to nuclei there are.
    """
    layer = annotation.points
    # a layer that is being written does not show yet what is known
    if layer is None or annotation.placed_on is not None or session.gestures.are_paused:
        return
    known = annotation.prompts
    yx = np.asarray(layer.data, float)
    common = min(len(yx), len(known))
    if len(yx) == len(known) and np.array_equal(yx, known.yx):
        return
    prompts = known if common == len(known) else known.select(np.arange(common))
    moved = np.flatnonzero((yx[:common] != prompts.yx).any(axis=1))
    title = edits.count_title("move", len(moved), "point")
    if len(moved):
        prompts = edits.move(prompts, moved, _drawn_in(annotation, yx[moved]))
    inside = _is_inside(annotation, yx)
    added = yx[common:][inside[common:]]
    if len(added):
        title = edits.count_title("add", len(added))
        prompts, joined = _with_added(session, annotation, prompts, added, joins_as)
        title = title if joined is None else _point_title(joined)
    if prompts is not known:
        _change_prompts(session, annotation, title, prompts, positions=not inside.all())
    if not inside.all():
        session.drawing.draw_points(annotation)
        if not inside[common:].all():
            session.told.emit(OUTSIDE)


def place(
    session: AnnotationSession,
    annotation: Annotation,
    yx: FloatArray,
    joins_as: int | None = None,
) -> None:
    """Take up a point that napari is about to add to the layer of prompts.

    napari takes longer for its part than the mask takes that was foreseen, so the mask
    comes first. Until the point is in the layer, nothing is read off the layer.

    Parameters
    ----------
    session : AnnotationSession
    annotation : Annotation
    yx : (2,) float
        In pixels of the image.
    joins_as : {POSITIVE, NEGATIVE}, optional
        The point is of this sign, and belongs to a nucleus there is.
    """
    sync(session, annotation)
    if not _is_inside(annotation, np.asarray(yx, float)[None]).all():
        # where napari has added it, it is taken out again
        return
    before = annotation.prompts
    prompts, joined = _with_added(
        session, annotation, before, np.asarray(yx, float)[None], joins_as
    )
    title = edits.count_title("add", 1) if joined is None else _point_title(joined)
    annotation.placed_on = before
    # nothing is written to the layer before the point is in it
    shown = _all_decided(prompts)
    _change_prompts(session, annotation, title, prompts, positions=False, shown=shown)


def finish_placing(session: AnnotationSession, annotation: Annotation) -> None:
    """Make the point look as it must that napari has added by now."""
    before, annotation.placed_on = annotation.placed_on, None
    if before is not None:
        session.drawing.draw_added(annotation, before)


def _decide(
    session: AnnotationSession, annotation: Annotation, title: str, prompts: Prompts
) -> None:
    live = edit_if_drawn(annotation, prompts) is not None
    _change_prompts(session, annotation, title, prompts, positions=False, live=live)


def _change_prompts(
    session: AnnotationSession,
    annotation: Annotation,
    title: str,
    prompts: Prompts,
    *,
    positions: bool = True,
    live: bool = True,
    reshaped: Collection[int] = (),
    shown: Prompts | None = None,
) -> None:
    """Record other prompts, and what follows for nuclei with given pixels.

    An imported nucleus that nobody vouched for is computed as soon as its prompts
    change. One that was painted stays, unless nothing is left of its prompts.
    """
    state = annotation.state
    released: set[int] = set()
    gone: set[int] = set()
    usable = edits.usable_ids(prompts)
    if state.painted:
        changed = edits.reshaped_ids(state.prompts, prompts)
        changed |= _split_by(annotation, prompts) | set(reshaped)
        undecided = edits.undecided_ids(state.prompts)
        gone = set(state.painted) - usable
        released = (set(state.painted) & changed & undecided) - gone
        _tell_protected(session, set(state.painted) & changed - released - gone)
    if annotation.plane is None and annotation.has_instances:
        # nobody else will draw without them
        gone |= edits.usable_ids(state.prompts) - usable
        if usable - edits.usable_ids(state.prompts):
            session.told.emit(NO_MASK)
    pixels = painting.erasure(state.labels, gone)
    shape = (state.labels.shape[0], state.labels.shape[1])
    after = replace(
        state,
        prompts=_all_decided(prompts),
        painted=state.painted - gone - released,
        classes=edits.inherit_classes(state.classes, state.prompts, prompts),
    )
    # masks are the same with all decided, and the preview has foreseen this edit
    edit = Edit(
        state.prompts, prompts, frozenset(released), painting.change_box(pixels, shape)
    )
    session.steps.record(
        annotation,
        title,
        after,
        pixels=pixels,
        edit=edit if live else None,
        positions=positions,
        shown=shown,
    )


def _nuclei_in(annotation: Annotation, regions: Sequence[FloatArray]) -> set[int]:
    """Return the nuclei in regions, as training finds them: by most of their pixels.

    Before there are masks of all nuclei, by their points.
    """
    labels = annotation.state.labels
    found: set[int] = set()
    if regions and annotation.has_instances:
        reach = math.ceil(_NEAR_DIAMETERS * annotation.state.settings.diameter)
        found |= labels_inside(labels, regions, reach)
    masked = annotation.has_instances and annotation.segmented and labels.any()
    if not masked:
        found |= nuclei_inside(annotation.prompts, regions) - annotation.painted
    return found


def _all_decided(prompts: Prompts) -> Prompts:
    """Return the prompts with the rest of each corrected nucleus accepted too.

    Who corrects a nucleus has decided on it, and it looks so. No mask depends on it:
    beside a point that a person set, the others count as much whether accepted or not.
    """
    corrected = prompts.placed
    open_rows = prompts.state == PromptState.AUTO.value
    rest = open_rows & np.isin(prompts.object_id, prompts.object_id[corrected])
    rows = np.flatnonzero(rest)
    return edits.accept(prompts, rows) if len(rows) else prompts


def _split_by(annotation: Annotation, prompts: Prompts) -> set[int]:
    """Return the nuclei in whose pixels a new nucleus has its point."""
    labels = annotation.state.labels
    known = set(annotation.prompts.object_id.tolist())
    new = [k not in known for k in prompts.object_id.tolist()]
    rows = np.flatnonzero(np.array(new, bool) & (prompts.sign == POSITIVE))
    places = np.rint(prompts.yx[rows]).astype(int)
    inside = ((places >= 0) & (places < labels.shape)).all(axis=1)
    y, x = places[inside].T
    return set(labels[y, x].tolist()) - {0}


def _is_inside(annotation: Annotation, yx: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which of some points (N, 2) lie on a pixel of the image."""
    nearest = np.rint(yx)
    inside = (nearest >= 0) & (nearest < annotation.state.labels.shape)
    return np.asarray(inside.all(axis=1))


def _drawn_in(
    annotation: Annotation, yx: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return points (N, 2), those outside of the image on its border."""
    last = np.array(annotation.state.labels.shape) - 1
    inside = _is_inside(annotation, yx)[:, None]
    return np.where(inside, yx, np.clip(yx, 0, last))


def _tell_protected(session: AnnotationSession, ids: set[int]) -> None:
    if ids:
        key = session.keys["redraw"]
        press = f"{key}, or " if key else ""
        session.told.emit(
            "This nucleus was painted or accepted as it is, so its pixels stay. "
            f"Press {press}More tools > Draw again, to let the model draw it."
        )


def edit_if_drawn(annotation: Annotation, prompts: Prompts) -> Edit | None:
    """Return the edit if there are labels that it may change."""
    if annotation.labels is None and not annotation.masks:
        return None
    return Edit(annotation.prompts, prompts)


def _with_added(
    session: AnnotationSession,
    annotation: Annotation,
    prompts: Prompts,
    yx: npt.NDArray[np.float64],
    joins_as: int | None,
) -> tuple[Prompts, int | None]:
    """Return the prompts with points added, and the sign of those that joined."""
    sign = session.added_sign if joins_as is None else joins_as
    if joins_as is None and sign == POSITIVE:
        # thousands may be pasted, and each is a nucleus of its own
        new_id = edits.next_id(prompts, annotation.hidden)
        return edits.add(prompts, yx, sign, new_id), None
    joined = None
    for place in yx:
        owner = nucleus_at(annotation, place)
        if owner is None:
            new_id = edits.next_id(prompts, annotation.hidden)
            prompts = edits.add(prompts, place[None], sign, new_id)
        else:
            joined = sign
            prompts = edits.add_to(prompts, place[None], sign, owner)
    return prompts, joined


def _selected_near(annotation: Annotation, yx: FloatArray) -> int:
    """Return the one selected nucleus if it is near; else 0."""
    layer, prompts = annotation.points, annotation.prompts
    if layer is None:
        return 0
    rows = [row for row in layer.selected_data if row < len(prompts)]
    ids = set(prompts.object_id[rows].tolist())
    if len(ids) != 1:
        return 0
    (object_id,) = ids
    own = prompts.select(prompts.object_id == object_id)
    reach = _SELECTED_REACH * annotation.diameter
    near = edits.nearest_nucleus(own, np.asarray(yx, float), reach)
    return near or 0


def _point_title(sign: int) -> str:
    return edits.count_title("extend" if sign == POSITIVE else "shrink", 1)

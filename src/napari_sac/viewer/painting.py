"""What a stroke of napari's brush, eraser or bucket means for the nuclei.

A nucleus that was drawn by hand is marked as painted and is not computed again; one
that was wiped out wholly is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.types import POSITIVE, Prompts, PromptState
from napari_sac.viewer import prompts as edits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from napari_sac.core.session.state import AnnotationState

    Box = tuple[int, int, int, int]

_NEAR = 3
"""Pixels within which a stroke belongs to the nucleus whose label is in hand."""

_SEARCHED = 256
"""Pixels around a stroke in which the rest of a nucleus is looked for first."""
_FEW = 2
"""Up to so many ids are sooner looked for one by one than in a table of all."""


@dataclass(frozen=True, eq=False)
class Stroke:
    """What a stroke makes of an annotation.

    Parameters
    ----------
    title : str
        For the menu, behind "Undo".
    after : AnnotationState
        With the labels of before, which nobody has written to yet.
    pixels : PixelChange
    renumbered : mapping of int to int
        The ids that labels got which are those of other nuclei, by label.
    """

    title: str
    after: AnnotationState
    pixels: PixelChange
    renumbered: Mapping[int, int] = field(default_factory=dict)


def stroke_box(atoms: Iterable[Any], shape: tuple[int, int]) -> Box:
    """Return the box (y0, x0, y1, x1) of the pixels that a stroke may have changed.

    Parameters
    ----------
    atoms : iterable
        What napari's ``paint`` event carries: edits of a box each, or of single pixels.
    shape : (int, int)
        Of the labels.
    """
    boxes = []
    for atom in atoms:
        slices = getattr(atom, "slice_key", None)
        if slices is not None:
            rows, columns = (s.indices(n) for s, n in zip(slices, shape, strict=True))
            boxes.append((rows[0], columns[0], rows[1], columns[1]))
        else:
            y, x = (np.asarray(i) for i in atom[0])
            if y.size:
                low, high = (int(y.min()), int(x.min())), (int(y.max()), int(x.max()))
                boxes.append((*low, high[0] + 1, high[1] + 1))
    if not boxes:
        return (0, 0, 0, 0)
    corners = np.array(boxes)
    y0, x0 = corners[:, :2].min(axis=0).tolist()
    y1, x1 = corners[:, 2:].max(axis=0).tolist()
    return y0, x0, y1, x1


def stroke_window(
    atoms: Iterable[Any], shown: npt.NDArray[np.uint32], box: Box
) -> npt.NDArray[np.uint32]:
    """Return the pixels (h, w) of a box of the layer as they are after a stroke.

    napari tells of some edits before it writes their pixels.
    """
    y0, x0, y1, x1 = box
    window = shown[y0:y1, x0:x1].copy()
    for atom in atoms:
        slices = getattr(atom, "slice_key", None)
        if slices is not None:
            rows, columns = (
                s.indices(n) for s, n in zip(slices, shown.shape, strict=True)
            )
            part = window[
                rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0
            ]
            part[... if atom.mask is None else atom.mask] = atom.new_value
        else:
            (y, x), _, values = atom
            window[np.asarray(y) - y0, np.asarray(x) - x0] = values
    return window


def read_stroke(
    state: AnnotationState, after: npt.NDArray[np.uint32], box: Box, brush: int = 0
) -> Stroke | None:
    """Return what a stroke did; None if it changed nothing.

    Parameters
    ----------
    state : AnnotationState
        From before the stroke.
    after : (h, w) uint32
        The pixels of the box after the stroke; ids that mean another nucleus are
        replaced in it.
    box : (int, int, int, int)
    brush : int, optional
        The label in hand: what is drawn with it apart from its nucleus is another one.
    """
    y0, x0, y1, x1 = box
    window = slice(y0, y1), slice(x0, x1)
    before = state.labels[window]
    changed = before != after
    if not changed.any():
        return None
    shape = (state.labels.shape[0], state.labels.shape[1])
    if state.settings.decode.mode == "semantic":
        pixels = PixelChange.between(before, after, (y0, x0), shape)
        return Stroke("paint", state, pixels)
    renumbered = _number_anew(state, after, changed, (y0, x0), brush)
    pixels = PixelChange.between(before, after, (y0, x0), shape)
    drawn = set(np.unique(after[changed]).tolist()) - {0}
    erased = set(np.unique(before[changed & (after == 0)]).tolist()) - {0}
    lost = set(np.unique(before[changed]).tolist()) - {0}
    gone = lost - _left(lost, state.labels, after, box)
    prompts = _with_new(state.prompts, drawn, after, (y0, x0))
    kept = (drawn | erased) - gone
    prompts = edits.vouch_for(prompts, kept)
    prompts = edits.reject_nuclei(prompts, gone)
    title = _title(drawn, erased - gone, gone)
    state = replace(state, prompts=prompts, painted=(state.painted | kept) - gone)
    return Stroke(title, state, pixels, renumbered)


def selected_label(stroke: Stroke, used: int) -> int:
    """Return the label with which a stroke made with label ``used`` was taken up."""
    labels: Sequence[int] = stroke.pixels.after.tolist()
    if used == 0 or used in labels:
        return used
    return max(labels, default=used) or used


def erasure(labels: npt.NDArray[np.uint32], ids: Collection[int]) -> PixelChange | None:
    """Return the change that makes the pixels of some nuclei background."""
    if not ids:
        return None
    rows, columns = np.nonzero(_are_of(labels, ids))
    if len(rows) == 0:
        return None
    shape = (labels.shape[0], labels.shape[1])
    return PixelChange.of_pixels(shape, (rows, columns), labels[rows, columns], 0)


def change_box(pixels: PixelChange | None, shape: tuple[int, int]) -> Box | None:
    """Return the box around the pixels that a change is about, if there are any."""
    return None if pixels is None or len(pixels) == 0 else pixels.box(shape)


def _number_anew(
    state: AnnotationState,
    after: npt.NDArray[np.uint32],
    changed: npt.NDArray[np.bool_],
    origin_yx: tuple[int, int],
    brush: int,
) -> dict[int, int]:
    """Give a nucleus an id of its own if its label is that of another one elsewhere.

    napari keeps painting with the label of the nucleus before. And it counts on from
    the largest label it sees, and knows neither proposals that are hidden nor nuclei
    without pixels. Return the new ids by label.
    """
    new_id = edits.next_id(state.prompts, state.hidden, labels=after)
    height, width = after.shape
    renumbered: dict[int, int] = {}
    drawn = set(np.unique(after[changed]).tolist()) - {0}
    box = (*origin_yx, origin_yx[0] + height, origin_yx[1] + width)
    there = _left(drawn, state.labels, state.labels[_inside(box)], box)
    ids, yx = state.prompts.object_id, state.prompts.yx - origin_yx
    inside = ((yx >= -0.5) & (yx < (height - 0.5, width - 0.5))).all(axis=1)
    taken = set(ids.tolist()) - set(ids[inside].tolist())
    taken |= set(state.hidden.object_id.tolist())
    for label in sorted(drawn):
        if label in there:
            # painted on or beside the nucleus, or in its place
            if label != brush or not _is_apart(
                label, state.labels, after, changed & (after == label), origin_yx
            ):
                continue
        elif label not in taken:
            continue
        renumbered[label] = new_id
        new_id += 1
    if renumbered:
        rows, columns = np.nonzero(changed & _are_of(after, renumbered))
        numbers, place = np.unique(after[rows, columns], return_inverse=True)
        fresh = np.array([renumbered[k] for k in numbers.tolist()], np.uint32)
        after[rows, columns] = fresh[place]
    return renumbered


def _is_apart(
    label: int,
    labels: npt.NDArray[np.uint32],
    after: npt.NDArray[np.uint32],
    drawn: npt.NDArray[np.bool_],
    origin_yx: tuple[int, int],
) -> bool:
    """Return whether pixels drawn (h, w) are far from what a label has and keeps."""
    from scipy import ndimage

    y, x = origin_yx
    height, width = drawn.shape
    top, left = max(0, y - _NEAR), max(0, x - _NEAR)
    kept = labels[top : y + height + _NEAR, left : x + width + _NEAR] == label
    window = kept[y - top :, x - left :][:height, :width]
    window &= after == label
    box = (y, x, y + height, x + width)
    rest = np.where(drawn, np.uint32(0), after)
    if not _left({label}, labels, rest, box):
        return False
    around = np.pad(drawn, ((y - top, _NEAR), (x - left, _NEAR)))
    around = ndimage.binary_dilation(around, np.ones((3, 3)), iterations=_NEAR)
    return not (around[: kept.shape[0], : kept.shape[1]] & kept).any()


def _left(
    ids: Collection[int],
    labels: npt.NDArray[np.uint32],
    after: npt.NDArray[np.uint32],
    box: Box,
) -> set[int]:
    """Return which ids have pixels in the box ``after`` or in the labels outside it.

    Nuclei are small: what is found near the box is not looked for in all pixels.
    """
    near = (
        max(0, box[0] - _SEARCHED),
        max(0, box[1] - _SEARCHED),
        min(labels.shape[0], box[2] + _SEARCHED),
        min(labels.shape[1], box[3] + _SEARCHED),
    )
    y, x = near[:2]
    inner = (box[0] - y, box[1] - x, box[2] - y, box[3] - x)
    found = _present(ids, after, *_outside(labels[_inside(near)], inner))
    missing = set(ids) - found
    return found | _present(missing, *_outside(labels, near)) if missing else found


def _inside(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])


def _outside(
    labels: npt.NDArray[np.uint32], box: Box
) -> tuple[npt.NDArray[np.uint32], ...]:
    """Return the parts of labels above, below, left and right of a box."""
    y0, x0, y1, x1 = box
    return labels[:y0], labels[y1:], labels[y0:y1, :x0], labels[y0:y1, x1:]


def _present(ids: Collection[int], *parts: npt.NDArray[np.uint32]) -> set[int]:
    """Return which ids have pixels in any of some labels, each read once."""
    found: set[int] = set()
    for part in parts:
        found |= set(np.unique(part[_are_of(part, ids)]).tolist())
    return found


def _are_of(
    labels: npt.NDArray[np.uint32], ids: Collection[int]
) -> npt.NDArray[np.bool_]:
    """Return which pixels are of one of some ids."""
    how: Literal["sort"] | None = "sort" if len(ids) <= _FEW else None
    return np.isin(labels, np.array(list(ids), np.uint32), kind=how)


def _with_new(
    prompts: Prompts,
    drawn: set[int],
    after: npt.NDArray[np.uint32],
    origin_yx: tuple[int, int],
) -> Prompts:
    """Return the prompts, and one for each nucleus that was drawn and had none."""
    new = drawn - set(prompts.object_id[prompts.sign == POSITIVE].tolist())
    if not new:
        return prompts
    # imported late: it takes half a second, which opening a dock need not
    from napari_sac.core.inference.imports import prompts_from_labels

    middles = prompts_from_labels(np.where(_are_of(after, new), after, 0))
    points = Prompts.from_points(
        middles.yx + origin_yx,
        object_id=middles.object_id,
        state=PromptState.ADDED.value,
    )
    return Prompts.concatenate([prompts, points])


def _title(drawn: set[int], erased: set[int], gone: set[int]) -> str:
    if drawn:
        return edits.count_title("paint", len(drawn))
    if gone:
        return edits.count_title("erase", len(gone))
    return edits.count_title("trim", len(erased))

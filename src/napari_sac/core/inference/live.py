"""After an edit: decode the touched nuclei, and draw again only where they lie.

The result is, to the last bit, what decoding and drawing everything would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from napari_sac.core.inference.instances import (
    accepted_objects,
    compete,
    decided_objects,
    drop_duplicates,
    objects_at,
    only_pixels_of,
    overlap,
    placed_objects,
    placed_positives,
    protected_objects,
    rank_masks,
    show_unseen,
)
from napari_sac.core.inference.predictor import (
    active_prompts,
    decode_prompts,
    first_positives,
    neighbour_negatives,
    neighbour_reach,
    surroundings,
)
from napari_sac.core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from napari_sac.core.config import DecodeConfig
    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.core.models.registry import Model
    from napari_sac.core.types import BoolArray, ObjectMask, Prompts

Box = tuple[int, int, int, int]
"""First row and column, and the ones after the last: y0, x0, y1, x1."""

_SLACK = 1 + 1e-6

_KEPT_REACH = 3
"""How far from its mask an accepted nucleus may have pixels, in reaches of neighbours:
neighbours that were set later change the mask and not the pixels."""


@dataclass(frozen=True, eq=False)
class LabelUpdate:
    """What an edit changes.

    Parameters
    ----------
    masks : dict of int to (ObjectMask or None)
        The touched nuclei's masks; None for one that has no mask any more.
    origin_yx : (int, int)
        Pixel of the image at ``before[0, 0]``.
    before, after : (h, w) uint32
        A window of the labels; what lies outside it is unchanged.
    """

    masks: dict[int, ObjectMask | None]
    origin_yx: tuple[int, int]
    before: npt.NDArray[np.uint32]
    after: npt.NDArray[np.uint32]


def touched_nuclei(
    before: Prompts, after: Prompts, config: DecodeConfig, reach: float
) -> set[int]:
    """Return the nuclei that an edit touches.

    Parameters
    ----------
    before, after : Prompts
        All prompts, also those rejected.
    config : DecodeConfig
    reach : float
        As :func:`~napari_sac.core.inference.predictor.neighbour_reach` returns it.

    Returns
    -------
    set of int
        Those with other points or another decision than before, and those for which
        other neighbours serve as negatives. They may be gone in ``after``.
    """
    changed = _changed_objects(before, after)
    count = config.neighbour_negatives
    if count == 0 or not changed:
        return changed
    moves = np.concatenate([_places(p, changed) for p in (before, after)])
    if len(moves) == 0:
        return changed
    # neighbours of those that may have gained or lost one are within reach of these
    old, new = (
        active_prompts(surroundings(p, moves, 2 * reach)) for p in (before, after)
    )
    near = _nuclei_near(moves, old, reach) | _nuclei_near(moves, new, reach)
    was = _points_by_object(neighbour_negatives(old, count, reach, only=near))
    now = _points_by_object(neighbour_negatives(new, count, reach, only=near))
    return changed | {k for k in near if was.get(k) != now.get(k)}


def update_labels(  # noqa: PLR0913
    labels: npt.NDArray[np.uint32],
    masks: Mapping[int, ObjectMask],
    embedding: Embedding,
    prompts: Prompts,
    model: Model,
    config: DecodeConfig,
    *,
    touched: Collection[int],
    painted: Collection[int] = frozenset(),
    released: Collection[int] = frozenset(),
    repainted: Box | None = None,
    progress: Progress = ignore_progress,
) -> LabelUpdate:
    """Return the masks and labels that differ after an edit; nothing is written.

    ``labels`` and ``masks`` must be those of the state before: what
    :func:`~napari_sac.core.inference.predictor.decode_prompts` and
    :func:`~napari_sac.core.inference.instances.assemble_labels`, or updates since,
    have given. Then the update gives what these two would for the new prompts.

    Parameters
    ----------
    labels : (H, W) uint32
    masks : mapping of int to ObjectMask
        The mask of each nucleus by ``object_id``.
    embedding : Embedding
    prompts : Prompts
        All prompts after the edit.
    model : Model
    config : DecodeConfig
        In instance mode.
    touched : collection of int
        As :func:`touched_nuclei` returns them, and nuclei that are newly painted; more
        do no harm.
    painted : collection of int
        Nuclei drawn by hand, after the edit: their pixels in ``labels`` are kept, and
        no other nucleus is drawn over them. Nor over those that were accepted, unless
        the edit gives them other points or sets a point in them.
    released : collection of int
        Nuclei that were painted before the edit and are not any more.
    repainted : (int, int, int, int), optional
        Box (y0, x0, y1, x1) of the pixels of ``labels`` that a hand changed since the
        labels were last updated.
    progress : Progress, optional
        May stop the decoding by an exception.
    """
    if config.mode != "instance":
        raise ValueError(f"live updates need instance mode, got {config.mode}")
    decoded = decode_prompts(
        embedding,
        prompts,
        model,
        config,
        reuse=masks,
        only=touched,
        progress=progress,
    )
    fresh: dict[int, ObjectMask | None] = {k: None for k in touched if k in masks} | {
        m.object_id: m for m in decoded
    }
    changed = {k: m for k, m in fresh.items() if masks.get(k) is not m}
    stale = {k for k, m in fresh.items() if reshaped(masks.get(k), m)} | set(released)
    protected = protected_objects(prompts, labels) - stale - set(painted)
    # a point was set in them: not all of their pixels are theirs any more
    touched_rows = np.isin(prompts.object_id, list(touched))
    split = objects_at(placed_positives(prompts.select(touched_rows)), labels)
    split &= accepted_objects(prompts) - set(painted)
    by_hand = [_clip(repainted, labels.shape)] if repainted else []
    by_hand += _boxes_of_labels(labels, released)
    field = _Field(masks, fresh)
    loose = {k for k in {*touched, *split} if k in masks} - protected - set(painted)
    reach = ceil(_KEPT_REACH * neighbour_reach(embedding, model))
    by_hand += _kept_outside(labels, loose, field, reach)
    suspects = field.duplicates_of(
        {*touched, *released, *split, *field.meeting(by_hand)}, config
    )
    dirty = [*field.boxes(suspects), *by_hand]
    if not dirty:
        return LabelUpdate(
            changed, (0, 0), labels[:0, :0].copy(), labels[:0, :0].copy()
        )
    origin, before, after = _draw_again(
        labels, field, prompts, config, dirty, painted, protected
    )
    return LabelUpdate(changed, origin, before, after)


def _changed_objects(before: Prompts, after: Prompts) -> set[int]:
    """Return the ids whose points or decisions differ."""
    if before is after:
        return set()
    shared = min(len(before), len(after))
    first = slice(shared)
    same = _same_rows(before, after, first, first)
    head = shared if same.all() else int(same.argmin())
    rest = shared - head
    last = slice(len(before) - rest, None), slice(len(after) - rest, None)
    same = _same_rows(before, after, *last)
    tail = rest if same.all() else int(same[::-1].argmin())
    was = _rows_by_object(before, slice(head, len(before) - tail))
    now = _rows_by_object(after, slice(head, len(after) - tail))
    return {k for k in was.keys() | now.keys() if was.get(k) != now.get(k)}


def _same_rows(before: Prompts, after: Prompts, old: slice, new: slice) -> BoolArray:
    """Return in which rows all is equal that masks and labels depend on.

    Of the states too: rejected ones make no mask, decided ones are kept, placed ones
    push neighbours.
    """
    return np.asarray(
        (before.object_id[old] == after.object_id[new])
        & (before.yx[old] == after.yx[new]).all(1)
        & (before.sign[old] == after.sign[new])
        & (before.state[old] == after.state[new])
    )


def _rows_by_object(prompts: Prompts, rows: slice) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    columns = (prompts.object_id, prompts.yx, prompts.sign, prompts.state)
    for object_id, (y, x), sign, state in zip(
        *(column[rows].tolist() for column in columns), strict=True
    ):
        found.setdefault(object_id, []).append((y, x, sign, state))
    return found


def _places(prompts: Prompts, ids: set[int]) -> npt.NDArray[np.float64]:
    """Return where these nuclei are, for their neighbours: (y, x) each."""
    rows = prompts.select(np.isin(prompts.object_id, list(ids)))
    return first_positives(active_prompts(rows)).yx


def _nuclei_near(
    moves: npt.NDArray[np.float64], prompts: Prompts, reach: float
) -> set[int]:
    """Return the nuclei that may have gained or lost a neighbour."""
    first = first_positives(prompts)
    if len(first) == 0:
        return set()
    distance, _ = KDTree(moves).query(first.yx, distance_upper_bound=reach * _SLACK)
    return set(first.object_id[np.isfinite(distance)].tolist())


def _points_by_object(prompts: Prompts) -> dict[int, list[list[float]]]:
    found: dict[int, list[list[float]]] = {}
    for object_id, yx in zip(
        prompts.object_id.tolist(), prompts.yx.tolist(), strict=True
    ):
        found.setdefault(object_id, []).append(yx)
    return found


class _Field:
    """The masks before and after an edit, and where each lies."""

    def __init__(
        self, masks: Mapping[int, ObjectMask], fresh: Mapping[int, ObjectMask | None]
    ) -> None:
        self._masks, self._fresh = masks, fresh
        new = [m for k, m in fresh.items() if m is not None and masks.get(k) is not m]
        self._versions = [*masks.values(), *new]
        self._old_row = dict(zip(masks, range(len(masks)), strict=True))
        self._new_row = {m.object_id: len(masks) + i for i, m in enumerate(new)}
        # not a tuple or list for each mask: so many set off Python's garbage collector
        corners = (v for m in self._versions for v in (*m.origin_yx, *m.logits.shape))
        table = np.fromiter(corners, np.int64, 4 * len(self._versions)).reshape(-1, 4)
        self._starts = table[:, :2]
        self._ends = table[:, :2] + table[:, 2:]
        # of thousands of masks only those of about its rows can meet a box
        self._by_top = np.argsort(self._starts[:, 0])
        self._tops, self._lefts = self._starts[self._by_top].T
        self._bottoms, self._rights = self._ends[self._by_top].T
        self._tallest = int(table[:, 2].max(initial=0))

    def current(self, ids: Iterable[int]) -> list[ObjectMask]:
        """Return the masks that these nuclei have after the edit."""
        fresh, masks = self._fresh, self._masks
        found = (fresh[k] if k in fresh else masks.get(k) for k in ids)
        return [m for m in found if m is not None]

    def _rows_of(self, object_id: int) -> list[int]:
        both = (rows.get(object_id) for rows in (self._old_row, self._new_row))
        return [row for row in both if row is not None]

    def boxes(self, ids: Iterable[int]) -> list[Box]:
        """Return where these nuclei were before the edit and are after it."""
        return [
            (*self._starts[row].tolist(), *self._ends[row].tolist())
            for k in ids
            for row in self._rows_of(k)
        ]

    def meeting(self, boxes: Iterable[Box]) -> set[int]:
        """Return the nuclei that were or are in one of the boxes."""
        rows: set[int] = set()
        for y0, x0, y1, x1 in boxes:
            first = self._tops.searchsorted(y0 - self._tallest, "right")
            near = slice(first, self._tops.searchsorted(y1))
            meets = (self._bottoms[near] > y0) & (self._rights[near] > x0)
            meets &= self._lefts[near] < x1
            rows.update(self._by_top[near][meets].tolist())
        return {self._versions[row].object_id for row in rows}

    def duplicates_of(self, ids: Iterable[int], config: DecodeConfig) -> set[int]:
        """Return the nuclei, and those that stand or fall with them as duplicates.

        Dropping a duplicate may spare another that it covered, and so on; beyond the
        chain nothing changes.
        """
        chain = set(ids)
        pending = list(chain)
        while pending:
            found = {
                other
                for k in [pending.pop()]
                for other in self.meeting(self.boxes([k])) - chain
                if self._too_near(k, other, config.overlap_threshold)
            }
            chain |= found
            pending += found
        return chain

    def _too_near(self, first: int, second: int, threshold: float) -> bool:
        return any(
            max(overlap(a, b), overlap(b, a)) > threshold
            for a in (self._versions[row] for row in self._rows_of(first))
            for b in (self._versions[row] for row in self._rows_of(second))
            if (a.logits > 0).any() and (b.logits > 0).any()
        )


def reshaped(before: ObjectMask | None, after: ObjectMask | None) -> bool:
    """Return whether two masks of a nucleus are of other points of its own."""
    if before is None or after is None:
        return before is not after
    return before.points_key != after.points_key


def _draw_again(
    labels: npt.NDArray[np.uint32],
    field: _Field,
    prompts: Prompts,
    config: DecodeConfig,
    dirty: list[Box],
    painted: Collection[int],
    protected: set[int],
) -> tuple[tuple[int, int], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return a window's origin, its labels, and them with ``dirty`` drawn again."""
    accepted = accepted_objects(prompts) - set(painted)
    drawn: set[int] = set()
    kept: set[int] = set()
    found = dirty
    while found:
        fresh = field.meeting(found) - drawn
        drawn |= fresh
        kept |= _with_pixels(labels, field, fresh & accepted & protected)
        # whether one is seen at all needs all of its mask
        found = field.boxes((fresh & accepted) - kept)
        dirty = [*dirty, *found]
    judged = field.duplicates_of(drawn, config)
    decided = decided_objects(prompts)
    # all of every mask that is judged must be seen, for what is painted over it
    everything = _around([*dirty, *field.boxes(judged)], labels.shape)
    ranked = rank_masks(
        field.current(judged),
        config,
        decided,
        placed_objects(prompts),
        painted,
        only_pixels_of(labels[_slices(everything)], painted),
        everything[:2],
    )
    shown = drop_duplicates(ranked, config, decided)
    free = [m for m in shown if m.object_id not in kept]
    window = _around(dirty, labels.shape)
    before = labels[_slices(window)].copy()
    after = only_pixels_of(before, {*painted, *protected})
    compete(after, free, window[:2])
    show_unseen(after, [m for m in free if m.object_id in drawn], prompts, window[:2])
    clean = np.ones(before.shape, bool)
    for box in dirty:
        y0, x0, y1, x1 = _clip(box, labels.shape)
        clean[y0 - window[0] : y1 - window[0], x0 - window[1] : x1 - window[1]] = False
    after[clean] = before[clean]
    return window[:2], before, after


def _with_pixels(
    labels: npt.NDArray[np.uint32], field: _Field, ids: Collection[int]
) -> set[int]:
    """Return which nuclei are to be seen, most likely where their masks are."""
    found = set()
    for object_id in ids:
        near = (
            labels[_slices(_clip(b, labels.shape))] for b in field.boxes([object_id])
        )
        if any((part == object_id).any() for part in near):
            found.add(object_id)
    # all of the labels are looked at once for all of them
    missing = list(set(ids) - found)
    if missing:
        found.update(labels[np.isin(labels, missing)].tolist())
    return found


def _boxes_of_labels(labels: npt.NDArray[np.uint32], ids: Collection[int]) -> list[Box]:
    """Return one box around all pixels of these nuclei, if there are any."""
    if not ids:
        return []
    return _box_of(np.isin(labels, list(ids)))


def _kept_outside(
    labels: npt.NDArray[np.uint32], ids: Collection[int], field: _Field, reach: int
) -> list[Box]:
    """Return where nuclei that were accepted kept pixels that no mask of theirs has."""
    found = []
    for object_id in ids:
        boxes = field.boxes([object_id])
        # to look at all of the labels would take as long as the rest of a click
        y0, x0, y1, x1 = _around(boxes, labels.shape)
        near = _clip((y0 - reach, x0 - reach, y1 + reach, x1 + reach), labels.shape)
        left = labels[_slices(near)] == object_id
        for box in boxes:
            y0, x0, y1, x1 = np.subtract(_clip(box, labels.shape), [*near[:2]] * 2)
            left[y0:y1, x0:x1] = False
        found += _box_of(left, near[:2])
    return found


def _box_of(there: BoolArray, origin_yx: tuple[int, int] = (0, 0)) -> list[Box]:
    """Return one box around what is true, if anything is."""
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if len(rows) == 0:
        return []
    y, x = origin_yx
    first, last = (y + int(rows[0]), x + int(columns[0])), (rows[-1], columns[-1])
    return [(*first, y + int(last[0]) + 1, x + int(last[1]) + 1)]


def _around(boxes: Iterable[Box], shape: tuple[int, ...]) -> Box:
    corners = np.array([_clip(box, shape) for box in boxes])
    y0, x0 = corners[:, :2].min(0).tolist()
    y1, x1 = corners[:, 2:].max(0).tolist()
    return y0, x0, y1, x1


def _clip(box: Box, shape: tuple[int, ...]) -> Box:
    height, width = shape
    y0, x0 = min(max(box[0], 0), height), min(max(box[1], 0), width)
    return y0, x0, max(min(box[2], height), y0), max(min(box[3], width), x0)


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])

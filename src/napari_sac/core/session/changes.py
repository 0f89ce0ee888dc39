"""What a step changes: small differences between two states, exact both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.types import Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.session.state import AnnotationState, Settings
    from napari_sac.core.types import AnyArray, BoolArray, FloatArray, ObjectClass

_FEW_ROWS = 64
"""As many rows that differ in place are not searched for elsewhere; nor if others
follow at the end, as those of a click do."""

_STATES = np.array([state.value for state in PromptState], "<U8")


@dataclass(frozen=True, eq=False)
class RowsChange:
    """Rows of a table of prompts that went, and rows that came.

    A row that was altered went and came; all other rows keep their order.

    Parameters
    ----------
    removed : (K,) int64
        Ascending indices into the table before.
    before : Prompts
        The K rows that went.
    inserted : (M,) int64
        Ascending indices into the table after.
    after : Prompts
        The M rows that came.
    """

    removed: npt.NDArray[np.int64]
    before: Prompts
    inserted: npt.NDArray[np.int64]
    after: Prompts

    def __post_init__(self) -> None:
        for rows, values in (
            (self.removed, self.before),
            (self.inserted, self.after),
        ):
            if rows.shape != (len(values),):
                raise ValueError("as many indices as rows are needed")
            if len(rows) and (rows[0] < 0 or (np.diff(rows) < 1).any()):
                raise ValueError("indices of rows must ascend")

    def forward(self, table: Prompts) -> Prompts:
        """Return the table after, given the one before."""
        return _exchange(table, self.removed, self.inserted, self.after)

    def backward(self, table: Prompts) -> Prompts:
        """Return the table before, given the one after."""
        return _exchange(table, self.inserted, self.removed, self.before)


@dataclass(frozen=True)
class IdsChange:
    """Object ids that left a set, and ids that joined it."""

    removed: frozenset[int]
    added: frozenset[int]

    def forward(self, ids: frozenset[int]) -> frozenset[int]:
        """Return the set after, given the one before."""
        return ids - self.removed | self.added

    def backward(self, ids: frozenset[int]) -> frozenset[int]:
        """Return the set before, given the one after."""
        return ids - self.added | self.removed


@dataclass(frozen=True)
class ClassesChange:
    """Nuclei that lost a class, and nuclei that got one; one that changed is in both.

    Parameters
    ----------
    removed, added : mapping of int to ObjectClass
        By ``object_id``.
    """

    removed: Mapping[int, ObjectClass]
    added: Mapping[int, ObjectClass]

    def forward(self, classes: Mapping[int, ObjectClass]) -> Mapping[int, ObjectClass]:
        """Return the classes after, given those before."""
        kept = {k: c for k, c in classes.items() if k not in self.removed}
        return {**kept, **self.added}

    def backward(self, classes: Mapping[int, ObjectClass]) -> Mapping[int, ObjectClass]:
        """Return the classes before, given those after."""
        return ClassesChange(self.added, self.removed).forward(classes)


@dataclass(frozen=True, eq=False)
class Change:
    """One step: what it is called, and what it changes; None is unchanged.

    Parameters
    ----------
    title : str
        As the menu names it behind "Undo": "reject 37 nuclei".
    prompts, hidden : RowsChange or None
    pixels : PixelChange or None
    painted : IdsChange or None
    reviewed : (before, after) or None
        Polygons (N, 2) float64 each.
    settings : (before, after) or None
    classes : ClassesChange or None
    """

    title: str
    prompts: RowsChange | None = None
    hidden: RowsChange | None = None
    pixels: PixelChange | None = None
    painted: IdsChange | None = None
    reviewed: tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]] | None = None
    settings: tuple[Settings, Settings] | None = None
    classes: ClassesChange | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        tables = (self.prompts, self.hidden, self.pixels, self.painted, self.classes)
        return all(p is None for p in (*tables, self.reviewed, self.settings))


def find_change(
    title: str,
    before: AnnotationState,
    after: AnnotationState,
    pixels: PixelChange,
) -> Change:
    """Return what differs between two states.

    Parameters
    ----------
    title : str
    before, after : AnnotationState
    pixels : PixelChange
        What changed in the labels; those of the states are not looked at.
    """
    painted = None
    if before.painted != after.painted:
        painted = IdsChange(
            before.painted - after.painted, after.painted - before.painted
        )
    reviewed = None
    if not same_polygons(before.reviewed, after.reviewed):
        reviewed = (before.reviewed, after.reviewed)
    settings = None
    if before.settings != after.settings:
        settings = (before.settings, after.settings)
    return Change(
        title,
        _find_rows(before.prompts, after.prompts),
        _find_rows(before.hidden, after.hidden),
        pixels if len(pixels) else None,
        painted,
        reviewed,
        settings,
        _find_classes(before.classes, after.classes),
    )


def forward(state: AnnotationState, change: Change) -> AnnotationState:
    """Return the state after the change; ``state.labels`` is written in place."""
    if change.pixels is not None:
        change.pixels.write(state.labels)
    return forward_tables(state, change)


def backward(state: AnnotationState, change: Change) -> AnnotationState:
    """Return the state before the change; ``state.labels`` is written in place."""
    if change.pixels is not None:
        change.pixels.write(state.labels, back=True)
    return replace(
        state,
        prompts=(
            change.prompts.backward(state.prompts) if change.prompts else state.prompts
        ),
        hidden=change.hidden.backward(state.hidden) if change.hidden else state.hidden,
        painted=(
            change.painted.backward(state.painted) if change.painted else state.painted
        ),
        reviewed=change.reviewed[0] if change.reviewed else state.reviewed,
        settings=change.settings[0] if change.settings else state.settings,
        classes=(
            change.classes.backward(state.classes) if change.classes else state.classes
        ),
    )


def forward_tables(state: AnnotationState, change: Change) -> AnnotationState:
    """Return the state after the change; the labels are left as they are."""
    return replace(
        state,
        prompts=(
            change.prompts.forward(state.prompts) if change.prompts else state.prompts
        ),
        hidden=change.hidden.forward(state.hidden) if change.hidden else state.hidden,
        painted=(
            change.painted.forward(state.painted) if change.painted else state.painted
        ),
        reviewed=change.reviewed[1] if change.reviewed else state.reviewed,
        settings=change.settings[1] if change.settings else state.settings,
        classes=(
            change.classes.forward(state.classes) if change.classes else state.classes
        ),
    )


def add_pixels(change: Change, pixels: PixelChange) -> Change:
    """Return the change with pixels that were written after it, as one step.

    Parameters
    ----------
    change : Change
    pixels : PixelChange
        Of a mask that was decoded later, for example.
    """
    together = pixels if change.pixels is None else change.pixels.then(pixels)
    return replace(change, pixels=together if len(together) else None)


def state_codes(prompts: Prompts) -> npt.NDArray[np.uint8]:
    """Return the states (N,) as their position among the values of ``PromptState``."""
    codes = np.full(len(prompts), len(_STATES), np.uint8)
    for code, state in enumerate(_STATES):
        codes[prompts.state == state] = code
    if (codes == len(_STATES)).any():
        raise ValueError("prompts with an unknown state")
    return codes


def states_of(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.str_]:
    """Return the states (N,) that the codes stand for; the inverse."""
    return _STATES[codes]


def same_polygons(a: tuple[FloatArray, ...], b: tuple[FloatArray, ...]) -> bool:
    """Return whether two lists of polygons are equal."""
    return a is b or (
        len(a) == len(b)
        and all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    )


def _find_classes(
    before: Mapping[int, ObjectClass], after: Mapping[int, ObjectClass]
) -> ClassesChange | None:
    if before is after or before == after:
        return None
    return ClassesChange(
        {k: c for k, c in before.items() if after.get(k) != c},
        {k: c for k, c in after.items() if before.get(k) != c},
    )


def _exchange(
    table: Prompts, leave: AnyArray, enter: AnyArray, rows: Prompts
) -> Prompts:
    """Return the table without the rows that leave and with those that enter."""
    total = len(table) - len(leave) + len(enter)
    if (len(leave) and leave[-1] >= len(table)) or (len(enter) and enter[-1] >= total):
        raise ValueError("a change of rows does not fit its table")
    stays: BoolArray = np.ones(len(table), bool)
    stays[leave] = False
    old: BoolArray = np.ones(total, bool)
    old[enter] = False

    def column(kept: AnyArray, new: AnyArray) -> AnyArray:
        result = np.empty((total, *kept.shape[1:]), kept.dtype)
        result[old] = kept[stays]
        result[enter] = new
        return result

    return Prompts(
        column(table.object_id, rows.object_id),
        column(table.yx, rows.yx),
        column(table.sign, rows.sign),
        column(table.score, rows.score),
        column(table.state.astype("<U8"), rows.state),
    )


def _find_rows(before: Prompts, after: Prompts) -> RowsChange | None:
    if before is after:
        return None
    old, new = _as_records(before), _as_records(after)
    shorter = min(len(old), len(new))
    differs = np.flatnonzero(old[:shorter] != new[:shorter])
    if len(old) <= len(new) and len(differs) <= _FEW_ROWS:
        gone, come = differs, np.append(differs, np.arange(len(old), len(new)))
    else:
        start = int(differs[0]) if len(differs) else shorter
        gone, come = _align(old[start:], new[start:])
        gone, come = gone + start, come + start
    if len(gone) == 0 and len(come) == 0:
        return None
    return RowsChange(
        gone.astype(np.int64),
        before.select(gone),
        come.astype(np.int64),
        after.select(come),
    )


def _as_records(prompts: Prompts) -> AnyArray:
    """Return one value (N,) for each row, equal where all its bytes are equal."""
    kind = np.dtype(
        [
            ("id", "i8"),
            ("y", "i8"),
            ("x", "i8"),
            ("score", "i4"),
            ("s", "i1"),
            ("t", "u1"),
        ]
    )
    records = np.zeros(len(prompts), kind)
    records["id"] = prompts.object_id
    # as whole numbers, so that -0.0 differs from 0.0
    positions = np.ascontiguousarray(prompts.yx, np.float64).view(np.int64)
    records["y"], records["x"] = positions[:, 0], positions[:, 1]
    records["score"] = np.ascontiguousarray(prompts.score, np.float32).view(np.int32)
    records["s"] = prompts.sign
    records["t"] = state_codes(prompts)
    return records


def _align(old: AnyArray, new: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return the rows of old that went and those of new that came; the rest is equal.

    Rows are found again one behind the other, so rows that changed places go and come.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, row in reversed(list(enumerate(old.tolist()))):
        places.setdefault(row, []).append(place)
    stays = np.zeros(len(old), bool)
    came = np.ones(len(new), bool)
    reached = -1
    for i, row in enumerate(new.tolist()):
        found = places.get(row)
        while found and found[-1] <= reached:
            found.pop()
        if found:
            reached = found.pop()
            stays[reached] = True
            came[i] = False
    return np.flatnonzero(~stays), np.flatnonzero(came)

"""What can be done to prompts, and how they look as a Points layer.

Every edit takes a table of prompts and returns a new one, so that nothing but the
session decides which table counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt
    import pandas as pd

    from napari_sac.core.types import AnyArray, BoolArray, ObjectClass

    Rows = npt.NDArray[np.intp]

# Of Okabe and Ito, which people with any colour vision tell apart.
STATE_COLOURS = {
    PromptState.AUTO: "#F0E442",
    PromptState.ACCEPTED: "#009E73",
    PromptState.ADDED: "#56B4E9",
    PromptState.MOVED: "#E69F00",
    PromptState.REJECTED: "#D55E00",
}
STATE_TITLES = {
    PromptState.AUTO: "found",
    PromptState.ACCEPTED: "accepted",
    PromptState.ADDED: "added",
    PromptState.MOVED: "moved",
    PromptState.REJECTED: "rejected",
}
SIGN_SYMBOLS = {POSITIVE: "disc", NEGATIVE: "hbar"}
SIGN_TEXTS = {POSITIVE: "+", NEGATIVE: "-"}

COLUMNS = ("object_id", "sign", "state", "score")
"""The features of the Points layer, in the order of napari's table."""

SIZE_OF_DIAMETER = 0.3
"""Size of a point, in nucleus diameters: easy to hit, and the nucleus stays visible."""

_SMALLEST_SIZE = 3.0

_MOST_IDS = 2**32
"""Labels are uint32, and 0 is the background."""

_FEW = 50
"""So many places are compared with all points one by one."""


def point_size(diameter: float) -> float:
    """Return the size of the points, in pixels of the image."""
    return max(_SMALLEST_SIZE, SIZE_OF_DIAMETER * diameter)


def features_table(prompts: Prompts) -> pd.DataFrame:
    """Return the table that napari shows beside the points."""
    import pandas as pd

    signs = np.where(prompts.sign == POSITIVE, SIGN_TEXTS[POSITIVE], SIGN_TEXTS[0])
    columns: dict[str, Any] = {
        "object_id": prompts.object_id,
        "sign": signs.astype(object),
        "state": prompts.state.astype(object),
        "score": prompts.score,
    }
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def read_features(features: pd.DataFrame, prompts: Prompts) -> Prompts:
    """Return the prompts with what a person typed into napari's table of features.

    A cell that makes no sense counts as not edited.
    """
    import pandas as pd

    if len(features) != len(prompts) or not set(COLUMNS) <= set(features.columns):
        return prompts
    known = features_table(prompts)
    if all(np.array_equal(features[c].to_numpy(), known[c].to_numpy()) for c in known):
        return prompts
    object_id = pd.to_numeric(features["object_id"], errors="coerce").to_numpy(float)
    score = pd.to_numeric(features["score"], errors="coerce").to_numpy(float)
    sign = features["sign"].astype(str).str.strip().to_numpy()
    state = features["state"].astype(str).str.strip().to_numpy()
    known_id = np.isfinite(object_id) & (object_id >= 1) & (object_id < 2**31)
    known_score = (score >= 0) & (score <= 1)
    known_sign = np.isin(sign, list(SIGN_TEXTS.values()))
    known_state = np.isin(state, [s.value for s in PromptState])
    positive = np.where(sign == SIGN_TEXTS[POSITIVE], POSITIVE, NEGATIVE)
    typed = Prompts.from_points(
        prompts.yx,
        object_id=np.where(known_id, np.nan_to_num(object_id), prompts.object_id),
        sign=np.where(known_sign, positive, prompts.sign),
        score=np.where(known_score, score, prompts.score),
        state=np.where(known_state, state, prompts.state),
    )
    edited = np.any([getattr(typed, c) != getattr(prompts, c) for c in COLUMNS], axis=0)
    if not edited.any():
        return prompts
    untold = np.flatnonzero(edited & (typed.state == PromptState.AUTO.value))
    turned = np.flatnonzero(typed.sign != prompts.sign)
    return attach_negatives(_with(typed, untold, state=PromptState.ADDED), turned)


def count_title(verb: str, count: int, thing: str = "nucleus") -> str:
    """Return what a step is called in the menu: "reject 37 nuclei"."""
    plurals = {"nucleus": "nuclei", "point": "points", "region": "regions"}
    return f"{verb} {count:,} {thing if count == 1 else plurals[thing]}"


def next_id(*tables: Prompts, labels: npt.NDArray[np.uint32] | None = None) -> int:
    """Return the first of many object ids in a row that none of the tables has.

    Nor have the labels, if they are given.
    """
    taken: list[AnyArray] = [t.object_id for t in tables]
    if labels is not None:
        taken.append(labels.ravel())
    highest = max((int(ids.max(initial=0)) for ids in taken), default=0)
    if highest < _MOST_IDS // 2:
        return highest + 1
    # labels of other tools may be as large as there are
    used = np.unique(np.concatenate([np.zeros(1, np.int64), *taken]))
    return int(used[np.argmax(np.diff(used, append=_MOST_IDS))]) + 1


def accept(prompts: Prompts, rows: Rows) -> Prompts:
    """Return the prompts with those rows accepted, also if they were rejected.

    Who added or moved a point has accepted it by that: it stays what it is, for its
    neighbours are decoded differently beside it.
    """
    rows = rows[~prompts.placed[rows]]
    return _with(prompts, rows, state=PromptState.ACCEPTED)


def reject(prompts: Prompts, rows: Rows) -> Prompts:
    """Return the prompts with those rows rejected: they stay, and make no mask."""
    return _with(prompts, rows, state=PromptState.REJECTED)


def negate(prompts: Prompts, rows: Rows, new_id: int) -> Prompts:
    """Return the prompts with the sign of those rows turned over.

    A point that becomes negative belongs to the nearest nucleus from then on; one that
    becomes positive is a nucleus of its own, numbered from ``new_id``.
    """
    sign = np.where(prompts.sign[rows] == POSITIVE, NEGATIVE, POSITIVE)
    object_id = prompts.object_id[rows]
    object_id[sign == POSITIVE] = new_id + np.arange(np.sum(sign == POSITIVE))
    changed = _with(
        prompts, rows, sign=sign, object_id=object_id, state=PromptState.ADDED
    )
    return attach_negatives(changed, rows)


def add(
    prompts: Prompts, yx: npt.NDArray[np.float64], sign: int, new_id: int
) -> Prompts:
    """Return the prompts and, after them, points (N, 2) that a person set."""
    added = Prompts.from_points(
        yx,
        object_id=new_id + np.arange(len(yx)),
        sign=sign,
        state=PromptState.ADDED.value,
    )
    rows = len(prompts) + np.arange(len(yx))
    return attach_negatives(Prompts.concatenate([prompts, added]), rows)


def add_to(
    prompts: Prompts, yx: npt.NDArray[np.float64], sign: int, object_id: int
) -> Prompts:
    """Return the prompts and, after them, points (N, 2) of a nucleus there is."""
    points = Prompts.from_points(
        yx, object_id=object_id, sign=sign, state=PromptState.ADDED.value
    )
    return Prompts.concatenate([prompts, points])


def merge(prompts: Prompts, ids: Collection[int]) -> Prompts:
    """Return the prompts with several nuclei made one, which keeps the lowest id.

    Its points count as accepted: somebody has said what they are.
    """
    rows = np.flatnonzero(np.isin(prompts.object_id, list(ids)))
    return _with(prompts, rows, object_id=min(ids), state=PromptState.ACCEPTED)


def split(prompts: Prompts, ids: Collection[int], new_id: int) -> Prompts:
    """Return the prompts with each positive of those nuclei a nucleus of its own.

    The first positive keeps the id, the others are numbered from ``new_id``; each
    negative goes to the nucleus that is nearest now. A nucleus with one positive stays
    as it is.
    """
    for object_id in sorted(ids):
        own = prompts.object_id == object_id
        positives = np.flatnonzero(own & prompts.usable)
        if len(positives) < 2:
            continue
        fresh = new_id + np.arange(len(positives) - 1)
        new_id += len(fresh)
        prompts = _with(
            prompts, positives[1:], object_id=fresh, state=PromptState.ADDED
        )
        prompts = _with(prompts, positives[:1], state=PromptState.ACCEPTED)
        negatives = np.flatnonzero(own & (prompts.sign == NEGATIVE))
        prompts = attach_negatives(prompts, negatives)
    return prompts


def inherit_classes(
    classes: Mapping[int, ObjectClass], before: Prompts, after: Prompts
) -> Mapping[int, ObjectClass]:
    """Return the classes, also of nuclei that got positive points of another nucleus.

    So both halves of a nucleus that was split have its class, and one that was made of
    several has one of theirs. A class that a nucleus has already is kept.

    Parameters
    ----------
    classes : mapping of int to ObjectClass
    before, after : Prompts
        An edit that may add rows at the end; one that takes rows away gives no nucleus
        the points of another.
    """
    count = len(before)
    if not classes or len(after) < count:
        return classes
    rows = np.flatnonzero(
        (before.object_id != after.object_id[:count])
        & (before.sign == POSITIVE)
        & (after.sign[:count] == POSITIVE)
    )
    found: dict[int, ObjectClass] = {}
    for old, new in zip(
        before.object_id[rows].tolist(), after.object_id[rows].tolist(), strict=True
    ):
        if old in classes:
            found.setdefault(new, classes[old])
    return {**found, **classes} if found else classes


def vouch_for(prompts: Prompts, ids: Collection[int]) -> Prompts:
    """Return the prompts with those nuclei decided on: what was open is accepted."""
    own = np.isin(prompts.object_id, list(ids))
    open_states = [PromptState.AUTO.value, PromptState.REJECTED.value]
    rows = np.flatnonzero(own & np.isin(prompts.state, open_states))
    return _with(prompts, rows, state=PromptState.ACCEPTED) if len(rows) else prompts


def reject_nuclei(prompts: Prompts, ids: Collection[int]) -> Prompts:
    """Return the prompts with all points of those nuclei rejected."""
    rows = np.flatnonzero(np.isin(prompts.object_id, list(ids)))
    return reject(prompts, rows) if len(rows) else prompts


def usable_ids(prompts: Prompts) -> set[int]:
    """Return the nuclei that have a positive point that nobody rejected."""
    return set(prompts.object_id[prompts.usable].tolist())


def undecided_ids(prompts: Prompts) -> set[int]:
    """Return the nuclei of which no point was touched by a person."""
    return set(prompts.object_id.tolist()) - set(
        prompts.object_id[prompts.state != PromptState.AUTO.value].tolist()
    )


def reshaped_ids(before: Prompts, after: Prompts) -> set[int]:
    """Return the nuclei whose points came, went, moved or changed sign."""
    if len(after) >= len(before):
        # of the rows that stay, most are as they were
        count = len(before)
        same = np.zeros(len(after), bool)
        same[:count] = (
            (before.object_id == after.object_id[:count])
            & (before.yx == after.yx[:count]).all(axis=1)
            & (before.sign == after.sign[:count])
        )
        before, after = before.select(~same[:count]), after.select(~same)
    return {row[0] for row in _geometry(before) ^ _geometry(after)}


def nearest_nucleus(
    prompts: Prompts, yx: npt.NDArray[np.float64], reach: float = np.inf
) -> int | None:
    """Return the nucleus with the nearest usable positive within reach (pixels)."""
    rows = np.flatnonzero(prompts.usable)
    if len(rows) == 0:
        return None
    squares = ((prompts.yx[rows] - yx) ** 2).sum(axis=1)
    nearest = int(squares.argmin())
    if squares[nearest] > reach**2:
        return None
    return int(prompts.object_id[rows[nearest]])


def move(prompts: Prompts, rows: Rows, yx: npt.NDArray[np.float64]) -> Prompts:
    """Return the prompts with those rows at other positions (N, 2)."""
    return attach_negatives(_with(prompts, rows, yx=yx, state=PromptState.MOVED), rows)


def delete(prompts: Prompts, rows: Rows) -> Prompts:
    """Return the prompts without those rows."""
    kept = np.ones(len(prompts), bool)
    kept[rows] = False
    return prompts.select(kept)


def attach_negatives(prompts: Prompts, rows: Rows) -> Prompts:
    """Return the prompts with the negatives among those rows given to their nuclei.

    Their nucleus is the one with the nearest positive point that nobody rejected.
    Where there is none they stay as they are.
    """
    usable = prompts.usable
    negatives = rows[prompts.sign[rows] == NEGATIVE]
    if not usable.any() or len(negatives) == 0:
        return prompts
    owners = np.flatnonzero(usable)
    nearest = _find_nearest(prompts.yx[owners], prompts.yx[negatives])
    return _with(prompts, negatives, object_id=prompts.object_id[owners[nearest]])


def count_nuclei(prompts: Prompts) -> int:
    """Return how many nuclei have a positive point that nobody rejected."""
    return len(np.unique(prompts.object_id[prompts.usable]))


def touched_rows(prompts: Prompts, kept: Collection[int] = ()) -> BoolArray:
    """Return which rows belong to a nucleus that a person has touched, or to ``kept``.

    Those to keep are nuclei whose pixels are given, by hand or by import.
    """
    decided = prompts.state != PromptState.AUTO.value
    touched = np.isin(prompts.object_id, prompts.object_id[decided])
    return np.asarray(touched | np.isin(prompts.object_id, list(kept)))


def split_by_score(
    shown: Prompts, hidden: Prompts, threshold: float, *, kept: Collection[int] = ()
) -> tuple[Prompts, Prompts]:
    """Return which prompts are shown at a score threshold, and which are hidden.

    What a person touched is always shown, and comes last, so that it lies on top; so
    are the nuclei in ``kept``.
    """
    touched = touched_rows(shown, kept)
    found = Prompts.concatenate([shown.select(~touched), hidden])
    high = found.score >= threshold
    visible = Prompts.concatenate([found.select(high), shown.select(touched)])
    return visible, found.select(~high)


def add_proposals(
    shown: Prompts,
    proposals: Prompts,
    diameter: float,
    *,
    first_id: int = 1,
    kept: Collection[int] = (),
) -> Prompts:
    """Return what a person touched, and new proposals where there is nothing of it.

    Proposals nearer than half a nucleus to a touched point are the same nucleus again.
    Their ids are counted on from the ones in use, at least from ``first_id``. The
    nuclei in ``kept`` count as touched.
    """
    touched = shown.select(touched_rows(shown, kept))
    offset = max(next_id(touched), first_id) - 1
    fresh = Prompts(
        proposals.object_id + offset,
        proposals.yx,
        proposals.sign,
        proposals.score,
        proposals.state,
    )
    if len(touched) == 0 or len(fresh) == 0:
        return Prompts.concatenate([fresh, touched])
    # imported late: it takes half a second, which opening a dock need not
    from scipy.spatial import KDTree

    distance, _ = KDTree(touched.yx).query(fresh.yx)
    repeated = fresh.object_id[(distance < diameter / 2) & (fresh.sign == POSITIVE)]
    kept = ~np.isin(fresh.object_id, repeated)
    return Prompts.concatenate([fresh.select(kept), touched])


def _find_nearest(
    points: npt.NDArray[np.float64], places: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Return which of some points is nearest to each place."""
    if len(places) <= _FEW:
        nearest = [np.argmin(((points - yx) ** 2).sum(axis=1)) for yx in places]
        return np.array(nearest, np.intp)
    # imported late: it takes half a second, which a click need not wait for
    from scipy.spatial import KDTree

    _, found = KDTree(points).query(places)
    return np.asarray(found, np.intp)


def _geometry(prompts: Prompts) -> set[tuple[int, float, float, int]]:
    columns = (prompts.object_id, *prompts.yx.T, prompts.sign)
    return set(zip(*(c.tolist() for c in columns), strict=True))


def _with(prompts: Prompts, rows: Rows, **columns: Any) -> Prompts:
    """Return the prompts with values of some columns replaced in those rows."""
    tables = {name: getattr(prompts, name) for name in (*COLUMNS, "yx")}
    for name, values in columns.items():
        changed = tables[name].copy()
        changed[rows] = values
        tables[name] = changed
    return Prompts(**tables)

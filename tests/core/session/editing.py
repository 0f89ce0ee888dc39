"""Edits as a person makes them, drawn at random; shared by the tests of sessions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_sac.core.config import DecodeConfig
from napari_sac.core.session.changes import Change, find_change
from napari_sac.core.session.image import ImageReference
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import ObjectClass, Prompts, PromptState

STATES = [s.value for s in PromptState]


def start(rng: np.random.Generator, shape=(24, 31), count=12) -> AnnotationState:
    """Return a state with some prompts and labels."""
    yx = rng.uniform(0, min(shape), (count, 2))
    return AnnotationState(
        prompts=Prompts.from_points(yx, score=rng.random(count)),
        hidden=Prompts.from_points(yx[:3] + 1, object_id=[101, 102, 103], score=0.1),
        labels=rng.integers(0, 4, shape).astype(np.uint32),
    )


def reference(state: AnnotationState, **values) -> ImageReference:
    """Return a reference to an image of which nothing is known."""
    known = {"path": None, "name": "cells", "sha256": "0" * 64}
    return ImageReference(**{**known, **values}, shape=state.labels.shape)


def snapshot(state: AnnotationState) -> tuple:
    """Return all bytes of a state."""
    tables = [
        column.tobytes()
        for table in (state.prompts, state.hidden)
        for column in (
            table.object_id,
            table.yx,
            table.sign,
            table.score,
            table.state.astype("<U8"),
        )
    ]
    polygons = [np.asarray(p, float).tobytes() for p in state.reviewed]
    return (
        state.labels.tobytes(),
        *tables,
        *polygons,
        state.painted,
        state.settings,
        dict(state.classes),
    )


def edit(
    rng: np.random.Generator, state: AnnotationState, kinds: tuple | None = None
) -> Change:
    """Return a random edit of a state, not applied."""
    kinds = kinds or KINDS
    kind = kinds[rng.integers(len(kinds))]
    after, pixels = kind(rng, state)
    return find_change(kind.__name__, state, after, pixels or PixelChange.none())


def add_point(rng, state):
    yx = rng.uniform(0, 20, (1, 2))
    ids = [int(state.prompts.object_id.max(initial=0)) + 1]
    new = Prompts.from_points(yx, object_id=ids, state="added")
    return with_prompts(state, Prompts.concatenate([state.prompts, new])), None


def move_point(rng, state):
    table = state.prompts
    if not len(table):
        return state, None
    yx = table.yx.copy()
    yx[rng.integers(len(yx))] *= -0.0
    return with_prompts(state, replace(table, yx=yx)), None


def delete_points(rng, state):
    keep = rng.random(len(state.prompts)) > 0.2
    return with_prompts(state, state.prompts.select(keep)), None


def decide_in_bulk(rng, state):
    table = state.prompts
    states = table.state.copy()
    states[rng.random(len(table)) < 0.5] = STATES[rng.integers(len(STATES))]
    return with_prompts(state, replace(table, state=states)), None


def change_sign(rng, state):
    table = state.prompts
    sign = np.where(rng.random(len(table)) < 0.1, 1 - table.sign, table.sign)
    return with_prompts(state, replace(table, sign=sign.astype(np.int8))), None


def change_threshold(rng, state):
    threshold = float(rng.random())
    table = Prompts.concatenate([state.prompts, state.hidden])
    show = table.score >= threshold
    settings = replace(state.settings, threshold=threshold)
    return (
        replace(
            state,
            prompts=table.select(show),
            hidden=table.select(~show),
            settings=settings,
        ),
        None,
    )


def shuffle(rng, state):
    order = rng.permutation(len(state.prompts))
    return with_prompts(state, state.prompts.select(order)), None


def merge(rng, state):
    table = state.prompts
    if len(table) < 2:
        return state, None
    ids = np.where(table.object_id == table.object_id[0], 77, table.object_id)
    keep = np.arange(len(table)) != len(table) - 1
    return with_prompts(state, replace(table, object_id=ids).select(keep)), None


def segment(rng, state):
    before = state.labels.copy()
    labels = np.where(rng.random(before.shape) < 0.3, rng.integers(9), before)
    pixels = PixelChange.between(before, labels.astype(np.uint32))
    return state, pixels


def redraw_window(rng, state):
    y, x = rng.integers(0, np.array(state.labels.shape) - 6)
    before = state.labels[y : y + 6, x : x + 6]
    after = rng.integers(0, 3, before.shape).astype(np.uint32)
    pixels = PixelChange.between(
        before, after, (int(y), int(x)), shape=state.labels.shape
    )
    return state, pixels


def paint(rng, state):
    height, width = state.labels.shape
    rows, columns = rng.integers(0, height, 40), rng.integers(0, width, 40)
    number = int(rng.integers(1, 2**32))
    before = state.labels[rows, columns].copy()
    seen = set()
    for i, place in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        if place in seen:
            before[i] = number
        seen.add(place)
    pixels = PixelChange.of_pixels(state.labels.shape, (rows, columns), before, number)
    return replace(state, painted=state.painted | {number}), pixels


def release_painted(rng, state):
    gone = {i for i in state.painted if rng.random() < 0.5}
    return replace(state, painted=state.painted - gone), None


def draw_region(rng, state):
    polygon = rng.uniform(0, 20, (int(rng.integers(3, 7)), 2))
    return replace(state, reviewed=(*state.reviewed, polygon)), None


def remove_region(rng, state):
    return replace(state, reviewed=state.reviewed[1:]), None


def change_settings(rng, state):
    settings = Settings(
        model=str(rng.choice(["sac_tiny", "vit_b"])),
        adapter=rng.choice([None, "he"]),
        diameter=float(rng.uniform(5, 50)),
        decode=DecodeConfig(neighbour_negatives=int(rng.integers(4))),
        model_key="key",
    )
    return replace(state, settings=settings), None


def classify(rng, state):
    classes = dict(state.classes)
    for object_id in set(state.prompts.object_id.tolist()):
        if rng.random() < 0.3:
            colour = tuple(rng.integers(256, size=3).tolist())
            kinds = [ObjectClass("Tumor", colour), ObjectClass("Stroma: é")]
            classes[object_id] = kinds[rng.integers(2)]
        elif rng.random() < 0.3:
            classes.pop(object_id, None)
    return replace(state, classes=classes), None


def with_prompts(state: AnnotationState, prompts: Prompts) -> AnnotationState:
    return replace(state, prompts=prompts)


LOCAL_KINDS = (
    add_point,
    move_point,
    delete_points,
    decide_in_bulk,
    redraw_window,
    redraw_window,
    paint,
    draw_region,
    change_settings,
)
"""Those that take no longer on a large image."""

KINDS = (
    add_point,
    move_point,
    delete_points,
    decide_in_bulk,
    change_sign,
    change_threshold,
    shuffle,
    merge,
    segment,
    redraw_window,
    paint,
    release_painted,
    draw_region,
    remove_region,
    change_settings,
    classify,
)

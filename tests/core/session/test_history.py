"""Undo and redo are exact, whatever was done, in whatever order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core.session.editing import edit, snapshot, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sac.core.session.changes import Change, backward, find_change, forward
from napari_sac.core.session.encoding import from_bytes, to_bytes
from napari_sac.core.session.history import History
from napari_sac.core.session.pixels import PixelChange

ACTIONS = 50


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, 2**32 - 1),
    walk=st.lists(
        st.sampled_from(["edit"] * 6 + ["undo", "undo", "redo", "amend"]),
        min_size=ACTIONS,
        max_size=ACTIONS,
    ),
)
def test_fifty_mixed_actions_undo_and_redo_to_the_byte(
    seed: int, walk: list[str]
) -> None:
    rng = np.random.default_rng(seed)
    states = {1: start(rng), 2: start(rng)}
    first = {n: snapshot(s) for n, s in states.items()}
    history = History()
    for action in walk:
        take(action, rng, states, history)
    last = {n: snapshot(s) for n, s in states.items()}
    done = len(history.done)
    while (step := history.undo()) is not None:
        states[step.annotation] = backward(states[step.annotation], step.change)
    assert {n: snapshot(s) for n, s in states.items()} == first
    for _ in range(done):
        step = history.redo()
        assert step is not None
        states[step.annotation] = forward(states[step.annotation], step.change)
    assert {n: snapshot(s) for n, s in states.items()} == last


def take(action, rng, states, history) -> None:
    """Do one action of a walk."""
    if action == "edit":
        number = int(rng.integers(1, 3))
        change = edit(rng, states[number])
        if rng.random() < 0.2:
            change = from_bytes(to_bytes(change))
        states[number] = forward(states[number], change)
        history.push(number, change)
    elif action == "amend":
        amend(rng, states, history)
    else:
        step = getattr(history, action)()
        if step is not None:
            move = backward if action == "undo" else forward
            states[step.annotation] = move(states[step.annotation], step.change)


def amend(rng, states, history) -> None:
    """Let a mask arrive for one of the last steps, as it does from a worker."""
    if not history.done:
        return
    step = history.done[-min(len(history.done), int(rng.integers(1, 4)))]
    labels = states[step.annotation].labels
    y, x = rng.integers(0, 20, 2)
    window = labels[y : y + 4, x : x + 4].copy()
    after = np.full_like(window, step.number)
    pixels = PixelChange.between(window, after, (int(y), int(x)), labels.shape)
    if history.can_amend(step.number, pixels):
        pixels.write(labels)
        history.amend(step.number, pixels)


def test_steps_have_names_and_a_new_one_drops_what_was_undone() -> None:
    history = History()
    assert history.undo() is None
    assert history.redo() is None
    first = history.push(1, Change("accept 3 nuclei"))
    second = history.push(2, Change("add a nucleus"))
    assert (history.undo_title, history.redo_title) == ("add a nucleus", None)
    step = history.undo()
    assert step is not None
    assert (step.number, step.annotation) == (second, 2)
    assert (history.undo_title, history.redo_title) == (
        "accept 3 nuclei",
        "add a nucleus",
    )
    third = history.push(1, Change("paint"))
    assert history.redo() is None
    assert first < second < third


def test_the_oldest_steps_go_when_there_are_too_many() -> None:
    history = History(limit=1000)
    for i in range(1003):
        history.push(1, Change(str(i)))
    titles = []
    while (step := history.undo()) is not None:
        titles.append(step.change.title)
    assert len(titles) == 1000
    assert titles[-1] == "3"


def pixels_at(*flat: int, after: int = 5) -> PixelChange:
    indices = np.zeros(len(flat), int), np.array(flat)
    return PixelChange.of_pixels((1, 100), indices, 0, after)


def test_a_late_mask_joins_its_step_unless_a_later_step_wrote_there() -> None:
    history = History()
    first = history.push(1, Change("click"))
    painted = history.push(1, Change("paint", pixels=pixels_at(7, 8)))
    history.push(2, Change("paint another image", pixels=pixels_at(3)))
    assert not history.can_amend(first, pixels_at(8, 9))
    with pytest.raises(ValueError, match="cannot get"):
        history.amend(first, pixels_at(8, 9))
    history.amend(first, pixels_at(3, 9))
    found = history.find(first)
    assert found is not None
    assert found.change.pixels is not None
    assert len(found.change.pixels.flat()) == 2
    # what was undone may be done again, and must find what it wrote over
    history.undo()
    history.undo()
    assert history.can_amend(first, pixels_at(50))
    assert not history.can_amend(first, pixels_at(8))
    assert not history.can_amend(painted, pixels_at(50))
    assert not history.can_amend(99, pixels_at(50))


def test_bulk_changes_are_small() -> None:
    rng = np.random.default_rng(0)
    state = start(rng, count=10_000, shape=(512, 512))
    states = state.prompts.state.copy()
    states[::300] = "rejected"
    after = replace(state, prompts=replace(state.prompts, state=states))
    change = find_change("reject 34 nuclei", state, after, PixelChange.none())
    assert change.prompts is not None
    assert len(change.prompts.removed) == 34
    assert len(to_bytes(change)) < 4000
    # a row less at the front moves all others
    after = replace(state, prompts=state.prompts.select(np.arange(1, 10_000)))
    change = find_change("delete a nucleus", state, after, PixelChange.none())
    assert change.prompts is not None
    assert (len(change.prompts.removed), len(change.prompts.inserted)) == (1, 0)
    assert find_change("nothing", state, state, PixelChange.none()).is_empty

"""Edits a session until it is killed; run by test_killed.py as a process of its own.

``python scripted_editing.py FOLDER SEED`` prints a line for each action that the
journal has acknowledged.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from typing import TYPE_CHECKING

from core.session import editing

from napari_sac.core.session.changes import backward, forward
from napari_sac.core.session.journal import Journal, Restored
from napari_sac.core.session.pixels import PixelChange

if TYPE_CHECKING:
    from napari_sac.core.session.history import History

SHAPE = (530, 1050)


def first_states() -> dict:
    """Return what the session begins with: two planes of six chunks."""
    rng = np.random.default_rng(0)
    states = {}
    for number in (1, 2):
        state = editing.start(rng, shape=(24, 31), count=40)
        labels = np.zeros(SHAPE, np.uint32)
        labels[:24, :31] = state.labels
        states[number] = editing.replace(state, labels=labels)
    return states


def act(
    rng: np.random.Generator,
    states: dict,
    history: History,
    journal: Journal | None = None,
) -> bool:
    """Do one action at random; return whether it makes a line in the journal."""
    # rarely flushed, so that there is something to apply again
    actions = ["edit"] * 6 + ["undo", "redo", "amend"] * 2 + ["flush"]
    action = rng.choice(actions)
    limit, number = int(rng.integers(1, 8)), int(rng.integers(1, 3))
    if action == "flush":
        if journal is not None:
            labels = {n: s.labels for n, s in states.items()}
            journal.flush(labels, chunks=limit)
        return False
    if action == "edit":
        change = editing.edit(rng, states[number], editing.LOCAL_KINDS)
        states[number] = forward(states[number], change)
        history.push(number, change)
        if journal is not None:
            journal.push(history.done[-1])
        return True
    if action == "amend":
        return amend(rng, states, history, journal)
    step = history.undo() if action == "undo" else history.redo()
    if step is None:
        return False
    move = backward if action == "undo" else forward
    states[step.annotation] = move(states[step.annotation], step.change)
    if journal is not None:
        (journal.undo if action == "undo" else journal.redo)(step.number)
    return True


def amend(rng, states, history, journal) -> bool:
    """Let a mask of 20 x 20 pixels arrive for the last step."""
    if not history.done:
        return False
    step = history.done[-1]
    labels = states[step.annotation].labels
    y, x = (int(v) for v in rng.integers(0, np.array(SHAPE) - 20))
    window = labels[y : y + 20, x : x + 20].copy()
    after = np.full_like(window, step.number)
    pixels = PixelChange.between(window, after, (y, x), SHAPE)
    if not history.can_amend(step.number, pixels):
        return False
    pixels.write(labels)
    history.amend(step.number, pixels)
    if journal is not None:
        journal.amend(step.number, step.annotation, pixels)
    return True


def open_or_create(folder: Path) -> tuple[Journal, Restored]:
    """Return a session with two annotations, whatever an earlier process left."""
    journal = Journal.open(folder) if folder.exists() else Journal.create(folder)
    restored = journal.restore()
    for number, state in first_states().items():
        if number not in restored.states:
            journal.add_annotation(editing.reference(state), state)
    return journal, journal.restore()


def main() -> None:
    """Edit for ever."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    journal, restored = open_or_create(folder)
    rng = np.random.default_rng(seed)
    while True:
        if act(rng, restored.states, restored.history, journal):
            sys.stdout.write("acknowledged\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

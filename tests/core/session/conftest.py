"""A session with some edits, and where sessions live while the tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from core.session import editing

from napari_sac.core.session.changes import forward
from napari_sac.core.session.history import History
from napari_sac.core.session.image import hash_pixels
from napari_sac.core.session.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


class Edited:
    """A journal that is open, and what it should hold."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.history = History()
        self.state = editing.start(self.rng)
        self.journal = Journal.create(folder)
        self.pixels = self.rng.integers(0, 255, (24, 31, 3)).astype(np.uint8)
        digest = hash_pixels(self.pixels)
        image = editing.reference(self.state, sha256=digest)
        self.number = self.journal.add_annotation(image, self.state, self.pixels)
        # what the journal has is its own from now on
        self.state = editing.replace(self.state, labels=self.state.labels.copy())

    def edit(self, count: int = 1) -> None:
        for _ in range(count):
            change = editing.edit(self.rng, self.state)
            self.state = forward(self.state, change)
            self.history.push(self.number, change)
            self.journal.push(self.history.done[-1])

    def flush(self) -> None:
        self.journal.flush({self.number: self.state.labels})


@pytest.fixture
def edited(tmp_path: Path):
    """A session of one image and 20 edits, half of them flushed; open."""
    session = Edited(tmp_path / "cells.sac")
    session.edit(10)
    session.flush()
    session.edit(10)
    yield session
    session.journal.close(clean=False)

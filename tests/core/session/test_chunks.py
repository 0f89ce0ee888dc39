"""Which pieces of the labels a change touches."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sac.core.session.chunks import SIDE, touched_chunks
from napari_sac.core.session.pixels import PixelChange

SHAPE = (2 * SIDE + 40, 3 * SIDE + 7)


def test_nothing_touches_nothing() -> None:
    assert touched_chunks(None, SHAPE) == set()
    assert touched_chunks(PixelChange.none(), SHAPE) == set()


@pytest.mark.parametrize("seed", range(4))
def test_every_changed_pixel_lies_in_a_touched_chunk_and_no_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = np.zeros(SHAPE, np.uint32)
    after = before.copy()
    for number in range(1, 6):
        y, x = (int(rng.integers(n - 30)) for n in SHAPE)
        after[y : y + 20, x : x + int(rng.integers(1, 400))] = number
    expected = {(i // SIDE, j // SIDE) for i, j in np.argwhere(after != before)}

    assert touched_chunks(PixelChange.between(before, after), SHAPE) == expected


def test_a_run_that_goes_on_in_the_next_row_touches_both_ends() -> None:
    before = np.zeros(SHAPE, np.uint32)
    after = before.copy()
    after[SIDE - 1, SHAPE[1] - 3 :] = 1
    after[SIDE, :3] = 1
    change = PixelChange.between(before, after)

    assert len(change) == 1
    assert {(0, 3), (1, 0)} <= touched_chunks(change, SHAPE)

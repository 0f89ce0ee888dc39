"""Tiles cover an image once, and every owner sees a halo around what it owns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sac.core.inference.tiles import tile_axis


@given(
    length=st.integers(1, 3000), size=st.integers(8, 400), halo_part=st.floats(0, 0.45)
)
def test_every_position_lies_a_halo_inside_its_owner(
    length: int, size: int, halo_part: float
) -> None:
    halo = int(size * halo_part)
    axis = tile_axis(length, size, halo)
    positions = np.arange(length, dtype=float)
    first = np.array(axis.origins)[axis.owner(positions)]
    last = first + size - 1
    assert (positions >= first).all()
    assert (positions <= np.maximum(last, 0)).all()
    at_start = positions < halo
    at_end = positions >= length - halo
    assert (at_start | (positions - first >= halo)).all()
    assert (at_end | (last - positions >= halo)).all()
    assert axis.origins[-1] + size >= length


def test_a_small_image_is_one_tile() -> None:
    assert tile_axis(7, 10, 2).origins == (0,)


def test_a_halo_that_leaves_no_core_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        tile_axis(100, 10, 5)

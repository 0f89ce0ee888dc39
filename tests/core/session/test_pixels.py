"""Runs of changed pixels, against plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sac.core.session.pixels import PixelChange

SHAPE = (7, 9)
LABELS = arrays(np.uint32, SHAPE, elements=st.integers(0, 2))


@settings(max_examples=200, deadline=None)
@given(first=LABELS, second=LABELS, third=LABELS)
def test_changes_write_compose_and_know_their_box(first, second, third) -> None:
    one, two = PixelChange.between(first, second), PixelChange.between(second, third)
    labels = first.copy()
    one.write(labels)
    assert (labels == second).all()
    one.write(labels, back=True)
    assert (labels == first).all()
    together = one.then(two)
    together.write(labels)
    assert (labels == third).all()
    together.write(labels, back=True)
    assert (labels == first).all()
    changed = first != second
    assert len(one.flat()) == changed.sum()
    assert one.meets(two) == bool((changed & (second != third)).any())
    y0, x0, y1, x1 = one.box(SHAPE)
    box = np.zeros(SHAPE, bool)
    box[y0:y1, x0:x1] = True
    assert not (changed & ~box).any()


def test_a_window_of_the_labels_is_enough() -> None:
    labels = np.zeros((20, 30), np.uint32)
    before, after = np.zeros((3, 4), int), np.full((3, 4), 6)
    change = PixelChange.between(before, after, (5, 10), shape=labels.shape)
    change.write(labels)
    assert labels[5:8, 10:14].all()
    assert labels.sum() == 72
    assert change.box(labels.shape) == (5, 10, 8, 14)
    assert len(change) == 3
    with pytest.raises(ValueError, match="leaves"):
        PixelChange.between(before, after, (18, 0), shape=labels.shape)


def test_a_stroke_over_itself_keeps_the_first_and_the_last() -> None:
    labels = np.full((2, 5), 1, np.uint32)
    rows, columns = np.array([1, 1, 1]), np.array([3, 2, 3])
    change = PixelChange.of_pixels((2, 5), (rows, columns), [1, 1, 8], [8, 8, 9])
    change.write(labels)
    assert labels[1].tolist() == [1, 1, 8, 9, 1]
    change.write(labels, back=True)
    assert (labels == 1).all()


def test_changes_that_do_not_fit_are_refused() -> None:
    change = PixelChange.of_pixels((4, 4), (np.array([3]), np.array([3])), 0, 1)
    with pytest.raises(ValueError, match="outside"):
        change.write(np.zeros((3, 3), np.uint32))
    with pytest.raises(ValueError, match="contiguous"):
        change.write(np.zeros((8, 8), np.uint32)[::2, ::2])
    with pytest.raises(ValueError, match="outside"):
        PixelChange.of_pixels((4, 4), (np.array([4]), np.array([0])), 0, 1)
    two = np.array([5, 3])
    with pytest.raises(ValueError, match="order"):
        PixelChange(two, np.ones(2, np.int32), two, two)


def test_large_changes_are_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 3, (50, 60)).astype(np.uint32)
    after = rng.integers(0, 3, (50, 60)).astype(np.uint32)
    whole = PixelChange.between(before, after)
    monkeypatch.setattr("napari_sac.core.session.pixels._BLOCK_PIXELS", 100)
    change = PixelChange.between(before, after)
    np.testing.assert_array_equal(change.flat(), whole.flat())
    labels = before.copy()
    change.write(labels)
    assert (labels == after).all()

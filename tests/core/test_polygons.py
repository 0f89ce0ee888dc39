"""The pixels of polygons, against scikit-image's slower way."""

from __future__ import annotations

import time

import numpy as np
import pytest
from skimage.draw import polygon

from napari_sac.core.polygons import mask_inside, mask_of, mostly_inside


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("corners", [3, 4, 9, 60])
def test_a_polygon_has_the_pixels_that_scikit_image_gives_it(
    seed: int, corners: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (40, 50)
    # also crossing itself, and reaching out of the image
    ring = rng.uniform(-15, 65, (corners, 2))
    expected = np.zeros(shape, bool)
    expected[polygon(ring[:, 0], ring[:, 1], shape)] = True
    np.testing.assert_array_equal(mask_of([ring], shape), expected)
    closed = np.concatenate([ring, ring[:1]])
    np.testing.assert_array_equal(mask_of([closed], shape), expected)


def test_the_mask_is_no_larger_than_the_polygon() -> None:
    ring = np.array([[10, 12], [10, 20], [30, 20], [30, 12]], float)
    corner, mask = mask_inside(ring, (400, 500))
    assert corner == (10, 12)
    assert mask.shape == (20, 8)
    assert mask.all()


@pytest.mark.parametrize(
    "ring", [np.empty((0, 2)), [[1, 1], [5, 5]], [[60, 60], [70, 60], [70, 80]]]
)
def test_what_is_none_or_outside_has_none(ring: object) -> None:
    _, mask = mask_inside(np.asarray(ring, float), (40, 50))
    assert not mask.any()
    assert not mask_of([np.asarray(ring, float)], (40, 50)).any()


def test_the_outline_of_a_tissue_takes_no_minutes() -> None:
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    radius = 1800 + 40 * np.sin(97 * angle)
    ring = 2000 + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    started = time.monotonic()
    _, mask = mask_inside(ring, (4000, 4000))
    # scikit-image's takes more than a minute
    assert time.monotonic() - started < 10
    assert mask.sum() == pytest.approx(np.pi * (1800**2 + 40**2 / 2), rel=1e-3)


@pytest.mark.parametrize("largest", [11, 2**31])
def test_labels_lie_mostly_inside_by_more_than_half_of_their_pixels(
    largest: int,
) -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 2, 3, 7, largest], (20, 30)).astype(np.uint32)
    labels[0, :4] = 9
    mask = rng.random((20, 30)) < 0.5
    mask[0, :4] = True, True, False, False
    areas = {k: (labels == k) for k in np.unique(labels[labels > 0]).tolist()}
    expected = [k for k, own in areas.items() if 2 * mask[own].sum() > own.sum()]
    assert 0 < len(expected) < len(areas)
    assert 9 not in expected
    assert mostly_inside(labels, mask).tolist() == expected
    assert mostly_inside(labels, np.ones((20, 30), bool)).tolist() == list(areas)
    assert mostly_inside(labels, np.zeros((20, 30), bool)).tolist() == []


def test_no_pixels_have_no_labels() -> None:
    empty = np.zeros((0, 5), np.uint32)
    assert mostly_inside(empty, empty > 0).tolist() == []


def test_a_line_that_fills_the_memory_is_no_outline() -> None:
    ring = np.zeros((30_000, 2))
    ring[::2, 0] = 1000
    ring[:, 1] = np.arange(len(ring))
    with pytest.raises(ValueError, match="30,000,000 times"):
        mask_inside(ring, (1000, 1000))


def test_the_most_that_an_outline_of_pixels_can_cross_is_no_problem() -> None:
    # a comb: every second column, held together by the first row
    shape = (1100, 1101)
    mask = np.zeros(shape, bool)
    mask[:, ::2] = mask[0] = True
    teeth = [
        corner
        for x in range(0, shape[1], 2)
        for corner in (
            (0.5, x - 0.5),
            (shape[0], x - 0.5),
            (shape[0], x + 0.5),
            (0.5, x + 0.5),
        )
    ]
    ring = np.array([(-0.5, -0.5), *teeth, (-0.5, shape[1] - 0.5)])
    np.testing.assert_array_equal(mask_of([ring], shape), mask)

"""Labels numbered without gaps, and where each is innermost."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from napari_sac.core.labels import consecutive_labels, innermost_pixels
from napari_sac.core.training.reviewed_image import middles_of


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, ">u2", "<u2"]
)
def test_gaps_close_in_order(dtype: npt.DTypeLike) -> None:
    largest = np.iinfo(dtype).max
    # not contiguous, and the largest comes first
    labels = np.array([[largest, 0, 7], [7, 3, 0]], dtype)[:, ::-1]
    dense, ids = consecutive_labels(labels)
    assert dense.tolist() == [[2, 0, 3], [0, 1, 2]]
    assert dense.dtype == np.int32
    assert ids.tolist() == [3, 7, largest]


@pytest.mark.parametrize(
    ("labels", "dense", "ids"),
    [
        (np.zeros((2, 3), np.int32), np.zeros((2, 3)), []),
        (np.full((2, 3), 9), np.ones((2, 3)), [9]),
        (np.zeros((0, 3), np.int32), np.zeros((0, 3)), []),
    ],
)
def test_nothing_and_everything(
    labels: np.ndarray, dense: np.ndarray, ids: list[int]
) -> None:
    found, numbers = consecutive_labels(labels)
    np.testing.assert_array_equal(found, dense)
    assert numbers.tolist() == ids


@pytest.mark.parametrize("edge_is_border", [True, False])
def test_the_innermost_pixel_is_farthest_from_the_border(edge_is_border: bool) -> None:
    labels = np.zeros((30, 40), np.uint32)
    labels[2:11, 2:11] = 1
    labels[5:8, 5:11] = 0  # a C, whose middle is outside it
    labels[20, 20] = labels[0, 39] = 2  # two parts of one pixel
    labels[:4, 17:28] = 4  # cut by the edge
    labels[13:30, 30:40] = 5  # cut at two sides, and as wide as what is seen of it
    pixels = innermost_pixels(labels, edge_is_border=edge_is_border)
    assert labels[tuple(pixels.T)].tolist() == [1, 2, 4, 5]
    assert pixels.dtype == np.int64
    assert pixels[2].tolist() == ([1, 18] if edge_is_border else [0, 20])
    assert pixels[3].tolist() == ([17, 34] if edge_is_border else [22, 39])


@pytest.mark.parametrize("edge_is_border", [True, False])
def test_the_innermost_of_nothing_and_of_everything(edge_is_border: bool) -> None:
    nothing = np.zeros((5, 7), np.int32)
    assert innermost_pixels(nothing, edge_is_border=edge_is_border).shape == (0, 2)
    (pixel,) = innermost_pixels(nothing + 1, edge_is_border=edge_is_border)
    assert pixel.tolist() == ([2, 2] if edge_is_border else [0, 0])


def test_the_innermost_pixels_of_a_large_image_are_found_in_their_boxes() -> None:
    labels = np.zeros((3000, 3000), np.int32)
    labels[100:120, 100:120], labels[2500:2520, 2500:2510] = 1, 2
    started = perf_counter()
    ndimage.find_objects(labels)
    looking = perf_counter() - started
    started = perf_counter()
    pixels = middles_of(labels)
    # to sort all pixels takes 300 times as long
    assert perf_counter() - started < 10 * looking
    assert labels[tuple(pixels.T)].tolist() == [1, 2]

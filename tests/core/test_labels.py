"""Labels numbered without gaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from napari_sac.core.labels import consecutive_labels


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

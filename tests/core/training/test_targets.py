"""Targets of the networks."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sac.core.training.targets import distance_to_border, typical_diameter


def test_distance_is_one_in_the_middle_of_every_nucleus() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[2:9, 2:9] = 1
    labels[9:28, 9:28] = 5
    distance = distance_to_border(labels)
    assert distance[5, 5] == 1
    assert distance[18, 18] == 1
    assert (distance[labels == 0] == 0).all()
    assert (distance[labels > 0] > 0).all()


def test_touching_nuclei_have_a_border_between_them() -> None:
    labels = np.zeros((11, 22), np.int32)
    labels[:, :11], labels[:, 11:] = 1, 2
    row = distance_to_border(labels)[5]
    assert row[10] < 0.4 < row[5]
    assert row[11] < 0.4 < row[16]


def test_a_nucleus_that_the_image_cuts_is_deepest_where_it_is_cut() -> None:
    labels = np.zeros((9, 20), np.int32)
    labels[:3, 4:15] = 1
    distance = distance_to_border(labels)
    assert distance[0, 9] == 1
    assert distance[2, 9] < 0.4
    assert distance[0, 4] < 0.4


def test_a_nucleus_that_fills_the_image_is_deep_everywhere() -> None:
    assert (distance_to_border(np.ones((9, 9), np.int32)) == 1).all()


def test_typical_diameter() -> None:
    labels = np.zeros((50, 50), np.int32)
    labels[:10, :10] = 1
    labels[20:40, 20:40] = 7
    labels[45:49, 45:49] = 9
    assert typical_diameter(labels) == pytest.approx(2 * np.sqrt(100 / np.pi))
    large = labels.astype(np.uint32) << 24
    assert typical_diameter(large) == typical_diameter(labels)
    assert typical_diameter(np.zeros((5, 5), np.int32)) is None

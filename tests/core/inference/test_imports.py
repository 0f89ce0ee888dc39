"""What others made becomes prompts, each where it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sac.core.errors import Cancelled
from napari_sac.core.inference.imports import (
    prompts_from_box,
    prompts_from_labels,
    prompts_from_points,
)
from napari_sac.core.types import POSITIVE

if TYPE_CHECKING:
    from synthetic import Nuclei


def test_one_positive_inside_each_label(nuclei: Nuclei) -> None:
    prompts = prompts_from_labels(nuclei.labels)
    assert prompts.object_id.tolist() == list(range(1, 13))
    rows, columns = prompts.yx.astype(int).T
    np.testing.assert_array_equal(nuclei.labels[rows, columns], prompts.object_id)
    middles = [np.argwhere(nuclei.labels == k).mean(0) for k in range(1, 13)]
    assert np.abs(prompts.yx - middles).max() < 3


def test_odd_shapes_and_numbers() -> None:
    labels = np.zeros((30, 40), np.uint32)
    labels[2:12, 2:12] = 4_000_000_000
    labels[4:10, 4:12] = 0  # a C, whose middle is outside it
    labels[20, 20] = labels[0, 39] = 7  # two parts of one pixel
    labels[14:30, 30:40] = 9  # at the border, beside a neighbour
    labels[14:30, 25:30] = 12
    prompts = prompts_from_labels(labels)
    assert prompts.object_id.tolist() == [7, 9, 12, 4_000_000_000]
    rows, columns = prompts.yx.astype(int).T
    np.testing.assert_array_equal(labels[rows, columns], prompts.object_id)
    assert prompts.yx[1] == pytest.approx((22, 34), abs=4)


@pytest.mark.parametrize("value", [0, 3])
def test_nothing_and_everything(value: int) -> None:
    prompts = prompts_from_labels(np.full((5, 5), value))
    assert prompts.object_id.tolist() == [value] * bool(value)


def test_points_are_added_nuclei() -> None:
    prompts = prompts_from_points([[1, 2], [3, 4]])
    assert prompts.object_id.tolist() == [1, 2]
    assert set(prompts.state) == {"added"}


def test_a_box_is_a_positive_in_its_middle() -> None:
    prompts = prompts_from_box((10, 20, 20, 40), 5)
    assert prompts.yx.tolist() == [[14.5, 29.5]]
    assert prompts.object_id.tolist() == [5]
    assert prompts.sign.tolist() == [POSITIVE]
    assert prompts.state.tolist() == ["added"]


def test_many_labels_report_and_can_be_stopped() -> None:
    labels = np.arange(1, 2502).reshape(41, 61)
    reports: list[tuple[int, int]] = []
    prompts = prompts_from_labels(labels, lambda _, *counts: reports.append(counts))
    assert len(prompts) == 2501
    assert reports == [(1000, 2501), (2000, 2501)]

    def stop(stage: str, done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        prompts_from_labels(labels, stop)

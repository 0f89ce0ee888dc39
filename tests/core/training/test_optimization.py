"""What every training keeps to: who decays, how the rate goes, what a row says."""

from __future__ import annotations

import math

import pytest
from torch import nn

from napari_sac.core.config import TrainingConfig
from napari_sac.core.training.optimization import (
    averaging_decay,
    learning_rate,
    make_optimizer,
    mean_row,
)


def test_only_matrices_that_learn_decay() -> None:
    learns, rests = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    optimizer = make_optimizer((learns, rests), TrainingConfig(weight_decay=0.5))
    matrices, others = optimizer.param_groups
    assert [id(p) for p in matrices["params"]] == [id(learns.weight)]
    assert [id(p) for p in others["params"]] == [id(learns.bias)]
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.5, 0.0)


def test_the_rate_rises_then_falls_to_a_fiftieth() -> None:
    config = TrainingConfig(learning_rate=2.0, warm_up_steps=4)
    assert learning_rate(0, 0.0, config) == pytest.approx(0.5)
    assert learning_rate(3, 0.0, config) == pytest.approx(2.0)
    assert learning_rate(50, 0.5, config) == pytest.approx(1.02)
    # more steps than were planned do not let it rise again
    for done in (1.0, 1.5):
        assert learning_rate(99, done, config) == pytest.approx(0.04)


def test_averages_forget_the_first_weights() -> None:
    assert averaging_decay(0, 0.99) == pytest.approx(0.1)
    assert averaging_decay(10_000, 0.99) == 0.99


def test_a_row_leaves_out_what_is_not_known() -> None:
    recent = [{"loss": 1.0, "none": math.nan}, {"loss": math.nan, "none": math.nan}]
    row = mean_row(5, 1.26, 0.1, [*recent, {"loss": 2.0, "none": math.nan}])
    assert math.isnan(row.pop("none"))
    assert row == {"step": 5.0, "seconds": 1.3, "rate": 0.1, "loss": 1.5}

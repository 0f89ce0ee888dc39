"""What is measured and chosen before the first step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from napari_sac.core.training import planning
from napari_sac.core.training.planning import time_step


@pytest.mark.parametrize(
    ("seconds", "least", "steps"),
    [((3.0, 0.5, 0.75), 0.5, 3), ((0.25, 0.5, 0.5), 0.25, 3), ((60.0,), 60.0, 1)],
)
def test_a_step_is_timed_by_the_least_of_a_few(
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, ...],
    least: float,
    steps: int,
) -> None:
    clock, left, done = [0.0], list(seconds), []

    def compute(_: object) -> None:
        clock[0] += left.pop(0)

    monkeypatch.setattr(planning, "gradients", compute)
    monkeypatch.setattr(planning, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    optimizer = SimpleNamespace(zero_grad=lambda: done.append(1))
    run = SimpleNamespace(state=SimpleNamespace(optimizer=optimizer))
    assert time_step(run) == least
    assert len(done) == steps, "nothing is left for the first step"

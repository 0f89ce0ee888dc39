"""The time and the steps that a person needs are counted, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_sac.viewer.effort import PAUSE_SECONDS, Effort
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench


class Watch:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch(bench: Bench) -> Watch:
    made = Watch()
    bench.session.effort = Effort(made)
    return made


def test_every_step_counts_and_pauses_count_little(bench: Bench, watch: Watch) -> None:
    session, annotation = bench.session, bench.find()
    steps = annotation.steps
    assert annotation.worked == 0
    for edit in (
        lambda: session.reject(annotation, np.array([1])),
        lambda: annotation.points.add([80.0, 100.0]),
        session.undo,
        session.redo,
    ):
        watch.now += 5
        edit()
    assert annotation.worked == 20
    assert annotation.steps == steps + 4
    watch.now += 3600
    session.accept(annotation, np.array([2]))
    assert annotation.worked == 20 + PAUSE_SECONDS


def test_going_through_the_queue_takes_time_and_is_no_step(
    bench: Bench, watch: Watch
) -> None:
    session, annotation = bench.session, bench.find()
    bench.segment(annotation)
    steps = annotation.steps
    for _ in range(3):
        watch.now += 40
        session.gestures.go_next(annotation.points)
    watch.now += 40
    session.gestures.go_previous(annotation.points)
    assert annotation.worked == 160
    assert annotation.steps == steps


def test_waiting_for_models_is_no_work(bench: Bench, watch: Watch) -> None:
    annotation = bench.find()
    watch.now += 50
    bench.segment(annotation)
    assert annotation.worked == 0
    watch.now += 2
    bench.session.accept(annotation, np.array([0]))
    assert annotation.worked == 2


def test_a_move_of_the_slider_is_one_step(bench: Bench, watch: Watch) -> None:
    annotation = bench.find()
    steps = annotation.steps
    for threshold in (0.5, 0.6, 0.7):
        watch.now += 1
        bench.session.set_threshold(annotation, threshold)
    assert annotation.steps == steps + 1
    assert annotation.worked == 3


def test_a_session_keeps_what_it_took(bench: Bench, watch: Watch) -> None:
    annotation = bench.find()
    watch.now += 12.5
    bench.session.accept(annotation, np.array([0]))
    folder, steps = bench.session.journal.folder, annotation.steps
    bench.session.close(clean=False)
    session = AnnotationSession.of(ViewerModel())
    (restored,) = session.open(folder)
    assert (restored.worked, restored.steps) == (12.5, steps)
    session.close(clean=True)


def test_a_session_saved_under_a_name_keeps_it_too(
    bench: Bench, watch: Watch, tmp_path: Path
) -> None:
    annotation = bench.find()
    watch.now += 12.5
    bench.session.accept(annotation, np.array([0]))
    bench.session.save_as(tmp_path / "field.sac")
    steps = annotation.steps
    bench.session.close(clean=True)
    session = AnnotationSession.of(ViewerModel())
    (restored,) = session.open(tmp_path / "field.sac")
    assert (restored.worked, restored.steps) == (12.5, steps)
    session.close(clean=True)

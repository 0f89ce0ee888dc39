"""The planes of a stack have points and labels of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from conftest import Bench


def open_stack(bench: Bench) -> None:
    grey = bench.layer.data[..., 0]
    bench.viewer.layers.clear()
    bench.layer = bench.viewer.add_image(
        np.stack([grey, grey[::-1], grey]), name="stack", axis_labels=("z", "y", "x")
    )


def test_each_plane_is_corrected_by_itself(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.viewer.dims.set_current_step(0, 1)
    second = bench.find()
    assert second is not first
    assert second.points.ndim == 2
    np.testing.assert_allclose(
        np.sort(second.prompts.yx[:, 0]), np.sort(159 - first.prompts.yx[:, 0]), atol=2
    )


def test_only_what_lies_on_the_shown_plane_is_shown(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.segment(first)
    bench.viewer.dims.set_current_step(0, 1)
    second = bench.find()
    assert not first.points.visible
    assert not first.labels.visible
    assert second.points.visible
    bench.viewer.dims.set_current_step(0, 0)
    bench.session.follow(bench.plane)
    assert first.points.visible
    assert first.labels.visible
    assert not second.points.visible


def test_the_layers_of_other_images_are_left_alone(bench: Bench) -> None:
    alone = bench.find()
    open_image = bench.layer
    bench.layer = bench.viewer.add_image(np.zeros((3, 40, 50)), name="stack")
    bench.session.follow(bench.plane)
    assert alone.points.visible
    assert open_image in bench.viewer.layers

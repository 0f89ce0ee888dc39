"""What is on the screen, and how a nucleus gets there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sac.core.types import POSITIVE
from napari_sac.viewer.review import OUT_OF_VIEW
from napari_sac.viewer.view import (
    SMALLEST,
    bring_into_view,
    is_in_view,
    nucleus_box,
    view_box,
)

if TYPE_CHECKING:
    from conftest import Bench

    from napari_sac.viewer.annotation import Annotation

AWAY = (5000.0, 5000.0)


@pytest.fixture
def annotation(bench: Bench) -> Annotation:
    found = bench.find()
    bench.segment(found)
    # canvas pixels per micrometre: a nucleus of 20 pixels is 100 of them high
    bench.viewer.scene.camera.zoom = 10
    return found


def look_away(bench: Bench) -> None:
    camera = bench.viewer.scene.camera
    camera.center = (*camera.center[:-2], *AWAY)


def test_a_nucleus_lies_where_its_pixels_do(
    bench: Bench, annotation: Annotation
) -> None:
    pixels = np.argwhere(annotation.state.labels == 3)
    box = nucleus_box(annotation, 3)
    low = annotation.labels.data_to_world(pixels.min(axis=0) - 0.5)
    high = annotation.labels.data_to_world(pixels.max(axis=0) + 0.5)
    np.testing.assert_allclose(box.low, low)
    np.testing.assert_allclose(box.high, high)
    # one without pixels, where its points are
    bench.session.reject(annotation, np.flatnonzero(annotation.prompts.object_id == 3))
    bench.decode()
    place = annotation.prompts.yx[annotation.prompts.object_id == 3][0]
    middle = nucleus_box(annotation, 3).middle
    np.testing.assert_allclose(middle, annotation.points.data_to_world(place))
    assert nucleus_box(annotation, 999) is None


@pytest.mark.parametrize("object_id", range(1, 13))
def test_a_nucleus_is_brought_into_view(
    bench: Bench, annotation: Annotation, object_id: int
) -> None:
    look_away(bench)
    assert not is_in_view(bench.viewer, annotation, object_id)
    bring_into_view(bench.viewer, annotation, object_id)
    assert is_in_view(bench.viewer, annotation, object_id)
    # the zoom stays, and as little as possible beside the image is shown
    assert bench.viewer.scene.camera.zoom == 10
    shown, (first, last) = view_box(bench.viewer), bench.layer.extent.world
    wide = last - first >= shown.size
    assert (shown.low >= first - 1e-9)[wide].all()
    assert (shown.high <= last + 1e-9)[wide].all()
    np.testing.assert_allclose(shown.middle[~wide], ((first + last) / 2)[~wide])


def test_a_small_nucleus_is_enlarged_and_a_large_one_is_not_made_smaller(
    bench: Bench, annotation: Annotation
) -> None:
    camera = bench.viewer.scene.camera
    longest = nucleus_box(annotation, 3).size.max()
    camera.zoom = SMALLEST / longest * 0.9
    bring_into_view(bench.viewer, annotation, 3)
    assert longest * camera.zoom > SMALLEST
    enlarged = camera.zoom
    # the others are about as large
    for object_id in range(1, 13):
        bring_into_view(bench.viewer, annotation, object_id)
    assert camera.zoom == enlarged
    camera.zoom = 200
    bring_into_view(bench.viewer, annotation, 3)
    assert camera.zoom == 200


def test_a_nucleus_out_of_view_is_shown_before_it_is_accepted(
    bench: Bench, annotation: Annotation
) -> None:
    review, told = bench.session.review, []
    bench.session.told.connect(told.append)
    first = review.go(annotation, 1)
    own = annotation.prompts.object_id == first
    look_away(bench)
    assert review.accept_and_next(annotation) == first
    assert told == [OUT_OF_VIEW]
    assert is_in_view(bench.viewer, annotation, first)
    assert "accepted" not in annotation.prompts.state
    assert review.accept_and_next(annotation) not in (0, first)
    assert (annotation.prompts.state[own] == "accepted").all()


def test_the_preview_goes_when_the_mouse_leaves_the_canvas(
    bench: Bench, annotation: Annotation
) -> None:
    bench.viewer.mouse_over_canvas = True
    preview = bench.session.preview
    preview.look(annotation, np.array([40.0, 50.0]), POSITIVE, joins=False)
    bench.decode()
    assert preview.layer.opacity > 0
    bench.viewer.mouse_over_canvas = False
    assert preview.layer.opacity == 0
    # one that is on its way does not come any more
    bench.viewer.mouse_over_canvas = True
    preview.look(annotation, np.array([60.0, 70.0]), POSITIVE, joins=False)
    bench.viewer.mouse_over_canvas = False
    bench.decode()
    assert preview.layer.opacity == 0


def test_a_speck_is_not_all_there_is_on_the_screen(
    bench: Bench, annotation: Annotation
) -> None:
    camera = bench.viewer.scene.camera
    camera.zoom = 0.01
    bring_into_view(bench.viewer, annotation, 3)
    usual = camera.zoom
    labels = annotation.state.labels
    y, x = np.argwhere(labels == 3)[0]
    labels[labels == 3] = 0
    labels[y, x] = 3
    camera.zoom = 0.01
    bring_into_view(bench.viewer, annotation, 3)
    assert camera.zoom < 1.5 * usual


def test_where_axes_are_transposed_the_nucleus_is_still_brought_into_view(
    bench: Bench, annotation: Annotation
) -> None:
    bench.viewer.dims.order = (1, 0)
    look_away(bench)
    assert not is_in_view(bench.viewer, annotation, 3)
    bring_into_view(bench.viewer, annotation, 3)
    assert is_in_view(bench.viewer, annotation, 3)
    middle = nucleus_box(annotation, 3).middle
    # the camera counts down and right on the screen, which are x and y now
    right, down = bench.viewer.scene.camera.center[-2:]
    box = view_box(bench.viewer)
    np.testing.assert_allclose(box.middle, (down, right))
    assert box.holds(middle)

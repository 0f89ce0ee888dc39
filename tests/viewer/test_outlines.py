"""Nuclei as outlines in one colour, and filled as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers.labels import labels as napari_labels
from napari.utils.colormaps.standardize_color import transform_color

from napari_sac.viewer import outlines as switch
from napari_sac.viewer.outlines import COLOUR, WIDTH
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from conftest import Bench


def test_all_outlines_have_one_colour_and_go_again(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    layer = annotation.labels
    before = layer.colormap, layer.opacity, layer.data.copy()
    ids = np.unique(layer.data)[1:]
    bench.session.drawing.outline(True)
    assert layer.contour == WIDTH
    assert layer.opacity == 1
    vivid = transform_color(COLOUR)[0]
    for object_id in ids:
        np.testing.assert_allclose(layer.get_color(int(object_id)), vivid)
    assert not layer.colormap.map(0).any()
    # what is picked and painted is another thing than its colour
    np.testing.assert_array_equal(layer.data, before[2])
    y, x = np.argwhere(layer.data == ids[3])[0]
    assert layer.get_value((y, x)) == ids[3]
    bench.session.drawing.outline(True)
    bench.session.drawing.outline(False)
    assert layer.contour == 0
    assert layer.colormap is before[0]
    assert layer.opacity == before[1]


def test_labels_that_come_later_are_outlines_too(bench: Bench) -> None:
    bench.session.drawing.outline(True)
    annotation = bench.find()
    bench.segment(annotation)
    assert annotation.labels.contour == WIDTH
    bench.session.drawing.outline(False)
    assert annotation.labels.contour == 0


def test_a_stroke_on_outlines_is_a_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.drawing.outline(True)
    layer = annotation.labels
    new = int(layer.data.max()) + 1
    layer.data_setitem(tuple(np.mgrid[2:8, 2:8].reshape(2, -1)), new)
    bench.session.sync(annotation)
    assert (annotation.state.labels[2:8, 2:8] == new).all()
    shown = layer._slice.image.view
    assert shown[2, 2] == 1
    assert shown[5, 5] == 0


def colour(bench: Bench) -> None:
    """Give the image colours of its own; the nuclei stay where they are."""
    bench.layer.data = (bench.layer.data * np.array([1, 0.5, 1])).astype(np.uint8)


def test_outlines_come_by_themselves_where_the_image_has_colours(bench: Bench) -> None:
    colour(bench)
    annotation = bench.find()
    bench.segment(annotation)
    assert annotation.labels.contour == WIDTH
    # who wants them filled keeps them so
    bench.session.drawing.outline(False)
    bench.viewer.layers.remove(annotation.labels)
    bench.segment(annotation)
    assert annotation.labels.contour == 0


def test_a_large_image_has_outlines_only_if_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour(bench)
    annotation = bench.find()
    monkeypatch.setattr(switch, "MOST_PIXELS", annotation.state.labels.size - 1)
    bench.segment(annotation)
    assert annotation.labels.contour == 0
    bench.session.drawing.outline(True)
    assert annotation.labels.contour == WIDTH


def test_outlines_are_searched_for_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour(bench)
    annotation = bench.find()
    searched = []
    search = napari_labels.get_contours

    def count(labels, *args):
        searched.append(labels.shape)
        return search(labels, *args)

    monkeypatch.setattr(napari_labels, "get_contours", count)
    bench.segment(annotation)
    assert annotation.labels.contour == WIDTH
    assert searched == [annotation.labels.data.shape]


def test_without_colours_nuclei_are_filled(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    assert annotation.labels.contour == 0


@pytest.mark.parametrize("outlines", [True, False])
def test_a_session_keeps_how_it_looked(bench: Bench, outlines: bool) -> None:
    colour(bench)
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.drawing.outline(outlines)
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    session = AnnotationSession.of(ViewerModel())
    (restored,) = session.open(folder)
    assert bool(restored.labels.contour) is outlines
    assert session.drawing.outlined(restored) is outlines
    session.close(clean=True)

"""Pictures of a run: an outline's colour says what was found."""

from __future__ import annotations

import numpy as np

from napari_sac.core.training.report import GAINED, LOST, NEITHER, draw_example


def colours(picture: np.ndarray, box: tuple[slice, slice]) -> set[tuple[int, ...]]:
    shown = {tuple(map(int, pixel)) for pixel in picture[box].reshape(-1, 3)}
    return shown - {(9, 9, 9)}


def test_an_example_tells_found_from_missed_and_wrong() -> None:
    image = np.full((300, 500, 3), 9, np.uint8)
    truth = np.zeros((300, 500), np.int32)
    labels = np.zeros((300, 500), np.uint32)
    found, missed, wrong = (
        (slice(20, 60), slice(start, start + 40)) for start in (20, 120, 220)
    )
    truth[found], truth[missed] = 1, 2
    labels[found], labels[wrong] = 7, 3
    before = image.copy()
    picture = draw_example(image, labels, truth)
    zoom = picture.shape[0] // 300
    assert picture.shape == (300 * zoom, 500 * zoom, 3)
    assert picture.dtype == np.uint8
    for place, colour in ((found, GAINED), (missed, LOST), (wrong, NEITHER)):
        large = tuple(slice(zoom * s.start, zoom * s.stop) for s in place)
        assert colours(picture, large) == {colour}
        # the inside stays to be seen
        middle = tuple(slice(s.start + 10, s.stop - 10) for s in large)
        assert colours(picture, middle) == set()
    np.testing.assert_array_equal(image, before)

"""Images at another scale."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sac.core.inference.resampling import resize_image, scale_to


@pytest.mark.parametrize("scale", [0.413, 0.7, 1.377, 2.71])
def test_every_pixel_lies_where_the_scale_says(scale: float) -> None:
    """To the last one, though the size is rounded."""
    ramp = np.arange(203, dtype=np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (61, 203, 3))
    for turned in (image, image.transpose(1, 0, 2)):
        resized = resize_image(turned, scale).numpy()
        sizes = [round(n * scale) for n in turned.shape[:2]]
        assert resized.shape == (3, *sizes)
        values = resized[0, 1] if turned is image else resized[0, :, 1]
        place = (np.arange(len(values)) + 0.5) / scale - 0.5
        # the last pixels mix with nothing beyond the edge
        inside = slice(4, -4)
        assert np.abs(values.astype(float) - place)[inside].max() <= 0.6


def test_the_scale_of_the_image_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(resize_image(image, 1.0), image.transpose(2, 0, 1))


def test_nothing_becomes_smaller_than_a_pixel() -> None:
    image = np.full((2, 90, 3), 7, np.uint8)
    resized = resize_image(image, 0.15)
    assert resized.shape == (3, 1, 14)
    assert (resized == 7).all()


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32)]
)
def test_another_type_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize_image(image, 0.5)


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan"), float("inf")])
def test_a_diameter_that_is_none_is_refused(diameter: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        scale_to(24.0, diameter)

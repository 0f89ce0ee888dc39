"""What colours tell of the stain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from skimage import data

from napari_sac.core.staining import has_colours, looks_brown, looks_like_he

if TYPE_CHECKING:
    from pathlib import Path

PAPER, PINK, PURPLE = (0.95, 0.94, 0.95), (0.85, 0.55, 0.72), (0.4, 0.25, 0.55)
BLUE, BROWN, GREY = (0.4, 0.45, 0.7), (0.55, 0.4, 0.25), (0.5, 0.5, 0.5)


def pixels(*colours: tuple[float, float, float]) -> np.ndarray:
    """Return as many pixels of each colour, with a little noise."""
    rng = np.random.default_rng(0)
    shown = np.repeat(np.array(colours), 200, axis=0)
    return np.clip(shown + rng.normal(0, 0.01, shown.shape), 0, 1)


def sample(image: np.ndarray) -> np.ndarray:
    return image[::16, ::16, :3].reshape(-1, 3) / 255


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ((PAPER, PINK, PURPLE), True),
        ((PINK, PINK, PINK, PURPLE, PAPER), True),
        # haematoxylin alone, brown beside it, no light, no tissue
        ((PAPER, PURPLE), False),
        ((PAPER, BROWN, BLUE), False),
        ((PAPER, BROWN, PINK), False),
        (((0.0, 0.0, 0.0), PURPLE, (0.6, 0.2, 0.5)), False),
        ((PAPER,), False),
        ((GREY, PAPER), False),
    ],
)
def test_tissue_is_known_by_purple_and_pink_on_bright(
    colours: tuple[tuple[float, float, float], ...], expected: bool
) -> None:
    assert looks_like_he(pixels(*colours)) is expected


def test_nothing_looks_like_nothing() -> None:
    assert not looks_like_he(np.zeros((0, 3)))
    assert not looks_brown(np.zeros((0, 3)))
    assert not has_colours(np.zeros((0, 3)))


def test_shades_of_grey_are_no_colours() -> None:
    assert not has_colours(pixels(GREY, PAPER))
    assert has_colours(pixels(GREY, PAPER, BLUE))


def test_photographs_and_brown_stain_are_not_taken_for_it() -> None:
    for image in (data.immunohistochemistry(), data.coffee(), data.chelsea()):
        assert has_colours(sample(image))
        assert not looks_like_he(sample(image))


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ((PAPER, BROWN, BLUE), True),
        ((PAPER, BROWN, BROWN, BROWN, (0.6, 0.62, 0.7)), True),
        # no nuclei, no brown, no light
        ((PAPER, BROWN), False),
        ((PAPER, BLUE), False),
        ((PAPER, PINK, PURPLE), False),
        ((GREY, BROWN, BLUE), False),
        ((PAPER, GREY), False),
    ],
)
def test_brown_tissue_is_known_by_brown_and_blue_on_bright(
    colours: tuple[tuple[float, float, float], ...], expected: bool
) -> None:
    assert looks_brown(pixels(*colours)) is expected


def test_the_sample_is_brown_and_photographs_of_brown_things_are_not() -> None:
    assert looks_brown(sample(data.immunohistochemistry()))
    assert not looks_brown(sample(data.coffee()))
    assert not looks_brown(sample(data.chelsea()))


@pytest.mark.data
def test_real_tissue_is_taken_for_it(data_folder: Path) -> None:
    files = sorted((data_folder / "monuseg2018" / "images").glob("*.png"))
    assert files
    for file in files:
        with Image.open(file) as image:
            colours = sample(np.asarray(image))
        assert looks_like_he(colours), file.name
        assert not looks_brown(colours), file.name

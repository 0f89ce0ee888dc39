"""Tissue that looks as if it were stained brown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from synthetic import draw_nuclei

from napari_sac.core.training import brown_stain
from napari_sac.core.training.brown_stain import stain_brown

SEEDS = range(24)


def tissue(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return purple nuclei on a pale ground, and their labels."""
    drawn = draw_nuclei((96, 120), 10, 9, seed)
    labels = drawn.labels.astype(np.int32)
    ground = np.random.default_rng(seed).integers(215, 235, labels.shape)
    image = np.stack([ground, ground - 10, ground], -1)
    image[labels > 0] = (110, 60, 150)
    return image.astype(np.uint8), labels


def brown_part(image: np.ndarray) -> float:
    red, green, blue = image.astype(float).reshape(-1, 3).T
    return float(((red > green) & (green > blue) & (red - blue > 30)).mean())


def stained(image: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    return [stain_brown(image, labels, np.random.default_rng(seed)) for seed in SEEDS]


def test_most_are_brown_and_each_in_its_own_way() -> None:
    image, labels = tissue()
    before = image.copy()
    found = stained(image, labels)
    parts = [brown_part(one) for one in found]
    assert brown_part(image) == 0
    assert np.median(parts) > 0.1
    # some have next to none
    assert min(parts) < 0.05
    assert max(parts) > 0.5
    assert {one.shape for one in found} == {image.shape}
    assert {one.dtype for one in found} == {np.dtype(np.uint8)}
    assert np.array_equal(image, before)
    assert np.array_equal(
        found[3], stain_brown(image, labels, np.random.default_rng(3))
    )
    assert not np.array_equal(found[3], found[4])


def test_nuclei_are_still_told_from_what_is_around_them() -> None:
    image, labels = tissue()
    inside, outside = labels > 0, labels == 0
    for one in stained(image, labels):
        by_channel = one[inside].mean(axis=0) - one[outside].mean(axis=0)
        assert np.abs(by_channel).max() > 6


def with_part(
    monkeypatch: pytest.MonkeyPatch, name: str, part: float
) -> list[np.ndarray]:
    """Return dull tissue, stained, with something in all images or in none."""
    for each in ("_WITH_HOLES", "_WITH_CRUMBS", "_UNSHARP", "_COMPRESSED"):
        monkeypatch.setattr(brown_stain, each, part if each == name else 0)
    image, labels = tissue()
    image[labels == 0] = (150, 140, 160)
    return stained(image, labels)


def test_holes_are_torn_beside_nuclei_never_into_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, labels = tissue()
    near, far = labels > 0, ndimage.distance_transform_edt(labels == 0) > 4
    empty = {
        part: np.array(
            [
                [(one.min(axis=2) > 205)[where].mean() for where in (near, far)]
                for one in with_part(monkeypatch, "_WITH_HOLES", part)
            ]
        )
        for part in (0, 1)
    }
    assert (empty[1][:, 1] > 0.1).mean() > (empty[0][:, 1] > 0.1).mean() + 0.3
    assert empty[1][:, 0].max() < 0.05


def test_crumbs_lie_between_nuclei(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = tissue()
    rough = {}
    for part in (0, 1):
        images = with_part(monkeypatch, "_WITH_CRUMBS", part)
        bumps = [
            np.abs(
                ndimage.laplace(ndimage.gaussian_filter(one[..., 1], 1.0, output=float))
            )
            for one in images
        ]
        rough[part] = [
            [np.percentile(one[where], 99.5) for where in (labels == 0, labels > 0)]
            for one in bumps
        ]
    between, inside = np.median(rough[1], axis=0) - np.median(rough[0], axis=0)
    assert between > 1
    assert between > 2 * inside


@pytest.mark.parametrize("name", ["_UNSHARP", "_COMPRESSED"])
def test_some_are_as_a_scanner_leaves_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharp, seen = (with_part(monkeypatch, name, part) for part in (0, 1))
    for before, after in zip(sharp, seen, strict=True):
        assert not np.array_equal(before, after)
        after[0, 0] = 0  # and it can be written to
        assert steepest(after) < 1.1 * steepest(before)


def steepest(image: np.ndarray) -> float:
    return float(np.percentile(np.abs(np.diff(image.astype(float), axis=0)), 99))


def test_both_blue_and_brown_nuclei_come() -> None:
    image, labels = tissue()
    redder = []
    for one in stained(image, labels):
        for number in range(1, labels.max() + 1):
            red, _, blue = one[labels == number].mean(axis=0)
            redder.append(red - blue)
    assert np.percentile(redder, 10) < -10
    assert np.percentile(redder, 90) > 40


@pytest.mark.parametrize("dark", [False, True])
def test_grey_nuclei_become_darker_than_their_ground(dark: bool) -> None:
    drawn = draw_nuclei((96, 120), 10, 9, 0)
    image = 255 - drawn.image if dark else drawn.image
    assert (image == image[..., :1]).all()
    labels = drawn.labels.astype(np.int32)
    # of all the ways some hide nuclei in brown
    darker = [
        one[labels > 0].mean() < one[labels == 0].mean()
        for one in stained(image, labels)
    ]
    assert np.mean(darker) > 0.5
    colours = [
        np.ptp(one.reshape(-1, 3).mean(axis=0)) for one in stained(image, labels)
    ]
    assert max(colours) > 40


@pytest.mark.parametrize("value", [0, 255])
def test_images_without_nuclei_or_without_light_are_stained_too(value: int) -> None:
    image = np.full((40, 33, 3), value, np.uint8)
    none = np.zeros((40, 33), np.int32)
    for labels in (none, none + 1):
        one = stain_brown(image, labels, np.random.default_rng(0))
        assert one.shape == image.shape

"""The whole way, on every kind of image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pytest

from napari_sac.core.config import DecodeConfig
from napari_sac.core.errors import LabelFormatError
from napari_sac.core.evaluation.metrics import evaluate_labels
from napari_sac.core.inference.segment import segment_image, segment_points
from napari_sac.core.io import normalise_image
from napari_sac.core.models.registry import load_model

if TYPE_CHECKING:
    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model


def test_every_prompted_nucleus_is_reported(disc_model: Model, nuclei: Nuclei) -> None:
    keep_all = DecodeConfig(minimum_iou=0, overlap_threshold=1)
    result = segment_image(nuclei.image, disc_model, decode_config=keep_all)
    assert result.labels.shape == nuclei.labels.shape
    assert len(result.prompts) == 12
    assert [m.object_id for m in result.masks] == list(range(1, 13))
    assert set(result.seconds) == {"proposals", "embedding", "decoding", "instances"}
    assert result.diameter == pytest.approx(20, rel=0.2)


def test_the_same_image_gives_the_same_labels(
    disc_model: Model, nuclei: Nuclei
) -> None:
    config = DecodeConfig(minimum_iou=0)
    first = segment_image(nuclei.image, disc_model, decode_config=config)
    second = segment_image(nuclei.image, disc_model, decode_config=config)
    assert first.labels.any()
    np.testing.assert_array_equal(first.labels, second.labels)


def test_semantic_mode_is_one_binary_mask(disc_model: Model, nuclei: Nuclei) -> None:
    result = segment_image(
        nuclei.image, disc_model, decode_config=DecodeConfig(mode="semantic")
    )
    assert set(np.unique(result.labels)) == {0, 1}
    assert result.masks == ()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1), np.uint8),
        np.full((30, 30), 7, np.uint16),
        np.full((30, 30), np.nan),
        np.full((30, 40, 3), np.inf, np.float32),
        np.zeros((300, 2), bool),
        np.zeros((20, 20, 4), np.uint8),
    ],
    ids=["1x1", "constant", "nan", "inf", "thin", "rgba"],
)
def test_images_without_nuclei_give_none(
    disc_model: Model, image: npt.NDArray[np.generic]
) -> None:
    result = segment_image(normalise_image(image), disc_model, diameter=10)
    assert result.labels.shape == image.shape[:2]
    assert not result.labels.any()
    assert len(result.prompts) == 0


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(nuclei: Nuclei) -> None:
    model = load_model("sac_tiny", device="auto")
    assert model.device.name != "cpu"
    found = segment_image(nuclei.image, model, diameter=20)
    expected = segment_image(
        nuclei.image, load_model("sac_tiny", device="cpu"), diameter=20
    )
    scores = evaluate_labels(found.labels, expected.labels)
    assert scores.ap50 == 1
    assert scores.dice > 0.98


def test_points_become_the_nuclei_there(disc_model: Model, nuclei: Nuclei) -> None:
    middles = np.array([np.argwhere(nuclei.labels == k).mean(0) for k in (3, 1)])
    result = segment_points(nuclei.image, middles, disc_model)
    np.testing.assert_array_equal(result.prompts.yx, middles)
    assert set(result.prompts.state) == {"added"}
    assert set(np.unique(result.labels)) == {0, 1, 2}
    for own, (y, x) in enumerate(middles.round().astype(int), start=1):
        assert result.labels[y, x] == own
    assert result.diameter == pytest.approx(20, rel=0.2)
    given = segment_points(nuclei.image, middles[:0], disc_model, diameter=17)
    assert not given.labels.any()
    assert given.diameter == 17


def test_points_outside_of_the_image_are_refused(tiny_model: Model) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    points = [[1, 2], [39, 29], [float("nan"), 1]]
    with pytest.raises(LabelFormatError, match=r"2 of 3 points.*y 39, x 29"):
        segment_points(image, points, tiny_model)


@pytest.mark.parametrize("mode", ["instance", "semantic"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (300, 2)])
def test_a_point_in_the_smallest_images_is_no_crash(
    disc_model: Model, shape: tuple[int, int], mode: Literal["instance", "semantic"]
) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    config = DecodeConfig(mode=mode, minimum_iou=0)
    result = segment_points(image, [[0, 0]], disc_model, config, diameter=10)
    assert result.labels.shape == shape
    assert set(np.unique(result.labels)) <= {0, 1}


@pytest.mark.parametrize(
    ("image", "diameter", "words"),
    [
        (np.zeros((40, 40, 3), np.float32), 20, "normalise_image"),
        (np.zeros((40, 40), np.uint8), 20, "normalise_image"),
        (np.zeros((40, 40, 4), np.uint8), 20, "normalise_image"),
        (np.zeros((40, 40, 3), np.uint8), -20, "diameter"),
        (np.zeros((40, 40, 3), np.uint8), 0, "diameter"),
        (np.zeros((40, 40, 3), np.uint8), np.nan, "diameter"),
    ],
)
def test_what_would_be_misread_in_silence_is_a_wrong_call(
    tiny_model: Model, image: npt.NDArray[np.generic], diameter: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        segment_image(image, tiny_model, diameter=diameter)
    with pytest.raises(ValueError, match=words):
        segment_points(image, [[5, 5]], tiny_model, diameter=diameter)


def test_a_point_that_is_there_twice_still_has_its_nucleus(
    disc_model: Model, nuclei: Nuclei
) -> None:
    middle = np.argwhere(nuclei.labels == 1).mean(0)
    alone = segment_points(nuclei.image, [middle], disc_model, diameter=20)
    twice = segment_points(nuclei.image, [middle, middle], disc_model, diameter=20)
    np.testing.assert_array_equal(twice.labels > 0, alone.labels > 0)

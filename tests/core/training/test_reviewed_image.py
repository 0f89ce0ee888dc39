"""What of an image may be learned from."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from skimage.io import imsave
from synthetic import draw_nuclei

from napari_sac.core.errors import ImageFormatError, LabelFormatError
from napari_sac.core.io import write_prompts
from napari_sac.core.training.preparation import prepare
from napari_sac.core.training.reviewed_image import (
    ReviewedImage,
    digest,
    read_reviewed,
    review_image,
)
from napari_sac.core.training.sampling import PointKind, draw_crops, draw_prompts
from napari_sac.core.types import NEGATIVE, Prompts

if TYPE_CHECKING:
    from pathlib import Path

SCALE_ONE = 2 * np.sqrt(100 / np.pi)
"""Diameter of the squares below, as of a circle of their area."""


@pytest.fixture
def labels() -> np.ndarray:
    """Squares of 10 pixels, ids 3, 5 and 9, in a row on 40 x 100."""
    array = np.zeros((40, 100), np.int32)
    for i, k in enumerate((3, 5, 9)):
        array[10:20, 10 + 30 * i : 20 + 30 * i] = k
    return array


@pytest.fixture
def image(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, 200, 20).astype(np.uint8)[..., None].repeat(3, 2)


def prompts_of(**states: str) -> Prompts:
    places = {"3": (15, 15), "5": (15, 45), "9": (15, 75)}
    ids = [int(k[1:]) for k in states]
    return Prompts.from_points(
        [places[str(k)] for k in ids], object_id=ids, state=list(states.values())
    )


def test_without_a_word_everything_is_reviewed(
    image: np.ndarray, labels: np.ndarray
) -> None:
    one = review_image("a", image, labels)
    assert one.known.all()
    assert one.count == 3
    assert set(np.unique(one.labels)) == {0, 1, 2, 3}


def test_what_is_still_auto_is_neither_nucleus_nor_background(
    image: np.ndarray, labels: np.ndarray
) -> None:
    prompts = prompts_of(n3="accepted", n5="auto", n9="moved")
    one = review_image("a", image, labels, prompts=prompts)
    assert one.count == 2
    assert not one.known[labels == 5].any()
    assert (one.labels[labels == 5] == 0).all()
    assert one.known[labels == 3].all()
    assert one.known[8, 15], "the ground around a reviewed nucleus is known"
    assert not one.known[35, 45], "what nobody looked at is not"


def test_a_region_reviews_all_in_it(image: np.ndarray, labels: np.ndarray) -> None:
    polygon = np.array([[0, 0], [0, 60], [39, 60], [39, 0]], float)
    prompts = prompts_of(n3="auto", n5="auto", n9="auto")
    one = review_image("a", image, labels, prompts=prompts, regions=[polygon])
    assert one.count == 2
    assert one.known[35, 30]
    assert not one.known[:, 70:].any()


def test_rejected_proposals_are_hard_background(
    image: np.ndarray, labels: np.ndarray
) -> None:
    prompts = Prompts.concatenate(
        [
            prompts_of(n3="accepted"),
            Prompts.from_points(
                [(30, 90), (12, 12)], object_id=[20, 21], state="rejected"
            ),
        ]
    )
    one = review_image("a", image, labels, prompts=prompts)
    assert one.rejected.tolist() == [[30, 90]], "a duplicate is no background"
    assert one.known[30, 90]
    prepared = prepare([one], SCALE_ONE)[0]
    assert prepared.hard is not None
    assert prepared.hard[30, 90]
    assert not (prepared.hard & (prepared.labels > 0)).any()
    rng = np.random.default_rng(0)
    crops = draw_crops([prepared], 20, 64, rng, mild=True)
    asked = draw_prompts(crops, 8, rng, background=0.0)
    nothing = asked.label == 0
    assert nothing.any()
    for i, (y, x) in zip(
        asked.image_index[nothing], asked.points_yx[nothing, 0].round(), strict=True
    ):
        assert crops.hard is not None
        assert crops.hard[i, int(y), int(x)]


def test_negatives_of_the_user_become_negative_prompts(
    image: np.ndarray, labels: np.ndarray
) -> None:
    prompts = Prompts.concatenate(
        [
            prompts_of(n3="accepted", n5="accepted", n9="accepted"),
            Prompts.from_points(
                [(15, 24)], object_id=[5], sign=NEGATIVE, state="added"
            ),
        ]
    )
    one = review_image("a", image, labels, prompts=prompts)
    assert one.negatives.tolist() == [[15, 24, 2]]
    prepared = prepare([one], SCALE_ONE)[0]
    assert prepared.points.kind.tolist() == [PointKind.NEGATIVE]
    rng = np.random.default_rng(0)
    crops = draw_crops([prepared], 20, 64, rng, mild=True)
    asked = draw_prompts(crops, 8, rng, background=0.0, negatives=0.0)
    with_negative = asked.signs[:, 1] == NEGATIVE
    assert with_negative.any()
    assert set(asked.label[with_negative].tolist()) == {2}
    for i, (y, x) in zip(
        asked.image_index[with_negative],
        asked.points_yx[with_negative, 1].round().long(),
        strict=True,
    ):
        assert crops.labels[i, y, x] == 0, "where the user clicked is background"


def test_thousands_of_negatives_are_read_at_once() -> None:
    labels = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((50, 50), np.int32))
    middles = np.stack(np.mgrid[:20, :20], -1).reshape(-1, 2) * 50.0 + 25
    ids = np.arange(1, 401)
    accepted = Prompts.from_points(middles, object_id=ids, state="accepted")
    some = np.repeat(ids[ids % 2 == 1], 40)
    negatives = Prompts.from_points(
        middles[some - 1], object_id=some, sign=NEGATIVE, state="added"
    )
    image = np.zeros((*labels.shape, 3), np.uint8)
    # the first time it imports something
    review_image("a", image, labels, prompts=accepted)
    started = perf_counter()
    review_image("a", image, labels, prompts=accepted)
    without = perf_counter() - started
    started = perf_counter()
    both = Prompts.concatenate([accepted, negatives])
    one = review_image("a", image, labels, prompts=both)
    # to look at the image for each of 8,000 takes 20 times as long
    assert perf_counter() - started < 6 * without
    assert one.negatives[:, 2].astype(int).tolist() == some.tolist()


def test_what_is_said_by_points_is_part_of_the_hash(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    one = reviewed[0]
    rejected = replace(one, rejected=np.array([[3.0, 4.0]]))
    negative = replace(one, negatives=np.array([[3.0, 4.0, 1.0]]))
    moved = replace(one, negatives=np.array([[3.0, 5.0, 1.0]]))
    hashes = {digest([given]) for given in (one, rejected, negative, moved)}
    assert len(hashes) == 4


def test_a_wanted_nucleus_without_a_mask_is_no_background(
    image: np.ndarray, labels: np.ndarray
) -> None:
    everywhere = [np.array([[-1, -1], [-1, 100], [40, 100], [40, -1]], float)]
    prompts = Prompts.concatenate(
        [
            prompts_of(n3="accepted", n5="auto", n9="auto"),
            Prompts.from_points([(30, 30)], object_id=[77], state="added"),
        ]
    )
    one = review_image("a", image, labels, prompts=prompts, regions=everywhere)
    assert one.count == 3
    assert not one.known[30, 30]
    assert not one.known[24, 30], "as far as a nucleus may reach"
    assert one.known[30, 60]
    # found but never segmented: nothing says where the nuclei are
    empty = np.zeros_like(labels)
    one = review_image("a", image, empty, prompts=prompts, regions=everywhere)
    assert not one.known.any()
    rejected = prompts_of(n3="rejected", n5="rejected", n9="rejected")
    one = review_image("a", image, empty, prompts=rejected, regions=everywhere)
    assert one.known.all(), "nothing but false proposals"


def test_a_rejected_point_makes_no_background_where_a_nucleus_may_be(
    image: np.ndarray, labels: np.ndarray
) -> None:
    # a duplicate and a point beside the wanted nucleus, one far away, and one on the
    # rim of nucleus 5, which nobody looked at
    rejected = [(31, 31), (25, 30), (30, 90), (8, 45)]
    prompts = Prompts.concatenate(
        [
            prompts_of(n3="accepted", n5="auto", n9="accepted"),
            Prompts.from_points([(30, 30)], object_id=[77], state="added"),
            Prompts.from_points(rejected, object_id=[80, 81, 82, 83], state="rejected"),
        ]
    )
    one = review_image("a", image, labels, prompts=prompts)
    assert one.rejected.tolist() == [[30, 90]]
    assert not one.known[22:39, 30].any(), "where the wanted nucleus may be"
    assert not one.known[8:10, 45].any()
    near = Prompts.from_points([(6, 45)], object_id=[84], state="rejected")
    one = review_image("a", image, labels, prompts=Prompts.concatenate([prompts, near]))
    assert one.rejected.tolist() == [[30, 90], [6, 45]]
    assert one.known[6, 45]
    assert not one.known[8:10, 45].any(), "the rim is still unsure"


def test_channels_are_chosen_of_images_with_four(
    tmp_path: Path, labels: np.ndarray
) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    four = np.stack([np.zeros_like(labels), labels * 20] * 2).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "images" / "a.tif",
        four,
        photometric="minisblack",
        metadata={"axes": "CYX"},
        ome=True,
    )
    tifffile.imwrite(tmp_path / "labels" / "a.tif", labels.astype(np.uint16))
    places = (tmp_path / "images", tmp_path / "labels")
    with pytest.raises(ImageFormatError, match="4 channels"):
        read_reviewed(*places)
    (one,) = read_reviewed(*places, channels=[1])
    assert one.count == 3
    assert one.image[labels > 0].min() > one.image[labels == 0].max()


def test_folders_of_unequal_images(tmp_path: Path) -> None:
    drawn = {"a": draw_nuclei((60, 80), 3, 8), "b": draw_nuclei((101, 57), 3, 8)}
    for name in ("images", "labels", "masks", "prompts"):
        (tmp_path / name).mkdir()
    for name, (image, truth) in drawn.items():
        # 16-bit grey beside 8-bit colour
        pixels = image if name == "a" else image[..., 0].astype(np.uint16) * 200
        imsave(tmp_path / "images" / f"{name}.png", pixels, check_contrast=False)
        imsave(
            tmp_path / "labels" / f"{name}.png",
            truth.astype(np.uint16),
            check_contrast=False,
        )
        mask = np.zeros(truth.shape, np.uint8)
        mask[:40] = 255
        imsave(tmp_path / "masks" / f"{name}.png", mask, check_contrast=False)
    places = (tmp_path / "images", tmp_path / "labels")
    whole = read_reviewed(*places)
    assert [one.count for one in whole] == [3, 3]
    assert all(one.image.dtype == np.uint8 for one in whole)
    partial = read_reviewed(*places, reviewed=tmp_path / "masks")
    assert not partial[0].known[50:].any()
    for name, ids in (("a_prompts.csv", [99]), ("b.csv", [1])):
        write_prompts(
            tmp_path / "prompts" / name,
            Prompts.from_points([(1, 1)], object_id=ids, state="accepted"),
        )
    sparse = read_reviewed(*places, prompts=tmp_path / "prompts")
    assert [one.count for one in sparse] == [0, 1]
    with pytest.raises(ImageFormatError, match="no channel 1"):
        read_reviewed(*places, channels=[1])
    # a table that is missing would make every mask count as right
    (tmp_path / "prompts" / "b.csv").unlink()
    for wrong in (tmp_path / "prompts", tmp_path / "misspelt"):
        with pytest.raises(LabelFormatError, match="no table of prompts"):
            read_reviewed(*places, prompts=wrong)
    imsave(
        tmp_path / "masks" / "a.png", np.zeros((5, 5), np.uint8), check_contrast=False
    )
    with pytest.raises(LabelFormatError, match="differ in size"):
        read_reviewed(*places, reviewed=tmp_path / "masks")

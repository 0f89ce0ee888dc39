"""What may be learned from, and what is set aside."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from skimage.io import imsave
from synthetic import draw_nuclei

from napari_sac.core.errors import ImageFormatError, LabelFormatError, TrainingDataError
from napari_sac.core.io import write_prompts
from napari_sac.core.training.preparation import prepare
from napari_sac.core.training.sampling import PointKind, draw_crops, draw_prompts
from napari_sac.core.training.training_set import (
    ReviewedImage,
    crop_to_known,
    digest,
    learned_nuclei,
    middles_of,
    pixels_sha256,
    read_reviewed,
    review_image,
    split,
    with_folder,
    without_known,
)
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


def test_several_images_give_a_whole_one(reviewed: tuple[ReviewedImage, ...]) -> None:
    data = split(reviewed)
    assert data.kind == "images"
    assert len(data.held_out) == 1
    assert {o.name for o in data.held_out} | {t.name for t in data.training} == {
        one.name for one in reviewed
    }
    assert split(reviewed).held_out[0].name == data.held_out[0].name


def test_of_three_images_all_are_learned_from(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    data = split(reviewed[:3])
    assert data.kind == "block"
    assert {one.name for one in data.training} == {"field_0", "field_1", "field_2"}


def test_empty_patches_stay_to_learn_from(reviewed: tuple[ReviewedImage, ...]) -> None:
    empty = review_image("empty", reviewed[0].image, np.zeros((90, 100), int))
    data = split([empty, *reviewed])
    assert "empty" in {one.name for one in data.training}
    assert len(prepare(data.training, 24.0)) == 4


def test_one_image_gives_a_block_that_shares_no_nucleus() -> None:
    drawn = draw_nuclei((120, 300), 20, 9)
    one = review_image("a", drawn.image, drawn.labels)
    data = split([one])
    assert data.kind == "block"
    kept, aside = data.training[0], data.held_out[0]
    assert not (kept.known & aside.known).any()
    assert aside.count >= 2
    assert kept.count >= 12
    assert kept.count + aside.count <= 20
    cut = crop_to_known(aside, 20)
    assert cut.labels.shape[1] < 150
    assert cut.count == aside.count


def test_several_regions_give_a_whole_one() -> None:
    drawn = draw_nuclei((100, 400), 30, 8)
    known = np.zeros((100, 400), bool)
    for i in range(4):
        known[:, 100 * i : 100 * i + 90] = True
    data = split([review_image("a", drawn.image, drawn.labels, known=known)])
    assert data.kind == "regions"
    (kept,), (aside,) = data.training, data.held_out
    assert aside.labels.shape[1] < 200, "cut out: an image may be very large"
    (i,) = (i for i in range(4) if not kept.known[:, 100 * i + 20].any())
    assert all(kept.known[:, 100 * k + 20].any() for k in range(4) if k != i)
    assert kept.count + aside.count <= len(np.unique(drawn.labels)) - 1
    held = aside.image[:, aside.known.any(0)]
    assert any(
        np.array_equal(held, drawn.image[:, x : x + held.shape[1]])
        for x in range(100 * i, 100 * i + 90)
    )


def test_many_regions_are_told_apart_in_little_time() -> None:
    tile = draw_nuclei((60, 60), 5, 6)
    labels = np.zeros((1200, 1200), np.int32)
    known = np.zeros(labels.shape, bool)
    for n in range(400):
        y, x = 60 * (n // 20), 60 * (n % 20)
        block = tile.labels[:58, :58]
        labels[y : y + 58, x : x + 58] = np.where(block > 0, block + 10 * n, 0)
        known[y : y + 58, x : x + 58] = True
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    one = review_image("large", pixels, labels, known=known)
    started = time.monotonic()
    data = split([one])
    # one look at the image for each of 400 regions took a minute
    assert time.monotonic() - started < 15
    assert data.kind == "regions"
    assert len(data.held_out) == 80
    assert len(data.training) == 1
    assert max(one.labels.size for one in data.held_out) < 30_000, "cut out"


def test_an_image_that_comes_twice_is_one(reviewed: tuple[ReviewedImage, ...]) -> None:
    first, second = reviewed[0], reviewed[1]
    half = np.zeros(first.known.shape, bool)
    half[:, :50] = True
    left = review_image("left", first.image, first.labels, known=half)
    right = review_image("right", first.image, first.labels, known=~half)
    data = split([left, second, right, second])
    assert data.kind == "block", "two images, not four"
    assert [one.name for one in data.training] == ["left", second.name]
    names = {one.name for one in (*data.training, *data.held_out)}
    assert names == {"left", second.name}
    both = data.training[0].known | data.held_out[0].known
    assert both[:, :40].any()
    assert both[:, 60:].any()
    found = data.training[0].count + data.held_out[0].count
    assert max(left.count, right.count) < found <= first.count


def test_planes_of_a_stack_are_set_aside_together(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    planes = [replace(one, group="stack.tif") for one in reviewed]
    data = split(planes)
    assert data.kind == "block"
    aside = np.logical_or.reduce([one.known for one in data.held_out])
    for one in data.training:
        assert not (one.known & aside).any(), "the plane above shows the same nuclei"
    others = [
        replace(one, name=f"{one.name} b", image=255 - one.image) for one in reviewed
    ]
    data = split([*planes, *others])
    assert data.kind == "images"
    assert len({one.group for one in data.held_out}) == 1


def test_a_plane_that_comes_as_a_file_too_stays_with_its_stack(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    planes = [replace(one, group="stack.tif") for one in reviewed]
    exported = replace(planes[0], name="exported", group="")
    data = split([exported, *planes])
    assert {one.group for one in (*data.training, *data.held_out)} == {"stack.tif"}


def learned_from(*images: ReviewedImage) -> dict[str, np.ndarray]:
    return {pixels_sha256(one): middles_of(one.labels) for one in images}


def test_images_that_were_learned_from_prove_nothing(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    for new in reviewed:
        old = [one for one in reviewed if one is not new]
        data = split(reviewed, learned_from(*old))
        assert data.kind == "images"
        assert [one.name for one in data.held_out] == [new.name]
        assert not data.held_out_is_learned


def test_what_was_set_aside_once_is_set_aside_again() -> None:
    drawn = draw_nuclei((120, 300), 20, 9)
    one = review_image("a", drawn.image, drawn.labels)
    first = split([one])
    again = split([one], learned_from(*first.training))
    np.testing.assert_array_equal(again.held_out[0].labels, first.held_out[0].labels)
    assert not again.held_out_is_learned


@pytest.mark.parametrize("turned", [False, True])
def test_of_one_image_the_end_that_is_new_is_set_aside(turned: bool) -> None:
    drawn = draw_nuclei((120, 300), 20, 9)
    whole = review_image("a", drawn.image, drawn.labels)
    known = np.zeros(whole.known.shape, bool)
    if turned:
        known[:, :200] = True
    else:
        known[:, 100:] = True
    old = review_image("a", drawn.image, drawn.labels, known=known)
    learned = learned_from(old)
    data = split([whole], learned)
    assert data.held_out[0].count >= 2
    assert not len(learned_nuclei(data.held_out[0], learned))
    assert not data.held_out_is_learned


def test_regions_that_were_learned_from_prove_nothing() -> None:
    drawn = draw_nuclei((100, 400), 30, 8)
    known = np.zeros((100, 400), bool)
    for i in range(4):
        known[:, 100 * i : 100 * i + 90] = True
    one = review_image("a", drawn.image, drawn.labels, known=known)
    for new in range(4):
        inside = known.copy()
        inside[:, 100 * new : 100 * new + 90] = False
        old = review_image("a", drawn.image, drawn.labels, known=inside)
        data = split([one], learned_from(old))
        assert data.kind == "regions"
        assert not data.training[0].known[:, 100 * new + 20].any()
        assert all(
            data.training[0].known[:, 100 * k + 20].any() for k in range(4) if k != new
        )


def test_where_all_was_learned_from_it_is_said(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    data = split(reviewed, learned_from(*reviewed))
    assert data.held_out_is_learned
    assert [one.name for one in data.held_out] == [
        one.name for one in split(reviewed).held_out
    ]
    assert with_folder(
        reviewed[1:], reviewed[:1], learned_from(*reviewed)
    ).held_out_is_learned
    assert not with_folder(
        reviewed[1:], reviewed[:1], learned_from(*reviewed[1:])
    ).held_out_is_learned


def test_one_image_seen_in_two_ways_is_in_one_part(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    names = "abcd"
    for i, name in enumerate(names):
        drawn = draw_nuclei((90, 100), 6, 9, seed=i)
        imsave(tmp_path / "images" / f"{name}.png", drawn.image)
        imsave(
            tmp_path / "labels" / f"{name}.png",
            drawn.labels.astype(np.uint16),
            check_contrast=False,
        )
    whole = read_reviewed(tmp_path / "images", tmp_path / "labels")
    stained = [
        replace(one, image=255 - one.image, group=str(tmp_path / "images" / f"{n}.png"))
        for one, n in zip(whole, names, strict=True)
    ]
    data = split([*whole, *stained])
    assert data.kind == "images"
    assert len(data.held_out) == 2
    assert len({one.group for one in data.held_out}) == 1


def test_one_image_seen_in_another_way_is_neither_proof_nor_original(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    first, second = (replace(one, group=f"{one.name}.png") for one in reviewed[:2])
    stained = replace(first, name="stained", image=255 - first.image)
    with pytest.raises(TrainingDataError, match=r"1 of the 2 .* stained for one"):
        with_folder([first], [second, stained])
    assert without_known([stained, second], [first]) == (second,)
    larger = np.pad(stained.image, ((0, 1), (0, 0), (0, 0)))
    other = review_image(
        "other", larger, np.pad(stained.labels, ((0, 1), (0, 0))), group=first.group
    )
    assert without_known([other], [first]) == (other,), "of another size"


def test_what_is_said_by_points_is_part_of_the_hash(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    one = reviewed[0]
    rejected = replace(one, rejected=np.array([[3.0, 4.0]]))
    negative = replace(one, negatives=np.array([[3.0, 4.0, 1.0]]))
    moved = replace(one, negatives=np.array([[3.0, 5.0, 1.0]]))
    hashes = {digest([given]) for given in (one, rejected, negative, moved)}
    assert len(hashes) == 4


def test_what_is_known_already_is_no_original(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    first, second, *rest = reviewed
    again = replace(first, name="again", labels=np.zeros_like(first.labels))
    assert without_known([again, second], [first, *rest]) == (second,)


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


def test_nothing_to_learn_from_is_an_error(reviewed: tuple[ReviewedImage, ...]) -> None:
    empty = review_image("empty", reviewed[0].image, np.zeros((90, 100), int))
    with pytest.raises(TrainingDataError, match="no reviewed nucleus"):
        split([empty])
    with pytest.raises(TrainingDataError, match="to validate on"):
        with_folder(reviewed, [empty])


def test_an_image_that_is_learned_from_proves_nothing(
    image: np.ndarray, labels: np.ndarray
) -> None:
    one = review_image("a", image, labels)
    other = review_image("b", 255 - image, labels)
    assert with_folder([one], [other]).held_out == (other,)
    again = replace(one, name="copy")
    with pytest.raises(TrainingDataError, match=r"1 of the 2 .* copy for one"):
        with_folder([one], [other, again])


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

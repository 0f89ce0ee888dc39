"""What is set aside, and what proves nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.io import imsave
from synthetic import draw_nuclei

from napari_sac.core.errors import TrainingDataError
from napari_sac.core.training.preparation import prepare
from napari_sac.core.training.reviewed_image import (
    ReviewedImage,
    crop_to_known,
    learned_nuclei,
    middles_of,
    pixels_sha256,
    read_reviewed,
    review_image,
)
from napari_sac.core.training.training_set import (
    _find_regions,
    split,
    with_folder,
    without_known,
)

if TYPE_CHECKING:
    from pathlib import Path


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


def test_an_image_with_one_nucleus_does_not_prove_what_sixty_have_taught() -> None:
    drawn = draw_nuclei((300, 300), 57, 10)
    fields = [review_image("full", drawn.image, drawn.labels)]
    for i in range(3):
        one = np.where(drawn.labels == i + 1, 1, 0)
        fields.append(review_image(f"few_{i}", drawn.image + np.uint8(i + 1), one))
    data = split(fields)
    assert data.kind == "block"
    assert sum(one.count for one in data.held_out) >= 6
    assert {one.name for one in data.training} == {one.name for one in fields}


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


def test_nuclei_of_regions_are_counted_in_the_time_of_a_sort() -> None:
    labels = np.random.default_rng(0).integers(1, 5000, (1000, 1000), np.int32)
    known = np.ones(labels.shape, bool)
    known[:, 600:602] = False
    labels[~known] = 0
    image = np.zeros((*labels.shape, 3), np.uint8)
    one = ReviewedImage("all nuclei", image, labels, known)
    started = time.perf_counter()
    np.sort(labels.astype(np.int64), axis=None)
    sorting = time.perf_counter() - started
    started = time.perf_counter()
    found = _find_regions([one], [np.empty(0, np.int64)])
    # pairs, as numpy sorts them, take 20 to 40 times as long
    assert time.perf_counter() - started < 8 * sorting
    assert found.counts == {1: 4999, 2: 4999}


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


def test_what_is_known_already_is_no_original(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    first, second, *rest = reviewed
    again = replace(first, name="again", labels=np.zeros_like(first.labels))
    assert without_known([again, second], [first, *rest]) == (second,)


def test_nothing_to_learn_from_is_an_error(reviewed: tuple[ReviewedImage, ...]) -> None:
    empty = review_image("empty", reviewed[0].image, np.zeros((90, 100), int))
    with pytest.raises(TrainingDataError, match="no reviewed nucleus"):
        split([empty])
    with pytest.raises(TrainingDataError, match="to validate on"):
        with_folder(reviewed, [empty])


def test_an_image_that_is_learned_from_proves_nothing(
    reviewed: tuple[ReviewedImage, ...],
) -> None:
    one, other = reviewed[:2]
    assert with_folder([one], [other]).held_out == (other,)
    again = replace(one, name="copy")
    with pytest.raises(TrainingDataError, match=r"1 of the 2 .* copy for one"):
        with_folder([one], [other, again])

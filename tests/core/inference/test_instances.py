"""Masks compete for pixels; duplicates and poor ones fall, a person's never do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.instances import assemble_labels, inside
from napari_sac.core.types import ObjectMask, Prompts


def square(
    object_id: int,
    origin: tuple[int, int],
    side: int = 10,
    logit: float = 2.0,
    iou: float = 0.9,
) -> ObjectMask:
    logits = np.full((side, side), logit, np.float32)
    return ObjectMask(object_id, origin, logits, iou, b"")


def labels_of(
    masks: list[ObjectMask], states: dict[int, str] | None = None
) -> npt.NDArray[np.uint32]:
    ids = [m.object_id for m in masks]
    prompts = Prompts.from_points(
        np.zeros((len(ids), 2)),
        object_id=ids,
        state=[(states or {}).get(k, "auto") for k in ids],
    )
    return assemble_labels(masks, (40, 40), DecodeConfig(), prompts=prompts)


def test_labels_are_the_object_ids() -> None:
    labels = labels_of([square(7, (0, 0)), square(3, (20, 20))])
    assert labels.dtype == np.uint32
    assert set(np.unique(labels)) == {0, 3, 7}
    assert (labels[:10, :10] == 7).all()


def test_the_surer_mask_gets_the_shared_pixels() -> None:
    labels = labels_of([square(1, (0, 0), logit=1), square(2, (0, 7), logit=3)])
    assert (labels[:10, :7] == 1).all()
    assert (labels[:10, 7:17] == 2).all()


def test_of_duplicates_the_better_stays() -> None:
    labels = labels_of([square(1, (0, 0), iou=0.6), square(2, (1, 1), iou=0.8)])
    assert set(np.unique(labels)) == {0, 2}


def test_a_mask_inside_a_better_one_is_a_duplicate() -> None:
    labels = labels_of([square(1, (0, 0), side=20), square(2, (5, 5), side=6, iou=0.5)])
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.parametrize("state", ["accepted", "added", "moved"])
def test_what_a_person_decided_stays(state: str) -> None:
    poor = square(1, (0, 0), iou=0.01)
    duplicate = square(2, (21, 21), iou=0.2)
    better = square(3, (20, 20), iou=0.9)
    labels = labels_of([poor, duplicate, better], {1: state, 2: state})
    assert {1, 2} <= set(np.unique(labels))


def test_to_accept_a_nucleus_takes_no_neighbour_away() -> None:
    # below the threshold by IoU, and the smaller one is half covered
    large = square(1, (0, 0), side=20, iou=0.5)
    small = square(2, (10, 15), side=8, iou=0.9)
    seen = labels_of([large, small])
    assert set(np.unique(seen)) == {0, 1, 2}
    for states in ({1: "accepted"}, {2: "accepted"}, {1: "accepted", 2: "accepted"}):
        assert np.array_equal(labels_of([large, small], states), seen)
    # whoever sets a point says that a nucleus is there
    assert set(np.unique(labels_of([large, small], {1: "added"}))) == {0, 1}


def test_poor_and_empty_masks_are_left_out() -> None:
    labels = labels_of([square(1, (0, 0), iou=0.1), square(2, (20, 20), logit=-1)])
    assert not labels.any()


def test_holes_are_filled_unless_another_nucleus_is_there() -> None:
    ring = square(1, (0, 0), side=12)
    ring.logits[3:9, 3:9] = -2
    assert (labels_of([ring])[:12, :12] == 1).all()
    labels = labels_of([ring, square(2, (4, 4), side=4, iou=0.5)])
    assert (labels[4:8, 4:8] == 2).all()
    assert labels[3, 3] == 1


def test_holes_of_a_mask_are_filled_and_only_these() -> None:
    logits = np.full((9, 14), -1, np.float32)
    logits[1:8, 1:8] = 1
    logits[4, 4] = logits[5, 5] = -1
    # a bay at the edge of the crop is none
    logits[0, 9:12] = logits[1, 9] = logits[1, 11] = 1
    result = inside(ObjectMask(1, (0, 0), logits, 1, b""))
    assert result[1:8, 1:8].all()
    assert not result[1, 10]
    assert result.sum() == 49 + 5


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_holes_are_what_scipy_calls_so(part: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = rng.integers(1, 15, 2)
        logits = np.where(rng.random(shape) < part, 1, -1).astype(np.float32)
        result = inside(ObjectMask(1, (0, 0), logits, 1, b""))
        np.testing.assert_array_equal(result, ndimage.binary_fill_holes(logits > 0))


def paint(*boxes: tuple[int, int, int, int, int]) -> npt.NDArray[np.uint32]:
    labels = np.zeros((40, 40), np.uint32)
    for object_id, y0, x0, y1, x1 in boxes:
        labels[y0:y1, x0:x1] = object_id
    return labels


def test_painted_nuclei_are_kept_to_the_last_pixel() -> None:
    drawn = paint((5, 2, 2, 6, 30), (5, 20, 20, 22, 22), (9, 30, 30, 38, 38))
    masks = [square(5, (0, 0), logit=9), square(1, (0, 20), logit=9, side=12)]
    labels = assemble_labels(
        masks,
        (40, 40),
        DecodeConfig(),
        prompts=Prompts.from_points(np.zeros((2, 2)), object_id=[5, 1]),
        painted=frozenset({5}),
        labels=drawn,
    )
    np.testing.assert_array_equal(labels == 5, drawn == 5)
    assert not (labels == 9).any()
    assert (labels[:2, 20:32] == 1).all()
    assert set(np.unique(labels)) == {0, 1, 5}


@pytest.mark.parametrize(("state", "stays"), [("auto", False), ("added", True)])
def test_a_mask_under_a_painted_nucleus_is_a_duplicate(state: str, stays: bool) -> None:
    labels = assemble_labels(
        [square(1, (0, 0), logit=9)],
        (40, 40),
        DecodeConfig(),
        prompts=Prompts.from_points([[5, 5]], object_id=[1], state=state),
        painted={5},
        labels=paint((5, 0, 0, 8, 10)),
    )
    assert (labels == 1).any() == stays


def accepted(*centres: tuple[float, float]) -> Prompts:
    return Prompts.from_points(centres, state="accepted")


def test_what_was_accepted_keeps_its_pixels_and_gets_no_others() -> None:
    seen = paint((1, 0, 0, 8, 10))
    masks = [square(1, (0, 0)), square(2, (5, 0), logit=9)]
    prompts = Prompts.from_points([[4, 4], [12, 4]], state=["accepted", "added"])

    def labels_after(**options: Any) -> npt.NDArray[np.uint32]:
        return assemble_labels(
            masks, (40, 40), DecodeConfig(), prompts=prompts, labels=seen, **options
        )

    labels = labels_after()
    np.testing.assert_array_equal(labels == 1, seen == 1)
    assert (labels[8:15, :10] == 2).all()
    # whoever changes its points, or sets a point in it, wants it to change
    assert (labels_after(stale={1})[5:8, :10] == 2).all()
    prompts = Prompts.from_points([[4, 4], [6, 4]], state=["accepted", "added"])
    assert (labels_after()[5:8, :10] == 2).all()


def test_an_accepted_nucleus_under_a_surer_one_is_seen() -> None:
    masks = [square(1, (0, 0), side=20, logit=9), square(2, (10, 10), side=6)]
    prompts = Prompts.from_points([[4, 4], [13, 13]], state=["auto", "accepted"])
    labels = assemble_labels(masks, (40, 40), DecodeConfig(), prompts=prompts)
    assert (labels[10:16, 10:16] == 2).all()
    assert (labels == 1).sum() == 400 - 36
    again = assemble_labels(
        masks, (40, 40), DecodeConfig(), prompts=prompts, labels=labels
    )
    np.testing.assert_array_equal(again, labels)


def test_an_unseen_nucleus_leaves_a_neighbour_what_is_nearer_to_its_point() -> None:
    masks = [square(1, (0, 0), logit=9), square(2, (0, 0))]
    prompts = Prompts.from_points([[4.5, 2], [4.5, 8]], state=["auto", "accepted"])
    labels = assemble_labels(masks, (40, 40), DecodeConfig(), prompts=prompts)
    assert (labels[:10, :6] == 1).all()
    assert (labels[:10, 6:10] == 2).all()
    both = assemble_labels(
        masks,
        (40, 40),
        DecodeConfig(),
        prompts=accepted((4.5, 2), (4.5, 8)),
        labels=paint((1, 0, 0, 10, 10)),
    )
    assert not (both == 2).any()


def test_many_unseen_nuclei_look_through_the_prompts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = [square(2 * k, (0, 10 * k), logit=9) for k in range(1, 21)]
    hidden = [square(2 * k + 1, (2, 10 * k + 2), side=6) for k in range(1, 21)]
    places = [(m.origin_yx[0] + 3, m.origin_yx[1] + 3) for m in [*seen, *hidden]]
    prompts = Prompts.from_points(
        places,
        # in no order of the numbers
        object_id=[m.object_id for m in [*seen, *hidden]],
        state=["auto"] * 20 + ["accepted"] * 20,
    )
    looks = []
    usable = Prompts.usable.fget
    monkeypatch.setattr(
        Prompts, "usable", property(lambda p: looks.append(p) or usable(p))
    )
    masks = [*seen, *hidden]
    labels = assemble_labels(masks, (20, 250), DecodeConfig(), prompts=prompts)
    assert set(np.unique(labels)) == {0, *prompts.object_id.tolist()}
    assert len(looks) <= 2

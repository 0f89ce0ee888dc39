"""The nuclei that look wrong come first, and it is said why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.review import NO_MASK, DoubtTable, doubt
from napari_sac.core.types import ObjectMask, Prompts


def disc(
    object_id: int,
    centre: tuple[int, int],
    radius: int = 6,
    iou: float = 0.95,
    logit: float = 3.0,
) -> ObjectMask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    logits = np.where(y**2 + x**2 <= radius**2, logit, -3).astype(np.float32)
    origin = (centre[0] - radius, centre[1] - radius)
    return ObjectMask(object_id, origin, logits, iou, b"")


GOOD = disc(1, (20, 20))
SHAPE = (100, 100)


def table_of(masks: list[ObjectMask], prompts: Prompts) -> DoubtTable:
    labels = assemble_labels(masks, SHAPE, DecodeConfig(), prompts=prompts)
    return doubt({m.object_id: m for m in masks}, prompts, labels, 12.0)


def field_of(*odd: ObjectMask, **usual: float) -> tuple[list[ObjectMask], Prompts]:
    """Return masks of 20 nuclei that are like each other, and of odd ones."""
    places = [(10 + 20 * (i // 5), 10 + 20 * (i % 5)) for i in range(20)]
    masks = [disc(100 + i, place, **usual) for i, place in enumerate(places)]
    every = [*odd, *masks]
    ids = [m.object_id for m in every]
    return every, Prompts.from_points(np.zeros((len(ids), 2)), object_id=ids)


CASES = {
    "poor mask": disc(1, (90, 50), iou=0.4),
    "vague outline": disc(1, (90, 50), iou=0.9, logit=0.3),
}


@pytest.mark.parametrize("reason", CASES)
def test_a_nucleus_unlike_the_others_comes_first_with_its_reason(reason: str) -> None:
    table = table_of(*field_of(CASES[reason]))
    assert table.object_id[0] == 1
    assert table.reasons[0] == (reason,)
    assert not any(table.reasons[1:])
    assert table.doubt[0] > 0.3 > table.doubt[1]


def test_an_uncertain_proposal_is_a_reason() -> None:
    masks, prompts = field_of(iou=0.6)
    score = np.full(len(prompts), 0.95, np.float32)
    score[3] = 0.5
    table = table_of(masks, replace(prompts, score=score))
    assert table.object_id[0] == prompts.object_id[3]
    assert table.reasons[0] == ("uncertain proposal",)
    assert not any(table.reasons[1:])


def test_where_all_are_poor_only_the_worst_have_reasons() -> None:
    masks, prompts = field_of(disc(1, (90, 50), iou=0.4), iou=0.5, logit=2.0)
    for i, mask in enumerate(masks):
        masks[i] = replace(mask, predicted_iou=mask.predicted_iou + 0.001 * i)
    table = table_of(masks, prompts)
    assert (table.doubt > 0.3).all()
    assert 1 <= sum(map(bool, table.reasons)) <= 0.25 * len(masks)


def test_where_all_are_good_none_has_reasons() -> None:
    masks, prompts = field_of(disc(1, (90, 50), iou=0.88))
    assert not any(table_of(masks, prompts).reasons)


def test_the_doubt_of_a_nucleus_is_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks, prompts = field_of(CASES["poor mask"])
    computed = []
    exp = np.exp
    monkeypatch.setattr(np, "exp", lambda x: (computed.append(x), exp(x))[1])
    assert len(table_of(masks, prompts).doubt) == len(masks)
    assert len(computed) == len(masks)


def test_what_is_odd_beside_is_named_too() -> None:
    poor = {"iou": 0.4, "logit": 1.0}
    large = table_of(*field_of(disc(1, (70, 50), radius=25, **poor)))
    assert "odd size" in large.reasons[0]
    masks = [GOOD, disc(2, (20, 27), **poor)]
    table = table_of(masks, Prompts.from_points([[20, 20], [20, 27]]))
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons[0][-1] == "overlaps a neighbour"


def test_one_nucleus_is_judged_as_among_all() -> None:
    masks, prompts = field_of(disc(1, (90, 50), iou=0.6), iou=0.62, logit=2.0)
    labels = assemble_labels(masks, SHAPE, DecodeConfig(), prompts=prompts)
    by_id = {m.object_id: m for m in masks}
    whole = doubt(by_id, prompts, labels, 12.0)
    for object_id, reasons in zip(whole.object_id, whole.reasons, strict=True):
        own = prompts.select(prompts.object_id == object_id)
        alone = doubt(by_id, own, labels, 12.0, whole.usual)
        assert alone.reasons == (reasons,)
    # beside others that are worse it would not be named
    ordinary = prompts.select(prompts.object_id == 100)
    among_worse = replace(whole.usual, doubt=0.9)
    assert doubt(by_id, ordinary, labels, 12.0).reasons != ((),)
    assert doubt(by_id, ordinary, labels, 12.0, among_worse).reasons == ((),)


def test_a_proposal_left_out_is_the_most_doubtful_and_rejected_ones_are_no_more() -> (
    None
):
    masks = [GOOD, disc(2, (60, 60), iou=0.1)]
    prompts = Prompts.from_points(
        [[20, 20], [60, 60], [80, 80]], state=["auto", "auto", "rejected"]
    )
    table = table_of(masks, prompts)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons[0][0].startswith(f"{NO_MASK}, for it would be a poor one.")
    assert table.doubt[0] == 1


def test_of_a_duplicate_it_is_said_which_nucleus_covers_it() -> None:
    masks = [disc(7, (20, 20)), disc(2, (21, 21), iou=0.8)]
    table = table_of(masks, Prompts.from_points([[20, 20], [21, 21]], object_id=[7, 2]))
    assert table.object_id.tolist() == [2, 7]
    assert table.reasons[0][0].startswith(f"{NO_MASK}, covered by nucleus 7. Merge")


def test_the_generator_counts_until_a_person_has_decided() -> None:
    prompts = Prompts.from_points(
        [[20, 20], [60, 60]], score=[0.3, 0.3], state=["accepted", "auto"]
    )
    table = doubt({}, prompts, np.zeros(SHAPE, np.uint32), 12.0)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons == (("uncertain proposal",), ())
    assert table.doubt[1] < 0.15


def test_where_the_model_sees_nothing_to_accept_is_no_advice() -> None:
    masks = [GOOD, disc(2, (60, 60), logit=-1.0)]
    table = table_of(masks, Prompts.from_points([[20, 20], [60, 60]]))
    assert table.object_id[0] == 2
    assert table.reasons[0][0].startswith(f"{NO_MASK}, for the model sees none")
    assert "ccept" not in table.reasons[0][0]

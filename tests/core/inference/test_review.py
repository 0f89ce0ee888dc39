"""The nuclei that look wrong come first, and it is said why."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.review import LEFT_OUT, doubt
from napari_sac.core.types import ObjectMask, Prompts


def disc(
    object_id: int,
    centre: tuple[int, int],
    radius: int = 6,
    iou: float = 0.95,
    stability: float = 0.97,
    logit: float = 3.0,
) -> ObjectMask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    logits = np.where(y**2 + x**2 <= radius**2, logit, -3).astype(np.float32)
    origin = (centre[0] - radius, centre[1] - radius)
    return ObjectMask(object_id, origin, logits, iou, stability, b"")


GOOD = disc(1, (20, 20))
CASES = {
    "poor mask": disc(2, (60, 60), iou=0.5),
    "vague outline": disc(2, (60, 60), stability=0.6),
    "odd size": disc(2, (60, 60), radius=20),
    "at the border": disc(2, (6, 60)),
}


@pytest.mark.parametrize("reason", CASES)
def test_each_reason_is_found_and_named(reason: str) -> None:
    masks = [GOOD, CASES[reason]]
    prompts = Prompts.from_points([[20, 20], [60, 60]])
    labels = assemble_labels(masks, (100, 100), DecodeConfig(), prompts=prompts)
    table = doubt({m.object_id: m for m in masks}, prompts, labels, 12.0)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons == ((reason,), ())
    assert table.doubt[0] > table.doubt[1]
    assert table.doubt[1] < 0.05


def test_a_neighbour_that_takes_pixels_is_a_reason() -> None:
    masks = [GOOD, disc(2, (20, 27), logit=2.0, iou=0.94)]
    prompts = Prompts.from_points([[20, 20], [20, 27]])
    labels = assemble_labels(masks, (100, 100), DecodeConfig(), prompts=prompts)
    table = doubt({m.object_id: m for m in masks}, prompts, labels, 12.0)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons[0] == ("overlaps a neighbour",)


def test_a_proposal_left_out_is_the_most_doubtful_and_rejected_ones_are_no_more() -> (
    None
):
    masks = {m.object_id: m for m in (GOOD, disc(2, (60, 60), iou=0.1))}
    prompts = Prompts.from_points(
        [[20, 20], [60, 60], [80, 80]], state=["auto", "auto", "rejected"]
    )
    labels = assemble_labels(
        masks.values(), (100, 100), DecodeConfig(), prompts=prompts
    )
    table = doubt(masks, prompts, labels, 12.0)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons[0] == (LEFT_OUT,)
    assert table.doubt[0] == 1


def test_the_generator_counts_until_a_person_has_decided() -> None:
    prompts = Prompts.from_points(
        [[20, 20], [60, 60]], score=[0.3, 0.3], state=["accepted", "auto"]
    )
    table = doubt({}, prompts, np.zeros((100, 100), np.uint32), 12.0)
    assert table.object_id.tolist() == [2, 1]
    assert table.reasons == (("uncertain proposal",), ())
    assert table.doubt[1] == 0

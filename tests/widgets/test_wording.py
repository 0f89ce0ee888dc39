"""The sentences of the dock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Image

from napari_sac.core.config import DecodeConfig
from napari_sac.viewer.inference import Segmented, SegmentRequest
from napari_sac.viewer.planes import current_plane
from napari_sac.viewer.relabelling import FreshLabels, KnownLabels
from napari_sac.widgets._wording import (
    describe_count,
    describe_diameter,
    describe_effort,
    describe_elsewhere,
    describe_imported,
    describe_progress,
    describe_segmented,
    describe_stage,
    describe_step,
)

if TYPE_CHECKING:
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("embedding", "Looking at the image ..."),
        ("decoding", "Outlining nuclei ..."),
        ("reading the file", "Reading the file ..."),
    ],
)
def test_what_goes_on_is_said_without_jargon(stage: str, said: str) -> None:
    assert describe_stage(stage) == said


def test_what_counts_as_work_is_said(annotated: Annotation) -> None:
    annotated.worked, annotated.steps = 125.0, 6
    said = describe_effort(annotated, 0)
    assert said.startswith("2 min 5 s, 6 steps. Each step that Undo takes back counts")
    assert "pauses up to 1 min" in said
    assert describe_effort(annotated, 4).startswith(
        "2 min 5 s, 6 steps: 1.5 per nucleus. "
    )


def test_what_was_rejected_is_no_nucleus() -> None:
    assert describe_progress(0) == "%v of %m nuclei reviewed"
    assert describe_progress(1200) == "%v of %m nuclei reviewed, 1,200 rejected"


def test_hidden_points_are_told_if_there_are_some(annotated: Annotation) -> None:
    assert describe_count(annotated) == "12 points shown."
    rows, prompts = np.arange(12), annotated.prompts
    prompts.score[:5] = annotated.threshold - 0.1
    prompts.score[5:] = annotated.threshold

    def said_without(hidden: np.ndarray) -> str:
        annotated.state = replace(
            annotated.state,
            prompts=prompts.select(~hidden),
            hidden=prompts.select(hidden),
        )
        return describe_count(annotated)

    assert said_without(rows < 5) == "7 points shown; hidden: 5 of a lower score."
    assert said_without(rows > 7) == (
        "8 points shown; hidden: 4 because of a reviewed region."
    )
    assert said_without(rows < 7) == (
        "5 points shown; hidden: 5 of a lower score, 2 because of a reviewed region."
    )


@pytest.mark.parametrize("width", [0.5, -0.5])
def test_the_diameter_in_a_mirrored_image_is_that_of_the_image(width: float) -> None:
    layer = Image(np.zeros((8, 8)), scale=(0.5, width), units=("um", "um"))
    told = describe_diameter(20, current_plane(layer, (0.0, 0.0)))
    assert told == "Typical diameter: 20 pixels = 10 µm."


@pytest.mark.parametrize(
    ("axes", "channels", "places", "way"),
    [
        ("zyx", (), "plane 3", "Move the slider to 3"),
        ("tzyx", (), "plane 3, 1", "Move the sliders to 3, 1"),
        (
            "zcyx",
            (),
            "plane 3, Channel 1, as shown",
            "Choose as shown under Channel and move the sliders to 3, 1",
        ),
        (
            "zcyx",
            (0, 1),
            "plane 3, Channel 0 and 1",
            "Choose 0 and 1 under Channel and move the slider to 3",
        ),
    ],
)
def test_the_way_to_nuclei_of_another_plane_is_told(
    axes: str, channels: tuple[int, ...], places: str, way: str
) -> None:
    data = np.zeros((*(4, 2)[: len(axes) - 2], 8, 8), np.uint8)
    layer = Image(data, axis_labels=tuple(axes))
    plane = current_plane(layer, (3.0, 1.0, 0.0, 0.0)[: len(axes)], channels)
    assert describe_elsewhere(plane) == (
        f"This image has nuclei in {places}. {way} to see them, or find nuclei here."
    )


def test_one_nucleus_is_told_as_one(annotated: Annotation) -> None:
    assert describe_imported(annotated).startswith("12 nuclei are there now.")
    prompts = annotated.prompts.select(np.array([0]))
    annotated.state = replace(annotated.state, prompts=prompts)
    assert describe_imported(annotated).startswith("1 nucleus is there now.")


@pytest.mark.parametrize(
    ("drawn", "said"),
    [(10, "2 nuclei got no mask."), (11, "1 nucleus got no mask."), (12, "(3.0 s).")],
)
def test_nuclei_without_a_mask_are_counted_as_nuclei(
    dock: SegmentWidget, annotated: Annotation, nuclei: Nuclei, drawn: int, said: str
) -> None:
    plane, choice = dock.images.plane(), dock.models.choice()
    segmented = Segmented(
        fresh=FreshLabels.after(KnownLabels(), nuclei.labels, plane),
        request=SegmentRequest(
            plane, annotated.prompts, choice, None, DecodeConfig(), 20.0
        ),
        masks={},
        embedding=None,
        image=nuclei.image,
        loaded=None,
        nuclei=drawn,
        recomputed=0,
        seconds={"decoding": 3.0},
    )
    assert describe_segmented(segmented, semantic=False).endswith(said)


def test_a_step_is_told_with_what_is_left(
    dock: SegmentWidget, annotated: Annotation
) -> None:
    dock.session.reject(annotated, np.array([0]))
    said = describe_step(dock.session.undo_title, annotated, undone=False)
    assert said == "Done: reject 1 nucleus. Now 11 nuclei."

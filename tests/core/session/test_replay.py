"""A session computes to the labels that it was saved with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sac.core.config import DecodeConfig
from napari_sac.core.errors import SessionError
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.models.adapter import SHIPPED_ADAPTERS
from napari_sac.core.session.changes import find_change, forward
from napari_sac.core.session.history import History
from napari_sac.core.session.image import ImageReference, hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.replay import replay
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from pathlib import Path

    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model


def segmented(nuclei: Nuclei, model: Model, mode: str) -> AnnotationState:
    """Return what a viewer has after Segment."""
    config = DecodeConfig(mode=mode, minimum_iou=0.0)
    found = segment_image(nuclei.image, model, None, config, diameter=20.0)
    return AnnotationState(
        prompts=found.prompts,
        hidden=Prompts.empty(),
        labels=found.labels,
        settings=Settings(
            model="tiny",
            adapter="he",
            diameter=20.0,
            decode=config,
            model_key=model.key,
        ),
    )


def save(folder: Path, state: AnnotationState, nuclei: Nuclei) -> None:
    """Write a session whose labels come by a step, and close it."""
    journal = Journal.create(folder)
    image = ImageReference(
        None, "cells", hash_pixels(nuclei.image), nuclei.image.shape[:2]
    )
    before = AnnotationState(
        Prompts.empty(), Prompts.empty(), np.zeros_like(state.labels)
    )
    change = find_change(
        "segment", before, state, PixelChange.between(before.labels, state.labels)
    )
    number = journal.add_annotation(image, before, nuclei.image)
    history = History()
    history.push(number, change)
    journal.push(history.done[-1])
    assert (forward(before, change).labels == state.labels).all()
    journal.close(clean=True)


@pytest.mark.parametrize("mode", ["instance", "semantic"])
def test_a_replay_gives_the_labels_of_the_session(
    nuclei: Nuclei, disc_model: Model, tmp_path: Path, mode: str
) -> None:
    state = segmented(nuclei, disc_model, mode)
    assert state.labels.any()
    save(tmp_path / "a.sac", state, nuclei)
    asked = []

    def load(name: str, *, adapter: str | None) -> Model:
        asked.append((name, adapter))
        return disc_model

    (result,) = replay(tmp_path / "a.sac", load=load)
    assert asked == [("tiny", "he")]
    np.testing.assert_array_equal(result.labels, state.labels)
    assert result.different_pixels == 0
    assert len(result.state.prompts) == len(state.prompts)


@pytest.mark.parametrize(
    ("recorded", "known"),
    [
        ("/of/another/computer/he", True),
        ("C:\\of\\another\\computer\\he", True),
        (f"/{'too_long' * 1000}/he", True),
        ("/of/another/computer/nobody_has_it", False),
    ],
)
def test_an_adapter_of_another_computer_is_the_one_of_its_name_here(
    nuclei: Nuclei, disc_model: Model, tmp_path: Path, recorded: str, known: bool
) -> None:
    state = segmented(nuclei, disc_model, "instance")
    state = replace(state, settings=replace(state.settings, adapter=recorded))
    save(tmp_path / "a.sac", state, nuclei)
    asked = []

    def load(name: str, *, adapter: str | None) -> Model:
        asked.append(adapter)
        return disc_model

    list(replay(tmp_path / "a.sac", load=load))
    assert asked == [str(SHIPPED_ADAPTERS / "he") if known else recorded]


def test_painted_nuclei_are_taken_as_they_are(
    nuclei: Nuclei, disc_model: Model, tmp_path: Path
) -> None:
    state = segmented(nuclei, disc_model, "instance")
    painted = int(state.labels.max())
    labels = state.labels.copy()
    labels[labels == painted] = 0
    labels[60:90, 70:120] = painted
    labels[10:15, 10:15] = 9999
    drawn = replace(state, labels=labels, painted=frozenset({painted, 9999}))
    save(tmp_path / "a.sac", drawn, nuclei)
    (result,) = replay(tmp_path / "a.sac", load=lambda name, adapter: disc_model)
    for number in (painted, 9999):
        np.testing.assert_array_equal(result.labels == number, labels == number)
    free = ~np.isin(labels, [painted, 9999]) & (state.labels != painted)
    assert (result.labels[free] == state.labels[free]).mean() > 0.99


def test_other_weights_and_missing_images_are_refused(
    nuclei: Nuclei, disc_model: Model, tmp_path: Path
) -> None:
    save(tmp_path / "a.sac", segmented(nuclei, disc_model, "instance"), nuclei)
    other = replace(disc_model, key="other")
    with pytest.raises(SessionError, match="other weights"):
        list(replay(tmp_path / "a.sac", load=lambda name, adapter: other))
    (tmp_path / "a.sac" / "image-1.tif").unlink()
    with pytest.raises(SessionError, match="'cells'"):
        list(replay(tmp_path / "a.sac", load=lambda name, adapter: disc_model))


def test_nothing_to_decode_is_no_error(
    nuclei: Nuclei, disc_model: Model, tmp_path: Path
) -> None:
    state = segmented(nuclei, disc_model, "instance")
    empty = replace(state, prompts=Prompts.empty(), labels=np.zeros_like(state.labels))
    save(tmp_path / "a.sac", empty, nuclei)
    (result,) = replay(tmp_path / "a.sac", load=lambda name, adapter: disc_model)
    assert not result.labels.any()

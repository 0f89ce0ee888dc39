"""Sessions as training data: what was reviewed is there, and why not if it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from synthetic import Nuclei, draw_nuclei

from napari_sac.core.errors import SessionError, TrainingDataError
from napari_sac.core.inference.imports import prompts_from_labels
from napari_sac.core.session.image import ImageReference, hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.state import AnnotationState
from napari_sac.core.training.session_data import read_reviewed_session
from napari_sac.core.types import Prompts, PromptState

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def drawn() -> Nuclei:
    return draw_nuclei((90, 100), 6, 9)


def as_proposed(drawn: Nuclei) -> AnnotationState:
    """Return the state of an image in which nobody has decided anything."""
    return AnnotationState(
        prompts_from_labels(drawn.labels),
        Prompts.empty(),
        drawn.labels.astype(np.uint32),
    )


def decide(state: AnnotationState, decisions: dict[int, PromptState]) -> Prompts:
    names = state.prompts.state.copy()
    for object_id, decision in decisions.items():
        names[state.prompts.object_id == object_id] = decision.value
    return replace(state.prompts, state=names)


def save(
    folder: Path, drawn: Nuclei, *states: AnnotationState, file: Path | None = None
) -> Path:
    """Write a session; its images are kept in it, or are in a file."""
    journal = Journal.create(folder)
    for i, state in enumerate(states):
        image = ImageReference(
            path=None if file is None else str(file),
            name=f"field {i}",
            sha256=hash_pixels(drawn.image),
            shape=(90, 100),
        )
        journal.add_annotation(image, state, drawn.image if file is None else None)
    journal.close(clean=True)
    return folder


def test_what_was_decided_is_learned_from(tmp_path: Path, drawn: Nuclei) -> None:
    proposed = as_proposed(drawn)
    decided = replace(
        proposed,
        prompts=decide(
            proposed,
            {1: PromptState.ACCEPTED, 2: PromptState.MOVED, 4: PromptState.ADDED},
        ),
        # as imported labels are that nobody has looked at
        painted=frozenset({3}),
    )
    folder = save(tmp_path / "cells.sac", drawn, decided, proposed)
    (one,) = read_reviewed_session(folder)
    assert one.name == "field 0"
    assert one.count == 3
    np.testing.assert_array_equal(one.image, drawn.image)
    assert (one.labels > 0)[np.isin(drawn.labels, [1, 2, 4])].all()
    assert not one.known[np.isin(drawn.labels, [3, 5, 6])].any()


def test_a_reviewed_region_is_known_ground(tmp_path: Path, drawn: Nuclei) -> None:
    corners = np.array([[0, 0], [0, 99], [89, 99], [89, 0.0]])
    state = replace(as_proposed(drawn), reviewed=(corners,))
    (one,) = read_reviewed_session(save(tmp_path / "cells.sac", drawn, state))
    assert one.count == 6
    assert one.known.mean() > 0.9


def test_one_mask_of_all_nuclei_is_refused(tmp_path: Path, drawn: Nuclei) -> None:
    corners = np.array([[0, 0], [0, 99], [89, 99], [89, 0.0]])
    state = replace(as_proposed(drawn), reviewed=(corners,))
    settings = replace(
        state.settings, decode=replace(state.settings.decode, mode="semantic")
    )
    folder = save(tmp_path / "cells.sac", drawn, replace(state, settings=settings))
    with pytest.raises(TrainingDataError, match="one mask of all nuclei"):
        read_reviewed_session(folder)


def test_an_image_is_found_by_its_reference(tmp_path: Path, drawn: Nuclei) -> None:
    accepted = dict.fromkeys(range(1, 7), PromptState.ACCEPTED)
    state = as_proposed(drawn)
    state = replace(state, prompts=decide(state, accepted))
    file = tmp_path / "away" / "field.png"
    folder = save(tmp_path / "cells.sac", drawn, state, file=file)
    with pytest.raises(TrainingDataError, match=r"Put the image back.*Nothing was ch"):
        read_reviewed_session(folder)
    Image.fromarray(drawn.image[::-1]).save(tmp_path / "field.png")
    with pytest.raises(TrainingDataError, match="other pixels"):
        read_reviewed_session(folder)


def test_a_missing_image_that_nobody_reviewed_is_not_missed(
    tmp_path: Path, drawn: Nuclei
) -> None:
    folder = save(
        tmp_path / "cells.sac", drawn, as_proposed(drawn), file=tmp_path / "gone.png"
    )
    with pytest.raises(TrainingDataError, match="nothing was reviewed"):
        read_reviewed_session(folder)


def test_what_is_no_session_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SessionError):
        read_reviewed_session(tmp_path)


def test_a_session_open_elsewhere_is_read(tmp_path: Path, drawn: Nuclei) -> None:
    state = as_proposed(drawn)
    state = replace(state, prompts=decide(state, {1: PromptState.ACCEPTED}))
    folder = save(tmp_path / "cells.sac", drawn, state)
    journal = Journal.open(folder)
    try:
        assert read_reviewed_session(folder)[0].count == 1
    finally:
        journal.close(clean=True)

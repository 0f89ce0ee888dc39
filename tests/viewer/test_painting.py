"""What other labels of the whole image mean for the nuclei."""

from __future__ import annotations

import numpy as np

from napari_sac.core.session.state import AnnotationState
from napari_sac.core.types import Prompts
from napari_sac.viewer.painting import read_stroke


def squares(**places: tuple[int, int]) -> np.ndarray:
    """Return labels (60, 60) with a square of 9 pixels' side at each place."""
    labels = np.zeros((60, 60), np.uint32)
    for name, (y, x) in places.items():
        labels[y : y + 9, x : x + 9] = int(name[1:])
    return labels


def test_many_nuclei_at_once_are_told_apart() -> None:
    before = squares(n1=(2, 2), n2=(2, 20), n3=(2, 40))
    prompts = Prompts.from_points(
        np.array([[6.0, 6], [6, 24], [6, 44], [50, 6]]), object_id=[1, 2, 3, 4]
    )
    hidden = Prompts.from_points(np.array([[30.0, 30], [30, 50]]), object_id=[7, 8])
    state = AnnotationState(prompts, hidden, before)
    # one trimmed, one wiped out, one as it was; two with ids of hidden proposals and
    # two that nobody knows
    after = squares(n3=(2, 40), n7=(20, 2), n8=(20, 20), n20=(40, 20), n30=(40, 40))
    after[2:11, 2:9] = 1
    stroke = read_stroke(state, after, (0, 0, 60, 60))
    assert stroke is not None
    assert stroke.renumbered == {7: 31, 8: 32}
    drawn = stroke.after.prompts
    new = drawn.select(drawn.object_id > 4)
    assert new.object_id.tolist() == [20, 30, 31, 32]
    assert new.yx.tolist() == [[44, 24], [44, 44], [24, 6], [24, 24]]
    assert set(new.state.tolist()) == {"added"}
    assert drawn.state[drawn.object_id == 2].tolist() == ["rejected"]
    assert drawn.state[drawn.object_id == 3].tolist() == ["auto"]
    assert stroke.after.painted == {1, 20, 30, 31, 32}
    shown = before.copy()
    stroke.pixels.write(shown)
    expected = after.copy()
    expected[20:29, 2:11], expected[20:29, 20:29] = 31, 32
    np.testing.assert_array_equal(shown, expected)


def test_a_nucleus_with_pixels_outside_of_the_box_is_not_gone() -> None:
    before = squares(n1=(2, 2), n2=(2, 20))
    prompts = Prompts.from_points(np.array([[6.0, 6], [6, 24]]), object_id=[1, 2])
    state = AnnotationState(prompts, Prompts.empty(), before)
    after = np.zeros((20, 20), np.uint32)
    stroke = read_stroke(state, after, (0, 5, 20, 25))
    assert stroke is not None
    assert "rejected" not in stroke.after.prompts.state.tolist()
    whole = np.zeros((20, 40), np.uint32)
    stroke = read_stroke(state, whole, (0, 0, 20, 40))
    assert stroke is not None
    assert stroke.after.prompts.state.tolist() == ["rejected", "rejected"]

"""What other labels of the whole image mean for the nuclei."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sac.core.session.state import AnnotationState
from napari_sac.core.types import Prompts
from napari_sac.viewer import painting
from napari_sac.viewer.painting import read_stroke

if TYPE_CHECKING:
    from collections.abc import Collection


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


def test_the_time_of_a_stroke_grows_with_its_nuclei_and_not_with_their_square() -> None:
    seconds = []
    for side in (100, 200):
        ids = np.arange(1, side**2 + 1, dtype=np.uint32)
        after = np.kron(ids.reshape(side, side), np.pad(np.ones((3, 3), np.uint32), 1))
        yx = np.argwhere(after[2::5, 2::5]) * 5.0 + 2
        points = Prompts.from_points(yx, object_id=ids)
        state = AnnotationState(points, Prompts.empty(), np.zeros_like(after))
        tries = []
        for _ in range(3):
            # of this program alone, however much else the machine computes
            started = time.process_time()
            stroke = read_stroke(state, after.copy(), (0, 0, *after.shape))
            tries.append(time.process_time() - started)
        assert stroke.title == f"paint {side**2:,} nuclei"
        seconds.append(min(tries))
    # four times as many; with each looked for among all, it is ten times as long
    assert seconds[1] < 7 * seconds[0]


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


@pytest.mark.parametrize("reach", [0, 4, 25])
def test_the_rest_of_a_nucleus_is_found_near_and_far(
    reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting, "_SEARCHED", reach)
    test_many_nuclei_at_once_are_told_apart()
    test_a_nucleus_with_pixels_outside_of_the_box_is_not_gone()


def test_a_stroke_on_a_nucleus_does_not_look_at_all_of_a_large_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = np.zeros((2000, 2000), np.uint32)
    before[1000:1020, 1000:1020] = 5
    prompts = Prompts.from_points(np.array([[1010.0, 1010]]), object_id=[5])
    state = AnnotationState(prompts, Prompts.empty(), before)
    looked_at: list[int] = []
    are_of = painting._are_of

    def noted(labels: np.ndarray, ids: Collection[int]) -> np.ndarray:
        looked_at.append(labels.size)
        return are_of(labels, ids)

    monkeypatch.setattr(painting, "_are_of", noted)
    after = before[1010:1030, 1000:1030].copy()
    after[2:, 2:] = 5
    stroke = read_stroke(state, after, (1010, 1000, 1030, 1030), brush=5)
    assert stroke is not None
    assert stroke.renumbered == {}
    assert sum(looked_at) < before.size / 2

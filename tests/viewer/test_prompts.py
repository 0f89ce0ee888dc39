"""Edits of prompt tables, without any layer."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts
from napari_sac.viewer import prompts as edits


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.intp)


def line(count: int = 4, **columns: object) -> Prompts:
    """Return points 10 pixels apart."""
    return Prompts.from_points([(0, 10 * i) for i in range(count)], **columns)


def test_an_edit_leaves_the_old_table_alone() -> None:
    before = line()
    edits.reject(before, rows(1))
    edits.negate(before, rows(1), 9)
    edits.move(before, rows(1), np.array([[5.0, 5.0]]))
    assert set(before.state) == {"auto"}
    assert set(before.sign) == {POSITIVE}
    np.testing.assert_array_equal(before.yx, line().yx)


def test_a_rejected_point_can_be_accepted() -> None:
    table = edits.accept(edits.reject(line(), rows(0, 1)), rows(1))
    assert list(table.state) == ["rejected", "accepted", "auto", "auto"]


def test_accepting_leaves_what_a_person_placed_what_it_is() -> None:
    # else its neighbours, and its own mask, would change by being called right
    table = line(state=["auto", "added", "moved", "rejected"])
    accepted = edits.accept(table, rows(0, 1, 2, 3))
    assert list(accepted.state) == ["accepted", "added", "moved", "accepted"]


def test_all_points_negated_have_no_nucleus_left() -> None:
    table = edits.negate(line(), rows(0, 1, 2, 3), 9)
    assert set(table.sign) == {NEGATIVE}
    assert edits.count_nuclei(table) == 0
    # and back: each its own nucleus again
    again = edits.negate(table, rows(0, 1, 2, 3), 9)
    assert list(again.object_id) == [9, 10, 11, 12]


def test_a_moved_negative_goes_to_the_nucleus_that_is_nearest_now() -> None:
    table = edits.negate(line(), rows(0), 9)
    assert table.object_id[0] == 2
    moved = edits.move(table, rows(0), np.array([[0.0, 29.0]]))
    assert moved.object_id[0] == 4


def test_many_negatives_go_to_the_nearest_without_a_look_at_all_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    table = Prompts.from_points(
        rng.uniform(0, 500, (400, 2)), sign=np.repeat([POSITIVE, NEGATIVE], 200)
    )
    negatives = np.arange(200, 400)
    parts = [edits.attach_negatives(table, part) for part in np.split(negatives, 10)]
    few = [part.object_id[20 * i + 200 :][:20] for i, part in enumerate(parts)]
    monkeypatch.setattr(edits.np, "argmin", pytest.fail)
    many = edits.attach_negatives(table, negatives)
    np.testing.assert_array_equal(many.object_id[200:], np.concatenate(few))


def test_of_many_nuclei_only_those_that_differ_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = line(400)
    looked_at: list[int] = []
    geometry = edits._geometry

    def count(prompts: Prompts) -> set:
        looked_at.append(len(prompts))
        return geometry(prompts)

    monkeypatch.setattr(edits, "_geometry", count)
    moved = edits.move(before, rows(7), np.array([[5.0, 5.0]]))
    more = edits.add(moved, np.array([[9.0, 9.0]]), POSITIVE, 401)
    turned = edits.negate(more, rows(3), 402)
    ids = before.object_id
    assert edits.reshaped_ids(before, turned) == {ids[7], 401, ids[3], ids[2]}
    assert looked_at == [2, 3]
    assert edits.reshaped_ids(before, edits.reject(before, rows(1))) == set()
    # of rows that went the others have other places
    fewer = edits.delete(turned, rows(20))
    assert edits.reshaped_ids(turned, fewer) == {ids[20]}


def test_objects_with_a_touched_point_are_kept_whole() -> None:
    table = line(4, object_id=[1, 1, 2, 3], score=0.1)
    table = edits.accept(table, rows(1))
    shown, hidden = edits.split_by_score(table, Prompts.empty(), 0.5)
    assert sorted(shown.object_id) == [1, 1]
    assert sorted(hidden.object_id) == [2, 3]


def test_new_proposals_do_not_repeat_what_was_touched() -> None:
    touched = edits.reject(line(2), rows(0, 1))
    proposals = line(4, score=0.5)
    table = edits.add_proposals(touched, proposals, diameter=12)
    assert len(table) == 4
    assert sorted(table.yx[:, 1]) == [0, 10, 20, 30]
    assert len(set(table.object_id)) == 4
    assert sorted(table.state) == ["auto", "auto", "rejected", "rejected"]


def test_a_proposal_with_its_negatives_is_dropped_whole() -> None:
    touched = edits.accept(line(1), rows(0))
    proposals = Prompts.from_points(
        [(0, 1), (50, 50), (0, 90)], object_id=[1, 1, 2], sign=[1, 0, 1]
    )
    table = edits.add_proposals(touched, proposals, diameter=10)
    assert len(table) == 2
    assert (table.yx == (50, 50)).all(axis=1).sum() == 0


def test_a_nucleus_counts_once_and_only_if_it_has_a_usable_point() -> None:
    table = line(5, object_id=[1, 1, 2, 3, 4], sign=[1, 1, 0, 1, 1])
    assert edits.count_nuclei(table) == 3
    assert edits.count_nuclei(edits.reject(table, rows(3))) == 2


def test_edits_of_no_rows_change_nothing() -> None:
    for table in (line(), Prompts.empty()):
        for result in (
            edits.accept(table, rows()),
            edits.negate(table, rows(), 5),
            edits.add(table, np.empty((0, 2)), POSITIVE, 5),
            edits.delete(table, rows()),
        ):
            assert len(result) == len(table)


def test_ids_count_on_from_shown_and_hidden_ones() -> None:
    assert edits.next_id(Prompts.empty()) == 1
    assert edits.next_id(line(3), line(1, object_id=[8])) == 9
    assert edits.next_id(line(3), labels=np.array([[0, 7]], np.uint32)) == 8
    # the largest label there can be
    assert edits.next_id(line(3), line(2, object_id=[8, 2**32 - 1])) == 9
    assert edits.next_id(labels=np.array([5, 2**32 - 1], np.uint32)) == 6

"""What is said of the nucleus under review, and that an accepted one stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from annotating import add_nuclei, add_to_nucleus, import_labels
from app_model.types import KeyBinding

from napari_sac.core.inference import review as doubts
from napari_sac.core.session.replay import compute_labels
from napari_sac.core.types import POSITIVE, ObjectMask, Prompts
from napari_sac.viewer.results import LITTLE_FOUND

if TYPE_CHECKING:
    import pytest
    from conftest import Bench

    from napari_sac.viewer.annotation import Annotation


def covering_mask(annotation: Annotation, owner: int, object_id: int) -> ObjectMask:
    """Return the mask of a nucleus that lies where the pixels of another are."""
    own = annotation.state.labels == owner
    rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    y, x = int(rows[0]), int(columns[0])
    part = own[y : rows[-1] + 1, x : columns[-1] + 1]
    logits = np.where(part, 2, -2).astype(np.float32)
    return ObjectMask(object_id, (y, x), logits, 0.9, b"")


def test_of_a_nucleus_without_a_mask_it_is_said_which_one_covers_it(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    labels, review = annotation.state.labels, bench.session.review
    owner, hidden = np.unique(labels[labels > 0]).tolist()[:2]
    labels[labels == hidden] = 0
    annotation.masks[hidden] = covering_mask(annotation, owner, hidden)
    review.go(annotation, 1)
    while review.current != hidden:
        review.go(annotation, 1)
    (reason,) = review.progress(annotation).reasons
    assert reason.startswith(f"no mask of its own, covered by nucleus {owner}.")
    assert "Merge the two" in reason
    rows = np.flatnonzero(annotation.prompts.object_id == hidden)
    bench.session.accept(annotation, rows)
    assert review.progress(annotation).decision == (
        f"accepted, but no mask of its own, covered by nucleus {owner}"
    )


def test_the_reasons_are_relative_to_the_other_nuclei(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    review = bench.session.review
    ids = annotation.prompts.object_id.tolist()
    for object_id in ids:
        y, x = 10 * object_id, 0
        annotation.state.labels[y : y + 9, x : x + 9] = object_id
        logits = np.full((9, 9), 2, np.float32)
        iou = 0.5 - 0.001 * object_id
        annotation.masks[object_id] = ObjectMask(object_id, (y, x), logits, iou, b"")
    # as the step would have done that brings other masks
    bench.session.steps.changes += 1
    review.go(annotation, 1)
    said = []
    for _ in ids:
        said.append(review.progress(annotation).reasons)
        review.go(annotation, 1)
    assert said[0]
    assert sum(map(bool, said)) <= 3


def test_a_review_begins_with_what_the_segmentation_has_computed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find()
    segmented = bench.segment(annotation)
    doubted: list[int] = []
    compute = doubts.doubt

    def count(masks, prompts: Prompts, *args):
        doubted.append(len(prompts))
        return compute(masks, prompts, *args)

    monkeypatch.setattr(doubts, "doubt", count)
    bench.session.go(annotation, 1)
    assert 12 not in doubted
    state = annotation.state
    now = compute(
        annotation.masks, state.prompts, state.labels, state.settings.diameter
    )
    np.testing.assert_array_equal(now.object_id, segmented.doubts.object_id)
    np.testing.assert_array_equal(now.doubt, segmented.doubts.doubt)
    assert bench.session.review.current == now.object_id[0]
    # after a change it is found again
    bench.segment(annotation)
    bench.session.accept(annotation, np.array([0]))
    bench.session.review.sort_again(annotation)
    bench.session.go(annotation, 1)
    assert 12 in doubted


def test_where_a_point_gave_next_to_nothing_it_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    # a random model thinks little of its masks
    monkeypatch.setattr(doubts, "_LITTLE", 1.0)
    add_nuclei(annotation, np.array([[80.0, 100.0]]))
    bench.decode()
    assert told == []
    monkeypatch.setattr(doubts, "_LITTLE", -1.0)
    add_nuclei(annotation, np.array([[150.0, 100.0]]))
    bench.decode()
    assert told == [LITTLE_FOUND]
    # a further point of a nucleus, and one that was accepted, are no new ones
    add_to_nucleus(bench.session, annotation, np.array([81.0, 101.0]), POSITIVE)
    bench.session.accept(annotation, np.array([0]))
    bench.decode()
    assert told == [LITTLE_FOUND]
    add_nuclei(annotation, np.array([[5.0, 5.0], [5.0, 100.0]]))
    bench.decode()
    assert told[1:] == ["Little was found at 2 of 2 points."]


def test_of_proposals_that_are_shown_again_nothing_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find(score_threshold=0.9)
    bench.segment(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    monkeypatch.setattr(doubts, "_LITTLE", -1.0)
    bench.session.set_threshold(annotation, 0.3)
    bench.decode()
    assert told == []


def test_an_accepted_nucleus_stays_as_it_was_on_the_screen(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    labels = annotation.state.labels
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    chosen = int(areas.argmax())
    rows = np.flatnonzero(annotation.prompts.object_id == chosen)
    before = labels.copy()
    bench.session.accept(annotation, rows)
    bench.decode()
    np.testing.assert_array_equal(annotation.state.labels, before)
    # around it, but not in it
    y, x = np.argwhere(before == chosen).mean(axis=0)
    places = np.array([[y + dy, x + dx] for dy in (-14, 14) for dx in (-14, 14)])
    outside = [p for p in places if before[tuple(np.rint(p).astype(int))] != chosen]
    add_nuclei(annotation, np.array(outside))
    bench.decode()
    np.testing.assert_array_equal(annotation.state.labels == chosen, before == chosen)
    now = annotation.state.labels.copy()
    replayed = compute_labels(bench.plane.read(), annotation.state, bench.loaded.model)
    np.testing.assert_array_equal(replayed, now)
    bench.segment(annotation)
    np.testing.assert_array_equal(annotation.state.labels == chosen, before == chosen)
    bench.session.undo()
    bench.session.undo()
    np.testing.assert_array_equal(annotation.state.labels, before)


def test_the_model_draws_an_accepted_nucleus_again_when_asked(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = annotation.state.labels.copy()
    chosen = int(np.bincount(before[before > 0]).argmax())
    own = annotation.prompts.object_id == chosen
    bench.session.accept(annotation, np.flatnonzero(own))
    bench.decode()
    other = int(annotation.prompts.object_id[~own][0])
    kept = annotation.state.labels == chosen
    # as after a neighbour that had taken some of it is gone
    annotation.state.labels[
        kept & (np.arange(kept.size).reshape(kept.shape) % 2 > 0)
    ] = 0
    bench.session.reject(
        annotation, np.flatnonzero(annotation.prompts.object_id == other)
    )
    bench.decode()
    assert (annotation.state.labels == chosen).sum() < kept.sum()
    bench.session.redraw(annotation, {chosen})
    bench.decode()
    assert set(annotation.prompts.state[own]) == {"auto"}
    assert (annotation.state.labels[kept] == chosen).all()
    assert bench.session.undo_title == "redraw 1 nucleus"
    bench.session.undo()
    assert set(annotation.prompts.state[own]) == {"accepted"}


def test_who_has_no_key_for_it_is_told_of_the_button(bench: Bench) -> None:
    labels = np.zeros(bench.plane.shape, np.uint32)
    labels[20:60, 20:60] = 1
    annotation = import_labels(bench.session, bench.plane, labels)
    bench.session.accept(annotation, np.array([0]))
    told: list[str] = []
    bench.session.told.connect(told.append)
    for keys, way in (({}, "R, or More tools"), ({"redraw": ""}, "More tools")):
        bench.session.set_keys(keys)
        add_nuclei(annotation, np.array([[30.0, 30.0]]))
        assert told[-1] == (
            "This nucleus was painted or accepted as it is, so its pixels stay. "
            f"Press {way} > Draw again, to let the model draw it."
        )


def test_going_to_a_nucleus_gives_it_the_keys_to_decide_with(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    selection = bench.viewer.layers.selection
    selection.active = bench.layer
    bench.session.review.go(annotation, 1)
    assert selection.active is annotation.points
    # who paints goes on painting
    selection.active = annotation.labels
    bench.session.review.go(annotation, 1)
    assert selection.active is annotation.labels


def test_keys_in_the_labels_mean_the_nucleus_under_review_until_the_mouse_moves(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    layer, review = annotation.labels, bench.session.review
    bench.viewer.layers.selection.active = layer
    ids = annotation.prompts.object_id
    seen = int(
        np.bincount(annotation.state.labels[annotation.state.labels > 0]).argmax()
    )
    place = np.argwhere(annotation.state.labels == seen)[0]
    # what the mouse was over before the view went to another nucleus
    bench.viewer.cursor.position = tuple(layer.data_to_world(place))
    review.go(annotation, 1)
    if review.current == seen:
        review.go(annotation, 1)
    shown = review.current
    layer.keymap[KeyBinding.from_str("Q")](layer)
    rejected = annotation.prompts.state == "rejected"
    assert ids[rejected].tolist() == [shown]
    bench.viewer.cursor.position = tuple(layer.data_to_world(place + 0.1))
    layer.keymap[KeyBinding.from_str("W")](layer)
    accepted = annotation.prompts.state == "accepted"
    assert ids[accepted].tolist() == [seen]

"""What was found and drawn, when much has changed since it was asked for."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from annotating import add_nuclei, add_to_nucleus, import_labels
from napari.layers import Points
from synthetic import build_tiny_model

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.inference.review import doubt
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.history import History
from napari_sac.core.session.replay import compute_labels
from napari_sac.core.types import POSITIVE
from napari_sac.viewer import annotation as annotation_module
from napari_sac.viewer.inference import (
    FindRequest,
    LoadedModel,
    ModelChoice,
    SegmentRequest,
    find_nuclei,
    segment,
)
from napari_sac.viewer.live import decode_live
from napari_sac.viewer.relabelling import KnownLabels

if TYPE_CHECKING:
    import pytest
    from conftest import Bench
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation


def rows_of(annotation: Annotation, object_id: int) -> np.ndarray:
    return np.flatnonzero(annotation.prompts.object_id == object_id)


def check_labels(bench: Bench, annotation: Annotation) -> None:
    """The labels are those that the prompts give."""
    state = annotation.state
    expected = compute_labels(bench.plane.read(), state, bench.loaded.model)
    np.testing.assert_array_equal(state.labels, expected)


def ask_for_nuclei(bench: Bench) -> FindRequest:
    return FindRequest(
        bench.plane,
        bench.loaded.choice,
        bench.loaded,
        ProposalConfig(score_threshold=0.3),
        diameter=20,
    )


def ask_for_labels(
    bench: Bench, annotation: Annotation, loaded: LoadedModel
) -> SegmentRequest:
    return SegmentRequest(
        bench.plane,
        annotation.prompts,
        loaded.choice,
        loaded,
        DecodeConfig(minimum_iou=0, overlap_threshold=1),
        annotation.diameter,
        annotation.embedding,
        annotation.masks,
        KnownLabels.of(annotation),
        annotation.painted,
        foreground=annotation.foreground,
    )


def test_corrections_that_segment_has_drawn_are_drawn_when_it_is_undone(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    session, first, second = bench.session, *annotation.prompts.object_id[:2].tolist()
    session.live.hold(True)
    session.reject(annotation, rows_of(annotation, first))
    near = annotation.prompts.yx[rows_of(annotation, second)[0]] + (3, 2)
    add_to_nucleus(session, annotation, near, POSITIVE)
    bench.segment(annotation)
    assert not (annotation.state.labels == first).any()
    session.undo()
    session.live.hold(False)
    # anything else that asks for a mask, and also if that is taken back
    for place in ((5.0, 5.0), (150.0, 5.0)):
        add_nuclei(annotation, np.array([place]))
        assert bench.decode()
        check_labels(bench, annotation)
        assert not (annotation.state.labels == first).any()
        session.undo()


def test_masks_of_old_steps_are_let_go_and_their_undo_is_right_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_module, "MOST_REMEMBERED_MASKS", 15)
    annotation = bench.find()
    bench.segment(annotation)
    first, count = bench.loaded, len(annotation.masks)
    assert count > 7
    old = [weakref.ref(mask) for mask in annotation.masks.values()]
    # other models draw all anew: the last step has more masks than that, with those
    # before it
    for seed in (1, 2):
        model = build_tiny_model(seed=seed)
        bench.loaded = LoadedModel(ModelChoice(f"other {seed}"), model)
        bench.segment(annotation)
    gc.collect()
    assert not any(ref() for ref in old)
    for _ in range(3):
        bench.session.undo()
    bench.session.redo()
    bench.session.loaded = bench.loaded = first
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert bench.decode()
    check_labels(bench, annotation)


def test_what_was_accepted_while_segmenting_keeps_its_pixels(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = annotation.state.labels.copy()
    first, second = annotation.prompts.object_id[:2].tolist()
    other = LoadedModel(ModelChoice("other"), build_tiny_model(seed=5))
    segmented = segment(ask_for_labels(bench, annotation, other), ignore_progress)
    of_other = [segmented.fresh.labels == k for k in (first, second)]
    assert not np.array_equal(of_other[0], before == first)
    bench.session.accept(annotation, rows_of(annotation, first))
    bench.session.show_labels(annotation, bench.plane, segmented)
    labels = annotation.state.labels
    np.testing.assert_array_equal(labels == first, before == first)
    free = before != first
    np.testing.assert_array_equal((labels == second)[free], of_other[1][free])
    bench.session.undo()
    np.testing.assert_array_equal(annotation.state.labels, before)


def test_of_one_mask_of_all_nuclei_nothing_is_kept_for_one_accepted_meanwhile(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation, "semantic")
    # all nuclei have the label of this one
    (row,) = rows_of(annotation, 1)
    asked = replace(bench.ask_for_labels(annotation), drawn_as="semantic")
    segmented = segment(asked, ignore_progress)
    bench.session.accept(annotation, np.array([row]))
    bench.session.show_labels(annotation, bench.plane, segmented)
    np.testing.assert_array_equal(annotation.state.labels, segmented.fresh.labels)


def test_corrections_are_drawn_when_finding_is_undone(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    session, first = bench.session, int(annotation.prompts.object_id[0])
    session.live.hold(True)
    session.reject(annotation, rows_of(annotation, first))
    bench.find()
    session.live.hold(False)
    bench.decode()
    session.undo()
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert bench.decode()
    check_labels(bench, annotation)
    assert not (annotation.state.labels == first).any()


def test_corrections_are_drawn_when_an_import_is_undone(
    bench: Bench, nuclei: Nuclei
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    session, first = bench.session, int(annotation.prompts.object_id[0])
    session.live.hold(True)
    session.reject(annotation, rows_of(annotation, first))
    import_labels(session, bench.plane, nuclei.labels)
    session.live.hold(False)
    session.undo()
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert bench.decode()
    check_labels(bench, annotation)
    assert not (annotation.state.labels == first).any()


def test_segmenting_nothing_keeps_the_embedding(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    embedding = annotation.embedding
    bench.session.reject(annotation, np.arange(len(annotation.prompts)))
    other = LoadedModel(ModelChoice("other"), build_tiny_model(seed=5))
    segmented = segment(ask_for_labels(bench, annotation, other), ignore_progress)
    assert segmented.nuclei == 0
    assert segmented.embedding is None
    bench.session.show_labels(annotation, bench.plane, segmented)
    assert annotation.embedding is embedding


def test_points_lie_on_an_image_that_moved_while_they_were_found(bench: Bench) -> None:
    found = find_nuclei(ask_for_nuclei(bench), ignore_progress)
    bench.layer.scale, bench.layer.translate = (2, 3), (7, 8)
    annotation = bench.session.show_proposals(bench.plane, found, 0.3)
    np.testing.assert_array_equal(annotation.points.scale, (2, 3))
    np.testing.assert_array_equal(annotation.points.translate, (7, 8))


def test_points_that_were_pasted_outlive_finding(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    assert isinstance(layer, Points)
    layer.selected_data = {0}
    layer._copy_data()
    found = find_nuclei(ask_for_nuclei(bench), ignore_progress)
    layer._paste_data()
    pasted = layer.data[-1]
    bench.session.show_proposals(bench.plane, found, 0.3)
    assert (annotation.prompts.yx == pasted).all(1).any()
    assert "added" in annotation.prompts.state.tolist()


def test_a_late_mask_does_not_replace_what_was_found_since(bench: Bench) -> None:
    annotation = bench.find()
    add_nuclei(annotation, np.array([[80.0, 100.0]]))
    late = decode_live(bench.session.live.next_request(), ignore_progress)
    other = LoadedModel(ModelChoice("other"), build_tiny_model(seed=5))
    request = FindRequest(
        bench.plane, other.choice, other, ProposalConfig(), diameter=30
    )
    found = find_nuclei(request, ignore_progress)
    bench.session.show_proposals(bench.plane, found)
    bench.session.live.take(late)
    assert bench.session.loaded is other
    assert annotation.foreground is found.foreground
    assert annotation.embedding is None


def test_an_embedding_leaves_what_was_seen_at_another_scale(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    old = annotation.embedding
    request = FindRequest(
        bench.plane, bench.loaded.choice, bench.loaded, ProposalConfig(), diameter=30
    )
    found = find_nuclei(request, ignore_progress)
    bench.session.show_proposals(bench.plane, found)
    annotation.embed(old)
    assert annotation.foreground is found.foreground


def test_the_most_doubtful_of_new_masks_is_reviewed_first(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    review = bench.session.review
    review.go(annotation, 1)
    review.go(annotation, 1)
    other = LoadedModel(ModelChoice("other"), build_tiny_model(seed=5))
    segmented = segment(ask_for_labels(bench, annotation, other), ignore_progress)
    assert segmented.recomputed
    bench.session.show_labels(annotation, bench.plane, segmented)
    state = annotation.state
    table = doubt(
        annotation.masks, state.prompts, state.labels, state.settings.diameter
    )
    assert review.go(annotation, 1) == table.object_id[0]


def test_clicks_are_decoded_where_the_user_says_now(bench: Bench) -> None:
    annotation = bench.find()
    assert bench.session.loaded.choice.device == "auto"
    bench.session.device = "cpu"
    assert bench.session.scene(annotation).choice.device == "cpu"


def test_masks_of_steps_that_cannot_come_back_are_let_go(bench: Bench) -> None:
    annotation = bench.find()
    segmented = bench.segment(annotation)
    mask = weakref.ref(next(iter(segmented.masks.values())))
    del segmented
    bench.session.undo()
    gc.collect()
    assert mask() is not None, "redo brings it back"
    bench.session.accept(annotation, np.array([0]))
    gc.collect()
    assert mask() is None


def test_masks_of_steps_beyond_the_limit_are_let_go(bench: Bench) -> None:
    bench.session.steps.history = History(limit=2)
    annotation = bench.find()
    bench.segment(annotation)
    first = annotation.masks[int(annotation.prompts.object_id[0])]
    mask = weakref.ref(first)
    del first
    forget = annotation.prompts.object_id == annotation.prompts.object_id[0]
    annotation.points.selected_data = set(np.flatnonzero(forget).tolist())
    annotation.points.remove_selected()
    bench.decode()
    bench.session.accept(annotation, np.array([0]))
    gc.collect()
    assert mask() is not None, "undo of the deletion brings it back"
    bench.session.accept(annotation, np.array([1]))
    gc.collect()
    assert mask() is None

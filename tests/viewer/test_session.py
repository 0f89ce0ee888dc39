"""Prompts and labels of a session, as a person changes them with napari's tools."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from annotating import add_nuclei, import_labels, press
from app_model.types import KeyBinding
from napari.layers import Points

from napari_sac.core.inference import embedding as embedding_module
from napari_sac.core.inference.embedding import embedding_key
from napari_sac.core.io import normalise_image
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.journal import Journal
from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts, PromptState
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.drawing import REGIONS_STAY
from napari_sac.viewer.editing import nucleus_at
from napari_sac.viewer.gestures import ONE_MASK
from napari_sac.viewer.live import decode_live
from napari_sac.viewer.prompts import STATE_COLOURS
from napari_sac.viewer.session import AnnotationSession
from napari_sac.viewer.strokes import take_stroke
from napari_sac.viewer.view import SMALLEST

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

    from napari_sac.viewer.annotation import Annotation


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.intp)


def copy_and_paste(layer: Points) -> None:
    """Do what Ctrl+C and Ctrl+V do; napari emits no event for it."""
    for key in ("Ctrl+C", "Ctrl+V"):
        layer.class_keymap[KeyBinding.from_str(key)](layer)


def check_layer(annotation: Annotation) -> None:
    """The layer shows just what the session knows."""
    layer, prompts = annotation.points, annotation.prompts
    np.testing.assert_array_equal(layer.data, prompts.yx)
    np.testing.assert_array_equal(layer.features["object_id"], prompts.object_id)
    np.testing.assert_array_equal(layer.features["state"], prompts.state)
    signs = np.where(prompts.sign == POSITIVE, "+", "-")
    np.testing.assert_array_equal(layer.features["sign"], signs)
    symbols = np.where(prompts.sign == POSITIVE, "disc", "hbar")
    np.testing.assert_array_equal([str(s) for s in layer.symbol], symbols)
    for state in PromptState:
        colours = layer.border_color[prompts.state == state.value]
        if len(colours):
            expected = [int(STATE_COLOURS[state][i : i + 2], 16) for i in (1, 3, 5)]
            np.testing.assert_allclose(colours[:, :3] * 255, [expected] * len(colours))
    assert len(set(prompts.object_id[prompts.sign == POSITIVE])) == np.sum(
        prompts.sign == POSITIVE
    )


def test_points_lie_in_the_nuclei_and_where_the_image_lies(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    assert layer in bench.viewer.layers
    assert layer.name == "nuclei prompts [field]"
    np.testing.assert_array_equal(layer.scale, (0.5, 0.25))
    np.testing.assert_array_equal(layer.translate, (10, 20))
    assert [str(u) for u in layer.units] == ["micrometer"] * 2
    assert layer.axis_labels == ("y", "x")
    assert len(annotation.prompts) == 12
    check_layer(annotation)
    # pixels with other edges in the world, and points that a mouse can hit
    assert 4 < layer.size[0] < 20


def test_points_can_be_clicked_and_hide_no_nucleus(bench: Bench) -> None:
    smallest, largest = bench.find().points.canvas_size_limits
    # a small nucleus that is enlarged to be judged is 40 of these pixels
    assert 6 <= smallest <= 10
    assert largest <= SMALLEST / 2


def test_the_threshold_filters_and_brings_back(bench: Bench) -> None:
    annotation = bench.find()
    scores = np.sort(annotation.prompts.score)
    bench.session.set_threshold(annotation, float(scores[5]))
    assert len(annotation.prompts) == 7
    check_layer(annotation)
    bench.session.set_threshold(annotation, 0.0)
    assert len(annotation.prompts) == 12
    bench.session.set_threshold(annotation, 1.0)
    assert len(annotation.points.data) == len(annotation.prompts)


def test_touched_points_stay_whatever_the_threshold(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.reject(annotation, rows(2))
    bench.session.accept(annotation, rows(3))
    annotation.points.add([5.0, 5.0])
    bench.session.set_threshold(annotation, 1.0)
    kept = set(annotation.prompts.state)
    assert {"rejected", "accepted", "added"} <= kept
    bench.session.set_threshold(annotation, 0.0)
    assert len(annotation.prompts) == 13
    check_layer(annotation)


def test_a_deleted_point_does_not_come_back(bench: Bench) -> None:
    annotation = bench.find()
    gone = annotation.prompts.object_id[[1, 4]]
    annotation.points.selected_data = {1, 4}
    annotation.points.remove_selected()
    assert not np.isin(gone, annotation.prompts.object_id).any()
    bench.session.set_threshold(annotation, 0.9)
    bench.session.set_threshold(annotation, 0.0)
    assert len(annotation.prompts) == 10
    check_layer(annotation)


def test_an_added_point_is_a_new_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.selected_data = {3}
    annotation.points.add([7.0, 9.0])
    assert len(annotation.prompts) == 13
    assert annotation.prompts.state[-1] == "added"
    assert annotation.prompts.score[-1] == 1
    check_layer(annotation)


def test_a_point_can_be_added_to_an_emptied_layer(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.remove(list(range(12)))
    assert len(annotation.prompts) == 0
    annotation.points.add([7.0, 9.0])
    check_layer(annotation)


def test_a_dragged_point_is_moved_and_keeps_its_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    before = annotation.prompts
    data = annotation.points.data.copy()
    data[2] += 3
    annotation.points.data = data
    assert annotation.prompts.state[2] == "moved"
    assert annotation.prompts.object_id[2] == before.object_id[2]
    assert np.sum(annotation.prompts.state == "moved") == 1
    check_layer(annotation)


def test_pasted_points_are_nuclei_of_their_own(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    layer.selected_data = {0, 1}
    copy_and_paste(layer)
    layer.selected_data = {13}
    press(layer, "Q")
    assert list(annotation.prompts.state[12:]) == ["added", "rejected"]
    check_layer(annotation)


def test_many_points_are_pasted_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find()
    added: list[int] = []
    add = edits.add

    def count(prompts: Prompts, yx: np.ndarray, *args: int) -> Prompts:
        added.append(len(yx))
        return add(prompts, yx, *args)

    monkeypatch.setattr(edits, "add", count)
    annotation.points.selected_data = set(range(12))
    copy_and_paste(annotation.points)
    bench.session.sync(annotation)
    assert added == [12]
    first = int(annotation.prompts.object_id[:12].max()) + 1
    assert annotation.prompts.object_id[12:].tolist() == list(range(first, first + 12))
    check_layer(annotation)


def test_deleting_a_pasted_point_deletes_that_point(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    layer.selected_data = {0, 1}
    copy_and_paste(layer)
    before = layer.data.copy()
    layer.remove([3, 12])
    np.testing.assert_array_equal(annotation.prompts.yx, np.delete(before, [3, 12], 0))
    check_layer(annotation)


@pytest.mark.parametrize(
    ("key", "state"), [("W", "accepted"), ("Q", "rejected"), ("N", "added")]
)
def test_keys_change_the_selected_points(bench: Bench, key: str, state: str) -> None:
    annotation = bench.find()
    annotation.points.selected_data = {1, 5}
    press(annotation.points, key)
    assert set(np.flatnonzero(annotation.prompts.state == state)) == {1, 5}
    assert annotation.points.selected_data == {1, 5}
    check_layer(annotation)


def test_without_a_selection_a_key_changes_the_point_under_the_mouse(
    bench: Bench,
) -> None:
    annotation = bench.find()
    annotation.points.selected_data = set()
    bench.viewer.cursor.position = annotation.points.data_to_world(
        annotation.prompts.yx[4]
    )
    press(annotation.points, "W")
    assert list(np.flatnonzero(annotation.prompts.state == "accepted")) == [4]
    bench.viewer.cursor.position = annotation.points.data_to_world((-50, -50))
    press(annotation.points, "Q")
    assert "rejected" not in annotation.prompts.state


def test_keys_in_the_labels_change_the_nucleus_under_the_mouse(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    labels = annotation.labels
    chosen = annotation.prompts.object_id[6]
    labels.data[100:110, 100:110] = chosen
    labels.refresh()
    bench.viewer.cursor.position = labels.data_to_world((105, 105))
    press(labels, "Q")
    assert list(np.flatnonzero(annotation.prompts.state == "rejected")) == [6]


def test_a_negated_point_belongs_to_the_nearest_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    before = annotation.prompts
    distance = np.linalg.norm(before.yx - before.yx[0], axis=1)
    nearest = before.object_id[np.argsort(distance)[1]]
    bench.session.negate(annotation, rows(0))
    assert annotation.prompts.sign[0] == NEGATIVE
    assert annotation.prompts.object_id[0] == nearest
    bench.session.negate(annotation, rows(0))
    assert annotation.prompts.sign[0] == POSITIVE
    assert annotation.prompts.object_id[0] not in before.object_id
    check_layer(annotation)


def test_a_negative_point_can_be_added(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.added_sign = NEGATIVE
    annotation.points.add(annotation.prompts.yx[5] + 12)
    assert annotation.prompts.sign[-1] == NEGATIVE
    assert annotation.prompts.object_id[-1] in annotation.prompts.object_id[:-1]
    check_layer(annotation)


def test_a_negative_is_not_given_to_a_rejected_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    distance = np.linalg.norm(annotation.prompts.yx - annotation.prompts.yx[0], axis=1)
    near = np.argsort(distance)[1]
    bench.session.reject(annotation, rows(near))
    bench.session.negate(annotation, rows(0))
    owner = annotation.prompts.object_id[0]
    assert owner != annotation.prompts.object_id[near]
    assert owner in annotation.prompts.object_id[1:]


def test_typing_into_the_features_table_counts(bench: Bench) -> None:
    annotation = bench.find()
    table = annotation.points.features.copy()
    table.loc[2, "state"] = "rejected"
    table.loc[3, "sign"] = "-"
    annotation.points.features = table
    assert annotation.prompts.state[2] == "rejected"
    assert annotation.prompts.sign[3] == NEGATIVE
    assert annotation.prompts.object_id[3] in np.delete(annotation.prompts.object_id, 3)
    assert annotation.prompts.state[3] == "added"
    check_layer(annotation)


def test_nonsense_in_the_features_table_is_taken_back(bench: Bench) -> None:
    annotation = bench.find()
    before = annotation.prompts
    table = annotation.points.features.astype(object)
    table.loc[0, "state"] = "perhaps"
    table.loc[1, "sign"] = "?"
    table.loc[2, "object_id"] = "many"
    table.loc[3, "score"] = 17
    table.loc[4, "object_id"] = -3
    table.loc[5, "score"] = np.nan
    annotation.points.features = table
    for name in ("object_id", "sign", "state", "score"):
        np.testing.assert_array_equal(
            getattr(annotation.prompts, name), getattr(before, name)
        )
    bench.session.accept(annotation, rows(0))
    check_layer(annotation)


def test_a_features_table_without_our_columns_changes_nothing(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.features = pd.DataFrame({"mine": range(12)})
    bench.session.reject(annotation, rows(1))
    assert annotation.prompts.state[1] == "rejected"
    check_layer(annotation)


def test_labels_carry_the_object_ids_and_lie_on_the_image(bench: Bench) -> None:
    annotation = bench.find()
    segmented = bench.segment(annotation)
    layer = annotation.labels
    assert layer in bench.viewer.layers
    assert layer.name == "nuclei [field]"
    assert layer.data.shape == (160, 200)
    np.testing.assert_array_equal(layer.scale, (0.5, 0.25))
    np.testing.assert_array_equal(layer.translate, (10, 20))
    assert set(np.unique(layer.data)) <= {0, *annotation.prompts.object_id.tolist()}
    assert segmented.nuclei == len(set(np.unique(layer.data)) - {0})
    assert segmented.recomputed == 12
    # the points stay on top, and the keys stay with them
    assert bench.viewer.layers[-1] is annotation.points
    assert bench.viewer.layers.selection.active is annotation.points


def test_only_what_changed_is_computed_again(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    embedding = annotation.embedding
    assert bench.segment(annotation).recomputed == 0
    assert annotation.embedding is embedding
    annotation.points.add([80.0, 100.0])
    again = bench.segment(annotation)
    # the new one, and those that have it as their neighbour
    assert 1 <= again.recomputed < 6
    assert len(again.masks) == 13
    assert bench.segment(annotation).recomputed == 0


def test_rejected_points_make_no_mask(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.reject(annotation, rows(0, 1, 2))
    segmented = bench.segment(annotation)
    rejected = set(annotation.prompts.object_id[:3].tolist())
    assert not rejected & set(segmented.masks)
    assert not rejected & set(np.unique(annotation.labels.data).tolist())


def test_nothing_to_segment_gives_empty_labels(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.reject(annotation, np.arange(12))
    segmented = bench.segment(annotation)
    assert segmented.nuclei == 0
    assert not annotation.labels.data.any()


def test_an_image_without_nuclei_gives_an_empty_layer(bench: Bench) -> None:
    bench.layer.data = np.zeros((40, 50, 3), np.uint8)
    annotation = bench.find()
    assert len(annotation.points.data) == 0
    assert bench.segment(annotation).nuclei == 0


def test_proposals_with_negatives_are_one_nucleus(bench: Bench) -> None:
    annotation = bench.find(strategy="probability")
    negative = annotation.prompts.sign == NEGATIVE
    assert negative.any()
    assert set(annotation.prompts.object_id[negative]) <= set(
        annotation.prompts.object_id[~negative]
    )
    check_layer(annotation)
    assert set(bench.segment(annotation).masks) == set(
        annotation.prompts.object_id.tolist()
    )


def test_semantic_mode_gives_one_mask(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation, mode="semantic")
    assert set(np.unique(annotation.labels.data)) <= {0, 1}


def test_finding_again_keeps_what_was_touched(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.reject(annotation, rows(0))
    bench.session.accept(annotation, rows(1))
    annotation.points.add([2.0, 3.0])
    layer = annotation.points
    touched = annotation.prompts.yx[[0, 1, 12]]
    again = bench.find()
    assert again is annotation
    assert again.points is layer
    assert len(again.prompts) == 13
    for yx in touched:
        assert (again.prompts.yx == yx).all(axis=1).sum() == 1
    check_layer(again)


def test_deleting_the_points_starts_over(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.reject(annotation, np.arange(12))
    bench.viewer.layers.remove(annotation.points)
    assert bench.session.find(bench.plane) is None
    again = bench.find()
    assert set(again.prompts.state) == {"auto"}
    assert again.points in bench.viewer.layers
    # and yet nothing is lost
    bench.session.undo()
    assert set(annotation.prompts.state) == {"rejected"}
    check_layer(annotation)


def test_deleted_labels_are_made_again(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.viewer.layers.remove(annotation.labels)
    assert annotation.labels is None
    assert bench.segment(annotation).recomputed == 0
    assert annotation.labels in bench.viewer.layers


def test_labels_deleted_while_the_next_ones_are_computed(bench: Bench) -> None:
    annotation = bench.find()
    segmented = bench.segment(annotation)
    bench.viewer.layers.remove(annotation.labels)
    bench.session.show_labels(annotation, bench.plane, segmented)
    np.testing.assert_array_equal(annotation.labels.data, segmented.fresh.labels)


def test_labels_of_another_shape_are_not_taken(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    before = annotation.state.labels.copy()
    annotation.labels.data = np.zeros((5, 6), np.uint8)
    np.testing.assert_array_equal(annotation.labels.data, before)
    assert "shown again" in told[0]


def test_without_the_image_points_can_still_be_corrected(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.viewer.layers.remove(bench.layer)
    annotation.points.selected_data = {0}
    press(annotation.points, "Q")
    annotation.points.add([1.0, 2.0])
    assert annotation.embedding is None
    check_layer(annotation)


def test_renamed_and_hidden_layers_are_still_ours(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.name = annotation.labels.name = bench.layer.name = "x"
    annotation.points.visible = annotation.labels.visible = False
    bench.session.reject(annotation, np.arange(12))
    bench.segment(annotation)
    assert not annotation.labels.data.any()


def test_the_session_outlives_its_dock(bench: Bench) -> None:
    annotation = bench.find()
    assert AnnotationSession.of(bench.viewer) is bench.session
    assert AnnotationSession.of(bench.viewer).find(bench.plane) is annotation


def test_a_copy_of_our_layer_is_not_ours(bench: Bench) -> None:
    annotation = bench.find()
    data, state, kind = annotation.points.as_layer_data_tuple()
    bench.viewer.layers.remove(annotation.points)
    copy = bench.viewer.add_layer(Points(data, **state))
    assert kind == "points"
    assert bench.session.owner(copy) is None
    assert bench.session.find(bench.plane) is None


def test_embeddings_beyond_the_limit_are_let_go(bench: Bench) -> None:
    first = bench.find()
    bench.segment(first)
    other = bench.viewer.add_image(bench.layer.data.copy(), rgb=True, name="second")
    bench.layer = other
    second = bench.find()
    bench.session.cache_bytes = second.prompts.yx.nbytes
    bench.segment(second)
    assert first.embedding is None
    assert second.embedding is not None
    assert first.masks


def test_what_was_seen_of_images_not_segmented_is_let_go_too(bench: Bench) -> None:
    first = bench.find()
    assert first.foreground is not None
    bench.layer = bench.viewer.add_image(
        bench.layer.data.copy(), rgb=True, name="second"
    )
    bench.session.cache_bytes = first.held_bytes
    second = bench.find()
    assert first.foreground is None
    assert second.foreground is not None


def test_what_was_seen_when_nuclei_were_found_serves_their_masks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find()

    def look_again(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(embedding_module, "generator_maps", look_again)
        # a click before anything is segmented, and then all of them
        add_nuclei(annotation, np.array([[80.0, 100.0]]))
        assert bench.decode() == 1
        by_clicking = annotation.embedding
        assert by_clicking is not None
        assert annotation.foreground is None, "the embedding has it"
        annotation.embedding = None
        annotation = bench.find()
        bench.segment(annotation)
    labels = annotation.state.labels
    assert labels.any()
    annotation.forget_pixels()
    annotation.masks.clear()
    bench.segment(annotation)
    assert np.array_equal(annotation.state.labels, labels)


def test_a_session_is_freed_with_its_viewer(bench: Bench) -> None:
    bench.segment(bench.find())
    session = weakref.ref(bench.session)
    viewer = weakref.ref(bench.viewer)
    del bench.session, bench.viewer, bench.layer
    gc.collect()
    assert session() is None
    assert viewer() is None


def test_layers_that_were_deleted_leave_nothing_behind(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.regions.show_reviewed(annotation)
    for layer in (annotation.labels, annotation.points, annotation.regions):
        bench.viewer.layers.remove(layer)
    assert annotation.regions is None
    bench.session.undo()
    bench.session.regions.show_reviewed(annotation)
    assert annotation.regions in bench.viewer.layers


def test_pasted_points_are_part_of_the_next_stroke(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    count = len(annotation.prompts)
    points = annotation.points
    points.selected_data = {0}
    points._copy_data()
    points._paste_data()
    drawn = annotation.state.labels[:8, :8].copy()
    drawn[2:6, 2:6] = 500
    take_stroke(bench.session, annotation, drawn, (0, 0, 8, 8))
    assert len(annotation.prompts) == count + 2
    assert len(points.data) == count + 2


def test_given_outlines_with_a_low_score_outlive_finding(bench: Bench) -> None:
    annotation = import_labels(
        bench.session,
        bench.plane,
        np.pad(np.ones((20, 20), np.uint32), ((0, 140), (0, 180))),
    )
    annotation.prompts.score[:] = 0.1
    assert bench.find(score_threshold=0.5) is annotation
    assert (annotation.state.labels == 1).sum() == 400
    assert annotation.painted == {1}


def test_a_click_while_nuclei_are_looked_for_gets_its_mask(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.add([80.0, 100.0])
    added = int(annotation.prompts.object_id[-1])
    assert added not in annotation.masks
    assert bench.find() is annotation
    assert bench.decode() > 0
    assert added in annotation.masks
    drawn = set(np.unique(annotation.state.labels).tolist()) - {0}
    assert drawn <= set(annotation.prompts.object_id.tolist())


def test_one_mask_of_all_nuclei_is_not_cut_by_a_painted_one(bench: Bench) -> None:
    annotation = import_labels(
        bench.session,
        bench.plane,
        np.pad(np.ones((20, 20), np.uint32), ((0, 140), (0, 180))),
    )
    bench.find()
    segmented = bench.segment(annotation, mode="semantic")
    np.testing.assert_array_equal(annotation.state.labels, segmented.fresh.labels)


def test_points_that_were_pasted_are_kept_when_saved_and_closed(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    bench.session.save_as(tmp_path / "cells.sac")
    for end in (bench.session.flush, bench.session.close):
        before = len(annotation.prompts)
        annotation.points.selected_data = {0}
        copy_and_paste(annotation.points)
        end()
        assert len(annotation.prompts) == before + 1
    opened = Journal.open(tmp_path / "cells.sac")
    assert len(opened.restore().states[1].prompts) == before + 1
    opened.close(clean=True)


def test_one_mask_of_all_nuclei_is_no_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation, mode="semantic")
    annotation.state.labels[...] = 1
    told: list[str] = []
    bench.session.told.connect(told.append)
    first = int(annotation.prompts.object_id[0])
    assert first == 1
    far = annotation.prompts.yx[-1]
    assert nucleus_at(annotation, far) == annotation.prompts.object_id[-1]
    bench.viewer.cursor.position = annotation.labels.data_to_world((80, 100))
    bench.session.gestures.reject(annotation.labels)
    assert told == [ONE_MASK]
    assert "rejected" not in annotation.prompts.state
    bench.viewer.layers.remove(bench.layer)
    bench.session.reject(annotation, np.array([0]))
    assert annotation.state.labels.all()


def test_scores_shown_as_at_first_leave_no_step(bench: Bench) -> None:
    annotation = bench.find()
    before, told = bench.session.undo_title, []
    bench.session.set_threshold(annotation, 0.7)
    bench.session.changed.connect(lambda: told.append(bench.session.undo_title))
    bench.session.set_threshold(annotation, 0.3)
    assert told[-1] == before


def test_reviewed_regions_whose_layer_is_deleted_are_told_of(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    square = np.array([[10, 10], [10, 60], [60, 60], [60, 10]], float)
    bench.session.set_reviewed(annotation, (square,))
    bench.session.regions.restore_reviewed(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    bench.viewer.layers.remove(annotation.regions)
    assert told == [REGIONS_STAY]
    assert bench.session.regions.show_reviewed(annotation).nshapes == 1
    # who deletes the image too keeps nothing of it
    told.clear()
    bench.viewer.layers.selection = {annotation.regions, bench.layer}
    bench.viewer.layers.remove_selected()
    assert annotation.regions is annotation.plane is None
    assert told == []


def test_exchanged_pixels_are_looked_at_anew(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    known = annotation.embedding
    bench.layer.data = bench.layer.data[::-1].copy()
    assert annotation.embedding is None
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert bench.decode()
    assert annotation.embedding is not None
    assert annotation.embedding.key != known.key
    assert bench.session.find(bench.plane) is annotation


def test_a_mask_of_the_pixels_before_leaves_no_embedding(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    request = bench.session.live.next_request()
    bench.layer.data = bench.layer.data[::-1].copy()
    before = annotation.state.labels.copy()
    bench.session.live.take(decode_live(request, ignore_progress))
    assert annotation.embedding is None
    np.testing.assert_array_equal(annotation.state.labels, before)
    assert bench.session.live.waiting, "for a mask of the pixels now"
    assert bench.decode()
    image = normalise_image(bench.layer.data)
    assert annotation.embedding.key == embedding_key(
        image, bench.loaded.model.key, annotation.embedding.scale
    )


def test_pixels_of_another_size_have_nuclei_of_their_own(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = bench.layer.data
    bench.layer.data = before[:100, :90]
    assert bench.session.find(bench.plane) is None
    assert not annotation.points.visible
    other = bench.find()
    assert other is not annotation
    assert bench.segment(other).fresh.labels.shape == (100, 90)
    bench.layer.data = before
    assert bench.session.find(bench.plane) is annotation
    assert annotation.points.visible
    assert not other.points.visible


def test_nuclei_follow_an_image_that_is_scaled_and_moved(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.layer.scale = (0.2, 0.2)
    bench.layer.translate = (3, 4)
    bench.layer.rotate = 20
    for layer in (annotation.points, annotation.labels):
        np.testing.assert_allclose(layer.scale, (0.2, 0.2))
        np.testing.assert_allclose(layer.translate, (3, 4))
        np.testing.assert_allclose(layer.rotate, bench.layer.rotate)


def test_painted_nuclei_outlive_one_mask_of_all(bench: Bench) -> None:
    labels = np.zeros(bench.plane.shape, np.uint32)
    labels[5:20, 5:20], labels[40:60, 40:60] = 1, 2
    annotation = import_labels(bench.session, bench.plane, labels)
    bench.segment(annotation, mode="semantic")
    bench.segment(annotation)
    found = set(np.unique(annotation.state.labels).tolist()) - {0}
    assert found
    assert found <= set(annotation.masks) == {1, 2}
    for _ in range(2):
        bench.session.undo()
    np.testing.assert_array_equal(annotation.state.labels, labels)
    assert annotation.painted == {1, 2}


def test_imported_labels_are_nuclei_whatever_was_before(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation, mode="semantic")
    labels = np.zeros(bench.plane.shape, np.uint32)
    labels[5:20, 5:20] = 4
    import_labels(bench.session, bench.plane, labels)
    assert annotation.has_instances


def test_what_turns_all_layers_turns_nuclei_once(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    turn = np.array([[0.0, -1, 3], [1, 0, 5], [0, 0, 1]])
    # as napari's command to rotate layers does, from the bottom up
    for layer in bench.viewer.layers:
        layer.affine = turn @ np.asarray(layer.affine)
    for place in ((0.0, 0.0), (30.0, 70.0)):
        there = bench.layer.data_to_world(place)
        for layer in (annotation.points, annotation.labels):
            np.testing.assert_allclose(layer.data_to_world(place), there)


def test_a_layer_of_nuclei_that_is_moved_goes_back_to_its_image(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.translate = (500.0, 500.0)
    np.testing.assert_allclose(annotation.points.translate, bench.layer.translate)

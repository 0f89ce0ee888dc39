"""One stack of steps over prompts, labels, decisions and strokes, exact both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import add_nuclei, add_to_nucleus, import_points, press

from napari_sac.core.types import NEGATIVE, POSITIVE
from napari_sac.viewer import annotation as annotation_module
from napari_sac.viewer import drawing

if TYPE_CHECKING:
    from conftest import Bench

    from napari_sac.viewer.annotation import Annotation


def snapshot(annotation: Annotation) -> tuple[bytes, ...]:
    """Return the bytes of everything that was decided."""
    state = annotation.state
    tables = [
        getattr(table, column).tobytes()
        for table in (state.prompts, state.hidden)
        for column in ("object_id", "yx", "sign", "score", "state")
    ]
    regions = [polygon.tobytes() for polygon in state.reviewed]
    rest = repr((sorted(state.painted), state.settings)).encode()
    return (*tables, state.labels.tobytes(), *regions, rest)


def check_shown(annotation: Annotation) -> None:
    """The layers show the state, to the byte."""
    np.testing.assert_array_equal(annotation.points.data, annotation.prompts.yx)
    features = annotation.points.features
    np.testing.assert_array_equal(features["object_id"], annotation.prompts.object_id)
    np.testing.assert_array_equal(features["state"], annotation.prompts.state)
    if annotation.labels is not None:
        assert annotation.labels.data.tobytes() == annotation.state.labels.tobytes()


def stroke(annotation: Annotation, yx: tuple[int, int], label: int, size: int) -> None:
    """Draw a dab as napari's brush does."""
    layer = annotation.labels
    layer.brush_size = size
    with layer.block_history():
        layer.paint(yx, label)


def test_steps_have_names_and_come_back_in_order(bench: Bench) -> None:
    annotation = bench.find()
    session = bench.session
    assert session.undo_title == "find 12 nuclei"
    session.reject(annotation, np.arange(5))
    session.accept(annotation, np.arange(5, 6))
    annotation.points.add([4.0, 4.0])
    titles = [session.undo() for _ in range(4)]
    assert titles == [
        "add 1 nucleus",
        "accept 1 nucleus",
        "reject 5 nuclei",
        "find 12 nuclei",
    ]
    assert session.undo() is None
    assert session.undo_title == ""
    assert len(annotation.points.data) == 0
    assert session.redo_title == "find 12 nuclei"
    assert [session.redo() for _ in range(4)] == titles[::-1]
    check_shown(annotation)


def test_undo_after_segmenting_and_painting_is_exact(bench: Bench) -> None:
    annotation = bench.find()
    states = [snapshot(annotation)]
    bench.segment(annotation)
    states.append(snapshot(annotation))
    stroke(annotation, (40, 50), 5, 12)
    bench.decode()
    states.append(snapshot(annotation))
    bench.segment(annotation)
    if snapshot(annotation) != states[-1]:
        states.append(snapshot(annotation))
    for before in states[-2::-1]:
        assert bench.session.undo() is not None
        assert snapshot(annotation) == before
        check_shown(annotation)
    for after in states[1:]:
        bench.session.redo()
        assert snapshot(annotation) == after
        check_shown(annotation)


@pytest.mark.parametrize("kind", ["points", "labels", "tools", "regions"])
def test_the_same_keys_undo_in_each_layer(bench: Bench, kind: str) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.regions.show_tools(annotation)
    bench.session.regions.show_reviewed(annotation)
    layer = getattr(annotation, kind)
    bench.session.reject(annotation, np.arange(3))
    press(layer, "Ctrl+Z")
    assert "rejected" not in annotation.prompts.state
    press(layer, "Ctrl+Shift+Z")
    assert (annotation.prompts.state == "rejected").sum() == 3


def test_naparis_own_history_can_not_turn_stale(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    stroke(annotation, (40, 50), 5, 12)
    bench.session.reject(annotation, np.arange(12))
    bench.decode()
    shown = annotation.labels.data.copy()
    annotation.labels.undo()
    annotation.labels.redo()
    np.testing.assert_array_equal(annotation.labels.data, shown)


def test_a_thousand_steps_can_be_undone(bench: Bench) -> None:
    annotation = bench.find()
    first = snapshot(annotation)
    row = np.array([3])
    for i in range(600):
        bench.session.reject(annotation, row)
        bench.session.accept(annotation, row)
        if i == 0:
            assert bench.session.undo_title == "accept 1 nucleus"
    undone = 0
    while bench.session.undo_title != "find 12 nuclei":
        bench.session.undo()
        undone += 1
    assert undone == 1200
    assert snapshot(annotation) == first


def test_moving_the_threshold_is_one_step(bench: Bench) -> None:
    annotation = bench.find()
    before = snapshot(annotation)
    for threshold in (0.4, 0.5, 0.6, 0.7):
        bench.session.set_threshold(annotation, threshold)
    assert bench.session.undo() == "show scores from 0.70"
    assert snapshot(annotation) == before
    check_shown(annotation)


def test_moving_the_threshold_draws_the_points_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = bench.find()
    first = len(annotation.prompts)
    written: list[int] = []
    write = drawing.write_points

    def count(layer, prompts, *args, **options) -> None:
        written.append(len(prompts))
        write(layer, prompts, *args, **options)

    monkeypatch.setattr(drawing, "write_points", count)
    for threshold in (0.5, 0.9, 0.6, 0.7):
        bench.session.set_threshold(annotation, threshold)
        assert written == [len(annotation.prompts)]
        written.clear()
        check_shown(annotation)
    # back to where it was, which is no step
    bench.session.set_threshold(annotation, 0.3)
    assert written == [first]
    check_shown(annotation)
    assert bench.session.undo_title == f"find {first} nuclei"


def test_moving_the_threshold_is_one_step_also_where_masks_follow(
    bench: Bench,
) -> None:
    annotation = bench.find(score_threshold=0.9)
    bench.segment(annotation)
    before = snapshot(annotation)
    for threshold in (0.8, 0.7, 0.6, 0.5, 0.4):
        bench.session.set_threshold(annotation, threshold)
        bench.decode()
    assert len(annotation.prompts) == 12
    assert bench.session.undo() == "show scores from 0.40"
    assert snapshot(annotation) == before
    check_shown(annotation)


def test_what_changes_nothing_is_no_step(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.accept(annotation, np.arange(2))
    bench.session.accept(annotation, np.arange(2))
    bench.session.reject(annotation, np.array([], int))
    bench.session.undo()
    assert bench.session.undo_title == "find 12 nuclei"


def test_undo_shows_deleted_layers_again(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.reject(annotation, np.arange(2))
    bench.viewer.layers.remove(annotation.points)
    bench.viewer.layers.remove(annotation.labels)
    assert bench.session.annotations == []
    bench.session.undo()
    assert annotation.points in bench.viewer.layers
    assert annotation.labels in bench.viewer.layers
    check_shown(annotation)


def test_undo_and_redo_show_deleted_points_again(bench: Bench) -> None:
    annotation = bench.find()
    told: list[str] = []
    bench.session.told.connect(told.append)
    for title in ("find 12 nuclei", "segment 12 nuclei", "reject 2 nuclei"):
        if title.startswith("segment"):
            bench.segment(annotation)
        elif title.startswith("reject"):
            bench.session.reject(annotation, np.arange(2))
        before = snapshot(annotation)
        bench.viewer.layers.selection.active = annotation.points
        bench.viewer.layers.remove_selected()
        assert told.pop() == drawing.POINTS_STAY
        assert bench.session.undo() == bench.session.redo() == title
        assert annotation.points in bench.viewer.layers
        assert bench.session.find(bench.plane) is annotation
        assert snapshot(annotation) == before
        check_shown(annotation)
    assert told == []


def test_points_that_go_with_their_image_are_not_promised(bench: Bench) -> None:
    bench.segment(bench.find())
    told: list[str] = []
    bench.session.told.connect(told.append)
    bench.viewer.layers.select_all()
    bench.viewer.layers.remove_selected()
    assert not bench.viewer.layers
    assert told == []


# -- masks that come later -----------------------------------------------------


def test_the_mask_of_a_click_is_a_part_of_its_step(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = snapshot(annotation)
    annotation.points.add([80.0, 100.0])
    assert bench.decode() == 1
    after = snapshot(annotation)
    assert 13 in annotation.masks
    bench.session.undo()
    assert snapshot(annotation) == before
    assert 13 not in annotation.masks
    bench.session.redo()
    assert snapshot(annotation) == after
    assert bench.decode() == 0
    check_shown(annotation)


def test_live_masks_are_those_of_a_whole_segmentation(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.add([80.0, 100.0])
    bench.session.reject(annotation, np.array([2]))
    bench.session.negate(annotation, np.array([4]))
    bench.decode()
    live = annotation.state.labels.copy()
    segmented = bench.segment(annotation)
    assert segmented.recomputed == 0
    np.testing.assert_array_equal(live, annotation.state.labels)


def test_a_late_result_of_an_undone_step_is_dropped(bench: Bench) -> None:
    from napari_sac.core.progress import ignore_progress
    from napari_sac.viewer.live import decode_live

    annotation = bench.find()
    bench.segment(annotation)
    before = snapshot(annotation)
    annotation.points.add([80.0, 100.0])
    request = bench.session.live.next_request()
    result = decode_live(request, ignore_progress)
    bench.session.undo()
    bench.session.live.take(result)
    assert snapshot(annotation) == before
    assert 13 not in annotation.masks
    check_shown(annotation)
    # done again, it is decoded after all
    bench.session.redo()
    assert bench.decode() == 1
    assert 13 in annotation.masks


def test_a_failed_decoding_leaves_the_step(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.add([80.0, 100.0])
    bench.session.live.fail(bench.session.live.next_request())
    assert bench.session.live.next_request() is None
    assert len(annotation.prompts) == 13
    assert bench.session.undo() == "add 1 nucleus"


def test_a_stroke_while_a_mask_is_decoded_is_kept(bench: Bench) -> None:
    from napari_sac.core.progress import ignore_progress
    from napari_sac.viewer.live import decode_live

    annotation = bench.find()
    bench.segment(annotation)
    before = snapshot(annotation)
    annotation.points.add([80.0, 100.0])
    request = bench.session.live.next_request()
    result = decode_live(request, ignore_progress)
    stroke(annotation, (80, 100), 77, 20)
    drawn = annotation.state.labels == 77
    assert drawn.sum() > 100
    bench.session.live.take(result)
    assert (annotation.state.labels == 77)[drawn].all()
    bench.decode()
    after = snapshot(annotation)
    assert (annotation.state.labels == 77)[drawn].all()
    check_shown(annotation)
    bench.session.undo()
    bench.session.undo()
    assert snapshot(annotation) == before
    bench.session.redo()
    bench.session.redo()
    assert snapshot(annotation) == after
    check_shown(annotation)


def test_the_first_click_brings_labels(bench: Bench) -> None:
    bench.session.loaded = bench.loaded
    annotation = bench.find()
    assert annotation.labels is None
    annotation.points.add(annotation.prompts.yx[0] + 25)
    bench.decode()
    assert annotation.embedding is not None
    assert annotation.labels is not None
    check_shown(annotation)


@pytest.mark.parametrize("remembered", [20, 50_000])
def test_random_actions_undo_and_redo_to_the_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(annotation_module, "MOST_REMEMBERED_MASKS", remembered)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        annotation = bench.find()
        bench.segment(annotation)
        start, steps = snapshot(annotation), len(bench.session.history.done)
        for _ in range(30):
            act(bench, annotation, rng)
            if rng.random() < 0.5:
                bench.decode()
        while bench.session.redo() is not None:
            pass
        bench.decode()
        check_shown(annotation)
        end = snapshot(annotation)
        while len(bench.session.history.done) > steps:
            bench.session.undo()
        check_shown(annotation)
        assert snapshot(annotation) == start, seed
        while bench.session.redo() is not None:
            pass
        assert snapshot(annotation) == end, seed
        check_shown(annotation)


def act(  # noqa: PLR0912
    bench: Bench, annotation: Annotation, rng: np.random.Generator
) -> None:
    """Do something that a person may do."""
    session, layer = bench.session, annotation.points
    some = rng.permutation(len(annotation.prompts))[: rng.integers(1, 4)]
    place = rng.uniform(0, (160, 200))
    ids = set(annotation.prompts.object_id[some].tolist())
    kind = rng.integers(14)
    if kind == 0:
        layer.add(place)
    elif kind == 1 and len(layer.data):
        layer.remove(some.tolist())
    elif kind == 2 and len(layer.data):
        data = layer.data.copy()
        data[some] += rng.normal(0, 4, (len(some), 2))
        layer.data = data
    elif kind == 3:
        session.accept(annotation, some)
    elif kind == 4:
        session.reject(annotation, some)
    elif kind == 5:
        session.negate(annotation, some)
    elif kind == 6:
        add_to_nucleus(
            session, annotation, place, int(rng.choice([NEGATIVE, POSITIVE]))
        )
    elif kind == 7:
        session.merge(annotation, ids)
    elif kind == 8:
        session.split(annotation, ids)
    elif kind == 9:
        y, x = (int(v) for v in place)
        label = int(rng.choice([0, 3, int(annotation.labels.data.max()) + 1]))
        stroke(annotation, (y, x), label, int(rng.integers(4, 30)))
    elif kind == 10:
        session.set_threshold(annotation, float(rng.uniform(0.3, 0.9)))
    elif kind == 11:
        session.redraw(annotation, annotation.painted)
    elif kind == 12:
        region = rng.uniform(0, 100, (4, 2))
        session.set_reviewed(annotation, (*annotation.reviewed[:3], region))
    else:
        for _ in range(rng.integers(1, 4)):
            session.undo()
        for _ in range(rng.integers(0, 3)):
            session.redo()


def test_nuclei_whose_masks_failed_are_drawn_with_the_next(bench: Bench) -> None:
    annotation = import_points(
        bench.session, bench.plane, [[30.0, 30], [80, 80], [120, 150]]
    )
    bench.session.live.fail(bench.session.live.next_request())
    assert not annotation.masks
    add_nuclei(annotation, np.array([[60.0, 160.0]]))
    bench.decode()
    assert set(annotation.masks) == set(annotation.prompts.object_id.tolist())

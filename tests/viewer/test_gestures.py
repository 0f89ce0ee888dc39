"""Clicks, keys, boxes and strokes, as napari hands them to our layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import (
    add_nuclei,
    add_to_nucleus,
    import_labels,
    import_table,
    press,
)
from app_model.types import KeyBinding
from napari.layers import Labels, Points, Shapes
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks
from napari.utils.shortcuts import default_shortcuts

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.inference.instances import inside
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.state import Settings
from napari_sac.core.types import NEGATIVE, POSITIVE
from napari_sac.viewer import keys
from napari_sac.viewer.editing import NO_MASK, NOTHING_GIVEN, OUTSIDE, nucleus_at
from napari_sac.viewer.inference import FindRequest, find_nuclei
from napari_sac.viewer.keys import ACTIONS, DEFAULTS, KeyTakenError
from napari_sac.viewer.live import ONE_MASK_WAITS, PreviewRequest, decode_live
from napari_sac.viewer.view import is_in_view

if TYPE_CHECKING:
    from conftest import Bench
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation


def click(annotation: Annotation, yx: tuple[float, float], *held: str) -> None:
    """Click with napari's tool that adds points."""
    layer = annotation.points
    layer.mode = "add"
    event = SimpleNamespace(
        type="mouse_press",
        modifiers=held,
        pos=np.zeros(2),
        position=layer.data_to_world(yx),
    )
    mouse_press_callbacks(layer, ReadOnlyWrapper(event))
    event.type = "mouse_release"
    mouse_release_callbacks(layer, ReadOnlyWrapper(event))


def hover(annotation: Annotation, yx: tuple[float, float], *held: str) -> None:
    """Do what napari does when the mouse moves."""
    layer = annotation.points
    event = SimpleNamespace(modifiers=held, position=layer.data_to_world(yx))
    for callback in layer.mouse_move_callbacks:
        if callback.__name__ == "_on_hover":
            callback(layer, event)


def segmented(bench: Bench) -> Annotation:
    """Return an annotation whose nuclei have square labels of 16 pixels."""
    annotation = bench.find()
    bench.segment(annotation)
    labels = np.zeros((160, 200), np.uint32)
    for object_id, (y, x) in zip(
        annotation.prompts.object_id, annotation.prompts.yx.astype(int), strict=True
    ):
        labels[max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = object_id
    return import_labels(bench.session, bench.plane, labels)


def test_a_click_in_a_nucleus_is_a_nucleus_of_its_own(bench: Bench) -> None:
    annotation = bench.find()
    click(annotation, tuple(annotation.prompts.yx[2] + 4))
    assert annotation.prompts.object_id[-1] == 13
    assert annotation.prompts.sign[-1] == POSITIVE
    assert bench.session.undo_title == "add 1 nucleus"


def test_a_click_with_shift_is_a_negative_of_the_nucleus_there(bench: Bench) -> None:
    annotation = segmented(bench)
    here = annotation.prompts.yx[5] + 6
    click(annotation, tuple(here), "Shift")
    assert annotation.prompts.sign[-1] == NEGATIVE
    assert annotation.prompts.object_id[-1] == annotation.prompts.object_id[5]
    assert bench.session.undo_title == "shrink 1 nucleus"


def test_a_click_with_control_is_one_more_point_of_it(bench: Bench) -> None:
    annotation = segmented(bench)
    click(annotation, tuple(annotation.prompts.yx[5] + 6), "Control")
    assert annotation.prompts.sign[-1] == POSITIVE
    assert annotation.prompts.object_id[-1] == annotation.prompts.object_id[5]
    # the next click without a key is a nucleus again
    click(annotation, (3.0, 3.0))
    assert annotation.prompts.object_id[-1] not in annotation.prompts.object_id[:-1]


def test_a_further_point_goes_to_the_selected_nucleus_if_it_is_near(
    bench: Bench,
) -> None:
    annotation = bench.find()
    annotation.points.selected_data = {4}
    yx = annotation.prompts.yx[4] + 15
    assert nucleus_at(annotation, yx) == 5
    far = annotation.prompts.yx[0]
    assert nucleus_at(annotation, far) == 1


def test_the_label_under_the_mouse_comes_before_the_selected_nucleus(
    bench: Bench,
) -> None:
    annotation = segmented(bench)
    labels = annotation.state.labels
    there = int(annotation.prompts.object_id[4])
    place = np.argwhere(labels == there)[0].astype(float)
    annotation.points.selected_data = {5}
    assert nucleus_at(annotation, place) == there


def test_merge_and_split_with_keys(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.selected_data = {2, 6}
    press(annotation.points, "G")
    assert list(annotation.prompts.object_id[[2, 6]]) == [3, 3]
    assert bench.session.undo_title == "merge 2 nuclei"
    annotation.points.selected_data = {2}
    press(annotation.points, "Shift+G")
    assert list(annotation.prompts.object_id[[2, 6]]) == [3, 13]
    assert bench.session.undo_title == "split 1 nucleus"


def test_to_accept_everything_brings_nothing_back_that_was_rejected(
    bench: Bench,
) -> None:
    annotation = bench.find()
    layer = annotation.points
    layer.selected_data = {2, 6}
    press(layer, "Q")
    layer.selected_data = set(range(12))
    press(layer, "W")
    states = annotation.prompts.state
    assert np.flatnonzero(states == "rejected").tolist() == [2, 6]
    assert (states == "accepted").sum() == 10
    assert bench.session.undo_title == "accept 10 nuclei"
    layer.selected_data = {2, 6}
    press(layer, "W")
    assert (annotation.prompts.state == "accepted").all()


def test_a_nucleus_of_several_points_is_rejected_with_all_of_them(
    bench: Bench,
) -> None:
    annotation = bench.find()
    layer, session = annotation.points, bench.session
    session.merge(annotation, {3, 7})
    add_to_nucleus(session, annotation, annotation.prompts.yx[2] + 5, NEGATIVE)
    own = np.flatnonzero(annotation.prompts.object_id == 3)
    assert own.tolist() == [2, 6, 12]
    layer.selected_data = {6}
    press(layer, "Q")
    states = annotation.prompts.state
    assert np.flatnonzero(states == "rejected").tolist() == own.tolist()
    assert session.undo_title == "reject 1 nucleus"
    # and comes back with all of them
    layer.selected_data = {6}
    press(layer, "W")
    assert set(annotation.prompts.state[own]) == {"accepted"}


def test_a_negative_point_is_rejected_alone(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    add_to_nucleus(bench.session, annotation, annotation.prompts.yx[2] + 5, NEGATIVE)
    layer.selected_data = {12}
    press(layer, "Q")
    states = annotation.prompts.state
    assert np.flatnonzero(states == "rejected").tolist() == [12]
    assert bench.session.undo_title == "reject 1 point"


def test_in_labels_only_a_nucleus_nearby_is_merged(bench: Bench) -> None:
    annotation = segmented(bench)
    layer, session = annotation.labels, bench.session
    told: list[str] = []
    session.told.connect(told.append)
    yx = annotation.prompts.yx
    away = np.hypot(*(yx[:, None] - yx).transpose(2, 0, 1))
    np.fill_diagonal(away, np.inf)
    pointed = int(np.unravel_index(away.argmin(), away.shape)[0])
    order = np.argsort(away[pointed])
    near, far = int(order[0]), int(order[-2])
    assert away[pointed, far] > 3 * annotation.diameter
    assert away[pointed, near] < 3 * annotation.diameter
    point = np.argwhere(
        annotation.state.labels == annotation.prompts.object_id[pointed]
    )[0]
    bench.viewer.cursor.position = layer.data_to_world(point)
    ids = annotation.prompts.object_id.copy()
    layer.selected_label = int(ids[far])
    press(layer, "G")
    np.testing.assert_array_equal(annotation.prompts.object_id, ids)
    assert "at least two" in told[-1]
    layer.selected_label = int(ids[near])
    press(layer, "G")
    merged = annotation.prompts.object_id
    assert merged[pointed] == merged[near] == min(ids[pointed], ids[near])


def test_merging_given_pixels_puts_them_together(bench: Bench) -> None:
    annotation = segmented(bench)
    before = annotation.state.labels.copy()
    bench.session.merge(annotation, {3, 7})
    expected = np.where(before == 7, 3, before)
    np.testing.assert_array_equal(annotation.state.labels, expected)
    bench.session.undo()
    np.testing.assert_array_equal(annotation.state.labels, before)


# -- strokes -------------------------------------------------------------------


def test_a_painted_nucleus_is_not_computed_again(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.labels.brush_size = 10
    annotation.labels.paint((60, 60), 4)
    assert 4 in annotation.painted
    assert annotation.prompts.state[3] == "accepted"
    bench.decode()
    drawn = annotation.state.labels == 4
    bench.segment(annotation)
    annotation.points.data = annotation.points.data + 1
    bench.decode()
    np.testing.assert_array_equal(annotation.state.labels == 4, drawn)
    bench.session.redraw(annotation, {4})
    assert bench.decode() == 1
    assert 4 not in annotation.painted
    assert not np.array_equal(annotation.state.labels == 4, drawn)


def test_erasing_a_whole_nucleus_rejects_its_prompt(bench: Bench) -> None:
    annotation = segmented(bench)
    y, x = (int(v) for v in annotation.prompts.yx[2])
    annotation.labels.brush_size = 400
    annotation.labels.fill((y, x), 0)
    assert annotation.prompts.state[2] == "rejected"
    assert 3 not in annotation.painted
    assert bench.session.undo() == "erase 1 nucleus"
    assert annotation.prompts.state[2] == "auto"
    assert (annotation.labels.data == 3).any()


def test_a_nucleus_drawn_anew_gets_a_prompt(bench: Bench) -> None:
    annotation = segmented(bench)
    bench.session.set_threshold(annotation, 0.5)
    annotation.labels.brush_size = 12
    annotation.labels.paint((4, 4), 50)
    assert annotation.prompts.object_id[-1] == 50
    y, x = annotation.prompts.yx[-1].astype(int)
    assert annotation.state.labels[y, x] == 50
    assert 50 in annotation.painted


def test_a_label_of_a_hidden_proposal_is_numbered_anew(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.set_threshold(annotation, 0.9)
    hidden = int(annotation.hidden.object_id[0])
    bench.segment(annotation)
    annotation.labels.selected_label = hidden
    annotation.labels.brush_size = 12
    annotation.labels.paint((4, 4), hidden)
    assert not (annotation.state.labels == hidden).any()
    assert annotation.prompts.object_id[-1] == 13
    assert annotation.labels.selected_label == 13
    bench.decode()
    np.testing.assert_array_equal(annotation.labels.data, annotation.state.labels)


# -- labels of other tools -----------------------------------------------------


def test_imported_labels_are_kept_until_their_prompts_change(bench: Bench) -> None:
    annotation = segmented(bench)
    given = annotation.state.labels.copy()
    assert len(annotation.prompts) == 12
    assert annotation.painted == frozenset(range(1, 13))
    bench.segment(annotation)
    np.testing.assert_array_equal(annotation.state.labels, given)
    click(annotation, (150.0, 195.0))
    bench.decode()
    np.testing.assert_array_equal(annotation.state.labels[given > 0], given[given > 0])
    data = annotation.points.data.copy()
    data[4] += 1
    annotation.points.data = data
    assert 5 not in annotation.painted
    bench.decode()
    others = (given > 0) & (given != 5)
    np.testing.assert_array_equal(annotation.state.labels[others], given[others])


def test_a_rejected_import_vanishes_and_comes_back(bench: Bench) -> None:
    annotation = segmented(bench)
    bench.session.reject(annotation, np.array([4]))
    assert not (annotation.labels.data == 5).any()
    bench.session.undo()
    assert (annotation.labels.data == 5).any()


def test_points_of_a_table_become_nuclei(bench: Bench, tmp_path: object) -> None:
    file = tmp_path / "points.csv"
    file.write_text("y,x\n20,30\n60.5,80\n", encoding="utf-8")
    bench.session.loaded = bench.loaded
    annotation = import_table(bench.session, bench.plane, file)
    np.testing.assert_array_equal(annotation.prompts.yx, [(20, 30), (60.5, 80)])
    assert bench.session.undo_title == "import 2 nuclei"


def test_points_of_a_table_are_decoded_at_the_size_that_find_measures(
    bench: Bench, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "points.csv"
    file.write_text("y,x\n20,30\n60.5,80\n", encoding="utf-8")
    monkeypatch.setattr(bench.session, "choice", lambda: bench.loaded.choice)
    bench.session.loaded = bench.loaded
    request = FindRequest(
        bench.plane, bench.loaded.choice, bench.loaded, ProposalConfig()
    )
    measured = find_nuclei(request, ignore_progress).diameter
    assert measured != Settings.diameter
    annotation = import_table(bench.session, bench.plane, file)
    assert annotation.diameter == pytest.approx(measured)
    assert annotation.state.settings.model == "tiny"
    bench.session.loaded = None
    import_table(bench.session, bench.plane, file)
    assert bench.session.loaded is None, "measured once"
    assert annotation.diameter == pytest.approx(measured)


def test_what_is_imported_is_drawn_by_the_chosen_adapter(
    bench: Bench, nuclei: Nuclei
) -> None:
    bench.session.choose_model("sac_tiny", "he")
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    choice = bench.session.scene(annotation).choice
    assert choice.name == "sac_tiny"
    assert choice.adapter.name == "he"


# -- boxes, lassos and regions -------------------------------------------------


def test_a_rectangle_is_a_box_prompt(bench: Bench) -> None:
    annotation = bench.find()
    tools = bench.session.regions.show_tools(annotation)
    tools.add_rectangles([[20, 30], [50, 60]])
    assert tools.nshapes == 0
    own = annotation.prompts.object_id == 13
    positive = own & (annotation.prompts.sign == POSITIVE)
    assert positive.any()
    assert ((annotation.prompts.yx[positive] > (20, 30)).all(axis=1)).all()
    assert bench.session.undo_title == "add a box"


def test_a_lasso_selects_for_the_keys(bench: Bench) -> None:
    annotation = bench.find()
    tools = bench.session.regions.show_tools(annotation)
    tools.add_polygons([[-5, -5], [-5, 100], [170, 100], [170, -5]])
    left = np.flatnonzero(annotation.prompts.yx[:, 1] < 100)
    assert annotation.points.selected_data == set(left.tolist())
    assert bench.viewer.layers.selection.active is annotation.points
    press(annotation.points, "Q")
    rejected = np.flatnonzero(annotation.prompts.state == "rejected")
    np.testing.assert_array_equal(rejected, left)


def test_reviewed_regions_are_steps(bench: Bench) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_reviewed(annotation)
    layer.add_polygons([[0, 0], [0, 50], [50, 50.0]])
    assert len(annotation.reviewed) == 1
    layer.add_rectangles([[60, 60], [90, 90]])
    assert bench.session.undo() == "mark 1 region"
    assert layer.nshapes == len(annotation.reviewed) == 1
    bench.session.redo()
    assert layer.nshapes == len(annotation.reviewed) == 2
    layer.remove([0])
    assert bench.session.undo_title == "unmark 1 region"


# -- review and preview --------------------------------------------------------


def test_the_queue_walks_from_the_most_doubtful(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    layer = annotation.points
    press(layer, "J")
    first = bench.session.review.current
    assert first
    own = np.flatnonzero(annotation.prompts.object_id == first)
    assert layer.selected_data == set(own.tolist())
    assert is_in_view(bench.viewer, annotation, first)
    press(layer, "D")
    assert annotation.prompts.state[own[0]] == "accepted"
    assert bench.session.review.current not in (0, first)
    progress = bench.session.review.progress(annotation)
    assert (progress.reviewed, progress.total) == (1, 12)
    press(layer, "K")
    assert bench.session.review.current == first
    for _ in range(12):
        press(layer, "D")
    assert bench.session.review.progress(annotation).reviewed == 12
    assert bench.session.review.current == 0


def test_the_mouse_shows_what_a_click_would_give(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = annotation.state.labels.copy()
    steps = bench.session.undo_title
    bench.session.preview.look(
        annotation, np.array([40.0, 50.0]), POSITIVE, joins=False
    )
    bench.decode()
    layer = bench.session.preview.layer
    assert layer in bench.viewer.layers
    assert layer.opacity > 0
    assert bench.viewer.layers.selection.active is annotation.points
    bench.session.preview.hide()
    assert layer.opacity == 0
    np.testing.assert_array_equal(annotation.state.labels, before)
    assert bench.session.undo_title == steps


# -- keys ----------------------------------------------------------------------


def test_the_preview_is_written_where_it_lies_and_moved_when_it_must(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sac.viewer.preview._WINDOW", 96)
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.mode = "add"
    preview, moves = bench.session.preview, []
    for yx in ((60.0, 60.0), (64.0, 66.0), (100.0, 150.0), (60.0, 60.0)):
        hover(annotation, yx)
        (request,) = [bench.session.live.next_request()]
        result = decode_live(request, ignore_progress)
        bench.session.live.take(result)
        layer, mask = preview.layer, result.mask
        # where the layer shows the mask, in pixels of the plane
        shown = np.argwhere(layer.data)
        world = np.array([layer.data_to_world(place) for place in shown])
        places = [annotation.labels.world_to_data(place) for place in world]
        wanted = np.argwhere(inside(mask)) + mask.origin_yx
        np.testing.assert_allclose(places, wanted, atol=1e-6)
        moves.append(tuple(layer.translate))
    assert moves[0] == moves[1] != moves[2]


def test_our_keys_are_none_of_naparis() -> None:
    kinds = {Points: "points", Labels: "label", Shapes: "shape"}
    meant = {"undo", "redo"}
    for action in ACTIONS:
        if action.name in meant:
            continue
        binding = KeyBinding.from_str(action.key)
        for layer in action.kinds:
            assert binding not in layer.class_keymap, (action.name, kinds[layer])
    viewer = [
        str(b)
        for name, bindings in default_shortcuts.items()
        if "activate_" not in name and "vertex" not in name and "plane" not in name
        for b in bindings
    ]
    assert not {a.key for a in ACTIONS} & set(viewer)


def test_keys_can_be_changed(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.set_keys({"reject": "Ctrl+Q", "accept": ""})
    annotation.points.selected_data = {3}
    press(annotation.points, "Ctrl+Q")
    assert annotation.prompts.state[3] == "rejected"
    assert KeyBinding.from_str("Q") not in annotation.points.keymap
    assert KeyBinding.from_str("W") not in annotation.points.keymap
    bench.session.set_keys({})
    assert bench.session.keys == DEFAULTS


def test_on_a_mac_the_key_of_commands_undoes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_is_mac", lambda: True)
    annotation = bench.find()
    bench.session.set_keys({"reject": "Cmd+Q", "accept": "cmd+a"})
    # as napari reads it there
    for binding in ("Meta+Z", "Shift+Meta+Z", "Meta+Q", "Meta+A"):
        assert KeyBinding.from_str(binding) in annotation.points.keymap
    assert KeyBinding.from_str("Ctrl+Z") not in annotation.points.keymap
    assert bench.session.keys["undo"] == "Cmd+Z"
    assert bench.session.keys["redo"] == "Shift+Cmd+Z"


def test_ctrl_y_is_naparis_unless_it_is_chosen_for_redo(bench: Bench) -> None:
    binding = KeyBinding.from_str("Ctrl+Y")
    annotation = bench.find()
    assert binding not in annotation.points.keymap
    assert binding in default_shortcuts["napari:toggle_ndisplay"]
    bench.session.set_keys({"redo": "Ctrl+Y"})
    annotation.points.selected_data = {3}
    press(annotation.points, "Q")
    press(annotation.points, "Ctrl+Z")
    assert annotation.prompts.state[3] == "auto"
    press(annotation.points, "Ctrl+Y")
    assert annotation.prompts.state[3] == "rejected"


@pytest.mark.parametrize(
    "keys", [{"accept": "Q"}, {"accept": "nonsense key"}, {"fly": "F"}]
)
def test_keys_that_cannot_be_are_refused(bench: Bench, keys: dict[str, str]) -> None:
    before = bench.session.keys
    with pytest.raises(KeyTakenError, match="left as"):
        bench.session.set_keys(keys)
    assert bench.session.keys == before


def test_the_preview_does_not_stay_behind(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    preview, place = bench.session.preview, annotation.prompts.yx[0]
    far = place + 3 * annotation.diameter * np.sign([80, 100] - place)

    def look(yx: np.ndarray) -> None:
        preview.look(annotation, yx, POSITIVE, joins=False)

    look(place)
    bench.decode()
    assert preview.layer.opacity > 0
    # the mouse is elsewhere, and the mask there takes a while
    look(far)
    assert preview.layer.opacity == 0
    bench.decode()
    assert preview.layer.opacity > 0
    # a click: the mask itself comes
    annotation.points.add(far)
    assert preview.layer.opacity == 0
    bench.decode()
    assert preview.layer.opacity == 0


def _rest_and_click(bench: Bench, annotation: Annotation, yx: np.ndarray) -> None:
    bench.session.preview.look(annotation, yx, POSITIVE, joins=False)
    bench.decode()
    annotation.points.add(yx)


@pytest.mark.parametrize("away", [(4.0, 5.0), (0.0, 14.0)])
def test_a_click_where_the_mouse_rested_is_drawn_at_once(
    bench: Bench, away: tuple[float, float]
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    before = annotation.state.labels.copy()
    steps = len(bench.session.history.done)
    _rest_and_click(bench, annotation, annotation.prompts.yx[3] + away)
    assert len(bench.session.history.done) == steps + 1
    assert not bench.session.live.waiting
    foreseen = annotation.state.labels.copy()
    assert (foreseen != before).any()
    assert np.array_equal(annotation.labels.data, foreseen)
    masks = {k: m.prompt_key for k, m in annotation.masks.items()}
    # to the last bit what decoding after the click gives
    bench.session.undo()
    assert np.array_equal(annotation.state.labels, before)
    annotation.points.add(annotation.prompts.yx[3] + away)
    assert bench.session.live.waiting
    bench.decode()
    assert np.array_equal(annotation.state.labels, foreseen)
    assert {k: m.prompt_key for k, m in annotation.masks.items()} == masks
    bench.session.undo()
    bench.session.redo()
    assert np.array_equal(annotation.state.labels, foreseen)


def test_a_key_that_is_held_changes_the_preview(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    layer, gestures = annotation.points, bench.session.gestures
    gestures.take_up(annotation, "add")
    place = annotation.prompts.yx[3] + (6.0, 5.0)
    gestures.hold({"Shift"})
    assert bench.session.live.next_request() is None
    position = layer.data_to_world(place)
    for callback in layer.mouse_move_callbacks:
        if callback == gestures._on_hover:
            callback(layer, SimpleNamespace(position=position, modifiers=()))
    bench.decode()
    gestures.hold({"Shift"})
    request = bench.session.live.next_request()
    assert request.edit.after.sign[-1] == NEGATIVE
    assert request.object_id == nucleus_at(annotation, place)
    bench.session.live.take(decode_live(request, ignore_progress))
    bench.session.preview.hide()
    gestures.hold(set())
    assert bench.session.live.next_request() is None


def test_a_click_takes_what_is_being_foreseen(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    live, before = bench.session.live, annotation.state.labels.copy()
    place = annotation.prompts.yx[3] + (4.0, 5.0)
    bench.session.preview.look(annotation, place, POSITIVE, joins=False)
    request = live.next_request()
    annotation.points.add(place)
    assert live.step_waits
    live.take(decode_live(request, ignore_progress))
    assert not live.step_waits
    assert (annotation.state.labels != before).any()
    assert bench.decode() == 0


def test_where_masks_are_unsure_only_the_mask_is_foreseen(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.unsure = True
    place = annotation.prompts.yx[3] + (4.0, 5.0)
    bench.session.preview.look(annotation, place, POSITIVE, joins=False)
    request = bench.session.live.next_request()
    result = decode_live(request, ignore_progress)
    assert result.update is None
    bench.session.live.take(result)
    assert bench.session.preview.layer.opacity > 0
    annotation.points.add(place)
    assert bench.session.live.step_waits
    bench.decode()
    clicked = annotation.masks[request.object_id]
    assert clicked.logits.tobytes() == result.mask.logits.tobytes()
    assert clicked.origin_yx == result.mask.origin_yx


def test_what_was_foreseen_is_void_after_another_step(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    place = annotation.prompts.yx[3] + (4.0, 5.0)
    bench.session.preview.look(annotation, place, POSITIVE, joins=False)
    bench.decode()
    bench.session.reject(annotation, np.array([5]))
    bench.decode()
    annotation.points.add(place)
    assert bench.session.live.waiting
    bench.decode()
    live = annotation.state.labels.copy()
    bench.segment(annotation)
    assert np.array_equal(annotation.state.labels, live)


def test_here_too_is_one_more_point_of_the_nucleus(bench: Bench) -> None:
    annotation = segmented(bench)
    bench.session.gestures.take_up(annotation, "include")
    place = annotation.prompts.yx[5] + 6
    annotation.points.add(place)
    assert annotation.prompts.sign[-1] == POSITIVE
    assert annotation.prompts.object_id[-1] == annotation.prompts.object_id[5]
    assert bench.session.undo_title == "extend 1 nucleus"
    # the keys come before the tool
    click(annotation, tuple(annotation.prompts.yx[4] + 6), "Shift")
    assert annotation.prompts.sign[-1] == NEGATIVE


@pytest.mark.parametrize("tool", ["add", "exclude", "include"])
@pytest.mark.parametrize("held", [(), ("Shift",), ("Control",)])
def test_the_mouse_foresees_what_the_click_does(
    bench: Bench, tool: str, held: tuple[str, ...]
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    layer, live = annotation.points, bench.session.live
    bench.session.gestures.take_up(annotation, tool)
    yx = annotation.prompts.yx[5] + 3
    hover(annotation, tuple(yx), *held)
    request = live.next_request()
    assert isinstance(request, PreviewRequest)
    foreseen = request.edit.after
    live.take(decode_live(request, ignore_progress))
    click(annotation, tuple(yx), *held)
    for column in ("object_id", "yx", "sign"):
        np.testing.assert_allclose(
            getattr(annotation.prompts, column), getattr(foreseen, column)
        )
    assert len(layer.data) == 13


@pytest.mark.parametrize("tool", ["exclude", "include"])
def test_a_corrected_nucleus_looks_decided(bench: Bench, tool: str) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    session, layer = bench.session, annotation.points
    found, before = layer.border_color[3].copy(), annotation.state.labels.copy()
    assert set(annotation.prompts.state) == {"auto"}
    session.gestures.take_up(annotation, tool)
    layer.add(annotation.prompts.yx[3] + 4)
    bench.decode()
    assert annotation.prompts.state[3] == "accepted"
    assert (layer.border_color[3] != found).any()
    assert layer.features["state"][3] == "accepted"
    assert (np.delete(annotation.prompts.state, [3, 12]) == "auto").all()
    session.undo()
    assert annotation.prompts.state[3] == "auto"
    np.testing.assert_array_equal(layer.border_color[3], found)
    np.testing.assert_array_equal(annotation.state.labels, before)


def test_a_turned_point_decides_on_the_nucleus_that_gets_it(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.negate(annotation, np.array([4]))
    prompts = annotation.prompts
    own = (prompts.object_id == prompts.object_id[4]) & (prompts.sign == POSITIVE)
    assert prompts.state[own].tolist() == ["accepted"]


def test_a_corrected_nucleus_is_drawn_as_it_was_foreseen(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    place = annotation.prompts.yx[3] + (4.0, 5.0)
    bench.session.preview.look(annotation, place, NEGATIVE, joins=True)
    bench.decode()
    add_to_nucleus(bench.session, annotation, place, NEGATIVE)
    assert annotation.prompts.state[3] == "accepted"
    assert not bench.session.live.waiting
    shown = annotation.state.labels.copy()
    # to the last bit what segmenting everything gives
    annotation.masks.clear()
    bench.segment(annotation)
    np.testing.assert_array_equal(annotation.state.labels, shown)


def test_who_accepts_a_point_accepts_the_nucleus(bench: Bench) -> None:
    annotation = bench.find()
    session = bench.session
    add_to_nucleus(session, annotation, annotation.prompts.yx[3] + 3, POSITIVE)
    layer = annotation.points
    # as a proposal with further points would be
    layer.features.loc[[3, 12], "state"] = "auto"
    annotation.prompts.state[[3, 12]] = "auto"
    session.accept(annotation, np.array([3]))
    assert annotation.prompts.state[[3, 12]].tolist() == ["accepted"] * 2
    assert session.undo_title == "accept 1 nucleus"
    session.undo()
    assert annotation.prompts.state[[3, 12]].tolist() == ["auto"] * 2


def test_a_nucleus_painted_apart_from_the_last_is_another(bench: Bench) -> None:
    annotation = segmented(bench)
    layer = annotation.labels
    layer.data = np.zeros_like(layer.data)
    layer.brush_size = 8
    layer.selected_label = first = 50
    layer.paint((20, 20), first)
    layer.paint((24, 24), first)
    assert layer.selected_label == first
    layer.paint((60, 60), layer.selected_label)
    second = int(layer.selected_label)
    assert second != first
    layer.paint((64, 60), second)
    assert layer.selected_label == second
    ids, counts = np.unique(annotation.state.labels, return_counts=True)
    assert set(ids.tolist()) == {0, first, second}
    assert (layer.data == annotation.state.labels).all()
    assert counts[1:].min() > 60, counts
    assert {first, second} <= set(annotation.prompts.object_id.tolist())


@pytest.mark.parametrize("tool", ["add", "select", "paint"])
def test_a_tool_shows_the_layer_that_it_works_in(bench: Bench, tool: str) -> None:
    annotation = segmented(bench)
    layer = annotation.labels if tool == "paint" else annotation.points
    layer.visible = False
    assert bench.session.gestures.take_up(annotation, tool)
    assert layer.visible
    assert layer.mode == tool


def test_a_tool_comes_back_after_the_view_was_moved(bench: Bench) -> None:
    annotation = segmented(bench)
    gestures, layer = bench.session.gestures, annotation.points
    layer.mode = "select"
    layer.selected_data = {3}
    gestures.take_up(annotation, "include")
    # as napari does while Space is held down
    layer.mode = "pan_zoom"
    layer.mode = "add"
    assert gestures.tool(annotation) == "include"
    assert layer.selected_data == {3}
    # nor does what is selected get lost when another tool is taken up
    layer.visible = False
    layer.visible = True
    layer.mode = "select"
    layer.selected_data = {3}
    gestures.take_up(annotation, "include")
    assert layer.selected_data == {3}
    # rows may be others since
    layer.mode = "pan_zoom"
    bench.session.reject(annotation, np.array([0]))
    layer.mode = "add"
    assert layer.selected_data == set()
    gestures.take_up(annotation, "pan_zoom")
    layer.mode = "add"
    assert gestures.tool(annotation) == "add"


@pytest.mark.parametrize(("mode", "label"), [("semantic", 1), ("instance", 13)])
def test_the_brush_has_the_number_that_the_labels_want(
    bench: Bench, mode: str, label: int
) -> None:
    annotation = bench.find()
    bench.segment(annotation, mode=mode)
    assert bench.session.gestures.take_up(annotation, "paint")
    assert annotation.labels.selected_label == label


def test_to_draw_again_what_the_model_draws_says_why_nothing_happens(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    steps = len(bench.session.history.done)
    bench.session.redraw(annotation, [1, 2])
    assert told == [NOTHING_GIVEN]
    assert len(bench.session.history.done) == steps


@pytest.mark.parametrize("held", [(), ("Shift",)], ids=["add", "not this"])
def test_a_click_beside_the_image_adds_nothing(
    bench: Bench, held: tuple[str, ...]
) -> None:
    annotation = bench.find()
    told: list[str] = []
    bench.session.told.connect(told.append)
    before, steps = annotation.prompts, len(bench.session.history.done)
    click(annotation, (-3.0, 40.0), *held)
    assert annotation.prompts is before
    assert len(bench.session.history.done) == steps
    np.testing.assert_array_equal(annotation.points.data, before.yx)
    assert len(annotation.points.features) == len(before)
    assert annotation.points.selected_data == set()
    assert told == [OUTSIDE]
    # and the next click is one as ever
    click(annotation, (40.0, 40.0))
    assert len(annotation.prompts) == len(before) + 1
    assert bench.session.add_box(annotation, np.array([[-40, 10], [10, 30]])) is None
    assert told == [OUTSIDE] * 2


def test_of_points_that_are_pasted_those_beside_the_image_are_left_out(
    bench: Bench,
) -> None:
    annotation = bench.find()
    before = annotation.prompts.yx
    annotation.points.add(np.array([[40.0, 40.0], [9000.0, 40.0], [50.0, 60.0]]))
    wanted = np.concatenate([before, [[40, 40], [50, 60]]])
    np.testing.assert_array_equal(annotation.prompts.yx, wanted)
    np.testing.assert_array_equal(annotation.points.data, wanted)
    assert bench.session.undo_title == "add 2 nuclei"


def test_a_point_that_is_dragged_out_stays_on_the_border(bench: Bench) -> None:
    annotation = bench.find()
    layer = annotation.points
    for _ in range(2):
        # also a second time, from where it is then
        layer.data[3] = (-30.0, 50.0)
        layer.events.data(value=layer.data, action="changed", data_indices=(3,))
        assert annotation.prompts.yx[3].tolist() == [0, 50]
        assert layer.data[3].tolist() == [0, 50]


def test_without_their_image_merged_nuclei_keep_the_pixels_of_all(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    told: list[str] = []
    bench.session.told.connect(told.append)
    bench.viewer.layers.remove(bench.layer)
    labels = annotation.state.labels.copy()
    one, other = sorted(set(np.unique(labels).tolist()) - {0})[:2]
    bench.session.merge(annotation, {one, other})
    expected = np.where(labels == other, one, labels)
    np.testing.assert_array_equal(annotation.state.labels, expected)
    assert not told
    # what nobody can draw is said
    bench.session.redraw(annotation, {one})
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert told == [NO_MASK] * 2
    np.testing.assert_array_equal(annotation.state.labels, expected)


def test_without_their_image_merged_nuclei_without_a_mask_get_none(
    bench: Bench,
) -> None:
    annotation = bench.find()
    bench.viewer.layers.remove(bench.layer)
    bench.session.merge(annotation, set(annotation.prompts.object_id[:2].tolist()))
    assert not annotation.painted


def test_that_one_mask_of_all_nuclei_does_not_follow_is_said_once(bench: Bench) -> None:
    annotation = bench.find()
    told: list[str] = []
    bench.session.told.connect(told.append)
    live = bench.session.live
    bench.segment(annotation, mode="semantic")
    assert live.waits_for(annotation) == 0
    bench.session.accept(annotation, np.array([1]))
    assert not told
    bench.session.reject(annotation, np.array([0]))
    add_nuclei(annotation, np.array([[5.0, 5.0]]))
    assert told == [ONE_MASK_WAITS]
    assert live.waits_for(annotation) == 2
    bench.session.undo()
    assert live.waits_for(annotation) == 1
    bench.session.undo()
    assert live.waits_for(annotation) == 0
    bench.session.redo()
    assert live.waits_for(annotation) == 1
    bench.segment(annotation, mode="semantic")
    assert live.waits_for(annotation) == 0
    # and what is no mask of all waits for nothing
    bench.session.reject(annotation, np.array([2]))
    import_labels(bench.session, bench.plane, annotation.state.labels)
    assert live.waits_for(annotation) == 0


def test_before_there_is_one_mask_of_all_nuclei_it_need_not_follow(
    bench: Bench,
) -> None:
    bench.session.decode_config = DecodeConfig(mode="semantic")
    annotation = bench.find()
    told: list[str] = []
    bench.session.told.connect(told.append)
    bench.session.reject(annotation, np.array([0]))
    assert not told


def test_a_change_whose_mask_has_failed_waits_until_it_is_undone(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    live = bench.session.live
    bench.session.reject(annotation, np.array([0]))
    request = live.next_request()
    assert live.waits_for(annotation) == 1
    live.fail(request)
    assert live.waits_for(annotation) == 1
    bench.session.undo()
    assert live.waits_for(annotation) == 0
    bench.session.redo()
    assert live.waits_for(annotation) == 1
    bench.decode()
    assert live.waits_for(annotation) == 0
    # the next change sees to those that have failed
    bench.session.reject(annotation, np.array([3]))
    live.fail(live.next_request())
    bench.session.reject(annotation, np.array([6]))
    assert live.waits_for(annotation) == 2
    bench.decode()
    assert live.waits_for(annotation) == 0

"""The dock, by its own buttons, on a viewer without a window."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import import_labels, import_points
from hands import choose_image
from napari.components import ViewerModel
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication, QComboBox, QMainWindow

from napari_sac.core.io import normalise_image
from napari_sac.core.models.adapter import CONFIG_FILE, INFO_FILE, WEIGHT_NAMES
from napari_sac.core.progress import count
from napari_sac.core.session.state import Settings
from napari_sac.core.types import NEGATIVE
from napari_sac.viewer.adapters import adapter_path
from napari_sac.viewer.comparing import shown_plane
from napari_sac.viewer.inference import LoadedModel
from napari_sac.widgets import segment_widget
from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from napari.layers import Image
    from pytestqt.qtbot import QtBot
    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model
    from napari_sac.core.progress import Progress
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import Segmented, SegmentRequest


def click(qtbot: QtBot, button: object) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def run(qtbot: QtBot, dock: SegmentWidget, button: object) -> None:
    """Click a button that starts work, and wait for the end."""
    click(qtbot, button)
    assert dock.worker.busy
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)


def only(dock: SegmentWidget) -> Annotation:
    (annotation,) = dock.session.annotations
    return annotation


@pytest.fixture
def image(viewer: ViewerModel) -> Image:
    return viewer.layers["field"]


class Gate:
    """Pixels that are handed out when the test says so."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.asked = threading.Event()
        self.open = threading.Event()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    @property
    def ndim(self) -> int:
        return self.pixels.ndim

    def __getitem__(self, key: object) -> np.ndarray:
        if threading.current_thread() is not threading.main_thread():
            self.asked.set()
            self.open.wait(20)
        return self.pixels[key]


def test_the_whole_way_by_the_buttons(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel
) -> None:
    assert dock.find_button.isEnabled()
    assert not dock.segment_button.isEnabled()
    run(qtbot, dock, dock.find_button)
    assert "12 nuclei found" in dock.status.message.text()
    assert dock.count.text() == "12 points shown."
    assert "pixels" in dock.measured.text()
    assert "CPU" in dock.models.about_device.text()
    assert dock.segment_button.isEnabled()
    run(qtbot, dock, dock.segment_button)
    # on a busy machine the warming up is told for a moment
    qtbot.waitUntil(lambda: "segmented" in dock.status.message.text())
    only(dock).points.add([80.0, 100.0])
    run(qtbot, dock, dock.segment_button)
    qtbot.waitUntil(lambda: "unchanged" in dock.status.message.text())
    assert [layer.name for layer in viewer.layers] == [
        "field",
        "nuclei [field]",
        "nuclei prompts [field]",
    ]


def test_without_an_image_the_dock_says_what_to_do(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget
) -> None:
    viewer.layers.clear()
    assert not dock.find_button.isEnabled()
    assert not dock.why_not_find.isHidden()
    assert "Open an image" in dock.why_not_find.text()
    viewer.add_labels(np.zeros((5, 5), int))
    assert not dock.find_button.isEnabled()
    viewer.add_image(np.zeros((5, 5)), name="new")
    assert dock.find_button.isEnabled()
    assert dock.why_not_find.isHidden()
    assert dock.images.layer().name == "new"


def test_the_slider_filters_at_once(qtbot: QtBot, dock: SegmentWidget) -> None:
    run(qtbot, dock, dock.find_button)
    annotation = only(dock)
    annotation.prompts.score[:] = np.linspace(0.4, 0.9, 12)
    dock.threshold.setValue(0.6)
    expected = int(np.sum(np.linspace(0.4, 0.9, 12) >= 0.6))
    qtbot.waitUntil(lambda: len(annotation.points.data) == expected)
    assert not dock.worker.busy
    assert f"{expected} points shown" in dock.count.text()
    dock.threshold.setValue(0.0)
    qtbot.waitUntil(lambda: len(annotation.points.data) == 12)


def test_a_drag_of_the_slider_filters_seldom_and_ends_where_it_was_left(
    qtbot: QtBot, dock: SegmentWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(qtbot, dock, dock.find_button)
    annotation = only(dock)
    filtered: list[float] = []
    set_threshold = dock.session.set_threshold

    def count(annotation: Annotation, threshold: float) -> None:
        filtered.append(threshold)
        set_threshold(annotation, threshold)

    monkeypatch.setattr(dock.session, "set_threshold", count)
    for value in (0.3, 0.4, 0.5, 0.6):
        dock.threshold.setValue(value)
        QApplication.processEvents()
    assert filtered == []
    assert dock._filter_soon.interval() == 100
    qtbot.waitUntil(lambda: bool(filtered))
    assert filtered == [pytest.approx(0.6)]
    # what is segmented is what the slider says, and not what it said
    dock.threshold.setValue(0.2)
    click(qtbot, dock.segment_button)
    assert annotation.threshold == pytest.approx(0.2)
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)


def test_the_slider_filters_the_image_that_it_was_moved_for(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    run(qtbot, dock, dock.find_button)
    annotation = only(dock)
    other = viewer.add_image(image.data.copy(), rgb=True, name="other")
    choose_image(dock.images, other)
    run(qtbot, dock, dock.find_button)
    later = dock.session.annotations[-1]
    threshold = later.threshold
    choose_image(dock.images, image)
    dock.threshold.setValue(0.7)
    choose_image(dock.images, other)
    assert annotation.threshold == pytest.approx(0.7)
    assert later.threshold == threshold
    assert dock.threshold.value() == pytest.approx(threshold)


def test_the_slider_shows_the_threshold_of_the_chosen_image(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    run(qtbot, dock, dock.find_button)
    dock.threshold.setValue(0.7)
    qtbot.waitUntil(lambda: only(dock).threshold == 0.7)
    other = viewer.add_image(image.data.copy(), rgb=True, name="other")
    choose_image(dock.images, other)
    assert not dock.segment_button.isEnabled()
    dock.threshold.setValue(0.2)
    run(qtbot, dock, dock.find_button)
    choose_image(dock.images, image)
    assert dock.threshold.value() == pytest.approx(0.7)
    assert dock.segment_button.isEnabled()


def test_another_image_that_is_chosen_meanwhile_keeps_its_threshold(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    run(qtbot, dock, dock.find_button)
    dock.threshold.setValue(0.7)
    qtbot.waitUntil(lambda: only(dock).threshold == 0.7)
    other = viewer.add_image(image.data.copy(), rgb=True, name="other")
    choose_image(dock.images, other)
    dock.threshold.setValue(0.2)
    qtbot.wait(10)
    click(qtbot, dock.find_button)
    choose_image(dock.images, image)
    assert dock.threshold.value() == pytest.approx(0.7)
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    found = dock.session.annotations[-1]
    assert found.plane.layer is other
    assert found.threshold == pytest.approx(0.2)
    # of two that are both new, too
    for name in ("third", "fourth"):
        viewer.add_image(image.data.copy(), rgb=True, name=name)
    choose_image(dock.images, viewer.layers["third"])
    dock.threshold.setValue(0.5)
    click(qtbot, dock.find_button)
    choose_image(dock.images, viewer.layers["fourth"])
    dock.threshold.setValue(0.9)
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    found = dock.session.annotations[-1]
    assert found.plane.layer is viewer.layers["third"]
    assert found.threshold == pytest.approx(0.5)


def test_it_is_said_if_all_that_was_found_is_below_the_minimum(
    qtbot: QtBot, dock: SegmentWidget
) -> None:
    dock.threshold.setValue(1.0)
    run(qtbot, dock, dock.find_button)
    said = dock.status.message.text()
    assert said.startswith("12 nuclei found, all of a lower score")
    assert "Lower Minimum score" in said


def test_a_typed_diameter_overrides_the_measured_one(
    qtbot: QtBot, dock: SegmentWidget
) -> None:
    dock.diameter.setValue(33)
    run(qtbot, dock, dock.find_button)
    assert only(dock).diameter == 33
    assert "33 pixels" in dock.measured.text()
    dock.diameter.setValue(0)
    run(qtbot, dock, dock.find_button)
    assert 15 < only(dock).diameter < 30


def test_each_image_has_its_own_diameter_and_mode(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    dock.diameter.setValue(20)
    run(qtbot, dock, dock.find_button)
    semantic = replace(dock.decode_form.config(), mode="semantic")
    other = viewer.add_image(image.data.copy(), rgb=True, name="other")
    choose_image(dock.images, other)
    # those of a series are alike
    assert dock.diameter.value() == 20
    dock.diameter.setValue(33)
    dock.decode_form.show(semantic)
    run(qtbot, dock, dock.find_button)
    run(qtbot, dock, dock.segment_button)
    choose_image(dock.images, image)
    assert dock.diameter.value() == 20
    assert dock.decode_form.config().mode == "instance"
    run(qtbot, dock, dock.segment_button)
    first = dock.session.find(dock.images.plane())
    assert first.diameter == 20
    assert first.state.settings.decode.mode == "instance"
    choose_image(dock.images, other)
    assert dock.diameter.value() == 33
    assert dock.decode_form.config() == semantic
    # what was typed before nuclei were found too
    third = viewer.add_image(image.data.copy(), rgb=True, name="third")
    choose_image(dock.images, third)
    dock.diameter.setValue(15)
    choose_image(dock.images, image)
    choose_image(dock.images, third)
    assert dock.diameter.value() == 15


def test_what_is_done_to_another_plane_or_image_says_so(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, nuclei: Nuclei
) -> None:
    viewer.layers.clear()
    grey = nuclei.image[..., 0]
    stack = viewer.add_image(np.stack([grey] * 20), name="stack")
    viewer.dims.set_current_step(0, 3)
    dock.diameter.setValue(20)
    told = dock.status.message.text

    def run_and_turn_away(button: object) -> None:
        viewer.dims.set_current_step(0, 3)
        click(qtbot, button)
        viewer.dims.set_current_step(0, 1)
        qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)

    run_and_turn_away(dock.find_button)
    assert told().startswith("12 nuclei found in stack, plane 3 (")
    run_and_turn_away(dock.segment_button)
    assert " nuclei segmented in stack, plane 3 (" in told()
    dock.decode_form.show(replace(dock.decode_form.config(), mode="semantic"))
    run_and_turn_away(dock.segment_button)
    assert told().startswith("One mask of all nuclei in stack, plane 3 (")
    viewer.dims.set_current_step(0, 3)
    run(qtbot, dock, dock.segment_button)
    assert told().startswith("One mask of all nuclei (")
    viewer.add_image(grey, name="other")
    choose_image(dock.images, stack)
    run(qtbot, dock, dock.segment_button)
    assert told().startswith("One mask of all nuclei in stack, plane 3 (")


def test_masks_that_come_while_segmenting_are_not_those_it_looks_at(
    qtbot: QtBot, dock: SegmentWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(qtbot, dock, dock.find_button)
    run(qtbot, dock, dock.segment_button)
    annotation, asked = only(dock), []
    compute = segment_widget.segment

    def segment(request: SegmentRequest, progress: Progress) -> Segmented:
        asked.append(request)
        return compute(request, progress)

    monkeypatch.setattr(segment_widget, "segment", segment)
    before = dict(annotation.masks)
    click(qtbot, dock.segment_button)
    annotation.masks.clear()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert asked[0].masks == before
    assert len(annotation.masks) == 12


def test_it_is_said_if_nuclei_were_drawn_with_another_model(
    qtbot: QtBot, dock: SegmentWidget
) -> None:
    run(qtbot, dock, dock.find_button)
    run(qtbot, dock, dock.segment_button)
    assert dock.other_model.isHidden()
    name = dock.session.chosen_model[0]
    dock.session.choose_model(name, "he")
    assert not dock.other_model.isHidden()
    assert dock.other_model.text().startswith("Drawn by ")
    assert "H&E" not in dock.other_model.text()
    dock.session.choose_model(name)
    assert dock.other_model.isHidden()


def test_an_adapter_by_its_folder_is_the_one_of_that_name() -> None:
    drawn = Settings("sac_tiny", str(adapter_path("he")), model_key="key")
    describe = segment_widget._describe_other
    assert describe(drawn, ("sac_tiny", "he")) == ""
    assert "SAC tiny with H&E tissue" in describe(drawn, ("sac_tiny", "ihc"))
    assert describe(drawn, ("sac_tiny", None))
    assert describe(drawn, ("vit_b", "he"))


def test_the_diameter_is_told_in_the_units_of_the_image(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    image.scale, image.units = (0.5, 0.5), ("um", "um")
    dock.diameter.setValue(20)
    run(qtbot, dock, dock.find_button)
    assert "20 pixels = 10 µm" in dock.measured.text()


def test_channels_are_offered_where_there_are_some(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    panel = dock.images
    assert panel.first.isHidden()
    assert panel.guessed.isHidden()
    grey = image.data[..., 0]
    stack = np.stack([np.zeros_like(grey), grey, np.zeros_like(grey)])
    choose_image(dock.images, viewer.add_image(stack, name="stack"))
    assert not panel.first.isHidden()
    assert not panel.guessed.isHidden()
    assert panel.second.isHidden()
    panel.first.setCurrentText("1")
    panel.second.setCurrentText("2")
    assert dock.images.plane().channels == (1, 2)
    dock.diameter.setValue(20)
    run(qtbot, dock, dock.find_button)
    assert len(only(dock).prompts) == 12
    panel.second.setCurrentText("1")
    assert dock.images.plane().channels == (1,)
    named = viewer.add_image(stack, name="named", axis_labels=("c", "y", "x"))
    choose_image(dock.images, named)
    assert not panel.first.isHidden()
    assert panel.guessed.isHidden()


def test_nuclei_of_another_channel_or_plane_are_told_of(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    grey = image.data[..., 0]
    viewer.add_image(np.stack([grey] * 3), name="channels")
    dock.images.image.setCurrentText("channels")
    viewer.dims.set_current_step(0, 1)
    assert dock.why_not_segment.text() == "Find nuclei first."
    dock.diameter.setValue(20)
    run(qtbot, dock, dock.find_button)
    assert dock.why_not_segment.isHidden()
    dock.images.first.setCurrentText("1")
    assert not dock.why_not_segment.isHidden()
    said = (
        "This image has nuclei in Channel 1, as shown. Choose as shown under Channel "
        "and move the slider to 1 to see them, or find nuclei here."
    )
    assert dock.why_not_segment.text() == said
    dock.images.first.setCurrentText("as shown")
    viewer.dims.set_current_step(0, 2)
    assert dock.why_not_segment.text() == said
    viewer.dims.set_current_step(0, 1)
    assert dock.why_not_segment.isHidden()
    dock.session.undo()
    dock.images.first.setCurrentText("0")
    run(qtbot, dock, dock.find_button)
    dock.images.first.setCurrentText("as shown")
    assert dock.why_not_segment.text() == (
        "This image has nuclei in Channel 0. Choose 0 under Channel to see them, or "
        "find nuclei here."
    )


def test_what_is_compared_is_what_was_chosen(
    dock: SegmentWidget, viewer: ViewerModel, image: Image, nuclei: Nuclei
) -> None:
    channels = viewer.add_image(np.stack([nuclei.image[..., 0]] * 3))
    choose_image(dock.images, channels)
    dock.images.first.setCurrentText("1")
    viewer.layers.selection.active = channels
    assert shown_plane(dock.session).channels == (1,)
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    dock.images.first.setCurrentText("as shown")
    viewer.layers.selection.active = channels
    assert shown_plane(dock.session).channels == ()
    choose_image(dock.images, image)
    dock.images.stain.setCurrentIndex(1)
    viewer.layers.selection.active = image
    assert shown_plane(dock.session).stain == "haematoxylin"


def test_nuclei_of_a_chosen_channel_stay_when_the_slider_moves(
    dock: SegmentWidget, viewer: ViewerModel, nuclei: Nuclei
) -> None:
    channels = viewer.add_image(np.stack([nuclei.image[..., 0]] * 3))
    choose_image(dock.images, channels)
    viewer.dims.set_current_step(0, 0)
    dock.images.first.setCurrentText("1")
    of_channel = import_labels(dock.session, dock.images.plane(), nuclei.labels)
    dock.images.first.setCurrentText("as shown")
    as_shown = import_labels(dock.session, dock.images.plane(), nuclei.labels)
    dock.session.use(as_shown)
    assert not of_channel.labels.visible
    dock.images.first.setCurrentText("1")
    assert of_channel.labels.visible
    viewer.dims.set_current_step(0, 2)
    assert of_channel.labels.visible
    assert not as_shown.labels.visible


def test_channels_are_offered_anew_when_an_image_gets_other_data(
    viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    grey = image.data[..., 0]
    stack = viewer.add_image(np.stack([grey] * 3), name="stack")
    choose_image(dock.images, stack)
    dock.images.first.setCurrentText("2")
    stack.data = np.stack([grey] * 2)
    assert dock.images.plane().channels == ()
    assert dock.images.first.count() == 3, "as shown, 0 and 1"
    dock.images.first.setCurrentText("1")
    stack.data = np.stack([grey[::-1]] * 2)
    assert dock.images.plane().channels == (1,)


def test_a_stain_is_offered_for_colour_images(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    panel = dock.images
    assert not panel.stain.isHidden()
    assert panel.plane().stain is None
    panel.stain.setCurrentText("haematoxylin")
    assert panel.plane().stain == "haematoxylin"
    shown = normalise_image(image.data, stain="haematoxylin")
    np.testing.assert_array_equal(panel.plane().read(), shown)
    # another image is looked at as it is shown
    grey = viewer.add_image(image.data[..., 0], name="grey")
    choose_image(panel, grey)
    assert panel.stain.isHidden()
    choose_image(panel, image)
    assert panel.plane().stain is None
    assert not panel.stain.isHidden()


def test_the_slider_of_a_stack_changes_what_segment_is_about(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    grey = image.data[..., 0]
    stack = viewer.add_image(np.stack([grey] * 3), axis_labels=("z", "y", "x"))
    choose_image(dock.images, stack)
    viewer.dims.set_current_step(0, 2)
    run(qtbot, dock, dock.find_button)
    first = only(dock)
    assert first.points.name.endswith("plane 2]")
    viewer.dims.set_current_step(0, 1)
    assert not dock.segment_button.isEnabled()
    assert not first.points.visible
    viewer.dims.set_current_step(0, 2)
    assert dock.segment_button.isEnabled()
    assert first.points.visible


def test_new_points_can_be_negative(qtbot: QtBot, dock: SegmentWidget) -> None:
    run(qtbot, dock, dock.find_button)
    dock.correct.tool_buttons["exclude"].click()
    only(dock).points.add([30.0, 30.0])
    assert only(dock).prompts.sign[-1] == NEGATIVE


def test_advanced_options_are_used(qtbot: QtBot, dock: SegmentWidget) -> None:
    run(qtbot, dock, dock.find_button)
    (mode,) = [
        box
        for box in dock.decode_form.native.findChildren(QComboBox)
        if box.findText("semantic") >= 0
    ]
    mode.setCurrentText("semantic")
    run(qtbot, dock, dock.segment_button)
    assert "One mask" in dock.status.message.text()
    assert set(np.unique(only(dock).labels.data)) <= {0, 1}


def test_while_it_works_the_buttons_wait(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    gate = Gate(image.data[..., 0])
    choose_image(dock.images, viewer.add_image(gate, name="gated"))
    click(qtbot, dock.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    assert not dock.find_button.isEnabled()
    assert not dock.status.cancel.isHidden()
    gate.open.set()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert dock.find_button.isEnabled()
    assert dock.status.cancel.isHidden()


def test_cancel_changes_nothing(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    gate = Gate(image.data[..., 0])
    choose_image(dock.images, viewer.add_image(gate, name="gated"))
    click(qtbot, dock.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    click(qtbot, dock.status.cancel)
    gate.open.set()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert "cancelled. Nothing was changed" in dock.status.message.text()
    assert dock.session.annotations == []
    assert len(viewer.layers) == 2


def test_the_result_for_an_image_that_is_gone_is_dropped(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    gate = Gate(image.data[..., 0])
    gated = viewer.add_image(gate, name="gated")
    choose_image(dock.images, gated)
    click(qtbot, dock.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    viewer.layers.remove(gated)
    gate.open.set()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert "image was removed" in dock.status.message.text()
    assert list(viewer.layers) == [image]


def test_the_result_for_pixels_that_were_exchanged_is_dropped(
    qtbot: QtBot, dock: SegmentWidget, image: Image
) -> None:
    gate = Gate(image.data)
    image.data = gate
    click(qtbot, dock.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    image.data = gate.pixels[::-1]
    gate.open.set()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert "got other pixels" in dock.status.message.text()
    assert dock.session.annotations == []


def test_labels_for_points_that_are_gone_are_dropped(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    run(qtbot, dock, dock.find_button)
    gate = Gate(image.data)
    image.data = gate
    click(qtbot, dock.segment_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    viewer.layers.remove(only(dock).points)
    gate.open.set()
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)
    assert "points were removed" in dock.status.message.text()
    assert "Redo of a step" in dock.status.message.text()
    assert list(viewer.layers) == [image]


def test_deleted_points_are_no_reason_to_find_nuclei_again(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget
) -> None:
    run(qtbot, dock, dock.find_button)
    run(qtbot, dock, dock.segment_button)
    viewer.layers.remove(only(dock).points)
    assert not dock.segment_button.isEnabled()
    assert "Redo of a step" in dock.why_not_segment.text()
    assert dock.status.message.text() == dock.why_not_segment.text()
    dock.correct.undo.click()
    dock.correct.redo.click()
    assert dock.segment_button.isEnabled()
    while dock.session.undo():
        pass
    viewer.layers.remove(only(dock).points)
    assert dock.why_not_segment.text() == "Find nuclei first."


def test_an_adapter_for_other_weights_is_a_sentence_in_the_dock(
    qtbot: QtBot, viewer: ViewerModel
) -> None:
    folder = Path(os.environ["NAPARI_SAC_HOME"]) / "adapters" / "mine"
    folder.mkdir(parents=True)
    for name in (CONFIG_FILE, *WEIGHT_NAMES):
        (folder / name).touch()
    about = {"title": "Mine", "description": "For my stain.", "licence": "my own"}
    base = {"format": 1, "base": "sac_tiny", "base_sha256": "other"}
    (folder / INFO_FILE).write_text(json.dumps(about | base))
    dock = SegmentWidget(viewer)
    qtbot.addWidget(dock)
    dock.models.adapter.setCurrentText("Mine")
    assert dock.models.about_adapter.text() == "For my stain. Licence: my own."
    run(qtbot, dock, dock.find_button)
    assert "other weights of sac_tiny" in dock.status.message.text()
    assert dock.status.copy.isHidden()
    dock.models.model.setCurrentIndex(1)
    assert dock.models.adapter.findText("Mine") < 0
    dock.leave()


def test_the_report_of_an_unexpected_error_can_be_copied(
    qtbot: QtBot,
    dock: SegmentWidget,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("disk on fire")

    with monkeypatch.context() as patch:
        patch.setattr("napari_sac.viewer.planes.normalise_image", broken)
        run(qtbot, dock, dock.find_button)
    assert "did not expect" in dock.status.message.text()
    assert not dock.status.copy.isHidden()
    click(qtbot, dock.status.copy)
    assert "disk on fire" in QApplication.clipboard().text()
    # the next success takes it away
    choose_image(dock.images, image)
    run(qtbot, dock, dock.find_button)
    assert dock.status.copy.isHidden()


def test_renamed_images_are_listed_by_their_new_name(
    viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    choose_image(dock.images, image)
    image.name = "slide 7"
    assert dock.images.image.currentText() == "slide 7"
    viewer.add_image(np.zeros((4, 4)), name="b")
    viewer.layers.move(0, 2)
    assert dock.images.layer() is image
    viewer.layers.remove(image)
    assert dock.images.layer().name == "b"


def test_the_newest_image_is_chosen_until_one_is_used(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, image: Image
) -> None:
    viewer.add_image(image.data.copy(), rgb=True, name="newer")
    assert dock.images.layer().name == "newer"
    viewer.layers.move(1, 0)
    assert dock.images.layer().name == "newer"
    run(qtbot, dock, dock.find_button)
    viewer.add_image(np.zeros((4, 4)), name="newest")
    assert dock.images.layer().name == "newer"


def test_a_new_dock_goes_on_with_the_layers_of_the_old_one(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget, disc_model: Model
) -> None:
    run(qtbot, dock, dock.find_button)
    only(dock).points.add([5.0, 5.0])
    dock.leave()
    again = SegmentWidget(viewer)
    qtbot.addWidget(again)
    assert again.session is dock.session
    assert again.segment_button.isEnabled()
    run(qtbot, again, again.segment_button)
    assert len(only(again).prompts) == 13
    again.leave()


def test_a_closed_dock_leaves_the_viewer_alone(
    qtbot: QtBot, viewer: ViewerModel, dock: SegmentWidget
) -> None:
    # what napari does with a dock
    window = QMainWindow()
    qtbot.addWidget(window)
    dock.setParent(window)
    count = dock.images.image.count()
    dock.setParent(None)
    viewer.add_image(np.zeros((4, 4)))
    assert dock.images.image.count() == count
    dock.setParent(window)
    assert dock.images.image.count() == count + 1
    dock.setParent(None)


def test_closing_while_it_works_is_safe_and_frees_everything(
    qtbot: QtBot, nuclei: object, disc_model: Model
) -> None:
    viewer = ViewerModel()
    gate = Gate(nuclei.image)
    # without a name napari looks for one among our variables, and keeps them
    viewer.add_image(gate, rgb=True, name="gated")
    window = QMainWindow()
    dock = SegmentWidget(viewer)
    window.setCentralWidget(dock)
    dock.session.loaded = LoadedModel(dock.models.choice(), disc_model)
    click(qtbot, dock.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    refs = [weakref.ref(x) for x in (dock, dock.session, viewer)]
    timer = threading.Timer(0.2, gate.open.set)
    timer.start()
    window.deleteLater()
    with qtbot.waitSignal(window.destroyed):
        pass
    QThreadPool.globalInstance().waitForDone(20_000)
    viewer.layers.clear()
    del window, dock, viewer

    def freed() -> bool:
        gc.collect()
        return [ref() for ref in refs] == [None] * 3

    # Qt keeps some until it has gone through its events
    qtbot.waitUntil(freed)


def colour(image: Image) -> None:
    """Make the image look like tissue stained with haematoxylin and eosin."""
    inside = image.data[..., :1] > 100
    image.data = np.where(inside, (110, 60, 150), (225, 150, 195)).astype(np.uint8)


def test_two_viewers_work_at_once_and_know_nothing_of_each_other(
    qtbot: QtBot, dock: SegmentWidget, nuclei: Nuclei, disc_model: Model
) -> None:
    other_viewer = ViewerModel()
    gate = Gate(nuclei.image)
    other_viewer.add_image(gate, rgb=True, name="other")
    other = SegmentWidget(other_viewer)
    qtbot.addWidget(other)
    other.session.loaded = LoadedModel(other.models.choice(), disc_model)
    click(qtbot, other.find_button)
    qtbot.waitUntil(gate.asked.is_set, timeout=60_000)
    # one works while the other does
    run(qtbot, dock, dock.find_button)
    assert other.worker.busy
    assert other.session is not dock.session
    assert len(only(dock).points.data) == 12
    # and is not disturbed when the other goes away
    other.leave()
    gate.open.set()
    run(qtbot, dock, dock.segment_button)
    assert only(dock).labels is not None
    assert [layer.name for layer in other_viewer.layers] == ["other"]


def test_after_segment_the_choices_make_place(
    qtbot: QtBot, dock: SegmentWidget
) -> None:
    run(qtbot, dock, dock.find_button)
    assert dock.images.isVisibleTo(dock.choices)
    run(qtbot, dock, dock.segment_button)
    assert not dock.images.isVisibleTo(dock.choices)
    assert dock.models.isHidden() is False
    # who unfolds them wants to see them
    click(qtbot, dock.choices.heading)
    assert dock.images.isVisibleTo(dock.choices)
    run(qtbot, dock, dock.segment_button)
    assert dock.images.isVisibleTo(dock.choices)


def test_with_a_second_image_the_dock_says_which_one_it_works_on(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel, nuclei: Nuclei
) -> None:
    run(qtbot, dock, dock.find_button)
    assert "12 nuclei found (" in dock.status.message.text()
    assert dock.choices.heading.text().split() == ["1", "Image", "and", "model", "▾"]
    run(qtbot, dock, dock.segment_button)
    assert "1 Image and model: field " in dock.choices.heading.text()
    name = "slide 17, stained again & cut, left part"
    other = viewer.add_image(nuclei.image, rgb=True, name=name)
    run(qtbot, dock, dock.find_button)
    assert "12 nuclei found in field (" in dock.status.message.text()
    wide = dock.choices.minimumSizeHint().width()
    dock.images.image.setCurrentText(other.name)
    assert "slide 17, st…, left part" in dock.choices.heading.text()
    assert dock.choices.heading.toolTip() == name
    assert dock.choices.minimumSizeHint().width() == wide
    other.name = "cut & dry"
    # Qt draws one of them
    assert "model: cut && dry " in dock.choices.heading.text()
    viewer.layers.clear()
    assert ":" not in dock.choices.heading.text()


def test_no_button_beside_the_adapters_is_cut(dock: SegmentWidget) -> None:
    panel = dock.models
    panel.show()
    for width in (panel.minimumSizeHint().width(), 220, 400):
        panel.resize(max(width, panel.minimumSizeHint().width()), 300)
        assert panel.add.width() >= panel.add.sizeHint().width()
        assert panel.adapter.width() > 0


def test_tissue_is_told_which_adapter_is_meant_for_it(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel, image: Image
) -> None:
    about = dock.models.about_adapter
    assert about.isHidden()
    colour(image)
    dock.images.refresh()
    assert about.text() == "This looks like H&E tissue: choose it."
    assert not about.isHidden()
    assert dock.models.choice().adapter is None
    dock.models.adapter.setCurrentText("H&E tissue")
    assert "This looks like H&E" not in about.text()
    dock.models.adapter.setCurrentText("Brown tissue (DAB)")
    assert about.text().startswith("This looks like H&E tissue: choose it. ")
    dock.models.adapter.setCurrentText("none")
    assert "This looks like H&E" in about.text()
    # an adapter that learned colours is none for a stain alone
    dock.images.stain.setCurrentText("haematoxylin")
    assert about.isHidden()
    dock.images.stain.setCurrentIndex(0)
    assert "This looks like H&E" in about.text()
    # half of it brown, with blue beside
    brown = np.where(image.data[..., :1] < 150, (120, 125, 180), (140, 100, 60))
    brown[:60] = 240
    image.data = brown.astype(np.uint8)
    dock.images.refresh()
    assert about.text() == "This looks like Brown tissue (DAB): choose it."
    # another image is asked anew
    viewer.add_image(np.zeros((5, 5)), name="grey")
    choose_image(dock.images, viewer.layers["grey"])
    assert about.isHidden()


def test_the_box_shows_whether_nuclei_are_outlines(
    qtbot: QtBot, dock: SegmentWidget, image: Image
) -> None:
    assert not dock.correct.outlines.isChecked()
    colour(image)
    import_labels(dock.session, dock.images.plane(), np.eye(160, 200, dtype=np.uint32))
    assert dock.correct.outlines.isChecked()
    assert only(dock).labels.contour > 0
    dock.correct.outlines.setChecked(False)
    assert only(dock).labels.contour == 0


def test_a_stain_that_was_looked_at_is_shown_again(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel, image: Image
) -> None:
    dock.images.stain.setCurrentText("haematoxylin")
    run(qtbot, dock, dock.find_button)
    assert only(dock).plane.stain == "haematoxylin"
    second = SegmentWidget(viewer)
    qtbot.addWidget(second)
    assert second.images.stain.currentText() == "haematoxylin"
    assert second.images.plane().stain == "haematoxylin"
    # a choice that was not used yet is the user's own
    second.images.stain.setCurrentText("as shown")
    second.session.changed.emit()
    assert second.images.stain.currentText() == "as shown"
    second.leave()


def test_nuclei_without_a_mask_are_told(qtbot: QtBot, dock: SegmentWidget) -> None:
    run(qtbot, dock, dock.find_button)
    annotation = only(dock)
    # twice the same nucleus: one mask is a duplicate
    annotation.points.add(annotation.prompts.yx[0] + 0.25)
    run(qtbot, dock, dock.segment_button)
    nuclei = len(np.unique(annotation.state.labels)) - 1
    said = dock.status.message.text
    qtbot.waitUntil(lambda: "segmented" in said())
    without = len(annotation.prompts) - nuclei
    assert without > 0
    assert f" {count(without, 'nucleus', 'nuclei')} got no mask." in said()


def test_axes_that_are_turned_and_3d_are_refused_in_words(
    dock: SegmentWidget, viewer: ViewerModel, nuclei: Nuclei
) -> None:
    grey = nuclei.image[..., 0]
    viewer.layers.clear()
    viewer.add_image(np.stack([grey] * 3), axis_labels=("z", "y", "x"))
    assert dock.find_button.isEnabled()
    assert "Find nuclei first" in dock.why_not_segment.text()
    import_points(dock.session, dock.images.plane(), [[9.0, 9.0]], 20)
    assert dock.segment_button.isEnabled()
    assert dock.why_not_segment.isHidden()
    viewer.dims.order = (1, 0, 2)
    assert not dock.find_button.isEnabled()
    assert "last two axes" in dock.why_not_find.text()
    assert not dock.segment_button.isEnabled()
    assert "last two axes" in dock.why_not_segment.text()
    assert not dock.why_not_segment.isHidden()
    viewer.dims.order = (0, 1, 2)
    assert dock.find_button.isEnabled()
    assert dock.segment_button.isEnabled()
    viewer.dims.ndisplay = 3
    assert not dock.find_button.isEnabled()
    assert not dock.segment_button.isEnabled()

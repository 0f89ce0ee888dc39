"""From corrected nuclei to an adapter in use: a real window, a real training."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from annotating import import_labels
from hands import Hands
from qtpy.QtCore import Qt
from synthetic import draw_nuclei

from napari_sac.core.models.adapter import read_adapter_info, user_adapters
from napari_sac.core.training.run_folder import Phase
from napari_sac.viewer.planes import current_plane
from napari_sac.widgets._finetune_closing import Closing
from napari_sac.widgets._finetune_watch import RunStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_sac.widgets.finetune_widget import FinetuneWidget

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

PATIENCE = 400_000
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    shown = make_napari_viewer(show=True)
    shown.window.resize(1400, 900)
    return shown


def listed(dock: FinetuneWidget) -> list[str]:
    """Return the lines of what can be learned from."""
    lines = dock.sources.list
    return [lines.item(i).text() for i in range(lines.count())]


def kill_and_go_on(dock: FinetuneWidget, qtbot: QtBot) -> None:
    """End the training from outside, once it has learned something."""

    def is_learning() -> bool:
        status = dock.watch.status
        return status is not None and status.phase is Phase.TRAINING

    qtbot.waitUntil(is_learning, timeout=PATIENCE)
    status = dock.watch.status
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: dock.watch.stage is RunStage.LOST, timeout=PATIENCE)
    assert "ended without a word" in dock.run.problem.text()
    qtbot.mouseClick(dock.run.go_on, LEFT)
    assert dock.watch.is_going


def test_correct_train_compare_use(viewer: Any, qtbot: QtBot) -> None:
    _, segment = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    _, dock = viewer.window.add_plugin_dock_widget("napari-sac", "Fine-tune")
    dock.guard.ask = lambda *_: Closing.KEEP
    assert dock.session is segment.session
    drawn = draw_nuclei((240, 300), 22, 12)
    layer = viewer.add_image(drawn.image, rgb=True, name="slide")
    plane = current_plane(layer, viewer.dims.point)

    # correct: outlines that are right, and one proposal that is none
    annotation = import_labels(segment.session, plane, drawn.labels)
    segment.session.accept(annotation, np.arange(1, 22))
    viewer.layers.selection.active = annotation.points
    annotation.points.selected_data = {0}
    Hands(viewer, layer, qtbot).key(Qt.Key.Key_Q)
    assert annotation.prompts.state[0] == "rejected"
    expected = "slide\n21 nuclei, 1 rejected"
    qtbot.waitUntil(lambda: listed(dock) == [expected])

    # train
    dock.train.quick.setChecked(True)
    dock.train.minutes.setValue(0.5)
    # the masks beside the rejected one come first
    qtbot.waitUntil(dock.train.start.isEnabled, timeout=PATIENCE)
    qtbot.mouseClick(dock.train.start, LEFT)
    qtbot.waitUntil(lambda: dock.watch.is_going, timeout=PATIENCE)
    kill_and_go_on(dock, qtbot)
    qtbot.waitUntil(lambda: not dock.result.isHidden(), timeout=PATIENCE)

    # compare
    folder = user_adapters() / "slide_tuned"
    info = read_adapter_info(folder)
    assert "learned" in info.description.lower()
    assert len(dock.result.table.findChildren(type(dock.result.title))) == 20
    assert (folder / "report.html").is_file()

    # use it: by itself only if it is better
    if info.promoted:
        assert not dock.result.back.isHidden()
    else:
        assert segment.session.chosen_model == ("sac_tiny", None)
        qtbot.mouseClick(dock.result.use, LEFT)
    assert segment.session.chosen_model == ("sac_tiny", "slide_tuned")
    choice = segment.models.choice()
    assert choice.adapter is not None
    assert choice.adapter.resolve() == folder.resolve()
    segment.find_button.click()
    qtbot.waitUntil(lambda: not segment.worker.busy, timeout=PATIENCE)
    assert segment.session.loaded.model.adapter.name == "slide_tuned"
    assert np.isin("rejected", annotation.prompts.state)
    qtbot.mouseClick(dock.result.back, LEFT)
    assert segment.models.choice().adapter is None

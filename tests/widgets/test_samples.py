"""The window answers while sample images are downloaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer

from napari_sac.core.datasets import dsb2018
from napari_sac.core.datasets.pairs import LabelledImage
from napari_sac.core.errors import DownloadError
from napari_sac.widgets import samples
from napari_sac.widgets._worker import wait_for

if TYPE_CHECKING:
    import pytest
    from pytestqt.qtbot import QtBot

    from napari_sac.core.progress import Progress


def test_the_window_answers_while_a_server_does_not(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = LabelledImage("x", np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.int32))

    def slowly(*args: object) -> tuple[LabelledImage, ...]:
        # no word of progress, as of a server that stalls
        time.sleep(0.6)
        return (found,)

    monkeypatch.setattr(dsb2018, "fetch_samples", slowly)
    monkeypatch.setattr(dsb2018, "SAMPLES", {"x": "a sample"})
    beats: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.monotonic()))
    timer.start(20)
    layers = samples.dsb2018_samples()
    timer.stop()
    assert [kwargs["name"] for _, kwargs, _ in layers] == [
        "a sample",
        "a sample, true nuclei",
    ]
    assert len(beats) > 10


def test_what_fails_is_told_and_gives_no_layers(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise DownloadError("There is no network. Nothing was kept.")

    monkeypatch.setattr(dsb2018, "fetch_samples", fail)
    before = len(notification_manager.records)
    assert samples.dsb2018_samples() == []
    told = [record.message for record in notification_manager.records[before:]]
    assert told == ["There is no network. Nothing was kept."]


def test_cancel_ends_it(qtbot: QtBot) -> None:
    def work(progress: Progress) -> int:
        cancel_all()
        for n in range(500):
            progress("working", n, 500)
            time.sleep(0.01)
        return 1

    def cancel_all() -> None:
        from napari.utils.progress import progress as bars

        for bar in list(bars._all_instances):
            bar.cancel()

    before = len(notification_manager.records)
    assert wait_for("Working", work) is None
    told = [record.message for record in notification_manager.records[before:]]
    assert told == ["Working was cancelled."]

"""Preferences of napari reach the dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from napari.components import ViewerModel
from napari.settings import get_plugin_settings
from npe2 import PluginManifest

import napari_sac
from napari_sac.widgets._settings import ComputeSettings, compute_settings
from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from npe2._pytest_plugin import TestPluginManager
    from pytestqt.qtbot import QtBot


@pytest.fixture
def registered(npe2pm: TestPluginManager, plugin_settings: None) -> None:
    file = Path(napari_sac.__file__).parent / "napari.yaml"
    npe2pm.register(PluginManifest.from_file(file))


def test_the_defaults_are_those_of_the_manifest(registered: None) -> None:
    compute = get_plugin_settings("napari-sac").compute
    assert (compute.device, compute.cache_mb) == ("auto", 2048)
    assert compute_settings() == ComputeSettings() == ComputeSettings("auto", 2048)


def test_preferences_reach_the_dock(registered: None, qtbot: QtBot) -> None:
    settings = get_plugin_settings("napari-sac")
    settings.compute.device = "cpu"
    settings.compute.cache_mb = 7
    dock = SegmentWidget(ViewerModel())
    qtbot.addWidget(dock)
    assert dock.models.choice().device == "cpu"
    assert dock.session.cache_bytes == 7 << 20
    dock.leave()


def test_without_the_plugin_in_napari_the_dock_works(
    plugin_settings: None, qtbot: QtBot
) -> None:
    dock = SegmentWidget(ViewerModel())
    qtbot.addWidget(dock)
    assert dock.models.choice().device == "auto"
    dock.leave()

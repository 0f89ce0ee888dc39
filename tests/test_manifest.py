"""What napari is told about the plugin is there."""

import importlib
import subprocess
import sys

import pytest
from npe2 import PluginManifest

from napari_sac.viewer.keys import ACTIONS


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    # From the installed package, as napari finds it.
    return PluginManifest.from_distribution("napari-sac")


def test_every_python_name_resolves(manifest: PluginManifest) -> None:
    commands = manifest.contributions.commands
    assert commands
    for command in commands:
        module, _, attribute = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute)), command.id


def test_every_contribution_names_a_command(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    known = {command.id for command in contributions.commands}
    used = {widget.command for widget in contributions.widgets or ()}
    used |= {
        s.command for s in contributions.sample_data or () if hasattr(s, "command")
    }
    for file_kind in (*(contributions.readers or ()), *(contributions.writers or ())):
        used.add(file_kind.command)
    for items in (contributions.menus or {}).values():
        used |= {item.command for item in items if hasattr(item, "command")}
    assert used == known


def test_files_and_menus_lead_here(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    (reader,) = contributions.readers
    assert reader.filename_patterns == ["*.sac"]
    assert reader.accepts_directories
    (writer,) = contributions.writers
    assert writer.filename_extensions == [".geojson"]
    assert set(contributions.menus) == {"napari/layers/segment"}
    docks = [widget.command for widget in contributions.widgets]
    menu = contributions.menus["napari/layers/segment"]
    assert [item.command for item in menu] == docks


def test_every_key_of_ours_can_be_changed_in_preferences(
    manifest: PluginManifest,
) -> None:
    category = manifest.contributions.configurations["shortcuts"]
    offered = {
        name: (p.title, p.default, p.type) for name, p in category.properties.items()
    }
    assert offered == {a.name: (a.title, a.key, "string") for a in ACTIONS}


def test_npe2_validates(manifest: PluginManifest) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", manifest.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr

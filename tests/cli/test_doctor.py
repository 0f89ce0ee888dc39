"""``napari-sac doctor`` answers, on a broken installation above all."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import napari_sac
from napari_sac.cli.doctor import examine
from napari_sac.cli.main import main
from napari_sac.core.models import adapter
from napari_sac.core.models.registry import model_specs


def doctor(*arguments, python_path=(), **environment):
    """Run it as a program of its own, where torch or the display may be missing."""
    source = Path(napari_sac.__file__).parents[1]
    paths = os.pathsep.join(map(str, [*python_path, source]))
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    }
    return subprocess.run(
        [sys.executable, "-m", "napari_sac", "doctor", *arguments],
        env=variables | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    result = doctor("--json", NAPARI_SAC_HOME=home)
    assert result.returncode == 0, result.stderr
    return home, json.loads(result.stdout)


def test_versions_are_told(report):
    versions = report[1]["versions"]
    assert versions["python"].startswith(sys.version.split()[0])
    assert versions["numpy"] == np.__version__
    assert {
        "napari",
        "npe2",
        "torch",
        "torchvision",
        "segment-anything",
        "peft",
    } <= set(versions)


def test_device_is_told_with_its_reason(report):
    device = report[1]["device"]
    assert device["name"] in ("cpu", "cuda", "mps")
    assert len(device["reason"]) > 10


def test_models_and_folders_are_told(report):
    home, told = report
    assert set(told["models"]) >= {spec.name for spec in model_specs()}
    assert "not downloaded" in told["models"]["vit_b"]
    assert told["folders"]["data"].startswith(home)
    assert told["folders"]["cache"].startswith(os.path.join(home, "cache"))
    assert "GB free" in told["folders"]["data"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display")
def test_missing_display_is_told(report):
    told = report[1]["opengl"]
    assert told["display"] == "no display"
    assert ("not installed" in told["Xvfb"]) == (shutil.which("Xvfb") is None)


def test_text_has_the_same_sections(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for line in ("versions", "device", "models", "adapters", "folders", "qt", "opengl"):
        assert line in out.splitlines()


def test_an_adapter_that_was_not_promoted_is_told(monkeypatch):
    he, *_ = (info for info in adapter.list_adapters() if info.name == "he")
    worse = replace(he, name="worse", promoted=False)
    monkeypatch.setattr(adapter, "list_adapters", lambda: [he, worse])
    told = examine()["adapters"]
    assert told["he"] == f"for sac_tiny, at {he.path}"
    assert told["worse"] == f"for sac_tiny, not promoted, at {he.path}"


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ("raise OSError('libtorch is gone')", "libtorch is gone"),
        ("import os; os.abort()", "exit status -6"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="tells signals in another way")
def test_broken_torch_and_display_do_not_crash_it(tmp_path, torch, words):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(torch)
    result = doctor("--json", python_path=[tmp_path], DISPLAY=":9876")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert words in told["device"]["FAILED"]
    assert "exit status" in told["opengl"]["FAILED"]
    assert told["versions"]["numpy"] == np.__version__


def test_a_section_that_fails_does_not_hide_the_others(monkeypatch, capsys):
    def fail():
        raise ModuleNotFoundError("No module named 'safetensors'")

    monkeypatch.setattr("napari_sac.core.models.registry.model_specs", fail)
    monkeypatch.setattr("napari_sac.cli.doctor.ask_apart", lambda question: {})
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "safetensors" in report["models"]["FAILED"]
    assert "data" in report["folders"]

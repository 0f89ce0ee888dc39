"""``napari-sac doctor``: what people paste into a bug report.

It must answer on a broken installation, so what may crash is asked in another process.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from napari_sac.cli._probe import ask_apart

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from napari_sac.cli._options import Subparsers

Report = dict[str, dict[str, str]]
"""Section to name to value; every value is text for people."""

_PACKAGES = (
    "napari-sac",
    "napari",
    "npe2",
    "torch",
    "torchvision",
    "segment-anything",
    "peft",
    "safetensors",
    "numpy",
    "scikit-image",
    "tifffile",
    "QtPy",
)
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "doctor",
        help="show versions, device, models and display, for a bug report",
        description="Show what this installation consists of and what it runs on.",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report and return 0."""
    report = examine()
    text = json.dumps(report, indent=2) if args.json else _format(report)
    sys.stdout.write(text + "\n")
    return 0


def examine() -> Report:
    """Return what this installation consists of and what it runs on."""
    return {
        "versions": _versions(),
        "device": ask_apart("device"),
        "models": _try(_models),
        "adapters": _try(_adapters),
        "folders": _try(_folders),
        "qt": {name: installed_version(name) for name in _BINDINGS}
        | {"QT_API": os.environ.get("QT_API", "not set")},
        "opengl": _opengl(),
    }


def _versions() -> dict[str, str]:
    system = {
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": f"{platform.platform()}, {os.cpu_count()} processors",
    }
    return system | {name: installed_version(name) for name in _PACKAGES}


def installed_version(package: str) -> str:
    """Return the version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _try(section: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return a section of the report, or how it failed: the others are told still."""
    try:
        return section()
    except Exception as error:  # noqa: BLE001 - whatever is broken is what is asked for
        return {"FAILED": f"{type(error).__name__}: {error}"}


def _models() -> dict[str, str]:
    from napari_sac.cli.models import describe_state
    from napari_sac.core.models.registry import model_specs, weights_path

    return {
        spec.name: f"{describe_state(spec)}, at {weights_path(spec)}"
        for spec in model_specs()
    }


def _adapters() -> dict[str, str]:
    from napari_sac.core.models.adapter import list_adapters

    found = {}
    for info in list_adapters():
        worth = "" if info.promoted else ", not promoted"
        found[info.name] = f"for {info.base}{worth}, at {info.path}"
    return found or {"adapters": "none"}


def _folders() -> dict[str, str]:
    from napari_sac.core.io import cache_folder, data_folder

    return {
        "data": _describe_folder(data_folder()),
        "cache": _describe_folder(cache_folder()),
    }


def _describe_folder(folder: Path) -> str:
    places = (folder, *folder.absolute().parents)
    nearest = next((p for p in places if p.exists()), None)
    if nearest is None:
        return f"{folder} (its drive is not there)"
    free = shutil.disk_usage(nearest).free >> 30
    state = "" if folder.exists() else ", not made yet"
    locked = "" if os.access(nearest, os.W_OK) else ", CANNOT BE WRITTEN"
    return f"{folder} ({free} GB free{state}{locked})"


def _opengl() -> dict[str, str]:
    if sys.platform == "linux" and not any(
        os.environ.get(name)
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        server = shutil.which("Xvfb") or "not installed; napari-sac demo needs it"
        return {"display": "no display", "Xvfb": server}
    return ask_apart("opengl")


def _format(report: Report) -> str:
    lines = []
    for section, values in report.items():
        width = max(map(len, values))
        lines.append(section)
        lines += [f"  {name:{width}}  {value}" for name, value in values.items()]
    return "\n".join(lines)

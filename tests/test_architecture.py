"""The rules of docs/explanation/architecture.md that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_sac
from napari_sac.cli.main import main
from napari_sac.core.models.adapter import SHIPPED_ADAPTERS, adapter_folders

ROOT = Path(__file__).parents[1]
PACKAGE = Path(napari_sac.__file__).parent

# Imports the modules given as arguments and prints which one first loads which of the
# packages named in the first argument.
IMPORT_AND_REPORT = """
import importlib, sys
unwanted = set(sys.argv[1].split(","))
for name in sys.argv[2:]:
    importlib.import_module(name)
    for package in sorted(unwanted & set(sys.modules)):
        print(f"{name} loads {package}")
        unwanted.discard(package)
"""


def module_names(*folders: str) -> list[str]:
    """Return the dotted names of all modules in the given folders of the package."""
    paths = [p for folder in folders for p in sorted((PACKAGE / folder).rglob("*.py"))]
    parts = [p.relative_to(PACKAGE.parent).with_suffix("").parts for p in paths]
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]


def what_loads(unwanted: str, modules: list[str]) -> str:
    """Return which of the modules loads which of the unwanted packages, a line each."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_REPORT, unwanted, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_imports_follow_the_contracts() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", code, "--config", "setup.cfg", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("folder", ["widgets", "viewer", "cli"])
def test_opening_a_dock_or_the_command_line_loads_no_model_code(folder: str) -> None:
    modules = module_names(folder)
    assert modules
    assert what_loads("torch,torchvision,peft,segment_anything", modules) == ""


def test_core_loads_no_napari_and_no_qt() -> None:
    modules = module_names("core")
    assert "napari_sac.core.types" in modules
    assert what_loads("napari,magicgui,qtpy,superqt,PyQt6,PySide6", modules) == ""


def test_threads_start_in_the_worker_module_only() -> None:
    allowed = PACKAGE / "widgets" / "_worker.py"
    starters = {"threading", "multiprocessing", "concurrent", "napari.qt.threading"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            hits = [n for n in names if n in starters or n.split(".")[0] in starters]
            if hits and path != allowed:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {hits[0]}")
    assert found == []


def test_every_folder_is_explained() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    folders = [
        path
        for parent in (PACKAGE, PACKAGE / "core")
        for path in sorted(parent.iterdir())
        if path.is_dir() and list(path.glob("*.py"))
    ]
    assert PACKAGE / "core" in folders
    missing = [p.name for p in folders if f"`{p.name}/`" not in text]
    assert missing == []


def test_every_flag_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    commands = ("demo", "segment", "finetune", "replay", "evaluate", "models", "doctor")
    for command in commands:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
        assert "--debug" in flags
        section = text.split(f"## `{command}`")[1].split("\n## ")[0]
        assert sorted(f for f in flags if f not in section + "--debug") == []


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/how-to/adapters.md",
        "docs/how-to/install.md",
        "docs/reference/models/index.md",
    ],
)
def test_pages_name_every_adapter_of_the_package(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    names = [path.name for path in adapter_folders(SHIPPED_ADAPTERS)]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_shipped_weights_stay_small() -> None:
    folder = PACKAGE / "core" / "models" / "weights"
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    assert sizes
    assert sum(sizes) < 30e6

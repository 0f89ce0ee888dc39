"""The dialogs that ask for files; everything else takes a path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from napari_sac.widgets._questions import ask_yes

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget


def ask_open(parent: QWidget, title: str, patterns: str) -> Path | None:
    """Return a file that exists; None if the user thought better of it.

    Parameters
    ----------
    parent : QWidget
    title : str
    patterns : str
        As Qt wants them: ``"Tables (*.csv)"``.
    """
    name, _ = QFileDialog.getOpenFileName(parent, title, "", patterns)
    return Path(name) if name else None


def ask_folder(parent: QWidget, title: str) -> Path | None:
    """Return a folder that exists; None if the user thought better of it."""
    name = QFileDialog.getExistingDirectory(parent, title)
    return Path(name) if name else None


def ask_save(parent: QWidget, title: str, patterns: str, suggested: str) -> Path | None:
    """Return where to write; None if the user thought better of it.

    A name without one of the endings in ``patterns`` gets that of ``suggested``. What
    would be replaced then is asked for here: the dialog asked for the name as typed.
    """
    name, _ = QFileDialog.getSaveFileName(parent, title, suggested, patterns)
    if not name or name.lower().endswith(tuple(_endings(patterns))):
        return Path(name) if name else None
    path = Path(name).with_name(Path(name).name + _ending(suggested))
    question = f"{path} is there already. Replace it?"
    return path if not path.exists() or ask_yes(parent, question, "Replace") else None


def _endings(patterns: str) -> list[str]:
    """Return the endings of Qt's patterns: .tif and .tiff of TIFF (*.tif *.tiff)."""
    return re.findall(r"\*(\.\w+)", patterns)


def _ending(suggested: str) -> str:
    *before, last = Path(suggested).suffixes
    return f".ome{last}" if before[-1:] == [".ome"] else last

"""Sessions that are dropped into napari's window, or opened by its File menu."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sac.core.session.layout import SUFFIX, is_session

if TYPE_CHECKING:
    from collections.abc import Callable

    LayerData = tuple[Any, ...]

_NOTHING_TO_ADD: list[LayerData] = [(None,)]
"""What napari wants of a reader that adds its layers itself."""


def get_session_reader(
    path: str | list[str],
) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return a reader if the path is a session folder, else None."""
    if isinstance(path, list):
        return None
    if Path(path).suffix.lower() != SUFFIX or not is_session(path):
        return None
    return open_dropped_session


def open_dropped_session(path: str | list[str]) -> list[LayerData]:
    """Open a session in the window that is in use.

    Without a window its labels and prompts are returned as layers to look at.

    Raises
    ------
    NapariSacError
        If it cannot be opened; the message says why.
    """
    from napari import current_viewer
    from napari.utils.notifications import show_warning

    from napari_sac.viewer.session import AnnotationSession

    folder = path[0] if isinstance(path, list) else path
    viewer = current_viewer()
    if viewer is None:
        return _as_layers(Path(folder))
    session = AnnotationSession.of(viewer)
    if len(session.open_requested):
        session.open_requested.emit(Path(folder))
        return _NOTHING_TO_ADD
    # without the dock nobody else says what is wrong with it
    session.told.connect(show_warning)
    try:
        session.open(folder)
    finally:
        session.told.disconnect(show_warning)
    return _NOTHING_TO_ADD


def _as_layers(folder: Path) -> list[LayerData]:
    from napari_sac.core.session.journal import Journal
    from napari_sac.viewer.layers import labels_name, prompts_name

    journal = Journal.open(folder)
    try:
        restored = journal.restore()
    finally:
        journal.close(clean=False)
    layers: list[LayerData] = []
    for number, state in restored.shown.items():
        name = restored.images[number].name
        layers.append((state.labels, {"name": labels_name(name)}, "labels"))
        layers.append((state.prompts.yx, {"name": prompts_name(name)}, "points"))
    return layers
